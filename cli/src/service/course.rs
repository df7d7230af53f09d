//! The course of a device since the service's start: how fast the peer gets data, up to when it has had everything, and
//! where the host moved last.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage::{Device, Event, Status};
use serde::Serialize;

use crate::latency::Latency;

/// How often a service looks at its device.
pub const TURN: Duration = Duration::from_secs(1);

/// Nanoseconds, the least that lies between two samples, and the longest time that a rate is of.
const STEP_NS: u64 = 900_000_000;
const WINDOW_NS: u64 = 8_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Course {
    /// The tenure at the start.
    begun: u64,
    /// How old records were when the peer had acknowledged them.
    pub lag: Latency,
    /// Records that the peer has acknowledged.
    acknowledged: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When, on the monotonic clock, and how many bytes the peer had got by then.
    samples: VecDeque<(u64, u64)>,
    /// Wall time, in nanoseconds since 1970.
    durable_until: Option<u64>,
    takeover: Option<Takeover>,
    takeovers: u64,
}

/// A move of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Takeover {
    /// Wall time, in nanoseconds since 1970, when the device that it moved to served.
    pub at_ns: u64,
    /// Its tenure.
    pub tenure: u64,
    /// Whether that is this device.
    pub here: bool,
    /// Blocks that the other one owed then, if that was known here.
    pub owed_blocks: Option<u64>,
}

impl Course {
    /// The course of `device`, from now on, as far as it is followed.
    pub fn new(device: &Device) -> Course {
        Course {
            begun: device.status().epoch,
            lag: Latency::default(),
            acknowledged: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Follows the events of `device`, which was opened just now.
    pub fn follow(self: &Arc<Course>, device: &Device) {
        // Bytes that the peer has got are counted from the opening.
        self.seen().samples.clear();
        let (course, clock) = (self.clone(), device.clock().clone());
        device.on_event(move |event| course.tell(event, clock.wall()));
    }

    /// `event` has happened at the wall time `wall`.
    pub(super) fn tell(&self, event: &Event, wall: u64) {
        let (tenure, owed_blocks) = match event {
            Event::Acknowledged { records, at } => {
                self.acknowledged.fetch_add(records.len() as u64, Ordering::Relaxed);
                records.iter().for_each(|(_, written)| self.lag.add(at.saturating_sub(*written)));
                return;
            }
            // A tenure that goes on after an opening is no move, and the first one of all is none.
            Event::Ready { epoch, owed_blocks } if *epoch > self.begun.max(1) => {
                (*epoch, Some(*owed_blocks))
            }
            Event::PeerServes { epoch } if *epoch > self.begun => (*epoch, None),
            _ => return,
        };
        let here = owed_blocks.is_some();
        let mut seen = self.seen();
        if seen.takeover.is_some_and(|last| last.tenure == tenure) {
            // The device was opened again in between.
            return;
        }
        seen.takeovers += 1;
        seen.takeover = Some(Takeover { at_ns: wall, tenure, here, owed_blocks });
    }

    /// At the monotonic time `now` the peer has got `sent` bytes in all.
    pub fn note(&self, sent: u64, now: u64) {
        let samples = &mut self.seen().samples;
        if samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= STEP_NS) {
            samples.push_back((now, sent));
        }
        // The oldest one that is left is at most a window old.
        while samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW_NS) {
            samples.pop_front();
        }
    }

    /// Bytes a second that the peer has got in the last seconds, at the monotonic time `now`, when it has got `sent` in all.
    pub fn rate(&self, sent: u64, now: u64) -> u64 {
        match self.seen().samples.front() {
            Some(&(at, bytes)) if now.saturating_sub(at) >= STEP_NS => {
                let got = sent.saturating_sub(bytes);
                let rate = u128::from(got) * 1_000_000_000 / u128::from(now - at);
                u64::try_from(rate).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// The wall time up to which the peer is known to have every write durably, if it ever was known: `known` is that of
    /// now, `wall`. One that is past stays true.
    pub fn durable_until(&self, known: Option<u64>, wall: u64) -> Option<u64> {
        let until = &mut self.seen().durable_until;
        // A clock that was put back must not make it look better than it is, now or later.
        *until = known.max(until.map(|until| until.min(wall)));
        *until
    }

    /// The last move of the host, and how many there were since the start.
    pub fn takeovers(&self) -> (Option<Takeover>, u64) {
        let seen = self.seen();
        (seen.takeover, seen.takeovers)
    }

    /// How many records the peer has acknowledged since the start.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that the peer has got since the opening: acknowledged records, and copies.
pub fn sent(status: &Status) -> u64 {
    status.acked_bytes + status.differential.copied_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use afterimage::Stamp;

    fn course() -> Course {
        Course {
            begun: 3,
            lag: Latency::default(),
            acknowledged: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    #[test]
    fn a_move_of_the_host_is_remembered_and_an_opening_is_none() {
        let course = course();
        course.tell(&Event::Ready { epoch: 3, owed_blocks: 0 }, 5);
        course.tell(&Event::PeerServes { epoch: 3 }, 6);
        assert_eq!(course.takeovers(), (None, 0));
        course.tell(&Event::PeerServes { epoch: 4 }, 7);
        course.tell(&Event::Ready { epoch: 5, owed_blocks: 9 }, 8);
        let last = Takeover { at_ns: 8, tenure: 5, here: true, owed_blocks: Some(9) };
        assert_eq!(course.takeovers(), (Some(last), 2));
        let records = vec![(Stamp::ZERO, 10), (Stamp::ZERO, 20)];
        course.tell(&Event::Acknowledged { records, at: 1_000_000_020 }, 9);
        assert_eq!((course.acknowledged(), course.lag.read().count), (2, 2));
    }

    #[test]
    fn a_time_that_was_known_stays_and_is_never_ahead_of_the_clock() {
        let course = course();
        assert_eq!(course.durable_until(None, 5), None);
        assert_eq!(course.durable_until(Some(7), 8), Some(7));
        assert_eq!(course.durable_until(None, 90), Some(7), "bits stand");
        assert_eq!(course.durable_until(Some(6), 90), Some(7));
        assert_eq!(course.durable_until(None, 3), Some(3), "the clock was put back");
    }

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let course = course();
        assert_eq!(course.rate(7, 0), 0, "nothing was seen yet");
        for second in 0..20 {
            course.note(second * 500, second * 1_000_000_000);
        }
        assert_eq!(course.rate(20 * 500, 20_000_000_000), 500);
        course.note(20 * 500, 20_000_000_000);
        assert!(course.seen().samples.len() <= 9, "samples are given up");
        course.note(20 * 500, 50_000_000_000);
        assert_eq!(
            course.rate(20 * 500, 50_000_000_001),
            0,
            "a sample that has just been taken says nothing"
        );
        assert_eq!(course.rate(20 * 500, 52_000_000_000), 0);
    }
}
