//! The service's hosts: the sockets at which they find the volumes by NBD, and what is said of them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afterimage::{Clock, Device, Event, SystemClock};
use serde_json::json;

use super::config;
use super::listeners;
use super::news::News;
use super::volumes::Named;
use crate::exit::{Exit, Failure};
use crate::nbd::{self, Counters, Export, Latencies, Listener, Server, Settings};
use crate::output::shown;

/// Where hosts come, as the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// Offer the volumes to hosts by NBD at this socket; may be given several times
    #[arg(long, value_name = "unix:PATH|HOST:PORT")]
    pub nbd: Vec<String>,

    /// Let hosts come by TCP without showing who they are: anybody who reaches the port reads and writes all volumes
    #[arg(long)]
    pub insecure_hosts: bool,

    /// Print the URI of each export at each socket once hosts may come
    #[arg(long)]
    pub print_uri: bool,
}

/// Hosts of a fenced device are kept for so long, at least, while none hears that they reach the other one.
const SILENCE: Duration = Duration::from_secs(5);

/// The server of the hosts of one device.
pub struct Hosts {
    server: Arc<Server>,
    latencies: Arc<Latencies>,
    /// How often an export was opened.
    opened: Arc<AtomicU64>,
    unix: Vec<PathBuf>,
    uris: Vec<String>,
}

/// How many hosts there are, and where more may come.
#[derive(Clone, Debug)]
pub struct Report {
    /// Connections.
    pub connections: usize,
    /// Those that were not served.
    pub refused: Counters,
    /// Of each export at each socket.
    pub uris: Vec<String>,
}

impl Hosts {
    /// Offers the volumes of `device` at the sockets of `args`, or else of `settings`, and at those that systemd has
    /// `passed`. Hosts of a device that is fenced
    /// are kept for the peer's hook to end, which takes `hook_limit` at most.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a socket that cannot be, or that would let anybody in; [`Exit::Device`] and
    /// [`Exit::Refused`] if it cannot be opened.
    pub fn start(
        args: &HostArgs,
        passed: Vec<Listener>,
        (settings, hook_limit): (config::Hosts, Duration),
        device: &Arc<Device>,
        names: &[Named],
        news: &Arc<News>,
    ) -> Result<Hosts, Failure> {
        let is_insecure = args.insecure_hosts || settings.insecure;
        let addresses = if args.nbd.is_empty() { &settings.nbd } else { &args.nbd };
        if let Some(odd) =
            settings.exports.keys().find(|&of| names.iter().all(|named| named.name != *of))
        {
            let what = format!("[hosts.exports.{odd}]: the device has no volume of that name");
            return Err(Failure::new(Exit::Usage, what));
        }
        let mut sockets = listeners::open(addresses, passed, &settings, is_insecure)?;
        let exports = names.iter().map(|named| {
            let mut export = Export::new(&*named.name, named.id);
            let special = settings.exports.get(&named.name).copied().unwrap_or_default();
            export.read_only = special.read_only;
            export.takeover_at_first_io = special.takeover_at_first_io;
            export
        });
        let exports = exports.collect();
        let uris: Vec<_> = names.iter().flat_map(|named| sockets.uris(&named.name)).collect();
        let listeners = std::mem::take(&mut sockets.listeners);
        let settings = Settings {
            connections_max: settings.connections,
            strangers_max: settings.handshakes,
            patience: Duration::from_nanos(settings.patience.0),
            silence: SILENCE.max(hook_limit),
            ..Settings::default()
        };
        let latencies = settings.latencies.clone();
        let (told, opened) = (news.clone(), Arc::new(AtomicU64::new(0)));
        let counts = opened.clone();
        let server = Server::start(device.clone(), listeners, exports, settings, move |news| {
            if matches!(news, nbd::News::Opened { .. }) {
                counts.fetch_add(1, Ordering::Relaxed);
            }
            tell(&told, &news);
        });
        let server = server.map_err(|e| Failure::device("offering the volumes to hosts", &e))?;
        let server = Arc::new(server);
        let hosts = Hosts { server, latencies, opened, unix: sockets.unix, uris };
        hosts.follow(device);
        if args.print_uri {
            let mut out = io::stdout().lock();
            shown(hosts.uris.iter().try_for_each(|uri| writeln!(out, "{uri}")))?;
        }
        Ok(hosts)
    }

    fn follow(&self, device: &Device) {
        let hosts = Arc::downgrade(&self.server);
        device.on_event(move |event| {
            // Hosts find the device that serves now: until then they were kept, silent (R20).
            let Some(server) = hosts.upgrade() else { return };
            match *event {
                Event::PeerReachable { .. } => server.hang_up_all(),
                Event::Ready { epoch, .. } => server.hang_up_before(epoch),
                _ => {}
            }
        });
    }

    /// How many hosts have an export open in the present tenure, and how often one was opened since the start.
    pub fn open(&self) -> (usize, u64) {
        (self.server.hosts(), self.opened.load(Ordering::Relaxed))
    }

    /// The device is about to be closed: hosts are hung up on, and those that come wait for [`Hosts::serve`].
    pub fn release(&self) {
        self.server.release();
    }

    /// The device is open again.
    pub fn serve(&self, device: &Arc<Device>) {
        self.follow(device);
        self.server.serve(device.clone());
    }

    /// How long their requests take.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// How many there are, and where more may come.
    pub fn report(&self) -> Report {
        let (connections, refused) = (self.server.connections(), self.server.counters());
        Report { connections, refused, uris: self.uris.clone() }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for path in &self.unix {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tell(news: &News, of_host: &nbd::News) {
    let at = SystemClock::default().wall();
    match of_host {
        nbd::News::Opened { connection, host, export } => {
            let text = format!("{host} has opened {export}");
            let facts = json!({ "connection": connection, "host": host, "export": export });
            news.put("host-opened", text, facts, at);
        }
        nbd::News::Ended { connection, host, why } => {
            let text = match why {
                None => format!("{host} has left"),
                Some(why) => format!("the connection of {host} is over: {why}"),
            };
            let facts = json!({ "connection": connection, "host": host, "why": why });
            news.put("host-ended", text, facts, at);
        }
        nbd::News::Refused { why } => {
            let text = format!("a host was not taken in: {why}");
            news.put("host-refused", text, json!({ "why": why }), at);
        }
    }
}
