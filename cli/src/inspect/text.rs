//! The report as text, for a person.

use super::Verdict;
use super::report::{
    Copies, Copy, LastImage, Location, LogReport, Report, StampReport, State, SuperblockReport,
    Table,
};
use crate::words::{moment, plural};
use std::fmt;
use std::io::{self, Write};

impl fmt::Display for StampReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.time, self.sequence)
    }
}

/// Writes `report`, at most `rows_max` rows of each table.
pub(super) fn write(report: &Report, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    let state = match report.state {
        State::Clean => "closed cleanly",
        State::Unclean => "not closed cleanly",
        State::Unknown => "in unknown state",
    };
    let device = report.superblock.as_ref().and_then(Copies::counting);
    let device = device
        .map_or("a directory".into(), |s| format!("device {} of group {:032x}", s.device, s.group));
    writeln!(out, "{}: {device}, {state}", report.directory)?;
    match report.verdict {
        Verdict::Sound => writeln!(out, "damage: none found")?,
        Verdict::Damaged => {
            writeln!(out, "DAMAGED: {}", plural(report.findings.len() as u64, "finding"))?;
        }
    }
    for finding in &report.findings {
        match finding.file {
            Some(file) => writeln!(out, "  {file} {}", finding.what)?,
            None => writeln!(out, "  {}", finding.what)?,
        }
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(copies) = &report.superblock {
        superblocks(copies, rows_max, out)?;
    }
    if let Some(differential) = &report.differential {
        differential.write(rows_max, out)?;
    }
    if let Some(image) = &report.last_image {
        let LastImage { put_back, at, upto, lineage, blocks, bytes } = image;
        let how = if *put_back { "served, on its way back into the volumes" } else { "kept" };
        writeln!(out, "\nLAST CONSISTENT IMAGE: {how}")?;
        writeln!(out, "of {}, of lineage {lineage}, records up to {upto}", moment(*at))?;
        writeln!(out, "saved: {} in {bytes} bytes", plural(*blocks, "block"))?;
    }
    for (title, log) in [("OWN LOG", &report.own_log), ("RECEIVED LOG", &report.recv_log)] {
        if let Some(log) = log {
            log_summary(title, log, out)?;
        }
    }
    let remote = "REMOTE UNREFLECTED TABLE: own records not acknowledged, stamps above acked";
    let local = "LOCAL UNREFLECTED TABLE: records not surely in the normal volume, stamps above fl";
    for (title, table) in [(remote, &report.remote_unreflected), (local, &report.local_unreflected)]
    {
        if let Some(table) = table {
            unreflected(title, table, rows_max, out)?;
        }
    }
    report.location.as_ref().map_or(Ok(()), |location| self::location(location, rows_max, out))
}

fn superblocks(copies: &Copies, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut columns = vec![NAMES.map(String::from).to_vec()];
    for (k, copy) in copies.copies.iter().enumerate() {
        let counts = if copies.counts == Some(k) { " (counts)" } else { "" };
        let title = format!("copy {k}{counts}");
        match copy {
            Copy::Empty => columns.push(vec![title, "never written".into()]),
            Copy::Unusable { .. } => columns.push(vec![title, "unusable".into()]),
            Copy::Valid(superblock) => {
                columns.push([vec![title], values(superblock)].concat());
            }
        }
    }
    writeln!(out)?;
    let rows = (0..NAMES.len())
        .map(|k| columns.iter().map(|c| c.get(k).cloned().unwrap_or_default()).collect())
        .collect::<Vec<Vec<String>>>();
    aligned(&rows, out)?;
    for superblock in copies.copies.iter().enumerate().filter(|(k, _)| copies.counts == Some(*k)) {
        if let (_, Copy::Valid(superblock)) = superblock {
            writeln!(out, "volumes: {}", superblock.volumes.len())?;
            let row = |id: String, bytes: String| vec!["".into(), id, bytes];
            let mut rows = vec![row("volume".into(), "bytes".into())];
            let volumes = superblock.volumes.iter().take(rows_max);
            rows.extend(volumes.map(|v| row(v.id.to_string(), v.bytes.to_string())));
            aligned(&rows, out)?;
            more(superblock.volumes.len(), rows_max, out)?;
        }
    }
    Ok(())
}

const NAMES: [&str; 49] = [
    "SUPERBLOCK",
    "generation",
    "group",
    "device",
    "mode",
    "fenced",
    "fenced_here",
    "clean",
    "prefer",
    "resume_alone",
    "usable",
    "block_size",
    "segment_bytes",
    "epoch",
    "lineage",
    "hi",
    "acked",
    "need",
    "whole",
    "fl",
    "consat",
    "compat",
    "ro_compat",
    "incompat",
    "lost",
    "round",
    "last_active",
    "peer",
    "cut",
    "owed",
    "image",
    "cache_identity",
    "weakest_durability",
    "annex_bytes",
    "table_slot",
    "table_bytes",
    "own_log.bytes",
    "own_log.incarnation",
    "own_log.tail_offset",
    "own_log.tail_sequence",
    "own_log.durable",
    "own_log.opened",
    "recv_log.bytes",
    "recv_log.incarnation",
    "recv_log.tail_offset",
    "recv_log.tail_sequence",
    "recv_log.durable",
    "recv_log.opened",
    "volumes",
];

fn values(s: &SuperblockReport) -> Vec<String> {
    let mut values: Vec<String> = [
        &s.generation as &dyn fmt::Display,
        &s.group,
        &s.device,
        &s.mode,
        &s.fenced,
        &s.fenced_here,
        &s.clean,
        &s.prefer,
        &s.resume_alone,
        &s.usable,
        &s.block_size,
        &s.segment_bytes,
        &s.epoch,
        &format!("{} ({})", s.lineage, s.lineage_id),
        &s.hi,
        &s.acked,
        &s.need,
        &s.whole,
        &s.fl,
        &s.consat,
        &s.compat,
        &s.ro_compat,
        &s.incompat,
        &s.lost.as_ref().map_or("none".into(), |lost| {
            format!("{}, since {}, found {}", lost.first, lost.since, lost.found)
        }),
        &format!("{}.{}", s.round_lineage, s.round),
        &s.last_active,
        &s.peer,
        &s.cut,
        &s.owed,
        &s.image,
        // Its beginning: the columns stay side by side.
        &s.cache_identity.as_ref().map_or("none", |identity| &identity[..16]),
        &s.weakest_durability.unwrap_or("none"),
        &s.annex_bytes,
        &s.table_slot,
        &s.table_bytes,
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    for log in [&s.own_log, &s.recv_log] {
        let place = [log.bytes, log.incarnation, log.tail_offset, log.tail_sequence];
        let fields = place.into_iter().chain([log.durable, log.opened]);
        values.extend(fields.map(|field| field.to_string()));
    }
    values.push(s.volumes.len().to_string());
    values
}

fn log_summary(title: &str, log: &LogReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{title} ({})", log.file)?;
    let LogReport { batches, records, bytes_held, first_sequence, next_sequence, .. } = log;
    let batches = format!("{batches} batch{}", if *batches == 1 { "" } else { "es" });
    let held = plural(*records, "record");
    writeln!(out, "  {held} in {batches}, {bytes_held} bytes held")?;
    match *records {
        0 => writeln!(out, "  next record {next_sequence}")?,
        _ => writeln!(
            out,
            "  records {first_sequence} to {}, next {next_sequence}; known durable to {}",
            next_sequence - 1,
            log.synced
        )?,
    }
    match &log.end_reason {
        None => writeln!(out, "  ends at {}: clean", log.end_offset)?,
        Some(reason) => writeln!(
            out,
            "  ends at {}: torn, or left from an earlier lap ({reason})",
            log.end_offset
        )?,
    }
    if log.dropped > 0 {
        let behind = plural(log.dropped, "record");
        writeln!(out, "  behind: {behind}, never durable and not counted")?;
    }
    Ok(())
}

fn unreflected(title: &str, table: &Table, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{title} {}", table.above)?;
    let titles = ["entry", "block", "epoch", "time", "sequence", "rear", "marks", "part", "offset"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    rows.extend(table.rows.iter().take(rows_max).map(|row| {
        let mark = |on, mark: &'static str| if on { mark } else { "" };
        let marks = [
            mark(row.r_live, "R"),
            mark(row.l_live, "L"),
            mark(row.zero, " zero"),
            mark(!row.intact, " BAD"),
        ];
        vec![
            row.entry.clone(),
            blocks(row.volume, row.block, row.blocks),
            row.time.epoch.to_string(),
            row.time.time.to_string(),
            row.time.sequence.to_string(),
            row.rear.clone().unwrap_or("-1".into()),
            marks.concat(),
            format!("{}/{}", row.index, row.count),
            row.offset.map_or("-".into(), |offset| offset.to_string()),
        ]
    }));
    if table.rows.is_empty() {
        writeln!(out, "  empty")?;
    } else {
        aligned(&rows, out)?;
    }
    more(table.rows.len(), rows_max, out)?;
    match table.free {
        0 => Ok(()),
        free => writeln!(out, "  -1, held but free: {} more", plural(free, "record")),
    }
}

fn location(table: &Location, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nDATA LOCATION TABLE: where the newest data of a block is")?;
    let mut rows = vec![vec!["block".into(), "entry".into()]];
    let shown = table.rows.iter().take(rows_max);
    rows.extend(shown.map(|r| vec![blocks(r.volume, r.block, r.blocks), r.entry.clone()]));
    if rows.len() > 1 {
        aligned(&rows, out)?;
    }
    more(table.rows.len(), rows_max, out)?;
    let or_remote = if table.behind { ", but for those at -2" } else { "" };
    let rest = plural(table.rest, "block");
    writeln!(out, "  -1: {rest} more, in the normal volumes{or_remote}")?;
    if table.behind {
        writeln!(
            out,
            "  -2: the peer still owes records up to {}, and this device has received up to {}; \
             which blocks that concerns is known only while it runs",
            table.need, table.hi
        )?;
    }
    if table.fenced {
        writeln!(
            out,
            "  the device is fenced and has dropped this table; its logs give these rows"
        )?;
    }
    Ok(())
}

/// A block, or the first of many and how many they are.
pub(super) fn blocks(volume: u32, block: u64, blocks: u64) -> String {
    match blocks {
        1 => format!("{volume}:{block}"),
        _ => format!("{volume}:{block}+{blocks}"),
    }
}

pub(super) fn more(rows: usize, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    match rows.saturating_sub(rows_max) {
        0 => Ok(()),
        left => writeln!(out, "  … {} more", plural(left as u64, "row")),
    }
}

/// Rows in columns as wide as their widest cell, numbers or not.
pub(super) fn aligned(rows: &[Vec<String>], out: &mut dyn Write) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |k: usize| rows.iter().filter_map(|r| r.get(k)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
