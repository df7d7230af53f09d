//! Devices that pair: with the right invitation, a wrong, an old, a leaked one; and what a crash leaves.

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use std::net::SocketAddr;
use std::sync::Mutex;

/// The disk of the inviting device's owner, and the events that it was told.
#[derive(Clone, Default)]
pub(super) struct Owner(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    record: Option<Vec<u8>>,
    pinned: Vec<PublicKey>,
    events: Vec<PairingEvent>,
    /// The next pin is durable, and the caller does not hear so: as if it had died.
    dies: bool,
}

impl Inviter for Owner {
    fn store(&mut self, record: &Record) -> Result<()> {
        self.0.lock().unwrap().record = Some(record.encode());
        Ok(())
    }

    fn pin(&mut self, joiner: PublicKey, _: SocketAddr) -> Result<Vec<u8>> {
        let mut disk = self.0.lock().unwrap();
        let first = Record::decode(disk.record.as_ref().expect("stored before")).unwrap();
        assert_eq!(first.used_by(), Some(joiner), "the record is durable first");
        if !disk.pinned.contains(&joiner) {
            disk.pinned.push(joiner);
        }
        if std::mem::take(&mut disk.dies) {
            return Err(Error::new(Kind::Halted, "killed"));
        }
        Ok(b"group, volumes, geometry".to_vec())
    }

    fn tell(&mut self, event: PairingEvent) {
        self.0.lock().unwrap().events.push(event);
    }
}

impl Owner {
    fn outcomes(&self) -> Vec<PairingOutcome> {
        self.0.lock().unwrap().events.iter().map(|event| event.outcome).collect()
    }
}

/// An inviting device, and its invitation, made `age` ago.
struct Inviting {
    key: DeviceKey,
    pins: Pins,
    acceptor: Acceptor,
    owner: Owner,
    invitation: Invitation,
}

fn inviting(age: Duration) -> Inviting {
    let key = DeviceKey::generate().unwrap();
    let pins = Pins::default();
    let acceptor = Acceptor::bind("127.0.0.1:0", &key, &pins, TcpSettings::default()).unwrap();
    let owner = Owner::default();
    let address = acceptor.address().to_string();
    let invitation = Invitation::new(key.public(), Some(&address)).unwrap();
    let made = SystemClock::default().wall() - age.as_nanos() as u64;
    acceptor.invite(invitation.record(made), owner.clone());
    Inviting { key, pins, acceptor, owner, invitation }
}

impl Inviting {
    fn join(&self, key: &DeviceKey) -> Result<Joined> {
        let address = self.invitation.address().expect("it was given");
        join(address, &self.invitation, key, &TcpSettings::default())
    }
}

fn refusal(joined: Result<Joined>) -> String {
    let error = joined.expect_err("it is refused");
    assert_eq!(error.kind(), Kind::Protocol);
    error.to_string()
}

#[test]
fn two_devices_pair_and_have_a_session() {
    let mut inviting = inviting(Duration::ZERO);
    let key = DeviceKey::generate().unwrap();
    let text = inviting.invitation.to_text();
    let invitation: Invitation = text.parse().unwrap();
    let address = invitation.address().unwrap();
    let joined = join(address, &invitation, &key, &TcpSettings::default()).unwrap();
    assert_eq!((joined.inviter, &joined.payload[..5]), (inviting.key.public(), &b"group"[..]));
    let mut dialler =
        Dialler::new(address, &key, &Pins::new(joined.inviter), TcpSettings::default());
    let here = dialler.connect(PATIENCE).unwrap().expect("dialled");
    let there = inviting.acceptor.connect(PATIENCE).unwrap().expect("accepted");
    here.send(Lane::Data, vec![1]).unwrap();
    assert_eq!(next(&there, Lane::Data), Some(vec![1]));
    assert_eq!(inviting.owner.0.lock().unwrap().pinned, [key.public()]);
    assert_eq!(inviting.owner.outcomes(), [PairingOutcome::Paired]);
}

/// The same key gets the same answer, as often as it asks; another one is refused, and the event names it. So
/// with an invitation that leaked, and was used by another first.
#[test]
fn an_invitation_is_of_one_key() {
    let inviting = inviting(Duration::ZERO);
    let [first, second] = [(); 2].map(|()| DeviceKey::generate().unwrap());
    let joined = inviting.join(&first).unwrap();
    assert_eq!(inviting.join(&first).unwrap(), joined);
    let refused = refusal(inviting.join(&second));
    assert!(refused.contains("another device has used the invitation"), "{refused}");
    let event = inviting.owner.0.lock().unwrap().events.last().unwrap().clone();
    assert_eq!(event.outcome, PairingOutcome::Used { first: first.public() });
    assert!(event.joiner == second.public() && event.from.ip().is_loopback());
    assert!(inviting.pins.contains(first.public()) && !inviting.pins.contains(second.public()));
    assert_eq!(inviting.join(&first).unwrap(), joined);
    // A new invitation takes the place of the old one.
    let next = Invitation::new(inviting.key.public(), None).unwrap();
    inviting.acceptor.invite(next.record(SystemClock::default().wall()), inviting.owner.clone());
    assert!(refusal(inviting.join(&second)).contains("not its last one"));
}

