//! Two devices become a pair: the joining one dials the inviting one, proves that it knows the invitation's
//! secret, and its key is pinned there.
//!
//! The order at the inviting device, so that a crash anywhere leaves an invitation that the same key may use
//! again, and no other: the record that names the key is durable, then its pin, then the answer goes.

use super::greeting::{Answer, Greeting, Purpose, Word, failed};
use super::wire::{Broken, Wire};
use super::{DeviceKey, Invitation, Pins, PublicKey, Record, TcpSettings, dial, random, tls};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::sync::{AtomicBool, Ordering, lock};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most bytes that an inviting device tells a joining one.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// How long a joining device waits for the answer, while the inviting one stores the pairing.
const ANSWER: Duration = Duration::from_secs(60);

/// The part of an inviting device's owner in a pairing. Called by a thread of the accepting end, one call
/// at a time; it calls neither [`Acceptor::invite`](super::Acceptor::invite) nor `withdraw`, which wait for it.
pub trait Inviter: Send {
    /// Stores the record of the invitation, in the place of the one before; durable when it returns.
    ///
    /// # Errors
    /// Whatever keeps it from that: the joining device is told to try again.
    fn store(&mut self, record: &Record) -> Result<()>;

    /// Pins the key `joiner`, which dialled from `from`; durable when it returns. It returns what the joining
    /// device is told: [`PAYLOAD_BYTES_MAX`] bytes at most, the same each time. After a crash it is called again
    /// with the same key.
    ///
    /// # Errors
    /// Whatever keeps it from that: the joining device is told to try again.
    fn pin(&mut self, joiner: PublicKey, from: SocketAddr) -> Result<Vec<u8>>;

    /// Hears what has come of a device that tried to join.
    fn tell(&mut self, event: PairingEvent);
}

/// A device tried to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingEvent {
    /// The key that it has shown.
    pub joiner: PublicKey,
    /// Where it dialled from.
    pub from: SocketAddr,
    /// The outcome.
    pub outcome: PairingOutcome,
}

/// The outcome of an attempt to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairingOutcome {
    /// It is the peer now.
    Paired,
    /// It had been answered before, and was answered alike.
    Repeated,
    /// Refused: it knows the secret, and the key `first` has used the invitation before. Somebody has the
    /// invitation who should not, one of the two.
    Used {
        /// The key that is pinned.
        first: PublicKey,
    },
    /// Refused: its secret is wrong.
    WrongSecret {
        /// How many have been wrong so far.
        tries: u32,
    },
    /// Refused: it came too late.
    Expired,
    /// Refused: too many wrong secrets were tried before.
    Void,
}

/// The invitation that stands at an accepting end, if there is one.
#[derive(Default)]
pub(super) struct Inviting {
    is_open: AtomicBool,
    standing: Mutex<Option<(Record, Box<dyn Inviter>)>>,
}

impl Inviting {
    pub(super) fn open(&self, record: Record, inviter: Box<dyn Inviter>) {
        *lock(&self.standing) = Some((record, inviter));
        self.is_open.store(true, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        *lock(&self.standing) = None;
    }

    /// Whether a key that is not pinned may come in, to pair.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Decides about the `proof` of the device with the key `joiner`, here at the device with the key `own`: the
    /// answer, and what follows it.
    pub(super) fn decide(
        &self,
        proof: &[u8; 32],
        own: PublicKey,
        joiner: PublicKey,
        from: SocketAddr,
        pins: &Pins,
    ) -> (Word, Vec<u8>) {
        let mut standing = lock(&self.standing);
        let Some((record, inviter)) = &mut *standing else { return (Word::NotInvited, Vec::new()) };
        let mut next = record.clone();
        let outcome = next.judge(proof, joiner, own, SystemClock::default().wall());
        if next != *record && inviter.store(&next).is_err() {
            return (Word::Failed, Vec::new());
        }
        let has_changed = next != *record;
        *record = next;
        let (word, payload) = match outcome {
            PairingOutcome::Paired | PairingOutcome::Repeated => match inviter.pin(joiner, from) {
                Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => (Word::Welcome, payload),
                Ok(_) | Err(_) => return (Word::Failed, Vec::new()),
            },
            PairingOutcome::Used { .. } => (Word::Used, Vec::new()),
            PairingOutcome::WrongSecret { .. } => (Word::WrongSecret, Vec::new()),
            PairingOutcome::Expired => (Word::Expired, Vec::new()),
            PairingOutcome::Void => (Word::Void, Vec::new()),
        };
        if word == Word::Welcome {
            pins.add(joiner);
        }
        // Guesses that change nothing are no news: anybody could make any number of them.
        let is_guess = matches!(outcome, PairingOutcome::Void | PairingOutcome::WrongSecret { .. });
        if has_changed || !is_guess {
            inviter.tell(PairingEvent { joiner, from, outcome });
        }
        (word, payload)
    }
}

/// A device that has joined knows this of its peer. It pins the key before it does anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The inviting device's key, which has the fingerprint of the invitation.
    pub inviter: PublicKey,
    /// The words of its owner ([`Inviter::pin`]).
    pub payload: Vec<u8>,
}

/// Pairs the device with `key` with the one that has made the `invitation`, at `address` (`HOST:PORT`). Nothing
/// of the invitation goes to any other device. A call that failed may be repeated with the same key.
///
/// # Errors
/// [`Kind::Protocol`] if the device there is another one, or refuses; [`Kind::Timeout`] and [`Kind::NoPeer`] if it
/// does not answer.
pub fn join(
    address: &str,
    invitation: &Invitation,
    key: &DeviceKey,
    settings: &TcpSettings,
) -> Result<Joined> {
    let until = Instant::now() + settings.handshake;
    let (stream, invited) = (dial::connect(address, false, until)?, invitation.inviter());
    let config = tls::client(key, Box::new(move |key| key.fingerprint() == invited));
    let mut wire = Wire::dial(stream, Some(&config), until).map_err(|broken| match broken {
        Broken::WrongKey(found) => {
            let (found, what) = (found.fingerprint(), "and the invitation is of the device");
            let what = format!("the device at {address} has the key {found}, {what} {invited}");
            Error::new(Kind::Protocol, what + ": nothing was sent; somebody may be in between")
        }
        broken => failed(broken, address),
    })?;
    let inviter = wire.peer().expect("its key was looked at");
    let greeting = Greeting::new(Purpose::Pairing, random()?).encode();
    let proof = invitation.prove(key.public(), inviter);
    wire.send(&[&greeting[..], &proof].concat()).map_err(|e| failed(e, address))?;
    wire.until = Instant::now() + ANSWER;
    let length = Answer::receive(&mut wire, address)?;
    if length > PAYLOAD_BYTES_MAX {
        let what = format!(
            "the device at {address} would tell {length} bytes, more than the {PAYLOAD_BYTES_MAX} allowed"
        );
        return Err(Error::new(Kind::Protocol, what));
    }
    let mut payload = vec![0; length];
    wire.receive(&mut payload).map_err(|e| failed(e, address))?;
    Ok(Joined { inviter, payload })
}
