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

pub use resume::Policy;
pub(crate) use resume::serves_at_opening;
pub use takeover::Takeover;

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::Frame;
use crate::journal::lock;
use crate::link::{Lane, Link};
use crate::table::unreflected::Index;
use crate::unit::Stamp;
use std::sync::Arc;

/// The peer, as its hello described it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Names the peer's end of the connection: every frame of its carries it.
    pub nonce: u64,
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
    clk: Stamp,
    /// The end of R.
    end: Index,
}

/// Where takeovers and connections stand.
pub(crate) struct Failover {
    device: u64,
    seed: u64,
    /// Set together with `session`. It stays when the connection has ended, so that what has
    /// arrived is taken from both lanes, the news of the end included, before it is used again.
    link: Option<Arc<dyn Link>>,
    /// Names this end of the present connection.
    session: Option<u64>,
    peer: Option<Peer>,
    request: Option<OpenRequest>,
    grant: Option<Grant>,
    outcome: Option<Result<Takeover>>,
}

impl Failover {
    pub fn new(device: u64, seed: u64) -> Failover {
        Failover {
            device,
            seed,
            link: None,
            session: None,
            peer: None,
            request: None,
            grant: None,
            outcome: None,
        }
    }

    pub fn is_asking(&self) -> bool {
        self.request.is_some()
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

    /// Whether hello has been said and not been heard.
    pub fn awaits_hello(&self) -> bool {
        self.session.is_some() && self.peer.is_none()
    }

    /// A number not used before by this device, nor likely by another life of it.
    fn nonce(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27 ^ self.device << 48) | 1
    }
}

/// What the loser of two crossing requests is told.
fn lost() -> Error {
    Error::new(Kind::NotReady, "the other device asked for the host at the same time and won")
}

/// What a link says when it takes no frame: that it is down, in whatever words.
fn link_down(error: Error) -> Error {
    match error.kind() {
        Kind::NoPeer => error,
        _ => error.because(Kind::NoPeer, "the link to the other device has failed"),
    }
}

impl Device {
    /// The link of the present connection, or of the last.
    pub(crate) fn peer_link(&self) -> Option<Arc<dyn Link>> {
        lock(&self.failover).link.clone()
    }

    /// Sends a frame in the present connection.
    ///
    /// # Errors
    /// [`Kind::NoPeer`], whatever the link says: its contract knows no other.
    pub(crate) fn send(&self, lane: Lane, frame: &Frame<'_>) -> Result<()> {
        let (session, link) = {
            let failover = lock(&self.failover);
            let no_peer = || Error::new(Kind::NoPeer, "there is no connection to the other device");
            failover.session.zip(failover.link.clone()).ok_or_else(no_peer)?
        };
        link.send(lane, frame.encode(session)).map_err(|error| {
            let error = link_down(error);
            self.disconnected(&error, &link);
            error
        })
    }

    /// The connection over `link` is gone, or must be given up.
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
        // Also of one that a hello ended before it stood: else nobody learns why.
        if was.is_some() {
            self.tell(&Event::Disconnected(why));
        }
        self.bell.ring();
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
    /// (S1504). Then sends the next piece of a prototype if the lane takes it. Returns whether there
    /// was anything to do.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the storage fails. What the peer must not send ends the connection,
    /// not the device.
    pub fn step_control(&self) -> Result<bool> {
        self.check_halted()?;
        let _one = lock(&self.controlling);
        let Some(link) = self.peer_link() else { return Ok(false) };
        let received = match link.receive(Lane::Control) {
            Ok(Some(bytes)) => self.control(&bytes, &link).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => {
                self.disconnected(&error, &link);
                return Ok(false);
            }
        };
        match received.and_then(|received| Ok(self.hand_over(&link)? || received)) {
            Err(error) if matches!(error.kind(), Kind::Protocol | Kind::NoPeer) => {
                self.disconnected(&error, &link);
                Ok(true)
            }
            other => other,
        }
    }

    fn control(&self, bytes: &[u8], from: &Arc<dyn Link>) -> Result<()> {
        let (session, frame) = Frame::decode(bytes)?;
        if let Frame::Hello(hello) = frame {
            return self.receive_hello(&hello, from);
        }
        if lock(&self.failover).peer.map(|p| p.nonce) != Some(session) {
            return Ok(()); // of an earlier connection
        }
        match frame {
            Frame::Takeover { epoch, device, nonce, told } => {
                self.receive_takeover(epoch, device, nonce, told)
            }
            Frame::Prototype { nonce, grant, left, is_last, previous, entries, .. } => {
                self.receive_prototype(nonce, grant, left, is_last, previous, &entries)
            }
            Frame::Busy { nonce } => self.receive_busy(nonce),
            Frame::ReadRequest { epoch, id, block } => self.serve_read(epoch, id, block),
            Frame::ReadReply { id, row, data } => self.receive_reply(id, row, data),
            Frame::Ack { hi, credit, .. } => self.receive_ack(hi, credit),
            Frame::Hello(_) => unreachable!("handled above"),
            Frame::Ship { .. } => {
                Err(Error::new(Kind::Protocol, "shipped records in the control lane"))
            }
        }
    }
}
