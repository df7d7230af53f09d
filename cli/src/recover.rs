//! `afterimage recover DIR [DIR]`: opens devices that were not closed, says what was found and cut,
//! and closes them; two of one pair are connected first, until both hold everything.
//!
//! # Rules
//! - **The engine recovers** (`Device::open_with`); here is only what a person is told of it.
//! - **Nothing is guessed**: what the engine refuses is left as it is, with the story of why.
//! - **Both are looked at before either is changed**: two devices are first opened and connected on
//!   storages whose changes stay in memory (`recover/rehearsal.rs`).
//! - **Nobody is served**: hosts stay where they are, and a device that was active stays it, to
//!   serve when it is next opened and may. Where neither is, and only one that is can send, the one that held the
//!   host last becomes it, and that is said.

mod rehearsal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::event::{Event, LogRecovery, Recovery, Status};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::{Directory, FileName, Storage};
use afterimage::internal::unit::Mode;

pub(crate) use self::rehearsal::Rehearsal;
use crate::exit::{Exit, Failure};
use crate::output::{bar, shown};
use crate::signals;
use crate::words::plural;

/// The devices to recover.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A device's directory
    #[arg(value_name = "DIR")]
    pub first: PathBuf,
    /// That of the other device of the pair: what either still owes the other is copied
    #[arg(value_name = "DIR")]
    pub second: Option<PathBuf>,
}

/// Opens, connects if there are two, and closes. The findings go to `out`.
///
/// # Errors
/// [`Exit::Refused`] for a device that is open elsewhere, [`Exit::Device`] for one that cannot be
/// opened, brought together or closed, [`Exit::Output`] if `out` fails.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let paths = || [Some(&args.first), args.second.as_ref()].into_iter().flatten();
    let mut directories = Vec::new();
    for path in paths() {
        look(path)?;
    }
    for path in paths() {
        let opened = Directory::open(path).map_err(|e| Failure::storage(opening(path), &e))?;
        directories.push((path.as_path(), Arc::new(opened)));
    }
    if let [first, second] = &directories[..] {
        rehearse([first, second], &clock)?;
    }
    let names: Vec<String> = paths().map(|path| path.display().to_string()).collect();
    let _guard = signals::saying(format!(
        "nothing is lost, and not all is closed; `afterimage recover {}` goes on",
        names.join(" ")
    ));
    let mut devices = Vec::new();
    for (path, directory) in directories {
        let device = open(path, directory, &clock)?;
        shown(write!(out, "{}", Story(path, &device)))?;
        devices.push((path, device));
    }
    if let [(a, first), (b, second)] = &devices[..] {
        let bar = bar(0, "records and blocks on their way");
        let together = bring_together([(a, first), (b, second)], clock, &mut |left| {
            bar.set_length(bar.length().unwrap_or(0).max(left));
            bar.set_position(bar.length().unwrap_or(0) - left);
        });
        bar.finish_and_clear();
        let given = together.map_err(|e| Failure::device("bringing the two together", &e))?;
        given.map_or(Ok(()), |given| shown(writeln!(out, "{given}")))?;
        shown(writeln!(out, "neither owes the other anything now"))?;
    }
    for (path, device) in &devices {
        let closed = device.close();
        closed.map_err(|e| Failure::device(format_args!("closing {}", path.display()), &e))?;
        shown(writeln!(out, "{}: closed cleanly", path.display()))?;
    }
    Ok(Exit::Held)
}

pub(crate) fn opening(path: &Path) -> String {
    format!("opening {}", path.display())
}

/// Looks whether a device is at `path`: a directory that is none is not even given a lock.
pub(crate) fn look(path: &Path) -> Result<(), Failure> {
    let opening = opening(path);
    crate::inspect::refuse_parent(path).map_err(|e| Failure::device(&opening, &e))?;
    let looked = Directory::open_read_only(path)
        .and_then(|d| Ok((d.length(FileName::Superblock)?, d.files()?)));
    let (superblock, files) = looked.map_err(|e| Failure::storage(&opening, &e))?;
    if superblock.is_none() && files.iter().all(|file| !matches!(file, FileName::Segment { .. })) {
        let story = format!(
            "{opening}: there is no superblock: this is no device, or one whose making was cut \
             short; then nothing was ever stored in it: remove it and make it again"
        );
        return Err(Failure::new(Exit::Device, story));
    }
    Ok(())
}

