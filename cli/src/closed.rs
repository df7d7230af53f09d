//! `afterimage resume-alone`, `prefer` and `accept-loss`: an operator's changes of a device directory
//! that no process has open.
//!
//! # Rules
//! - **The engine changes** (`Closed`); here is only what a person is told of it.
//! - **One update**: a change is in the superblock whole, or not at all.
//! - **A refusal changes nothing**, and has an exit status of its own.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage::Policy;
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::failover::Closed;
use afterimage::internal::format::superblock::{Lost, Superblock};
use afterimage::internal::storage::{Directory, FileName};
use afterimage::internal::unit::Stamp;
use clap::ValueEnum;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::inspect::LostReport;
use crate::output::{self, shown};
use crate::recover;
use crate::words::moment;

/// The device, and how it is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The device's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Say what would be changed, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print one JSON document instead of text (docs/inspect-json.md)
    #[arg(long)]
    pub json: bool,
}

/// The device, and how a decision of its policy shall be.
#[derive(Clone, Debug, clap::Args)]
pub struct PolicyArgs {
    /// The device.
    #[command(flatten)]
    pub device: Args,

    /// How it shall be from now on
    #[arg(value_name = "on|off", value_enum, hide_possible_values = true)]
    pub to: Switch,
}

/// A decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It holds.
    On,
    /// It does not.
    Off,
}

/// One of the two decisions of a policy.
struct Decision {
    command: &'static str,
    /// Its consequence, for a person.
    on: &'static str,
    off: &'static str,
    of: fn(&mut Policy) -> &mut bool,
}

const RESUME_ALONE: Decision = Decision {
    command: "resume-alone",
    on: "once opened it serves without having heard from the other device, if it held the host and had \
         caught up; something else must make sure that it is dead before the other one is forced to \
         take over",
    off: "once opened it serves when the other device, or an operator, has said that it may",
    of: |policy| &mut policy.resume_alone,
};

const PREFER: Decision = Decision {
    command: "prefer",
    on: "if both devices are fenced when they meet, this one asks for the host",
    off: "if both devices are fenced when they meet, this one waits until a host comes to it",
    of: |policy| &mut policy.prefer,
};

/// Changes whether the device serves from its opening on without having heard from the other one.
///
/// # Errors
/// [`Exit::Refused`] if the device is open elsewhere, [`Exit::Device`] if there is none or it cannot be
/// read or written, [`Exit::Usage`] if a later version wrote it; [`Exit::Output`] if `out` fails.
pub fn resume_alone(args: &PolicyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    decide(&RESUME_ALONE, args, out)
}

/// Changes whether the device asks for the host if both are fenced.
///
/// # Errors
/// Those of [`resume_alone`].
pub fn prefer(args: &PolicyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    decide(&PREFER, args, out)
}

/// Accepts that writes are lost of which hosts had been told.
///
/// # Errors
/// Those of [`resume_alone`]; [`Exit::Absent`] if no write is known to be lost, [`Exit::Fenced`] if the
/// host belongs at the other device, [`Exit::Unclean`] if the device was not closed cleanly.
pub fn accept_loss(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let closed = open(&args.dir)?;
    let found = Report::new("accept-loss", args, &closed);
    let lost = match args.dry_run {
        true => closed.loss(),
        false => closed.accept_loss(),
    };
    let lost = lost.map_err(|error| refused(&args.dir, &error))?;
    let report = Report { changed: !args.dry_run, lost: Some(lost.into()), ..found };
    report.show(args, out, |out| {
        let Lost { first, since, found } = lost;
        writeln!(out, "  writes that hosts were told had completed may be lost")?;
        writeln!(out, "  found: {}", moment(found))?;
        match first {
            Stamp::ZERO => {
                writeln!(out, "  first record lost: not known, it left nothing in the log")?
            }
            first => writeln!(out, "  first record lost: {first}")?,
        }
        match since {
            0 => writeln!(out, "  lost since: not known")?,
            since => writeln!(out, "  lost since: no write stamped before {}", moment(since))?,
        }
        match args.dry_run {
            true => writeln!(out, "accept-loss would clear this mark; nothing was changed"),
            false => writeln!(out, "accepted: the mark is cleared, and hosts may be served again"),
        }
    })
}

