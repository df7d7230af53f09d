//! Hosts by NBD: the exports of a device that serves, on unix sockets and TCP.
//!
//! A connection's data path, a file each, in this order:
//!
//! | file | what it is for |
//! |---|---|
//! | `watch` | one thread takes in connections, and notices those whose host is gone |
//! | `attend` | the life of a connection, in its thread |
//! | `stream` | unix sockets and TCP as one |
//! | `tls` | the same, encrypted |
//! | `rights` | the exports that a host's certificate names |
//! | `negotiate` | the client's options, until one of them opens an export |
//! | `first` | the first request of a host at a fenced device |
//! | `request` | requests, read and held against the export |
//! | `submit` | their pieces, given to the engine |
//! | `status` | block status |
//! | `reply` | replies |
//! | `connection` | what is under way, what is to be sent, and how a connection ends |
//! | `counters` | hosts that were not served |
//! | `wire` | the bytes |
//! | `latencies` | how long requests take |
//!
//! A server has one thread, and one more for each connection, which reads; replies are sent by the threads
//! in which requests end. `docs/hosts.md` says what a host is promised.

mod attend;
mod connection;
mod counters;
mod first;
#[cfg(any(test, feature = "fuzz"))]
mod fuzz;
mod latencies;
mod negotiate;
mod reply;
mod request;
pub mod rights;
mod status;
mod stream;
mod submit;
mod tls;
mod watch;
mod wire;

pub use counters::Counters;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub use fuzz::fuzz_nbd;
pub use latencies::Latencies;
pub use stream::Listener;
pub use tls::Tls;

use afterimage::{Device, Error, Event, Kind, Session};
use attend::{Stranger, attend};
use connection::Connection;
use counters::{Counts, count};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use watch::{LISTENERS, Watch};

/// A host that waits for the device to serve looks again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bytes of an export's name and description, at most, as the protocol has it.
const TEXT_MAX: usize = 4096;

/// A volume as hosts see it.
#[derive(Clone, Debug)]
pub struct Export {
    /// The name that hosts ask for, 4,096 bytes at most; a host that names none gets the only one.
    pub name: String,
    /// For people, 4,096 bytes at most.
    pub description: String,
    /// The volume's number in the group.
    pub volume: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// A host's first read or write at a fenced device takes the host over; the export is open there at once.
    pub takeover_at_first_io: bool,
    bytes: u64,
    /// Several connections may write to it at once.
    shared: bool,
}

impl Export {
    /// The volume `volume` under this name, to be read and written.
    pub fn new(name: impl Into<String>, volume: u32) -> Export {
        let (name, description) = (name.into(), String::new());
        let (read_only, takeover_at_first_io, shared) = (false, false, false);
        Export { name, description, volume, read_only, takeover_at_first_io, bytes: 0, shared }
    }
}

/// How a server treats its hosts. Later versions have more: make it with `..Settings::default()`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most connections at once; one more is closed as it comes. Each has a thread, and 33 MiB of memory at
    /// most. At least 1.
    pub connections_max: usize,
    /// Most of these, of listeners that take TLS, that have not ended its handshake; one more is closed as it
    /// comes. At least 1.
    pub strangers_max: usize,
    /// How long negotiation may take, with a handshake and without the time that the device takes to serve.
    pub negotiation: Duration,
    /// How long a host that opens an export waits until the device serves.
    pub patience: Duration,
    /// After a fence a connection stays for so long, silent, unless [`Server::hang_up_all`] ends it.
    pub silence: Duration,
    /// Counts how long requests take.
    pub latencies: Arc<Latencies>,
    /// An export begins a takeover at most once in this time ([`Export::takeover_at_first_io`]).
    pub takeover_pause: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connections_max: 64,
            strangers_max: 16,
            negotiation: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            silence: Duration::from_secs(5),
            latencies: Arc::default(),
            takeover_pause: Duration::from_secs(60),
        }
    }
}