/// The settings of devices that are brought together: no host waits for room, so that what the other lacks
/// goes to it in order, and a suspended pair comes back as soon as it can.
pub fn settings() -> Settings {
    Settings { suspend_from_percent: 0, resume_order_after_ns: 0, ..Settings::default() }
}

fn open(
    path: &Path,
    storage: Arc<dyn Storage>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Device>, Failure> {
    let bar = bar(0, "bytes of the logs");
    let opened = Device::open_with(storage, clock.clone(), settings(), &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    opened.map_err(|e| Failure::device(opening(path), &e))
}

/// Opens both and lets them say hello, and changes neither: whatever is refused is refused here.
fn rehearse(
    directories: [&(&Path, Arc<Directory>); 2],
    clock: &Arc<dyn Clock>,
) -> Result<(), Failure> {
    let open = |(path, directory): &(&Path, Arc<Directory>)| {
        open(path, Arc::new(Rehearsal::over(directory.clone())), clock)
    };
    let [(a, _), (b, _)] = directories;
    let (first, second) = (open(directories[0])?, open(directories[1])?);
    let met = Meeting::of([(a, &first), (b, &second)], clock.clone());
    let met = met.and_then(|meeting| {
        while meeting.control()? {}
        meeting.given_up()
    });
    met.map_err(|e| Failure::device("bringing the two together", &e))
}

/// Two devices that are connected in this thread, each with its directory's name.
struct Meeting<'a> {
    devices: [(&'a Path, &'a Arc<Device>); 2],
    /// The first reason for which either gave up, with its name.
    lost: Arc<Mutex<Option<Error>>>,
}

impl<'a> Meeting<'a> {
    fn of(
        devices: [(&'a Path, &'a Arc<Device>); 2],
        clock: Arc<dyn Clock>,
    ) -> Result<Meeting<'a>, Error> {
        let lost: Arc<Mutex<Option<Error>>> = Arc::default();
        let (first, second) = memory_link(Line::default(), clock);
        for ((path, device), end) in devices.into_iter().zip([first, second]) {
            let (lost, name) = (lost.clone(), path.to_owned());
            device.on_event(move |event| {
                if let Event::Disconnected { why, .. } | Event::Halted(why) = event {
                    let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
                    lost.get_or_insert_with(|| named(&name, (*why).clone()));
                }
            });
            device.connect(Arc::new(end)).map_err(|e| named(path, e))?;
        }
        Ok(Meeting { devices, lost })
    }

    /// Calls `step` with both; whether either has moved.
    fn both(&self, step: impl Fn(&Device) -> Result<bool, Error>) -> Result<bool, Error> {
        let mut moved = false;
        for (path, device) in self.devices {
            moved |= step(device).map_err(|e| named(path, e))?;
        }
        Ok(moved)
    }

    fn control(&self) -> Result<bool, Error> {
        self.both(|device| device.step_control())
    }

    /// An error if either has given the other up.
    fn given_up(&self) -> Result<(), Error> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Records and blocks that a device has to send or to write to its volumes.
fn left(status: &Status) -> u64 {
    status.backlog_records + status.unreflected_records + status.differential.table_blocks
}

/// An error with the directory that it speaks of.
fn named(path: &Path, error: Error) -> Error {
    let kind = error.kind();
    error.because(kind, path.display())
}

/// A device that was given the host, as neither of the two had it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its directory's name.
    pub path: PathBuf,
    why: String,
}

/// The one of two devices that held the host last, or else the first; `last` are their last tenures.
fn held_last(last: [u64; 2]) -> (usize, String) {
    match last {
        [first, second] if first == second => {
            (0, format!("as it was named first, and both held it last in tenure {first}"))
        }
        [first, second] => {
            let at = usize::from(second > first);
            let (tenure, other) = (last[at], last[1 - at]);
            (at, format!("as it held it last, in tenure {tenure}, and the other one in {other}"))
        }
    }
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Given { path, why } = self;
        write!(f, "neither held the host: {} does from now on, {why}", path.display())
    }
}