#[test]
fn an_invitation_ends_after_an_hour() {
    let hour = Duration::from_nanos(INVITATION_VALID_NS);
    let late = inviting(hour);
    assert!(refusal(late.join(&DeviceKey::generate().unwrap())).contains("hour is over"));
    assert_eq!(late.owner.outcomes(), [PairingOutcome::Expired]);
    assert!(late.pins.is_empty());
    let early = inviting(hour - Duration::from_secs(60));
    early.join(&DeviceKey::generate().unwrap()).unwrap();
}

/// The count lasts across a crash of the inviting device, which stores each try before it answers.
#[test]
fn five_wrong_secrets_void_an_invitation() {
    let inviting = inviting(Duration::ZERO);
    let key = DeviceKey::generate().unwrap();
    let address = inviting.acceptor.address().to_string();
    let wrong = Invitation::new(inviting.key.public(), None).unwrap();
    for tries in 1..=TRIES_MAX {
        let refused = refusal(join(&address, &wrong, &key, &TcpSettings::default()));
        assert!(refused.contains("not its last one"), "{refused}");
        let stored = inviting.owner.0.lock().unwrap().record.clone().unwrap();
        let stored = Record::decode(&stored).unwrap();
        assert_eq!(stored.wrong_tries(), tries);
        inviting.acceptor.invite(stored, inviting.owner.clone());
    }
    assert!(refusal(inviting.join(&key)).contains("void"));
    let last = PairingOutcome::WrongSecret { tries: TRIES_MAX };
    assert_eq!(inviting.owner.outcomes().last(), Some(&last), "what changes nothing is not told");
    assert!(inviting.pins.is_empty());
}

/// The inviting device dies between the pin and the answer: the joining one tries again, nobody else may.
#[test]
fn a_crash_between_pin_and_answer_is_mended_by_another_try() {
    let inviting = inviting(Duration::ZERO);
    let [key, thief] = [(); 2].map(|()| DeviceKey::generate().unwrap());
    inviting.owner.0.lock().unwrap().dies = true;
    assert!(refusal(inviting.join(&key)).contains("try again"));
    assert_eq!(inviting.owner.0.lock().unwrap().pinned, [key.public()]);
    // It starts again from what is on its disk.
    let stored = inviting.owner.0.lock().unwrap().record.clone().unwrap();
    inviting.acceptor.invite(Record::decode(&stored).unwrap(), inviting.owner.clone());
    assert!(refusal(inviting.join(&thief)).contains("another device has used"));
    assert_eq!(inviting.join(&key).unwrap().payload, b"group, volumes, geometry");
    assert_eq!(inviting.owner.0.lock().unwrap().pinned, [key.public()]);
    let used = PairingOutcome::Used { first: key.public() };
    assert_eq!(inviting.owner.outcomes(), [used, PairingOutcome::Repeated]);
}

/// A device in between has another key: it gets the first message of a handshake, and nothing after it.
#[test]
fn a_device_in_between_learns_nothing() {
    let inviting = inviting(Duration::ZERO);
    let key = DeviceKey::generate().unwrap();
    let between = DeviceKey::generate().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = tls::server(&between, Box::new(|_| true));
    let listens = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let wire = super::wire::Wire::accept(stream, Some(&config), Instant::now() + PATIENCE);
        wire.map(|wire| wire.peer()).map_err(|e| e.to_string())
    });
    let refused = refusal(join(&address, &inviting.invitation, &key, &TcpSettings::default()));
    assert!(refused.contains("nothing was sent"), "{refused}");
    assert!(refused.contains(&between.public().fingerprint().to_string()), "{refused}");
    listens.join().unwrap().expect_err("it has not even seen the joining device's key");
    assert_eq!(inviting.owner.outcomes(), []);
}

/// The owner's words are bounded at both ends; nothing is pinned in memory that was not stored.
#[test]
fn an_answer_is_bounded() {
    struct Talks(usize);
    impl Inviter for Talks {
        fn store(&mut self, _: &Record) -> Result<()> {
            Ok(())
        }
        fn pin(&mut self, _: PublicKey, _: SocketAddr) -> Result<Vec<u8>> {
            Ok(vec![7; self.0])
        }
        fn tell(&mut self, _: PairingEvent) {}
    }
    for (length, fits) in [(PAYLOAD_BYTES_MAX, true), (PAYLOAD_BYTES_MAX + 1, false)] {
        let inviting = inviting(Duration::ZERO);
        let record = inviting.invitation.record(SystemClock::default().wall());
        inviting.acceptor.invite(record, Talks(length));
        let joined = inviting.join(&DeviceKey::generate().unwrap());
        assert_eq!((joined.is_ok(), inviting.pins.is_empty()), (fits, !fits));
        assert!(joined.is_err() || joined.unwrap().payload == vec![7; length]);
    }
}
