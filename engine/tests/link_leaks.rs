//! Links that come and go leave no thread, descriptor or memory behind. In a process of its own, which is
//! looked at as a whole.
#![cfg(all(feature = "tcp", not(loom)))]

use afterimage::tcp::{Acceptor, DeviceKey, Dialler, Pins, TcpSettings};
use afterimage::{Connector, Lane};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Threads and descriptors of this process.
fn held() -> [usize; 2] {
    ["task", "fd"].map(|of| std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count())
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}: {:?}", held());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn links_that_come_and_go_leave_nothing_behind() {
    let rounds = std::env::var("LINKS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let [accepts, dials] = [(); 2].map(|()| DeviceKey::generate().unwrap());
    let pins = Pins::new(dials.public());
    let mut acceptor =
        Acceptor::bind("127.0.0.1:0", &accepts, &pins, TcpSettings::default()).unwrap();
    let address = acceptor.address().to_string();
    let pin = Pins::new(accepts.public());
    let mut dialler = Dialler::new(&address, &dials, &pin, TcpSettings::default());
    let mut stranger = Dialler::new(&address, &accepts, &pin, TcpSettings::default());
    let before = held();
    let mut settled = 0;
    for round in 0..rounds {
        let here = dialler.connect(PATIENCE).unwrap().expect("dialled");
        let there = acceptor.connect(PATIENCE).unwrap().expect("accepted");
        let lane = if round % 2 == 0 { Lane::Data } else { Lane::Control };
        here.send(lane, vec![1; 100_000]).unwrap();
        assert!(there.wait(lane, PATIENCE.as_nanos() as u64));
        match round % 3 {
            0 => here.close(),
            1 => there.close(),
            _ => drop(here), // with a frame that nobody has received
        }
        if round % 64 == 1 {
            // More than the other end and the sockets hold: both threads of the lane are stuck.
            let here = dialler.connect(PATIENCE).unwrap().expect("dialled");
            let _there = acceptor.connect(PATIENCE).unwrap().expect("accepted");
            (0..16).for_each(|_| here.send(Lane::Data, vec![1; 1 << 20]).unwrap());
            until("it sends", || here.queued(Lane::Data) < 14 << 20);
        }
        drop(TcpStream::connect(&address).unwrap());
        if round % 4 == 0 {
            assert!(stranger.connect(PATIENCE).is_err());
        }
        if round == rounds / 4 {
            settled = resident();
        }
    }
    until("threads and descriptors are gone", || held() == before);
    // A link that stays would have 100 KB in a queue, or its buffers.
    let grown = resident().saturating_sub(settled);
    assert!(grown < 8 << 10, "{grown} KiB of memory have stayed");
}
