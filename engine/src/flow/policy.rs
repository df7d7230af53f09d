//! When a device leaves ordered mode by itself (LADDER 6), as its journal fills with what the peer lacks, or
//! after a time without the line; and when it goes back. `rounds.rs` does it.
//!
//! Each way has its own threshold. But a load that rewrites few blocks leaves few bits, however much of it
//! there is, and in order each write counts: the journal would fill again and again. So a device stays in
//! differential mode for a time ([`Stay`]), longer each time until the line has kept up with order.

use super::pace::percent;
use super::trend::Trend;
use crate::device::Device;
use crate::format::frame::LADDER_WIRE;
use crate::format::superblock::Features;
use crate::limits::Settings;
use crate::sync::lock;
use crate::unit::Mode;

/// How long a device that has suspended by itself leaves order alone.
#[derive(Debug, Default)]
pub(crate) struct Stay {
    /// When it suspended last, on the monotonic clock, in nanoseconds.
    since: u64,
    /// How long it stays in differential mode from then on; 0 once the line has kept up with order.
    length_ns: u64,
    /// When it was back in ordered mode; `None` until it is.
    ordered_at: Option<u64>,
    /// Blocks that are left to be collected in mode p, to be sent in the others.
    left: Trend,
}

impl Stay {
    /// The device has suspended by itself.
    fn begin(&mut self, now: u64, [least, most]: [u64; 2]) {
        let length_ns = self.length_ns.saturating_mul(2).clamp(least, most.max(least));
        *self = Stay { since: now, length_ns, ..Stay::default() };
    }

    /// It is in `mode` from now on.
    pub fn changed(&mut self, mode: Mode, now: u64) {
        self.ordered_at = (mode == Mode::Ordered).then_some(now);
        self.left = Trend::default();
    }

    /// R is empty.
    pub fn kept_up(&mut self, now: u64) {
        if self.ordered_at.is_some_and(|at| now.saturating_sub(at) >= self.length_ns) {
            self.length_ns = 0;
        }
    }

    fn until(&self) -> u64 {
        self.since.saturating_add(self.length_ns)
    }
}

impl Device {
    /// The device has suspended by itself.
    pub(crate) fn stay_suspended(&self) {
        let Settings { resume_order_after_ns, resume_order_after_max_ns, .. } = self.settings;
        let bounds = [resume_order_after_ns, resume_order_after_max_ns];
        lock(&self.peer.stay).begin(self.clock.monotonic(), bounds);
    }

    /// From when on the device goes back to order (D9), on the monotonic clock; `None` if the peer lacks too
    /// much, or the journal holds too much, or it is in no mode to do so.
    pub(crate) fn resume_deadline(&self) -> Option<u64> {
        let blocks = {
            let machine = self.peer.machine.read();
            let is_in_turn = match machine.mode() {
                Mode::Collecting => machine.owed().is_empty(),
                Mode::Sending => true,
                Mode::Ordered | Mode::Copying => false,
            };
            if !is_in_turn || self.geometry.differential || self.clk.epoch() == 0 {
                return None;
            }
            machine.table().blocks() + machine.flying().blocks()
        };
        (blocks < self.resume_below_blocks()).then(|| lock(&self.peer.stay).until())
    }

    /// With fewer blocks that the peer lacks there is room for order in the journal.
    fn resume_below_blocks(&self) -> u64 {
        let journal = self.geometry.journal_bytes / u64::from(self.geometry.block_size);
        let fill = percent(self.own.journal.fill());
        let room = self.settings.resume_order_below_percent.saturating_sub(fill);
        (journal * room).div_ceil(100)
    }

    /// Blocks that are left to be collected, or sent, in the present mode.
    fn left_blocks(&self) -> (Mode, u64) {
        let machine = self.peer.machine.read();
        let left = match machine.mode() {
            Mode::Collecting => machine.owed().blocks(),
            _ => machine.table().blocks() + machine.flying().blocks(),
        };
        (machine.mode(), left)
    }

