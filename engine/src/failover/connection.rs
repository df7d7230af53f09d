//! The connection to one peer: its link, what names each end of it, and the wire version that the
//! hellos led to (R10).

use crate::error::{Error, Kind, Result};
use crate::format::frame::{FEATURES, Hello, WIRE, WireRange, version_of};
use crate::link::{Lane, Link};
use std::sync::Arc;

/// The peer, as its hello described it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Names the peer's end of the connection: every frame of its carries it.
    pub nonce: u64,
    /// The wire version of the connection.
    pub wire: u16,
    /// The wire features of the connection: those that both know.
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

/// Where the connection to one peer stands.
pub(crate) struct Connection {
    /// The wire versions and features of this device.
    range: WireRange,
    features: u64,
    /// Set together with `session`. It stays when the connection has ended, so that what has
    /// arrived is taken from both lanes, the news of the end included, before it is used again.
    link: Option<Arc<dyn Link>>,
    /// Names this end of the present connection.
    session: Option<u64>,
    /// In which lane a receipt has said that `link` is down: nothing is waited for there.
    is_down: [bool; 2],
    peer: Option<Peer>,
    /// The peer's lineage, and the ones that it has come by, as its last hello had them.
    lineage: ((u64, u64), Vec<(u64, u64)>),
    /// The wire version of the last connection that stood; before one, of this device.
    last_wire: u16,
    /// When the last one that stood ended, or the device was opened, on the monotonic clock.
    parted_at: u64,
}

impl Connection {
    /// A device that was opened `now`, on the monotonic clock, and has met nobody.
    pub fn new(now: u64) -> Connection {
        Connection {
            range: WIRE,
            features: FEATURES,
            link: None,
            session: None,
            is_down: [false; 2],
            peer: None,
            lineage: Default::default(),
            last_wire: WIRE.max,
            parted_at: now,
        }
    }

    /// Begins a connection over `link` `now`; its end here is named `session`. Returns the link of one
    /// that this ends.
    pub fn begin(&mut self, session: u64, link: Arc<dyn Link>, now: u64) -> Option<Arc<dyn Link>> {
        self.part(now);
        self.is_down = [false; 2];
        let ended = self.session.replace(session);
        self.link.replace(link).filter(|_| ended.is_some())
    }

    /// The peer has said hello in the connection `session`; whether that stands now.
    pub fn establish(&mut self, session: u64, peer: Peer) -> bool {
        let stands = self.session == Some(session);
        if stands {
            self.peer = Some(peer);
            self.last_wire = peer.wire;
        }
        stands
    }

    /// The peer's lineage, and the ones that it has come by.
    pub fn lineage(&self) -> &((u64, u64), Vec<(u64, u64)>) {
        &self.lineage
    }

    /// The peer says so in its hello.
    pub fn hear_lineage(&mut self, lineage: (u64, u64), ancestors: &[(u64, u64)]) {
        self.lineage = (lineage, ancestors.to_vec());
    }

    /// The connection over `link` has ended `now`; whether there was one.
    pub fn end(&mut self, link: &Arc<dyn Link>, now: u64) -> bool {
        self.is_over(link) && {
            self.part(now);
            self.session.take().is_some()
        }
    }

    fn part(&mut self, now: u64) {
        if self.peer.take().is_some() {
            self.parted_at = now;
        }
    }

    /// Since when no connection has stood, on the monotonic clock; `None` while one does.
    pub fn parted_at(&self) -> Option<u64> {
        self.peer.is_none().then_some(self.parted_at)
    }

    /// The wire version of the present connection, or of the last that stood.
    pub fn last_wire(&self) -> u16 {
        self.last_wire
    }

    /// A receipt in `lane` has said that `link` is down.
    pub fn went_down(&mut self, link: &Arc<dyn Link>, lane: Lane) {
        self.is_down[lane as usize] |= self.is_over(link);
    }

    /// Whether `link` is the one of the present connection, or of the last.
    pub fn is_over(&self, link: &Arc<dyn Link>) -> bool {
        self.link.as_ref().is_some_and(|now| Arc::ptr_eq(now, link))
    }

    /// The link of the present connection, or of the last.
    pub fn link(&self) -> Option<Arc<dyn Link>> {
        self.link.clone()
    }

    /// The nonce of this end of the present connection, whether it stands or was begun.
    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// The peer, once it has said hello.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// The connection's name for what this device sends, and its link; `None` until both said
    /// hello.
    pub fn standing(&self) -> Option<(u64, Arc<dyn Link>)> {
        self.peer.and(self.begun())
    }

    /// As [`Connection::standing`], also before the peer's hello.
    pub fn begun(&self) -> Option<(u64, Arc<dyn Link>)> {
        self.session.zip(self.link.clone())
    }

    /// The wire version of what this device sends; before the peer's hello that is a hello only,
    /// which is the same in all.
    pub fn wire(&self) -> u16 {
        self.peer.map_or(self.range.max, |peer| peer.wire)
    }

    /// The wire versions and features of this device.
    pub fn range(&self) -> (WireRange, u64) {
        (self.range, self.features)
    }

    /// The peer as it says hello: with the highest version that both speak.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if there is none.
    pub fn meet(&self, hello: &Hello) -> Result<Peer> {
        let wire = self.range.common(hello.wire)?;
        Ok(Peer { nonce: hello.nonce, wire, features: self.features & hello.features })
    }

    /// Whether hello has been said and not been heard.
    pub fn awaits_hello(&self) -> bool {
        self.session.is_some() && self.peer.is_none()
    }

    /// The link on which something may arrive in `lane`, if only the news of its end. Data that
    /// comes before the hello is left where it is.
    pub fn awaited(&self, lane: Lane) -> Option<Arc<dyn Link>> {
        let early = lane == Lane::Data && self.awaits_hello();
        self.link.clone().filter(|_| !early && !self.is_down[lane as usize])
    }

    /// Speaks as another version of the program would.
    #[cfg(any(all(test, not(loom)), feature = "simulate"))]
    pub fn speak(&mut self, range: WireRange, features: u64) {
        (self.range, self.features) = (range, features);
        if let Some(peer) = &mut self.peer {
            peer.wire = range.max;
            self.last_wire = range.max;
        }
    }
}
