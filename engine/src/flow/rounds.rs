//! Rounds (D3, D6, D7, D9): who opens which, and when: out of ordered mode as the journal fills or the
//! line stays down, and back to it, or to rest level, by itself.

use super::Tables;
use super::turn::Turn;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{Frame, LADDER_WIRE, Ladder, TablePiece};
use crate::link::{Lane, Link};
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::table::differential::{Differential, Message, Opened, Piece, Side, Work};
use crate::unit::{Block, Blocks, Mode, Round, Stamp};
use std::sync::Arc;

impl Device {
    /// Does what is next in the rounds of differential mode: a message whose checkpoint has been made, the
    /// next piece of a table, the next rung (D1, D6, D7, D9). Returns whether there was anything.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the storage fails.
    pub fn step_ladder(&self) -> Result<bool> {
        let _telling = self.events.enter();
        // In order there is nothing to do, and a checkpoint may have the turn for long.
        let is_idle = self.peer.machine.ordered_round().is_some() && !self.must_suspend();
        if is_idle && !self.peer.machine.read().awaits_sync() {
            return Ok(false);
        }
        let _ship = self.begin_step(&self.peer.shipping)?;
        let mut turn = self.peer.machine.turn();
        if turn.is_to_answer()
            && let Some(held) = self.is_to_note_given_up()
        {
            // Copies come once the peer's round is answered. A takeover does not wait for this.
            drop(turn);
            let differing = self.peer.machine.table().collect();
            return self.note_given_up(&held, differing).map(|()| true);
        }
        let turn = &mut *turn;
        Ok(self.release(turn)?
            || self.say_on(turn)?
            || self.settle_debt(turn)?
            || self.climb(turn)?)
    }

    /// The present connection, if it speaks of differential mode: its wire version, session and link.
    pub(crate) fn ladder_line(&self) -> Option<(u16, u64, Arc<dyn Link>)> {
        let failover = lock(&self.failover);
        let wire = failover.connection.wire();
        let (session, link) = failover.connection.standing()?;
        (wire >= LADDER_WIRE).then_some((wire, session, link))
    }

    /// The next rung, if it is this device's to take.
    fn climb(&self, turn: &mut Turn) -> Result<bool> {
        if self.clk.epoch() == 0 {
            return Ok(false);
        }
        self.note_left();
        if self.must_suspend() {
            let is_done = self.suspend_in(turn)?;
            if is_done {
                self.stay_suspended();
            }
            return Ok(is_done);
        }
        let (mode, is_closed) = {
            let machine = self.peer.machine.read();
            (machine.mode(), machine.is_closed())
        };
        if self.ladder_line().is_none() || turn.held.is_some() {
            return Ok(false);
        }
        let resumes = self.resume_deadline().is_some_and(|at| at <= self.clock.monotonic());
        let next = match mode {
            Mode::Ordered => return Ok(false),
            Mode::Collecting | Mode::Sending if resumes => Mode::Copying,
            Mode::Collecting if !self.peer.machine.owes() => Mode::Sending,
            same => same,
        };
        if next != mode || is_closed {
            return self.open_round(turn, next);
        }
        match mode {
            Mode::Sending if self.peer.machine.read().may_level() => {
                // A copy may have carried a record that has no bit yet.
                let level = |machine: &mut Differential, tables: &Tables| {
                    tables.own.is_complete().then(|| machine.level()).flatten()
                };
                self.turn(turn, level, |_| ())
            }
            Mode::Copying if self.peer.machine.read().may_end() => {
                let end = |machine: &mut Differential, tables: &Tables| {
                    // A copy may have carried a record that is not in R yet.
                    let newest = tables.own.newest_published();
                    machine.end(Some(newest).filter(|&newest| newest > tables.out.floor()))
                };
                self.turn(turn, end, |_| ())
            }
            _ => Ok(false),
        }
    }

    /// Opens a round of `mode`. Of a round that is over no copy counts, so those in flight arrive first.
    fn open_round(&self, turn: &mut Turn, mode: Mode) -> Result<bool> {
        if self.peer.machine.drain_before(mode) {
            return Ok(false);
        }
        self.turn(turn, |machine, tables| machine.open(mode, tables.newest_own()), |_| ())
    }

