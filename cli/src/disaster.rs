//! `afterimage force`, `resolve` and `forget-peer`: what an operator decides about a device directory that
//! no process has open, when the other device is gone or has gone its own way (D10).
//!
//! # Rules
//! - **The engine decides and changes** (`Device::force`, `Closed`); here is only what a person is told.
//! - **A dry run unless `--yes`**: it is made on a storage whose changes stay in memory.
//! - **The direction of data comes first**, before anything is changed.
//! - **The loss sheet is a file before the device is forced**: a force that no file tells of is not made.

mod branches;
mod sheet;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::failover::Closed;
use afterimage::{
    Branch, BranchSheet, Device, Directory, Forced, Image, Settings, Stamp, Storage, SystemClock,
};

use self::branches::Shown;
use self::sheet::Sheet;
use crate::exit::{Exit, Failure};
use crate::output::{self, shown};
use crate::recover::{self, Rehearsal};
use crate::service::pairing;
use crate::words::moment;

/// The device that is to be forced, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct ForceArgs {
    /// The device.
    #[command(flatten)]
    pub device: Args,

    /// Serve each block as new as it is here, though together they may be a state that the hosts' data
    /// never had
    #[arg(long, conflicts_with = "image")]
    pub newest: bool,

    /// Serve this state: `consistent`, the newest that the hosts' data had, as without a choice; `last`, the one
    /// before a resync into the device, from its side file; `newest`, as --newest
    #[arg(long, value_enum, value_name = "IMAGE")]
    pub image: Option<Choice>,

    /// Accept the loss as well: hosts are let in by the next opening, without `accept-loss`
    #[arg(long)]
    pub accept_loss: bool,

    /// Print the loss sheet as JSON, as in its file
    #[arg(long)]
    pub json: bool,
}

/// The state that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The newest consistent one.
    Consistent,
    /// The last consistent one.
    Last,
    /// Each block as new as it is.
    Newest,
}

/// A device, and whether it is changed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The device's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Do it; without this, what would be done is said and nothing is changed
    #[arg(long)]
    pub yes: bool,
}

/// The device whose history is kept, and the other one.
#[derive(Clone, Debug, clap::Args)]
pub struct ResolveArgs {
    /// The device whose history is kept.
    #[command(flatten)]
    pub device: Args,

    /// The directory of the other device, if it is at hand: what its history has is shown beside; it is not changed
    #[arg(value_name = "OTHER")]
    pub other: Option<PathBuf>,
}

const NOTHING: &str = "nothing was changed; --yes does it";

