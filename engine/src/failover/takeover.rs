//! Taking the host over: ask, merge the prototype, serve (S800–S810; R5).

use super::Failover;
use super::decide::Wait;
use super::resume::waiting;
use super::role::OpenRequest;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::Tables;
use crate::format::frame::{Frame, Requester, TablePiece};
use crate::format::superblock::Superblock;
use crate::limits::EPOCH_JUMP_MAX;
use crate::link::Lane;
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::table::differential::{Differential, Grant, Request, Side, Taken};
use crate::unit::{Extent, Mode, Stamp};
use crate::wake::{Key, block_on};
use crate::weaken::{Clause, holds};
use std::ops::ControlFlow;
use std::sync::MutexGuard;

/// A takeover that has ended well: the device serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Takeover {
    /// The new tenure.
    pub epoch: u64,
    /// Blocks whose newest data is still at the peer.
    pub owed_blocks: u64,
    /// When it was asked for, on this device's monotonic clock, in nanoseconds.
    pub requested_at: u64,
    /// When the device was ready to serve (S808), on the same clock, in nanoseconds.
    pub ready_at: u64,
}

/// Tenures are counted in 64 bits: reached only by a broken or hostile peer.
pub(super) fn epochs_exhausted() -> Error {
    Error::new(Kind::Halted, "tenures have run out of numbers: no later epoch exists")
}

