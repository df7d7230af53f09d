//! The accepting end: it listens, greets, joins the two connections of a session, and lets devices pair.

use super::dial::{check_insecure, check_loopback};
use super::greeting::{Answer, Greeting, Purpose, VERSION, Word};
use super::pairing::{Inviter, Inviting};
use super::session::TcpLink;
use super::wire::{Broken, Wire};
use super::{DeviceKey, Pins, PublicKey, Record, TcpSettings, tls};
use crate::error::{Error, Result};
use crate::link::{Connector, Lane, Link};
use crate::sync::lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that wait for the other one of their session: more than a peer needs that begins anew a few
/// times before its first ones are given up.
const HALVES_MAX: usize = 16;

/// Nonces that are remembered, the last ones.
const NONCES_MAX: usize = 64;

/// How often the listening thread looks for connections that wait too long.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// The connections that have come to an accepting end since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Sessions: both connections stood.
    pub sessions: u64,
    /// Connections that have shown a key which has no session here.
    pub wrong_key: u64,
    /// Connections that took longer than [`TcpSettings::handshake`].
    pub timed_out: u64,
    /// Connections that ended too early, or said what has no meaning.
    pub malformed: u64,
    /// Connections beyond [`TcpSettings::handshakes_max`], hung up on at once.
    pub too_many: u64,
}

/// Listens for the peer. A clone is the same end, through which its owner sees how it is doing while a
/// device's threads have the other; it listens until the last one is dropped.
#[derive(Clone)]
pub struct Acceptor(Arc<Listening>);

struct Listening {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: TcpListener,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// This device's key and its TLS, unless it is an end without encryption.
    secure: Option<(PublicKey, Arc<ServerConfig>)>,
    pins: Pins,
    settings: TcpSettings,
    state: Mutex<State>,
    /// There is a link to be taken.
    news: Condvar,
    inviting: Arc<Inviting>,
}

#[derive(Default)]
struct State {
    stop: bool,
    handshakes: usize,
    counters: Counters,
    halves: VecDeque<Half>,
    nonces: VecDeque<[u8; 16]>,
    /// The newest session that nobody has taken.
    next: Option<TcpLink>,
    peer: Option<(SocketAddr, Option<PublicKey>)>,
}

/// A connection that waits for the other one of its session.
struct Half {
    nonce: [u8; 16],
    lane: Lane,
    wire: Wire,
}

impl Acceptor {
    /// Listens at `address` (`HOST:PORT`), shows `key`, and takes a device for its peer that shows one
    /// of the keys `pins`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::Kind::Storage) if the address cannot be listened at.
    pub fn bind(
        address: &str,
        key: &DeviceKey,
        pins: &Pins,
        settings: TcpSettings,
    ) -> Result<Acceptor> {
        Acceptor::listen(listener(address)?, key, pins, settings)
    }

    /// The same with a listener that somebody else has opened.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::Kind::Storage) if the system refuses a thread or a descriptor.
    pub fn listen(
        listener: TcpListener,
        key: &DeviceKey,
        pins: &Pins,
        settings: TcpSettings,
    ) -> Result<Acceptor> {
        let inviting = Arc::new(Inviting::default());
        let (known, invites) = (pins.clone(), inviting.clone());
        // A device that is invited has no pin yet: its key gets a pairing, and nothing else.
        let trusts = move |key| known.contains(key) || invites.is_open();
        let secure = Some((key.public(), tls::server(key, Box::new(trusts))));
        Acceptor::with(listener, secure, pins, settings, inviting)
    }

    /// An end without keys and encryption, for tests on one machine: whoever dials is believed.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::Kind::Config) if `address` is not a loopback address, or `pins` has a key: a pair
    /// made with keys stays with them. As [`Acceptor::bind`].
    pub fn insecure(address: &str, pins: &Pins, settings: TcpSettings) -> Result<Acceptor> {
        check_insecure(pins)?;
        let listener = listener(address)?;
        check_loopback(&listener.local_addr().map_err(|e| refused(address, e))?)?;
        Acceptor::with(listener, None, pins, settings, Arc::default())
    }

