//! Hosts that were not served, counted.

#[cfg(doc)]
use super::Settings;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hosts that were not served, counted from the server's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were closed as they came: there were [`Settings::connections_max`] of them, or
    /// [`Settings::strangers_max`], or the system had no room.
    pub too_many: u64,
    /// TLS handshakes that failed: no certificate, one that is not believed or is over, an older version.
    pub handshakes: u64,
    /// Connections whose negotiation was not over in time.
    pub late: u64,
    /// Connections that ended because the protocol was broken.
    pub broken: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub too_many: AtomicU64,
    pub handshakes: AtomicU64,
    pub late: AtomicU64,
    pub broken: AtomicU64,
}

impl Counts {
    pub fn read(&self) -> Counters {
        let Counts { too_many, handshakes, late, broken } = self;
        let [too_many, handshakes, late, broken] =
            [too_many, handshakes, late, broken].map(|count| count.load(Ordering::Relaxed));
        Counters { too_many, handshakes, late, broken }
    }
}

/// One more.
pub(super) fn count(at: &AtomicU64) {
    at.fetch_add(1, Ordering::Relaxed);
}
