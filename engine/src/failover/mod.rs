//! Above the flow: who serves. Connections (`hello`), giving the host up (`fence`), and taking
//! it over (`takeover`), serving again after a restart (`resume`, decided in `decide`); the flow
//! below does not know who is primary.
//!
//! | this device | peer's request arrives | does |
//! |---|---|---|
//! | serving | takeover | fences itself, grants, hands the prototype over piece by piece |
//! | fenced, nothing asked | takeover for more than was granted | grants anew, hands over |
//! | fenced, nothing asked | takeover for no more than was granted | grants the same again, hands over |
//! | asking, lower device id | takeover | answers busy: its own request wins (R5) |
//! | asking, higher device id | takeover | closes its own request, then as fenced |
//! | asking | last piece of a prototype for its nonce, new tenure | merges it and serves |
//! | any | a piece for another nonce | takes note of what it tells (R18) |
//! | asking | busy for its nonce | closes its request |
//! | fenced, nothing asked | an offer of a tenure that is not over | asks for the host |
//! | any | anything for another nonce or session | ignores it |

mod branches;
mod closed;
pub(crate) mod connection;
pub mod decide;
mod fence;
mod force;
mod handover;
mod hello;
mod loss;
#[cfg(all(test, not(loom)))]
mod meetings;
mod planned;
mod resume;
mod returning;
pub(crate) mod role;
mod takeover;
mod told;
#[cfg(all(test, not(loom)))]
mod wire;

use crate::weaken::{Clause, holds};
pub use branches::BranchSheet;
pub use closed::Closed;
pub use force::{Forced, Image, LossSheet};
pub(crate) use loss::{mark, may_have_lost};
pub use resume::Policy;
pub(crate) use resume::serves_at_opening;
pub use takeover::Takeover;
pub use told::told_bits_kept;
pub(crate) use told::{told_before, told_bits_before};

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::remote::Answers;
use crate::format::frame::{Frame, Ladder, OFFER_FEATURE, SERVING_FEATURE};
use crate::link::{Lane, Link};
use crate::sync::lock;
use crate::table::differential::{Announcement, Grant as Granted, Opened};
use crate::unit::Stamp;
use connection::Connection;
use role::Role;
use std::sync::Arc;

/// Where the connection and takeovers stand, a value for each owner; one lock, held for moments.
pub(crate) struct Failover {
    pub connection: Connection,
    pub role: Role,
}

impl Failover {
    /// The state of the device with this id, opened `now`, on the monotonic clock.
    pub fn new(device: u64, now: u64) -> Failover {
        Failover { connection: Connection::new(now), role: Role::new(device) }
    }

    /// As [`Connection::awaited`].
    pub fn awaited(&self, lane: Lane) -> Option<Arc<dyn Link>> {
        self.connection.awaited(lane)
    }
}

/// The error of a link that takes no frame: it is down, in whatever words.
pub(crate) fn link_down(error: Error) -> Error {
    match error.kind() {
        Kind::NoPeer => error,
        _ => error.because(Kind::NoPeer, "the link to the other device has failed"),
    }
}

impl Device {
    /// A number that cannot be guessed: it names a connection or a request.
    ///
    /// # Errors
    /// [`Kind::NoPeer`] if the machine gives no random numbers: there is no connection then.
    fn nonce(&self) -> Result<u64> {
        let drawn = self.clock.entropy();
        // 0 is no session's.
        drawn.map(|nonce| nonce.max(1)).map_err(|e| {
            Error::storage("drawing a random number", e).because(Kind::NoPeer, "no connection")
        })
    }

    /// The link of the present connection.
    pub(crate) fn connected_link(&self) -> Option<Arc<dyn Link>> {
        lock(&self.failover).connection.standing().map(|(_, link)| link)
    }

    /// The link of the present connection, or of the last.
    pub(crate) fn peer_link(&self) -> Option<Arc<dyn Link>> {
        lock(&self.failover).connection.link()
    }

    /// Sends a frame in the present connection.
    ///
    /// # Errors
    /// [`Kind::NoPeer`], whatever the link says: its contract knows no other.
    pub(crate) fn send(&self, lane: Lane, frame: &Frame<'_>) -> Result<()> {
        let (wire, (session, link)) = {
            let failover = lock(&self.failover);
            let no_peer = || Error::new(Kind::NoPeer, "there is no connection to the other device");
            let connection = &failover.connection;
            // Before the peer's hello no version is agreed, and a connection that begins now is another.
            let is_hello = matches!(frame, Frame::Hello(_));
            let open = if is_hello { connection.begun() } else { connection.standing() };
            (connection.wire(), open.ok_or_else(no_peer)?)
        };
        link.send(lane, frame.encode_in(wire, session)).map_err(|error| {
            let error = link_down(error);
            self.disconnected(&error, &link);
            error
        })
    }

