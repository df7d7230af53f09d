//! `afterimage inspect DIR`: what a device directory holds, as the specification's figures 12 to
//! 14 show it.
//!
//! # Rules
//! - **Looks only**: the directory is opened read-only and without its lock, so that it can be
//!   looked at in any state: closed, dead, damaged, or open elsewhere (then as it was at some
//!   moment).
//! - **Goes on**: what is wrong is a finding with the file's name, never an error, and never ends
//!   the report before everything that can be read has been read. Only a directory that cannot be
//!   opened, or an output that cannot be written, is an error.

mod differential;
pub(crate) mod finding;
pub(crate) mod logs;
mod report;
pub(crate) mod tables;
mod text;

pub(crate) use report::LostReport;
pub use report::Report;

use crate::output;
use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::failover::told_bits_kept;
use afterimage::internal::format::PAGE;
use afterimage::internal::format::batch::Log;
use afterimage::internal::format::segments;
use afterimage::internal::format::superblock::{COPY_BYTES, COPY_OFFSETS, Features, Superblock};
use afterimage::internal::image;
use afterimage::internal::limits::Geometry;
use afterimage::internal::storage::{Directory, FileName, Storage};
use afterimage::internal::superblock::read_copies;
use afterimage::internal::table_file;
use differential::Differential;
use finding::Finding;
use logs::LogRead;
use report::{Copies, FileReport, LastImage, Location, LogReport, State, Table};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use tables::Tables;

/// The directory to look at, and how to show it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The device's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Print one JSON document instead of text (docs/inspect-json.md)
    #[arg(long)]
    pub json: bool,

    /// Print at most so many rows of each table; JSON always has all
    #[arg(long, value_name = "N")]
    pub rows: Option<usize>,
}

/// The verdict on the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing found that should not be so. It may still be in need of recovery.
    Sound,
    /// Something is missing, or not what it should be; the report names it.
    Damaged,
}

/// Writes the report on `args.dir` to `out`.
///
/// # Errors
/// The directory cannot be opened, or `out` cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict> {
    let report = examine(args)?;
    report.write(args, out).map_err(|e| Error::storage("writing the report", e))?;
    Ok(report.verdict)
}

/// Looks at `args.dir`.
///
/// # Errors
/// The directory cannot be opened, or is no device and holds some. A fault inside a device is
/// in the report.
pub fn examine(args: &Args) -> Result<Report> {
    refuse_parent(&args.dir)?;
    let directory = Directory::open_read_only(&args.dir)
        .map_err(|e| Error::storage(format!("opening {}", args.dir.display()), e))?;
    Ok(report_on(&directory, &args.dir))
}

/// Refuses a directory that is no device but holds some, such as `replay --keep` leaves.
///
/// # Errors
/// [`Kind::Config`], with the devices' names.
pub(crate) fn refuse_parent(dir: &Path) -> Result<()> {
    let is_device = |path: &Path| path.join(FileName::Superblock.to_string()).is_file();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|path| is_device(path)).collect();
    if below.is_empty() || is_device(dir) {
        return Ok(());
    }
    below.sort();
    let below: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
    let what = format!("{} is no device; devices are in {}", dir.display(), below.join(" and "));
    Err(Error::new(Kind::Config, what))
}

/// The body of the fuzz target `directory`: whatever the damage, the engine refuses or opens the
/// device, and its report comes to an end, as text and as JSON.
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub fn fuzz_directory(bytes: &[u8]) {
    let storage = afterimage::internal::fuzz::damaged_directory(bytes);
    let report = report_on(&*storage, Path::new("fuzz"));
    for json in [false, true] {
        let args = Args { dir: PathBuf::new(), json, rows: None };
        report.write(&args, &mut std::io::sink()).expect("a sink takes all");
    }
    afterimage::internal::fuzz::examine_directory(storage);
}

impl Report {
    /// The verdict on the directory.
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
        text::write(self, args.rows.unwrap_or(usize::MAX), out)?;
        out.flush()
    }
}

/// Everything that can be said of the device in `storage`, which stands at `path`.
fn report_on(storage: &dyn Storage, path: &Path) -> Report {
    look_at(storage, path).0
}

