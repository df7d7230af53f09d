//! A planned move while the line is down: the request and the grant of a takeover travel as two files, by way of
//! the hosts (S803–S808; R3–R5, D4). Each file has a hello, which is checked as one that came over the line.

use super::decide::{Decision, Here, Kin, Occasion, Wait, decide};
use super::resume::waiting;
use super::role::OpenRequest;
use super::takeover::Takeover;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::frame::{Frame, Hello, LADDER_WIRE, Ladder};
use crate::format::planned::Planned;
use crate::sync::lock;
use crate::table::differential::Grant;
use crate::wake::Key;
use crate::weaken::{Clause, holds};

fn no_answer() -> Error {
    let what = "the grant answers no request that stands here: it is of an earlier one, was taken before, or the two \
                devices have been connected since: write a request, and have that answered";
    Error::new(Kind::Invalid, what)
}

fn of_frames(what: &str) -> Error {
    Error::new(Kind::Damaged, format!("{what}: have the file written anew"))
}

impl Device {
    /// A request for the host, for [`Device::grant_by_file`] at the other device. It replaces the last one, and
    /// is over with the next connection that stands, by which the host is asked for then; a takeover that finds
    /// no connection leaves it as it is.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if this device serves, or a connection stands or begins; [`Kind::NotReady`] while a takeover
    /// is open here; as [`Device::session`] if it neither serves nor is fenced; [`Kind::NoPeer`] if the machine
    /// gives no random numbers, [`Kind::Halted`].
    pub fn request_by_file(&self) -> Result<Vec<u8>> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.role)?;
        self.check_apart()?;
        if self.clk.epoch() != 0 {
            return Err(Error::new(Kind::Invalid, "this device serves already"));
        }
        let why = self.not_serving();
        if why.kind() != Kind::Fenced {
            return Err(why);
        }
        self.part_for_file();
        let (nonce, now) = (self.nonce()?, self.clock.monotonic());
        let request = OpenRequest { nonce, requested_at: now, progress_at: now };
        let device = lock(&self.failover).role.ask_by_file(request);
        let takeover = self.request_frame(nonce, device)?;
        let frames = [Frame::Hello(self.hello(nonce)), takeover].map(|frame| frame.encode(nonce));
        Ok(Planned::Request.encode(&frames))
    }

    /// Gives the host up by a request of [`Device::request_by_file`], exactly as by one that came over the line:
    /// this device is fenced, durably, when this returns the grant, for [`Device::take_grant`]. A grant that
    /// was lost is made once more, by the same request or another, under a later tenure; if two of one request
    /// are there, either may be taken.
    ///
    /// # Errors
    /// With nothing changed: [`Kind::Damaged`], [`Kind::Config`] and [`Kind::Invalid`] if `request` is no such file;
    /// [`Kind::Protocol`] if it is of another pair, of a program too far from this one's version, of a device whose
    /// state does not fit this one's, or asks for a tenure or knows of a record that cannot be;
    /// [`Kind::Invalid`] if a connection stands or begins, [`Kind::NotReady`] while a takeover is open here. Later:
    /// [`Kind::Halted`].
    pub fn grant_by_file(&self, request: &[u8]) -> Result<Vec<u8>> {
        let _telling = self.events.enter();
        let frames = Planned::Request.decode(request)?;
        let [hello, takeover] = frames[..] else {
            return Err(of_frames("the request file has no two frames"));
        };
        let (Frame::Hello(hello), Frame::Takeover { epoch, nonce, told, ladder, .. }) =
            (Frame::decode(hello)?.1, Frame::decode(takeover)?.1)
        else {
            return Err(of_frames("the request file has other frames than a hello and a request"));
        };
        if told != hello.told {
            return Err(of_frames(
                "the request file contradicts itself about what its device was told",
            ));
        }
        // The lock stays: no connection comes to stand.
        let one = self.begin_step(&self.role)?;
        self.check_apart()?;
        let wire = self.check_file(&hello)?;
        if self.expire_and_lock().role.is_asking() {
            return Err(waiting(Wait::Asking));
        }
        self.part_for_file();
        let granted = {
            let mut tables = lock(&self.tables);
            tables.tell_after(told);
            tables.out.granted()
        };
        // The device that asked may have taken the grant of an earlier file, or take it yet: no grant is repeated
        // (R4), and the one that holds an older tenure asks again when the two meet (R13).
        let above = if holds(Clause::FileGrantedAnew) { granted.saturating_add(1) } else { 0 };
        self.answer_request(&one, (epoch.max(above), nonce, told), ladder)?;
        let mut frames = vec![Frame::Hello(self.hello(nonce)).encode(nonce)];
        let next = || {
            let mut tables = lock(&self.tables);
            self.next_piece(&mut tables, &mut lock(&self.failover).role, true)
        };
        while let Some(piece) = next() {
            frames.push(piece.encode_in(wire, nonce));
        }
        Ok(Planned::Grant.encode(&frames))
    }

    /// Takes the host over by the grant of [`Device::grant_by_file`] that answers the last request written here:
    /// this device serves when it returns. Blocks that the other device owes are read once the line is there again.
    /// A takeover that is open here, and that no connection has carried yet, ends by this.
    ///
    /// # Errors
    /// With nothing changed: [`Kind::Damaged`], [`Kind::Config`] and [`Kind::Invalid`] if `grant` is no such file,
    /// answers no request that stands here, or a connection stands or begins; [`Kind::Protocol`] as
    /// [`Device::grant_by_file`]. Later, with the request over: [`Kind::Halted`]; [`Kind::NotReady`] and
    /// [`Kind::Protocol`] if the grant does not fit this device any more, [`Kind::Damaged`] if it has other frames
    /// than a grant's.
    pub fn take_grant(&self, grant: &[u8]) -> Result<Takeover> {
        let _telling = self.events.enter();
        let frames = Planned::Grant.decode(grant)?;
        let decoded = frames.iter().map(|frame| Frame::decode(frame).map(|(_, frame)| frame));
        let mut pieces = decoded.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(Frame::Hello(hello)) = pieces.next() else {
            return Err(of_frames("the grant file does not begin with a hello"));
        };
        // The lock stays until this device serves: no connection begins, and no other request.
        let one = self.begin_step(&self.role)?;
        self.check_apart()?;
        self.check_file(&hello)?;
        let now = self.clock.monotonic();
        if !lock(&self.failover).role.answered_by_file(hello.nonce, now) {
            return Err(no_answer());
        }
        self.take_mark(&hello)?;
        let taken = pieces.try_for_each(|piece| match piece {
            Frame::Prototype { nonce, grant, left, is_last, previous, entries } => {
                self.take_prototype(&one, (nonce, grant), (left, is_last), previous, &entries)
            }
            Frame::Ladder(Ladder::GrantTable {
                nonce,
                grant,
                round,
                generation,
                later,
                told,
                piece,
            }) => {
                let granted = Grant::Table { round, generation, later, told };
                self.take_table(&one, (nonce, grant), granted, piece)
            }
            _ => Err(of_frames("the grant file has other frames than a hello and a grant")),
        });
        let outcome = {
            let role = &mut lock(&self.failover).role;
            role.withdraw();
            role.take_outcome()
        };
        // A takeover that was open sees that it has ended.
        self.wakes.waiters.wake(Key::Takeover..=Key::Takeover);
        match (outcome, taken) {
            (Some(outcome), _) => outcome,
            // It would ask again, and there is no line.
            (None, Err(error)) if error.kind() != Kind::NoPeer => Err(error),
            (None, _) => {
                let what = "the grant does not fit this device any more: write a request anew";
                Err(Error::new(Kind::NotReady, what))
            }
        }
    }

    /// Whether no connection stands: with one, a takeover goes by it.
    fn check_apart(&self) -> Result<()> {
        match lock(&self.failover).connection.session() {
            None => Ok(()),
            Some(_) => {
                let what = "the line to the other device is up, or is coming up: take the host over by it, without files";
                Err(Error::new(Kind::Invalid, what))
            }
        }
    }

    /// Whether the hello in a file is of this device's peer, in a state that fits; returns the wire version that
    /// both speak. A file may be old: nothing is done here by what it says.
    fn check_file(&self, hello: &Hello) -> Result<u16> {
        let wire = self.check_hello(hello)?.wire;
        self.sequence(&mut lock(&self.tables));
        let here = Here { fenced_here: false, ..self.own_state() };
        let heard = self.heard(hello);
        let fits = match decide(here, Occasion::Hello(heard)) {
            Decision::GoOn | Decision::Serve => true,
            Decision::Ask => here.fenced,
            _ => false,
        };
        if fits && hello.fenced && heard.kin == Kin::Same && wire >= LADDER_WIRE {
            return Ok(wire);
        }
        let what = format!(
            "the file is of device {} in tenure {}, lineage {}, {}fenced, which had received up to {}: that \
             does not fit this device, in tenure {} and lineage {}; it is an old one, or the two must meet first",
            hello.device,
            hello.epoch,
            hello.lineage.0,
            if hello.fenced { "" } else { "not " },
            hello.hi,
            here.epoch,
            self.superblock.get().lineage.0,
        );
        Err(Error::new(Kind::Protocol, what))
    }

    /// Frames that were on their way when the line went down do not come any more (D2, D3).
    fn part_for_file(&self) {
        self.peer.machine.hung_up(&mut self.peer.machine.turn());
    }
}