fn decide(decision: &Decision, args: &PolicyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Decision { command, on, off, of } = *decision;
    let PolicyArgs { device: args, to } = args;
    let closed = open(&args.dir)?;
    let found = Report::new(command, args, &closed);
    let mut policy = closed.policy();
    let before = *of(&mut policy);
    let after = *to == Switch::On;
    *of(&mut policy) = after;
    let changes = before != after;
    if changes && !args.dry_run {
        closed.set_policy(policy).map_err(|error| refused(&args.dir, &error))?;
    }
    let changed = changes && !args.dry_run;
    let report = Report { changed, before: Some(before), after: Some(after), ..found };
    report.show(args, out, |out| {
        let word = if after { "on" } else { "off" };
        match (changes, args.dry_run) {
            (false, _) => writeln!(out, "{command} is {word} already; nothing was changed")?,
            (true, true) => writeln!(out, "{command} would be {word}; nothing was changed")?,
            (true, false) => writeln!(out, "{command} is {word} now")?,
        }
        writeln!(out, "  {word}: {}", if after { on } else { off })
    })
}

/// The device in `dir`, which no process has open.
fn open(dir: &Path) -> Result<Closed, Failure> {
    recover::look(dir)?;
    let opening = || format!("opening {}", dir.display());
    let directory = Directory::open(dir).map_err(|e| Failure::storage(opening(), &e))?;
    Closed::open(Arc::new(directory)).map_err(|e| Failure::device(opening(), &e))
}

/// The failure of a change.
fn refused(dir: &Path, error: &Error) -> Failure {
    let dir = dir.display();
    let story = format!("{dir}: {error}");
    match error.kind() {
        Kind::Invalid => Failure::new(Exit::Absent, story),
        Kind::Fenced => Failure::new(Exit::Fenced, story),
        Kind::NotReady => {
            Failure::new(Exit::Unclean, format!("{story} (`afterimage recover {dir}`)"))
        }
        _ => Failure::device(dir, error),
    }
}

/// The device as it was found, and the change.
#[derive(Serialize)]
struct Report {
    version: u32,
    command: &'static str,
    directory: String,
    group: String,
    device: u64,
    epoch: u64,
    fenced: bool,
    clean: bool,
    /// The fault of the copy of the superblock that a change writes anew.
    bad_copy: Option<String>,
    dry_run: bool,
    changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<LostReport>,
}

impl Report {
    fn new(command: &'static str, args: &Args, closed: &Closed) -> Report {
        let Superblock { group, device, epoch, fenced, clean, .. } = *closed.superblock();
        Report {
            version: 1,
            command,
            directory: args.dir.display().to_string(),
            group: format!("{group:032x}"),
            device,
            epoch,
            fenced,
            clean,
            bad_copy: closed.bad_copy().map(Into::into),
            dry_run: args.dry_run,
            changed: false,
            before: None,
            after: None,
            lost: None,
        }
    }

    /// Shows it as `args` ask: as JSON, or in words, the last of which are `end`'s.
    fn show(
        &self,
        args: &Args,
        out: &mut dyn Write,
        end: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Exit, Failure> {
        shown(match args.json {
            true => output::json(self, out),
            false => write!(out, "{self}").and_then(|()| end(out)).and_then(|()| out.flush()),
        })?;
        Ok(Exit::Held)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { directory, device, epoch, fenced, clean, changed, .. } = self;
        let role = if *fenced { "fenced" } else { "active" };
        let end = if *clean { "closed cleanly" } else { "NOT closed cleanly" };
        writeln!(f, "{directory}: device {device}, {role}, tenure {epoch}, {end}")?;
        match &self.bad_copy {
            Some(what) if *changed => {
                writeln!(f, "  {}: {what}; written anew", FileName::Superblock)
            }
            Some(what) => writeln!(f, "  {}: {what}", FileName::Superblock),
            None => Ok(()),
        }
    }
}