/// News of a server's connections, for logs and counters.
#[derive(Clone, Debug)]
pub enum News {
    /// A host has opened an export.
    Opened {
        /// Which connection, counted from the server's start.
        connection: u64,
        /// The other end, for people.
        host: String,
        /// The export's name.
        export: String,
    },
    /// A connection is over.
    Ended {
        /// Which connection.
        connection: u64,
        /// The other end, for people.
        host: String,
        /// Why, where it was not the host that ended it in good order.
        why: Option<String>,
    },
    /// A connection was not taken in.
    Refused {
        /// Why.
        why: String,
    },
}

type Tell = Box<dyn Fn(News) + Send + Sync>;

/// A running server. Dropped, it stops.
pub struct Server {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

/// The state that the threads of a server share.
struct Shared {
    /// None while it is closed and opened again.
    device: Mutex<Option<Arc<Device>>>,
    block_size: u32,
    exports: Vec<Export>,
    settings: Settings,
    watch: Arc<Watch>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Connections whose TLS handshake is not over.
    strangers: AtomicUsize,
    counts: Counts,
    /// By volume: when a host's request may begin a takeover again.
    takeover_due: Mutex<HashMap<u32, Instant>>,
    stopping: AtomicBool,
    tell: Tell,
}

impl Server {
    /// Serves `device` to whoever connects to `listeners`. `tell` is called with news, by the threads of
    /// connections: it is to be quick.
    ///
    /// # Errors
    /// [`Kind::Config`] for exports that cannot be: no such volume, the same name twice, a text that is too
    /// long. [`Kind::Storage`] if the system refuses a thread or a descriptor.
    pub fn start(
        device: Arc<Device>,
        listeners: Vec<Listener>,
        mut exports: Vec<Export>,
        settings: Settings,
        tell: impl Fn(News) + Send + Sync + 'static,
    ) -> afterimage::Result<Server> {
        check(&device, &mut exports)?;
        let failed = |e| Error::storage("watching the sockets of hosts", e);
        let watch = Arc::new(Watch::new().map_err(failed)?);
        for (number, listener) in (LISTENERS..).zip(&listeners) {
            listener.set_nonblocking().map_err(failed)?;
            watch.add_listener(listener, number).map_err(failed)?;
        }
        let next = AtomicU64::new(LISTENERS + listeners.len() as u64);
        let shared = Arc::new(Shared {
            device: Mutex::default(),
            block_size: device.limits().block_size,
            exports,
            settings,
            watch,
            connections: Mutex::default(),
            next,
            strangers: AtomicUsize::new(0),
            counts: Counts::default(),
            takeover_due: Mutex::default(),
            stopping: AtomicBool::new(false),
            tell: Box::new(tell),
        });
        shared.serve(device);
        let watched = shared.clone();
        let watcher = std::thread::Builder::new().name("nbd".into());
        let watcher = watcher.spawn(move || watch::watch(&watched, &listeners)).map_err(failed)?;
        Ok(Server { shared, watcher: Some(watcher) })
    }

    /// Hangs up on every host that has opened an export, after whole replies: requests under way stay
    /// unanswered. Hosts may come back at once.
    pub fn hang_up_all(&self) {
        self.shared.hang_up_all();
    }

    /// The device is about to be closed, and another one will be served in its place ([`Server::serve`]). Hosts that
    /// have opened an export are hung up on, as by [`Server::hang_up_all`]; those that are about to, wait.
    pub fn release(&self) {
        *self.shared.device() = None;
        self.shared.hang_up_all();
    }

    /// Serves `device` from now on: the same one as before, opened again.
    pub fn serve(&self, device: Arc<Device>) {
        self.shared.serve(device);
    }

    /// Hangs up, in the same way, on the hosts that the device does not serve in its present tenure, `epoch`.
    pub fn hang_up_before(&self, epoch: u64) {
        self.shared.hang_up_before(epoch);
    }