    /// Suspends (D1): from now on bits remember what the peer lacks, until it has all again. An operator may
    /// ask for it; a device does so by itself when its journal is filling
    /// ([`crate::Settings::suspend_from_percent`]), or the line is down for long
    /// ([`crate::Settings::suspend_after_ns`]).
    ///
    /// # Errors
    /// [`Kind::Invalid`] if this device does not serve, or what it is owed is not known (R13), or its peer's
    /// program has not been heard to know differential mode; [`Kind::Halted`]. In a mode without R it
    /// changes nothing.
    pub fn suspend(&self) -> Result<()> {
        let _telling = self.events.enter();
        let _ship = self.begin_step(&self.peer.shipping)?;
        let _one = self.begin_step(&self.role)?;
        if self.clk.epoch() == 0 {
            return Err(Error::new(Kind::Invalid, "only the device that serves can suspend"));
        }
        if !self.knows_ladder() {
            let what = "the other device has not been heard to know differential mode: connect the two, and \
                        see that both have this version of the program";
            return Err(Error::new(Kind::Invalid, what));
        }
        let turn = &mut *self.peer.machine.turn();
        self.suspend_in(turn).map(|_| ())
    }

    fn suspend_in(&self, turn: &mut Turn) -> Result<bool> {
        self.sync_own()?;
        self.turn(turn, |machine, tables| machine.suspend(self.ordered(tables)), |_| ())
    }

    /// Nothing is owed any more: once what was copied and written is durable, that is stored (D11).
    fn settle_debt(&self, turn: &mut Turn) -> Result<bool> {
        if !self.peer.machine.read().awaits_sync() {
            return Ok(false);
        }
        self.sync_own()?;
        self.volumes.sync().map_err(|e| self.halt(e))?;
        self.turn(turn, |machine, _| Some(machine.synced()), |_| ())
    }

    /// Says `message`; a table goes out piece by piece.
    pub(super) fn say(&self, turn: &mut Turn, message: Message) -> Result<()> {
        let (lane, frame) = match message {
            Message::Open { round, mode, generation, cut, told } => {
                let clk = self.clk_stamp();
                (Lane::Control, Ladder::Open { round, mode, generation, cut, clk, told })
            }
            Message::End { round, generation, consistent_at } => {
                (Lane::Data, Ladder::End { round, generation, consistent_at })
            }
            Message::Level { round } => (Lane::Data, Ladder::Level { round }),
            Message::EndAck { round } => (Lane::Control, Ladder::EndAck { round }),
            Message::Opened(_) => {
                turn.saying = Some((message, TablePiece::FIRST));
                return Ok(());
            }
            // The role's: it goes out with the hand-over.
            Message::Grant(_) => return Ok(()),
        };
        // Of a connection that stands: the hello of a new one opens the round again.
        if let Some((wire, session, link)) = self.ladder_line()
            && let Err(error) = link.send(lane, Frame::Ladder(frame).encode_in(wire, session))
        {
            self.disconnected(&error, &link);
        }
        Ok(())
    }

    /// Says the next piece of the own table (D3), if the lane has room; whether it did.
    fn say_on(&self, turn: &mut Turn) -> Result<bool> {
        let Some((message @ Message::Opened(opened), from)) = turn.saying else {
            return Ok(false);
        };
        match self.ladder_line() {
            Some((_, _, link)) if !self.is_full(&link) => {}
            _ => return Ok(false),
        }
        let piece = self.table_from(from);
        let (to, is_last) = (piece.to, piece.is_last);
        turn.saying = (!is_last).then_some((message, to));
        let Opened { round, cut, told, is_consistent } = opened;
        let frame = Frame::Ladder(Ladder::Opened { round, cut, told, is_consistent, piece });
        match self.send(Lane::Control, &frame) {
            Err(error) if error.kind() == Kind::NoPeer => return Ok(false),
            other => other?,
        }
        if is_last {
            self.peer.machine.write().said_opened();
            // In mode c the peer may ship into the received log, which is empty now.
            self.acknowledge();
        }
        Ok(true)
    }

    /// The runs of the own table from `from` on, as many as a frame takes.
    fn table_from(&self, from: Block) -> TablePiece {
        let machine = self.peer.machine.read();
        TablePiece::next(from, &mut machine.table().runs_from(from).peekable())
    }

    /// The machine hears a message of the peer's; whether it was for it.
    fn hear(
        &self,
        step: impl FnOnce(&mut Differential, Side, &Tables) -> Option<Work>,
    ) -> Result<bool> {
        let _one = lock(&self.role);
        let side = self.side();
        let turn = &mut *self.peer.machine.turn();
        self.turn(turn, |machine, tables| step(machine, side, tables), |_| ())
    }

