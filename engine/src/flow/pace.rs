//! The rungs of the ladder (LADDER 6): how a host is slowed down while the own journal is filling,
//! before it stops for want of room.
//!
//! From one threshold on each write is delayed, the longer the fuller the journal is; below another,
//! lower one no write is any more. A delayed write holds nothing, and has not been admitted. The fill
//! is looked at where it changes by much, at a commit and a checkpoint, and by each write that is to be
//! delayed.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `Pace::is_on` | a thread that surveys, under `seen` | each write | Relaxed: a write beside the change goes either way; one that waits looks once more behind its entry among the waiters |
//! | `Pace::due_at` | the same | a thread that surveys | Relaxed: a sample early or late is as good |

use super::trend::Trend;
use crate::device::Device;
use crate::event::{Event, Rung};
use crate::journal::FULL;
use crate::limits::Settings;
use crate::sync::{AtomicBool, AtomicU64, Ordering, lock};
use crate::wake::Key;
use crate::weaken::{Clause, holds};
use std::sync::Mutex;

/// A fill in parts of [`FULL`] as a percentage.
pub(crate) fn percent(fill: u64) -> u64 {
    fill / (FULL / 100)
}

/// The rung, and what it follows from.
#[derive(Debug)]
pub(crate) struct Pace {
    max_ns: u64,
    from: u64,
    until: u64,
    /// Whether writes are delayed.
    is_on: AtomicBool,
    /// When the next sample is taken, on the monotonic clock, in nanoseconds.
    due_at: AtomicU64,
    seen: Mutex<Trend>,
}

impl Pace {
    /// The pace of a device that has not served yet.
    pub fn new(settings: &Settings) -> Pace {
        let part = |percent: u64| percent * (FULL / 100);
        Pace {
            max_ns: settings.pacing_max_ns,
            from: part(settings.pacing_from_percent),
            until: part(settings.pacing_until_percent),
            is_on: AtomicBool::new(false),
            due_at: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Whether writes are delayed.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The delay of a write with the journal so full, in nanoseconds.
    fn delay(&self, fill: u64) -> u64 {
        let above = u128::from(fill.saturating_sub(self.from));
        (u128::from(self.max_ns) * above / u128::from(FULL - self.from)) as u64
    }
}

impl Device {
    /// Looks how full the own journal is, and changes the rung if it is time, with an event. Returns the
    /// delay of a write that comes now, in nanoseconds.
    pub(crate) fn survey(&self) -> u64 {
        let pace = &self.host.pace;
        if self.is_filled_to_suspend() || self.is_outage_timed() {
            self.wakes.ship.ring();
        }
        let at = self.clock.monotonic();
        let is_due = at >= pace.due_at.load(Ordering::Relaxed);
        // Each commit comes here: most find nothing to do, without a lock.
        if !is_due && pace.max_ns == 0 {
            return 0;
        }
        let fill = self.own.journal.fill();
        if !is_due && !pace.is_on() && fill < pace.from {
            return 0;
        }
        let mut seen = lock(&pace.seen);
        pace.due_at.store(seen.note(at, fill), Ordering::Relaxed);
        let mut end = pace.from;
        if holds(Clause::PacingEnd) {
            end = pace.until;
        }
        let fill_percent = percent(fill);
        match pace.is_on() {
            false if pace.max_ns > 0 && fill >= pace.from => {
                pace.is_on.store(true, Ordering::Relaxed);
                self.tell(Event::Paced { fill_percent });
            }
            true if fill < end => {
                pace.is_on.store(false, Ordering::Relaxed);
                self.tell(Event::PacingEnded { fill_percent });
                drop(seen);
                self.wakes.waiters.wake(Key::Paced..=Key::Paced);
                return 0;
            }
            _ => {}
        }
        if pace.is_on() { pace.delay(fill) } else { 0 }
    }

    /// The present rung.
    pub(crate) fn rung(&self) -> Rung {
        let pace = &self.host.pace;
        match pace.is_on() {
            true => Rung::Paced { delay_ns: pace.delay(self.own.journal.fill()) },
            false => Rung::Ordered,
        }
    }

    /// Nanoseconds until the own journal is full, by its rate of filling.
    pub(crate) fn full_in(&self) -> Option<u64> {
        self.filled_in(FULL)
    }

    /// Nanoseconds until the own journal holds so much, by its rate of filling.
    fn filled_in(&self, target: u64) -> Option<u64> {
        let (at, fill) = (self.clock.monotonic(), self.own.journal.fill());
        lock(&self.host.pace.seen).reaches_in(at, fill, target)
    }

    /// Nanoseconds until the journal's fill leads to another rung: pacing, its end, or a suspension at
    /// `suspend_from` percent; without these, until it is full.
    pub(crate) fn fill_leads_in(&self, suspend_from: Option<u64>) -> Option<u64> {
        let pace = &self.host.pace;
        let ends = pace.is_on().then(|| self.filled_in(pace.until)).flatten();
        let begins = (!pace.is_on() && pace.max_ns > 0).then_some(pace.from);
        let suspends = suspend_from.map(|percent| percent * (FULL / 100));
        let next = begins.into_iter().chain(suspends).min().unwrap_or(FULL);
        ends.or_else(|| self.filled_in(next))
    }
}
