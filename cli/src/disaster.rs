//! `afterimage force`, `resolve` and `forget-peer`: what an operator decides about a device directory that
//! no process has open, when the other device is gone or has gone its own way (D10). A service does the same with the
//! device that it serves, by the same words (`service/worst.rs`).
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
    Branch, BranchSheet, Device, Directory, Forced, Image, LossSheet, Settings, Stamp, Storage,
    SystemClock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::branches::Shown;
pub(crate) use self::sheet::Sheet;
use crate::exit::{Exit, Failure};
use crate::output::{self, shown};
use crate::recover::{self, Rehearsal};
use crate::service::control::wire::Said;
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
}

impl ForceArgs {
    /// The state that is asked for.
    pub fn choice(&self) -> Choice {
        let otherwise = if self.newest { Choice::Newest } else { Choice::Consistent };
        self.image.unwrap_or(otherwise)
    }
}

/// The state that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The newest consistent one.
    Consistent,
    /// The last consistent one.
    Last,
    /// Each block as new as it is.
    Newest,
}

impl Choice {
    /// The engine's word.
    pub fn image(self) -> Image {
        match self {
            Choice::Consistent => Image::Consistent,
            Choice::Last => Image::Last,
            Choice::Newest => Image::Newest,
        }
    }
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

    /// Print JSON instead of text (docs/operations.md)
    #[arg(long)]
    pub json: bool,
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

    /// The number of the device whose history is to be kept: if it is not this one's, nothing is done
    #[arg(long, value_name = "DEVICE")]
    pub keep: Option<u64>,
}

pub(crate) const NOTHING: &str = "nothing was changed; --yes does it";

/// Forces the device to take over: the other one does not answer, and no host uses it.
///
/// # Errors
/// [`Exit::Absent`] if it needs no force, [`Exit::Inconsistent`] if it has no state to offer that the hosts'
/// data ever had, [`Exit::SalvageFull`]; [`Exit::Refused`] if it is open elsewhere, [`Exit::Device`] if there
/// is none or it fails, [`Exit::Output`] if the sheet cannot be written: nothing is forced then.
pub fn force(args: &ForceArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Args { dir, yes, json } = &args.device;
    let within = |failure: Failure| failure.within(dir.display());
    let directory = open(dir)?;
    let image = args.choice().image();
    let found = loss(&directory, &settings(), image).map_err(within)?;
    let (sheet, given_up) = (Sheet::of(&found), &found.image_given_up);
    shown(match json {
        true => output::json(&sheet, out),
        false => write!(out, "{}: {}", dir.display(), sheet.brief()),
    })?;
    // A document stays one.
    let mut say = |line: String| match json {
        true => shown(writeln!(io::stderr(), "{line}")),
        false => shown(writeln!(out, "{line}")),
    };
    if let Some(what) = given_up {
        say(format!("the last consistent image is given up: {what}"))?;
    }
    if !yes {
        return say(sheet.not_yet(dir)).map(|()| Exit::Held);
    }
    let forced = Forced { image, accept_loss: args.accept_loss };
    let sheet = make(dir, &directory, settings(), forced, &sheet).map_err(within)?;
    say(format!("forced: its next opening serves, as lineage {}", sheet.next()))?;
    say(sheet.places(dir))?;
    if !args.accept_loss {
        let how = "`Device::accept_loss` where it is opened, or --accept-loss with the force";
        say(format!("hosts are refused until the loss is accepted: {how}"))?;
    }
    Ok(Exit::Held)
}

/// The loss sheet of a force of the device in `directory`, which nobody has open; nothing is changed.
///
/// # Errors
/// As [`force`].
pub(crate) fn loss(
    directory: &Arc<Directory>,
    settings: &Settings,
    image: Image,
) -> Result<LossSheet, Failure> {
    let sheet = |image| {
        let (over, clock) = (rehearsal(directory), Arc::new(SystemClock::default()));
        Device::sheet_of_force(over, clock, settings.clone(), image)
    };
    match image {
        // The newest content is there always: what refuses it needs no force.
        Image::Newest => sheet(image).map_err(refused_as(Exit::Absent)),
        _ => {
            let device = rehearsed(directory, settings)?;
            device.loss_sheet(Image::Newest).map_err(refused_as(Exit::Absent))?;
            device.loss_sheet(image).map_err(refused_as(Exit::Inconsistent))
        }
    }
}

