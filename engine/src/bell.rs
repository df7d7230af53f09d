//! Wakes whoever waits for "something has moved", and costs next to nothing when nobody does.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `rung` | whoever rings | whoever waits | AcqRel/Acquire: what the bell is about has moved before it rang |
//! | `waiting` | whoever waits; whoever rings (by adding 0) | whoever rings | AcqRel read-modify-write: of the two, who comes second sees the other |

use crate::sync::{AtomicU64, Ordering, lock};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicU64,
    waiting: AtomicU64,
    gate: Mutex<()>,
    wake: Condvar,
}

impl Default for Bell {
    fn default() -> Bell {
        let zero = || AtomicU64::new(0);
        Bell { rung: zero(), waiting: zero(), gate: Mutex::new(()), wake: Condvar::new() }
    }
}

impl Bell {
    /// How often it has rung; to be read before looking at what the bell is about.
    pub fn heard(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        // A read-modify-write, so that it is ordered against the waiter's.
        if self.waiting.fetch_add(0, Ordering::AcqRel) > 0 {
            drop(lock(&self.gate));
            self.wake.notify_all();
        }
    }

    /// Waits until it has rung since `heard`, or for `timeout`.
    pub fn wait(&self, heard: u64, timeout: Duration) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let guard = lock(&self.gate);
        if self.heard() == heard {
            drop(self.wake.wait_timeout(guard, timeout));
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
