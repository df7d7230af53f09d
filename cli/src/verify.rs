//! `afterimage verify DIR DIR`: whether two devices hold the same volumes.
//!
//! # Rules
//! - **Looks only**, as `inspect` does; a device that is open elsewhere may change meanwhile.
//! - **Like with like**: group, block size and volumes must be the same, or nothing is compared.
//! - **Contents, not history**: the normal volumes are compared byte by byte where either device
//!   has ever written. At rest, with nothing pending, they must be equal (I14).
//! - **Behind is neither**: where a record of either device has not reached the other, or not its
//!   volume, contents may rightly differ; where none has to, they may not.
//! - **Damage comes first**: whatever `inspect` finds in either device is the verdict, though the
//!   volumes be equal.

use crate::inspect;
use crate::inspect::tables::Tables;
use crate::output;
use crate::words::plural;
use afterimage::internal::compare;
use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::format::superblock::{Superblock, VolumeSpec};
use afterimage::internal::storage::{Directory, Storage};
use afterimage::internal::superblock;
use afterimage::internal::unit::{Block, Extent, Stamp};
use serde::Serialize;
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The devices to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// One device's directory
    #[arg(value_name = "DIR")]
    pub first: PathBuf,
    /// The other's
    #[arg(value_name = "DIR")]
    pub second: PathBuf,
    /// Print one JSON document instead of text (docs/inspect-json.md)
    #[arg(long)]
    pub json: bool,
    /// Name at most so many differing ranges
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub ranges: usize,
}

/// The verdict of the comparison: the last one that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every byte of every volume is the same, and no record is on its way.
    Equal,
    /// Records are on their way, and bytes differ nowhere but where one of them belongs.
    Behind,
    /// Some bytes differ that no record on its way explains.
    Different,
    /// Something in one of the devices is missing, or not what it should be.
    Damaged,
}

/// The result of a comparison.
#[derive(Serialize)]
pub struct Report {
    version: u32,
    command: &'static str,
    verdict: Verdict,
    group: String,
    devices: [Side; 2],
    /// Whether records are on their way into a volume: then a difference may be rightful.
    pending: bool,
    /// Ranges that differ in a block that no such record is for.
    unexplained_ranges: u64,
    #[serde(flatten)]
    compared: Compared,
}

/// [`compare::Compared`], as it is printed.
#[derive(Serialize)]
struct Compared {
    volumes: u64,
    volume_bytes: u64,
    compared_bytes: u64,
    differing_volumes: u64,
    differing_ranges: u64,
    differing_bytes: u64,
    ranges: Vec<Differing>,
}

#[derive(Serialize)]
struct Differing {
    volume: u32,
    offset: u64,
    bytes: u64,
}

impl Compared {
    fn new(c: &compare::Compared, ranges: Vec<Differing>) -> Compared {
        Compared {
            volumes: c.volumes,
            volume_bytes: c.volume_bytes,
            compared_bytes: c.compared_bytes,
            differing_volumes: c.differing_volumes,
            differing_ranges: c.differing_ranges,
            differing_bytes: c.differing_bytes,
            ranges,
        }
    }
}

/// One of the two devices.
#[derive(Serialize)]
struct Side {
    directory: String,
    device: u64,
    clean: bool,
    epoch: u64,
    fenced: bool,
    /// Records in its logs that are not surely in its normal volumes.
    unreflected: u64,
    /// Own records that the other has not received.
    unreceived: u64,
    /// Its peer owed it newer records than it has received, when it was last active.
    behind: bool,
    /// Its faults, if any: the counts may then be too low.
    findings: Vec<String>,
    #[serde(skip)]
    tables: Option<Tables>,
}

/// The extents of records that have not reached everything that they belong to.
struct Pending {
    extents: HashSet<Extent>,
    block_size: u64,
}

impl Pending {
    /// Whether each block of `range` is of such a record.
    fn explains(&self, range: &compare::Differing) -> bool {
        let last = (range.offset + range.bytes - 1) / self.block_size;
        let mut numbers = range.offset / self.block_size..=last;
        numbers.all(|number| {
            let block = Block { volume: range.volume, number };
            (0..=Extent::LEVEL_MAX)
                .any(|level| self.extents.contains(&Extent::around(block, level)))
        })
    }
}

