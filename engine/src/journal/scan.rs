//! Reads a log as it stands in its file: for opening, and for `inspect`.
//!
//! # Rules (R13)
//! - **Whose log it is**: a header of another log on the first page makes the file another device's
//!   log. It is refused, or its records would count as free space. `judge.rs` says why only there.
//! - **The run**: from the tail that the superblock names, batch by batch, as long as each is a
//!   batch of this log in its place. The rules for that, and for cut and damage where it ends, are
//!   in `judge.rs`.
//! - **The highest `synced` seen anywhere** counts: of the superblock, of the run, and of valid
//!   headers beyond its end, which may have been written after the sync they tell of.
//! - **Near**: no more than [`Geometry::unsynced_bytes_max`] is ever written behind a batch without
//!   a sync of it, so the first header that tells of one stands within that of it. The search goes
//!   on for twice as far behind the last newer header there is, and no further: opening takes
//!   as long as what is live, not as long as the log is.
//! - **Cut for good**: a header carries the generation of the superblock at the opening that wrote
//!   it ([`Header::opened`]), which never falls along the run. So batches that an earlier recovery
//!   cut off do not rise again behind a new batch of the same shape.

#[cfg(feature = "weaken")]
mod leap;

use super::judge::{Expected, Marks, Place, Rot, Verdict, judge};
use crate::format::batch::{Header, Identity, Log, ROWS_MAX, batch_bytes};
use crate::format::superblock::{LogState, Superblock};
use crate::format::{PAGE, data_checksum};
use crate::limits::Geometry;
use crate::storage::{FileName, Storage};
use crate::unit::Stamp;
use std::io::{self, IoSlice};

/// A batch found in a log.
#[derive(Clone, Debug)]
pub struct Found {
    /// Byte offset of its header.
    pub offset: u64,
    /// Bytes it takes, padding included.
    pub bytes: u64,
    /// Its header.
    pub header: Header,
}

impl Found {
    /// The log sequence number behind its last row's.
    pub fn end(&self) -> u64 {
        self.header.sequence + self.header.rows.len() as u64
    }
}

/// Why the run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was ever written here, or what stands here is from an earlier lap or life.
    Clean,
    /// The bytes at this offset are no batch that could follow: which field is wrong and how. A
    /// torn tail, or the rest of an earlier lap behind the head.
    Torn(u64, String),
}

/// A record that was durable and is not there any more, or not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its log sequence number.
    pub sequence: u64,
    /// Byte offset in the log where it is, or should be.
    pub offset: u64,
    /// The finding.
    pub what: String,
}

/// A log, as it was read.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The run, without what was cut.
    pub batches: Vec<Found>,
    /// The log sequence number behind the run.
    pub next_sequence: u64,
    /// Byte offset behind the run.
    pub end_offset: u64,
    /// Why it ended.
    pub end: End,
    /// The highest log sequence number that anything found says was durable.
    pub synced: u64,
    /// Records found behind the run, which were promised to no host and no peer.
    pub cut: u64,
    /// The first record that was cut, if its header is still there and it surely was not cut before:
    /// it follows one that is newer than the superblock, which every opening writes.
    pub first_cut: Option<Stamp>,
    /// The durable records that are not there, in the order of the log.
    pub damages: Vec<Damage>,
}

/// Which records' data is read and held against its checksum, apart from batches that are not
/// known to be durable: these always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Those that are needed: not in the normal volume, or not at the peer.
    Live,
    /// All.
    All,
}

/// The name of a log's file and what `superblock` says of it.
pub fn log_of(superblock: &Superblock, log: Log) -> (FileName, &LogState) {
    match log {
        Log::Own => (FileName::OwnLog, &superblock.own),
        Log::Recv => (FileName::RecvLog, &superblock.recv),
    }
}

/// The stamp up to which records of `log` are needed no more: they are durable in the normal
/// volume and, if own, at the peer.
pub fn dead_upto(superblock: &Superblock, log: Log) -> Stamp {
    match log {
        Log::Own => superblock.fl.min(superblock.floor()),
        Log::Recv => superblock.fl,
    }
}

