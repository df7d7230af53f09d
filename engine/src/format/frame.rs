//! The frames of the two devices, as bytes.
//!
//! A frame is a 32-byte header and a body; a shipped frame's body has the same rows as a log's
//! batch, each with its remaining data information (S1500), and then the blocks. The checksum
//! covers header and body but no block: blocks have their rows' checksums.
//!
//! Every later version can read a hello's header and the first 16 bytes of its body, which never
//! change: the wire versions and the features that the sender speaks. All else is in the version
//! that both speak ([`WireRange::common`]).

use super::superblock::{Lost, Mode, VolumeSpec};
use super::{Row, RowBytes, StampBytes, checksum, is_magic, told};
use crate::error::{Error, Kind, Result};
use crate::unit::{Block, Stamp};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"AFTF";

/// The wire versions that this program speaks.
pub const WIRE: WireRange = WireRange { min: 3, max: 3 };

/// The wire features that this program knows, a bit each.
pub const FEATURES: u64 = SERVING_FEATURE;

/// A device that serves says so, and that hosts reach it ([`Frame::Serving`]).
pub(crate) const SERVING_FEATURE: u64 = 1;

/// A range of wire versions, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl std::fmt::Display for WireRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.min == self.max {
            true => write!(f, "wire version {}", self.min),
            false => write!(f, "wire versions {} to {}", self.min, self.max),
        }
    }
}

impl WireRange {
    /// The version that a device with this range speaks with one of `theirs`: the highest of both.
    ///
    /// # Errors
    /// [`Kind::Protocol`], naming both ranges, if no version is in both.
    pub fn common(self, theirs: WireRange) -> Result<u16> {
        let highest = self.max.min(theirs.max);
        match highest >= self.min.max(theirs.min) {
            true => Ok(highest),
            false => Err(broken(format!(
                "the peer speaks {theirs}, this device {self}: they have none in common; upgrade \
                 the older of the two first"
            ))),
        }
    }
}

/// Most bytes of a frame, in either lane: room for 1 MiB of data in blocks of 512 bytes
/// with a row of 88 bytes each, 1.2 MiB, and for the hello of a group of 65,536 volumes, 0.8 MiB; and
/// for rows to grow by half. A link makes no room for a longer one, and a device refuses it.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// Most bytes of data, or of entries, in one frame: what the settings allow, and the window of remote
/// reads.
pub(crate) const FRAME_DATA_MAX: u64 = 1 << 20;

const ROWS: usize = FRAME_DATA_MAX as usize / 512;
const _: () = assert!(HEADER + 64 + ROWS * (SHIPPED + 512) <= FRAME_BYTES_MAX);

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 4],
    version: U16,
    kind: U16,
    /// Bytes of the body that the checksum covers; blocks follow it.
    body: U64,
    session: U64,
    checksum: U64,
}

pub(crate) const HEADER: usize = size_of::<HeaderBytes>();
/// Bytes of a shipped record without its data.
const SHIPPED: usize = 88;
/// Most records that are told of in one frame.
pub(crate) const TOLD_MAX: usize = 1 << 15;
const _: () = assert!(HEADER + 128 + TOLD_MAX * told::ENTRY_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(HEADER == 32);

/// The part of a hello that never changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloPrefix {
    min: U16,
    max: U16,
    /// Bytes of the fixed part that follows; it only grows, at its end.
    fixed: U32,
    features: U64,
}

const HELLO_PREFIX: usize = size_of::<HelloPrefix>();
const _: () = assert!(HELLO_PREFIX == 16);
/// Bytes of a hello's fixed part as this version writes it.
const HELLO_FIXED: usize = 220;