    /// Looks how much is left, for the prediction of the next rung.
    pub(crate) fn note_left(&self) {
        let (mode, left) = self.left_blocks();
        if mode != Mode::Ordered {
            lock(&self.peer.stay).left.note(self.clock.monotonic(), left);
        }
    }

    /// Nanoseconds until the next rung, by the rates of the last seconds.
    pub(crate) fn next_rung_in(&self) -> Option<u64> {
        if self.clk.epoch() == 0 {
            return None;
        }
        let now = self.clock.monotonic();
        let (mode, left) = self.left_blocks();
        let left_in = |target| lock(&self.peer.stay).left.reaches_in(now, left, target);
        match mode {
            Mode::Collecting => left_in(0),
            Mode::Sending if self.geometry.differential => None,
            Mode::Sending => {
                let stays = lock(&self.peer.stay).until().saturating_sub(now);
                let below = self.resume_below_blocks();
                let in_ns = if left < below { Some(0) } else { left_in(below.saturating_sub(1)) };
                in_ns.map(|in_ns| in_ns.max(stays))
            }
            Mode::Ordered | Mode::Copying => {
                let from = self.settings.suspend_from_percent;
                let suspends = (from > 0 && self.knows_ladder()).then_some(from);
                let outage = self.suspend_deadline().map(|at| at.saturating_sub(now));
                let ends = if mode == Mode::Copying { left_in(0) } else { None };
                [self.fill_leads_in(suspends), outage, ends].into_iter().flatten().min()
            }
        }
    }

    /// Whether the own journal is as full as it is to be at most in a mode with R, or a write waits for room
    /// in it that no commit brings.
    pub(crate) fn is_filled_to_suspend(&self) -> bool {
        let from = self.settings.suspend_from_percent;
        from > 0 && (percent(self.own.journal.fill()) >= from || self.is_short_of_places())
    }

    fn is_short_of_places(&self) -> bool {
        let queue = &self.own.journal.queue;
        self.wakes.waiters.places_wanted() > queue.free() && queue.tail() == self.own.committed()
    }

    /// Whether an outage is timed that goes on.
    pub(crate) fn is_outage_timed(&self) -> bool {
        self.settings.suspend_after_ns > 0 && lock(&self.failover).connection.parted_at().is_some()
    }

    /// When the outage will have lasted so long that the device suspends, on the monotonic clock. `None` if
    /// the line is up, or there is nothing that the peer lacks.
    pub(crate) fn suspend_deadline(&self) -> Option<u64> {
        let after = self.settings.suspend_after_ns;
        if after == 0 || !self.may_suspend() {
            return None;
        }
        let lacks = {
            let tables = lock(&self.tables);
            tables.backlog() > 0 && self.is_debt_known(&tables)
        };
        let parted_at = lock(&self.failover).connection.parted_at()?;
        lacks.then(|| parted_at.saturating_add(after))
    }

    /// Whether it is time to suspend: the journal is so full of R that hosts would wait, or the line has been
    /// down for too long.
    pub(crate) fn must_suspend(&self) -> bool {
        if self.suspend_deadline().is_some_and(|at| at <= self.clock.monotonic()) {
            return true;
        }
        // A checkpoint may free what is not of R. Without R a suspension makes no room.
        self.is_filled_to_suspend() && self.may_suspend() && {
            let queue = &self.own.journal.queue;
            let of_r = lock(&self.tables).backlog();
            of_r > 0 && of_r * 2 >= queue.tail() - queue.freed()
        }
    }

    fn may_suspend(&self) -> bool {
        let has_r = matches!(self.peer.machine.mode(), Mode::Ordered | Mode::Copying);
        has_r && self.clk.epoch() != 0 && self.knows_ladder()
    }

    /// Whether a peer was met that knows differential mode, as the superblock says, or the first one will, and the one
    /// that is connected now, or was last, knows it, too.
    pub(crate) fn knows_ladder(&self) -> bool {
        let superblock = self.superblock.get();
        let has_met = superblock.features.incompat & Features::DIFFERENTIAL != 0;
        let will_meet = superblock.peer == 0 && self.settings.suspends_without_peer;
        (has_met || will_meet) && lock(&self.failover).connection.last_wire() >= LADDER_WIRE
    }
}
