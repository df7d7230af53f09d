//! Settings, advertised limits, and the bounds that several parts share, each with where it comes
//! from.

use crate::error::{Error, Kind, Result};
use crate::format::batch::{ROWS_MAX, batch_bytes};
use crate::format::frame::{FRAME_BYTES_MAX, FRAME_DATA_MAX, HEADER, TOLD_MAX};
use crate::format::segments;
use crate::format::superblock::{Superblock, VolumeSpec};
use crate::unit::{Extent, SECTOR};
use std::collections::HashSet;

const MIB: u64 = 1 << 20;

/// When a write counts as completed (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once its record is durable.
    Strict,
    /// Once its record and every record before it in the log have been given to the log file, synced
    /// or not (R20): the death of the process loses nothing that was completed, where the storage
    /// vouches for that ([`crate::storage::Storage::cache_identity`]). A power cut may lose it, and the
    /// next opening says so ([`Kind::LostWrites`]). Flush and FUA make durable.
    Written,
    /// Once its record is published, as with a disk's cache; flush and FUA make durable. A write
    /// completed and not flushed is lost with the process, and the next opening says that it may be.
    #[default]
    VolatileCache,
    /// Like [`Durability::VolatileCache`], and flushes do not reach the disk either: for tests and
    /// measurements of everything but the disk. Logs are synced only as often as
    /// [`Geometry::unsynced_bytes_max`] asks.
    Never,
}

impl Durability {
    /// The number that stands for it in the superblock.
    pub(crate) fn number(self) -> u8 {
        match self {
            Durability::Strict => 1,
            Durability::Written => 2,
            Durability::VolatileCache => 3,
            Durability::Never => 4,
        }
    }

    /// The durability of such a number.
    pub(crate) fn from_number(number: u8) -> Option<Durability> {
        use Durability::{Never, Strict, VolatileCache, Written};
        [Strict, Written, VolatileCache, Never].into_iter().find(|d| d.number() == number)
    }
}

/// The sizes that are fixed when a device is created. Later versions have more: begin with
/// [`Geometry::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The consistency group; the same on both devices.
    pub group: u128,
    /// This device's number, different from its peer's. In a crossing of takeover requests the
    /// lower wins (R5).
    pub device: u64,
    /// Bytes of a block: a power of two from 512 to 65,536.
    pub block_size: u32,
    /// The volumes, the same on both devices: ids unique, sizes a multiple of 512 and not 0.
    pub volumes: Vec<VolumeSpec>,
    /// Bytes of the own log, and of the received log.
    pub journal_bytes: u64,
    /// Bytes of a segment file of a normal volume: ext4 refuses files of 16 TiB, and one file a
    /// volume would let a damaged one take everything with it.
    pub segment_bytes: u64,
    /// The group is always in differential mode (the first embodiment), the same on both devices: bits
    /// instead of the order of writes, and the other device is an earlier state only while it has
    /// everything. Else it keeps order, and leaves it at need ([`Settings::suspend_from_percent`]).
    pub differential: bool,
}

impl Geometry {
    /// A pair's usual geometry: blocks of 4 KiB, journals of 64 MiB, segments of 1 TiB.
    pub fn new(group: u128, device: u64, volumes: Vec<VolumeSpec>) -> Geometry {
        Geometry {
            group,
            device,
            block_size: 4096,
            volumes,
            journal_bytes: 64 * MIB,
            segment_bytes: 1 << 40,
            differential: false,
        }
    }

    /// The geometry that `superblock` describes.
    pub fn of(superblock: &Superblock) -> Geometry {
        Geometry {
            group: superblock.group,
            device: superblock.device,
            block_size: superblock.block_size,
            volumes: superblock.volumes.clone(),
            journal_bytes: superblock.own.bytes,
            segment_bytes: superblock.segment_bytes,
            differential: superblock.is_always_differential(),
        }
    }