    fn with(
        listener: TcpListener,
        secure: Option<(PublicKey, Arc<ServerConfig>)>,
        pins: &Pins,
        settings: TcpSettings,
        inviting: Arc<Inviting>,
    ) -> Result<Acceptor> {
        let (state, news) = Default::default();
        let shared = Shared { secure, pins: pins.clone(), settings, state, news, inviting };
        let shared = Arc::new(shared);
        let begin = || {
            listener.set_nonblocking(true)?;
            let (address, own) = (listener.local_addr()?, listener.try_clone()?);
            let listens = shared.clone();
            let run = move || listens.listen(&own);
            let thread = std::thread::Builder::new().name("link-listen".into()).spawn(run)?;
            Ok((address, Mutex::new(Some(thread))))
        };
        let (address, thread) = begin().map_err(|e| refused("the link's address", e))?;
        Ok(Acceptor(Arc::new(Listening { shared, address, listener, thread })))
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The connections that have come so far.
    pub fn counters(&self) -> Counters {
        lock(&self.0.shared.state).counters
    }

    /// Address and key of the newest session's peer; its key is `None` in the clear.
    pub fn peer(&self) -> Option<(SocketAddr, Option<PublicKey>)> {
        lock(&self.0.shared.state).peer
    }

    /// From now on a device that knows the secret of the invitation of `record` may pair with this one. It
    /// takes the place of an earlier invitation. [`Inviter::pin`] is called before the device is pinned here.
    pub fn invite(&self, record: Record, inviter: impl Inviter + 'static) {
        self.0.shared.inviting.open(record, Box::new(inviter));
    }

    /// No device may pair with this one any more.
    pub fn withdraw(&self) {
        self.0.shared.inviting.close();
    }

    /// Whether one connection of the session is there, and waits for the other.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_waiting(&self, nonce: &[u8; 16]) -> bool {
        lock(&self.0.shared.state).halves.iter().any(|half| half.nonce == *nonce)
    }
}

