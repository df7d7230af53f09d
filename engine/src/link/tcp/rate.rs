//! A limit of what a lane sends in a second.

use crate::error::{Error, Kind, Result};
use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The lowest rate, in bytes a second: below it a lane would seem silent.
pub const RATE_MIN: u64 = 4096;

/// Most bytes that are encrypted and sent at a time: fewer wake the other end more often. A rate that changes is
/// heeded at the next.
const PIECE_MAX: u64 = 256 << 10;
const PIECE_MIN: u64 = 1 << 10;

/// Pieces a second, as far as their bounds let.
const PIECES: u64 = 20;

/// How many bytes of frames a second a data lane may send; without limit at first. A clone is the
/// same rate. A change is heeded within 250 ms.
#[derive(Clone, Debug, Default)]
pub struct Rate(Arc<AtomicU64>);

impl Rate {
    /// From now on at most `bytes_per_second`, [`RATE_MIN`] or more; `None`: as many as the line takes.
    ///
    /// # Errors
    /// [`Kind::Config`] if it is less; the rate stays as it was.
    pub fn set(&self, bytes_per_second: Option<u64>) -> Result<()> {
        if let Some(found) = bytes_per_second.filter(|rate| *rate < RATE_MIN) {
            let what =
                format!("the rate is {found} bytes/s; it must be {RATE_MIN} or more, or off");
            return Err(Error::new(Kind::Config, what));
        }
        self.0.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// The limit in bytes per second, if there is one.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

/// When a lane may send.
pub(super) struct Pace {
    rate: Rate,
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Pace {
        Pace { rate, free_at: Instant::now() }
    }

    /// Most bytes of the next piece.
    pub(super) fn piece(&self) -> usize {
        let piece = self.rate.get().map_or(PIECE_MAX, |rate| rate / PIECES);
        piece.clamp(PIECE_MIN, PIECE_MAX) as usize
    }

    /// How long a piece of `bytes` has to wait; the one after it waits until this one has had its time.
    pub(super) fn wait(&mut self, bytes: usize) -> Duration {
        let Some(rate) = self.rate.get() else { return Duration::ZERO };
        let now = Instant::now();
        let begins = self.free_at.max(now);
        self.free_at = begins + Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate);
        begins - now
    }
}
