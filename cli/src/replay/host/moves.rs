//! Leaving a device: the move to the other one, and the end, when both have nothing left to do.

use std::time::Duration;

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::Status;
use afterimage::internal::failover::Takeover;
use afterimage::internal::unit::{Mode, Round, Stamp};

use super::super::meter::Metric;
use super::super::requests::{Event, NAMES};
use super::{Host, LostSite};
use crate::exit::Failure;

/// How often a takeover that was asked for is looked at.
const POLL: Duration = Duration::from_micros(200);

/// A move of the host from one device to the other.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The device that the host moved to.
    pub to: usize,
    /// Requests issued before.
    pub row: u64,
    /// The takeover as the device reported it.
    pub takeover: Takeover,
    /// Records that the peer still had to ship: the higher of what was durable there at the
    /// request, and what was when this device was ready.
    pub backlog_records: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// Pieces that were refused and issued again.
    pub reissued: u64,
    /// The old device's number of the acknowledgement of the last record that was owed.
    pub caught_up: usize,
    /// When the first read that needed the other device was done.
    pub first_remote_read_at: Option<u64>,
}

/// A takeover that was refused: hosts have stayed where they were.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The device that was asked to serve.
    pub to: usize,
    /// Requests issued before.
    pub row: u64,
    /// When it was asked.
    pub at: u64,
    /// Its answer.
    pub why: Error,
}

impl Host<'_> {
    /// Moves the host to the other device. While the line is down that device refuses, and the host
    /// stays.
    pub(super) fn take_over(&mut self) -> Result<(), Failure> {
        let (old, to) = (self.active, 1 - self.active);
        let asked_at = self.now();
        if self.pair.is_lost(to) {
            self.points.pop_front();
            let why = Error::new(Kind::NoPeer, "its site is lost: nothing answers there");
            self.refused.push(Refused { to, row: self.next_row, at: asked_at, why });
            return Ok(());
        }
        let device = self.pair.device(to).clone();
        let failed = |e: &Error| Failure::device(format_args!("taking over at {}", NAMES[to]), e);
        let waiting = self.ready.len();
        let before = self.pair.device(old).status();
        while let Err(why) = device.begin_takeover() {
            if why.kind() == Kind::NoPeer && self.is_down() {
                self.points.pop_front();
                self.refused.push(Refused { to, row: self.next_row, at: asked_at, why });
                return Ok(());
            }
            let back = self.downs.last().and_then(|down| down.end.as_ref()).map(|back| back.at);
            let returned = self.lost_site.as_ref().and_then(LostSite::back_at);
            let is_connecting =
                back.max(returned).is_some_and(|at| asked_at < at + self.pair.connect_ns());
            if why.kind() != Kind::NoPeer || !is_connecting {
                return Err(failed(&why));
            }
            // The line is back, and the devices have not said hello yet.
            let moved = self.poll()? > 0;
            self.look(moved)?;
            std::thread::park_timeout(POLL);
        }
        self.points.pop_front();
        self.moving = true;
        let mut takeover = None;
        let mut after = None;
        loop {
            let moved = self.poll()? > 0;
            if takeover.is_none()
                && let Some(outcome) = device.poll_takeover()
            {
                takeover = Some(outcome.map_err(|e| failed(&e))?);
                after = Some(self.pair.device(old).status());
            }
            if takeover.is_some() && self.in_flight.is_empty() {
                break;
            }
            self.look(moved)?;
            if !moved {
                std::thread::park_timeout(POLL);
            }
        }
        self.moving = false;
        let (takeover, after) = takeover.zip(after).expect("the loop ends with both");
        self.active = to;
        self.note(&Event::Moved { to, epoch: takeover.epoch });
        self.session = device.session().map_err(|e| failed(&e))?;
        let held = if after.backlog_records > before.backlog_records { after } else { before };
        self.meter.record(Metric::Takeover, takeover.ready_at - takeover.requested_at);
        // Owed by the old device: once that is acknowledged, the new one has it.
        let need = if takeover.owed_blocks == 0 { Stamp::ZERO } else { device.status().need };
        let caught_up = self.pair.watches[old].await_acknowledged(need, || {
            (self.pair.device(old).status().acked >= need).then(|| self.now())
        });
        self.moves.push(Move {
            caught_up,
            to,
            row: self.next_row,
            takeover,
            backlog_records: held.backlog_records,
            backlog_bytes: held.backlog_bytes,
            reissued: (self.ready.len() - waiting) as u64,
            first_remote_read_at: None,
        });
        Ok(())
    }

    /// Waits until both directions are empty: everything written is acknowledged by the peer and
    /// in both normal volumes.
    pub fn drain(&mut self) -> Result<(), Failure> {
        self.progress.say("draining");
        let flushed = self.session.flush();
        flushed.map_err(|e| self.failed("flushing", &e))?;
        let newest = self.oracle.sealed();
        loop {
            let status = self.pair.status();
            let empty = |s: &Status| {
                let lacks = s.backlog_records + s.owed_blocks + s.differential.table_blocks;
                lacks == 0 && s.unreflected_records == 0
            };
            // A write that bits told of has no part in the order of records.
            let first = Round { generation: 1, counter: 0 };
            let by_bits = |s: &Status| s.connected && s.differential.round > first;
            let arrived = |s: &Status| match (s.mode, s.serving) {
                (Mode::Ordered, _) => {
                    (s.acked.max(s.hi) >= newest || by_bits(s)) && s.reflected >= newest
                }
                // A group that rests level.
                (Mode::Sending, true) => {
                    let is_in = s.reflected >= newest || newest.epoch < s.epoch;
                    s.differential.is_level && is_in
                }
                (Mode::Sending, false) => s.differential.is_consistent,
                _ => false,
            };
            if status.iter().all(|s| empty(s) && arrived(s)) {
                break;
            }
            self.look(false)?;
            std::thread::sleep(Duration::from_micros(500));
        }
        let now = self.now();
        self.look_at_resync(now, true);
        self.end_interval(now);
        Ok(())
    }
}
