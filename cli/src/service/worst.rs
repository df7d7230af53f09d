//! The orders of the worst day: the peer is lost, or has gone its own way (`docs/disaster.md`).
//!
//! # Rules
//! - **The engine decides and changes**, as it does with a directory that no process has open: what it would refuse is
//!   refused here before hosts notice anything.
//! - **A dry run unless it is said otherwise**, and the direction of data comes first.
//! - **A peer that is connected is not lost**: it is neither forced nor forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage::internal::failover::Closed;
use afterimage::{Compare, CompareLimits, CompareReport, Forced, Image, Lost, Stamp, SystemClock};
use serde_json::json;

use super::control::server::Caller;
use super::control::wire::Said;
use super::orders::{Orders, PROGRESS, refused};
use crate::disaster::{self, NOTHING, Parted, Sheet, check_kept, refused_as};
use crate::exit::{Exit, Failure};
use crate::salvaged;
use crate::words::{bytes, count, duration, moment, plural};

/// An answer of the peer to a comparison is looked for this often.
const ANSWER: Duration = Duration::from_millis(1);

impl Orders {
    fn is_not_connected(&self, else_do: &str) -> Result<(), Failure> {
        match self.device.status().connected {
            true => Err(Failure::new(Exit::Refused, format!("the peer is connected: {else_do}"))),
            false => Ok(()),
        }
    }

    pub(super) fn force(&self, forced: Forced, yes: bool) -> Result<Said, Failure> {
        self.is_not_connected(
            "a takeover without --force asks it for the host; if its line is dead, that is noticed within 10 s",
        )?;
        // Whatever is asked for, a device that needs no force says so.
        self.device.loss_sheet(Image::Newest).map_err(refused_as(Exit::Absent))?;
        let found = self.device.loss_sheet(forced.image);
        let sheet = Sheet::of(&found.map_err(refused_as(Exit::Inconsistent))?);
        let dir = self.service()?.dir().to_owned();
        if !yes {
            let text = format!("{}{}\n", sheet.brief(), sheet.not_yet(&dir));
            let document = json!({ "version": 1, "changed": false, "sheet": sheet.document() });
            return Ok(Said { text, document });
        }
        let begun = Instant::now();
        // Nothing more comes from the peer then.
        let look = || {
            let found = self.device.loss_sheet(forced.image);
            found.map(|found| Sheet::of(&found)).map_err(refused_as(Exit::Inconsistent))
        };
        let service = self.service()?;
        let sheet = service.change(&self.device, look, |sheet, directory, settings| {
            disaster::make(&dir, directory, settings, forced, &sheet)
        })?;
        let took = begun.elapsed().as_nanos() as u64;
        let orders = service.orders()?;
        let status = orders.device.status();
        let mut text = format!(
            "{}forced after {}: tenure {}, as lineage {}\n{}\n",
            sheet.brief(),
            duration(took),
            status.epoch,
            sheet.next(),
            sheet.places(&dir)
        );
        if status.lost_writes.is_some() {
            text += "hosts are refused until the loss is accepted (`afterimage accept-loss`)\n";
        }
        let files = ["txt", "json"].map(|kind| sheet.file(&dir, kind));
        let document = json!({
            "version": 1,
            "changed": true,
            "tenure": status.epoch,
            "ready_after_ns": took,
            "lineage": sheet.next(),
            "serving": status.serving,
            "lost_writes": status.lost_writes.is_some(),
            "files": files,
            "sheet": sheet.document(),
        });
        Ok(Said { text, document })
    }

    pub(super) fn resolve(
        &self,
        caller: &mut Caller,
        keep: Option<u64>,
        yes: bool,
    ) -> Result<Said, Failure> {
        check_kept(keep, self.device.geometry().device)?;
        let other = self.device.other_branch().map_err(refused_as(Exit::Absent))?;
        let this = self.device.branch().map_err(refused)?;
        let said = Parted { this, other, beside: None }.said();
        let end = "resolved: the device serves, and the other follows when they meet";
        decided(caller, said, yes, end, || {
            self.service()?.change(
                &self.device,
                || Ok(()),
                |(), directory, settings| {
                    let clock = Arc::new(SystemClock::default());
                    let resolved = Closed::resolve(directory.clone(), clock, settings);
                    resolved.map(drop).map_err(refused_as(Exit::Absent))
                },
            )
        })
    }