    /// The connection over `link` is gone, or must be given up: the peer is told by its end of it.
    pub(crate) fn disconnected(&self, why: &Error, link: &Arc<dyn Link>) {
        let was = {
            let mut failover = lock(&self.failover);
            if !failover.connection.is_over(link) {
                return; // an earlier one
            }
            let was = failover.connection.end(link, self.clock.monotonic());
            if was {
                // A grant that is made without a connection goes into a file.
                failover.role.end_grant();
            }
            was
        };
        if holds(Clause::HangUp) {
            link.close();
        }
        // The event for a connection that its hello ended is the only one that says why.
        if was {
            self.tell(Event::Disconnected { link: link.clone(), why: why.clone() });
            self.wakes.line.ring();
        }
    }

    /// The peer has shown that this device has not what it must have written or granted. Returns the
    /// error that ends the connection; `story` says what was found.
    pub(crate) fn lost_here(&self, story: &str) -> Error {
        let lost = "this device has lost durable records and must be resynchronised";
        let error = Error::new(Kind::Damaged, format!("{story}: {lost}"));
        let first = lock(&self.failover).role.lose_records(error.clone());
        if first {
            self.tell(Event::LostRecords(error.clone()));
        }
        Error::new(Kind::Protocol, error.to_string())
    }

    /// The peer says what this device, which has served since its opening, knows to be untrue.
    /// Returns the error that ends the connection; `story` says what was found.
    pub(crate) fn untrue(&self, story: &str) -> Error {
        lock(&self.failover).role.count_untrue();
        let why = "this device has served since its opening and knows that this is untrue";
        Error::new(Kind::Protocol, format!("{story}: {why}"))
    }

    /// The peer is heard to hold the tenure `epoch`: if this device granted it, the host has moved.
    pub(crate) fn taken(&self, epoch: u64) {
        if epoch == 0 || lock(&self.tables).out.granted() != epoch {
            return;
        }
        let is_news = lock(&self.failover).role.take(epoch);
        if is_news {
            self.tell(Event::PeerServes { epoch });
        }
    }

    /// The driver's word that hosts reach this device, which serves: an address has moved, a name is
    /// resolved anew. The peer is told, now and at every later hello of this tenure
    /// ([`Event::PeerReachable`]); one whose version does not know of it is not.
    ///
    /// # Errors
    /// As [`Device::session`], if this device does not serve.
    pub fn reachable(&self) -> Result<()> {
        let _telling = self.events.enter();
        self.check_halted()?;
        let epoch = self.clk.epoch();
        if epoch == 0 {
            return Err(self.not_serving());
        }
        lock(&self.failover).role.reach(epoch);
        self.say_serving();
        Ok(())
    }

    /// Tells the peer that this device serves, if it does, and whether hosts reach it.
    pub(crate) fn say_serving(&self) {
        let epoch = self.clk.epoch();
        let reachable = {
            let failover = lock(&self.failover);
            let knows =
                failover.connection.peer().is_some_and(|p| p.features & SERVING_FEATURE != 0);
            if epoch == 0 || !knows || !holds(Clause::SayServing) {
                return;
            }
            failover.role.reachable() == epoch
        };
        // A connection that ends now may lose the frame: the next hello says the same.
        let _ = self.send(Lane::Control, &Frame::Serving { epoch, reachable });
    }

    /// At a hello, which says which device serves: repeats that hosts reach this one, as the last
    /// connection may have lost that.
    fn say_reachable_again(&self) {
        let reachable = lock(&self.failover).role.reachable();
        if reachable != 0 && reachable == self.clk.epoch() && holds(Clause::SayReachableAgain) {
            self.say_serving();
        }
    }

    fn receive_serving(&self, epoch: u64, reachable: bool) {
        self.taken(epoch);
        let is_news = reachable && lock(&self.failover).role.peer_reached(epoch);
        if is_news {
            self.tell(Event::PeerReachable { epoch });
        }
    }

    /// The driver's word that this device's host is gone, or is to go: the peer is told, and takes the host
    /// over at once, by a request of its own (D4), so that a host that comes there is served without a round
    /// trip ([`Event::Ready`] there, [`Event::Fenced`] here). If the line loses that, this device serves on.
    ///
    /// # Errors
    /// As [`Device::session`], if this device does not serve; [`Kind::NoPeer`] without a connection,
    /// [`Kind::Invalid`] if the peer's program does not know offers.
    pub fn offer_host(&self) -> Result<()> {
        let _telling = self.events.enter();
        self.check_halted()?;
        let epoch = self.clk.epoch();
        if epoch == 0 {
            return Err(self.not_serving());
        }
        let peer = lock(&self.failover).connection.peer();
        if peer.is_some_and(|peer| peer.features & OFFER_FEATURE == 0) {
            let what = "the peer's program does not know offers (wire feature 32): begin the takeover there";
            return Err(Error::new(Kind::Invalid, what));
        }
        self.send(Lane::Control, &Frame::Offer { epoch })
    }

    /// `clk` as the peer may know it.
    pub(crate) fn clk_stamp(&self) -> Stamp {
        match self.clk.epoch() {
            0 => Stamp::ZERO,
            epoch => Stamp { epoch, time: self.clk.time(), sequence: 0 },
        }
    }

