//! A link over TCP: two connections, one a lane, in TLS 1.3 between two ends that know each other's keys.
//!
//! ```text
//! accept.rs ─┐                                           ┌▶ queues.rs ─▶ rate.rs ─▶ seal ─▶ socket
//!            ├▶ wire.rs, tls.rs ─▶ greeting.rs ─▶ session.rs    (lane.rs: a reader and a writer a lane)
//! dial.rs  ──┘                          │                └▶ socket ─▶ open ─▶ frames.rs ─▶ queues.rs
//!                                       └▶ pairing.rs, invitation.rs
//! ```
//!
//! - Nothing is sent or taken in the clear, but between two ends that were made `insecure`, on loopback
//!   addresses only.
//! - The pin is the key: an Ed25519 key as a raw public key (RFC 7250). There are no certificates, no dates, no
//!   resumption and no 0-RTT.
//! - Both connections of a session show the same key and the same nonce, which the dialling end has drawn for
//!   this session. The accepting end joins what belongs together, and a nonce never twice.
//! - Before a peer has shown its key it may cost a thread, some descriptors and some KiB for
//!   [`TcpSettings::handshake`], and all such peers together no more than [`TcpSettings::handshakes_max`] of that.
//!
//! Nothing here is done before it is called for: a socket is opened by [`Dialler::connect`](crate::Connector),
//! [`Acceptor::bind`] and [`join`] only. `docs/security.md` says what each secret protects.

mod accept;
mod base32;
mod dial;
pub(crate) mod frames;
pub(crate) mod greeting;
pub(crate) mod invitation;
mod keys;
mod lane;
mod pairing;
mod pins;
mod queues;
mod rate;
mod session;
#[doc(hidden)]
pub mod tls; // for this project's measurements
mod wire;

#[cfg(all(test, not(loom)))]
mod tests;

pub use accept::{Acceptor, Counters};
pub use dial::Dialler;
pub use invitation::{INVITATION_VALID_NS, Invitation, Record, TRIES_MAX};
pub use keys::{DeviceKey, Fingerprint, KEY_FILE, PublicKey};
pub use pairing::{Inviter, Joined, PAYLOAD_BYTES_MAX, PairingEvent, PairingOutcome, join};
pub use pins::Pins;
pub use rate::{RATE_MIN, Rate};
pub use session::TcpLink;

use std::time::Duration;

/// The settings of an end. Later versions have more: begin with the default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpSettings {
    /// A lane in which nothing has arrived for so long is down; an idle one sends something each third of it.
    /// Both ends are to have the same; the default is 10 s. At least 30 ms.
    pub silence: Duration,
    /// How long a connection may take until it stands: TCP, TLS, greeting and answer. The default is 10 s.
    pub handshake: Duration,
    /// Most connections at the accepting end that have not shown their key yet; one more is hung up on. The
    /// default is 16.
    pub handshakes_max: usize,
    /// The rate of the data lane at this end, for each session of it. A clone is the same rate, and changes it at any time.
    pub rate: Rate,
}

impl Default for TcpSettings {
    fn default() -> TcpSettings {
        TcpSettings {
            silence: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            handshakes_max: 16,
            rate: Rate::default(),
        }
    }
}

/// 128 bits that cannot be guessed.
fn random() -> crate::error::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| {
        crate::error::Error::storage("asking the operating system for random bits", e.into())
    })?;
    Ok(bytes)
}