impl Connector for Acceptor {
    fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>> {
        let shared = &self.0.shared;
        let waits = |state: &mut State| state.next.is_none();
        let waited = shared.news.wait_timeout_while(lock(&shared.state), patience, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Ok(state.next.take().map(|link| Arc::new(link) as Arc<dyn Link>))
    }

    fn accepts(&self) -> bool {
        true
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        // The thread wakes up when its listener is shut, or by itself.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn listener(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|e| refused(address, e))
}

fn refused(address: &str, e: io::Error) -> Error {
    Error::storage(format!("listening at {address}"), e)
}

/// One of the connections that have not shown their key yet.
struct Handshake(Arc<Shared>);

impl Drop for Handshake {
    fn drop(&mut self) {
        lock(&self.0.state).handshakes -= 1;
    }
}

impl Shared {
    fn listen(self: Arc<Shared>, listener: &TcpListener) {
        loop {
            let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK));
            let late = {
                let mut state = lock(&self.state);
                if state.stop {
                    return;
                }
                state.take_late(Instant::now())
            };
            drop(late);
            match listener.accept() {
                Ok((stream, address)) => self.admit(stream, address),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // No descriptor is left, say: it is still there at once, and passes.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Greets a connection in a thread of its own, if there are not too many.
    fn admit(self: &Arc<Shared>, stream: TcpStream, address: SocketAddr) {
        {
            let mut state = lock(&self.state);
            if state.handshakes >= self.settings.handshakes_max {
                state.counters.too_many += 1;
                return;
            }
            state.handshakes += 1;
        }
        let handshake = Handshake(self.clone());
        let run = move || {
            let shared = &handshake.0;
            let greeted = shared.greet(stream, address);
            let mut state = lock(&shared.state);
            let counter = match greeted {
                Ok(()) => return,
                Err(Broken::WrongKey(_)) => &mut state.counters.wrong_key,
                Err(Broken::TimedOut) => &mut state.counters.timed_out,
                Err(Broken::Malformed(_)) => &mut state.counters.malformed,
            };
            *counter += 1;
        };
        if std::thread::Builder::new().name("link-greet".into()).spawn(run).is_err() {
            lock(&self.state).counters.too_many += 1;
        }
    }

    fn greet(&self, stream: TcpStream, address: SocketAddr) -> Result<(), Broken> {
        let until = Instant::now() + self.settings.handshake;
        let tls = self.secure.as_ref().map(|(_, tls)| tls);
        let mut wire = Wire::accept(stream, tls, until)?;
        let greeting = Greeting::decode(&wire.receive_array()?);
        let (word, why) = match greeting {
            Err(what) => (Word::Refused, Broken::Malformed(what)),
            Ok(Greeting { version, .. }) if version != VERSION => {
                let what = format!("the peer speaks version {version}, here it is {VERSION}");
                (Word::OtherVersion, Broken::Malformed(what))
            }
            Ok(Greeting { purpose: Purpose::Pairing, .. }) => {
                let (Some((own, _)), Some(key)) = (&self.secure, wire.peer()) else {
                    return Err(Broken::Malformed("a pairing without encryption".into()));
                };
                let proof = wire.receive_array()?;
                let (word, payload) = self.inviting.decide(&proof, *own, key, address, &self.pins);
                // The device's owner may have taken a while to store the pairing.
                wire.until = Instant::now() + self.settings.handshake;
                wire.send(&[Answer::new(word, payload.len()).encode(), payload].concat())?;
                return Ok(());
            }
            Ok(Greeting { purpose: Purpose::Lane(lane), nonce, .. }) => match wire.peer() {
                Some(key) if !self.pins.contains(key) => (Word::NotPinned, Broken::WrongKey(key)),
                _ => match self.join(wire, lane, nonce)? {
                    None => return Ok(()),
                    Some(refused) => {
                        wire = refused;
                        (Word::Refused, Broken::Malformed("this session was there before".into()))
                    }
                },
            },
        };
        // Its peer learns why, unless it is gone.
        let _ = wire.send(&Answer::new(word, 0).encode());
        Err(why)
    }

    /// Joins `wire` with the other connection of its session, or keeps it until that comes; a connection
    /// whose lane the session has already comes back.
    fn join(&self, wire: Wire, lane: Lane, nonce: [u8; 16]) -> Result<Option<Wire>, Broken> {
        let mut wires = {
            let mut state = lock(&self.state);
            let state = &mut *state;
            let is_same = |half: &Half| half.nonce == nonce && half.wire.peer() == wire.peer();
            let place = state.halves.iter().position(is_same);
            let has_lane = place.is_some_and(|place| state.halves[place].lane == lane);
            if has_lane || state.nonces.contains(&nonce) {
                return Ok(Some(wire));
            }
            let Some(other) = place.and_then(|place| state.halves.remove(place)) else {
                if state.halves.len() == HALVES_MAX {
                    state.halves.pop_front();
                }
                state.halves.push_back(Half { nonce, lane, wire });
                return Ok(None);
            };
            if state.nonces.len() == NONCES_MAX {
                state.nonces.pop_front();
            }
            state.nonces.push_back(nonce);
            if lane == Lane::Data { [wire, other.wire] } else { [other.wire, wire] }
        };
        for wire in &mut wires {
            wire.send(&Answer::new(Word::Welcome, 0).encode())?;
        }
        let link = TcpLink::start(wires, &self.settings)?;
        let mut state = lock(&self.state);
        state.counters.sessions += 1;
        state.peer = Some(link.peer());
        let earlier = state.next.replace(link);
        drop(state);
        drop(earlier); // its peer has dialled anew, and given it up
        self.news.notify_all();
        Ok(None)
    }
}

impl State {
    /// The connections whose time is over, counted: they end when they are dropped.
    fn take_late(&mut self, now: Instant) -> VecDeque<Half> {
        let is_late = |half: &Half| half.wire.until <= now;
        let (late, waiting): (VecDeque<_>, _) = self.halves.drain(..).partition(is_late);
        self.halves = waiting;
        self.counters.timed_out += late.len() as u64;
        late
    }
}