    pub(super) fn forget_peer(&self, caller: &mut Caller, yes: bool) -> Result<Said, Failure> {
        self.is_not_connected("it is not lost; if it is to be replaced, stop its service first")?;
        let peer = self.device.peer_to_forget().map_err(refused_as(Exit::Fenced))?;
        let end = "forgotten: the device serves alone, and may invite another one";
        decided(caller, disaster::forgotten(peer), yes, end, || {
            self.service()?.change(
                &self.device,
                || Ok(()),
                |(), directory, settings| {
                    // A hello's number is only a claim: the key goes first.
                    self.line.forget()?;
                    let clock = Arc::new(SystemClock::default());
                    let forgotten = Closed::forget_peer(directory.clone(), clock, settings);
                    forgotten.map(drop).map_err(refused_as(Exit::Fenced))
                },
            )
        })
    }

    pub(super) fn list_salvage(&self) -> Result<Said, Failure> {
        salvaged::listed(&**self.service()?.directory())
    }

    pub(super) fn show_salvage(&self, caller: &mut Caller, number: u32) -> Result<Said, Failure> {
        let service = self.service()?;
        let mut entries: u64 = 0;
        salvaged::entries(&**service.directory(), number, |said| {
            entries += 1;
            caller.tell(said)
        })?;
        let document = json!({ "version": 1, "number": number, "entries": entries });
        Ok(Said { text: format!("{}\n", plural(entries, "row")), document })
    }

    pub(super) fn remove_salvage(
        &self,
        caller: &mut Caller,
        number: u32,
        yes: bool,
    ) -> Result<Said, Failure> {
        let said = salvaged::described(&**self.service()?.directory(), number)?;
        let said = decided(caller, said, yes, "removed", || {
            self.device.remove_salvage(number).map_err(refused_as(Exit::Absent))
        })?;
        let text = if yes { said.text } else { format!("{}\n", salvaged::KEPT) };
        Ok(Said { text, ..said })
    }

    pub(super) fn accept_loss(&self, dry_run: bool) -> Result<Said, Failure> {
        let Some(Lost { first, since, found }) = self.device.status().lost_writes else {
            let what = "no write of which a host was told is known to be lost";
            return Err(Failure::new(Exit::Absent, what));
        };
        let known = |stamp: Stamp| (stamp != Stamp::ZERO).then(|| stamp.to_string());
        let document = json!({
            "version": 1,
            "changed": !dry_run,
            "first": known(first),
            "since_ns": (since != 0).then_some(since),
            "found_ns": found,
        });
        if dry_run {
            let first = known(first).unwrap_or("not known, it left nothing in the log".into());
            let since = match since {
                0 => "not known".into(),
                since => format!("no write stamped before {}", moment(since)),
            };
            let text = format!(
                "writes that hosts were told had completed may be lost\n  found: {}\n  first record lost: {first}\n  \
                 lost since: {since}\naccept-loss would clear this mark; nothing was changed\n",
                moment(found)
            );
            return Ok(Said { text, document });
        }
        self.device.accept_loss().map_err(refused)?;
        Ok(Said { text: "the loss is accepted: hosts are served\n".into(), document })
    }