/// Reads the log that `superblock`, which has been checked, describes (R13). `progress` is called
/// with numbers of bytes that need not be looked at any more. Whatever is wrong with the log is in
/// the result.
///
/// # Errors
/// The storage's, where it fails to read.
pub fn scan(
    storage: &dyn Storage,
    superblock: &Superblock,
    log: Log,
    verify: Verify,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Scan> {
    let (file, state) = log_of(superblock, log);
    let length = storage.length(file)?.unwrap_or(0).min(state.bytes);
    let reader = Reader { storage, file, length, block_size: u64::from(superblock.block_size) };
    let mut scan = Scan {
        batches: Vec::new(),
        next_sequence: state.tail_sequence,
        end_offset: state.tail_offset,
        end: End::Clean,
        synced: state.durable,
        cut: 0,
        first_cut: None,
        damages: Vec::new(),
    };
    let mut expected = Expected::new(superblock, log);
    let tail = state.tail_offset;
    let marks = Marks { log, synced: scan.synced, hi: superblock.hi, fl: superblock.fl };
    let anothers = reader.header_at(0)?.ok().flatten().filter(|it| expected.is_anothers(it));
    let first = judge(Place::First { anothers: anothers.is_some() }, marks);
    if let (Verdict::Damaged(_), Some(Header { identity, .. })) = (first, anothers) {
        let what = format!(
            "the batch at 0 is of the {} log of device {} in group {:x}; this is the {} log of \
             device {} in group {:x}: the file is another device's log",
            log_name(identity.log),
            identity.device,
            identity.group,
            log_name(log),
            superblock.device,
            superblock.group
        );
        scan.damages.push(Damage { sequence: scan.next_sequence, offset: 0, what });
    }
    scan.end = reader.walk(&mut expected, tail, superblock.clean, &mut scan.batches)?;
    #[cfg(feature = "weaken")]
    leap::over_gaps(&reader, &mut expected, superblock, log, &mut scan.batches)?;
    let end = scan.batches.last().map_or(tail, |last| last.offset + last.bytes);
    let wrapped = scan.batches.iter().any(|batch| batch.offset < tail);
    let mut newest_end = 0;
    let geometry = Geometry::of(superblock);
    // A batch more each for the one that goes over the bound and for what a wrap skips.
    let reach = 2 * (geometry.unsynced_bytes_max() + geometry.batch_bytes_max());
    // After a clean close the superblock says where the log ends, and nothing can lie behind.
    if !superblock.clean {
        reader.beyond(&expected, Run { tail, end, wrapped }, reach, progress, |header| {
            scan.synced = scan.synced.max(header.synced);
            let newer = header.sequence >= expected.sequence && header.opened >= expected.opened;
            if newer {
                newest_end = newest_end.max(header.sequence + header.rows.len() as u64);
            }
            newer
        })?;
    }
    if let Some(last) = scan.batches.last() {
        scan.synced = scan.synced.max(last.header.synced);
        newest_end = newest_end.max(last.end());
    }
    let Superblock { hi, fl, .. } = *superblock;
    // Records that were given up with an image need not be here: the next opening frees them.
    let fl = if superblock.history.is_void(hi) { fl.max(hi) } else { fl };
    let marks = Marks { log, synced: scan.synced, hi, fl };
    let dead = dead_upto(superblock, log);
    let mut data = Vec::new();
    let mut k = 0;
    while let Some(batch) = scan.batches.get(k) {
        let last = batch.end() - 1;
        let upto = if last <= scan.synced && verify == Verify::Live { dead } else { Stamp::ZERO };
        let mut bad = reader.bad_data(batch, upto, &mut data)?;
        progress(batch.bytes);
        match judge(Place::Batch { last, whole: bad.is_empty() }, marks) {
            Verdict::Cut => {
                let Damage { offset, what, .. } = bad.swap_remove(0);
                if batch.header.sequence > state.durable + 1 {
                    scan.first_cut = batch.header.rows.first().map(|row| row.stamp);
                }
                scan.end = End::Torn(offset, what);
                scan.batches.truncate(k);
                break;
            }
            Verdict::Keep | Verdict::Damaged(_) => scan.damages.extend(bad),
        }
        k += 1;
    }
    if let Some(last) = scan.batches.last() {
        (scan.next_sequence, scan.end_offset) = (last.end(), last.offset + last.bytes);
    }
    let next = scan.next_sequence;
    scan.cut = newest_end.saturating_sub(next);
    let last = scan.batches.last().and_then(|batch| batch.header.rows.last());
    let newest = last.map_or(Stamp::ZERO, |row| row.stamp);
    if let Verdict::Damaged(rot) = judge(Place::End { next, newest }, marks) {
        let (offset, why) = match &scan.end {
            End::Clean => (scan.end_offset, "there is no batch".into()),
            End::Torn(offset, reason) => (*offset, reason.clone()),
        };
        let Marks { synced, hi, fl, .. } = marks;
        let what = match rot {
            Rot::Acknowledged => format!(
                "the log ends with stamp {newest}, but records up to {hi} were received, and the \
                 volumes have those up to {fl} only (at {offset}: {why})"
            ),
            Rot::Data | Rot::Gone | Rot::Foreign => {
                format!("records {next} to {synced} were durable and are gone (at {offset}: {why})")
            }
        };
        scan.damages.push(Damage { sequence: next, offset, what });
    }
    Ok(scan)
}

/// Writes what a log keeps and is not known to be durable again, where it stands and as it stands:
/// after a crash, before the log is synced.
///
/// Where an earlier process's sync failed, the pages that it did not bring to the medium are clean
/// in the page cache, and the error was told to that process: they read well, no later sync writes
/// them, and its success says nothing of them. Only writing makes them dirty again. Torn by a power
/// cut, such a write leaves every sector as it was or as it is: batches that nobody was promised.
pub(crate) fn write_back(
    storage: &dyn Storage,
    superblock: &Superblock,
    log: Log,
    scan: &Scan,
) -> io::Result<()> {
    let (file, state) = log_of(superblock, log);
    let block_size = u64::from(superblock.block_size);
    let reader = Reader { storage, file, length: state.bytes, block_size };
    let mut data = Vec::new();
    for batch in scan.batches.iter().filter(|batch| batch.end() - 1 > scan.synced) {
        data.clear();
        // Such a page may also leave the cache, and what was there before is read from then on.
        if let Some(Damage { what, .. }) =
            reader.bad_data(batch, Stamp::ZERO, &mut data)?.into_iter().next()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let header = batch.header.encode(block_size);
        storage.write(file, batch.offset, &[IoSlice::new(&*header), IoSlice::new(&data)])?;
    }
    Ok(())
}

impl Identity {
    /// The identity that the batches of this log of the device have.
    pub fn of(superblock: &Superblock, log: Log) -> Identity {
        let incarnation = log_of(superblock, log).1.incarnation;
        Identity { group: superblock.group, log, device: superblock.device, incarnation }
    }
}

/// One log's file.
struct Reader<'a> {
    storage: &'a dyn Storage,
    file: FileName,
    length: u64,
    block_size: u64,
}