    /// How many hosts have an export open in the device's present tenure.
    pub fn hosts(&self) -> usize {
        let Some(device) = self.shared.device().clone() else { return 0 };
        let epoch = device.status().epoch;
        let all = self.shared.connections();
        all.values().filter(|c| c.session().is_some_and(|s| s.epoch() == epoch)).count()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// The hosts that were not served.
    pub fn counters(&self) -> Counters {
        self.shared.counts.read()
    }

    /// Takes in no more connections, hangs up on all, and waits for the threads.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let shared = &self.shared;
        let open: Vec<_> = {
            let connections = shared.connections();
            shared.stopping.store(true, Ordering::Release);
            connections.values().cloned().collect()
        };
        open.iter().for_each(|connection| connection.hang_up());
        drop(open);
        shared.watch.ring();
        // It ends those that do not take their replies.
        if let Some(watcher) = self.watcher.take() {
            // A panic there has been reported by the panic hook.
            let _ = watcher.join();
        }
    }
}

/// Holds the exports against the device, and fills in their sizes.
fn check(device: &Device, exports: &mut [Export]) -> afterimage::Result<()> {
    let wrong = |what: String| Err(Error::new(Kind::Config, what));
    let volumes = &device.geometry().volumes;
    let sizes: HashMap<u32, u64> = volumes.iter().map(|v| (v.id, v.bytes)).collect();
    let shared = device.status().shared_volumes;
    let mut names = std::collections::HashSet::new();
    for export in exports {
        let Some(bytes) = sizes.get(&export.volume) else {
            let (name, volume) = (&export.name, export.volume);
            return wrong(format!("export {name} is of volume {volume}, which the group has not"));
        };
        export.bytes = *bytes;
        export.shared = shared.contains(&export.volume);
        let longest = export.name.len().max(export.description.len());
        if longest > TEXT_MAX {
            return wrong(format!(
                "an export has a name or a description of {longest} bytes, {TEXT_MAX} at most"
            ));
        }
        if !names.insert(export.name.clone()) {
            return wrong(format!("two exports are named {:?}", export.name));
        }
    }
    Ok(())
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self) -> MutexGuard<'_, Option<Arc<Device>>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, device: Arc<Device>) {
        let listening = Arc::downgrade(self);
        device.on_event(move |event| {
            let Some(shared) = listening.upgrade() else { return };
            match event {
                Event::Fenced { epoch, .. } => shared.fall_silent(*epoch),
                Event::FencedHere { epoch, .. } => shared.fall_silent(epoch.saturating_add(1)),
                Event::Halted(_) => shared.hang_up_all(),
                _ => {}
            }
        });
        *self.device() = Some(device.clone());
        let status = device.status();
        if status.serving {
            // An opening tells nobody of it.
            self.hang_up_before(status.epoch);
        }
    }

    fn hang_up_before(&self, epoch: u64) {
        let all: Vec<_> = self.connections().values().cloned().collect();
        let behind = all.iter().filter(|connection| connection.is_left_behind(epoch));
        behind.for_each(|connection| connection.hang_up());
    }

    fn has_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire) && self.connections().is_empty()
    }

    fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.connections().get(&id).cloned()
    }

    fn each_opened(&self, act: impl Fn(&Connection, &Session)) {
        let all: Vec<_> = self.connections().values().cloned().collect();
        for connection in all {
            if let Some(session) = connection.session() {
                act(&connection, session);
            }
        }
    }

    fn hang_up_all(&self) {
        self.each_opened(|connection, _| connection.hang_up());
    }

    /// The host was granted to the peer for tenure `epoch`: sessions of earlier ones are over.
    fn fall_silent(&self, epoch: u64) {
        self.each_opened(|connection, session| {
            if session.epoch() < epoch {
                connection.fall_silent();
            }
        });
    }

    /// Ends what has lasted long enough; returns when to look again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let all: Vec<_> = self.connections().values().cloned().collect();
        all.iter().for_each(|connection| connection.expire(now));
        all.iter().filter_map(|connection| connection.deadline()).min()
    }

    /// Takes in a connection. `false`: the system gives none at present, try again later.
    fn take_in(self: &Arc<Self>, listener: &Listener) -> bool {
        let refused = |why: String| {
            count(&self.counts.too_many);
            (self.tell)(News::Refused { why });
        };
        let accepted = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                let passes = [ErrorKind::WouldBlock, ErrorKind::ConnectionAborted];
                if passes.contains(&error.kind()) {
                    return true;
                }
                refused(format!("accepting a connection: {error}"));
                return false;
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let host = accepted.1.clone();
        let (security, tls) = listener.security();
        let stranger = tls.map(|tls| Stranger::new(self, tls));
        if stranger.is_some()
            && self.strangers.load(Ordering::Relaxed) > self.settings.strangers_max
        {
            let most = self.settings.strangers_max;
            refused(format!("{host}: {most} connections have not ended their TLS handshake"));
            return true;
        }
        let (watch, silence) = (self.watch.clone(), self.settings.silence);
        let latencies = self.settings.latencies.clone();
        let connection = Arc::new(Connection::new(id, accepted, watch, silence, latencies));
        {
            let mut connections = self.connections();
            if self.stopping.load(Ordering::Acquire) {
                return true;
            }
            if connections.len() >= self.settings.connections_max {
                let most = self.settings.connections_max;
                drop(connections);
                refused(format!("{host}: there are {most} connections, `connections_max`"));
                return true;
            }
            connections.insert(id, connection.clone());
        }
        let seat = Seat { shared: self.clone(), id };
        let begun = self.watch.add(&connection.stream, id).and_then(|()| {
            let name = format!("nbd-{id}");
            std::thread::Builder::new().name(name).spawn(move || {
                attend(seat, connection, (security, stranger));
            })
        });
        match begun {
            Ok(_) => true,
            Err(error) => {
                refused(format!("{host}: {error}"));
                false
            }
        }
    }
}

