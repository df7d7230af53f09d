//! The steps of differential mode, one at a time, each with the work that it asks for: what is stored, synced and
//! sent, in the order that D1, D3 and D11 ask for.

use super::Tables;
use crate::device::Device;
use crate::error::Result;
use crate::event::Event;
use crate::format::superblock::Superblock;
use crate::sync::{Ordering, lock};
use crate::table::bits::Bits;
use crate::table::differential::{Consistent, Differential, Message, Ordered, Side, Work};
use crate::unit::{Block, Blocks, Mode, Stamp};
use crate::wake::Key;

/// The work of a step that is not done yet, and what was stored.
#[derive(Default)]
pub struct Turn {
    /// The message that waits for a checkpoint.
    pub held: Option<Held>,
    /// How far a table has been said: the message that it belongs to, and the next block.
    pub saying: Option<(Message, Block)>,
    /// The table of a grant, as far as it has come, and the request that it answers.
    pub granted: (u64, Bits),
    /// The blocks that differ at a device that returned, and the request that they were said with (D10).
    pub differing: (u64, Bits),
}

impl Turn {
    /// Whether the peer's round is to be answered once a checkpoint is made.
    pub fn is_to_answer(&self) -> bool {
        matches!(&self.held, Some(held) if matches!(held.message, Message::Opened(_)))
    }
}

/// A message that is sent once what was there when it was made is in N, durably.
pub struct Held {
    /// The newest record of then.
    upto: Stamp,
    /// The peer's next record names this one as its predecessor.
    hi: Option<Stamp>,
    pub message: Message,
}

impl Device {
    /// Whether hosts are served here, or will be once that is shown (R13).
    pub(crate) fn side(&self) -> Side {
        self.peer.machine.side()
    }

