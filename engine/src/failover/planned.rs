//! A planned move while the line is down: the request and the grant of a takeover travel as two files, by way of
//! the hosts (S803–S808; R3–R5, D4). Each file has a hello, which is checked as one that came over the line.

use super::decide::{Decision, Kin, Occasion, Wait, decide};
use super::resume::waiting;
use super::role::OpenRequest;
use super::takeover::Takeover;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::frame::{Frame, Hello, LADDER_WIRE, Ladder};
use crate::format::planned::Planned;
use crate::sync::lock;
use crate::table::differential::Grant;

fn no_answer() -> Error {
    let what = "the grant answers another request than the last one that was written here: write a request, and \
                have that answered";
    Error::new(Kind::Invalid, what)
}

fn of_frames(what: &str) -> Error {
    Error::new(Kind::Damaged, format!("{what}: have the file written anew"))
}

impl Device {
    /// A request for the host, for [`Device::grant_by_file`] at the other device. It replaces the last one, and
    /// is over with the next connection.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if this device serves, or a connection stands; as [`Device::session`] if it neither
    /// serves nor is fenced; [`Kind::NoPeer`] if the machine gives no random numbers, [`Kind::Halted`].
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
    /// was lost is made once more, by another request.
    ///
    /// # Errors
    /// With nothing changed: [`Kind::Damaged`], [`Kind::Config`] and [`Kind::Invalid`] if `request` is no such file;
    /// [`Kind::Protocol`] if it is of another pair, or of a device whose state does not fit this one's;
    /// [`Kind::Invalid`] if a connection stands, [`Kind::NotReady`] while a takeover is open here. Later:
    /// [`Kind::Halted`]; [`Kind::NotReady`] if a connection began meanwhile.
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
        // The lock stays: no connection comes to stand.
        let one = self.begin_step(&self.role)?;
        self.check_apart()?;
        let wire = self.check_file(&hello)?;
        if self.expire_and_lock().role.is_asking() {
            return Err(waiting(Wait::Asking));
        }
        self.part_for_file();
        lock(&self.tables).tell_after(told);
        self.answer_request(&one, (epoch, nonce, told), ladder)?;
        let mut frames = vec![Frame::Hello(self.hello(nonce)).encode(nonce)];
        let mut is_last = false;
        while !is_last {
            let mut tables = lock(&self.tables);
            let role = &mut lock(&self.failover).role;
            let Some(piece) = self.next_piece(&mut tables, role, true) else {
                let what = "a connection to the other device has begun: take the host over by it";
                return Err(Error::new(Kind::NotReady, what));
            };
            is_last = !role.is_handing_over();
            frames.push(piece.encode_in(wire, nonce));
        }
        Ok(Planned::Grant.encode(&frames))
    }

    /// Takes the host over by the grant of [`Device::grant_by_file`] that answers the last request written here:
    /// this device serves when it returns. Blocks that the other device owes are read once the line is there again.
    ///
    /// # Errors
    /// With nothing changed: [`Kind::Damaged`], [`Kind::Config`] and [`Kind::Invalid`] if `grant` is no such file,
    /// answers another request, or a connection stands; [`Kind::Protocol`] as [`Device::grant_by_file`]. Later:
    /// [`Kind::Halted`]; [`Kind::NotReady`] if the grant does not fit this device any more.
    pub fn take_grant(&self, grant: &[u8]) -> Result<Takeover> {
        let _telling = self.events.enter();
        let frames = Planned::Grant.decode(grant)?;
        let decoded = frames.iter().map(|frame| Frame::decode(frame).map(|(_, frame)| frame));
        let mut pieces = decoded.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(Frame::Hello(hello)) = pieces.next() else {
            return Err(of_frames("the grant file does not begin with a hello"));
        };
        {
            let _one = self.begin_step(&self.role)?;
            self.check_apart()?;
            self.check_file(&hello)?;
            let of_file = hello.nonce;
            let Some(request) = lock(&self.failover).role.asked_by_file(of_file) else {
                return Err(no_answer());
            };
            self.take_mark(&hello)?;
            let progress_at = self.clock.monotonic();
            lock(&self.failover).role.ask(OpenRequest { progress_at, ..request });
        }
        let taken = pieces.try_for_each(|piece| match piece {
            Frame::Prototype { nonce, grant, left, is_last, previous, entries } => {
                self.receive_prototype(nonce, grant, left, is_last, previous, &entries)
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
                self.receive_table((nonce, grant), granted, piece)
            }
            _ => Err(of_frames("the grant file has other frames than a hello and a grant")),
        });
        let outcome = {
            let role = &mut lock(&self.failover).role;
            role.withdraw();
            role.take_outcome()
        };
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
        let here = self.own_state();
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
