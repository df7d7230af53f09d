//! The service's hosts: the sockets at which they find the volumes by NBD, and what is said of them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afterimage::{Clock, Device, Event, SystemClock};
use serde_json::json;

use super::config;
use super::news::News;
use super::sockets;
use super::volumes::Named;
use crate::exit::{Exit, Failure};
use crate::nbd::{self, Export, Listener, Server, Settings};

/// Where hosts come, as the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// Offer the volumes to hosts by NBD at this socket; may be given several times
    #[arg(long, value_name = "unix:PATH|HOST:PORT")]
    pub nbd: Vec<String>,

    /// Let hosts come by TCP without encryption: anybody who reaches the port reads and writes all volumes
    #[arg(long)]
    pub insecure_hosts: bool,
}

/// Hosts of a fenced device are kept for so long, at least, while none hears that they reach the other one.
const SILENCE: Duration = Duration::from_secs(5);

/// The server of the hosts of one device.
pub struct Hosts {
    server: Arc<Server>,
    unix: Vec<PathBuf>,
}

impl Hosts {
    /// Offers the volumes of `device` at the sockets of `args`, or else of `settings`. Hosts of a device that is fenced
    /// are kept for the peer's hook to end, which takes `hook_limit` at most.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a socket that cannot be, or that would let anybody in; [`Exit::Device`] and
    /// [`Exit::Refused`] if it cannot be opened.
    pub fn start(
        args: &HostArgs,
        (settings, hook_limit): (config::Hosts, Duration),
        device: &Arc<Device>,
        names: &[Named],
        news: &Arc<News>,
    ) -> Result<Hosts, Failure> {
        let is_insecure = args.insecure_hosts || settings.insecure;
        let addresses = if args.nbd.is_empty() { &settings.nbd } else { &args.nbd };
        let (mut unix, mut listeners) = (Vec::new(), Vec::new());
        for address in addresses {
            let opening = format!("opening {address} for hosts");
            let failed = |e| Failure::storage(&opening, &e);
            if let Some(path) = address.strip_prefix("unix:") {
                let path = PathBuf::from(path);
                let listener = sockets::bind(&path, settings.mode.0).map_err(failed)?;
                unix.push(path);
                listeners.push(Listener::Unix(listener));
            } else if is_insecure {
                listeners.push(Listener::Tcp(TcpListener::bind(address).map_err(failed)?));
            } else {
                let what = format!(
                    "{opening}: by TCP anybody who reaches it would read and write all volumes, without encryption: use \
                     unix:PATH, or say --insecure-hosts"
                );
                return Err(Failure::new(Exit::Usage, what));
            }
        }
        let exports = names.iter().map(|named| Export::new(&*named.name, named.id)).collect();
        let settings = Settings {
            connections_max: settings.connections,
            patience: Duration::from_nanos(settings.patience.0),
            silence: SILENCE.max(hook_limit),
            ..Settings::default()
        };
        let told = news.clone();
        let server = Server::start(device.clone(), listeners, exports, settings, move |news| {
            tell(&told, &news);
        });
        let server = server.map_err(|e| Failure::device("offering the volumes to hosts", &e))?;
        let server = Arc::new(server);
        let hosts = Arc::downgrade(&server);
        device.on_event(move |event| {
            // Hosts find the device that serves now: until then they were kept, silent (R20).
            let is_time = matches!(event, Event::PeerReachable { .. } | Event::Ready { .. });
            if let Some(server) = hosts.upgrade().filter(|_| is_time) {
                server.hang_up_all();
            }
        });
        Ok(Hosts { server, unix })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.server.connections()
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