    /// Whether a device can be made like this.
    ///
    /// # Errors
    /// [`Kind::Config`], naming what is wrong, its value and its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(Kind::Config, what));
        let size = self.block_size;
        if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
            return wrong(format!("block size is {size}; it must be a power of two, 512 to 65536"));
        }
        let least = self.journal_bytes_min();
        if self.journal_bytes < least || !self.journal_bytes.is_multiple_of(4096) {
            let found = self.journal_bytes;
            return wrong(format!(
                "journal size is {found} bytes; with blocks of {size} it must be at least {least} and a multiple of 4096"
            ));
        }
        if self.places() > PLACES_MAX {
            let (found, most) = (self.journal_bytes, PLACES_MAX * u64::from(size));
            return wrong(format!(
                "journal size is {found} bytes; with blocks of {size} it must be at most {most}"
            ));
        }
        if self.segment_bytes == 0 || !self.segment_bytes.is_multiple_of(65_536) {
            let found = self.segment_bytes;
            return wrong(format!("segment size is {found} bytes, not a multiple of 65536"));
        }
        if self.volumes.is_empty() || self.volumes.len() > VOLUMES_MAX {
            let found = self.volumes.len();
            return wrong(format!("a group has 1 to {VOLUMES_MAX} volumes, not {found}"));
        }
        let mut ids = HashSet::new();
        for volume in &self.volumes {
            if !ids.insert(volume.id) {
                return wrong(format!("volume {} is named twice", volume.id));
            }
            if volume.bytes == 0 || !volume.bytes.is_multiple_of(SECTOR) || volume.bytes >> 62 != 0
            {
                let VolumeSpec { id, bytes } = volume;
                return wrong(format!(
                    "volume {id} has {bytes} bytes; it must be a multiple of 512, not 0, below 4 EiB"
                ));
            }
        }
        let segments = segments::count(&self.volumes, self.segment_bytes);
        if segments > SEGMENTS_MAX {
            let size = self.segment_bytes;
            return wrong(format!(
                "the volumes have {segments} segments of {size} bytes, {SEGMENTS_MAX} at most: \
                 take larger ones"
            ));
        }
        Ok(())
    }

    /// Rows of one batch: what a header page holds, and no more data than 1 MiB, so that a batch
    /// is one large write but never a long one.
    pub fn batch_rows(&self) -> usize {
        ROWS_MAX.min((MIB / u64::from(self.block_size).max(1)) as usize)
    }

    /// Bytes of the largest batch.
    pub fn batch_bytes_max(&self) -> u64 {
        batch_bytes(self.batch_rows() as u64, self.block_size.into())
    }

    /// Bytes of log that a place may need: a record that gets a batch of its own.
    pub fn place_bytes(&self) -> u64 {
        batch_bytes(1, self.block_size.into())
    }

    /// Bytes of a log that are never promised: the end of the ring where a batch did not fit.
    pub fn log_slack(&self) -> u64 {
        self.batch_bytes_max()
    }

    /// Most bytes of a log that are written and not synced, whatever the [`Durability`]: what is
    /// written behind them first syncs them. After a crash a record's loss is told from a torn tail
    /// by what was written after its sync, and nothing is looked for further away than this says.
    pub fn unsynced_bytes_max(&self) -> u64 {
        (self.journal_bytes / 8).min(16 * MIB).max(self.batch_bytes_max())
    }

    /// Places in a journal's queue: no record takes less of the log than a block, or a page's
    /// share of rows.
    pub fn places(&self) -> u64 {
        (self.journal_bytes / u64::from(self.block_size).max(1)).max(64)
    }

    /// Most blocks in one request: a quarter of what the journal surely holds, so that there is
    /// room for it as soon as most of the journal is free. Nothing is held back for a large request
    /// while smaller ones take the room as it comes. At least 1, whatever the geometry, and at most
    /// 65,536, as each may take a cell ([`Settings::unlogged_records_max`]).
    pub fn request_blocks_max(&self) -> u64 {
        self.quarter().min(1 << 16)
    }

    /// A quarter of the records that a journal surely holds, at least 1.
    fn quarter(&self) -> u64 {
        let promised = self.journal_bytes.saturating_sub(self.log_slack());
        (promised / self.place_bytes() / 4).max(1)
    }

    /// With fewer free places than this the own journal and the received one are getting full: the
    /// largest request finds no room there, be it of data or of extents; the peer has no more credit
    /// than that (R9).
    pub(crate) fn reserves(&self) -> [u64; 2] {
        let extents = 2 * u64::from(Extent::LEVEL_MAX);
        [self.request_blocks_max().max(extents), self.quarter()]
    }

    /// Most blocks that a device asks its peer for and has no answer to (R7): 1 MiB of data, which a
    /// line of 1 Gbit/s carries in 8 ms, longer than most lines take to carry a question there. The
    /// one that answers keeps a cursor for each question, 2,048 at most, of 32 bytes.
    pub(crate) fn read_blocks_max(&self) -> u64 {
        FRAME_DATA_MAX / u64::from(self.block_size)
    }

    /// Most entries of a prototype that a peer's word is taken for: one an extent of the volumes, of
    /// which there are fewer than two a block, and no more than a journal has places.
    pub fn prototype_entries_max(&self) -> u64 {
        let extents = |volume: &VolumeSpec| 2 * volume.bytes.div_ceil(self.block_size.into());
        self.volumes.iter().map(extents).fold(0, u64::saturating_add).min(PLACES_MAX)
    }

    /// Four batches: one being written, one being read, one wasted at the end, one free.
    fn journal_bytes_min(&self) -> u64 {
        4 * self.batch_bytes_max()
    }
}

