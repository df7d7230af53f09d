//! The return of a device whose peer was forced to take over while it was away (D10): it is fenced at the
//! hello, and becomes the target of a resync of what differs. It may ask for the host at once.

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::Tables;
use crate::format::frame::{Frame, Hello, LADDER_WIRE, Ladder, TablePiece};
use crate::format::superblock::{Branch, Superblock};
use crate::link::Lane;
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::table::differential::{Differential, Force, Side, Work};
use crate::unit::Mode;
use crate::weaken::{Clause, holds};
use std::sync::Arc;

impl Device {
    /// The peer, which says `hello`, was forced: this device is fenced, durably, and what it has is of
    /// another history (R3, D10).
    pub(super) fn return_to(&self, hello: &Hello) -> Result<()> {
        let held = self.superblock.get();
        let tenure = held.epoch.max(hello.epoch);
        if (!held.fenced || held.epoch < tenure) && holds(Clause::ReturnedFenced) {
            let served = self.clk.epoch() != 0;
            self.fence(tenure)?;
            self.tell(Event::Fenced { epoch: tenure, served });
        }
        let step = |machine: &mut Differential, _: &Tables| {
            self.peer.machine.change_sides(Side::Fenced);
            machine.returned();
            Some(Work::default())
        };
        let turn = &mut *self.peer.machine.turn();
        self.turn(turn, step, |_| ())?;
        // The image begins before the superblock calls N a mixture. Where that would wait for a reflection, or for an
        // image on its way back, the next step of reflection does it.
        match self.reflecting.try_lock() {
            Ok(_still) if !self.image.is_put_back() => {
                self.begin_image()?;
                self.mark()
            }
            _ => {
                self.wakes.reflect.ring();
                Ok(())
            }
        }
    }

    /// The superblock, if the peer was forced and it has yet to be noted down what this device alone has.
    pub(crate) fn is_to_note_given_up(&self) -> Option<Arc<Superblock>> {
        let theirs = lock(&self.failover).connection.lineage().0.0;
        let held = self.superblock.get();
        let saves = self.settings.salvage_bytes_max > 0 && holds(Clause::SaveWhatDiffers);
        let is_due = saves
            && self.peer.machine.read().returns_below(theirs)
            && !self.peer.saving.knows(held.lineage);
        is_due.then_some(held)
    }

    /// From now on the content of the blocks `differing` is saved before it is overwritten: this device, of which
    /// `held` is the superblock, alone has it. It takes the longer the more runs they are, and so no hello does it,
    /// but the first round of the resync before its answer, or a request for the host once it is on its way.
    pub(crate) fn note_given_up(&self, held: &Superblock, differing: Bits) -> Result<()> {
        let most = self.settings.salvage_bytes_max;
        let noted = self.peer.saving.begin(&*self.storage, held, differing, most);
        noted.map_err(|e| self.halt(e))
    }

    /// Removes the salvage file `number` of this device; its blocks are not saved again. A resync that found no room for
    /// salvage goes on when the devices are connected again ([`crate::salvage::remove`]: of a closed device).
    ///
    /// # Errors
    /// [`Kind::Invalid`] if there is no such file, [`Kind::Halted`].
    pub fn remove_salvage(&self, number: u32) -> Result<()> {
        // It is not closed, and its directory changed, meanwhile.
        let _open = self.begin_step(&self.role)?;
        let most = self.settings.salvage_bytes_max;
        let removed =
            self.peer.saving.remove(&*self.storage, &self.superblock.get(), (number, most));
        removed.map_err(|e| if e.kind() == Kind::Invalid { e } else { self.halt(e) })
    }

    /// Every block of every volume is copied from now on, in a round that has begun or will begin (R10): no
    /// bits tell what a device lacks that lost durable records.
    pub(super) fn expect_all(&self) -> Result<()> {
        let all: Bits = self.volumes.whole().collect();
        let turn = &mut *self.peer.machine.turn();
        let step = |machine: &mut Differential, _: &Tables| {
            self.peer.machine.alike().expect(&all);
            (machine.mode() != Mode::Ordered).then(|| machine.expect_all(&all))
        };
        self.turn(turn, step, |_| ()).map(|_| ())
    }

    /// The peer has lost durable records, and this device holds the host and lacks nothing: a lineage begins
    /// here, to which the peer returns when they meet again, as the target of a resync of every block (R10).
    /// Returns what is to be done, in words.
    pub(super) fn outlive(&self, hello: &Hello) -> Result<&'static str> {
        if hello.wire.max < LADDER_WIRE || !self.is_whole() {
            return Ok(
                "it must be resynchronised: force this device to take over (`afterimage force`), and the \
                       peer becomes its target",
            );
        }
        let all: Bits = self.volumes.whole().collect();
        let epoch = self.superblock.get().epoch;
        self.begin_lineage(Force { epoch, above: 0, gives_up: false, put_back: &all }, |_| ())?;
        Ok("it becomes the target of a resync of every block when it connects again")
    }

    /// Before a request for the host: what differs here from the history of a peer that was forced; nothing, if
    /// it was not.
    pub(super) fn say_differing(&self, nonce: u64) -> Result<Option<Bits>> {
        let theirs = lock(&self.failover).connection.lineage().0.0;
        let returns = self.peer.machine.read().returns_below(theirs);
        if !returns {
            return Ok(None);
        }
        let differing = {
            let tables = lock(&self.tables);
            self.peer.machine.read().differing(&self.ordered(&tables))
        };
        if !holds(Clause::SayDiffering) {
            return Ok(Some(differing));
        }
        let mut from = TablePiece::FIRST;
        loop {
            let piece = TablePiece::next(from, &mut differing.runs_from(from).peekable());
            let (to, is_last) = (piece.to, piece.is_last);
            self.send(Lane::Control, &Frame::Ladder(Ladder::Returned { nonce, piece }))?;
            if is_last {
                break;
            }
            from = to;
        }
        Ok(Some(differing))
    }

    /// A piece of what differs at the peer, which returned, and is about to ask for the host.
    pub(super) fn receive_returned(&self, nonce: u64, piece: TablePiece) -> Result<()> {
        let piece = self.check_piece(piece)?;
        let turn = &mut *self.peer.machine.turn();
        let (of, differing) = &mut turn.differing;
        if *of != nonce || piece.range.start == TablePiece::FIRST {
            (*of, *differing) = (nonce, Bits::default());
        }
        differing.add(&piece.blocks);
        Ok(())
    }

    /// The histories have parted: what the peer says of its own is kept for an operator
    /// ([`crate::failover::Closed::resolve`]). Writes that were admitted alone make a lineage of their own.
    pub(super) fn note_branch(&self, hello: &Hello) -> Result<()> {
        let Hello { device, lineage, epoch, newest, .. } = *hello;
        let other = Some(Branch { device, lineage, epoch, newest });
        let now = self.superblock.get();
        if now.history.other == other && now.history.alone.is_none() {
            return Ok(());
        }
        let newest_own = self.newest_published();
        let is_branch = now.history.alone.is_some_and(|then| newest_own > then);
        let _turn = self.peer.machine.turn();
        if !is_branch {
            return self.store(|s| s.history.other = other);
        }
        let id = self.clock.entropy().map_err(|e| Error::storage("drawing a random number", e))?;
        self.store(|s| {
            s.history.other = other;
            s.history.alone = None;
            s.history.add(s.lineage);
            s.lineage.1 = id;
        })
    }
}