/// Compares the two devices and writes what was found to `out`.
///
/// # Errors
/// Those of [`compare()`], and [`Kind::Storage`] if `out` cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict> {
    let report = compare(args)?;
    report.write(args, out).map_err(|e| Error::storage("writing the report", e))?;
    Ok(report.verdict)
}

/// Compares the two devices.
///
/// # Errors
/// [`Kind::Config`] if they are no two devices of one group, [`Kind::Damaged`] if one of them
/// cannot be read as a device (`inspect` tells more), [`Kind::Storage`] if reading fails.
pub fn compare(args: &Args) -> Result<Report> {
    let paths = [args.first.as_path(), args.second.as_path()];
    let open = |path: &Path| {
        crate::inspect::refuse_parent(path)?;
        let opened = Directory::open_read_only(path);
        opened.map_err(|e| Error::storage(format!("opening {}", path.display()), e))
    };
    let directories = [open(paths[0])?, open(paths[1])?];
    let load = |k: usize| {
        superblock::load(&directories[k]).map_err(|e| {
            let kind = e.kind();
            e.because(kind, format_args!("{}", paths[k].display()))
        })
    };
    let superblocks = [load(0)?, load(1)?];
    check_alike(&superblocks, paths)?;
    let names = paths.map(Path::display);
    let side = |k: usize| Side::new(&directories[k], &superblocks[k], paths[k]);
    let mut devices = [side(0), side(1)];
    let extents = pending_extents(&mut devices);
    let pending = Pending { extents, block_size: superblocks[0].block_size.into() };
    let (mut ranges, mut unexplained_ranges) = (Vec::new(), 0);
    let compared = compare::volumes(
        [&directories[0], &directories[1]],
        &superblocks,
        [&names[0], &names[1]],
        &mut |range| {
            unexplained_ranges += u64::from(!pending.explains(&range));
            if ranges.len() < args.ranges {
                let compare::Differing { volume, offset, bytes } = range;
                ranges.push(Differing { volume, offset, bytes });
            }
        },
    )?;
    let pending = devices.iter().any(|d| d.unreflected + d.unreceived > 0 || d.behind);
    let verdict = match () {
        () if devices.iter().any(|d| !d.findings.is_empty()) => Verdict::Damaged,
        () if unexplained_ranges > 0 => Verdict::Different,
        () if pending => Verdict::Behind,
        () => Verdict::Equal,
    };
    Ok(Report {
        version: 1,
        command: "verify",
        verdict,
        group: format!("{:032x}", superblocks[0].group),
        devices,
        pending,
        unexplained_ranges,
        compared: Compared::new(&compared, ranges),
    })
}

/// The extents of the records that are on their way, which are counted in `devices`.
fn pending_extents(devices: &mut [Side; 2]) -> HashSet<Extent> {
    let tables = devices.each_mut().map(|device| device.tables.take());
    let received = tables.each_ref().map(|t| t.as_ref().map_or(Stamp::ZERO, |t| t.hi));
    let mut extents = HashSet::new();
    for (k, tables) in tables.iter().enumerate() {
        let Some(Tables { remote, local, .. }) = tables else { continue };
        let not_there = || remote.iter().filter(|e| e.row.stamp > received[1 - k]);
        devices[k].unreceived = not_there().count() as u64;
        extents.extend(local.iter().chain(not_there()).map(|e| e.row.extent()));
    }
    extents
}

/// Refuses devices that are not two of one group.
fn check_alike([first, second]: &[Superblock; 2], paths: [&Path; 2]) -> Result<()> {
    let refuse = |what: &str, a: String, b: String| {
        let (first, second) = (paths[0].display(), paths[1].display());
        let what = format!("{what} differ: {a} in {first}, {b} in {second}; nothing was compared");
        Err(Error::new(Kind::Config, what))
    };
    if first.group != second.group {
        let name = |s: &Superblock| format!("{:032x}", s.group);
        return refuse("groups", name(first), name(second));
    }
    if first.device == second.device {
        let (a, b, device) = (paths[0].display(), paths[1].display(), first.device);
        let what = format!("{a} and {b} are both device {device}: one and the same, or a copy");
        return Err(Error::new(Kind::Config, format!("{what}; nothing was compared")));
    }
    if first.block_size != second.block_size {
        let size = |s: &Superblock| s.block_size.to_string();
        return refuse("block sizes", size(first), size(second));
    }
    let sorted = |s: &Superblock| {
        let mut volumes = s.volumes.clone();
        volumes.sort_by_key(|v| v.id);
        volumes
    };
    let (a, b) = (sorted(first), sorted(second));
    if a.len() != b.len() {
        return refuse("numbers of volumes", a.len().to_string(), b.len().to_string());
    }
    let differing = a.iter().zip(&b).find(|(a, b)| a != b);
    let name = |v: &VolumeSpec| format!("volume {} of {} bytes", v.id, v.bytes);
    differing.map_or(Ok(()), |(a, b)| refuse("volumes", name(a), name(b)))
}