/// Most volumes in a group: their table is read whole at every opening (1 MiB).
pub const VOLUMES_MAX: usize = 65_536;

// A hello names every volume in 12 bytes.
const _: () = assert!(HEADER + 1024 + 12 * VOLUMES_MAX <= FRAME_BYTES_MAX);

/// Most places in a journal's queue: journals of 256 GiB with blocks of 4 KiB. Full, each takes 8 GiB
/// of memory at most, and what a peer owes 4 GiB.
pub const PLACES_MAX: u64 = 1 << 26;

/// Entries of a prototype that room is made for on the peer's word alone (60 MiB), before they come.
pub(crate) const PROTOTYPE_ROOM_MAX: u64 = 1 << 20;

/// The next announcement is sent when the control lane holds no more bytes than this, and has no more
/// entries, which take 6 KiB as a rule: together what a line of 1 MiB/s carries in 14 ms, the longest
/// that a takeover's answer waits for them.
pub(crate) const ANNOUNCED_BYTES_MAX: u64 = 8 << 10;
pub(crate) const ANNOUNCED_ENTRIES_MAX: usize = 1024;

/// Most bytes of the side file of what was told: ten million entries as a rule.
pub(crate) const TOLD_FILE_BYTES_MAX: u64 = 64 * MIB;

/// How far a tenure that the peer names may lie ahead of the next one here: further than any number
/// of unanswered requests, not so far that one garbled frame uses up all numbers.
pub(crate) const EPOCH_JUMP_MAX: u64 = 1 << 32;

/// Most segments in a group: the table of them is read whole at every opening (2 MiB).
pub const SEGMENTS_MAX: u64 = 1 << 24;