/// The faults of the device in `storage`, which stands at `path`, each with its file's name, and its
/// tables, if what is there can be read as such.
pub(crate) fn findings(storage: &dyn Storage, path: &Path) -> (Vec<String>, Option<Tables>) {
    let (report, tables) = look_at(storage, path);
    (report.findings.iter().map(ToString::to_string).collect(), tables)
}

fn look_at(storage: &dyn Storage, path: &Path) -> (Report, Option<Tables>) {
    let mut report = Report::new(path.display().to_string());
    list_files(storage, path, &mut report);
    let Some(superblock) = read_superblock(storage, &mut report) else {
        report
            .notes
            .push("without a superblock nothing is known of logs, tables and volumes".into());
        return (report.judged(), None);
    };
    report.state = if superblock.clean { State::Clean } else { State::Unclean };
    if !superblock.clean {
        report.notes.push(
            "not closed cleanly: open elsewhere, or ended without a close, and recovered when it \
             is opened; fl, hi and acked are those of the last checkpoint"
                .into(),
        );
    }
    if let Err(unknown) = superblock.features.check_open() {
        report.notes.push(unknown);
    }
    let possible = superblock.check();
    let possible =
        possible.and_then(|()| Geometry::of(&superblock).check().map_err(|e| e.to_string()));
    if let Err(error) = possible {
        report.find(FileName::Superblock, format!("is impossible: {error}"));
        return (report.judged(), None);
    }
    check_files(&superblock, &mut report);
    match afterimage::internal::storage::segments::check(storage, &superblock) {
        Ok(findings) => findings.into_iter().for_each(|(file, what)| report.find(file, what)),
        Err(error) => report.notes.push(error.to_string()),
    }
    let own = logs::read(storage, &superblock, Log::Own);
    if superblock.features.incompat & Features::DIFFERENTIAL != 0 {
        match table_file::check(storage, &superblock) {
            Ok(Ok(runs)) => {
                let told = told_bits_kept(storage, &superblock).unwrap_or_default();
                report.differential = Some(Differential::new(&superblock, runs, &own, told));
            }
            Ok(Err((file, what))) => report.find(file, what),
            Err(error) => report.find_unnamed(error.to_string()),
        }
    }
    match image::look(storage, &superblock) {
        Ok(Some(found)) => report.last_image = Some(LastImage::new(&superblock, &found)),
        Ok(None) => {}
        Err(error) => report.find_unnamed(error.to_string()),
    }
    let recv = logs::read(storage, &superblock, Log::Recv);
    for log in [&own, &recv] {
        // That a log is missing has been found already.
        let new = log.findings.iter().filter(|finding| !report.findings.contains(finding));
        let new: Vec<Finding> = new.cloned().collect();
        report.findings.extend(new);
        check_rows(&superblock, log, &mut report.findings);
    }
    let tables = Tables::new(&superblock, &own, &recv);
    if let Some(stamp) = tables.repeated_stamp() {
        report.find(FileName::OwnLog, format!("stamp {stamp} is given to two records"));
    }
    report.remote_unreflected = Some(Table::remote(&tables, &superblock, &own));
    report.local_unreflected = Some(Table::local(&tables, &superblock, &recv));
    report.location = Some(Location::new(&tables, &superblock));
    report.own_log = Some(LogReport::new(&own));
    report.recv_log = Some(LogReport::new(&recv));
    (report.judged(), Some(tables))
}

fn list_files(storage: &dyn Storage, path: &Path, report: &mut Report) {
    let mut files = match storage.files() {
        Ok(files) => files,
        Err(error) => {
            report.find_unnamed(format!("the directory cannot be listed: {error}"));
            return;
        }
    };
    files.sort();
    for file in files {
        match std::fs::metadata(path.join(file.to_string())) {
            Ok(found) if !found.is_file() => report.find(file, "is not a file".into()),
            Ok(found) => report.files.push(FileReport { name: file, bytes: found.len() }),
            Err(error) => report.find(file, format!("cannot be looked at: {error}")),
        }
    }
    for file in [FileName::Superblock, FileName::OwnLog, FileName::RecvLog] {
        let named = report.findings.iter().any(|f| f.file == Some(file));
        if !named && report.length(file).is_none() {
            report.find(file, "is missing".into());
        }
    }
}

