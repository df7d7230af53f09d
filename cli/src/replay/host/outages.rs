//! Outages of the line between the devices: when it goes down and comes back, and what that cost.
//!
//! Hosts go on meanwhile. At the trace's pace an outage begins and ends by the clock. With `--speed
//! max` the trace's time is that of the next request; it stands still while hosts can issue nothing and
//! nothing of theirs completes, as with a full journal, so that the line comes back after
//! [`STILL_NS`] of that.

use super::super::meter::Waits;
use super::super::plan::{Moment, Outage};
use super::Host;
use crate::args::Speed;
use crate::exit::Failure;

/// How long hosts have been able to do nothing when an outage ends early.
const STILL_NS: u64 = 1_000_000_000;

/// An outage that has begun.
#[derive(Debug)]
pub struct Down {
    /// Requests issued before.
    pub row: u64,
    /// When the line went down.
    pub began_at: u64,
    /// When both devices had seen their connection end.
    pub noticed_at: Option<u64>,
    /// Its end, if it has ended.
    pub end: Option<Back>,
    /// Time that hosts waited for room, until the backlog of its end was gone.
    pub full: Waits,
}

/// The end of an outage.
#[derive(Debug)]
pub struct Back {
    /// Requests issued before.
    pub row: u64,
    /// When the line came back.
    pub at: u64,
    /// Whether that was because the trace's time stood still.
    pub early: bool,
    /// Records of either device that the other had not acknowledged.
    pub backlog_records: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// Each device's number of the acknowledgement of the last of its own.
    caught_up: [usize; 2],
}

impl Host<'_> {
    /// Whether the line is down.
    pub(super) fn is_down(&self) -> bool {
        self.downs.last().is_some_and(|down| down.end.is_none())
    }

    /// When the line changes next.
    fn line_changes(&self) -> Option<Moment> {
        let Outage { from, to } = self.outages.front()?;
        Some(if self.is_down() { *to } else { *from })
    }

    /// When that is on the clock, at the trace's pace.
    pub(super) fn line_changes_at(&self) -> Option<u64> {
        let moment = self.line_changes()?;
        match self.manner.speed {
            Speed::Max => None,
            Speed::Times(times) => Some(self.began_at + (moment.time_ns as f64 / times) as u64),
        }
    }

    /// Whether the line is to go down or to come back now.
    pub(super) fn is_line_due(&self) -> bool {
        match self.line_changes_at() {
            Some(at) => at <= self.now(),
            None => self.line_changes().is_some_and(|moment| moment.row <= self.next_row),
        }
    }

    /// Takes the line down, or brings it back.
    pub(super) fn change_line(&mut self) -> Result<(), Failure> {
        if self.is_down() {
            return self.bring_back(false);
        }
        self.downs.push(Down {
            row: self.next_row,
            began_at: self.now(),
            noticed_at: None,
            end: None,
            full: Waits::default(),
        });
        self.moved_at = self.now();
        self.pair.cut();
        Ok(())
    }

    /// Changes the line if it is time; `moved`: something of the hosts' has.
    pub(super) fn look_at_line(&mut self, now: u64, moved: bool) -> Result<(), Failure> {
        if self.outages.is_empty() {
            return Ok(());
        }
        if self.is_line_due() {
            return self.change_line();
        }
        if moved {
            self.moved_at = now;
        }
        if self.is_down() {
            // An outage may be long: that nothing moves in it is no stall.
            self.stall.excuse(now);
            let stands = self.manner.speed == Speed::Max && now > self.moved_at + STILL_NS;
            if stands {
                return self.bring_back(true);
            }
        }
        Ok(())
    }

    fn bring_back(&mut self, early: bool) -> Result<(), Failure> {
        self.outages.pop_front();
        let status = self.pair.status();
        let at = self.now();
        let backlog = status.each_ref().map(|status| status.backlog_records);
        let caught_up = [0, 1].map(|k| self.pair.watches[k].await_records(backlog[k], at));
        let row = self.next_row;
        let down = self.downs.last_mut().expect("it is down");
        down.noticed_at = self.pair.ended_at();
        down.end = Some(Back {
            row,
            at,
            early,
            backlog_records: backlog.iter().sum(),
            backlog_bytes: status.iter().map(|status| status.backlog_bytes).sum(),
            caught_up,
        });
        self.pair.restore()
    }

    /// When the backlog of an outage's end had arrived, if it has.
    pub fn caught_up_at(&self, back: &Back) -> Option<u64> {
        let [a, b] = [0, 1].map(|k| self.pair.watches[k].counted_at(back.caught_up[k]));
        a.zip(b).map(|(a, b)| a.max(b))
    }

    /// A piece that had waited so long for room was admitted `now`.
    pub(super) fn add_wait(&mut self, waited_ns: u64, now: u64) {
        self.meter.journal_full.add(waited_ns, now);
        let Some(last) = self.downs.last().filter(|_| waited_ns > 0) else { return };
        let is_over = last.end.as_ref().and_then(|back| self.caught_up_at(back));
        if is_over.is_none_or(|over| over > now.saturating_sub(waited_ns)) {
            let last = self.downs.last_mut().expect("just looked at");
            last.full.add(waited_ns.min(now - last.began_at), now);
        }
    }
}