    /// Compares the volumes with the peer's.
    pub(super) fn compare(
        &self,
        caller: &mut Caller,
        volume: Option<String>,
        bytes_per_second: Option<u64>,
    ) -> Result<Said, Failure> {
        let range = volume.map(|name| self.whole(&name)).transpose()?;
        let mut limits = CompareLimits { range, ..CompareLimits::default() };
        limits.bytes_per_second = bytes_per_second.unwrap_or(limits.bytes_per_second).max(1);
        let comparison = self.device.begin_compare(limits).map_err(refused)?;
        let mut shown = Instant::now();
        let report = loop {
            let pause = match comparison.step().map_err(refused)? {
                Compare::Done(report) => break report,
                Compare::Goes => Duration::ZERO,
                Compare::Waits(until) => {
                    let left = until.saturating_sub(self.device.clock().monotonic());
                    Duration::from_nanos(left).min(ANSWER)
                }
            };
            caller.rest(pause)?;
            let status = self.device.status();
            if !status.connected {
                let what = "the connection to the peer is gone: compare again when it is back";
                return Err(Failure::new(Exit::Unconnected, what));
            }
            if shown.elapsed() >= PROGRESS
                && let Some(report) = status.comparison
            {
                shown = Instant::now();
                let done = report.blocks - self.device.status().comparison.map_or(0, |r| left(&r));
                let text = format!(
                    "{} of {} looked at, {} that differ\n",
                    count(done),
                    plural(report.blocks, "block"),
                    count(report.different)
                );
                caller.tell(Said { text, document: document(&report, false) })?;
            }
        };
        let said = Said { text: words(&report), document: document(&report, true) };
        let failed = match &report {
            _ if report.different > 0 => (Exit::NotHeld, "the volumes of the two devices differ"),
            _ if report.unreadable > 0 => (Exit::NotHeld, "a disk cannot read all of its volumes"),
            _ if report.undecided > 0 => {
                (Exit::Behind, "some blocks were never at rest, and are not known to be equal")
            }
            _ => return Ok(said),
        };
        caller.tell(said)?;
        Err(Failure::new(failed.0, failed.1))
    }

    /// All of the volume `name`.
    fn whole(&self, name: &str) -> Result<(u32, std::ops::Range<u64>), Failure> {
        let id = self.line.volumes().iter().find(|named| named.name == name).map(|v| v.id);
        let volumes = &self.device.geometry().volumes;
        let found = volumes.iter().find(|volume| Some(volume.id) == id);
        let found = found.map(|volume| (volume.id, 0..volume.bytes));
        found.ok_or_else(|| Failure::new(Exit::Usage, format!("there is no volume `{name}`")))
    }
}

/// Tells what will be done, and does it if it is to be; `end` says so.
fn decided(
    caller: &mut Caller,
    said: Said,
    yes: bool,
    end: &str,
    act: impl FnOnce() -> Result<(), Failure>,
) -> Result<Said, Failure> {
    let mut document = said.document.clone();
    document["changed"] = yes.into();
    caller.tell(said)?;
    if yes {
        act()?;
    }
    Ok(Said { text: format!("{}\n", if yes { end } else { NOTHING }), document })
}

/// Blocks of a comparison that nothing is known of yet.
fn left(report: &CompareReport) -> u64 {
    let CompareReport { equal, different, undecided, skipped, unreadable, .. } = report;
    report.blocks.saturating_sub(equal + different + undecided + skipped + unreadable)
}

fn document(report: &CompareReport, is_done: bool) -> serde_json::Value {
    let ranges = report.ranges.iter().map(
        |range| json!({ "volume": range.volume, "offset": range.offset, "bytes": range.bytes }),
    );
    json!({
        "version": 1,
        "done": is_done,
        "blocks": report.blocks,
        "equal": report.equal,
        "different": report.different,
        "ranges": ranges.collect::<Vec<_>>(),
        "undecided": report.undecided,
        "skipped": report.skipped,
        "unreadable": report.unreadable,
        "waiting": report.waiting,
        "read_bytes": report.read_bytes,
        "line_bytes": report.line_bytes,
    })
}

fn words(report: &CompareReport) -> String {
    let mut text = format!(
        "{}: {} equal, {} in parts that neither device has made, {} different, {} undecided, {} unreadable\n",
        plural(report.blocks, "block"),
        count(report.equal),
        count(report.skipped),
        count(report.different),
        count(report.undecided),
        count(report.unreadable)
    );
    for range in &report.ranges {
        let (volume, offset) = (range.volume, range.offset);
        text += &format!("  volume {volume}, {} at byte {offset} differ\n", bytes(range.bytes));
    }
    text + &format!(
        "  {} read here, {} over the line\n",
        bytes(report.read_bytes),
        bytes(report.line_bytes)
    )
}