/// The settings, which can differ from one opening to the next. Later versions have more: make it with
/// `..Settings::default()` at the end. Times are in nanoseconds, and any will do;
/// [`Settings::check`] holds the others against the ranges given here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When a write counts as completed.
    pub durability: Durability,
    /// R10: the own log is synced at least this often while anything is unshipped; with 0,
    /// whenever there is anything to sync.
    pub commit_interval_ns: u64,
    /// R7: how long a read waits for the peer before it fails with [`Kind::Timeout`].
    pub remote_read_timeout_ns: u64,
    /// R9: how long a write waits for a place before it fails with [`Kind::JournalFull`], or for
    /// another write of a block of its (R15) before it fails with [`Kind::Timeout`].
    pub admit_timeout_ns: u64,
    /// Most bytes of memory of writes that wait to be admitted: for a place (R9), for another write of
    /// their blocks (R15), or for the rest of a block from the peer (R7). One more is refused with
    /// [`Kind::Busy`]; a blocking call waits for room, [`Settings::admit_timeout_ns`] at most. A
    /// write that does not wait is not counted, and one alone may always wait: any will do.
    pub waiting_bytes_max: u64,
    /// LADDER 6: longest delay of a write because the own journal is filling, so that its host slows
    /// down before the journal is full; 0: none. The delay is this long when the journal is full, and
    /// rises evenly up to there. A host with n requests in flight is slowed down to n of them in that
    /// time at most: choose n times the largest write by the rate of the line. Any.
    pub pacing_max_ns: u64,
    /// How full the own journal is, in percent, when writes begin to be delayed: its places or its
    /// bytes, whichever are fuller, whatever holds them. From 1 to 99. The default, 80, lies above
    /// three quarters, where a checkpoint is forced, so that only what a checkpoint cannot give up
    /// leads there.
    pub pacing_from_percent: u64,
    /// Below this many percent the delay ends; from 1 to [`Settings::pacing_from_percent`]. The default,
    /// 70, is a tenth lower, which in a journal of 64 MiB is more than
    /// [`Settings::commit_bytes`]: a commit more or less does not change the rung.
    pub pacing_until_percent: u64,
    /// LADDER 6: how full the own journal is, in percent, when the device suspends by itself: bits remember
    /// from then on what the peer lacks, instead of the journal, until it has all again. It does so only if
    /// at least half of what is held is what the peer lacks, and once it has met a peer whose program knows
    /// differential mode. A request too large for the room that is left suspends earlier. From 1 to 100; 0:
    /// never, and writes wait for places ([`Settings::admit_timeout_ns`]). The default, 90, lies above
    /// [`Settings::pacing_from_percent`], so that a host slows down first, and above three quarters, where a
    /// checkpoint is forced; what is left of a journal of 64 MiB, 6 MiB, is more than
    /// [`Settings::commit_bytes`], so that the table is stored before writes wait.
    pub suspend_from_percent: u64,
    /// A device that has met no peer suspends, too, by the same settings: the first one it meets will be of a program
    /// that knows differential mode. Off by default: then writes of such a device wait for a peer once its journal is full.
    pub suspends_without_peer: bool,
    /// LADDER 6: how long the line is down before the device suspends by itself, if there is anything that
    /// the peer lacks; under the same conditions. Any; 0, the default: never, as a journal with room for all
    /// that the peer lacks keeps the order of writes at no cost, however long the line is down.
    pub suspend_after_ns: u64,
    /// LADDER 6: a device that has suspended goes back to order once the blocks that the peer lacks and what
    /// its own journal holds take together less than this many percent of the journal. From 1 to 100, and no
    /// more than [`Settings::suspend_from_percent`] unless that is 0. With the default, 50, hosts find almost half
    /// of the journal free for what they write while the last blocks are copied.
    pub resume_order_below_percent: u64,
    /// LADDER 6: how long it leaves order alone at least after it has suspended by itself. Each time that
    /// ordered mode ends in a suspension, and R was not empty after it had lasted as long, the time doubles:
    /// while a load goes on that the line cannot carry, order is tried again ever more rarely. Any; 0 stays 0. The
    /// default, one second, is above what two devices take to agree on a round.
    pub resume_order_after_ns: u64,
    /// The time does not grow beyond this. Any, [`Settings::resume_order_after_ns`] at least counts. The default
    /// is an hour: so long may a group be without order after its load has come down.
    pub resume_order_after_max_ns: u64,
    /// Most bytes of copies of blocks that are sent and not acknowledged, in differential mode. Any; one
    /// block always goes.
    pub copy_bytes_max: u64,
    /// D10: most bytes of all salvage files together. At the bound a resync stops before it overwrites what
    /// this device alone has, and asks for an operator. Any; 0: nothing is saved, and an opening forgets what was
    /// to be.
    pub salvage_bytes_max: u64,
    /// D10: an opening removes the salvage files whose last part is older than this. Any; 0: they stay until
    /// an operator removes them.
    pub salvage_keep_ns: u64,
    /// LADDER 6: most bytes of the side file that keeps what is overwritten in the normal volumes while they are
    /// no state of the hosts' data: in the middle of a resync into them, say. At the bound the image is given
    /// up, and the resync goes on ([`crate::Status::image`]). Any; 0: none is kept. The default, 1 GiB, is what
    /// salvage may take, holds 260,000 blocks of 4 KiB, and takes 16 MiB of memory at most for their numbers.
    pub image_bytes_max: u64,
    /// Most bytes of data that are sent as copies of blocks in a second; blocks of zeros count nothing,
    /// those that go by checksum the 16 bytes of that.
    /// Any; 0, the default: as many as the line takes. [`crate::Device::set_copy_rate`] changes it.
    pub copy_bytes_per_second: u64,
    /// A host that asks a fenced device for a session takes the host over to it, without notice: the device
    /// asks its peer, and the host is refused with [`Kind::NotReady`] until it serves. Only where nothing
    /// but a host that is to be served asks for a session there. Off by default.
    pub takeover_at_first_request: bool,
    /// How long a takeover waits for the peer's next sign, the first or the next piece of the
    /// prototype, before it fails with [`Kind::Timeout`].
    pub takeover_timeout_ns: u64,
    /// R18: most records that the peer may tell of before they arrive; about 60 bytes of memory
    /// each. Any; with 0 a takeover is told everything when it is asked for.
    pub told_records_max: u64,
    /// Most entries in one piece of a prototype: 2,048 make a frame of 12 KiB as a rule, of 94 KiB
    /// at most. At least 1, at most 32,768. An announcement has no more, and no more than 1,024.
    pub piece_entries_max: usize,
    /// R20: the numbers of volumes to which several sessions may write at once, as the connections of one
    /// host do that shares its requests out among them. A write there supersedes no session, and a host
    /// that gives up one connection with requests under way and repeats them on another is not protected:
    /// the first may be admitted after the second, and after what was written later. Numbers that the
    /// group has not count for nothing.
    pub shared_volumes: Vec<u32>,
    /// R17: most bytes of one write-zeroes or discard; a multiple of 512, from 512 to 32 MiB. Until a
    /// peer was met that knows records of many blocks (R19), more than the largest request counts
    /// as that ([`crate::Device::limits`]).
    pub zero_bytes_max: u64,
    /// Most data bytes in one shipped frame: large enough to fill a line, small enough that a
    /// control frame does not wait long behind one that has begun to leave. At least 1, at most 1 MiB
    /// ([`FRAME_BYTES_MAX`](crate::format::frame::FRAME_BYTES_MAX)); one block always goes.
    pub ship_bytes_max: u64,
    /// Most bytes handed to the link and not yet gone when a frame is added: what is not on the
    /// line stays in R, where it is counted as backlog. Any; with 0 one frame is under way at a
    /// time.
    pub link_queue_bytes_max: u64,
    /// Most bytes waiting in the control lane when a piece of a prototype (S805), or a question or an
    /// answer of a remote read (R7), is added, and most data bytes of one such answer; one block
    /// always goes. A takeover request waits behind twice as much: a line of 100 Mbit/s carries the default twice in 21 ms. Any; with
    /// 0 a lane has one answer of one block at a time.
    pub control_queue_bytes_max: u64,
    /// Most records reflected in one step: they go to N sorted by address, newest only. At least 1.
    pub reflect_records_max: usize,
    /// Fewer records than [`Settings::reflect_records_max`] wait this long for more: what is
    /// written over meanwhile is never written to N, and the rest is sorted better.
    pub reflect_interval_ns: u64,
    /// A checkpoint is due when this many records have been reflected since the last. At least 1.
    pub checkpoint_records: u64,
    /// A checkpoint is due after this time if anything has been reflected.
    pub checkpoint_interval_ns: u64,
    /// Unlogged bytes at which the background commits before the interval is over. At least 1.
    pub commit_bytes: u64,
    /// R9: most records whose data is in memory and not in the own log, beside those of one largest
    /// request: 8,192 blocks are 4 MiB of the smallest, as much as waits for a commit as a rule. A write
    /// that would be one more waits for a place, as the place of its data is a cell of 48 bytes. Any.
    pub unlogged_records_max: u64,
    /// Most records of one batch of a log. At least 1; more than [`Geometry::batch_rows`] counts as
    /// that.
    pub batch_records_max: usize,
}

