//! Notices that nothing moves any more, so that a replay ends with an error instead of never.

use afterimage::internal::event::Status;

use super::pair::Pair;
use super::requests::NAMES;
use crate::exit::{Exit, Failure};

/// Without any movement for so long, nothing will move any more. A slow line is no stall: it
/// delivers something.
const LIMIT_NS: u64 = 60_000_000_000;

/// How often the devices are asked.
const PERIOD_NS: u64 = 100_000_000;

/// A thread that has not looked for so long was stopped meanwhile with its process: time that
/// does not count.
const ABSENCE_NS: u64 = 2_000_000_000;

/// When something last moved.
pub struct Stall {
    moved_at: u64,
    looked_at: u64,
    standing: Option<[String; 2]>,
}

impl Stall {
    /// Something moves `now`.
    pub fn new(now: u64) -> Stall {
        Stall { moved_at: now, looked_at: now, standing: None }
    }

    /// Something has moved.
    pub fn moved(&mut self, now: u64) {
        (self.moved_at, self.looked_at) = (now, now);
    }

    /// That nothing moves is no stall `now`.
    pub fn excuse(&mut self, now: u64) {
        self.moved_at = now;
    }

    /// Nothing has moved as far as the host sees: an error if that holds for the devices too and
    /// has for too long, if one has halted, or if they have lost each other.
    pub fn check(&mut self, now: u64, pair: &Pair) -> Result<(), Failure> {
        if now < self.looked_at + PERIOD_NS {
            return Ok(());
        }
        if now > self.looked_at + ABSENCE_NS {
            self.moved_at += now - self.looked_at;
        }
        self.looked_at = now;
        if let Some(failure) = pair.disconnected() {
            return Err(failure);
        }
        let status = pair.status();
        for (status, name) in status.iter().zip(NAMES) {
            if let Some(error) = &status.halted {
                return Err(Failure::device(format_args!("device {name}"), error));
            }
        }
        let standing = status.each_ref().map(describe);
        if self.standing.as_ref() != Some(&standing) {
            self.standing = Some(standing);
            self.moved_at = now;
        } else if now > self.moved_at + LIMIT_NS {
            let mut story = format!("nothing has moved for {} s", LIMIT_NS / 1_000_000_000);
            for (standing, name) in standing.iter().zip(NAMES) {
                story += &format!("; device {name}: {standing}");
            }
            return Err(Failure::new(Exit::Device, story));
        }
        Ok(())
    }
}

/// Where a device stands, as far as it can move.
fn describe(s: &Status) -> String {
    format!(
        "{}, {:?}, serving {}, connected {}, epoch {}, hi {}, need {}, acked {}, reflected {}, backlog {}, unreflected {}, owed {}, {:?}, own log {} % full, {} B used and {} places free, received log {} B used and {} places free",
        s.mode,
        s.differential,
        s.serving,
        s.connected,
        s.epoch,
        s.hi,
        s.need,
        s.acked,
        s.reflected,
        s.backlog_records,
        s.unreflected_records,
        s.owed_blocks,
        s.rung,
        s.own_fill_percent,
        s.own_used_bytes,
        s.own_free_places,
        s.recv_used_bytes,
        s.recv_free_places
    )
}
