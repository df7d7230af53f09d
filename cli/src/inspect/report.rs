//! The report as data: what `--json` prints (docs/inspect-json.md), and what the text is made of.

use super::Verdict;
use super::differential::Differential;
use super::finding::Finding;
use super::logs::{Entry, LogRead, log_name};
use super::tables::Tables;
use afterimage::ImagePoint;
use afterimage::internal::format::superblock::{LogState, Lost, Superblock};
use afterimage::internal::journal::scan::End;
use afterimage::internal::storage::FileName;
use afterimage::internal::unit::Stamp;
use serde::{Serialize, Serializer};

/// Version of the JSON document: raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// The findings in a device directory.
#[derive(Serialize)]
pub struct Report {
    pub(super) version: u32,
    pub(super) command: &'static str,
    pub(super) directory: String,
    pub(super) verdict: Verdict,
    pub(super) state: State,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    pub(super) files: Vec<FileReport>,
    pub(super) superblock: Option<Copies>,
    pub(super) differential: Option<Differential>,
    pub(super) last_image: Option<LastImage>,
    pub(super) own_log: Option<LogReport>,
    pub(super) recv_log: Option<LogReport>,
    pub(super) remote_unreflected: Option<Table>,
    pub(super) local_unreflected: Option<Table>,
    pub(super) location: Option<Location>,
}

/// How the device was left.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Clean,
    Unclean,
    Unknown,
}

#[derive(Serialize)]
pub(super) struct FileReport {
    #[serde(serialize_with = "display")]
    pub(super) name: FileName,
    pub(super) bytes: u64,
}

impl Report {
    pub(super) fn new(directory: String) -> Report {
        Report {
            version: VERSION,
            command: "inspect",
            directory,
            verdict: Verdict::Sound,
            state: State::Unknown,
            findings: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
            superblock: None,
            differential: None,
            last_image: None,
            own_log: None,
            recv_log: None,
            remote_unreflected: None,
            local_unreflected: None,
            location: None,
        }
    }

    pub(super) fn find(&mut self, file: FileName, what: String) {
        self.findings.push(Finding { file: Some(file), what });
    }

    pub(super) fn find_unnamed(&mut self, what: String) {
        self.findings.push(Finding { file: None, what });
    }

    /// The length of `file`, if it is there and a file.
    pub(super) fn length(&self, file: FileName) -> Option<u64> {
        self.files.iter().find(|f| f.name == file).map(|f| f.bytes)
    }

    /// With the verdict that the findings give.
    pub(super) fn judged(mut self) -> Report {
        let sound = self.findings.is_empty();
        self.verdict = if sound { Verdict::Sound } else { Verdict::Damaged };
        self
    }
}

