//! `afterimage serve`: the device opened, its threads, its sockets, until it is stopped.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use afterimage::{Directory, Error};

use super::config::Config;
use super::control::server::Server;
use super::hosts::HostArgs;
use super::line::LineArgs;
use super::pairing;
use super::running::Service;
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
    let ending = Arc::new(Ending::default());
    let ends = ending.clone();
    let service =
        Service::start(dir, Arc::new(directory), args, config, move |why| ends.halt(why))?;
    let ends = ending.clone();
    signals::end_with(move |name| ends.signal(name));
    let ended = keep(&service, &ending);
    // A failure leaves the device as closed as an end does: no host is to answer for it.
    let closed = service.stop();
    match ended? {
        End::Halted(why) => Err(Failure::device(dir.display(), &why)),
        End::Signal(name) => {
            closed.map_err(|e| Failure::device("closing the device", &e))?;
            eprintln!("afterimage: closed cleanly, after {name}");
            Ok(Exit::Held)
        }
    }
}

/// Runs all that a service has beside its device, until its end comes.
fn keep(service: &Arc<Service>, ending: &Ending) -> Result<End, Failure> {
    let control = Server::start(service.dir(), service.modes(), service.clone()).map_err(|e| {
        Failure::storage(format!("opening sockets in {}", service.dir().display()), &e)
    })?;
    let end = ending.wait();
    // Orders end first, then hosts, then the background work.
    drop(control);
    Ok(end)
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

    fn wait(&self) -> End {
        let held = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.come.wait_while(held, |end| end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).take().expect("it has come")
    }
}
