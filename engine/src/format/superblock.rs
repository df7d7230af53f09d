//! The superblock: what a device must know before it reads anything else, in two copies.
//!
//! A copy is one sector, which the medium writes whole or not at all: a copy with a wrong checksum
//! is rot, never half an update. Every update writes both copies and syncs once, so whichever
//! survives is the newest that anybody was told of, or newer. The table of volumes stands behind
//! them, is written once, and is named by its checksum in both.
//!
//! Version 2 had the same fields at the same places and zeros where version 3 has more. It is read,
//! and the first update, which every opening makes, writes version 3.

mod features;
mod history;

pub use features::Features;
pub use history::{ANCESTORS_MAX, Branch, History};

use super::{PAGE, StampBytes, check_page, checksum, is_magic};
use crate::unit::{Blocks, Mode, Round, SECTOR, Stamp};
use features::unknown;
use std::collections::HashMap;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTSUPER";

/// Version of the superblock.
pub const VERSION: u16 = 3;
/// The versions that are read.
const READS: [u16; 2] = [2, VERSION];
/// Version of the table of volumes.
pub const VOLUMES_VERSION: u16 = 2;

/// Bytes of one copy: a sector.
pub const COPY_BYTES: u64 = SECTOR;
/// Where the copies begin: in pages of their own, so that damage to one spares the other.
pub const COPY_OFFSETS: [u64; 2] = [0, PAGE];
/// Where the table of volumes begins.
pub const VOLUMES_OFFSET: u64 = 2 * PAGE;

const FENCED: u32 = 1;
const CLEAN: u32 = 2;
const PREFER: u32 = 4;
const RESUME_ALONE: u32 = 8;
const UNUSABLE: u32 = 16;
const LOST: u32 = 32;
const OWED: u32 = 64;
const IMAGE: u32 = 128;
const FENCED_HERE: u32 = 256;
/// The flags of each version that is read.
const FLAGS: [u32; 2] = [
    FENCED | CLEAN | PREFER | RESUME_ALONE | UNUSABLE,
    FENCED | CLEAN | PREFER | RESUME_ALONE | UNUSABLE | LOST | OWED | IMAGE | FENCED_HERE,
];

#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SuperblockBytes {
    magic: [u8; 8],
    version: U16,
    mode: u8,
    reserved: [u8; 5],
    checksum: U64,
    generation: U64,
    group: [u8; 16],
    device: U64,
    flags: U32,
    block_size: U32,
    segment_bytes: U64,
    volumes: U32,
    volumes_version: U16,
    unused: U16,
    volumes_checksum: U64,
    epoch: U64,
    lineage: U64,
    lineage_id: U64,
    hi: StampBytes,
    acked: StampBytes,
    need: StampBytes,
    fl: StampBytes,
    consat: StampBytes,
    unused2: U32,
    own: LogBytes,
    recv: LogBytes,
    compat: U64,
    ro_compat: U64,
    incompat: U64,
    whole: StampBytes,
    lost_first: StampBytes,
    lost_since: U64,
    lost_found: U64,
    round: [U64; 2],
    last_active: U64,
    peer: U64,
    cut: StampBytes,
    annex_bytes: U32,
    annex_checksum: U64,
    cache_identity: [u8; 32],
    weakest: u8,
    annex_slot: u8,
    table_slot: u8,
    table_bytes: U64,
    table_checksum: U64,
    rest: [u8; REST],
}

/// Bytes of the sector that no field has yet.
pub const REST: usize = 5;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LogBytes {
    bytes: U64,
    incarnation: U64,
    tail_offset: U64,
    tail_sequence: U64,
    durable: U64,
    opened: U64,
}

/// No log ever holds so many records; sums of sequence numbers below it cannot overflow.
pub const SEQUENCE_MAX: u64 = 1 << 62;

const _: () = assert!(size_of::<SuperblockBytes>() == COPY_BYTES as usize);

/// The number of a mode on disk and on the wire.
pub(super) fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Ordered => 0,
        Mode::Copying => 2,
        Mode::Collecting => 3,
        Mode::Sending => 4,
    }
}