/// The two copies of the superblock.
#[derive(Serialize)]
pub(super) struct Copies {
    /// Which of them counts.
    pub(super) counts: Option<usize>,
    pub(super) copies: Vec<Copy>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(super) enum Copy {
    /// Never written.
    Empty,
    /// Unusable, with its fault.
    Unusable { error: String },
    /// Usable.
    Valid(Box<SuperblockReport>),
}

#[derive(Serialize)]
pub(super) struct SuperblockReport {
    pub(super) generation: u64,
    pub(super) group: String,
    pub(super) device: u64,
    pub(super) mode: String,
    pub(super) fenced: bool,
    pub(super) fenced_here: bool,
    pub(super) clean: bool,
    pub(super) prefer: bool,
    pub(super) resume_alone: bool,
    pub(super) usable: bool,
    pub(super) block_size: u32,
    pub(super) segment_bytes: u64,
    pub(super) epoch: u64,
    pub(super) lineage: u64,
    pub(super) lineage_id: String,
    pub(super) hi: StampReport,
    pub(super) acked: StampReport,
    pub(super) need: StampReport,
    pub(super) whole: StampReport,
    pub(super) fl: StampReport,
    pub(super) consat: StampReport,
    pub(super) compat: String,
    pub(super) ro_compat: String,
    pub(super) incompat: String,
    pub(super) lost: Option<LostReport>,
    pub(super) round_lineage: u64,
    pub(super) round: u64,
    pub(super) last_active: u64,
    pub(super) peer: u64,
    pub(super) cut: StampReport,
    pub(super) owed: bool,
    pub(super) image: bool,
    pub(super) cache_identity: Option<String>,
    pub(super) weakest_durability: Option<&'static str>,
    pub(super) annex_bytes: u32,
    pub(super) table_slot: u8,
    pub(super) table_bytes: u64,
    pub(super) own_log: LogStateReport,
    pub(super) recv_log: LogStateReport,
    pub(super) volumes: Vec<VolumeReport>,
    #[serde(skip)]
    source: Superblock,
}

/// The mark that writes are lost of which hosts had been told.
#[derive(Serialize)]
pub(crate) struct LostReport {
    /// The first record dropped; all zero if it is not known.
    pub(super) first: StampReport,
    pub(super) since: u64,
    pub(super) found: u64,
}

impl From<Lost> for LostReport {
    fn from(Lost { first, since, found }: Lost) -> Self {
        LostReport { first: first.into(), since, found }
    }
}

#[derive(Serialize)]
pub(super) struct VolumeReport {
    pub(super) id: u32,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct LogStateReport {
    pub(super) bytes: u64,
    pub(super) incarnation: u64,
    pub(super) tail_offset: u64,
    pub(super) tail_sequence: u64,
    pub(super) durable: u64,
    pub(super) opened: u64,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct StampReport {
    pub(super) epoch: u64,
    pub(super) time: u64,
    pub(super) sequence: u32,
}

impl From<Stamp> for StampReport {
    fn from(Stamp { epoch, time, sequence }: Stamp) -> Self {
        StampReport { epoch, time, sequence }
    }
}

impl From<&LogState> for LogStateReport {
    fn from(s: &LogState) -> Self {
        let LogState { bytes, incarnation, tail_offset, tail_sequence, durable, opened } = *s;
        LogStateReport { bytes, incarnation, tail_offset, tail_sequence, durable, opened }
    }
}

impl From<&Superblock> for SuperblockReport {
    fn from(s: &Superblock) -> Self {
        SuperblockReport {
            generation: s.generation,
            group: format!("{:032x}", s.group),
            device: s.device,
            mode: s.mode.to_string(),
            fenced: s.fenced,
            fenced_here: s.fenced_here,
            clean: s.clean,
            prefer: s.prefer,
            resume_alone: s.resume_alone,
            usable: s.usable,
            block_size: s.block_size,
            segment_bytes: s.segment_bytes,
            epoch: s.epoch,
            lineage: s.lineage.0,
            lineage_id: format!("{:016x}", s.lineage.1),
            hi: s.hi.into(),
            acked: s.acked.into(),
            need: s.need.into(),
            whole: s.whole.into(),
            fl: s.fl.into(),
            consat: s.consat.into(),
            compat: format!("{:x}", s.features.compat),
            ro_compat: format!("{:x}", s.features.ro_compat),
            incompat: format!("{:x}", s.features.incompat),
            lost: s.lost.map(LostReport::from),
            round_lineage: s.round.generation,
            round: s.round.counter,
            last_active: s.last_active,
            peer: s.peer,
            cut: s.cut.into(),
            owed: s.owed,
            image: s.image,
            cache_identity: (s.cache_identity != [0; 32])
                .then(|| s.cache_identity.iter().map(|byte| format!("{byte:02x}")).collect()),
            weakest_durability: match s.weakest {
                0 => None,
                1 => Some("strict"),
                2 => Some("written"),
                3 => Some("volatile"),
                4 => Some("never"),
                _ => Some("unknown"),
            },
            annex_bytes: s.annex.bytes,
            table_slot: s.table.slot,
            table_bytes: s.table.bytes,
            own_log: (&s.own).into(),
            recv_log: (&s.recv).into(),
            volumes: s.volumes.iter().map(|v| VolumeReport { id: v.id, bytes: v.bytes }).collect(),
            source: s.clone(),
        }
    }
}

impl Copies {
    /// From the copies as they were read; `None` for one that was never written.
    pub(super) fn new(copies: &[Option<Result<Superblock, String>>; 2]) -> Copies {
        let generation =
            |k: usize| copies[k].as_ref().and_then(|c| c.as_ref().ok()).map(|s| s.generation);
        let counts = match (generation(0), generation(1)) {
            (None, None) => None,
            // As the engine chooses: of two equal generations the second.
            (first, second) => Some(usize::from(first <= second)),
        };
        let copies = copies.iter().map(|copy| match copy {
            None => Copy::Empty,
            Some(Err(error)) => Copy::Unusable { error: error.clone() },
            Some(Ok(superblock)) => Copy::Valid(Box::new(superblock.into())),
        });
        Copies { counts, copies: copies.collect() }
    }

    /// The copy that counts.
    pub(super) fn counting(&self) -> Option<&Superblock> {
        match &self.copies[self.counts?] {
            Copy::Valid(superblock) => Some(&superblock.source),
            Copy::Empty | Copy::Unusable { .. } => None,
        }
    }
}

/// The last consistent image.
#[derive(Serialize)]
pub(super) struct LastImage {
    /// A forced takeover has chosen it; else it is kept.
    pub(super) put_back: bool,
    pub(super) at: u64,
    pub(super) upto: StampReport,
    pub(super) lineage: u64,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl LastImage {
    pub(super) fn new(
        superblock: &Superblock,
        (point, blocks, bytes): &(ImagePoint, u64, u64),
    ) -> LastImage {
        LastImage {
            put_back: superblock.usable && superblock.consat == Stamp::ZERO,
            at: point.at,
            upto: point.upto.into(),
            lineage: point.lineage.0,
            blocks: *blocks,
            bytes: *bytes,
        }
    }
}

/// A log's file.
#[derive(Serialize)]
pub(super) struct LogReport {
    #[serde(serialize_with = "display")]
    pub(super) file: FileName,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes_held: u64,
    pub(super) first_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) synced: u64,
    pub(super) end_offset: u64,
    /// Why the walk ended: `clean`, or `torn` with what stands there.
    pub(super) end: &'static str,
    pub(super) end_reason: Option<String>,
    pub(super) dropped: u64,
}

impl LogReport {
    pub(super) fn new(log: &LogRead) -> LogReport {
        let (end, end_reason) = match &log.end {
            End::Clean => ("clean", None),
            End::Torn(offset, reason) => ("torn", Some(format!("at {offset}: {reason}"))),
        };
        LogReport {
            file: log.file,
            batches: log.batches,
            records: log.entries.len() as u64,
            bytes_held: log.bytes,
            first_sequence: log.state.tail_sequence,
            next_sequence: log.next_sequence(),
            synced: log.synced,
            end_offset: log.end_offset,
            end,
            end_reason,
            dropped: log.dropped,
        }
    }
}

/// An unreflected table.
#[derive(Serialize)]
pub(super) struct Table {
    /// Rows are the records with stamps above this.
    pub(super) above: StampReport,
    pub(super) rows: Vec<RowReport>,
    /// Records of the table's volume that are held but free: their block is -1.
    pub(super) free: u64,
}

#[derive(Serialize)]
pub(super) struct RowReport {
    pub(super) entry: String,
    pub(super) volume: u32,
    pub(super) block: u64,
    pub(super) time: StampReport,
    /// The entry next in time order; `None`: the last.
    pub(super) rear: Option<String>,
    pub(super) r_live: bool,
    pub(super) l_live: bool,
    pub(super) zero: bool,
    pub(super) blocks: u64,
    pub(super) index: u32,
    pub(super) count: u32,
    pub(super) offset: Option<u64>,
    pub(super) batch_offset: u64,
    pub(super) checksum: String,
    pub(super) intact: bool,
}

impl Table {
    pub(super) fn remote(tables: &Tables, superblock: &Superblock, own: &LogRead) -> Table {
        let free = (own.entries.len() - tables.remote.len()) as u64;
        Table::new(&tables.remote, superblock.acked, superblock, free)
    }

    pub(super) fn local(tables: &Tables, superblock: &Superblock, recv: &LogRead) -> Table {
        let free = recv.entries.iter().filter(|e| e.row.stamp <= superblock.fl).count() as u64;
        Table::new(&tables.local, superblock.fl, superblock, free)
    }

    fn new(entries: &[Entry], above: Stamp, superblock: &Superblock, free: u64) -> Table {
        let rears = entries.iter().skip(1).map(|next| Some(next.name())).chain([None]);
        let rows = entries.iter().zip(rears).map(|(e, rear)| RowReport {
            entry: e.name(),
            volume: e.row.block.volume,
            block: e.row.block.number,
            time: e.row.stamp.into(),
            rear,
            r_live: log_name(e.log) == "own" && e.row.stamp > superblock.acked,
            l_live: e.row.stamp > superblock.fl,
            zero: !e.row.has_data,
            blocks: e.row.extent().blocks(),
            index: e.row.index,
            count: e.row.count,
            offset: e.data_offset,
            batch_offset: e.batch_offset,
            checksum: format!("{:016x}", e.row.checksum),
            intact: e.intact,
        });
        Table { above: above.into(), rows: rows.collect(), free }
    }
}

/// The data location table.
#[derive(Serialize)]
pub(super) struct Location {
    pub(super) rows: Vec<LocationRow>,
    /// Blocks of all volumes that have no row.
    pub(super) rest: u64,
    /// The highest stamp received is below the newest that the peer owed: some of the rest, and
    /// of the rows, are really -2.
    pub(super) behind: bool,
    pub(super) hi: StampReport,
    pub(super) need: StampReport,
    /// A fenced device has dropped the table (R3); these rows are what its logs say.
    pub(super) fenced: bool,
}

#[derive(Serialize)]
pub(super) struct LocationRow {
    pub(super) volume: u32,
    pub(super) block: u64,
    pub(super) blocks: u64,
    pub(super) entry: String,
}

impl Location {
    pub(super) fn new(tables: &Tables, superblock: &Superblock) -> Location {
        let size = u64::from(superblock.block_size);
        let blocks = superblock.volumes.iter().map(|v| v.bytes.div_ceil(size));
        let blocks = blocks.fold(0, u64::saturating_add);
        let rows = tables.location.iter().map(|(run, entry)| LocationRow {
            volume: run.first.volume,
            block: run.first.number,
            blocks: run.blocks,
            entry: entry.name(),
        });
        let located = tables.location.iter().map(|(run, _)| run.blocks).sum();
        Location {
            rest: blocks.saturating_sub(located),
            rows: rows.collect(),
            behind: tables.hi < superblock.need,
            hi: tables.hi.into(),
            need: superblock.need.into(),
            fenced: superblock.fenced,
        }
    }
}

fn display<S: Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