/// Bytes read at a time where headers are looked for.
const CHUNK: u64 = 256 * PAGE;

impl Reader<'_> {
    /// Follows the run from `offset`; with `clean` no further than the superblock says it goes.
    fn walk(
        &self,
        expected: &mut Expected,
        mut offset: u64,
        clean: bool,
        batches: &mut Vec<Found>,
    ) -> io::Result<End> {
        let mut used = 0;
        while !clean || expected.sequence <= expected.last {
            let skipped = self.length.saturating_sub(offset);
            // A batch that did not fit before the end went to the beginning. The bytes here may
            // then be a batch that an earlier recovery cut off: of the same number, but an older
            // opening.
            let fits = |found: &Found| found.bytes <= skipped;
            let wraps = offset > 0 && skipped < batch_bytes(ROWS_MAX as u64, self.block_size);
            let wrapped = if wraps { self.batch_at(0, expected)?.ok() } else { None };
            let found = match (self.batch_at(offset, expected)?, wrapped.filter(|w| !fits(w))) {
                (Ok(here), Some(wrapped)) if here.header.opened < wrapped.header.opened => wrapped,
                (Ok(here), _) => here,
                (Err(_), Some(wrapped)) => wrapped,
                (Err(here), None) => {
                    return Ok(here.map_or(End::Clean, |reason| End::Torn(offset, reason)));
                }
            };
            used += if found.offset < offset { skipped } else { 0 };
            used += found.bytes;
            if used > self.length {
                let reason = "the batch lies over the oldest that is held";
                return Ok(End::Torn(found.offset, reason.into()));
            }
            expected.accept(&found.header);
            offset = found.offset + found.bytes;
            batches.push(found);
        }
        Ok(End::Clean)
    }

    /// The batch at `offset` if it is the next one; otherwise what stands there instead, if it is
    /// anything but nothing or an older batch of this log.
    fn batch_at(
        &self,
        offset: u64,
        expected: &Expected,
    ) -> io::Result<Result<Found, Option<String>>> {
        if offset > self.length {
            return Ok(Err(None));
        }
        let found = self.header_at(offset)?;
        Ok(expected.judge(found, offset, self.length - offset))
    }

    /// The header that the page at `offset` holds, as [`Header::decode`] reads it; none behind the
    /// log's end.
    fn header_at(&self, offset: u64) -> io::Result<Result<Option<Header>, String>> {
        let mut page = [0; PAGE as usize];
        if offset.checked_add(PAGE).is_none_or(|end| end > self.length) {
            return Ok(Ok(None));
        }
        self.storage.read(self.file, offset, &mut page)?;
        Ok(Header::decode(&page, self.block_size))
    }

    /// Looks for headers of this log page by page in what the run leaves of the file, until `reach`
    /// bytes were without one that `found` wants to look behind.
    fn beyond(
        &self,
        expected: &Expected,
        run: Run,
        reach: u64,
        progress: &mut dyn FnMut(u64),
        mut found: impl FnMut(&Header) -> bool,
    ) -> io::Result<()> {
        let Run { tail, end, wrapped } = run;
        let regions = match wrapped {
            true => [(end, tail), (0, 0)],
            false => [(end, self.length), (0, tail)],
        };
        let mut chunk = vec![0; CHUNK as usize];
        let mut left = reach;
        for (mut at, until) in regions {
            let until = until.min(self.length);
            while at + PAGE <= until && left > 0 {
                let bytes = CHUNK.min((until - at) / PAGE * PAGE);
                left = left.saturating_sub(bytes);
                self.storage.read(self.file, at, &mut chunk[..bytes as usize])?;
                let pages = chunk[..bytes as usize].chunks(PAGE as usize);
                let pages = (at..).step_by(PAGE as usize).zip(pages);
                for (offset, page) in pages.filter(|(_, page)| Header::is_likely(page)) {
                    match Header::decode(page, self.block_size) {
                        Ok(Some(header)) if expected.is_ours(&header, offset) => {
                            left = if found(&header) { reach } else { left };
                        }
                        _ => {}
                    }
                }
                progress(bytes);
                at += bytes;
            }
        }
        Ok(())
    }

    /// The records of `batch` newer than `upto` whose data has not its checksum.
    fn bad_data(&self, batch: &Found, upto: Stamp, data: &mut Vec<u8>) -> io::Result<Vec<Damage>> {
        let needed = |stamp| stamp > upto;
        let rows = &batch.header.rows;
        if !rows.iter().any(|row| row.has_data && needed(row.stamp)) {
            return Ok(Vec::new());
        }
        let size = self.block_size as usize;
        data.resize(batch.header.data_bytes(self.block_size) as usize, 0);
        self.storage.read(self.file, batch.offset + PAGE, data)?;
        let with_data = (batch.header.sequence..).zip(rows).filter(|(_, row)| row.has_data);
        let mut bad = Vec::new();
        for (k, ((sequence, row), block)) in with_data.zip(data.chunks(size)).enumerate() {
            if !needed(row.stamp) {
                continue;
            }
            let found = data_checksum(block);
            if found != row.checksum {
                let offset = batch.offset + PAGE + k as u64 * self.block_size;
                let what = format!(
                    "data of {}:{sequence} at {offset}: checksum is {found:016x}, not {:016x}",
                    log_name(batch.header.identity.log),
                    row.checksum
                );
                bad.push(Damage { sequence, offset, what });
            }
        }
        Ok(bad)
    }
}

/// Where a log's batches are.
struct Run {
    tail: u64,
    end: u64,
    wrapped: bool,
}

/// The word for a log in the names of entries, as `own:7`.
pub fn log_name(log: Log) -> &'static str {
    match log {
        Log::Own => "own",
        Log::Recv => "recv",
    }
}