impl Device {
    /// Asks the peer for the host (S803). The answer comes to [`Device::poll_takeover`]. Asking
    /// again while a request is open sends it again, as a new one. A request that was written into a file
    /// ([`Device::request_by_file`]) ends as the two devices connect, and not by this call.
    ///
    /// # Errors
    /// [`Kind::NoPeer`] without a connection, [`Kind::Invalid`] if this device serves already,
    /// [`Kind::Damaged`] if the peer has shown that it lost durable records, [`Kind::Halted`].
    pub fn begin_takeover(&self) -> Result<()> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.role)?;
        if self.clk.epoch() != 0 {
            return Err(Error::new(Kind::Invalid, "this device serves already"));
        }
        if lock(&self.failover).role.lost().is_some() {
            return Err(waiting(Wait::Lost));
        }
        let now = self.clock.monotonic();
        let sent = self.ask_for_host(now, now);
        if sent.is_err() {
            // The peer has not heard this request: it must not stand in the way of the peer's own.
            lock(&self.failover).role.withdraw();
            self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        }
        sent
    }

    /// Why a host that comes gets no session. By the settings a fenced device asks for the host then: the
    /// next control step does.
    pub(crate) fn refuse_host(&self) -> Error {
        let why = self.not_serving();
        let is_kept = self.superblock.get().fenced_here;
        let may_ask = self.settings.takeover_at_first_request && !is_kept;
        if why.kind() != Kind::Fenced || !may_ask {
            return why;
        }
        lock(&self.failover).role.must_ask(true);
        self.wakes.line.ring();
        waiting(Wait::Asking)
    }

    /// Sends a takeover request, which replaces the open one if there is one.
    fn ask_for_host(&self, requested_at: u64, progress_at: u64) -> Result<()> {
        let nonce = self.nonce()?;
        let request = OpenRequest { nonce, requested_at, progress_at };
        let (device, is_early) = {
            let mut failover = lock(&self.failover);
            let is_early = failover.connection.awaits_hello();
            (failover.role.ask(request), is_early)
        };
        if is_early {
            // The wire version is not agreed yet: the peer's hello brings the request on its way.
            return Ok(());
        }
        let differing = self.say_differing(nonce)?;
        self.send(Lane::Control, &self.request_frame(nonce, device)?)?;
        // A grant drops it.
        match (differing, self.is_to_note_given_up()) {
            (Some(differing), Some(held)) => self.note_given_up(&held, differing),
            _ => Ok(()),
        }
    }

    /// The request `nonce` of this device, whose number is `device`: for the next tenure.
    pub(super) fn request_frame(&self, nonce: u64, device: u64) -> Result<Frame<'static>> {
        let held = self.superblock.get().epoch;
        let epoch = held.checked_add(1).ok_or_else(|| self.halt(epochs_exhausted()))?;
        let Request { mode, round, last_active, generation, told } =
            self.peer.machine.read().request();
        let ladder = Some(Requester { mode, round, last_active, generation, told });
        let told = self.peer.owed.told().last();
        Ok(Frame::Takeover { epoch, device, nonce, told, ladder })
    }

    /// After a hello: an open request was lost with the old connection, or its answer was. With
    /// `anew` it asks even if there is none.
    pub(super) fn ask_at_hello(&self, anew: bool) -> Result<()> {
        let open = {
            let role = &mut lock(&self.failover).role;
            role.must_ask(anew);
            role.forget_file();
            role.request()
        };
        let now = self.clock.monotonic();
        match open {
            Some(OpenRequest { requested_at, progress_at, .. }) if holds(Clause::AskAtHello) => {
                self.ask_for_host(requested_at, progress_at)
            }
            None if anew => self.ask_for_host(now, now),
            _ => Ok(()),
        }
    }

    /// The peer, which serves under `epoch`, offers its host: this device asks for it, as if its driver had. An
    /// offer of a tenure that is over is ignored.
    pub(super) fn receive_offer(&self, epoch: u64) -> Result<()> {
        let _one = lock(&self.role);
        let held = self.superblock.get();
        let may_ask = {
            let role = &self.expire_and_lock().role;
            held.fenced && epoch >= held.epoch && !role.is_asking() && role.lost().is_none()
        };
        if !may_ask {
            return Ok(());
        }
        let now = self.clock.monotonic();
        self.ask_for_host(now, now)
    }

    /// Asks once more if a hello, or a host, made this device ask and the request has ended without an answer: no
    /// caller polls for it, and the peer may only be slow. Returns whether it asked.
    pub(super) fn ask_for_host_again(&self) -> Result<bool> {
        if self.clk.epoch() != 0 {
            return Ok(false);
        }
        let must = |failover: &Failover| {
            failover.role.asks_again() && failover.connection.standing().is_some()
        };
        if !must(&self.expire_and_lock()) {
            return Ok(false);
        }
        let _one = lock(&self.role);
        if !must(&lock(&self.failover)) {
            return Ok(false);
        }
        let now = self.clock.monotonic();
        self.ask_for_host(now, now).map(|()| true)
    }

    /// The outcome of the takeover asked for (S808), once, when there is one. Never waits.
    ///
    /// # Errors
    /// [`Kind::Timeout`] if the peer has given no sign for
    /// [`crate::limits::Settings::takeover_timeout_ns`], which closes the request;
    /// [`Kind::NotReady`] if the peer's own request won (R5); [`Kind::Halted`], every time.
    pub fn poll_takeover(&self) -> Option<Result<Takeover>> {
        let _telling = self.events.enter();
        if let Err(halted) = self.check_halted() {
            return Some(Err(halted));
        }
        self.expire_and_lock().role.take_outcome()
    }

    /// Locks the state of takeovers, after closing an open request that the peer has left unanswered
    /// for too long. A request that this device made by itself expires here, as no caller polls for it.
    pub(super) fn expire_and_lock(&self) -> MutexGuard<'_, Failover> {
        let mut failover = lock(&self.failover);
        failover.role.expire(self.clock.monotonic(), self.settings.takeover_timeout_ns);
        failover
    }

    /// Takes the host over (S801–S808, R5), waiting until this device serves. Background steps must
    /// be running.
    ///
    /// # Errors
    /// As [`Device::begin_takeover`]; [`Kind::Timeout`] if the peer does not answer,
    /// [`Kind::NotReady`] if its own request won, or if another caller has withdrawn this one or
    /// was told its outcome.
    pub fn takeover(&self) -> Result<Takeover> {
        let _telling = self.events.enter();
        self.begin_takeover()?;
        let waiters = &self.wakes.waiters;
        let number = waiters.number();
        let outcome = block_on(|waker| {
            loop {
                let until = {
                    // Under this lock a request that has been answered has its outcome.
                    let _one = lock(&self.role);
                    if let Some(outcome) = self.poll_takeover() {
                        return ControlFlow::Break(outcome);
                    }
                    let Some(request) = lock(&self.failover).role.request() else {
                        let what =
                            "the takeover request has ended for another caller: see the status";
                        return ControlFlow::Break(Err(Error::new(Kind::NotReady, what)));
                    };
                    let most = self.settings.takeover_timeout_ns;
                    request.progress_at.saturating_add(most).saturating_add(1)
                };
                if !waiters.enter(Key::Takeover, number, 0, waker) {
                    return ControlFlow::Continue(Some(
                        until.saturating_sub(self.clock.monotonic()),
                    ));
                }
            }
        });
        waiters.leave(Key::Takeover, number);
        outcome
    }

    pub(super) fn receive_busy(&self, nonce: u64) -> Result<()> {
        let is_open = lock(&self.failover).role.refused(nonce);
        if is_open {
            self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        }
        Ok(())
    }

    /// A piece of a prototype (S806). It is noted down whichever request it answers: what it tells
    /// of is durable at the peer, and stays so until it arrives (R18).
    pub(super) fn receive_prototype(
        &self,
        nonce: u64,
        grant: u64,
        left: u64,
        is_last: bool,
        previous: Stamp,
        entries: &[(Extent, Stamp)],
    ) -> Result<()> {
        // The lock stays until this device serves: no request may begin between the end of this one and
        // the tenure.
        let one = lock(&self.role);
        self.take_prototype(&one, (nonce, grant), (left, is_last), previous, entries)
    }

    /// As [`Device::receive_prototype`]. The caller holds `role`.
    pub(super) fn take_prototype(
        &self,
        _one: &MutexGuard<'_, ()>,
        (nonce, grant): (u64, u64),
        (left, is_last): (u64, bool),
        previous: Stamp,
        entries: &[(Extent, Stamp)],
    ) -> Result<()> {
        let is_asked = self.is_answer(nonce, grant)?;
        if self.peer.machine.mode() != Mode::Ordered && holds(Clause::GrantKind) {
            // This device has left the order that it asked in: it asks again (D4).
            let open = lock(&self.failover).role.request().filter(|_| is_asked);
            return open
                .map_or(Ok(()), |open| self.ask_for_host(open.requested_at, open.progress_at));
        }
        // Every record of the peer's is of a tenure that was granted here.
        if let Some(&(_, newest)) = entries.last() {
            self.check_tenure_known(newest)?;
        }
        self.take_piece(previous, entries, (!is_last).then_some(left), grant)?;
        let is_answered = is_asked && is_last;
        let answered = is_answered.then(|| lock(&self.failover).role.answered()).flatten();
        match answered {
            None => Ok(()),
            Some(request) => self.serve_under(grant, request.requested_at),
        }
    }

    /// Whether a grant of the tenure `grant` answers the open request.
    fn is_answer(&self, nonce: u64, grant: u64) -> Result<bool> {
        let epoch = self.superblock.get().epoch;
        if grant.saturating_sub(epoch) > EPOCH_JUMP_MAX {
            let what = format!(
                "the peer grants tenure {grant}, too far above tenure {epoch}, the last one here"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        let is_asked = lock(&self.failover).role.progress(nonce, self.clock.monotonic());
        if is_asked && grant <= epoch && holds(Clause::GrantRises) {
            let what = format!(
                "the peer grants tenure {grant}, but this device already has tenure {epoch}"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        Ok(is_asked)
    }

    /// A piece of a granted table (D4). With the last one of the open request's answer this device serves.
    pub(super) fn receive_table(
        &self,
        (nonce, grant): (u64, u64),
        granted: Grant,
        piece: TablePiece,
    ) -> Result<()> {
        let one = lock(&self.role);
        self.take_table(&one, (nonce, grant), granted, piece)
    }

    /// As [`Device::receive_table`]. The caller holds `role`.
    pub(super) fn take_table(
        &self,
        _one: &MutexGuard<'_, ()>,
        (nonce, grant): (u64, u64),
        granted: Grant,
        piece: TablePiece,
    ) -> Result<()> {
        if !self.is_answer(nonce, grant)? {
            return Ok(());
        }
        if let Grant::Table { generation, .. } = granted {
            self.check_round(generation, Stamp::ZERO)?;
        }
        let turn = &mut *self.peer.machine.turn();
        let (of, table) = &mut turn.granted;
        if *of != nonce || piece.from == TablePiece::FIRST {
            (*of, *table) = (nonce, Bits::default());
        }
        let piece = self.check_piece(piece)?;
        table.add(&piece.blocks);
        if !piece.is_last {
            return Ok(());
        }
        let table = std::mem::take(table);
        let Some(request) = lock(&self.failover).role.answered() else { return Ok(()) };
        lock(&self.failover).role.end_grant();
        let mut asks_again = false;
        let step = |machine: &mut Differential, tables: &Tables| match machine.take(
            granted,
            table,
            grant,
            self.ordered(tables),
        ) {
            Taken::Table(work) => {
                self.peer.machine.change_sides(Side::Active);
                Some(work)
            }
            Taken::AskAgain | Taken::Prototype => {
                asks_again = true;
                None
            }
        };
        // One superblock write before the first command is served under it.
        self.turn(turn, step, |s| self.note_tenure(s, grant))?;
        if asks_again {
            return self.ask_for_host(request.requested_at, request.progress_at);
        }
        lock(&self.tables).out.serve();
        let owed_blocks = self.peer.machine.read().owed().blocks();
        self.begin_to_serve(grant, owed_blocks, request.requested_at)
    }

    fn note_tenure(&self, s: &mut Superblock, grant: u64) {
        s.epoch = grant;
        s.last_active = grant;
        s.fenced = false;
        s.fenced_here = false;
        s.weakest = s.weakest.max(self.settings.durability.number());
    }

    /// Merges what was told and opens the tenure (R5): it does not wait for data, and the prototype
    /// is told by now. The caller holds `role`.
    fn serve_under(&self, grant: u64, requested_at: u64) -> Result<()> {
        lock(&self.failover).role.end_grant();
        // A checkpoint stores the machine only with the tenure that it has.
        let turn = self.peer.machine.turn();
        self.peer.machine.took(grant);
        let merged = self.merge();
        // Durable before the first command is served under it.
        if holds(Clause::TenureDurable) {
            self.store(|s| {
                merged.note(s);
                self.note_tenure(s, grant);
            })?;
        }
        drop(turn);
        let owed_blocks = self.begin_debt();
        self.begin_to_serve(grant, owed_blocks, requested_at)
    }

    fn begin_to_serve(&self, grant: u64, owed_blocks: u64, requested_at: u64) -> Result<()> {
        // Own stamps of this tenure are above every other by their epoch alone.
        self.open_admission(|clk| clk.open(grant, 0));
        let ready_at = self.clock.monotonic();
        let takeover = Takeover { epoch: grant, owed_blocks, requested_at, ready_at };
        lock(&self.failover).role.took_over(takeover);
        self.tell(Event::Ready { epoch: grant, owed_blocks });
        self.say_serving();
        if owed_blocks == 0 {
            self.tell(Event::CaughtUp);
        }
        self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        Ok(())
    }
}