/// Connects two devices of a pair, each with its directory's name, in this thread and moves everything that either
/// owes the other, until both are at rest: in ordered mode, or level, as a differential group is. `progress` is
/// told how many records and blocks are left. Returns the device that was given the host, if one had to be.
///
/// # Errors
/// [`Kind::Protocol`] if they do not belong together or one has lost records; those of the steps.
pub fn bring_together(
    devices: [(&Path, &Arc<Device>); 2],
    clock: Arc<dyn Clock>,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Given>, Error> {
    let meeting = Meeting::of(devices, clock)?;
    let is_differential = devices[0].1.geometry().differential;
    let rests = |s: &Status| match is_differential {
        false => s.mode == Mode::Ordered,
        true if s.serving => s.differential.is_level,
        true => s.differential.is_consistent,
    };
    let tenures = || devices.map(|(_, device)| device.status().last_active);
    let (mut idle, before, mut asked) = (0, tenures(), None);
    loop {
        let moved = meeting.both(|device| {
            let mut moved = device.step_control()?;
            device.step_commit_due()?;
            moved |= device.step_ladder()?;
            moved |= device.step_ship()? > 0;
            moved |= device.step_receive()? > 0;
            moved |= device.step_reflect()? > 0;
            Ok(moved)
        })?;
        meeting.given_up()?;
        let status = devices.map(|(_, device)| device.status());
        progress(status.iter().map(left).sum());
        let at_rest = |s: &Status| s.connected && rests(s) && left(s) + s.owed_blocks == 0;
        idle = if moved { 0 } else { idle + 1 };
        match idle {
            0 => {}
            _ if status.iter().all(at_rest) => {
                let taken = tenures().into_iter().zip(before).position(|(now, then)| now > then);
                return Ok(taken.map(|at| Given {
                    path: devices[at].0.to_owned(),
                    why: asked.unwrap_or_else(|| {
                        "which it asked for by itself: its policy is to be preferred, or it was \
                         catching up"
                            .into()
                    }),
                }));
            }
            // Records that have not moved may wait for places, and those come with a checkpoint.
            1 | 2 => drop(meeting.both(|device| device.checkpoint_now().map(|()| true))?),
            // By bits only a device sends that serves.
            _ if asked.is_none() && status.iter().all(|s| !s.serving) => {
                let (at, why) = held_last(tenures());
                let (path, device) = devices[at];
                device.begin_takeover().map_err(|e| named(path, e))?;
                (idle, asked) = (0, Some(why));
            }
            _ => {
                let story = format!("the two devices do not come to rest: {status:?}");
                return Err(Error::new(Kind::Protocol, story));
            }
        }
    }
}

/// The recovery of a device, in words.
struct Story<'a>(&'a Path, &'a Arc<Device>);

impl std::fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Story(path, device) = self;
        let Recovery { clean, lost_writes, superblock_repaired, own, recv, .. } = device.recovery();
        let number = device.geometry().device;
        let state = if *clean { "was closed cleanly" } else { "was NOT closed cleanly" };
        writeln!(f, "{}: device {number}, {state}", path.display())?;
        for (name, LogRecovery { live_records, cut_records, .. }) in
            [(FileName::OwnLog, own), (FileName::RecvLog, recv)]
        {
            write!(f, "  {name}: {}", plural(*live_records, "live record"))?;
            match cut_records {
                0 => writeln!(f)?,
                _ => writeln!(f, ", {cut_records} cut off that had not been made durable")?,
            }
        }
        if *lost_writes {
            writeln!(f, "  completed writes that no flush covered may be lost")?;
        }
        if let Some(what) = superblock_repaired {
            writeln!(f, "  {}: {what}; written anew", FileName::Superblock)?;
        }
        match device.session() {
            Ok(session) => writeln!(f, "  it may serve, in epoch {}", session.epoch()),
            Err(why) => writeln!(f, "  it may not serve: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::held_last;

    #[test]
    fn the_one_that_held_the_host_last_has_it_and_of_two_the_first() {
        assert_eq!([[3, 2], [2, 3], [0, 0], [2, 2]].map(|last| held_last(last).0), [0, 1, 0, 0]);
        let (_, why) = held_last([2, 3]);
        assert!(why.contains("in tenure 3, and the other one in 2"), "{why}");
    }
}