/// Forces the device in `directory`, which is `dir`, with `sheet` written before, which says what will be lost; returns
/// the one that says what is, and which is in its place then.
///
/// # Errors
/// As [`force`].
pub(crate) fn make(
    dir: &Path,
    directory: &Arc<Directory>,
    settings: Settings,
    forced: Forced,
    sheet: &Sheet,
) -> Result<Sheet, Failure> {
    if let Err(error) = sheet.store(dir) {
        return Err(Failure::output(sheet.file(dir, "json").display(), &error));
    }
    let clock = Arc::new(SystemClock::default());
    let done = Device::force(directory.clone(), clock, settings, forced).map_err(|error| {
        sheet.remove(dir);
        match error.kind() {
            Kind::Protocol => Failure::new(Exit::SalvageFull, error.to_string()),
            _ => refused_as(Exit::Absent)(error),
        }
    })?;
    let mut done = Sheet::of(&done);
    done.made_at_ns = sheet.made_at_ns;
    if done != *sheet {
        // The device has been closed in between, and has written back what it could. The sheet of before stays where
        // this one cannot be written.
        let _ = done.store(dir);
    }
    Ok(done)
}

/// The engine's refusal: that there is nothing to be done, or not so, ends with `exit`.
pub(crate) fn refused_as(exit: Exit) -> impl Fn(Error) -> Failure {
    move |error| match error.kind() {
        Kind::Invalid => Failure::new(exit, error.to_string()),
        Kind::Config => Failure::new(Exit::Usage, error.to_string()),
        _ => Failure::new(Exit::Device, error.to_string()),
    }
}

/// Keeps the history of this device, of two that have parted.
///
/// # Errors
/// [`Exit::Absent`] if it has met no other branch, or the other directory's device has not that branch;
/// [`Exit::Fenced`] if the other device is to be kept; else as [`force`], for either directory.
pub fn resolve(args: &ResolveArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Args { dir, yes, json } = &args.device;
    let within = |failure: Failure| failure.within(dir.display());
    let directory = open(dir)?;
    let this = branch(dir, &directory)?;
    check_kept(args.keep, this.device).map_err(within)?;
    let clock = || Arc::new(SystemClock::default());
    let other = Closed::resolve(rehearsal(&directory), clock(), settings())
        .map_err(refused_as(Exit::Absent))
        .map_err(within)?;
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
    let resolve = || {
        let resolved = Closed::resolve(directory, clock(), settings());
        resolved.map(drop).map_err(refused_as(Exit::Absent))
    };
    let end = "resolved: its next opening serves, and the other follows when they meet";
    let said = Parted { this, other, beside }.said();
    decided(said.within(dir), (*yes, *json), end, || resolve().map_err(within), out)
}

/// Shows what will be done, does it if it is to be, and says `end` then.
fn decided(
    mut said: Said,
    (yes, json): (bool, bool),
    end: &str,
    act: impl FnOnce() -> Result<(), Failure>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    if !json {
        shown(out.write_all(said.text.as_bytes()).and_then(|()| out.flush()))?;
    }
    if yes {
        act()?;
    }
    said.document["changed"] = yes.into();
    said.text = format!("{}\n", if yes { end } else { NOTHING });
    output::said(&said, json, out).map(|()| Exit::Held)
}

/// A device of which the other one is to be kept is left alone.
///
/// # Errors
/// [`Exit::Fenced`] then.
pub(crate) fn check_kept(keep: Option<u64>, device: u64) -> Result<(), Failure> {
    match keep {
        Some(kept) if kept != device => {
            let what = format!(
                "this is device {device}: the history of device {kept} is kept by the same command there"
            );
            Err(Failure::new(Exit::Fenced, what))
        }
        _ => Ok(()),
    }
}

