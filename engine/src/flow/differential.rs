//! Differential mode in the data path (the first embodiment; D1–D11): the state machine of
//! `table/differential/` beside the tables, as hosts' reads find it.
//!
//! | step | here |
//! |---|---|
//! | a record is durable and final | it gets a bit, in modes p and s ([`Machine::wrote`], from `commit.rs`) |
//! | the mode changes | one thread at a time does the step, and then its work (`turn.rs`) |
//! | copies, rounds | `copy.rs`, `rounds.rs` |
//! | takeovers | `failover/handover.rs` |
//! | what is durable of it | `store.rs` |

use super::turn::Turn;
use crate::format::frame::TablePiece;
use crate::sync::{AtomicBool, Ordering, lock};
use crate::table::alike::Alike;
use crate::table::bits::Bits;
use crate::table::differential::{Consistent, Differential, Grant, Ordered, Side};
use crate::unit::{Block, Blocks, Extent, Mode, Round, Stamp};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// So many runs of the table are read under one lock, for 0.1 ms or so: writes that become final wait for
/// them.
const PIECE_RUNS: usize = 1024;

/// Differential mode towards one peer, as hosts' reads find it: under a lock of its own, beside the tables,
/// which a step that changes it locks first.
pub struct Machine {
    state: RwLock<Differential>,
    /// Blocks whose checksums go first. Locked after `state`.
    alike: Mutex<Alike>,
    /// Whether the other device is, or is to be, active: it changes with a grant made or taken, and so
    /// with the round. Changed under the lock of `state`; Relaxed.
    fenced: AtomicBool,
    /// Whether there may be blocks that the peer owes by bits, while active. Release/Acquire: a reader that
    /// finds it cleared finds what was copied in N, and what was written in the queue.
    owes: AtomicBool,
    /// N is about to be no prefix, and the superblock does not say so yet.
    unmarked: AtomicBool,
    /// A checkpoint is waited for.
    checkpoint: AtomicBool,
    /// The table may not be as the last store found it. Changed under the lock of `state`; Relaxed.
    changed: AtomicBool,
    /// A round waits until no copy is in flight. Changed under the lock of `state`; Relaxed.
    draining: AtomicBool,
    /// Records or copies of a round are being taken in, from the look at the round until the tables and the
    /// machine have them: no mode comes or goes meanwhile. Records that a checkpoint before a round did not see
    /// would go over a copy (D3).
    landing: Mutex<()>,
    /// At its opening N was whole: no copies of a round that had not ended were in it.
    had_all: bool,
    /// The round in which it was told that no copy is consistent.
    no_copy: Mutex<Option<Round>>,
    /// One step of the machine, with its work, at a time; and what is stored of it follows it.
    turn: Mutex<Turn>,
}

impl Machine {
    /// `machine`, whose table has bits that records imply, and what is stored may lack them.
    pub fn new(machine: Differential, fenced: bool, alike: Alike) -> Machine {
        let owes = !machine.owed().is_empty();
        let unmarked = machine.consistent() == Consistent::No;
        Machine {
            had_all: machine.consistent() == Consistent::Yes,
            state: RwLock::new(machine),
            alike: Mutex::new(alike),
            fenced: AtomicBool::new(fenced),
            owes: AtomicBool::new(owes),
            unmarked: AtomicBool::new(unmarked),
            checkpoint: AtomicBool::new(false),
            changed: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            landing: Mutex::default(),
            no_copy: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// The machine, locked for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Differential> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if no step is at work.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, Differential>> {
        self.state.try_read().ok()
    }

    /// The machine, locked for a step that no mode comes or goes by.
    pub fn write(&self) -> RwLockWriteGuard<'_, Differential> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A grant is made, or taken, by the step that holds the machine.
    pub fn change_sides(&self, to: Side) {
        self.fenced.store(to == Side::Fenced, Ordering::Relaxed);
    }

    /// Whether hosts are served here, or will be once that is shown (R13).
    pub fn side(&self) -> Side {
        match self.fenced.load(Ordering::Relaxed) {
            true => Side::Fenced,
            false => Side::Active,
        }
    }

    /// The blocks whose checksums go first.
    pub fn alike(&self) -> MutexGuard<'_, Alike> {
        lock(&self.alike)
    }

    /// The peer names `differing` as what it has changed alone: what hosts have written here it does not have,
    /// of the rest it may have a part.
    pub fn expect_alike(&self, machine: &Differential, differing: &Bits) {
        let mut differing = differing.clone();
        differing.subtract(machine.table());
        self.alike().expect(&differing);
    }

    pub fn mode(&self) -> Mode {
        self.read().mode()
    }

    /// The round, in ordered mode: while it is the same, no copy comes.
    pub fn ordered_round(&self) -> Option<Round> {
        let machine = self.read();
        (machine.mode() == Mode::Ordered).then(|| machine.round())
    }