/// Both copies into the report; returns the one that counts.
fn read_superblock(storage: &dyn Storage, report: &mut Report) -> Option<Superblock> {
    let mut copies = match read_copies(storage) {
        Ok(copies) => copies.map(Some),
        Err(error) => {
            if report.length(FileName::Superblock).is_some() {
                report.find(FileName::Superblock, format!("cannot be used: {error}"));
            }
            return None;
        }
    };
    for (k, copy) in copies.iter_mut().enumerate() {
        let Some(Err(error)) = copy else { continue };
        let mut bytes = [1; COPY_BYTES as usize];
        let read = storage.read(FileName::Superblock, COPY_OFFSETS[k], &mut bytes);
        if read.is_ok() && bytes.iter().all(|&byte| byte == 0) {
            *copy = None;
        } else {
            report.find(FileName::Superblock, format!("copy {k} is unusable: {error}"));
        }
    }
    if copies.iter().all(Option::is_none) {
        report.find(FileName::Superblock, "neither copy was ever written".into());
    } else if copies.iter().any(Option::is_none) {
        report.find(FileName::Superblock, "one of the copies was never written".into());
    }
    if let [Some(Ok(a)), Some(Ok(b))] = &copies {
        let fixed = |s: &Superblock| (s.group, s.device, s.block_size, s.segment_bytes);
        if fixed(a) != fixed(b) || a.own.bytes != b.own.bytes || a.recv.bytes != b.recv.bytes {
            let what = "the copies disagree on what is fixed at creation: two devices' files mixed";
            report.find(FileName::Superblock, what.into());
        }
        if a.generation != b.generation {
            let (first, second) = (a.generation, b.generation);
            report.notes.push(format!(
                "the copies of the superblock are of generations {first} and {second}: an update \
                 was cut short, or one copy is older; the newer one counts, and opening repairs"
            ));
        }
    }
    let copies = Copies::new(&copies);
    let counting = copies.counting().cloned();
    report.superblock = Some(copies);
    counting
}

/// Lengths of superblock and volumes, and segments that do not belong here.
fn check_files(superblock: &Superblock, report: &mut Report) {
    let segments_end = segments::end(&superblock.volumes, superblock.segment_bytes);
    let expected = segments_end.next_multiple_of(PAGE);
    if let Some(length) = report.length(FileName::Superblock).filter(|&length| length != expected) {
        let what = format!("has {length} bytes, should have {expected}");
        report.find(FileName::Superblock, what);
    }
    let sizes: HashMap<u32, u64> = superblock.volumes.iter().map(|v| (v.id, v.bytes)).collect();
    let block = u64::from(superblock.block_size);
    let mut wrong = Vec::new();
    for FileReport { name, .. } in &report.files {
        let FileName::Segment { volume, index } = *name else { continue };
        let begins = u64::from(index).checked_mul(superblock.segment_bytes);
        match (sizes.get(&volume), begins) {
            (None, _) => wrong.push((*name, format!("belongs to no volume: there is no {volume}"))),
            (Some(size), Some(begins)) if begins < size.next_multiple_of(block) => {}
            (Some(size), _) => {
                wrong.push((*name, format!("lies beyond the end of its volume ({size} bytes)")));
            }
        }
    }
    wrong.into_iter().for_each(|(name, what)| report.find(name, what));
}

/// Records that no device with this superblock writes.
fn check_rows(superblock: &Superblock, log: &LogRead, findings: &mut Vec<Finding>) {
    let blocks = superblock.volume_blocks();
    let mut said = HashSet::new();
    for entry in &log.entries {
        let row = &entry.row;
        let extent = row.extent();
        let outside = blocks.get(&row.block.volume).is_none_or(|&count| !extent.ends_within(count));
        if outside && said.insert("block") {
            let what = format!("{} is for block {extent}, which no volume has", entry.name());
            findings.push(Finding { file: Some(log.file), what });
        }
        if row.stamp.epoch > superblock.epoch && said.insert("epoch") {
            let (stamp, epoch) = (row.stamp, superblock.epoch);
            let what = format!(
                "{} has stamp {stamp}, but no tenure above {epoch} was ever held or granted",
                entry.name()
            );
            findings.push(Finding { file: Some(log.file), what });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn damaged_directories_are_reported_on() {
        let mut state = 5u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            super::fuzz_directory(&bytes[..(state >> 40) as usize % 40]);
        }
    }
}