    /// A step of the machine, and its work, before any other step: `step` is given the tables, and `also` is
    /// stored with the work. Returns whether the step did anything.
    ///
    /// # Errors
    /// [`crate::Kind::Halted`] if the storage fails.
    pub(crate) fn turn(
        &self,
        turn: &mut Turn,
        step: impl FnOnce(&mut Differential, &Tables) -> Option<Work>,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<bool> {
        let (work, before, after) = {
            let _landed = self.peer.machine.landing();
            let mut tables = lock(&self.tables);
            self.sequence(&mut tables);
            let mut machine = self.peer.machine.write();
            let (before, round) = (machine.mode(), machine.round());
            self.image.look(&machine, &tables);
            let Some(work) = step(&mut machine, &tables) else {
                return Ok(false);
            };
            self.image.look(&machine, &tables);
            // A reader finds the debt, or what bits tell of it, or both.
            self.peer.machine.settle(&machine);
            self.peer.machine.change(&machine);
            if machine.consistent() == Consistent::No {
                // Before a record goes to N by that, the superblock says so (D11).
                self.peer.machine.unmark();
            }
            if work.leaves_order {
                tables.normal.leave_order();
            }
            if machine.round() != round {
                self.peer.machine.alike().begin();
                self.leave_to_bits(&mut machine, tables.incoming.hi());
            }
            let by_bits = matches!(machine.mode(), Mode::Collecting | Mode::Sending);
            let Tables { own, out, .. } = &mut *tables;
            out.follow(own, by_bits, machine.cut());
            if machine.round() != round {
                // Of another round nothing is said any more.
                self.peer.machine.forget(turn);
            }
            (work, before, machine.mode())
        };
        self.carry_out(turn, work, also)?;
        if before != after {
            lock(&self.peer.stay).changed(after, self.clock.monotonic());
            self.tell(Event::ModeChanged { mode: after });
            // Each read that waits for an answer looks again.
            self.wakes.waiters.wake(Key::Reply(0)..=Key::Reply(u64::MAX));
        }
        self.wakes.ship.ring();
        Ok(true)
    }

    /// Bits tell from now on of what records told of, and what has not arrived: what the peer owes does, and,
    /// for a loss sheet, what was told.
    fn leave_to_bits(&self, machine: &mut Differential, hi: Stamp) {
        let side = self.side();
        for (extent, stamp) in self.peer.owed.told().iter().filter(|told| told.1 > hi) {
            let blocks = Blocks::from(extent);
            match side {
                Side::Fenced => machine.was_told(&blocks, stamp.time),
                Side::Active => {
                    let owed: Vec<_> = machine.owed().within(blocks.range()).collect();
                    owed.iter().for_each(|run| machine.was_told(run, stamp.time));
                }
            }
        }
        self.peer.owed.forget();
    }

    /// Ordered mode's knowledge: R; own records that R8 holds back from N; what the peer owes and has not
    /// been overwritten here.
    pub(crate) fn ordered(&self, tables: &Tables) -> Ordered {
        let queue = &self.own.journal.queue;
        let records = tables.own.records();
        let of = |from, upto: Stamp| {
            let indices = from..records.end();
            let entries = indices.filter_map(|index| records.get(index));
            let held = entries.filter(move |&(stamp, _)| stamp > upto);
            held.map(|(_, position)| queue.record(position).extent().into()).collect::<Bits>()
        };
        let unacknowledged = of(tables.out.first(), Stamp::ZERO);
        let unreflected = match tables.is_behind() {
            true => of(tables.normal.first_own(), tables.reflectable()),
            false => Bits::default(),
        };
        let owed = match self.peer.owed.is_due() {
            false => Bits::default(),
            true => {
                // Own records that are final only: a newer one may still be lost. A record that is newer than an
                // owed record is not in N yet (R8).
                let mut own = records.newest_first(tables.normal.first_own()).peekable();
                let mut newer = Bits::default();
                let debt: Vec<_> = self.peer.owed.told().iter().collect();
                let mut owed = Vec::new();
                for (extent, stamp) in debt.into_iter().rev() {
                    while let Some((_, position)) = own.next_if(|own| own.0 > stamp) {
                        newer.insert(queue.record(position).extent().into());
                    }
                    owed.extend(newer.missing(&extent.into()).runs());
                }
                owed.into_iter().collect()
            }
        };
        Ordered {
            unacknowledged,
            unreflected,
            owed: self.is_debt_known(tables).then_some(owed),
            newest: tables.newest_own(),
        }
    }

    /// Whether the device knows what it is owed in ordered mode: a restart loses the prototype (R13).
    pub(crate) fn is_debt_known(&self, tables: &Tables) -> bool {
        !tables.is_behind() || self.peer.owed.is_due()
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
        if matches!(work.send, Some(Message::Opened { .. })) {
            // The round may stay as it is for long: the image is not left to the first copy.
            match self.reflecting.try_lock() {
                Ok(_still) => self.begin_image()?,
                Err(_) => self.wakes.reflect.ring(),
            }
        }
        if work.store {
            self.store_differential(also)?;
        } else if work.keeps_table {
            self.store_without_table(also)?;
        } else if work.mark {
            self.mark()?;
        }
        if self.has_needless_image() {
            self.wakes.reflect.ring();
        }
        let Some(message) = work.send else {
            return work.hi.map_or(Ok(()), |hi| self.raise_hi(hi));
        };
        self.peer.machine.forget(turn);
        if !work.checkpoint {
            work.hi.map_or(Ok(()), |hi| self.raise_hi(hi))?;
            return self.say(turn, message);
        }
        let tables = lock(&self.tables);
        let received = tables.incoming.records();
        let newest = received.newest_first(received.begin()).next().map_or(Stamp::ZERO, |r| r.0);
        // Records that were reflected may be replayed, too.
        let upto = tables.newest_own().max(newest).max(tables.normal.reflected());
        drop(tables);
        turn.held = Some(Held { upto, hi: work.hi, message });
        // Reflection and checkpoint are due at once.
        self.peer.machine.await_checkpoint();
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
        self.peer.machine.forget(turn);
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
}
