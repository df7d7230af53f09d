//! Differential mode: suspensions, rounds, copies, and which promises hold meanwhile.

use super::action::Kind;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::format::superblock::Features;
use crate::sync::lock;
use crate::table::differential::{Consistent, Side as Role};
use crate::unit::{Block, Mode, Round, Stamp};
use std::cell::Cell;
use std::collections::BTreeMap;

/// The blocks that were sent in a round and a connection, each with the newest final own record of then.
#[derive(Default)]
pub(super) struct Sent {
    round: Round,
    session: u64,
    blocks: BTreeMap<usize, Stamp>,
}

/// Takeovers since both devices last were in ordered mode, and owed each other nothing.
#[derive(Default)]
pub(super) struct Tenures {
    /// The last tenures of the two, as they were last looked at.
    last: Cell<[u64; 2]>,
    takeovers: Cell<u64>,
}

/// Whether the pair may leave ordered mode.
pub(super) fn has_ladder(device: &Device) -> bool {
    device.superblock.get().features.incompat & Features::DIFFERENTIAL != 0
}

/// A change of mode, to be counted.
pub(super) fn changed_to(mode: Mode) -> &'static str {
    match mode {
        Mode::Ordered => "returns to ordered mode",
        Mode::Collecting => "rounds in which the host's device collects",
        Mode::Sending => "rounds of copies without order",
        Mode::Copying => "rounds of copies beside order",
    }
}

impl World {
    /// An operator's word at the device that serves.
    pub fn suspend(&self) {
        let Some(side) = self.serving() else { return };
        if !self.may_come_between(Kind::Suspend, side) {
            return;
        }
        let Some(device) = self.device(side).filter(|device| device.knows_ladder()) else { return };
        let before = device.peer.machine.mode();
        if self.step(side, Device::suspend).is_none() {
            return;
        }
        if device.peer.machine.mode() != before {
            self.tape.event(Sort::Host, format_args!("{} suspends", NAMES[side]));
            self.tape.count("suspensions asked for");
        }
    }

    /// The next rung at `side`; whether there was one.
    pub fn climb(&self, side: Side) -> bool {
        let Some(device) = self.device(side) else { return false };
        let before = device.peer.machine.mode();
        let is_done = self.step(side, Device::step_ladder).unwrap_or(false);
        let after = device.peer.machine.mode();
        if before != after {
            self.tape.event(Sort::Host, format_args!("{} goes to {after:?}", NAMES[side]));
        }
        self.follow_hi(side);
        is_done
    }

    /// The peer may have every block with a bit: checksums go first, rightly or not.
    pub fn guess(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let table = device.peer.machine.read().table().clone();
        device.peer.machine.alike().expect(&table);
    }

    /// Ships records and sends copies: of those no block twice in a round and a connection, unless it was
    /// written again.
    pub fn ship(&self, side: Side) -> Option<usize> {
        let device = self.device(side)?;
        let (flying, table, alike) = {
            let machine = device.peer.machine.read();
            let alike = device.peer.machine.alike().blocks().clone();
            (machine.flying().clone(), machine.table().clone(), alike)
        };
        let indices = |blocks: &crate::unit::Blocks| {
            let first = self.plan.index(blocks.first());
            first..first + blocks.count() as usize
        };
        // A copy carries on the rot that is in N, and nobody can tell the copy from what was written.
        if table.runs().flat_map(|run| indices(&run)).any(|block| self.is_rotten(side, block)) {
            self.tape.count("rot of a volume copied");
            self.tape.judge_no_more();
            self.ended.set(true);
        }
        let newest = lock(&device.tables).newest_own();
        let before = self.machines[side].is_shipping.replace(true);
        let shipped = self.step(side, Device::step_ship);
        self.machines[side].is_shipping.set(before);
        let session = lock(&device.failover).connection.session().unwrap_or_default();
        let (round, mut sent) = {
            let machine = device.peer.machine.read();
            (machine.round(), machine.flying().clone())
        };
        sent.subtract(&flying);
        if !sent.is_empty() {
            self.tape.count("steps that send copies");
        }
        // Those whose checksums go first may follow.
        sent.subtract(&alike);
        let mut known = self.machines[side].sent.borrow_mut();
        if (known.round, known.session) != (round, session) {
            *known = Sent { round, session, blocks: BTreeMap::new() };
        }
        for block in sent.runs().flat_map(|run| indices(&run)) {
            let Some(before) = known.blocks.insert(block, newest) else { continue };
            let history = self.history.borrow();
            let is_written = history.of(block).iter().any(|version| version.stamp > before);
            if !is_written {
                let at: Block = self.plan.block(block);
                let story = format!("{} sends block {at} twice in {round:?}", NAMES[side]);
                self.tape.broken("no block is sent twice unless it is written again", story);
            }
        }
        shipped
    }

    /// Whether copies have been in `side`'s lanes, which may still hold some.
    pub fn has_suspended(&self, side: Side) -> bool {
        let of = |at: Side| {
            let device = self.device(at);
            device.is_some_and(|device| device.peer.machine.read().round() > Round::default())
        };
        of(side) || of(1 - side)
    }