/// A connection's place among those of the server, as long as its thread runs.
struct Seat {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let gone = self.shared.connections().remove(&self.id);
        if let Some(connection) = gone {
            self.shared.watch.remove(&connection.stream);
        }
        self.shared.watch.ring();
    }
}

/// Whether a host's first request for `export` takes the host over at `device`; not against an operator's fence.
fn takes_over(device: &Device, export: &Export) -> bool {
    export.takeover_at_first_io && !export.read_only && !device.status().fenced_here
}

impl Shared {
    /// A session for a host that opens `export`, once the device serves (R13, R20); `None` if the host's first request
    /// is to take the host over.
    fn open(
        &self,
        connection: &Arc<Connection>,
        export: &Export,
    ) -> Result<Option<Session>, String> {
        let begun = Instant::now();
        let (device, session) = loop {
            let device = self.device().clone();
            let why = match &device {
                None => "the device is being opened".to_owned(),
                Some(device) => match device.session() {
                    Ok(session) => break (device.clone(), session),
                    Err(error) if error.kind() == Kind::Fenced && takes_over(device, export) => {
                        return Ok(None);
                    }
                    // One that was closed to be opened again is in nobody's hands any more.
                    Err(error) if error.kind() == Kind::Halted && self.has(device) => {
                        return Err(error.to_string());
                    }
                    Err(error) => error.to_string(),
                },
            };
            let is_patient = begun.elapsed() < self.settings.patience;
            if !(is_patient && connection.wait_a_moment(LOOK_AGAIN)) {
                return Err(why);
            }
        };
        self.enter(connection, &device, &session);
        Ok(Some(session))
    }

    /// The host of `connection` has a session.
    fn enter(&self, connection: &Arc<Connection>, device: &Arc<Device>, session: &Session) {
        connection.open(session.clone());
        // A fence in between has not seen the session.
        let status = device.status();
        if !self.has(device) {
            connection.hang_up();
        } else if !status.serving || status.epoch != session.epoch() {
            connection.fall_silent();
        }
    }

    fn has(&self, device: &Arc<Device>) -> bool {
        self.device().as_ref().is_some_and(|present| Arc::ptr_eq(present, device))
    }
}