impl Settings {
    /// Whether a device can be opened with them.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the field, its value and its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |field, found: u64, range: &str| {
            let what = format!("setting {field} is {found}; it must be {range}");
            Err(Error::new(Kind::Config, what))
        };
        let zero_bytes_max = self.zero_bytes_max;
        if !(1..=32 * MIB).contains(&zero_bytes_max) || !zero_bytes_max.is_multiple_of(SECTOR) {
            return wrong(
                "zero_bytes_max",
                zero_bytes_max,
                "a multiple of 512, up to 32 MiB, and not 0",
            );
        }
        let counts = [
            ("piece_entries_max", self.piece_entries_max as u64),
            ("ship_bytes_max", self.ship_bytes_max),
            ("reflect_records_max", self.reflect_records_max as u64),
            ("checkpoint_records", self.checkpoint_records),
            ("commit_bytes", self.commit_bytes),
            ("batch_records_max", self.batch_records_max as u64),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(field, 0, "at least 1");
        }
        let Settings { pacing_from_percent: from, pacing_until_percent: until, .. } = *self;
        if !(1..100).contains(&from) {
            return wrong("pacing_from_percent", from, "1 to 99");
        }
        if !(1..=from).contains(&until) {
            let range = format!("1 to {from}, which is pacing_from_percent");
            return wrong("pacing_until_percent", until, &range);
        }
        if self.suspend_from_percent > 100 {
            return wrong("suspend_from_percent", self.suspend_from_percent, "0 to 100");
        }
        let below = self.resume_order_below_percent;
        if !(1..=100).contains(&below) {
            return wrong("resume_order_below_percent", below, "1 to 100");
        }
        if (1..below).contains(&self.suspend_from_percent) {
            let range =
                format!("1 to {}, which is suspend_from_percent", self.suspend_from_percent);
            return wrong("resume_order_below_percent", below, &range);
        }
        let framed = [
            ("ship_bytes_max", self.ship_bytes_max, FRAME_DATA_MAX),
            ("piece_entries_max", self.piece_entries_max as u64, TOLD_MAX as u64),
        ];
        match framed.into_iter().find(|(_, found, most)| found > most) {
            Some((field, found, most)) => {
                wrong(field, found, &format!("at most {most}, which a frame holds"))
            }
            None => Ok(()),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            durability: Durability::default(),
            commit_interval_ns: 5_000_000,
            remote_read_timeout_ns: 30_000_000_000,
            admit_timeout_ns: 30_000_000_000,
            waiting_bytes_max: 64 * MIB,
            pacing_max_ns: 0,
            pacing_from_percent: 80,
            pacing_until_percent: 70,
            suspend_from_percent: 90,
            suspends_without_peer: false,
            suspend_after_ns: 0,
            resume_order_below_percent: 50,
            resume_order_after_ns: 1_000_000_000,
            resume_order_after_max_ns: 3_600_000_000_000,
            copy_bytes_max: 4 * MIB,
            salvage_bytes_max: 1024 * MIB,
            salvage_keep_ns: 0,
            image_bytes_max: 1024 * MIB,
            copy_bytes_per_second: 0,
            takeover_at_first_request: false,
            takeover_timeout_ns: 30_000_000_000,
            told_records_max: 1 << 20,
            piece_entries_max: 2048,
            shared_volumes: Vec::new(),
            zero_bytes_max: 32 * MIB,
            ship_bytes_max: MIB / 4,
            link_queue_bytes_max: MIB,
            control_queue_bytes_max: MIB / 8,
            reflect_records_max: 16_384,
            reflect_interval_ns: 200_000_000,
            checkpoint_records: 32_768,
            checkpoint_interval_ns: 2_000_000_000,
            commit_bytes: 4 * MIB,
            unlogged_records_max: 8192,
            batch_records_max: ROWS_MAX,
        }
    }
}

/// The limits that a caller must keep to, as [`crate::Device::limits`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a block: the unit of atomicity.
    pub block_size: u32,
    /// Most bytes of one read or write.
    pub request_bytes_max: u64,
    /// Most bytes of one write-zeroes or discard.
    pub zero_bytes_max: u64,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::unit::{Block, Extent};
    use std::collections::BTreeSet;

    #[test]
    fn a_prototype_may_name_every_extent() {
        let blocks = 11;
        let volumes = vec![VolumeSpec { id: 0, bytes: blocks * 4096 }];
        let around = |number| {
            let block = Block { volume: 0, number };
            (0..=Extent::LEVEL_MAX).map(move |level| Extent::around(block, level))
        };
        let all = (0..blocks).flat_map(around).filter(|extent| extent.ends_within(blocks));
        let all = all.collect::<BTreeSet<_>>().len() as u64;
        assert!(all > blocks && all <= Geometry::new(7, 1, volumes).prototype_entries_max());
    }
}