/// The mode of such a number; 1 was to be a mode of an earlier program.
pub(super) fn mode_of(number: u32) -> Result<Mode, String> {
    match number {
        0 => Ok(Mode::Ordered),
        2 => Ok(Mode::Copying),
        3 => Ok(Mode::Collecting),
        4 => Ok(Mode::Sending),
        other => {
            let was = if other == 1 { ", detached of an earlier program" } else { "" };
            Err(format!(
                "mode is {other}{was}, not 0 (ordered), 2 (copying), 3 (collecting) or 4 (sending)"
            ))
        }
    }
}

/// The mark that writes of which hosts had been told are lost (R20). Times are in nanoseconds since
/// 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The first record dropped; zero if it is not known: it left nothing in the log.
    pub first: Stamp,
    /// No write with an earlier time in its stamp is lost: the hosts' time, as far as they gave one; 0
    /// if that is not known, as when nothing of the tenure was in the volumes or at the peer.
    pub since: u64,
    /// When the loss was found, by the device's clock.
    pub found: u64,
}

/// Where the annex is: what of the superblock does not fit into its sector, in bytes 512 to 4095 of
/// one of its two pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annex {
    /// Which page: 0 or 1.
    pub slot: u8,
    /// How long it is, in bytes; 0 if there is none.
    pub bytes: u32,
    /// Its checksum.
    pub checksum: u64,
}

/// Which side file has the differential administration table, with the blocks in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRef {
    /// The number of the side file: 0 or 1.
    pub slot: u8,
    /// How long the side file is, in bytes; 0 if the table is empty: then there need be no file.
    pub bytes: u64,
    /// The checksum of the side file.
    pub checksum: u64,
}

/// Most bytes of a table's side file: a table of so many runs has no room in memory.
pub const TABLE_BYTES_MAX: u64 = 4 << 30;

/// Most bytes of an annex.
pub const ANNEX_BYTES_MAX: u64 = PAGE - COPY_BYTES;

/// A log's state, as the superblock has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// The log's life: records of an earlier one are dead.
    pub incarnation: u64,
    /// Byte offset of the oldest batch that is still held, or where the next one goes.
    pub tail_offset: u64,
    /// Log sequence number of that batch's first row, or of the next row.
    pub tail_sequence: u64,
    /// `dl`: the highest log sequence number durable when this was written.
    pub durable: u64,
    /// The generation of the superblock at the opening which wrote that batch, or, if none is
    /// held, at the present one: no batch of an older opening can stand there.
    pub opened: u64,
}

/// A volume of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeSpec {
    /// Its number, unique in the group.
    pub id: u32,
    /// Its size in bytes, a multiple of the sector.
    pub bytes: u64,
}

