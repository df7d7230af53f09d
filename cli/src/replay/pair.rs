//! The pair under test: two devices, in directories or in memory, the line between them, their
//! background threads, and what they report while they run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Error;
use afterimage::internal::event::{Event, Status};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, Link, MemoryLink, memory_link};
use afterimage::internal::storage::{Directory, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::internal::unit::Stamp;
use afterimage::{Device, Forced, Image, LossSheet};

use super::meter::Track;
use super::plan;
use super::requests::{self, Listener, NAMES};
use crate::args::{JournalFull, PairMode, ReplayArgs};
use crate::exit::{Exit, Failure};
use crate::signals::{self, Guard};
use crate::trace::Trace;

/// A write waits for the journal as long as it takes: a full one slows a replay, no more.
const FOR_EVER_NS: u64 = u64::MAX / 4;

/// How long a remote read or a takeover waits for the peer, besides what the line takes.
const PATIENCE_NS: u64 = 60_000_000_000;

/// How long the two devices may take to find each other, besides what the line takes.
const CONNECT: Duration = Duration::from_secs(30);

/// Where the devices' files are.
enum Place {
    Memory,
    /// Removed at the end.
    Temporary {
        directory: tempfile::TempDir,
        _guard: Guard,
    },
    Kept {
        path: PathBuf,
        _guard: Guard,
    },
}

/// The events that a device has reported.
#[derive(Default)]
pub struct Watch {
    /// Shipping lag of every record acknowledged.
    lag: Mutex<Track>,
    /// Stamps whose acknowledgement by the peer is awaited, and when it came.
    awaited: Mutex<Vec<(Stamp, Option<u64>)>>,
    counted: Mutex<Counted>,
    line: Mutex<End>,
}

/// The records of a device that its peer has acknowledged.
#[derive(Default)]
struct Counted {
    /// How many.
    records: u64,
    /// Numbers of them that are awaited, and when each was reached.
    awaited: Vec<(u64, Option<u64>)>,
}

/// A device, and its background.
enum Standing {
    Open(Arc<Device>, Option<Threads>),
    /// Its site is lost; it stood so when it was.
    Lost(Box<Status>),
}

/// The forced takeover of a device.
pub struct ForcedTakeover {
    /// The last that the lost device had told this one of.
    pub told: Stamp,
    /// The newest record of the lost device that had come.
    pub received: Stamp,
    /// Everything that was given up.
    pub sheet: LossSheet,
    /// How long it took, with its opening of the device, in nanoseconds.
    pub force_ns: u64,
    /// How long the next opening took, of the same files, in nanoseconds.
    pub opening_ns: u64,
}

/// A device's end of the line.
#[derive(Default)]
struct End {
    /// The present link, which is to hold; none while the line is down.
    link: Option<Arc<dyn Link>>,
    /// When the device saw its connection end because the line went down.
    ended_at: Option<u64>,
    /// Why it gave a connection up that was to hold.
    lost: Option<String>,
}

/// Two devices that replicate. The first is A.
pub struct Pair {
    devices: [Standing; 2],
    /// The events that they reported.
    pub watches: [Arc<Watch>; 2],
    /// Their storage.
    pub storages: [Arc<dyn Storage>; 2],
    /// The clock of both, and of the host.
    pub clock: Arc<dyn Clock>,
    /// The listener to the host's requests and the devices' acknowledgements.
    pub listener: Arc<dyn Listener>,
    settings: Settings,
    line: Line,
    /// An end of the line in use; none while it is down.
    end: Mutex<Option<MemoryLink>>,
    place: Place,
}

impl Pair {
    /// Makes the devices that `args` ask for, large enough for `trace`, opens and connects them.
    pub fn new(
        args: &ReplayArgs,
        trace: &Trace,
        group: u128,
        listener: Arc<dyn Listener>,
    ) -> Result<Pair, Failure> {
        let place = Place::new(args)?;
        let mut storages: Vec<Arc<dyn Storage>> = Vec::new();
        for name in NAMES {
            storages.push(match place.directory(name) {
                None => Arc::new(Memory::new()),
                Some(path) => {
                    let doing = format_args!("making the device {}", path.display());
                    Arc::new(Directory::create(&path).map_err(|e| Failure::storage(doing, &e))?)
                }
            });
        }
        let storages = storages.try_into().ok().expect("two were made");
        let pair = Pair::on(storages, args, trace, group, listener)?;
        Ok(Pair { place, ..pair })
    }

    /// As [`Pair::new`], on storages without files.
    pub fn on(
        storages: [Arc<dyn Storage>; 2],
        args: &ReplayArgs,
        trace: &Trace,
        group: u128,
        listener: Arc<dyn Listener>,
    ) -> Result<Pair, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        // How long an outage takes is the trace's matter; if nothing moves after it, that is noticed.
        let patience = match args.outage.len() {
            0 => PATIENCE_NS + 8 * args.link_delay,
            _ => FOR_EVER_NS,
        };
        let settings = Settings {
            durability: args.durability.into(),
            admit_timeout_ns: FOR_EVER_NS,
            // The depth bounds what waits.
            waiting_bytes_max: u64::MAX,
            pacing_max_ns: args.pacing_max,
            remote_read_timeout_ns: patience,
            takeover_timeout_ns: patience,
            suspend_from_percent: match args.journal_full {
                JournalFull::Wait => 0,
                JournalFull::Suspend => Settings::default().suspend_from_percent,
            },
            ..Settings::default()
        };
        let volumes = (0u32..).zip(&trace.volumes);
        let volumes = volumes.map(|(id, volume)| VolumeSpec { id, bytes: volume.bytes }).collect();
        let geometry = Geometry {
            block_size: u32::try_from(args.block_size).unwrap_or(u32::MAX),
            journal_bytes: plan::journal_bytes(args, trace),
            differential: args.mode == PairMode::Differential,
            ..Geometry::new(group, 1, volumes)
        };
        let open = |at: usize| -> Result<Arc<Device>, Failure> {
            let name = NAMES[at];
            let geometry = Geometry { device: at as u64 + 1, ..geometry.clone() };
            Device::create(&*storages[at], &geometry, at == 0)
                .map_err(|e| Failure::device(format_args!("making device {name}"), &e))?;
            Device::open(storages[at].clone(), clock.clone(), settings.clone())
                .map_err(|e| Failure::device(format_args!("opening device {name}"), &e))
        };
        let devices = [Standing::Open(open(0)?, None), Standing::Open(open(1)?, None)];
        let watches = [Arc::new(Watch::default()), Arc::new(Watch::default())];
        let place = Place::Memory;
        let line = Line { rate: args.link_rate, delay_ns: args.link_delay };
        let end = Mutex::default();
        let mut pair =
            Pair { devices, watches, storages, clock, listener, settings, line, end, place };
        pair.connect()?;
        Ok(pair)
    }

    fn connect(&mut self) -> Result<(), Failure> {
        for at in [0, 1] {
            let device = self.device(at).clone();
            self.start(at, device)?;
        }
        self.restore()?;
        let ready = |pair: &Pair| {
            let [a, b] = pair.status();
            a.serving && b.connected
        };
        let began = self.clock.monotonic();
        while !ready(self) {
            if let Some(failure) = self.disconnected() {
                return Err(failure);
            }
            if self.clock.monotonic() > began + self.connect_ns() {
                let story = "the two devices are not connected in time; is --link-delay too long?";
                return Err(Failure::new(Exit::Device, story));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// The background of an opened device begins.
    fn start(&mut self, at: usize, device: Arc<Device>) -> Result<(), Failure> {
        let (watch, listener) = (self.watches[at].clone(), self.listener.clone());
        let clock = self.clock.clone();
        device.on_event(move |event| {
            if let Event::Acknowledged { records, .. } = event
                && let Some(&(stamp, _)) = records.last()
            {
                listener.note(&requests::Event::Acknowledged { at, stamp });
            }
            watch.note(event, &*clock);
        });
        let failed = |e| Failure::device(format_args!("starting device {}", NAMES[at]), &e);
        let threads = Threads::start(&device).map_err(failed)?;
        self.devices[at] = Standing::Open(device, Some(threads));
        Ok(())
    }

    /// A device whose site is not lost.
    pub fn device(&self, at: usize) -> &Arc<Device> {
        match &self.devices[at] {
            Standing::Open(device, _) => device,
            Standing::Lost(_) => unreachable!("the site of {} is lost", NAMES[at]),
        }
    }

    /// Whether the site of a device is lost.
    pub fn is_lost(&self, at: usize) -> bool {
        matches!(self.devices[at], Standing::Lost(_))
    }

    /// The site of a device is lost, with its process; the line has been cut. Its files stay. Sessions and
    /// tickets that hold the device must be dropped before it is opened again.
    pub fn lose(&mut self, at: usize) {
        let status = Box::new(self.device(at).status());
        self.devices[at] = Standing::Lost(status);
    }

    /// An operator closes a device whose peer is lost, forces it to take over with the loss accepted, and
    /// opens it again: it serves.
    pub fn force(&mut self, at: usize) -> Result<ForcedTakeover, Failure> {
        let failed =
            |doing, e: &Error| Failure::device(format_args!("{doing} device {}", NAMES[at]), e);
        let device = self.device(at).clone();
        self.devices[at] = Standing::Open(device.clone(), None);
        let Status { told, hi, differential, .. } = device.status();
        device.close().map_err(|e| failed("closing", &e))?;
        drop(device);
        // While a copy into it is under way there is no earlier state of the hosts' data in its volumes.
        let image = if differential.is_consistent { Image::Consistent } else { Image::Newest };
        let forced = Forced { image, accept_loss: true };
        let (storage, clock) = (self.storages[at].clone(), self.clock.clone());
        let began = clock.monotonic();
        let sheet = Device::force(storage, clock.clone(), self.settings.clone(), forced);
        let sheet = sheet.map_err(|e| failed("forcing", &e))?;
        let forced_at = clock.monotonic();
        self.open(at)?;
        let opening_ns = clock.monotonic() - forced_at;
        let force_ns = forced_at - began;
        Ok(ForcedTakeover { told, received: hi, sheet, force_ns, opening_ns })
    }

    /// Opens a device anew, and starts its background.
    pub fn open(&mut self, at: usize) -> Result<(), Failure> {
        let opened =
            Device::open(self.storages[at].clone(), self.clock.clone(), self.settings.clone());
        let failed = |e| Failure::device(format_args!("opening device {} again", NAMES[at]), &e);
        self.start(at, opened.map_err(failed)?)
    }

    /// How long the two devices may take to find each other, in nanoseconds.
    pub fn connect_ns(&self) -> u64 {
        (CONNECT.as_nanos() as u64).saturating_add(self.line.delay_ns.saturating_mul(8))
    }

    /// The line goes down: what is on its way is lost, and both devices see their connection end.
    pub fn cut(&self) {
        for watch in &self.watches {
            let mut line = lock(&watch.line);
            let lost = line.lost.take();
            *line = End { lost, ..End::default() };
        }
        if let Some(end) = lock(&self.end).take() {
            end.cut();
        }
    }

    /// There is a line, and both devices say hello over it, unless one is lost.
    pub fn restore(&self) -> Result<(), Failure> {
        if self.is_lost(0) || self.is_lost(1) {
            return Ok(());
        }
        let (end_a, end_b) = memory_link(self.line, self.clock.clone());
        *lock(&self.end) = Some(end_a.clone());
        let ends: [Arc<dyn Link>; 2] = [Arc::new(end_a), Arc::new(end_b)];
        for (watch, end) in self.watches.iter().zip(&ends) {
            lock(&watch.line).link = Some(end.clone());
        }
        for (at, end) in ends.into_iter().enumerate() {
            let failed = |e| Failure::device(format_args!("connecting device {}", NAMES[at]), &e);
            self.device(at).connect(end).map_err(failed)?;
        }
        Ok(())
    }

    /// When both devices had seen their connection end after the last [`Pair::cut`], if they have.
    pub fn ended_at(&self) -> Option<u64> {
        let [a, b] = self.watches.each_ref().map(|watch| lock(&watch.line).ended_at);
        a.zip(b).map(|(a, b)| a.max(b))
    }

    /// Where both stand; a lost one, where it stood when it was lost.
    pub fn status(&self) -> [Status; 2] {
        self.devices.each_ref().map(|device| match device {
            Standing::Open(device, _) => device.status(),
            Standing::Lost(status) => (**status).clone(),
        })
    }

    /// Why the devices lost each other, if they did: the line between them breaks only when it is cut
    /// ([`Pair::cut`]), so that is a failure of one of them, and the cause of most others.
    pub fn disconnected(&self) -> Option<Failure> {
        let stories = self.watches.iter().zip(NAMES).filter_map(|(watch, name)| {
            let why = lock(&watch.line).lost.clone()?;
            Some(format!("device {name} gave the connection up: {why}"))
        });
        let stories: Vec<String> = stories.collect();
        (!stories.is_empty()).then(|| Failure::new(Exit::Device, stories.join("; ")))
    }

    /// Stops the background and closes both devices.
    pub fn close(&mut self) -> Result<(), Failure> {
        for device in &mut self.devices {
            if let Standing::Open(_, threads) = device {
                drop(threads.take());
            }
        }
        for at in [0, 1] {
            let doing = format_args!("closing device {}", NAMES[at]);
            self.device(at).close().map_err(|e| Failure::device(doing, &e))?;
        }
        Ok(())
    }

    /// Keeps the devices' directories whatever was asked for; where they are, if anywhere.
    pub fn keep(&mut self) -> Option<PathBuf> {
        let place = std::mem::replace(&mut self.place, Place::Memory);
        let path = match place {
            Place::Memory => return None,
            Place::Temporary { directory, .. } => directory.keep(),
            Place::Kept { path, .. } => path,
        };
        self.place = Place::kept(path.clone());
        Some(path)
    }
}

impl Place {
    fn new(args: &ReplayArgs) -> Result<Place, Failure> {
        if args.memory {
            return Ok(Place::Memory);
        }
        let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let make = || {
            std::fs::create_dir_all(&parent)?;
            if args.keep {
                return Ok(Place::kept(parent.clone()));
            }
            let directory = tempfile::Builder::new().prefix("afterimage-").tempdir_in(&parent)?;
            let _guard = signals::removing(directory.path());
            Ok(Place::Temporary { directory, _guard })
        };
        let doing = format_args!("making a directory in {}", parent.display());
        make().map_err(|e| Failure::storage(doing, &e))
    }

    fn kept(path: PathBuf) -> Place {
        let [a, b] = NAMES.map(|name| path.join(name).display().to_string());
        let story =
            format!("the devices remain in {a} and {b}; `afterimage recover {a} {b}` closes them");
        Place::Kept { path, _guard: signals::saying(story) }
    }

    fn directory(&self, name: &str) -> Option<PathBuf> {
        match self {
            Place::Memory => None,
            Place::Temporary { directory, .. } => Some(directory.path().join(name)),
            Place::Kept { path, .. } => Some(path.join(name)),
        }
    }
}

impl Watch {
    fn note(&self, event: &Event, clock: &dyn Clock) {
        match event {
            Event::Acknowledged { records, at } => {
                let mut lag = lock(&self.lag);
                for (_, written_at) in records {
                    lag.record(at.saturating_sub(*written_at));
                }
                drop(lag);
                let newest = records.last().map_or(Stamp::ZERO, |(stamp, _)| *stamp);
                for (stamp, reached) in lock(&self.awaited).iter_mut() {
                    if *stamp <= newest {
                        reached.get_or_insert(*at);
                    }
                }
                let counted = &mut *lock(&self.counted);
                counted.records += records.len() as u64;
                for (number, reached) in &mut counted.awaited {
                    if *number <= counted.records {
                        reached.get_or_insert(*at);
                    }
                }
            }
            Event::Disconnected { link, why } => {
                let mut line = lock(&self.line);
                if line.link.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
                    line.lost.get_or_insert_with(|| why.to_string());
                } else {
                    line.ended_at.get_or_insert_with(|| clock.monotonic());
                }
            }
            _ => (),
        }
    }

    /// The shipping lag so far.
    pub fn lag(&self) -> MutexGuard<'_, Track> {
        lock(&self.lag)
    }

    /// Notes when the peer has acknowledged everything up to `stamp`; a name for
    /// [`Watch::acknowledged_at`]. `already`: the time now, if it has; asked after the note is
    /// made, so that neither way is missed.
    pub fn await_acknowledged(&self, stamp: Stamp, already: impl FnOnce() -> Option<u64>) -> usize {
        let name = {
            let mut awaited = lock(&self.awaited);
            awaited.push((stamp, None));
            awaited.len() - 1
        };
        if let Some(now) = already() {
            lock(&self.awaited)[name].1.get_or_insert(now);
        }
        name
    }

    /// Notes when the peer has acknowledged `records` more, which is `now` if there are none; a name
    /// for [`Watch::counted_at`].
    pub fn await_records(&self, records: u64, now: u64) -> usize {
        let counted = &mut *lock(&self.counted);
        counted.awaited.push((counted.records + records, (records == 0).then_some(now)));
        counted.awaited.len() - 1
    }

    /// When the peer had acknowledged so many records, if it has.
    pub fn counted_at(&self, name: usize) -> Option<u64> {
        lock(&self.counted).awaited[name].1
    }

    /// When the peer had acknowledged what was awaited, if it has.
    pub fn acknowledged_at(&self, name: usize) -> Option<u64> {
        lock(&self.awaited)[name].1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::requests::Nobody;
    use super::*;
    use crate::args::{Cli, Command};
    use crate::trace::{self, Options};
    use clap::Parser;

    /// A pair without files, for a trace of one write.
    fn in_memory() -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t.csv");
        std::fs::write(&file, "128166372003061629,hm,0,Write,0,4096,100\n").unwrap();
        let words = ["afterimage", "replay", "--memory", file.to_str().unwrap()];
        let Command::Replay(args) = Cli::parse_from(words).command else { panic!("replay") };
        let trace = trace::read(&args.traces, &Options::default()).unwrap();
        Pair::new(&args, &trace, 7, Arc::new(Nobody)).unwrap()
    }

    /// Whatever follows from it, a replay ends with this in its place.
    #[test]
    fn a_lost_connection_is_told_with_its_cause() {
        let mut pair = in_memory();
        assert!(pair.disconnected().is_none());
        let (end, _) = memory_link(Line::default(), pair.clock.clone());
        pair.device(1).connect(Arc::new(end)).unwrap();
        let story = pair.disconnected().expect("lost").to_string();
        let cause = "device b gave the connection up: the connection was given up for a new one";
        assert!(story.contains(cause), "{story}");
        pair.close().unwrap();
    }

    /// An outage is one for both devices, and no failure; a line that comes back is to hold again.
    #[test]
    fn both_devices_see_their_connection_end_and_come_back() {
        let mut pair = in_memory();
        let until = |pair: &Pair, holds: &dyn Fn(&Pair) -> bool| {
            while !holds(pair) {
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        for _ in 0..3 {
            pair.cut();
            until(&pair, &|pair| pair.ended_at().is_some());
            assert!(pair.status().iter().all(|s| !s.connected) && pair.disconnected().is_none());
            pair.restore().unwrap();
            until(&pair, &|pair| pair.status().iter().all(|s| s.connected));
        }
        assert!(pair.disconnected().is_none());
        pair.device(0)
            .connect(Arc::new(memory_link(Line::default(), pair.clock.clone()).0))
            .unwrap();
        assert!(pair.disconnected().is_some());
        pair.close().unwrap();
    }
}
