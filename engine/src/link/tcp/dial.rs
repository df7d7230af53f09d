//! The dialling end: where links come from at the device that connects.

use super::greeting::{Answer, Greeting, Purpose, failed};
use super::session::TcpLink;
use super::wire::{Wire, left};
use super::{DeviceKey, Pins, PublicKey, TcpSettings, random, tls};
use crate::error::{Error, Kind, Result};
use crate::link::{Connector, Lane, Link};
use crate::sync::lock;
use rustls::ClientConfig;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Dials the peer. A clone is the same end, through which its owner sees how it is doing while a device's
/// threads have the other.
#[derive(Clone)]
pub struct Dialler(Arc<Dial>);

struct Dial {
    address: String,
    tls: Option<Arc<ClientConfig>>,
    settings: TcpSettings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A thread is dialling, and its outcome will come from here.
    outcome: Option<Receiver<Result<TcpLink>>>,
    trouble: Option<Error>,
    peer: Option<(SocketAddr, Option<PublicKey>)>,
}

impl Dialler {
    /// An end that dials `address` (`HOST:PORT`, looked up at each attempt), shows `key`, and takes a device
    /// for its peer that shows one of the keys `pins`.
    pub fn new(address: &str, key: &DeviceKey, pins: &Pins, settings: TcpSettings) -> Dialler {
        let pins = pins.clone();
        let tls = tls::client(key, Box::new(move |key| pins.contains(key)));
        Dialler::with(address, Some(tls), settings)
    }

    /// An end without keys and encryption, for tests on one machine: whoever has the port is believed.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is an address that is not a loopback address, or `pins` has a key: a pair
    /// made with keys stays with them.
    pub fn insecure(address: &str, pins: &Pins, settings: TcpSettings) -> Result<Dialler> {
        check_insecure(pins)?;
        resolve(address, true)?;
        Ok(Dialler::with(address, None, settings))
    }

    fn with(address: &str, tls: Option<Arc<ClientConfig>>, settings: TcpSettings) -> Dialler {
        let state = Mutex::default();
        Dialler(Arc::new(Dial { address: address.into(), tls, settings, state }))
    }

    /// Why the last attempt failed; `None` if it did not, or none has ended yet.
    pub fn trouble(&self) -> Option<Error> {
        lock(&self.0.state).trouble.clone()
    }

    /// Address and key of the newest session's peer; its key is `None` in the clear.
    pub fn peer(&self) -> Option<(SocketAddr, Option<PublicKey>)> {
        lock(&self.0.state).peer
    }
}

impl Connector for Dialler {
    /// Dials in a thread of its own, as a session may need more than `patience`; another call goes on waiting
    /// for the same.
    fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>> {
        let waiting = lock(&self.0.state).outcome.take();
        let outcome = match waiting {
            Some(outcome) => outcome,
            None => {
                let (give, take) = channel();
                let dial = self.0.clone();
                // Without anybody who takes it, the link is dropped, and so ended.
                let run = move || drop(give.send(dial.dial()));
                let spawned = std::thread::Builder::new().name("link-dial".into()).spawn(run);
                spawned.map_err(|e| Error::storage("starting a thread to dial with", e))?;
                take
            }
        };
        let arrived = outcome.recv_timeout(patience);
        let mut state = lock(&self.0.state);
        match arrived {
            Err(RecvTimeoutError::Timeout) => {
                state.outcome = Some(outcome);
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(Kind::NoPeer, "the thread that dialled has died"))
            }
            Ok(Err(e)) => {
                state.trouble = Some(e.clone());
                Err(e)
            }
            Ok(Ok(link)) => {
                state.trouble = None;
                state.peer = Some(link.peer());
                Ok(Some(Arc::new(link)))
            }
        }
    }
}

impl Dial {
    /// A session: both its connections, greeted and answered.
    fn dial(&self) -> Result<TcpLink> {
        let (address, until) = (&*self.address, Instant::now() + self.settings.handshake);
        let nonce = random()?;
        let open = |lane| {
            let stream = connect(address, self.tls.is_none(), until)?;
            let greeting = Greeting::new(Purpose::Lane(lane), nonce).encode();
            let wire = Wire::dial(stream, self.tls.as_ref(), until);
            let greeted = wire.and_then(|mut wire| wire.send(&greeting).map(|()| wire));
            greeted.map_err(|e| failed(e, address))
        };
        let mut wires = [open(Lane::Data)?, open(Lane::Control)?];
        if wires[0].peer() != wires[1].peer() {
            let what = format!("two devices with different keys answer at {address}");
            return Err(Error::new(Kind::Protocol, what));
        }
        for wire in &mut wires {
            Answer::receive(wire, address)?;
        }
        TcpLink::start(wires, &self.settings).map_err(|e| failed(e.into(), address))
    }
}

/// A TCP connection to one of the addresses that `address` stands for.
pub(super) fn connect(address: &str, insecure: bool, until: Instant) -> Result<TcpStream> {
    let found = resolve(address, insecure)?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (at, socket) in found.iter().enumerate() {
        let share = |left: Duration| left / (found.len() - at) as u32;
        match left(until).and_then(|left| TcpStream::connect_timeout(socket, share(left))) {
            Ok(stream) => return Ok(stream),
            Err(e) => failure = e,
        }
    }
    let kind = if failure.kind() == io::ErrorKind::TimedOut { Kind::Timeout } else { Kind::NoPeer };
    Err(Error::new(kind, format!("connecting to the device at {address}: {failure}")))
}

/// The addresses that `address` stands for: of an `insecure` end loopback addresses, all of them.
fn resolve(address: &str, insecure: bool) -> Result<Vec<SocketAddr>> {
    let found = address.to_socket_addrs().map_err(|e| {
        Error::new(Kind::NoPeer, format!("looking up {address}, which is to be HOST:PORT: {e}"))
    })?;
    let found: Vec<_> = found.collect();
    if insecure {
        found.iter().try_for_each(check_loopback)?;
    }
    Ok(found)
}

/// Whether an end without encryption may have `address`.
pub(super) fn check_loopback(address: &SocketAddr) -> Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let what = format!("{address} is no loopback address: nothing goes there without encryption");
    Err(Error::new(Kind::Config, what))
}

/// Whether a device with `pins` may have an end without encryption.
pub(super) fn check_insecure(pins: &Pins) -> Result<()> {
    if pins.is_empty() {
        return Ok(());
    }
    let what = "this device was paired by its key: it has no link without encryption";
    Err(Error::new(Kind::Config, what))
}