/// Forgets the peer: another device, made anew, takes its place.
///
/// # Errors
/// [`Exit::Fenced`] if the peer holds the host, or owes it something; else as [`force`].
pub fn forget_peer(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Args { dir, yes, json } = args;
    let directory = open(dir)?;
    let clock = || Arc::new(SystemClock::default());
    let refused = |error: Error| refused_as(Exit::Fenced)(error).within(dir.display());
    let peer = Closed::forget_peer(rehearsal(&directory), clock(), settings()).map_err(refused)?;
    let forget = || {
        // A hello's number is only a claim: the key goes first.
        let unpinned = pairing::forget(dir);
        unpinned.map_err(|e| Failure::storage(format!("{}: its pin", dir.display()), &e))?;
        Closed::forget_peer(directory, clock(), settings()).map(drop).map_err(refused)
    };
    let end = "forgotten: its next opening serves alone";
    decided(forgotten(peer).within(dir), (*yes, *json), end, forget, out)
}

/// The words about a peer that is to be forgotten.
pub(crate) fn forgotten(peer: u64) -> Said {
    let first = match peer {
        0 => "it has met no peer".into(),
        peer => format!("device {peer} is refused from now on"),
    };
    let text =
        format!("{first}\n  data go from here to the next device that connects: every block\n");
    Said { text, document: json!({ "version": 1, "changed": false, "peer": peer }) }
}

/// Two histories that have parted.
pub(crate) struct Parted {
    /// The one that is kept.
    pub this: BranchSheet,
    /// The one that is given up, as it was said when they met.
    pub other: Branch,
    /// The same, where it can be looked at.
    pub beside: Option<BranchSheet>,
}

impl Parted {
    /// The words about them.
    pub fn said(&self) -> Said {
        let Branch { device, lineage: (number, id), epoch, newest } = self.other;
        let mut text = format!("two histories have parted\n  kept: {}", Shown(&self.this));
        text += &match &self.beside {
            Some(branch) => format!("  given up: {}", Shown(branch)),
            None => format!(
                "  given up: device {device}, lineage {number} ({id:016x}), tenure {epoch}\n    \
                 its newest own record, as it said when they last met: {}\n    \
                 its blocks are known to it alone: with its directory, too, they are shown here\n",
                recorded(newest)
            ),
        };
        text += &format!(
            "  data go from device {} to device {device}, which keeps what it alone has as salvage first\n",
            self.this.device
        );
        let given_up = match &self.beside {
            Some(branch) => branches::document(branch),
            None => json!({
                "device": device,
                "lineage": number,
                "lineage_id": format!("{id:016x}"),
                "tenure": epoch,
                "newest": newest.to_string(),
            }),
        };
        let kept = branches::document(&self.this);
        let document =
            json!({ "version": 1, "changed": false, "kept": kept, "given_up": given_up });
        Said { text, document }
    }
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
fn rehearsed(directory: &Arc<Directory>, settings: &Settings) -> Result<Arc<Device>, Failure> {
    let clock = Arc::new(SystemClock::default());
    let device = Device::open(rehearsal(directory), clock, settings.clone());
    device.map_err(|e| Failure::device("opening it", &e))
}

/// The device's own branch of two that have parted.
fn branch(dir: &Path, directory: &Arc<Directory>) -> Result<BranchSheet, Failure> {
    let device = rehearsed(directory, &settings()).map_err(|f| f.within(dir.display()))?;
    device.branch().map_err(|e| Failure::device(dir.display(), &e))
}

/// A record, with its wall time.
fn recorded(stamp: Stamp) -> String {
    match stamp {
        Stamp::ZERO => "none".into(),
        stamp => format!("{stamp}, {}", moment(stamp.time)),
    }
}