/// The first frame of a device when it connects (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire versions that it speaks.
    pub wire: WireRange,
    /// The wire features that it knows, a bit each.
    pub features: u64,
    /// The consistency group.
    pub group: u128,
    /// The sender.
    pub device: u64,
    /// Names this connection.
    pub nonce: u64,
    /// The sender's lineage.
    pub lineage: (u64, u64),
    /// How it stands to its peer.
    pub mode: Mode,
    /// Whether its volumes are a prefix of history.
    pub usable: bool,
    /// Whether it refuses host I/O.
    pub fenced: bool,
    /// Whether a takeover request of its own is open.
    pub asking: bool,
    /// The highest tenure it granted or held.
    pub epoch: u64,
    /// Highest stamp it received.
    pub hi: Stamp,
    /// The highest stamp that it knows of as sealed (R2): at least `hi` and `newest`.
    pub clk: Stamp,
    /// The newest own stamp it ever recorded.
    pub newest: Stamp,
    /// The round of the ladder, lineage number and counter; zero so far.
    pub round: (u64, u64),
    /// The mark of lost writes that hosts were told of (R20); none so far.
    pub lost: Option<Lost>,
    /// The last stamp told to it (R18).
    pub told: Stamp,
    /// How many records it can be told of before they arrive (R18).
    pub told_max: u64,
    /// Free places of its received log.
    pub credit: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Its volumes.
    pub volumes: Vec<VolumeSpec>,
}

/// A shipped record (S1500).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// The record.
    pub row: Row,
    /// Remaining data information: the newest stamp left for this block, if any.
    pub remaining: Option<Stamp>,
    /// Total remaining data flag: whether anything newer is left at all.
    pub total_remaining: bool,
}

/// Everything that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a connection has one hello of each end")]
pub enum Frame<'a> {
    /// On connecting.
    Hello(Hello),
    /// S803: asks for the tenure `epoch` and the prototype.
    Takeover {
        /// The tenure asked for.
        epoch: u64,
        /// The device that asks.
        device: u64,
        /// Names the request.
        nonce: u64,
        /// The last stamp told (R18): the answer names what is newer.
        told: Stamp,
    },
    /// S805: grants a tenure; a piece of the prototype, in rising stamp order.
    Prototype {
        /// The request answered.
        nonce: u64,
        /// The tenure granted.
        grant: u64,
        /// This piece and those behind it have at most so many entries.
        left: u64,
        /// Whether it is the last.
        is_last: bool,
        /// The stamp told before the first of these, or one that the receiver has received.
        previous: Stamp,
        /// Block and newest stamp.
        entries: Vec<(Block, Stamp)>,
    },
    /// The request lost against the sender's own (R5).
    Busy {
        /// The request refused.
        nonce: u64,
    },
    /// S1005: asks for the newest data of neighbouring blocks.
    ReadRequest {
        /// The requester's tenure.
        epoch: u64,
        /// Names the first block's request; those after it have the next numbers.
        id: u64,
        /// The first block.
        block: Block,
        /// How many blocks.
        count: u32,
    },
    /// Answers some of the blocks of a read request, in its order.
    ReadReply {
        /// The first request answered.
        id: u64,
        /// The newest record's row of each block; none of one that is not pending here.
        rows: Vec<Option<Row>>,
        /// The data of those that have any, one after the other.
        data: &'a [u8],
    },
    /// The sender serves under the tenure that the receiver granted. With the wire feature 1 only.
    Serving {
        /// The tenure.
        epoch: u64,
        /// Hosts reach the sender: an address has moved.
        reachable: bool,
    },
    /// Cumulative acknowledgement.
    Ack {
        /// Everything up to this is durable at the sender.
        hi: Stamp,
        /// Free places of its received log.
        credit: u64,
    },
    /// R18: durable records whose data comes later, in stamp order.
    Announce {
        /// The stamp told before the first of these, or one that the receiver has received.
        previous: Stamp,
        /// Block and stamp.
        entries: Vec<(Block, Stamp)>,
    },
    /// Records, in stamp order, with their data one after the other.
    Ship {
        /// The stamp shipped before the first of these.
        previous: Stamp,
        /// The tenure that the sender granted when it was fenced, whose prototype names what
        /// remains; 0 from a sender that is not fenced.
        granted: u64,
        /// The records.
        records: Vec<Shipped>,
        /// The data of those that have any.
        data: &'a [u8],
    },
}