    /// The peer, which is active, opens a round (D3).
    pub(crate) fn receive_open(
        &self,
        (round, mode): (Round, Mode),
        generation: u64,
        (cut, told): (Stamp, u64),
    ) -> Result<()> {
        self.check_round(generation, cut)?;
        self.hear(|machine, side, tables| {
            machine.hear_open(side, (round, mode), generation, (cut, told), self.ordered(tables))
        })?;
        Ok(())
    }

    /// A piece of the fenced peer's table (D3).
    pub(crate) fn receive_opened(&self, opened: Opened, piece: TablePiece) -> Result<()> {
        let (is_last, cut) = (piece.is_last, opened.cut);
        self.check_stamp(cut)?;
        if self.clk.epoch() != 0 && cut.epoch >= self.clk.epoch() {
            let what = format!(
                "the peer, which is fenced, says that its newest record is {cut}, of this device's tenure"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        let piece = self.check_piece(piece)?;
        let was_owed = self.peer.machine.owes();
        let is_heard = self.hear(|machine, side, _| {
            if machine.mode() != Mode::Collecting {
                self.peer.machine.expect_alike(machine, &piece.blocks);
            }
            machine.hear_opened(side, opened, &piece)
        })?;
        self.say_if_no_copy_is_consistent();
        if is_heard && is_last && self.peer.machine.mode() == Mode::Copying {
            lock(&self.tables).out.begin_shipping();
        }
        if was_owed && !self.peer.machine.owes() {
            self.tell(Event::CaughtUp);
        }
        Ok(())
    }

    /// Tells, once a round, that there is no consistent copy at either site (LADDER 4).
    pub(crate) fn say_if_no_copy_is_consistent(&self) {
        if self.peer.machine.has_lost_the_last_copy(self.side()) {
            self.tell(Event::NoConsistentCopy);
        }
    }

    /// Whether a round of the lineage `generation` can be the peer's, with a stamp that it names: it is of this
    /// device's lineage, or of the one that the peer's hello named (D10).
    pub(crate) fn check_round(&self, generation: u64, stamp: Stamp) -> Result<()> {
        let own = self.superblock.get().lineage.0;
        let theirs = lock(&self.failover).connection.lineage().0.0;
        if generation != own && generation != theirs {
            let what = format!(
                "the peer's round is of lineage {generation}, but its hello named {theirs}, and this device's is {own}"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        self.check_stamp(stamp)
    }

    /// Whether a stamp that the peer names is of a tenure that is known, and not beyond all times.
    fn check_stamp(&self, stamp: Stamp) -> Result<()> {
        if stamp.time > Stamp::TIME_MAX {
            let what = format!(
                "the peer names the stamp {stamp}, whose time is above {}",
                Stamp::TIME_MAX
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        self.check_tenure_known(stamp)
    }

    /// A piece of a table, if its blocks are of this group.
    pub(crate) fn check_piece(&self, piece: TablePiece) -> Result<Piece> {
        let TablePiece { from, to, runs, is_last } = piece;
        self.check_blocks(&runs)?;
        Ok(Piece { range: from..to, blocks: runs.into_iter().collect::<Bits>(), is_last })
    }

    /// Whether the peer's table can have `runs`: they are blocks of this group.
    pub(crate) fn check_blocks(&self, runs: &[Blocks]) -> Result<()> {
        for run in runs {
            if run.numbers.end > self.volumes.blocks(run.volume) {
                let what = format!(
                    "the peer names block {}:{}, which no volume has",
                    run.volume,
                    run.numbers.end - 1
                );
                return Err(Error::new(Kind::Protocol, what));
            }
        }
        Ok(())
    }

    /// The active peer says that this device has all, and both go back to ordered mode (D9).
    pub(crate) fn receive_end(
        &self,
        round: Round,
        generation: u64,
        consistent_at: Stamp,
    ) -> Result<()> {
        self.check_round(generation, consistent_at)?;
        self.hear(|machine, side, tables| {
            let hi = tables.incoming.hi();
            machine.hear_end(side, round, generation, consistent_at, hi)
        })
        .map(|_| ())
    }

    /// The target is in ordered mode (D9).
    pub(crate) fn receive_end_ack(&self, round: Round) -> Result<()> {
        if self.hear(|machine, side, _| machine.hear_end_ack(side, round))? {
            // Records that the peer shipped in another round took no place here: it may ship as many as there
            // is room for, once it is active.
            self.acknowledge();
        }
        Ok(())
    }

    /// The active peer says that this device has all, until its next copy (D7).
    pub(crate) fn receive_level(&self, round: Round) -> Result<()> {
        self.hear(|machine, side, _| machine.hear_level(side, round)).map(|_| ())
    }
}
