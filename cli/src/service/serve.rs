//! `afterimage serve`: the device opened, its threads, its sockets, until it is stopped.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use afterimage::{Directory, Error};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::config::{self, Config};
use super::control::server::Server;
use super::course::TURN;
use super::hosts::HostArgs;
use super::line::LineArgs;
use super::metrics::{Metrics, MetricsArgs};
use super::orders::peer_has_all;
use super::running::Service;
use super::{log, pairing, sockets, systemd};
use crate::exit::{Exit, Failure};
use crate::{recover, signals};

/// The device, and where it is found.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The device's directory
    #[arg(value_name = "DIR", required_unless_present = "config")]
    pub dir: Option<PathBuf>,

    /// The file with the service's settings (docs/afterimage.toml); the command line comes over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The way to the peer.
    #[command(flatten)]
    pub line: LineArgs,

    /// Where hosts come.
    #[command(flatten)]
    pub hosts: HostArgs,

    /// Where metrics are.
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// The levels of the log on the standard error: `error`, `warn`, `info`, `debug`, or `info,afterimage::order=debug`
    #[arg(long, value_name = "LEVEL", value_parser = log::levels)]
    pub log: Option<Targets>,
}

/// Serves the device until SIGTERM or SIGINT, or until it stops for good. A second signal ends the process at once,
/// which the next opening takes for a crash.
///
/// # Errors
/// [`Exit::Refused`] if the device is open elsewhere, [`Exit::Device`] if there is none, or it fails;
/// [`Exit::Usage`] for settings that cannot be.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    pairing::leave_no_core_dump();
    let passed = systemd::passed()?;
    let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let Some(dir) = args.dir.clone().or_else(|| config.directory.clone()) else {
        let what = "the configuration names no directory, and the command line neither";
        return Err(Failure::new(Exit::Usage, what));
    };
    let dir = &*dir;
    let levels = args.log.clone().or(config.log.level.clone().map(|levels| levels.0));
    // Written before a failure is told of, which comes last.
    let _log = log::start(levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)));
    recover::look(dir)?;
    let opening = recover::opening(dir);
    let directory = Directory::open(dir).map_err(|e| Failure::storage(&opening, &e))?;
    let ending = Arc::new(Ending::default());
    let ends = ending.clone();
    signals::end_with(move |name| ends.signal(name));
    let ends = ending.clone();
    let (metrics, stop) = (config.metrics.clone(), config.stop);
    let start = (Arc::new(directory), passed);
    let service = Service::start(dir, start, args, config, move |why| ends.halt(why))?;
    let ended = keep(&service, &ending, (&args.metrics, &metrics), &stop);
    // A failure leaves the device as closed as an end does: no host is to answer for it.
    let closed = service.stop();
    match ended? {
        End::Halted(why) => Err(Failure::device(dir.display(), &why)),
        End::Signal(name) => {
            closed.map_err(|e| Failure::device("closing the device", &e))?;
            tracing::info!(target: "afterimage", "closed cleanly, after {name}");
            Ok(Exit::Held)
        }
    }
}

/// Runs all that a service has beside its device, until its end comes.
fn keep(
    service: &Arc<Service>,
    ending: &Ending,
    (args, settings): (&MetricsArgs, &config::Metrics),
    stop: &config::Stop,
) -> Result<End, Failure> {
    let metrics = Metrics::start(args, settings, service)?;
    let control = Server::start(service.dir(), service.access(), service.clone()).map_err(|e| {
        sockets::failure(format!("opening sockets in {}", service.dir().display()), &e)
    })?;
    systemd::ready();
    let pause = systemd::watchdog().map_or(TURN, |most| TURN.min(most / 3));
    let mut changes_since = None;
    let end = ending.wait(pause, || match service.orders_now() {
        // A device that does not answer stops this thread, and so what systemd hears of it.
        Some(orders) => {
            changes_since = None;
            orders.note();
            systemd::alive(&orders.report().phrase());
        }
        None => {
            let since = *changes_since.get_or_insert_with(Instant::now);
            if since.elapsed() < CHANGING {
                systemd::alive("is being changed");
            }
        }
    });
    systemd::stopping("stops", CLOSING);
    if let (End::Signal(name), true) = (&end, stop.drain) {
        drain(service, (name, Duration::from_nanos(stop.limit.0)));
    }
    // Orders end first, then hosts, then the background work.
    drop((control, metrics));
    Ok(end)
}

/// Hangs up on the hosts, and waits until neither device owes the other anything, for `most` at most.
fn drain(service: &Service, (signal, most): (&str, Duration)) {
    let Ok(orders) = service.orders() else { return };
    tracing::info!(target: "afterimage", "{signal}: until nothing is owed, for {} s at most", most.as_secs());
    let until = Instant::now() + most;
    service.expect_no_hosts();
    orders.hosts.release();
    orders.flush();
    let is_drained = loop {
        let status = orders.device.status();
        if peer_has_all(&status) && status.owed_blocks == 0 {
            break true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || status.halted.is_some() {
            break false;
        }
        orders.note();
        systemd::alive(&format!("drains: {}", orders.report().phrase()));
        systemd::stopping("drains", left + CLOSING);
        std::thread::sleep(DRAINING.min(left));
    };
    match is_drained {
        true => tracing::info!(target: "afterimage", "nothing is owed"),
        false => {
            tracing::warn!(target: "afterimage", "something is still owed: {}", orders.report().phrase())
        }
    }
}

/// A change of a closed device takes no longer, as an opening by systemd's word.
const CHANGING: Duration = Duration::from_secs(15 * 60);

/// A device takes no longer to close, where its disk works.
const CLOSING: Duration = Duration::from_secs(60);

/// How often a service that drains looks whether it is done.
const DRAINING: Duration = Duration::from_millis(100);

/// Why a service ends.
enum End {
    Signal(&'static str),
    Halted(Error),
}

/// The end of a service, when it has come.
#[derive(Default)]
struct Ending {
    end: Mutex<Option<End>>,
    come: Condvar,
}

impl Ending {
    fn halt(&self, why: Error) {
        self.come(End::Halted(why));
    }

    fn signal(&self, name: &'static str) {
        self.come(End::Signal(name));
    }

    fn come(&self, end: End) {
        let mut held = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(end);
        self.come.notify_all();
    }

    /// Waits until it comes; `turn` is called every `pause` until then.
    fn wait(&self, pause: Duration, mut turn: impl FnMut()) -> End {
        loop {
            turn();
            let held = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.come.wait_timeout_while(held, pause, |end| end.is_none());
            if let Some(end) = waited.unwrap_or_else(PoisonError::into_inner).0.take() {
                return end;
            }
        }
    }
}