/// Builds a shipped frame without a second copy of the data: rows first, then blocks are appended
/// to the buffer that [`ShipBuilder::finish`] returns.
#[derive(Debug)]
pub struct ShipBuilder {
    bytes: Vec<u8>,
    body: usize,
}

impl ShipBuilder {
    /// Begins a frame of wire version `version` with all its rows; `data_bytes` will be appended.
    pub fn new(
        version: u16,
        session: u64,
        previous: Stamp,
        granted: u64,
        records: &[Shipped],
        data_bytes: usize,
    ) -> ShipBuilder {
        let mut bytes = Vec::with_capacity(HEADER + 64 + records.len() * SHIPPED + data_bytes);
        bytes.resize(HEADER, 0);
        put_stamp(&mut bytes, previous);
        put_u64(&mut bytes, granted);
        put_u32(&mut bytes, records.len() as u32);
        for record in records {
            bytes.extend_from_slice(RowBytes::from(&record.row).as_bytes());
            put_stamp(&mut bytes, record.remaining.unwrap_or(Stamp::ZERO));
            put_u32(&mut bytes, u32::from(record.total_remaining));
        }
        let body = bytes.len() - HEADER;
        seal(&mut bytes, version, SHIP, session, body);
        ShipBuilder { bytes, body }
    }

    /// Room for the next block's data.
    pub fn block(&mut self, length: usize) -> &mut [u8] {
        let at = self.bytes.len();
        self.bytes.resize(at + length, 0);
        &mut self.bytes[at..]
    }

    /// The frame.
    pub fn finish(self) -> Vec<u8> {
        debug_assert!(self.bytes.len() >= HEADER + self.body);
        self.bytes
    }
}

const HELLO: u16 = 1;
const TAKEOVER: u16 = 2;
const PROTOTYPE: u16 = 3;
const BUSY: u16 = 4;
const READ_REQUEST: u16 = 5;
const READ_REPLY: u16 = 6;
const ACK: u16 = 7;
const SHIP: u16 = 8;
const ANNOUNCE: u16 = 9;
const SERVING: u16 = 10;

fn put_u32(to: &mut Vec<u8>, value: u32) {
    to.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}

fn put_stamp(to: &mut Vec<u8>, stamp: Stamp) {
    to.extend_from_slice(StampBytes::from(stamp).as_bytes());
}

fn put_block(to: &mut Vec<u8>, block: Block) {
    put_u32(to, block.volume);
    put_u64(to, block.number);
}

fn put_told(to: &mut Vec<u8>, previous: Stamp, entries: &[(Block, Stamp)]) {
    put_stamp(to, previous);
    put_u32(to, entries.len() as u32);
    told::put(to, previous, entries);
}

fn seal(bytes: &mut [u8], version: u16, kind: u16, session: u64, body: usize) {
    let mut header = HeaderBytes {
        magic: MAGIC,
        version: version.into(),
        kind: kind.into(),
        body: (body as u64).into(),
        session: session.into(),
        checksum: 0.into(),
    };
    header.checksum = frame_checksum(&header, &bytes[HEADER..HEADER + body]).into();
    bytes[..HEADER].copy_from_slice(header.as_bytes());
}

fn frame_checksum(header: &HeaderBytes, body: &[u8]) -> u64 {
    checksum(checksum(0, header.as_bytes()), body)
}

/// Takes fields off the front of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.0.split_at_checked(length) {
            Some((front, rest)) => {
                self.0 = rest;
                Ok(front)
            }
            None => {
                let found = self.0.len();
                Err(broken(format!(
                    "a frame's body ends early: {length} bytes wanted, {found} left"
                )))
            }
        }
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("4 bytes")))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")))
    }

    fn stamp(&mut self) -> Result<Stamp> {
        let bytes = StampBytes::read_from_bytes(self.take(20)?).expect("20 bytes");
        Ok(bytes.into())
    }

    fn block(&mut self) -> Result<Block> {
        Ok(Block { volume: self.u32()?, number: self.u64()? })
    }

    fn row(&mut self) -> Result<Row> {
        let bytes = RowBytes::read_from_bytes(self.take(64)?).expect("64 bytes");
        bytes.decode().map_err(|e| broken(format!("a shipped row: {e}")))
    }

    /// The stamp told before, and entries that follow it.
    fn told(&mut self) -> Result<(Stamp, Vec<(Block, Stamp)>)> {
        let (previous, count) = (self.stamp()?, self.u32()? as usize);
        if count > TOLD_MAX {
            return Err(broken(format!("a frame of {} bytes claims {count} items", self.0.len())));
        }
        let entries = told::take(&mut self.0, previous, count);
        entries.map(|entries| (previous, entries)).map_err(|e| broken(format!("a frame: {e}")))
    }

    /// How many items of `size` bytes are said to follow, checked against what is there.
    fn count(&mut self, size: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(broken(format!("a frame of {} bytes claims {count} items", self.0.len()))),
        }
    }
}

