//! Differential mode in the data path (the first embodiment; D1–D11): the state machine of
//! `table/differential/` beside the tables, as hosts' reads find it, and the work that its steps ask for.
//!
//! | step | here |
//! |---|---|
//! | a record is durable and final | it gets a bit, in modes p and s ([`Machine::wrote`], from `commit.rs`) |
//! | the mode changes | one thread at a time does the step, and then its work ([`Device::turn`]) |
//! | copies, rounds | `copy.rs`, `rounds.rs` |
//! | takeovers | `failover/handover.rs` |

use super::Tables;
use crate::device::Device;
use crate::error::Result;
use crate::event::Event;
use crate::format::superblock::Superblock;
use crate::sync::{AtomicBool, Ordering, lock};
use crate::table::bits::Bits;
use crate::table::differential::{
    Consistent, Differential, Durable, Grant, Message, Ordered, Side, Work,
};
use crate::unit::{Block, Blocks, Extent, Mode, Round, Stamp};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Differential mode towards one peer, as hosts' reads find it: under a lock of its own, beside the tables,
/// which a step that changes it locks first.
pub(crate) struct Machine {
    state: RwLock<Differential>,
    /// Whether there may be blocks that the peer owes by bits, while active. Release/Acquire: a reader that
    /// finds it cleared finds what was copied in N, and what was written in the queue.
    owes: AtomicBool,
    /// N is about to be no prefix, and the superblock does not say so yet.
    unmarked: AtomicBool,
    /// A checkpoint is waited for.
    checkpoint: AtomicBool,
    /// A copy is on its way into N, from the look at what is wanted of it until the machine knows that it is
    /// there: no mode comes or goes meanwhile.
    landing: Mutex<()>,
    /// One step of the machine, with its work, at a time; and what is stored of it follows it.
    turn: Mutex<Turn>,
}

/// The work of a step that is not done yet, and what was stored.
#[derive(Default)]
pub(crate) struct Turn {
    /// The message that waits for a checkpoint.
    pub held: Option<Held>,
    /// How far a table has been said: the message that it belongs to, and the next block.
    pub saying: Option<(Message, Block)>,
    /// The table of a grant, as far as it has come, and the request that it answers.
    pub granted: (u64, Bits),
    /// The table that the superblock names.
    pub stored: Bits,
}

/// A message that is sent once what was there when it was made is in N, durably.
pub(crate) struct Held {
    /// The newest record of then.
    upto: Stamp,
    /// The peer's next record names this one as its predecessor.
    hi: Option<Stamp>,
    pub message: Message,
}

impl Machine {
    pub fn new(machine: Differential) -> Machine {
        let owes = !machine.owed().is_empty();
        let stored = machine.durable().table;
        Machine {
            state: RwLock::new(machine),
            owes: AtomicBool::new(owes),
            unmarked: AtomicBool::new(false),
            checkpoint: AtomicBool::new(false),
            landing: Mutex::default(),
            turn: Mutex::new(Turn { stored, ..Turn::default() }),
        }
    }

    /// The machine, locked for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Differential> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine, locked for a step that no mode comes or goes by.
    pub fn write(&self) -> RwLockWriteGuard<'_, Differential> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mode(&self) -> Mode {
        self.read().mode()
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
    /// is worth nothing (D5).
    pub fn wrote(&self, extents: impl Iterator<Item = Extent>) {
        let mut machine = self.write();
        for extent in extents {
            if machine.wrote(&Blocks::from(extent)).mark {
                self.unmarked.store(true, Ordering::Release);
            }
        }
        self.settle(&machine);
    }

    /// The flag that readers look at follows the machine.
    pub fn settle(&self, machine: &Differential) {
        self.owes.store(!machine.owed().is_empty(), Ordering::Release);
    }