    /// Takes one frame that has arrived in the control lane (R10): a hello, a takeover request
    /// (S804), a prototype (S806), a remote read (S1004) or its answer (S1007), an acknowledgement
    /// (S1504). Then the next piece of a prototype or announcement (R18), questions (S1005) and
    /// answers (S1006) go as far as the lane takes them. If there is nothing of all that, some of the
    /// blocks are read whose checksums the peer asks for. Returns whether a frame was taken, one of
    /// those but questions sent, or a block read.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the storage fails. A frame that the peer must not send ends the connection,
    /// not the device.
    pub fn step_control(&self) -> Result<bool> {
        let _telling = self.events.enter();
        let mut answers = self.begin_step(&self.peer.controlling)?;
        let Some(link) = self.peer_link() else { return Ok(false) };
        let (took, outcome) = match link.receive(Lane::Control) {
            Ok(Some(bytes)) => (true, self.control(&bytes, &link, &mut answers)),
            Ok(None) => (false, Ok(())),
            Err(error) => {
                lock(&self.failover).connection.went_down(&link, Lane::Control);
                (false, Err(link_down(error)))
            }
        };
        let told = outcome.and_then(|()| {
            Ok(self.ask_for_host_again()?
                || self.hand_over(&link)?
                || self.announce(&link)?
                || self.announce_bits(&link)?)
        });
        let told = match told {
            Err(error) if matches!(error.kind(), Kind::Protocol | Kind::NoPeer) => {
                self.disconnected(&error, &link);
                false
            }
            other => other?,
        };
        self.send_questions();
        let answered = self.send_answers(&mut answers)?;
        // Everything else goes first.
        Ok(took || told || answered || self.answer_checksums())
    }

    fn control(&self, bytes: &[u8], from: &Arc<dyn Link>, answers: &mut Answers) -> Result<()> {
        let (session, frame) = Frame::decode(bytes)?;
        if let Frame::Hello(hello) = frame {
            return self.receive_hello(&hello, from);
        }
        match lock(&self.failover).connection.peer() {
            Some(peer) if peer.nonce == session => peer.check_version(bytes)?,
            _ => return Ok(()), // of an earlier connection
        }
        match frame {
            Frame::Takeover { epoch, device, nonce, told, ladder } => {
                self.receive_takeover(epoch, device, nonce, told, ladder)
            }
            Frame::Prototype { nonce, grant, left, is_last, previous, entries } => {
                self.receive_prototype(nonce, grant, left, is_last, previous, &entries)
            }
            Frame::Announce { previous, entries } => self.receive_announced(previous, &entries),
            Frame::Busy { nonce } => self.receive_busy(nonce),
            Frame::ReadRequest { epoch, id, block, count } => {
                self.receive_question(answers, session, (epoch, id), (block, count))
            }
            Frame::ReadReply { id, rows, data } => self.receive_replies(id, &rows, data),
            Frame::Serving { epoch, reachable } => {
                self.receive_serving(epoch, reachable);
                Ok(())
            }
            Frame::Offer { epoch } => self.receive_offer(epoch),
            Frame::Ack { hi, credit } => self.receive_ack(hi, credit),
            Frame::ChecksumRequest { id, block, count, absent } => {
                self.receive_checksum_question(session, id, (block, count), absent)
            }
            Frame::ChecksumReply { id, sums } => self.receive_checksums(id, sums),
            Frame::Ladder(frame) => self.receive_ladder(frame),
            Frame::Hello(_) => unreachable!("handled above"),
            Frame::Ship { .. } => {
                Err(Error::new(Kind::Protocol, "shipped records in the control lane"))
            }
        }
    }

    fn receive_ladder(&self, frame: Ladder<'_>) -> Result<()> {
        match frame {
            Ladder::Open { round, mode, generation, cut, clk: _, told } => {
                self.receive_open((round, mode), generation, (cut, told))
            }
            Ladder::Opened { round, cut, told, is_consistent, piece } => {
                self.receive_opened(Opened { round, cut, told, is_consistent }, piece)
            }
            Ladder::GrantTable { nonce, grant, round, generation, later, told, piece } => {
                let granted = Granted::Table { round, generation, later, told };
                self.receive_table((nonce, grant), granted, piece)
            }
            Ladder::Told { round, number, blocks } => {
                self.receive_told(Announcement { round, number, blocks })
            }
            Ladder::Returned { nonce, piece } => self.receive_returned(nonce, piece),
            Ladder::CopyAck { round, blocks } => {
                self.receive_copy_ack(round, &blocks);
                Ok(())
            }
            Ladder::Differs { round, blocks } => self.receive_differing(round, &blocks),
            Ladder::EndAck { round } => self.receive_end_ack(round),
            other @ (Ladder::Copy { .. }
            | Ladder::Sums { .. }
            | Ladder::End { .. }
            | Ladder::Level { .. }) => {
                let what = format!("{} came in the control lane", other.name());
                Err(Error::new(Kind::Protocol, what))
            }
        }
    }
}