/// Forces the device to take over: the other one does not answer, and no host uses it.
///
/// # Errors
/// [`Exit::Absent`] if it needs no force, [`Exit::Inconsistent`] if it has no state to offer that the hosts'
/// data ever had, [`Exit::SalvageFull`]; [`Exit::Refused`] if it is open elsewhere, [`Exit::Device`] if there
/// is none or it fails, [`Exit::Output`] if the sheet cannot be written: nothing is forced then.
pub fn force(args: &ForceArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Args { dir, yes } = &args.device;
    let directory = open(dir)?;
    let image = match args.image {
        Some(Choice::Newest) => Image::Newest,
        Some(Choice::Last) => Image::Last,
        _ if args.newest => Image::Newest,
        _ => Image::Consistent,
    };
    let sheet = {
        let refused = |exit| {
            move |error: Error| match error.kind() {
                Kind::Invalid => story(exit, dir, &error),
                _ => Failure::device(dir.display(), &error),
            }
        };
        let sheet = |image| {
            let (over, clock) = (rehearsal(&directory), Arc::new(SystemClock::default()));
            Device::sheet_of_force(over, clock, settings(), image)
        };
        match image {
            // The newest content is there always: what refuses it needs no force.
            Image::Newest => sheet(image).map_err(refused(Exit::Absent))?,
            _ => {
                let device = rehearsed(dir, &directory)?;
                device.loss_sheet(Image::Newest).map_err(refused(Exit::Absent))?;
                device.loss_sheet(image).map_err(refused(Exit::Inconsistent))?
            }
        }
    };
    let (sheet, given_up) = (Sheet::of(&sheet), sheet.image_given_up);
    let number = sheet.lineage + 1;
    shown(match args.json {
        true => output::json(&sheet, out),
        false => write!(out, "{}: {sheet}", dir.display()),
    })?;
    // A document stays one.
    let mut say = |line: String| match args.json {
        true => shown(writeln!(io::stderr(), "{line}")),
        false => shown(writeln!(out, "{line}")),
    };
    if let Some(what) = given_up {
        say(format!("the last consistent image is given up: {what}"))?;
    }
    if !yes {
        say(format!(
            "{NOTHING}, and writes this sheet to {}",
            named(dir, number, "txt").display()
        ))?;
        return Ok(Exit::Held);
    }
    let forced = Forced { image, accept_loss: args.accept_loss };
    if let Err(error) = write_sheet(dir, number, &sheet) {
        return Err(Failure::output(named(dir, number, "json").display(), &error));
    }
    let done = Device::force(directory, Arc::new(SystemClock::default()), settings(), forced);
    if let Err(error) = done {
        remove_sheet(dir, number);
        return Err(match error.kind() {
            Kind::Protocol => story(Exit::SalvageFull, dir, &error),
            _ => Failure::device(dir.display(), &error),
        });
    }
    say(format!("forced: its next opening serves, as lineage {number}"))?;
    let sheets = ["txt", "json"].map(|kind| named(dir, number, kind).display().to_string());
    say(format!("the loss sheet is in {} and {}", sheets[0], sheets[1]))?;
    if !args.accept_loss {
        let how = "`Device::accept_loss` where it is opened, or --accept-loss with the force";
        say(format!("hosts are refused until the loss is accepted: {how}"))?;
    }
    Ok(Exit::Held)
}

/// Keeps the history of this device, of two that have parted.
///
/// # Errors
/// [`Exit::Absent`] if it has met no other branch, or the other directory's device has not that branch; else as
/// [`force`], for either directory.
pub fn resolve(args: &ResolveArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Args { dir, yes } = &args.device;
    let directory = open(dir)?;
    let clock = || Arc::new(SystemClock::default());
    let this = branch(dir, &directory)?;
    let refused = |error: Error| match error.kind() {
        Kind::Invalid => story(Exit::Absent, dir, &error),
        _ => Failure::device(dir.display(), &error),
    };
    let over = Arc::new(Rehearsal::over(directory.clone()));
    let other = Closed::resolve(over, clock(), settings()).map_err(refused)?;
    let beside = match &args.other {
        None => None,
        Some(path) => {
            let found = branch(path, &open(path)?)?;
            if (found.device, found.lineage) != (other.device, other.lineage) {
                let what = format!(
                    "{}: its device is {}, of lineage {}.{:x}, but {} met device {}, of lineage {}.{:x}",
                    path.display(),
                    found.device,
                    found.lineage.0,
                    found.lineage.1,
                    dir.display(),
                    other.device,
                    other.lineage.0,
                    other.lineage.1
                );
                return Err(Failure::new(Exit::Absent, what));
            }
            Some(found)
        }
    };
    let say = |out: &mut dyn Write| {
        writeln!(out, "{}: two histories have parted", dir.display())?;
        write!(out, "  kept: {}", Shown(&this))?;
        match &beside {
            Some(branch) => write!(out, "  given up: {}", Shown(branch))?,
            None => {
                let Branch { device, lineage: (number, id), epoch, newest } = other;
                writeln!(
                    out,
                    "  given up: device {device}, lineage {number} ({id:016x}), tenure {epoch}"
                )?;
                let newest = recorded(newest);
                writeln!(
                    out,
                    "    its newest own record, as it said when they last met: {newest}"
                )?;
                writeln!(
                    out,
                    "    its blocks are known to it alone: with its directory, too, they are shown here"
                )?;
            }
        }
        writeln!(
            out,
            "  data go from device {} to device {}, which keeps what it alone has as salvage first",
            this.device, other.device
        )
    };
    shown(say(out))?;
    if !yes {
        return shown(writeln!(out, "{NOTHING}")).map(|()| Exit::Held);
    }
    Closed::resolve(directory, clock(), settings()).map_err(refused)?;
    shown(writeln!(
        out,
        "resolved: its next opening serves, and the other follows when they meet"
    ))?;
    Ok(Exit::Held)
}