    /// Whether a round waits for a checkpoint (D3).
    pub fn awaits_checkpoint(&self) -> bool {
        self.checkpoint.load(Ordering::Acquire)
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
    pub fn hung_up(&self) {
        let mut machine = self.write();
        machine.hung_up();
        self.checkpoint.store(false, Ordering::Release);
    }

    /// The device serves from the tenure `epoch` on, by a prototype (D4).
    pub fn took(&self, epoch: u64) {
        let mut machine = self.write();
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

impl Device {
    /// Whether hosts are served here, or will be once that is shown (R13).
    pub(crate) fn side(&self) -> Side {
        if self.superblock.get().fenced { Side::Fenced } else { Side::Active }
    }

    /// A step of the machine, and its work, before any other step: `step` is given what ordered mode knows,
    /// and `also` is stored with the work. Returns whether the step did anything.
    ///
    /// # Errors
    /// [`crate::Kind::Halted`] if the storage fails.
    pub(crate) fn turn(
        &self,
        turn: &mut Turn,
        step: impl FnOnce(&mut Differential, &mut dyn FnMut() -> Ordered) -> Option<Work>,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<bool> {
        let (work, before, after) = {
            let _landed = self.peer.machine.landing();
            let mut tables = lock(&self.tables);
            self.sequence(&mut tables);
            let mut machine = self.peer.machine.write();
            let (before, round) = (machine.mode(), machine.round());
            let Some(work) = step(&mut machine, &mut || self.ordered(&tables)) else {
                return Ok(false);
            };
            if work.leaves_order {
                tables.normal.leave_order();
                self.peer.owed.forget();
            }
            let by_bits = matches!(machine.mode(), Mode::Collecting | Mode::Sending);
            let Tables { own, out, .. } = &mut *tables;
            out.follow(own, by_bits, machine.cut());
            self.peer.machine.settle(&machine);
            if machine.round() != round {
                // Of another round nothing is said any more.
                (turn.saying, turn.held) = (None, None);
            }
            (work, before, machine.mode())
        };
        self.carry_out(turn, work, also)?;
        if before != after {
            self.tell(Event::ModeChanged { mode: after });
            self.wakes.waiters.wake_all();
        }
        self.wakes.ship.ring();
        Ok(true)
    }

    /// Ordered mode's knowledge: R; own records that R8 holds back from N; what the peer owes and has not
    /// been overwritten here.
    fn ordered(&self, tables: &Tables) -> Ordered {
        let queue = &self.own.journal.queue;
        let records = tables.own.records();
        let of = |from, upto: Stamp| {
            let indices = from..records.end();
            let entries = indices.filter_map(|index| records.get(index));
            let held = entries.filter(move |&(stamp, _)| stamp > upto);
            let mut blocks: Vec<Blocks> =
                held.map(|(_, position)| queue.record(position).extent().into()).collect();
            blocks.sort_unstable_by_key(Blocks::first);
            blocks.into_iter().collect::<Bits>()
        };
        let unacknowledged = of(tables.out.first(), Stamp::ZERO);
        let unreflected = of(tables.normal.first_own(), tables.reflectable());
        let owed = match self.peer.owed.is_due() {
            false => Bits::default(),
            true => {
                let debt = self.peer.owed.told();
                let is_newest = |block: Block, stamp| {
                    queue.newest(block).0.is_none_or(|own| own.stamp < stamp)
                };
                let extents = debt.iter().map(|(extent, stamp)| (Blocks::from(extent), stamp));
                let blocks = extents.flat_map(|(blocks, stamp)| {
                    blocks.numbers.clone().filter_map(move |number| {
                        let block = Block { volume: blocks.volume, number };
                        let one = Blocks { volume: blocks.volume, numbers: number..number + 1 };
                        is_newest(block, stamp).then_some(one)
                    })
                });
                blocks.collect()
            }
        };
        let is_known = !tables.is_behind() || self.peer.owed.is_due();
        Ordered {
            unacknowledged,
            unreflected,
            owed: is_known.then_some(owed),
            newest: tables.newest_own(),
        }
    }

    /// Does `work`, in its order; what was to be done in the tables is done.
    fn carry_out(
        &self,
        turn: &mut Turn,
        work: Work,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        if work.sync {
            self.sync_own()?;
        }
        if work.store {
            self.store_differential(turn, also)?;
        } else if work.mark {
            self.mark()?;
        }
        let Some(message) = work.send else {
            return work.hi.map_or(Ok(()), |hi| self.raise_hi(hi));
        };
        (turn.saying, turn.held) = (None, None);
        if !work.checkpoint {
            work.hi.map_or(Ok(()), |hi| self.raise_hi(hi))?;
            return self.say(turn, message);
        }
        let tables = lock(&self.tables);
        let received = tables.incoming.records();
        let newest = received.newest_first(received.begin()).next().map_or(Stamp::ZERO, |r| r.0);
        let upto = tables.newest_own().max(newest);
        drop(tables);
        turn.held = Some(Held { upto, hi: work.hi, message });
        // Reflection and checkpoint are due at once.
        self.peer.machine.checkpoint.store(true, Ordering::Release);
        self.reflect_due_at.store(0, Ordering::Relaxed);
        self.wakes.reflect.ring();
        Ok(())
    }

    /// Sends the message that waits for a checkpoint, if that has been made (D3); whether it did.
    pub(crate) fn release(&self, turn: &mut Turn) -> Result<bool> {
        let Some(Held { upto, hi, message }) = turn.held else { return Ok(false) };
        let is_done = {
            let tables = lock(&self.tables);
            let received = tables.incoming.records();
            let own = tables.own.records().get(tables.normal.first_own());
            let next = [own, received.get(received.begin())];
            let is_reflected = next.iter().flatten().all(|entry| entry.0 > upto);
            is_reflected && self.superblock.get().fl >= tables.normal.reflected().min(upto)
        };
        if !is_done {
            return Ok(false);
        }
        turn.held = None;
        self.peer.machine.checkpoint.store(false, Ordering::Release);
        hi.map_or(Ok(()), |hi| self.raise_hi(hi))?;
        self.say(turn, message).map(|()| true)
    }

    /// The peer will name `hi` as the predecessor of its next record (D3). Every record up to it that there
    /// ever was is in N, durably.
    fn raise_hi(&self, hi: Stamp) -> Result<()> {
        let hi = {
            let mut tables = lock(&self.tables);
            tables.incoming.raise(hi);
            tables.normal.raise(hi);
            tables.incoming.hi()
        };
        self.store(|s| {
            s.hi = s.hi.max(hi);
            s.fl = s.fl.max(hi);
        })
    }

    /// Makes everything that was published durable, as the setting has it (D11).
    pub(crate) fn sync_own(&self) -> Result<()> {
        let synced = self.own.wait_round(self.own.round_wanted(), self.settings.durability, None);
        synced.map(|_| ()).map_err(|e| self.halt(e))
    }

    /// Stores the machine's state, and `also`, by one superblock write. The caller has the turn.
    pub(crate) fn store_differential(
        &self,
        turn: &mut Turn,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        let durable = self.peer.machine.read().durable();
        let note = |s: &mut Superblock| {
            durable.put(s);
            s.lineage.0 = durable.generation;
            if durable.mode != Mode::Ordered {
                s.need = Stamp::ZERO;
            }
            self.note_marks(s);
            also(s);
        };
        if turn.stored == durable.table {
            return self.store(note);
        }
        let stored = self.superblock.update_with_table(durable.table.runs(), note);
        stored.map_err(|e| self.halt(e))?;
        turn.stored = durable.table;
        Ok(())
    }

    /// N is about to be no prefix: the superblock says so first (D11).
    pub(crate) fn mark(&self) -> Result<()> {
        self.store(|s| self.note_marks(s))
    }

    /// Read as the superblock is written: no other update comes between.
    fn note_marks(&self, s: &mut Superblock) {
        let (owing, consistent) = self.peer.machine.read().durable_marks();
        Durable::put_marks(s, owing, consistent);
    }

    /// As [`Device::mark`], if a host's write has asked for it.
    pub(crate) fn mark_first(&self) -> Result<()> {
        match self.peer.machine.unmarked.swap(false, Ordering::AcqRel) {
            true => self.mark(),
            false => Ok(()),
        }
    }
}

/// The machine as the superblock and `table` have it, with everything received up to `hi`, and the bits that
/// live own records imply (D8).
pub(crate) fn restore(
    s: &Superblock,
    hi: Stamp,
    table: Vec<Blocks>,
    implied: impl Iterator<Item = Extent>,
) -> Differential {
    let mut durable = Durable::stored(s, table);
    if matches!(durable.consistent, Consistent::At(stamp) if stamp <= hi) {
        durable.consistent = Consistent::Yes;
    }
    let size = u64::from(s.block_size);
    let volumes = s.volumes.iter().filter(|v| v.bytes > 0);
    let volumes = volumes.map(|v| Blocks { volume: v.id, numbers: 0..v.bytes.div_ceil(size) });
    let side = if s.fenced { Side::Fenced } else { Side::Active };
    Differential::restore(durable, side, implied.map(Blocks::from), volumes)
}
