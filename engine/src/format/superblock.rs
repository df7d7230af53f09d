//! The superblock: what a device must know before it reads anything else, in two copies.
//!
//! A copy is one sector, which the medium writes whole or not at all: a copy with a wrong checksum
//! is rot, never half an update. Every update writes both copies and syncs once, so whichever
//! survives is the newest that anybody was told of, or newer. The table of volumes stands behind
//! them, is written once, and is named by its checksum in both.

use super::{PAGE, StampBytes, VERSION, check_page, checksum, wrong_magic};
use crate::unit::{SECTOR, Stamp};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTSUPER";

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
const FLAGS: u32 = FENCED | CLEAN | PREFER | RESUME_ALONE | UNUSABLE;

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
    unused: U32,
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
    rest: [u8; 200],
}

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

/// How the device stands to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Records are shipped and received.
    Paired,
    /// On its own; a bitmap remembers what the peer lacks (R11, R12).
    Detached,
    /// Being brought together again (R11).
    Copying,
}

/// What the superblock says of a log.
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
    /// How it stands to its peer.
    pub mode: Mode,
    /// No host I/O.
    pub fenced: bool,
    /// Closed cleanly: logs and volumes are as this says.
    pub clean: bool,
    /// With both devices fenced, this one asks (R13).
    pub prefer: bool,
    /// May serve after a restart without hearing from the peer (R13).
    pub resume_alone: bool,
    /// N is a prefix of history, or will be.
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
    /// Checkpoint: every record up to this is durable in N.
    pub fl: Stamp,
    /// COPYING target: consistent from this stamp on.
    pub consat: Stamp,
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
            | flag(self.clean, CLEAN)
            | flag(self.prefer, PREFER)
            | flag(self.resume_alone, RESUME_ALONE)
            | flag(!self.usable, UNUSABLE);
        let mut bytes = SuperblockBytes::new_zeroed();
        bytes.magic = MAGIC;
        bytes.version = VERSION.into();
        bytes.mode = self.mode as u8;
        bytes.generation = self.generation.into();
        bytes.group = self.group.to_le_bytes();
        bytes.device = self.device.into();
        bytes.flags = flags.into();
        bytes.block_size = self.block_size.into();
        bytes.segment_bytes = self.segment_bytes.into();
        bytes.volumes = (self.volumes.len() as u32).into();
        bytes.volumes_checksum = checksum(0, &Self::encode_volumes(&self.volumes)).into();
        bytes.epoch = self.epoch.into();
        bytes.lineage = self.lineage.0.into();
        bytes.lineage_id = self.lineage.1.into();
        bytes.hi = self.hi.into();
        bytes.acked = self.acked.into();
        bytes.need = self.need.into();
        bytes.fl = self.fl.into();
        bytes.consat = self.consat.into();
        bytes.own = self.own.encode();
        bytes.recv = self.recv.encode();
        bytes.checksum = checksum(0, bytes.as_bytes()).into();
        zerocopy::transmute!(bytes)
    }

    /// Whether one device can be in this state. What concerns the geometry alone is checked where a
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
        let stamps = [("hi", self.hi), ("acked", self.acked), ("need", self.need), ("fl", self.fl)];
        if let Some((name, stamp)) = stamps.into_iter().find(|(_, s)| s.epoch > self.epoch) {
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
        Ok(())
    }

    /// Reads one copy; `volumes` is all that stands behind [`VOLUMES_OFFSET`].
    ///
    /// # Errors
    /// Which field is wrong and how; a page of another size, a wrong checksum, another version.
    pub fn decode(page: &[u8], volumes: &[u8]) -> Result<Superblock, String> {
        let Ok(bytes) = SuperblockBytes::read_from_bytes(page) else {
            return Err(format!("a superblock is {COPY_BYTES} bytes, found {}", page.len()));
        };
        if bytes.magic != MAGIC {
            return Err(wrong_magic(&bytes.magic, &MAGIC));
        }
        let mut unsigned = bytes.clone();
        unsigned.checksum = 0.into();
        check_page(unsigned.as_bytes(), bytes.checksum.get(), bytes.version.get())?;
        let mode = match bytes.mode {
            0 => Mode::Paired,
            1 => Mode::Detached,
            2 => Mode::Copying,
            other => return Err(format!("mode is {other}, not 0 to 2")),
        };
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
        if flags & !FLAGS != 0 {
            return Err(format!(
                "flags are {flags:#x}, of which {:#x} mean nothing",
                flags & !FLAGS
            ));
        }
        Ok(Superblock {
            generation: bytes.generation.get(),
            group: u128::from_le_bytes(bytes.group),
            device: bytes.device.get(),
            mode,
            fenced: flags & FENCED != 0,
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
            fl: bytes.fl.into(),
            consat: bytes.consat.into(),
            own: LogState::decode(&bytes.own),
            recv: LogState::decode(&bytes.recv),
            volumes: table
                .chunks_exact(16)
                .map(|row| VolumeSpec { id: u64_at(row, 0) as u32, bytes: u64_at(row, 8) })
                .collect(),
        })
    }
}