/// The durable state of a device that is neither a record nor a block (`docs/format.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Raised by one with every update; says which copy is the newer.
    pub generation: u64,
    /// The consistency group.
    pub group: u128,
    /// This device's number in its pair.
    pub device: u64,
    /// How host writes reach the peer.
    pub mode: Mode,
    /// No host I/O: the host is granted to the peer.
    pub fenced: bool,
    /// No host I/O, by an operator's word: the tenure is kept.
    pub fenced_here: bool,
    /// Closed cleanly: logs and volumes are as this says.
    pub clean: bool,
    /// With both devices fenced, this one asks (R13).
    pub prefer: bool,
    /// May serve after a restart without hearing from the peer (R13).
    pub resume_alone: bool,
    /// N is a prefix of history, or will be in ordered mode once all up to `consat` is here.
    pub usable: bool,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a segment file of a normal volume.
    pub segment_bytes: u64,
    /// The highest tenure granted or held.
    pub epoch: u64,
    /// `gen`: the lineage's number and unique id.
    pub lineage: (u64, u64),
    /// Highest stamp received from the peer.
    pub hi: Stamp,
    /// Highest own stamp acknowledged by the peer.
    pub acked: Stamp,
    /// Newest stamp owed or received when this device last became active.
    pub need: Stamp,
    /// Newest record that could be in N when `need` was last raised: up to it N was a prefix (R8).
    /// [`Stamp::ZERO`] in a directory of an earlier program.
    pub whole: Stamp,
    /// Checkpoint: every record up to this is durable in N.
    pub fl: Stamp,
    /// N is a prefix of history once all of the peer's up to this stamp is here (D9); zero: it is one
    /// now.
    pub consat: Stamp,
    /// Its features beyond its version.
    pub features: Features,
    /// Writes of which hosts had been told are lost (R20).
    pub lost: Option<Lost>,
    /// The round of the ladder.
    pub round: Round,
    /// The last epoch in which this device was active; 0: not known.
    pub last_active: u64,
    /// The peer's device id, which `hi` and `acked` are about; 0: any.
    pub peer: u64,
    /// Own records up to it are of no R and imply no bit (D8).
    pub cut: Stamp,
    /// The peer may owe blocks that only bits tell of.
    pub owed: bool,
    /// The side file of the last consistent image counts: where N is no prefix, it has what was overwritten
    /// since N was one; where N is one (`usable`, and `consat` zero), a forced takeover puts it back.
    pub image: bool,
    /// Under which un-synced writes survive a process (R20); zero: under none.
    pub cache_identity: [u8; 32],
    /// The weakest durability of a write completed since the last clean close (R20): 1 strict, 2
    /// written, 3 volatile, 4 never; 0: not known.
    pub weakest: u8,
    /// Where the annex is.
    pub annex: Annex,
    /// The annex: the lineage's ancestors, and what is decided about them (D10).
    pub history: History,
    /// The differential administration table (D8).
    pub table: TableRef,
    /// Bytes that a compat feature may use, kept as they are.
    pub rest: [u8; REST],
    /// The own log.
    pub own: LogState,
    /// The received log.
    pub recv: LogState,
    /// The volumes.
    pub volumes: Vec<VolumeSpec>,
}

impl LogState {
    fn encode(&self) -> LogBytes {
        LogBytes {
            bytes: self.bytes.into(),
            incarnation: self.incarnation.into(),
            tail_offset: self.tail_offset.into(),
            tail_sequence: self.tail_sequence.into(),
            durable: self.durable.into(),
            opened: self.opened.into(),
        }
    }

    fn decode(bytes: &LogBytes) -> LogState {
        LogState {
            bytes: bytes.bytes.get(),
            incarnation: bytes.incarnation.get(),
            tail_offset: bytes.tail_offset.get(),
            tail_sequence: bytes.tail_sequence.get(),
            durable: bytes.durable.get(),
            opened: bytes.opened.get(),
        }
    }
}