/// Forgets the peer: another device, made anew, takes its place.
///
/// # Errors
/// [`Exit::Fenced`] if the peer holds the host, or owes it something; else as [`force`].
pub fn forget_peer(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let dir = &args.dir;
    let directory = open(dir)?;
    let clock = || Arc::new(SystemClock::default());
    let refused = |error: Error| match error.kind() {
        Kind::Invalid => story(Exit::Fenced, dir, &error),
        _ => Failure::device(dir.display(), &error),
    };
    let over = Arc::new(Rehearsal::over(directory.clone()));
    let peer = Closed::forget_peer(over, clock(), settings()).map_err(refused)?;
    let say = |out: &mut dyn Write| {
        match peer {
            0 => writeln!(out, "{}: it has met no peer", dir.display())?,
            peer => writeln!(out, "{}: device {peer} is refused from now on", dir.display())?,
        }
        writeln!(out, "  data go from here to the next device that connects: every block")
    };
    shown(say(out))?;
    if !args.yes {
        return shown(writeln!(out, "{NOTHING}")).map(|()| Exit::Held);
    }
    // A hello's number is only a claim: the key goes first.
    let unpinned = pairing::forget(dir);
    unpinned.map_err(|e| Failure::storage(format!("{}: its pin", dir.display()), &e))?;
    Closed::forget_peer(directory, clock(), settings()).map_err(refused)?;
    shown(writeln!(out, "forgotten: its next opening serves alone"))?;
    Ok(Exit::Held)
}

fn settings() -> Settings {
    Settings::default()
}

/// The files of the device in `dir`, which no process has open.
fn open(dir: &Path) -> Result<Arc<Directory>, Failure> {
    recover::look(dir)?;
    let opened = Directory::open(dir);
    opened.map(Arc::new).map_err(|e| Failure::storage(recover::opening(dir), &e))
}

fn rehearsal(directory: &Arc<Directory>) -> Arc<dyn Storage> {
    Arc::new(Rehearsal::over(directory.clone()))
}

/// The device, opened with nothing changed on the disk.
fn rehearsed(dir: &Path, directory: &Arc<Directory>) -> Result<Arc<Device>, Failure> {
    let device = Device::open(rehearsal(directory), Arc::new(SystemClock::default()), settings());
    device.map_err(|e| Failure::device(recover::opening(dir), &e))
}

/// The device's own branch of two that have parted.
fn branch(dir: &Path, directory: &Arc<Directory>) -> Result<BranchSheet, Failure> {
    let branch = rehearsed(dir, directory)?.branch();
    branch.map_err(|e| Failure::device(dir.display(), &e))
}

fn story(exit: Exit, dir: &Path, error: &Error) -> Failure {
    Failure::new(exit, format!("{}: {error}", dir.display()))
}

/// A record, with its wall time.
fn recorded(stamp: Stamp) -> String {
    match stamp {
        Stamp::ZERO => "none".into(),
        stamp => format!("{stamp}, {}", moment(stamp.time)),
    }
}

/// The file of the loss sheet of lineage `number`.
fn named(dir: &Path, number: u64, kind: &str) -> PathBuf {
    dir.join(format!("loss-{number}.{kind}"))
}

fn write_sheet(dir: &Path, number: u64, sheet: &Sheet) -> io::Result<()> {
    let mut json = Vec::new();
    output::json(sheet, &mut json)?;
    for (kind, bytes) in [("json", json), ("txt", sheet.to_string().into_bytes())] {
        let mut file = std::fs::File::create(named(dir, number, kind))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
    }
    std::fs::File::open(dir)?.sync_all()
}

fn remove_sheet(dir: &Path, number: u64) {
    for kind in ["json", "txt"] {
        // Nothing was forced: a sheet that stays says more than it should, and no more.
        let _ = std::fs::remove_file(named(dir, number, kind));
    }
}
