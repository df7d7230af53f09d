//! A running service: a device that is open, all that works on it, and what stays when it is closed and opened again.
//!
//! A change that the engine makes of a closed device only (a force, a history that is kept, a peer that is forgotten) is
//! made by [`Service::change`]. The sockets stay, for orders and hosts and the peer; hosts that have opened an export are
//! hung up on, and those that are about to, wait.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage::internal::superblock;
use afterimage::{Clock, Device, Directory, Error, Event, Settings, SystemClock, Threads};

use super::absence::Absence;
use super::config::Config;
use super::control::server::{Caller, Desk};
use super::control::wire::{Order, Said};
use super::course::Course;
use super::hooks::Hooks;
use super::hosts::Hosts;
use super::line::PeerLine;
use super::news::News;
use super::orders::Orders;
use super::serve::Args;
use super::sockets::Access;
use super::volumes;
use crate::exit::{Exit, Failure};
use crate::nbd::Listener;
use crate::recover;

/// The service of one device.
pub struct Service {
    dir: PathBuf,
    settings: Settings,
    access: [Access; 3],
    ends: Arc<dyn Fn(Error) + Send + Sync>,
    news: Arc<News>,
    hooks: Hooks,
    hosts: Arc<Hosts>,
    line: Arc<PeerLine>,
    course: Arc<Course>,
    /// Wall time of the start, in nanoseconds since 1970.
    begun_at: u64,
    /// How far the peer may be behind, in nanoseconds, as an operator wants it.
    target_ns: Option<u64>,
    /// For so long there must have been no host before it is offered to the peer; 0: it never is.
    handover_after: Duration,
    /// Orders that were refused.
    refused: AtomicU64,
    /// `None`: the service stops.
    open: Mutex<Option<Open>>,
    /// The same for each opening: until it is dropped, which comes last, no other process has the device.
    directory: Arc<Directory>,
}

/// The device while it is open. Dropped, its threads stop.
struct Open {
    orders: Arc<Orders>,
    absence: Option<Absence>,
    threads: Threads,
}

impl Service {
    /// Opens the device in `dir` and begins all that it does, as `args` and `config` say, at the sockets that systemd has
    /// `passed`, too; `ends` is told if it stops for good.
    ///
    /// # Errors
    /// [`Exit::Device`] if there is no device or it fails; [`Exit::Usage`] for settings that cannot be.
    pub fn start(
        dir: &Path,
        (directory, passed): (Arc<Directory>, Vec<Listener>),
        args: &Args,
        config: Config,
        ends: impl Fn(Error) + Send + Sync + 'static,
    ) -> Result<Arc<Service>, Failure> {
        let opening = recover::opening(dir);
        let superblock =
            superblock::load(&*directory).map_err(|e| Failure::device(&opening, &e))?;
        let ids = superblock.volumes.iter().map(|volume| volume.id);
        let names = volumes::read(dir, ids).map_err(|what| Failure::new(Exit::Device, what))?;
        let settings = config.engine(&names);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let device = Device::open(directory.clone(), clock, settings.clone())
            .map_err(|e| Failure::device(&opening, &e))?;
        let begin = || -> Result<Arc<Service>, Failure> {
            for named in &names {
                tracing::info!(target: "afterimage", "volume {}: {}", named.id, named.name);
            }
            let news = Arc::new(News::default());
            let patience = Duration::from_nanos(config.hooks.limit.0);
            let hooks = Hooks::start(config.hooks, &news)
                .map_err(|e| Failure::storage("starting the thread of the hooks", &e))?;
            let handover_after = Duration::from_nanos(config.hosts.handover_after.0);
            let of_hosts = (config.hosts, patience);
            let hosts = Hosts::start(&args.hosts, passed, of_hosts, &device, &names, &news)?;
            let target_ns = config.link.recovery_point.map(|time| time.0);
            let line = &args.line.over(config.link);
            let line = Arc::new(PeerLine::new(dir, line, (superblock.clone(), names))?);
            let service = Service {
                dir: dir.into(),
                directory,
                settings,
                access: config.control.access(),
                ends: Arc::new(ends),
                news,
                hooks,
                hosts: Arc::new(hosts),
                line,
                course: Arc::new(Course::new(&device)),
                begun_at: device.clock().wall(),
                target_ns,
                handover_after,
                refused: AtomicU64::new(0),
                open: Mutex::default(),
            };
            let service = Arc::new(service);
            let open = service.begin(&device)?;
            *service.lock() = Some(open);
            tracing::info!(target: "afterimage", "link {}", service.line.report());
            let number = superblock.device;
            tracing::info!(target: "afterimage", "device {number} of {} is open", dir.display());
            Ok(service)
        };
        begin().inspect_err(|_| {
            // The failure counts.
            let _ = device.close();
        })
    }

