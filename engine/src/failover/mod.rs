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
//! | any | anything for another nonce or session | ignores it |

pub mod decide;
mod fence;
mod hello;
mod resume;
mod takeover;
mod told;
#[cfg(all(test, not(loom)))]
mod wire;

pub use resume::Policy;
pub(crate) use resume::serves_at_opening;
pub use takeover::Takeover;
pub(crate) use told::told_before;

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::remote::Answers;
use crate::format::frame::{FEATURES, Frame, WIRE, WireRange, version_of};
use crate::link::{Lane, Link};
use crate::sync::lock;
use crate::table::unreflected::Index;
use crate::unit::Stamp;
use std::sync::Arc;

/// The peer, as its hello described it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Names the peer's end of the connection: every frame of its carries it.
    pub nonce: u64,
    /// The wire version of the connection.
    pub wire: u16,
    /// The wire features of the connection: those that both know. There is none yet.
    #[cfg_attr(not(test), expect(dead_code))]
    pub features: u64,
}

impl Peer {
    /// Whether a frame of this connection is in the wire version that its hellos led to.
    ///
    /// # Errors
    /// [`Kind::Protocol`], naming both versions.
    pub fn check_version(&self, frame: &[u8]) -> Result<()> {
        let (found, agreed) = (version_of(frame), self.wire);
        match found == agreed {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Protocol,
                format!("a frame of wire version {found} in a connection of wire version {agreed}"),
            )),
        }
    }
}

/// This device's open takeover request.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    nonce: u64,
    requested_at: u64,
    /// When the peer last gave a sign: a piece of the prototype, or else the request's time.
    progress_at: u64,
}

/// What is being handed over to the peer.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// The request answered.
    nonce: u64,
    tenure: u64,
    /// The end of R.
    end: Index,
}

/// Where takeovers and connections stand.
pub(crate) struct Failover {
    device: u64,
    /// The wire versions and features of this device.
    wire: WireRange,
    features: u64,
    /// Set together with `session`. It stays when the connection has ended, so that what has
    /// arrived is taken from both lanes, the news of the end included, before it is used again.
    link: Option<Arc<dyn Link>>,
    /// Names this end of the present connection.
    session: Option<u64>,
    peer: Option<Peer>,
    request: Option<OpenRequest>,
    grant: Option<Grant>,
    outcome: Option<Result<Takeover>>,
    /// It has served since its opening.
    pub served: bool,
    /// The peer's proof that this device lost durable records; no hello has agreed with it since.
    pub lost: Option<Error>,
    /// How often the peer has said what this device knows to be untrue.
    pub untrue: u64,
    /// The highest tenure granted here that the peer has been heard to hold.
    pub taken: u64,
}

impl Failover {
    pub fn new(device: u64) -> Failover {
        Failover {
            device,
            wire: WIRE,
            features: FEATURES,
            link: None,
            session: None,
            peer: None,
            request: None,
            grant: None,
            outcome: None,
            served: false,
            lost: None,
            untrue: 0,
            taken: 0,
        }
    }

    pub fn is_asking(&self) -> bool {
        self.request.is_some()
    }

    /// Whether pieces of a prototype are still to be sent.
    pub fn is_handing_over(&self) -> bool {
        self.grant.is_some()
    }

    /// Whether there is a connection, or one that was begun.
    #[cfg(feature = "simulate")]
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }

    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// The connection's name for what this device sends, and its link; `None` until both said
    /// hello.
    pub fn connection(&self) -> Option<(u64, Arc<dyn Link>)> {
        self.peer.and(self.session).zip(self.link.clone())
    }

    /// The wire version of what this device sends; before the peer's hello that is a hello only,
    /// which is the same in all.
    pub fn wire(&self) -> u16 {
        self.peer.map_or(self.wire.max, |peer| peer.wire)
    }

    /// Whether hello has been said and not been heard.
    pub fn awaits_hello(&self) -> bool {
        self.session.is_some() && self.peer.is_none()
    }

    /// The link on which something may arrive in `lane`: of a connection that has ended there is
    /// nothing to wait for, and data that comes before the hello is left where it is.
    pub fn awaited(&self, lane: Lane) -> Option<Arc<dyn Link>> {
        let early = lane == Lane::Data && self.awaits_hello();
        self.session.filter(|_| !early).and(self.link.clone())
    }
}

/// What the loser of two crossing requests is told.
fn lost() -> Error {
    Error::new(Kind::NotReady, "the other device asked for the host at the same time and won")
}