impl Superblock {
    /// All blocks of every volume.
    pub(crate) fn whole(&self) -> impl Iterator<Item = Blocks> + '_ {
        let size = u64::from(self.block_size);
        let volumes = self.volumes.iter().filter(|volume| volume.bytes > 0);
        volumes.map(move |v| Blocks { volume: v.id, numbers: 0..v.bytes.div_ceil(size) })
    }

    /// The table of volumes as it stands behind the copies.
    pub fn encode_volumes(volumes: &[VolumeSpec]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(volumes.len() * 16);
        for volume in volumes {
            bytes.extend_from_slice(&u64::from(volume.id).to_le_bytes());
            bytes.extend_from_slice(&volume.bytes.to_le_bytes());
        }
        bytes
    }

    /// One copy as it stands on disk.
    pub fn encode(&self) -> [u8; COPY_BYTES as usize] {
        let flag = |on, bit| if on { bit } else { 0 };
        let flags = flag(self.fenced, FENCED)
            | flag(self.fenced_here, FENCED_HERE)
            | flag(self.clean, CLEAN)
            | flag(self.prefer, PREFER)
            | flag(self.resume_alone, RESUME_ALONE)
            | flag(!self.usable, UNUSABLE)
            | flag(self.lost.is_some(), LOST)
            | flag(self.owed, OWED)
            | flag(self.image, IMAGE);
        let mut bytes = SuperblockBytes::new_zeroed();
        bytes.magic = MAGIC;
        bytes.version = VERSION.into();
        bytes.mode = mode_number(self.mode);
        bytes.generation = self.generation.into();
        bytes.group = self.group.to_le_bytes();
        bytes.device = self.device.into();
        bytes.flags = flags.into();
        bytes.block_size = self.block_size.into();
        bytes.segment_bytes = self.segment_bytes.into();
        bytes.volumes = (self.volumes.len() as u32).into();
        bytes.volumes_version = VOLUMES_VERSION.into();
        bytes.volumes_checksum = checksum(0, &Self::encode_volumes(&self.volumes)).into();
        bytes.epoch = self.epoch.into();
        bytes.lineage = self.lineage.0.into();
        bytes.lineage_id = self.lineage.1.into();
        bytes.hi = self.hi.into();
        bytes.acked = self.acked.into();
        bytes.need = self.need.into();
        bytes.whole = self.whole.into();
        bytes.fl = self.fl.into();
        bytes.consat = self.consat.into();
        bytes.own = self.own.encode();
        bytes.recv = self.recv.encode();
        bytes.compat = self.features.compat.into();
        bytes.ro_compat = self.features.ro_compat.into();
        bytes.incompat = self.features.incompat.into();
        let lost = self.lost.unwrap_or_default();
        bytes.lost_first = lost.first.into();
        bytes.lost_since = lost.since.into();
        bytes.lost_found = lost.found.into();
        bytes.round = [self.round.generation.into(), self.round.counter.into()];
        bytes.last_active = self.last_active.into();
        bytes.peer = self.peer.into();
        bytes.cut = self.cut.into();
        bytes.annex_bytes = self.annex.bytes.into();
        bytes.annex_checksum = self.annex.checksum.into();
        bytes.annex_slot = self.annex.slot;
        bytes.cache_identity = self.cache_identity;
        bytes.weakest = self.weakest;
        bytes.table_slot = self.table.slot;
        bytes.table_bytes = self.table.bytes.into();
        bytes.table_checksum = self.table.checksum.into();
        bytes.rest = self.rest;
        bytes.checksum = checksum(0, bytes.as_bytes()).into();
        zerocopy::transmute!(bytes)
    }

    /// How many blocks each volume has.
    pub fn volume_blocks(&self) -> HashMap<u32, u64> {
        let size = u64::from(self.block_size);
        self.volumes.iter().map(|v| (v.id, v.bytes.div_ceil(size))).collect()
    }

    /// Whether one device can be in this state. The geometry's own rules are checked where a
    /// geometry is.
    ///
    /// # Errors
    /// Which field is impossible, and why.
    pub fn check(&self) -> Result<(), String> {
        if self.generation == 0 {
            return Err("generation is 0, which no update writes".into());
        }
        if self.epoch == 0 {
            return Err("epoch is 0; tenures are counted from 1".into());
        }
        let Superblock { hi, acked, need, fl, whole, consat, cut, .. } = *self;
        let stamps = [("hi", hi), ("acked", acked), ("need", need), ("fl", fl), ("whole", whole)];
        let mut stamps = stamps.into_iter().chain([("consat", consat), ("cut", cut)]);
        if let Some((name, stamp)) = stamps.find(|(_, s)| s.epoch > self.epoch) {
            let epoch = self.epoch;
            return Err(format!("{name} is {stamp}, but no tenure above {epoch} was ever known"));
        }
        if self.own.bytes != self.recv.bytes {
            let (own, recv) = (self.own.bytes, self.recv.bytes);
            return Err(format!("the logs have {own} and {recv} bytes; they are of one size"));
        }
        for (name, log) in [("own", &self.own), ("received", &self.recv)] {
            let wrong = |what: String| Err(format!("{name} log: {what}"));
            let LogState { bytes, tail_offset, tail_sequence, durable, opened, .. } = *log;
            if tail_offset > bytes || tail_offset % PAGE != 0 {
                return wrong(format!("tail offset {tail_offset} is no page of {bytes} bytes"));
            }
            if tail_sequence == 0 || tail_sequence > SEQUENCE_MAX {
                return wrong(format!("tail sequence is {tail_sequence}"));
            }
            if durable < tail_sequence - 1 || durable > SEQUENCE_MAX {
                return wrong(format!("durable is {durable}, the tail {tail_sequence}"));
            }
            if opened > self.generation {
                let generation = self.generation;
                return wrong(format!("opened is {opened}, the generation only {generation}"));
            }
        }
        self.check_differential()
    }

    /// The peer has the own records up to this stamp, or bits tell of them (D8).
    pub fn floor(&self) -> Stamp {
        match self.mode {
            Mode::Ordered | Mode::Copying => self.acked.max(self.cut),
            Mode::Collecting | Mode::Sending => Stamp::MAX,
        }
    }

    /// Whether the group is always in differential mode.
    pub fn is_always_differential(&self) -> bool {
        self.features.incompat & Features::ALWAYS_DIFFERENTIAL != 0
    }

    /// Whether it says what only a device says that is, or was, in differential mode.
    pub(crate) fn is_differential(&self) -> bool {
        self.mode != Mode::Ordered
            || self.round != Round::default()
            || self.table != TableRef::default()
            || self.owed
            || self.cut != Stamp::ZERO
    }

    fn check_differential(&self) -> Result<(), String> {
        let Superblock { mode, round, owed, cut, table, .. } = *self;
        let TableRef { slot, bytes, checksum } = table;
        let has_feature = self.features.incompat & Features::DIFFERENTIAL != 0;
        if self.is_differential() && !has_feature {
            return Err(format!(
                "mode is {mode}, round {round}, owed {owed}, cut {cut}, the table has {bytes} bytes in slot {slot}: incompat feature {:#x}, which says so, is not set",
                Features::DIFFERENTIAL
            ));
        }
        if self.is_always_differential() && matches!(mode, Mode::Ordered | Mode::Copying) {
            return Err(format!("mode is {mode}, but the group is always in differential mode"));
        }
        let is_length = bytes.is_multiple_of(PAGE) && bytes <= TABLE_BYTES_MAX;
        if slot > 1 || !is_length || bytes == 0 && checksum != 0 {
            return Err(format!(
                "the table is said to have {bytes} bytes of checksum {checksum:016x} in slot {slot}, and no file of a table is so"
            ));
        }
        if mode == Mode::Ordered && bytes > 0 {
            return Err(format!("mode is ordered, but the table has {bytes} bytes, and so bits"));
        }
        let (last_active, epoch) = (self.last_active, self.epoch);
        if last_active > epoch {
            return Err(format!("last active is {last_active}, a tenure above {epoch}"));
        }
        if !self.usable && self.consat != Stamp::ZERO {
            let consat = self.consat;
            return Err(format!("consat is {consat}, but the volumes are no prefix of history"));
        }
        Ok(())
    }

    /// The version of a copy that is whole, if this program reads it.
    fn check_version(bytes: &SuperblockBytes) -> Result<u16, String> {
        is_magic(&bytes.magic, &MAGIC)?;
        let mut unsigned = bytes.clone();
        unsigned.checksum = 0.into();
        let version = bytes.version.get();
        check_page(unsigned.as_bytes(), bytes.checksum.get(), version, &READS)?;
        Ok(version)
    }

    /// Why a copy that is whole must be left to a later version of this program, if it must: magic,
    /// version, checksum and features stand at the same places in every version.
    pub(crate) fn is_of_later_version(page: &[u8]) -> Option<String> {
        let bytes = SuperblockBytes::read_from_bytes(page).ok()?;
        let mut unsigned = bytes.clone();
        unsigned.checksum = 0.into();
        let whole = bytes.checksum.get() == checksum(0, unsigned.as_bytes());
        if bytes.magic != MAGIC || !whole {
            return None;
        }
        let version = bytes.version.get();
        if version > VERSION {
            return Some(format!("version is {version}, this program reads up to {VERSION}"));
        }
        unknown("incompat", bytes.incompat.get() & !Features::KNOWN.incompat).err()
    }

    /// Reads one copy; `volumes` is all that stands behind [`VOLUMES_OFFSET`]. The annex is not read.
    ///
    /// # Errors
    /// Which field is wrong and how; a page of another size, a wrong checksum, another version.
    pub fn decode(page: &[u8], volumes: &[u8]) -> Result<Superblock, String> {
        let Ok(bytes) = SuperblockBytes::read_from_bytes(page) else {
            return Err(format!("a superblock is {COPY_BYTES} bytes, found {}", page.len()));
        };
        let version = Self::check_version(&bytes)?;
        let features = Features {
            compat: bytes.compat.get(),
            ro_compat: bytes.ro_compat.get(),
            incompat: bytes.incompat.get(),
        };
        unknown("incompat", features.incompat & !Features::KNOWN.incompat)?;
        let mode = mode_of(bytes.mode.into())?;
        let expected = if version == 2 { 0 } else { VOLUMES_VERSION };
        if bytes.volumes_version.get() != expected {
            let found = bytes.volumes_version.get();
            return Err(format!(
                "the table of volumes has version {found}, this program reads {VOLUMES_VERSION}"
            ));
        }
        let table = bytes.volumes.get() as usize * 16;
        let Some(table) = volumes.get(..table) else {
            let found = volumes.len();
            return Err(format!("the table of volumes has {found} bytes, needs {table}"));
        };
        let computed = checksum(0, table);
        if bytes.volumes_checksum.get() != computed {
            let stored = bytes.volumes_checksum.get();
            return Err(format!(
                "the table of volumes gives checksum {computed:016x}, not {stored:016x}"
            ));
        }
        let u64_at = |row: &[u8], at| u64::from_le_bytes(row[at..at + 8].try_into().expect("8"));
        let flags = bytes.flags.get();
        let known = FLAGS[usize::from(version != 2)];
        if flags & !known != 0 {
            let unknown = flags & !known;
            return Err(format!("flags are {flags:#x}, of which {unknown:#x} mean nothing"));
        }
        let lost = Lost {
            first: bytes.lost_first.into(),
            since: bytes.lost_since.get(),
            found: bytes.lost_found.get(),
        };
        Ok(Superblock {
            generation: bytes.generation.get(),
            group: u128::from_le_bytes(bytes.group),
            device: bytes.device.get(),
            mode,
            fenced: flags & FENCED != 0,
            fenced_here: flags & FENCED_HERE != 0,
            clean: flags & CLEAN != 0,
            prefer: flags & PREFER != 0,
            resume_alone: flags & RESUME_ALONE != 0,
            usable: flags & UNUSABLE == 0,
            block_size: bytes.block_size.get(),
            segment_bytes: bytes.segment_bytes.get(),
            epoch: bytes.epoch.get(),
            lineage: (bytes.lineage.get(), bytes.lineage_id.get()),
            hi: bytes.hi.into(),
            acked: bytes.acked.into(),
            need: bytes.need.into(),
            whole: bytes.whole.into(),
            fl: bytes.fl.into(),
            consat: bytes.consat.into(),
            features,
            lost: (flags & LOST != 0).then_some(lost),
            round: Round { generation: bytes.round[0].get(), counter: bytes.round[1].get() },
            last_active: bytes.last_active.get(),
            peer: bytes.peer.get(),
            cut: bytes.cut.into(),
            owed: flags & OWED != 0,
            image: flags & IMAGE != 0,
            cache_identity: bytes.cache_identity,
            weakest: bytes.weakest,
            annex: Annex {
                slot: bytes.annex_slot,
                bytes: bytes.annex_bytes.get(),
                checksum: bytes.annex_checksum.get(),
            },
            history: History::default(),
            table: TableRef {
                slot: bytes.table_slot,
                bytes: bytes.table_bytes.get(),
                checksum: bytes.table_checksum.get(),
            },
            rest: bytes.rest,
            own: LogState::decode(&bytes.own),
            recv: LogState::decode(&bytes.recv),
            volumes: table
                .chunks_exact(16)
                .map(|row| VolumeSpec { id: u64_at(row, 0) as u32, bytes: u64_at(row, 8) })
                .collect(),
        })
    }
}