    /// Whether the peer owes `block`, as bits say.
    pub fn is_owed(&self, block: Block) -> bool {
        self.owes.load(Ordering::Acquire) && self.read().owed().contains(block)
    }

    /// Whether the peer may owe any block, as bits say.
    pub fn owes(&self) -> bool {
        self.owes.load(Ordering::Acquire)
    }

    /// Whether the peer may owe any of the `blocks` blocks from `first` on.
    pub fn may_owe(&self, first: Block, blocks: u64) -> bool {
        self.owes() && {
            let last = Block { number: first.number + blocks, ..first };
            let next = self.read().owed().next_from(first);
            next.is_some_and(|run| run.first() < last)
        }
    }

    /// Own records of these extents are durable and final: each block gets a bit, and the peer's copy of it
    /// is worth nothing (D5). Returns whether the peer owes nothing any more by that.
    pub fn wrote(&self, extents: impl Iterator<Item = Extent>) -> bool {
        let mut machine = self.write();
        let was_owed = !machine.owed().is_empty();
        let mut alike = self.alike();
        for extent in extents {
            let blocks = Blocks::from(extent);
            alike.wrote(&blocks);
            if machine.wrote(&blocks).mark {
                self.unmark();
            }
            self.change(&machine);
        }
        self.settle(&machine);
        was_owed && machine.owed().is_empty()
    }

    /// N is about to be no prefix: the superblock says so first.
    pub(super) fn unmark(&self) {
        self.unmarked.store(true, Ordering::Release);
    }

    /// Whether [`Machine::unmark`] was called since the last look.
    pub fn take_unmarked(&self) -> bool {
        self.unmarked.swap(false, Ordering::AcqRel)
    }

    /// Whether the table may not be as the last look found it.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Whether N was whole at the opening: no copies of a round that had not ended were in it.
    pub fn had_all(&self) -> bool {
        self.had_all
    }

    /// The flag that readers look at follows the machine.
    pub fn settle(&self, machine: &Differential) {
        self.owes.store(!machine.owed().is_empty(), Ordering::Release);
    }

    /// Whether a round of `mode` has to wait for the copies in flight; then no more are sent.
    pub fn drain_before(&self, mode: Mode) -> bool {
        let machine = self.write();
        let drains = mode != machine.mode() && !machine.flying().is_empty();
        self.draining.store(drains, Ordering::Relaxed);
        drains
    }

    /// Whether copies are in flight that a round waits for.
    pub fn is_draining(&self, machine: &Differential) -> bool {
        let drains = self.draining.load(Ordering::Relaxed) && !machine.flying().is_empty();
        self.draining.store(drains, Ordering::Relaxed);
        drains
    }