    /// Begins all that works on `device`, which was opened just now.
    fn begin(self: &Arc<Self>, device: &Arc<Device>) -> Result<Open, Failure> {
        let failed = |doing: &'static str| move |e: Error| Failure::device(doing, &e);
        let superblock =
            superblock::load(&*self.directory).map_err(failed("reading the device"))?;
        let clock = device.clock().clone();
        let opened_at = clock.monotonic();
        let (news, ends) = (self.news.clone(), self.ends.clone());
        device.on_event(move |event| {
            news.add(event, clock.wall());
            if let Event::Halted(why) = event {
                ends(why.clone());
            }
        });
        self.course.follow(device);
        self.hooks.follow(device);
        let status = device.status();
        if status.serving {
            // The engine tells this to those alone that were there before the opening.
            let ready = Event::Ready { epoch: status.epoch, owed_blocks: status.owed_blocks };
            self.news.add(&ready, device.clock().wall());
            self.course.tell(&ready, device.clock().wall());
        }
        if superblock.peer == 0 && !superblock.fenced && !superblock.fenced_here {
            // There is no other device that could have been forced to take over.
            device.resume_alone().map_err(failed("letting the device serve"))?;
        }
        let threads = Threads::start(device).map_err(failed("starting the device's threads"))?;
        let absence = match self.handover_after {
            Duration::ZERO => None,
            most => Some(
                Absence::start(most, device, &self.hosts, &self.news)
                    .map_err(|e| Failure::storage("starting the watch on hosts", &e))?,
            ),
        };
        self.line.keep((device, &threads), superblock, &self.news)?;
        let orders = Arc::new(Orders {
            device: device.clone(),
            news: self.news.clone(),
            line: self.line.clone(),
            hosts: self.hosts.clone(),
            opened_at,
            service: Arc::downgrade(self),
            course: self.course.clone(),
            target_ns: self.target_ns,
            last_ready_ns: AtomicU64::new(0),
        });
        Ok(Open { orders, absence, threads })
    }

    /// The device's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its files.
    pub(super) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Wall time of the start, in nanoseconds since 1970.
    pub(super) fn begun_at(&self) -> u64 {
        self.begun_at
    }

    /// How many orders were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Those who may connect to the sockets for orders.
    pub fn access(&self) -> &[Access; 3] {
        &self.access
    }

    /// The device as it is open now; while it is being changed this waits.
    ///
    /// # Errors
    /// [`Exit::Absent`] if the service stops.
    pub(super) fn orders(&self) -> Result<Arc<Orders>, Failure> {
        let open = self.lock();
        open.as_ref().map(|open| open.orders.clone()).ok_or_else(stops)
    }

    /// As [`Service::orders`], but for `None` while the device is being changed.
    pub(super) fn orders_now(&self) -> Option<Arc<Orders>> {
        let open = self.open.try_lock().ok()?;
        open.as_ref().map(|open| open.orders.clone())
    }

    /// Ends the watch on hosts: that they are gone moves nothing any more.
    pub(super) fn expect_no_hosts(&self) {
        let watch = self.lock().as_mut().and_then(|open| open.absence.take());
        drop(watch);
    }

    /// Closes `device`, has `change` do something with its directory, and opens it again, whatever came of that. Before the
    /// device is closed, and when neither hosts nor the peer have anything to do with it any more, `look` finds out from
    /// it what `change` needs.
    ///
    /// # Errors
    /// Those of `look` and `change`; [`Exit::Refused`] if the device was opened again meanwhile; [`Exit::Absent`] if the service stops; [`Exit::Device`] if the device cannot be
    /// closed or opened: then the service ends.
    pub(super) fn change<L, T>(
        self: &Arc<Self>,
        device: &Arc<Device>,
        look: impl FnOnce() -> Result<L, Failure>,
        change: impl FnOnce(L, &Arc<Directory>, Settings) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut held = self.lock();
        let present = held.as_ref().ok_or_else(stops)?;
        if !Arc::ptr_eq(&present.orders.device, device) {
            let what = "the device was changed and opened again meanwhile: look at it before the next change";
            return Err(Failure::new(Exit::Refused, what));
        }
        let unwinds = Unwinds(&self.ends);
        self.hosts.release();
        *held = None;
        let found = look();
        // A device that fails has told so, and the service ends by it.
        device.close().map_err(|e| Failure::device("closing the device", &e))?;
        let changed = found.and_then(|found| change(found, &self.directory, self.settings.clone()));
        let opened =
            Device::open(self.directory.clone(), device.clock().clone(), self.settings.clone());
        let opened = opened.map_err(|e| {
            (self.ends)(e.clone());
            Failure::device("opening the device again", &e)
        })?;
        *held = Some(self.begin(&opened).inspect_err(|failure| {
            let _ = opened.close();
            let why = Error::new(afterimage::Kind::Halted, failure.to_string());
            (self.ends)(why);
        })?);
        self.hosts.serve(&opened);
        std::mem::forget(unwinds);
        changed
    }

    /// Ends it all, and closes the device.
    ///
    /// # Errors
    /// The engine's, if the device cannot be closed cleanly.
    pub fn stop(&self) -> afterimage::Result<()> {
        let Some(Open { orders, absence, threads }) = self.lock().take() else { return Ok(()) };
        drop(absence);
        self.hosts.release();
        drop(threads);
        orders.device.close()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped while a change of the device fails or unwinds, it ends the service: the device is closed.
struct Unwinds<'a>(&'a Arc<dyn Fn(Error) + Send + Sync>);

impl Drop for Unwinds<'_> {
    fn drop(&mut self) {
        let what = "the device was closed to be changed, and was not opened again";
        (self.0)(Error::new(afterimage::Kind::Halted, what));
    }
}

pub(super) fn stops() -> Failure {
    Failure::new(Exit::Absent, "the service stops")
}

impl Desk for Service {
    fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn carry_out(&self, order: Order, caller: &mut Caller) -> Result<Said, Failure> {
        self.orders()?.carry_out(order, caller)
    }
}