fn broken(what: String) -> Error {
    Error::new(Kind::Protocol, what)
}

/// The wire version of a frame that was decoded.
pub(crate) fn version_of(frame: &[u8]) -> u16 {
    HeaderBytes::read_from_prefix(frame).map_or(0, |(header, _)| header.version.get())
}

impl Frame<'_> {
    /// The frame as it travels in `session`, in the newest wire version.
    pub fn encode(&self, session: u64) -> Vec<u8> {
        self.encode_in(WIRE.max, session)
    }

    /// The frame as it travels in `session`, in the wire version that both devices speak. A hello
    /// is the same in all.
    pub fn encode_in(&self, version: u16, session: u64) -> Vec<u8> {
        let mut b = vec![0; HEADER];
        let mut blocks: &[u8] = &[];
        let kind = match self {
            Frame::Hello(h) => {
                let (min, max) = (h.wire.min.into(), h.wire.max.into());
                let (fixed, features) = ((HELLO_FIXED as u32).into(), h.features.into());
                b.extend_from_slice(HelloPrefix { min, max, fixed, features }.as_bytes());
                b.extend_from_slice(&h.group.to_le_bytes());
                put_u64(&mut b, h.device);
                put_u64(&mut b, h.nonce);
                put_u64(&mut b, h.lineage.0);
                put_u64(&mut b, h.lineage.1);
                put_u32(&mut b, h.mode as u32);
                let flags = [h.usable, h.fenced, h.asking, h.lost.is_some()];
                put_u32(&mut b, (0..).zip(flags).map(|(k, on)| u32::from(on) << k).sum());
                put_u64(&mut b, h.epoch);
                put_stamp(&mut b, h.hi);
                put_stamp(&mut b, h.clk);
                put_stamp(&mut b, h.newest);
                put_u64(&mut b, h.credit);
                put_u32(&mut b, h.block_size);
                put_u32(&mut b, h.volumes.len() as u32);
                put_u64(&mut b, h.round.0);
                put_u64(&mut b, h.round.1);
                let lost = h.lost.unwrap_or_default();
                put_stamp(&mut b, lost.first);
                put_u64(&mut b, lost.since);
                put_u64(&mut b, lost.found);
                put_stamp(&mut b, h.told);
                put_u64(&mut b, h.told_max);
                debug_assert_eq!(b.len(), HEADER + HELLO_PREFIX + HELLO_FIXED);
                for volume in &h.volumes {
                    put_u32(&mut b, volume.id);
                    put_u64(&mut b, volume.bytes);
                }
                HELLO
            }
            Frame::Takeover { epoch, device, nonce, told } => {
                put_u64(&mut b, *epoch);
                put_u64(&mut b, *device);
                put_u64(&mut b, *nonce);
                put_stamp(&mut b, *told);
                TAKEOVER
            }
            Frame::Prototype { nonce, grant, left, is_last, previous, entries } => {
                b.reserve(76 + entries.len() * 8);
                put_u64(&mut b, *nonce);
                put_u64(&mut b, *grant);
                put_u64(&mut b, *left);
                put_u32(&mut b, u32::from(*is_last));
                put_told(&mut b, *previous, entries);
                PROTOTYPE
            }
            Frame::Busy { nonce } => {
                put_u64(&mut b, *nonce);
                BUSY
            }
            Frame::ReadRequest { epoch, id, block, count } => {
                put_u64(&mut b, *epoch);
                put_u64(&mut b, *id);
                put_block(&mut b, *block);
                put_u32(&mut b, *count);
                READ_REQUEST
            }
            Frame::ReadReply { id, rows, data } => {
                put_u64(&mut b, *id);
                put_u32(&mut b, rows.len() as u32);
                for row in rows {
                    put_u32(&mut b, u32::from(row.is_some()));
                    row.iter().for_each(|row| b.extend_from_slice(RowBytes::from(row).as_bytes()));
                }
                blocks = data;
                READ_REPLY
            }
            Frame::Serving { epoch, reachable } => {
                put_u64(&mut b, *epoch);
                put_u32(&mut b, u32::from(*reachable));
                SERVING
            }
            Frame::Ack { hi, credit } => {
                put_stamp(&mut b, *hi);
                put_u64(&mut b, *credit);
                ACK
            }
            Frame::Announce { previous, entries } => {
                b.reserve(24 + entries.len() * 8);
                put_told(&mut b, *previous, entries);
                ANNOUNCE
            }
            Frame::Ship { previous, granted, records, data } => {
                let mut ship =
                    ShipBuilder::new(version, session, *previous, *granted, records, data.len());
                ship.block(data.len()).copy_from_slice(data);
                return ship.finish();
            }
        };
        let body = b.len() - HEADER;
        seal(&mut b, version, kind, session, body);
        b.extend_from_slice(blocks);
        b
    }

    /// Reads a frame and the session it travels in. Never panics.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if the bytes are no frame of this version (R10), saying what was found.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Frame<'_>)> {
        if bytes.len() > FRAME_BYTES_MAX {
            let found = bytes.len();
            return Err(broken(format!("a frame of {found} bytes: at most {FRAME_BYTES_MAX} go")));
        }
        let Ok((header, rest)) = HeaderBytes::read_from_prefix(bytes) else {
            return Err(broken(format!("a frame of {} bytes is no frame", bytes.len())));
        };
        is_magic(&header.magic, &MAGIC).map_err(|e| broken(format!("a frame: {e}")))?;
        let version = header.version.get();
        // A hello says in its body which versions its sender speaks; before version 3 it did not.
        if header.kind.get() != HELLO || version < 3 {
            WIRE.common(WireRange { min: version, max: version })?;
        }
        let body = usize::try_from(header.body.get()).unwrap_or(usize::MAX);
        let Some((body, data)) = rest.split_at_checked(body) else {
            let found = rest.len();
            return Err(broken(format!("a frame's body is {found} bytes, its header says {body}")));
        };
        let mut unsigned = header;
        unsigned.checksum = 0.into();
        if frame_checksum(&unsigned, body) != header.checksum.get() {
            return Err(broken("a frame's checksum does not match its bytes".into()));
        }
        let mut f = Fields(body);
        let frame = match header.kind.get() {
            HELLO => Frame::Hello(Self::decode_hello(&mut f)?),
            TAKEOVER => {
                let (epoch, device, nonce) = (f.u64()?, f.u64()?, f.u64()?);
                Frame::Takeover { epoch, device, nonce, told: f.stamp()? }
            }
            PROTOTYPE => {
                let (nonce, grant, left, is_last) = (f.u64()?, f.u64()?, f.u64()?, f.u32()? != 0);
                let (previous, entries) = f.told()?;
                Frame::Prototype { nonce, grant, left, is_last, previous, entries }
            }
            BUSY => Frame::Busy { nonce: f.u64()? },
            READ_REQUEST => {
                let (epoch, id) = (f.u64()?, f.u64()?);
                Frame::ReadRequest { epoch, id, block: f.block()?, count: f.u32()? }
            }
            READ_REPLY => {
                let (id, count) = (f.u64()?, f.count(4)?);
                let row = |_| if f.u32()? == 0 { Ok(None) } else { f.row().map(Some) };
                let rows = (0..count).map(row).collect::<Result<_>>()?;
                Frame::ReadReply { id, rows, data }
            }
            SERVING => Frame::Serving { epoch: f.u64()?, reachable: f.u32()? != 0 },
            ACK => Frame::Ack { hi: f.stamp()?, credit: f.u64()? },
            ANNOUNCE => {
                let (previous, entries) = f.told()?;
                Frame::Announce { previous, entries }
            }
            SHIP => Frame::Ship {
                previous: f.stamp()?,
                granted: f.u64()?,
                records: {
                    let count = f.count(SHIPPED)?;
                    (0..count).map(|_| Self::decode_shipped(&mut f)).collect::<Result<_>>()?
                },
                data,
            },
            other => return Err(broken(format!("a frame of unknown kind {other}"))),
        };
        let blocks = matches!(frame, Frame::ReadReply { .. } | Frame::Ship { .. });
        if !blocks && !data.is_empty() {
            let (kind, left) = (header.kind.get(), data.len());
            return Err(broken(format!("a frame of kind {kind} has {left} bytes behind its body")));
        }
        match f.0.len() {
            0 => Ok((header.session.get(), frame)),
            left => Err(broken(format!("a frame's body has {left} bytes too many"))),
        }
    }

    fn decode_shipped(f: &mut Fields<'_>) -> Result<Shipped> {
        let row = f.row()?;
        let remaining = f.stamp()?;
        let remaining = (remaining != Stamp::ZERO).then_some(remaining);
        Ok(Shipped { row, remaining, total_remaining: f.u32()? != 0 })
    }

    /// Reads the fixed part as far as this version knows it and the sender wrote it; what a later
    /// version puts behind it, or behind the volumes, is passed over.
    fn decode_hello(f: &mut Fields<'_>) -> Result<Hello> {
        let prefix = f.take(HELLO_PREFIX)?;
        let prefix = HelloPrefix::read_from_bytes(prefix).expect("16 bytes");
        let wire = WireRange { min: prefix.min.get(), max: prefix.max.get() };
        if wire.min > wire.max {
            return Err(broken(format!(
                "the peer speaks wire versions {} to {}",
                wire.min, wire.max
            )));
        }
        // The rest of a hello of other versions may stand anywhere.
        WIRE.common(wire)?;
        let sent = f.take(prefix.fixed.get() as usize)?;
        let mut fixed = [0; HELLO_FIXED];
        let known = sent.len().min(HELLO_FIXED);
        fixed[..known].copy_from_slice(&sent[..known]);
        let p = &mut Fields(&fixed);
        let group = u128::from_le_bytes(p.take(16)?.try_into().expect("16 bytes"));
        let (device, nonce) = (p.u64()?, p.u64()?);
        let lineage = (p.u64()?, p.u64()?);
        let mode = p.u32()?;
        let mode = Mode::from_number(mode).map_err(|e| broken(format!("the peer's {e}")))?;
        let flags = p.u32()?;
        let epoch = p.u64()?;
        let (hi, clk, newest) = (p.stamp()?, p.stamp()?, p.stamp()?);
        let (credit, block_size, count) = (p.u64()?, p.u32()?, p.u32()?);
        let round = (p.u64()?, p.u64()?);
        let lost = Lost { first: p.stamp()?, since: p.u64()?, found: p.u64()? };
        let (told, told_max) = (p.stamp()?, p.u64()?);
        let volumes = f.take((count as usize).saturating_mul(12))?;
        let volume = |mut row: Fields<'_>| Ok(VolumeSpec { id: row.u32()?, bytes: row.u64()? });
        let volumes = volumes.chunks_exact(12).map(|row| volume(Fields(row)));
        let volumes = volumes.collect::<Result<_>>()?;
        f.0 = &[];
        Ok(Hello {
            wire,
            features: prefix.features.get(),
            group,
            device,
            nonce,
            lineage,
            mode,
            usable: flags & 1 != 0,
            fenced: flags & 2 != 0,
            asking: flags & 4 != 0,
            epoch,
            hi,
            clk,
            newest,
            round,
            lost: (flags & 8 != 0).then_some(lost),
            told,
            told_max,
            credit,
            block_size,
            volumes,
        })
    }
}