    /// The table changes, by the step that holds the machine.
    pub fn change(&self, _: &Differential) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// The table as it is stored, in rising runs. Hosts' writes come between its pieces.
    pub(crate) fn table(&self) -> impl Iterator<Item = Blocks> + '_ {
        let mut next = Some(TablePiece::FIRST);
        let pieces = std::iter::from_fn(move || {
            let (piece, following) = self.read().durable_table(next?, PIECE_RUNS);
            next = following;
            Some(piece)
        });
        let mut runs = pieces.flatten().peekable();
        std::iter::from_fn(move || {
            let mut run = runs.next()?;
            // A block behind the end of a piece may have got its bit meanwhile.
            while runs.next_if(|next| run.absorb(next)).is_some() {}
            Some(run)
        })
    }

    /// A round waits for a checkpoint from now on.
    pub fn await_checkpoint(&self) {
        self.checkpoint.store(true, Ordering::Release);
    }

    /// Whether a round waits for a checkpoint (D3).
    pub fn awaits_checkpoint(&self) -> bool {
        self.checkpoint.load(Ordering::Acquire)
    }

    /// Whether a round waits for a checkpoint, for room for the rest of this device's table, or for records
    /// that are not final yet before it ends.
    pub fn awaits_step(&self) -> bool {
        let machine = self.read();
        let says = machine.is_asked() && self.fenced.load(Ordering::Relaxed);
        self.awaits_checkpoint() || says || machine.may_end() || machine.may_level()
    }

    /// Whether R is shipped: in ordered mode, and in mode c once both devices are in the round (D3).
    pub fn ships(&self) -> bool {
        let machine = self.read();
        match machine.mode() {
            Mode::Ordered => true,
            Mode::Copying => machine.is_open(),
            Mode::Collecting | Mode::Sending => false,
        }
    }

    /// A connection has ended, and another begins (D2, D3).
    pub fn hung_up(&self, turn: &mut Turn) {
        self.forget(turn);
        let mut machine = self.write();
        let mut alike = self.alike();
        alike.begin();
        // They may have arrived.
        alike.expect(machine.flying());
        machine.hung_up();
    }

    /// Nothing of what a round was about to say is said any more, and no checkpoint is waited for.
    pub(super) fn forget(&self, turn: &mut Turn) {
        (turn.saying, turn.held) = (None, None);
        self.checkpoint.store(false, Ordering::Release);
    }

    /// The device serves from the tenure `epoch` on, by a prototype (D4).
    pub fn took(&self, epoch: u64) {
        let mut machine = self.write();
        self.change_sides(Side::Active);
        let round = machine.round();
        machine.take(Grant::Prototype { round }, Bits::default(), epoch, Ordered::default());
    }

    /// Everything up to `hi` has arrived: N may be a prefix again (D9).
    pub fn received(&self, hi: Stamp) {
        let waits = matches!(self.read().consistent(), Consistent::At(_));
        if waits {
            self.write().received(hi);
        }
    }

    /// Whether no copy is consistent, and this was not asked in the round when that was so already.
    pub fn has_lost_the_last_copy(&self, side: Side) -> bool {
        let machine = self.read();
        let round = machine.round();
        machine.lacks_consistent_copy(side) && lock(&self.no_copy).replace(round) != Some(round)
    }

    /// Whether ships of `round` are taken (D3).
    pub fn takes(&self, round: Round) -> bool {
        let machine = self.read();
        machine.is_of(round) && matches!(machine.mode(), Mode::Ordered | Mode::Copying)
    }

    /// No mode comes or goes while this is held: a copy is on its way into N.
    pub fn landing(&self) -> MutexGuard<'_, ()> {
        lock(&self.landing)
    }

    /// Locks the machine's steps: one at a time, with its work.
    pub fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::differential::Durable;

    /// A table of many pieces waits for room in the lane, and nothing tells of that: the thread looks again.
    #[test]
    fn a_table_that_is_being_said_is_a_reason_to_look_again() {
        let table = [Blocks { volume: 0, numbers: 3..4 }].into_iter().collect();
        let stored = Durable { mode: Mode::Collecting, ..Durable::default() };
        let machine = Differential::restore(stored, table, Side::Fenced, [], []);
        let machine = Machine::new(machine, true, Alike::default());
        assert!(!machine.awaits_step());
        let round = Round { generation: 0, counter: 1 };
        let opens = (round, Mode::Collecting);
        let heard = |of: &mut Differential| {
            of.hear_open(Side::Fenced, opens, 0, (Stamp::ZERO, 0), Ordered::default()).is_some()
        };
        assert!(heard(&mut machine.write()) && machine.awaits_step());
        machine.write().said_opened();
        assert!(!machine.awaits_step());
    }

    /// Of a round that is over no copy counts: the next one waits for those in flight, and none is sent then.
    #[test]
    fn a_new_round_waits_for_the_copies_in_flight() {
        let block = |number| Blocks { volume: 0, numbers: number..number + 1 };
        let stored = Durable { mode: Mode::Sending, ..Durable::default() };
        let table = [block(3), block(9)].into_iter().collect();
        let machine = Differential::restore(stored, table, Side::Active, [], []);
        let machine = Machine::new(machine, false, Alike::default());
        let is_draining = || machine.is_draining(&machine.write());
        machine.write().send(&block(3));
        assert!(!machine.drain_before(Mode::Sending) && !is_draining());
        assert!(machine.drain_before(Mode::Copying) && is_draining());
        machine.write().copied(Round::default(), &block(3));
        assert!(!is_draining() && !machine.drain_before(Mode::Copying));
    }

    /// Writes come between the pieces of a table: its runs rise all the same, and none touches the next.
    #[test]
    fn a_table_is_stored_while_hosts_write() {
        let run = |start| Blocks { volume: 0, numbers: start..start + 1 };
        let runs = PIECE_RUNS as u64 * 3;
        let table: Bits = (0..runs).map(|k| run(2 * k)).collect();
        let stored = Durable { mode: Mode::Collecting, ..Durable::default() };
        let machine = Differential::restore(stored, table.clone(), Side::Active, [], []);
        let machine = Machine::new(machine, false, Alike::default());
        let mut stored = machine.table();
        let mut found: Vec<Blocks> = stored.by_ref().take(PIECE_RUNS - 1).collect();
        let behind = 2 * PIECE_RUNS as u64 - 1;
        let written = [1, behind, runs * 2 + 9].map(|number| {
            let first = Block { volume: 0, number };
            machine.wrote([Extent { first, level: 0 }].into_iter());
            run(number)
        });
        found.extend(stored);
        assert!(found.windows(2).all(|pair| pair[0].range().end < pair[1].first()));
        // A write behind the place that was reached is there, and nothing is lost.
        let mut expected = table;
        written[1..].iter().for_each(|run| expected.insert(run.clone()));
        assert_eq!(found.into_iter().collect::<Bits>(), expected);
    }
}