impl Side {
    fn new(storage: &dyn Storage, superblock: &Superblock, path: &Path) -> Side {
        let (findings, tables) = inspect::findings(storage, path);
        Side {
            directory: path.display().to_string(),
            device: superblock.device,
            clean: superblock.clean,
            epoch: superblock.epoch,
            fenced: superblock.fenced,
            unreflected: tables.as_ref().map_or(0, |t| t.local.len() as u64),
            unreceived: 0,
            behind: tables.as_ref().is_some_and(|t| t.hi < superblock.need),
            findings,
            tables,
        }
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let state = if self.fenced { "fenced" } else { "active" };
        let closed = if self.clean { "closed cleanly" } else { "NOT closed cleanly" };
        let (device, epoch) = (self.device, self.epoch);
        writeln!(out, "{}: device {device}, {state} in epoch {epoch}, {closed}", self.directory)?;
        if self.unreceived > 0 {
            let records = plural(self.unreceived, "record");
            writeln!(out, "  not at the other device yet: {records}")?;
        }
        if self.unreflected > 0 {
            let records = plural(self.unreflected, "record");
            writeln!(out, "  not in its volumes yet: {records}")?;
        }
        if self.behind {
            writeln!(
                out,
                "  it is behind: the other device owed it records that have not arrived"
            )?;
        }
        for finding in &self.findings {
            writeln!(out, "  DAMAGED: {finding}; the counts may be too low")?;
        }
        Ok(())
    }
}

impl Report {
    /// The verdict of the comparison.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Writes it as `args` ask.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, args: &Args, out: &mut dyn Write) -> std::io::Result<()> {
        if args.json {
            return output::json(self, out);
        }
        self.write_text(out)?;
        out.flush()
    }

    fn write_text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for side in &self.devices {
            side.write(out)?;
        }
        let Compared { volumes, volume_bytes, compared_bytes, .. } = self.compared;
        writeln!(
            out,
            "compared {} of {volume_bytes} bytes; {compared_bytes} were ever written",
            plural(volumes, "volume")
        )?;
        let Compared { differing_bytes, differing_ranges, differing_volumes, .. } = self.compared;
        for range in &self.compared.ranges {
            let (volume, offset, bytes) = (range.volume, range.offset, range.bytes);
            writeln!(out, "  volume {volume}: {bytes} bytes at {offset} differ")?;
        }
        let unnamed = differing_ranges - self.compared.ranges.len() as u64;
        if unnamed > 0 {
            writeln!(out, "  and {} more", plural(unnamed, "range"))?;
        }
        let differ = match differing_ranges {
            0 => "no bytes".to_string(),
            ranges => format!(
                "{differing_bytes} bytes in {} of {}",
                plural(ranges, "range"),
                plural(differing_volumes, "volume")
            ),
        };
        let [first, second] = self.devices.each_ref().map(|device| &device.directory);
        match self.verdict {
            Verdict::Equal => writeln!(out, "EQUAL"),
            Verdict::Behind => writeln!(
                out,
                "BEHIND: {differ} differ, and nothing but where a record is still on its way; \
                 `afterimage recover {first} {second}` moves them all"
            ),
            Verdict::Different => {
                if self.pending {
                    let ranges = plural(self.unexplained_ranges, "range");
                    writeln!(out, "of these, {ranges} by no record that is on its way")?;
                }
                writeln!(out, "DIFFERENT: {differ}")
            }
            Verdict::Damaged => writeln!(
                out,
                "DAMAGED: `afterimage inspect` tells more of it; of the volumes, {differ} differ"
            ),
        }
    }
}
