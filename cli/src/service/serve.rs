//! `afterimage serve`: the device opened, its threads, its sockets, until it is stopped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use afterimage::internal::format::superblock::Superblock;
use afterimage::internal::superblock;
use afterimage::{Clock, Device, Directory, Error, Event, SystemClock, Threads};

use super::config::{self, Config};
use super::control::server::{Modes, Server};
use super::hooks::Hooks;
use super::hosts::{HostArgs, Hosts};
use super::line::{LineArgs, PeerLine};
use super::news::News;
use super::orders::Orders;
use super::pairing;
use super::volumes::{self, Named};
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
}

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
    fn come(&self, end: End) {
        let mut held = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(end);
        self.come.notify_all();
    }

    fn wait(&self) -> End {
        let held = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.come.wait_while(held, |end| end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).take().expect("it has come")
    }
}

/// Serves the device until SIGTERM or SIGINT, or until it stops for good. A second signal ends the process at once,
/// which the next opening takes for a crash.
///
/// # Errors
/// [`Exit::Refused`] if the device is open elsewhere, [`Exit::Device`] if there is none, or it fails;
/// [`Exit::Usage`] for settings that cannot be.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    pairing::leave_no_core_dump();
    let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let Some(dir) = args.dir.clone().or_else(|| config.directory.clone()) else {
        let what = "the configuration names no directory, and the command line neither";
        return Err(Failure::new(Exit::Usage, what));
    };
    let dir = &*dir;
    recover::look(dir)?;
    let opening = recover::opening(dir);
    let directory = Directory::open(dir).map_err(|e| Failure::storage(&opening, &e))?;
    let superblock = superblock::load(&directory).map_err(|e| Failure::device(&opening, &e))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let ids = superblock.volumes.iter().map(|volume| volume.id);
    let names = volumes::read(dir, ids).map_err(|what| Failure::new(Exit::Device, what))?;
    let device = Device::open(Arc::new(directory), clock, config.engine(&names))
        .map_err(|e| Failure::device(&opening, &e))?;
    let kept = keep(dir, args, config, (superblock, names), &device);
    // A failure leaves the device as closed as an end does: no host is to answer for it.
    let closed = device.close();
    match kept? {
        End::Halted(why) => Err(Failure::device(dir.display(), &why)),
        End::Signal(name) => {
            closed.map_err(|e| Failure::device("closing the device", &e))?;
            eprintln!("afterimage: closed cleanly, after {name}");
            Ok(Exit::Held)
        }
    }
}

/// Runs all that a service of `device` has, until its end comes.
fn keep(
    dir: &Path,
    args: &Args,
    config: Config,
    (superblock, names): (Superblock, Vec<Named>),
    device: &Arc<Device>,
) -> Result<End, Failure> {
    let clock = device.clock().clone();
    let opened_at = clock.monotonic();
    let (ending, news) = (Arc::new(Ending::default()), Arc::new(News::default()));
    let (told, ends) = (news.clone(), ending.clone());
    device.on_event(move |event| {
        told.add(event, clock.wall());
        if let Event::Halted(why) = event {
            ends.come(End::Halted(why.clone()));
        }
    });
    let ends = ending.clone();
    signals::end_with(move |name| ends.come(End::Signal(name)));

    let failed = |doing: &'static str| move |e: Error| Failure::device(doing, &e);
    let patience = Duration::from_nanos(config.hooks.limit.0);
    let hooks = Hooks::start(device, config.hooks, &news)
        .map_err(|e| Failure::storage("starting the thread of the hooks", &e))?;
    if superblock.peer == 0 && !superblock.fenced {
        // There is no other device that could have been forced to take over.
        device.resume_alone().map_err(failed("letting the device serve"))?;
    }
    let threads = Threads::start(device).map_err(failed("starting the device's threads"))?;
    for named in &names {
        eprintln!("afterimage: volume {}: {}", named.id, named.name);
    }
    let hosts =
        Arc::new(Hosts::start(&args.hosts, (config.hosts, patience), device, &names, &news)?);
    let line = PeerLine::start(
        dir,
        &args.line.over(config.link),
        (device, &threads),
        (superblock, names),
        &news,
    )?;
    eprintln!("afterimage: link {}", line.report());
    let desk =
        Arc::new(Orders { device: device.clone(), news, line, hosts: hosts.clone(), opened_at });
    let config::Control { see, operate, force } = config.control;
    let modes = [see, operate, force].map(|mode| mode.0);
    let control = Server::start(dir, Modes(modes), desk)
        .map_err(|e| Failure::storage(format!("opening sockets in {}", dir.display()), &e))?;
    eprintln!("afterimage: device {} of {} is open", device.geometry().device, dir.display());

    let end = ending.wait();
    // Orders end first, then hosts, then the background work.
    drop(control);
    drop(hosts);
    drop((threads, hooks));
    Ok(end)
}