/// What a link says when it takes no frame: that it is down, in whatever words.
pub(crate) fn link_down(error: Error) -> Error {
    match error.kind() {
        Kind::NoPeer => error,
        _ => error.because(Kind::NoPeer, "the link to the other device has failed"),
    }
}

impl Device {
    /// A number that nobody can guess: it names a connection or a request.
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

    /// The link of the present connection, or of the last.
    pub(crate) fn peer_link(&self) -> Option<Arc<dyn Link>> {
        lock(&self.failover).link.clone()
    }

    /// Sends a frame in the present connection.
    ///
    /// # Errors
    /// [`Kind::NoPeer`], whatever the link says: its contract knows no other.
    pub(crate) fn send(&self, lane: Lane, frame: &Frame<'_>) -> Result<()> {
        let (wire, (session, link)) = {
            let failover = lock(&self.failover);
            let no_peer = || Error::new(Kind::NoPeer, "there is no connection to the other device");
            let connection = failover.session.zip(failover.link.clone()).ok_or_else(no_peer)?;
            (failover.wire(), connection)
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
            if !failover.link.as_ref().is_some_and(|now| Arc::ptr_eq(now, link)) {
                return; // an earlier one
            }
            failover.peer = None;
            failover.grant = None;
            failover.session.take()
        };
        link.close();
        // Also of one that a hello ended before it stood: else nobody learns why.
        if was.is_some() {
            self.tell(&Event::Disconnected { link, why });
        }
        self.bell.ring();
    }

    /// The peer has shown that this device has not what it must have written or granted. Returns the
    /// error that ends the connection; `story` says what was found.
    pub(crate) fn lost_here(&self, story: &str) -> Error {
        let lost = "this device has lost durable records and must be resynchronised";
        let error = Error::new(Kind::Damaged, format!("{story}: {lost}"));
        let first = lock(&self.failover).lost.replace(error.clone()).is_none();
        if first {
            self.tell(&Event::LostRecords(&error));
        }
        self.bell.ring();
        Error::new(Kind::Protocol, error.to_string())
    }

    /// The peer says what this device, which has served since its opening, knows to be untrue.
    /// Returns the error that ends the connection; `story` says what was found.
    pub(crate) fn untrue(&self, story: &str) -> Error {
        lock(&self.failover).untrue += 1;
        let why = "this device has served since its opening and knows that this is untrue";
        Error::new(Kind::Protocol, format!("{story}: {why}"))
    }

    /// The peer is heard to hold the tenure `epoch`: if this device granted it, the host has moved.
    pub(crate) fn taken(&self, epoch: u64) {
        if lock(&self.tables).out.granted() == epoch {
            lock(&self.failover).taken = epoch;
        }
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
    /// answers (S1006) go as far as the lane takes them. Returns whether a frame was taken, or one of
    /// those but questions sent.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the storage fails. What the peer must not send ends the connection,
    /// not the device.
    pub fn step_control(&self) -> Result<bool> {
        let mut answers = self.begin_step(&self.controlling)?;
        let Some(link) = self.peer_link() else { return Ok(false) };
        let (took, outcome) = match link.receive(Lane::Control) {
            Ok(Some(bytes)) => (true, self.control(&bytes, &link, &mut answers)),
            Ok(None) => (false, Ok(())),
            Err(error) => (false, Err(link_down(error))),
        };
        let told = outcome.and_then(|()| Ok(self.hand_over(&link)? || self.announce(&link)?));
        let told = match told {
            Err(error) if matches!(error.kind(), Kind::Protocol | Kind::NoPeer) => {
                self.disconnected(&error, &link);
                false
            }
            other => other?,
        };
        self.send_questions();
        let answered = self.send_answers(&mut answers)?;
        Ok(took || told || answered)
    }

    fn control(&self, bytes: &[u8], from: &Arc<dyn Link>, answers: &mut Answers) -> Result<()> {
        let (session, frame) = Frame::decode(bytes)?;
        if let Frame::Hello(hello) = frame {
            return self.receive_hello(&hello, from);
        }
        match lock(&self.failover).peer {
            Some(peer) if peer.nonce == session => peer.check_version(bytes)?,
            _ => return Ok(()), // of an earlier connection
        }
        match frame {
            Frame::Takeover { epoch, device, nonce, told } => {
                self.receive_takeover(epoch, device, nonce, told)
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
            Frame::Ack { hi, credit } => self.receive_ack(hi, credit),
            Frame::Hello(_) => unreachable!("handled above"),
            Frame::Ship { .. } => {
                Err(Error::new(Kind::Protocol, "shipped records in the control lane"))
            }
        }
    }
}
