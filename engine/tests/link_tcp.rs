//! Two devices over an encrypted link: they replicate, come back after either end was lost, and pair by
//! an invitation first.
#![cfg(all(feature = "tcp", not(loom)))]

use afterimage::tcp::{
    Acceptor, DeviceKey, Dialler, Invitation, Inviter, PairingEvent, Pins, PublicKey, Record,
    TcpSettings, join,
};
use afterimage::{
    Clock, Device, Geometry, Memory, Result, Settings, SystemClock, Threads, VolumeSpec,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn device(id: u64) -> (Arc<Device>, Threads) {
    let storage = Arc::new(Memory::new());
    let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
    let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, id, volumes) };
    Device::create(&*storage, &geometry, id == 1).unwrap();
    let device =
        Device::open(storage, Arc::new(SystemClock::default()), Settings::default()).unwrap();
    let threads = Threads::start(&device).unwrap();
    (device, threads)
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An owner that keeps nothing: what a device stores is in the tests of the pairing itself.
struct Owner;

impl Inviter for Owner {
    fn store(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn pin(&mut self, _: PublicKey, _: SocketAddr) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn tell(&mut self, _: PairingEvent) {}
}

#[test]
fn a_pair_is_made_replicates_and_comes_back() {
    let (inviting, joining) = (device(1), device(2));
    let keys = [(); 2].map(|()| DeviceKey::generate().unwrap());
    let pins = Pins::default();
    let acceptor = Acceptor::bind("127.0.0.1:0", &keys[0], &pins, TcpSettings::default()).unwrap();
    let address = acceptor.address().to_string();
    inviting.1.keep_connected(&inviting.0, acceptor.clone()).unwrap();
    let invitation = Invitation::new(keys[0].public(), None).unwrap();
    acceptor.invite(invitation.record(SystemClock::default().wall()), Owner);

    let joined = join(&address, &invitation, &keys[1], &TcpSettings::default()).unwrap();
    acceptor.withdraw();
    let pin = Pins::new(joined.inviter);
    let dialler = Dialler::new(&address, &keys[1], &pin, TcpSettings::default());
    joining.1.keep_connected(&joining.0, dialler.clone()).unwrap();

    let devices = [&inviting.0, &joining.0];
    let stand = || devices.iter().all(|device| device.status().connected);
    for round in 0..6u8 {
        until("they are connected", stand);
        let sessions = acceptor.counters().sessions;
        let active = devices[usize::from(round % 2)];
        if round > 0 {
            active.takeover().unwrap();
        }
        let session = active.session().unwrap();
        for block in 0..64 {
            session.write(0, block * 4096, &[round + 1; 4096]).unwrap();
        }
        session.flush().unwrap();
        // Rivals dial, with a key that nobody knows, and none.
        let rival = DeviceKey::generate().unwrap();
        assert!(join(&address, &invitation, &rival, &TcpSettings::default()).is_err());
        drop(std::net::TcpStream::connect(&address).unwrap());
        assert_eq!(acceptor.counters().sessions, sessions, "nobody else gets a session");
        until("the peer has all", || active.status().backlog_records == 0);
    }
    assert_eq!(acceptor.peer().unwrap().1, Some(keys[1].public()));
    assert_eq!(dialler.peer().unwrap().1, Some(keys[0].public()));
    drop((inviting.1, joining.1));
}