    /// Whether something at the device is left to bits: at rest nothing is.
    pub(super) fn is_by_bits(&self, device: &Device) -> bool {
        let machine = device.peer.machine.read();
        let has_bits = [machine.table(), machine.flying(), machine.owed()];
        machine.mode() != Mode::Ordered
            || machine.consistent() != Consistent::Yes
            || has_bits.iter().any(|bits| !bits.is_empty())
    }

    /// The peer names another record as the one before its next: bits tell of all before (D3).
    pub fn follow_hi(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let machine = &self.machines[side];
        // The frames that have arrived are looked at first.
        if device.peer.recv.journal.queue.tail() == machine.received.get() {
            let hi = lock(&device.tables).incoming.hi();
            machine.hi.set(machine.hi.get().max(hi));
        }
    }

    /// Whether the device says that N is a prefix, now that everything up to here is in it. When it begins to
    /// say so, N is one once all that is there has gone to it.
    pub(super) fn says_prefix(&self, side: Side, device: &Device) -> bool {
        let machine = &self.machines[side];
        let (says, round) = {
            let state = device.peer.machine.read();
            let is_level = state.mode() == Mode::Sending && device.superblock.get().fenced;
            // While the peer owes something, only N without any record of the tenure is one.
            let says = state.consistent() == Consistent::Yes && state.owed().is_empty();
            (says && !is_level, state.round())
        };
        // A step out of order lets records go to N that what the peer owed would have held back.
        if machine.round.replace(round) != round {
            machine.is_scattered.set(true);
        }
        if !says {
            machine.is_scattered.set(true);
        } else if machine.is_scattered.take() {
            self.is_whole_again(side);
            let tables = lock(&device.tables);
            let newest = tables.newest_own().max(tables.incoming.hi());
            let bound = machine.replays_upto.get().unwrap_or(Stamp::ZERO);
            machine.replays_upto.set(Some(bound.max(newest)));
            // The device that serves has all that the other ever wrote, though not as records.
            if !device.superblock.get().fenced && !tables.is_behind() {
                let history = self.history.borrow();
                let theirs = history.after(Stamp::ZERO).iter().rfind(|record| record.by != side);
                machine.collected.set(theirs.map_or(Stamp::ZERO, |record| record.stamp));
            }
        }
        says
    }

    /// With one takeover at most since both were in ordered mode, and no force, a copy at one of two devices that
    /// are open is consistent (P6). The device that serves says that none is when that is so, and then only.
    pub(super) fn check_consistent_copies(&self) {
        let (Some(a), Some(b)) = (self.device(0), self.device(1)) else { return };
        let pair = [&a, &b];
        let superblocks = pair.map(|device| device.superblock.get());
        let last = [&superblocks[0], &superblocks[1]].map(|s| s.last_active);
        let before = self.tenures.last.replace(last);
        let taken = (0..2).filter(|&k| last[k] != before[k]).count() as u64;
        self.tenures.takeovers.set(self.tenures.takeovers.get() + taken);
        // A stalled thread may hold one of them.
        let machines = pair.map(|device| device.peer.machine.try_read());
        let [Some(first), Some(second)] = &machines else { return };
        let states = [first, second];
        let is_consistent = states.map(|state| state.consistent() == Consistent::Yes);
        let is_one = first.round() == second.round();
        let rests = |k: usize| {
            states[k].mode() == Mode::Ordered && superblocks[k].need <= superblocks[k].hi
        };
        if is_one && is_consistent == [true; 2] && rests(0) && rests(1) {
            self.tenures.takeovers.set(0);
        }
        let is_forced = superblocks.iter().any(|s| !s.history.ancestors.is_empty());
        if self.tape.is_faithless() || is_forced {
            return;
        }
        let has_none = is_consistent == [false; 2];
        if has_none && self.tenures.takeovers.get() <= 1 {
            self.tape.broken("one of two devices is consistent", format!("{first:?}, {second:?}"));
        }
        for (device, state) in pair.iter().zip(states) {
            let side = device.side();
            let says = state.lacks_consistent_copy(side);
            let knows = is_one && side == Role::Active && state.is_open();
            if says && !has_none || has_none && knows && !says {
                let story = format!("says {says}: {first:?}, {second:?}");
                self.tape.broken("the device that serves says that no copy is consistent", story);
            }
            if says {
                self.tape.count("moments without a consistent copy");
            }
        }
    }

    /// A takeover by bits has ended: what was granted and what was told before are the peer's table.
    pub(super) fn check_taken_by_table(&self, side: Side, device: &Device) {
        self.tape.count("takeovers by table");
        let machine = device.peer.machine.read();
        if !machine.owed().is_empty() {
            self.tape.count("takeovers by table with blocks still away");
        }
        let Some(peer) = self.device(1 - side) else { return };
        let theirs = peer.peer.machine.read();
        if theirs.round() != machine.round() {
            return;
        }
        if theirs.untold().blocks() < theirs.table().blocks() {
            self.tape.count("takeovers by table of which some was told before");
        }
        let mut missing = theirs.table().clone();
        missing.subtract(machine.owed());
        missing.subtract(machine.table());
        if !missing.is_empty() {
            let story = format!("{} is not owed {missing:?}", NAMES[side]);
            self.tape.broken("what was told and granted is the peer's table", story);
        }
    }
}
