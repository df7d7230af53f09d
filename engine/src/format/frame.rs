//! What the two devices say to each other, as bytes.
//!
//! A frame is a 32-byte header and a body; a shipped frame's body has the same rows as a log's
//! batch, each with its remaining data information (S1500), and then the blocks. The checksum
//! covers header and body but no block: blocks have their rows' checksums.

use super::superblock::{Mode, VolumeSpec};
use super::{Row, RowBytes, StampBytes, VERSION, checksum};
use crate::error::{Error, Kind, Result};
use crate::unit::{Block, Stamp};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"AFTF";

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

const HEADER: usize = size_of::<HeaderBytes>();
const _: () = assert!(HEADER == 32);

/// What a device says when it connects (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
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
    /// Its highest sealed stamp.
    pub clk: Stamp,
    /// The newest own stamp it ever recorded.
    pub newest: Stamp,
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
pub enum Frame<'a> {
    /// On connecting.
    Hello(Hello),
    /// S803: asks for the tenure `epoch` and the prototype.
    Takeover {
        /// The tenure asked for.
        epoch: u64,
        /// Who asks.
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
        /// The sender's `clk`.
        clk: Stamp,
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
    /// S1005: asks for the newest data of a block.
    ReadRequest {
        /// The requester's tenure.
        epoch: u64,
        /// Names the request.
        id: u64,
        /// The block.
        block: Block,
    },
    /// Answers a read: nothing if the block is not pending here.
    ReadReply {
        /// The request answered.
        id: u64,
        /// The newest record's row.
        row: Option<Row>,
        /// Its data, if it has any.
        data: &'a [u8],
    },
    /// Cumulative acknowledgement.
    Ack {
        /// Everything up to this is durable at the sender.
        hi: Stamp,
        /// Free places of its received log.
        credit: u64,
        /// The sender's `clk`.
        clk: Stamp,
    },
    /// Records, in stamp order, with their data one after the other.
    Ship {
        /// The stamp shipped before the first of these.
        previous: Stamp,
        /// The sender's `clk`.
        clk: Stamp,
        /// Whether the sender is fenced.
        fenced: bool,
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
    /// Begins a frame with all its rows; `data_bytes` will be appended.
    pub fn new(
        session: u64,
        previous: Stamp,
        clk: Stamp,
        fenced: bool,
        records: &[Shipped],
        data_bytes: usize,
    ) -> ShipBuilder {
        let mut bytes = Vec::with_capacity(HEADER + 64 + records.len() * 88 + data_bytes);
        bytes.resize(HEADER, 0);
        put_stamp(&mut bytes, previous);
        put_stamp(&mut bytes, clk);
        put_u32(&mut bytes, u32::from(fenced));
        put_u32(&mut bytes, records.len() as u32);
        for record in records {
            bytes.extend_from_slice(RowBytes::from(&record.row).as_bytes());
            put_stamp(&mut bytes, record.remaining.unwrap_or(Stamp::ZERO));
            put_u32(&mut bytes, u32::from(record.total_remaining));
        }
        let body = bytes.len() - HEADER;
        seal(&mut bytes, SHIP, session, body);
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

fn put_told(to: &mut Vec<u8>, entries: &[(Block, Stamp)]) {
    put_u32(to, entries.len() as u32);
    for (block, stamp) in entries {
        put_block(to, *block);
        put_stamp(to, *stamp);
    }
}

fn seal(bytes: &mut [u8], kind: u16, session: u64, body: usize) {
    let mut header = HeaderBytes {
        magic: MAGIC,
        version: VERSION.into(),
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

    fn told(&mut self) -> Result<Vec<(Block, Stamp)>> {
        let count = self.count(32)?;
        (0..count).map(|_| Ok((self.block()?, self.stamp()?))).collect()
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

impl Frame<'_> {
    /// The frame as it travels in `session`.
    pub fn encode(&self, session: u64) -> Vec<u8> {
        let mut b = vec![0; HEADER];
        let mut blocks: &[u8] = &[];
        let kind = match self {
            Frame::Hello(h) => {
                b.extend_from_slice(&h.group.to_le_bytes());
                put_u64(&mut b, h.device);
                put_u64(&mut b, h.nonce);
                put_u64(&mut b, h.lineage.0);
                put_u64(&mut b, h.lineage.1);
                put_u32(&mut b, h.mode as u32);
                put_u32(
                    &mut b,
                    u32::from(h.usable) | u32::from(h.fenced) << 1 | u32::from(h.asking) << 2,
                );
                put_u64(&mut b, h.epoch);
                put_stamp(&mut b, h.hi);
                put_stamp(&mut b, h.clk);
                put_stamp(&mut b, h.newest);
                put_u64(&mut b, h.credit);
                put_u32(&mut b, h.block_size);
                put_u32(&mut b, h.volumes.len() as u32);
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
            Frame::Prototype { nonce, grant, clk, left, is_last, previous, entries } => {
                b.reserve(96 + entries.len() * 32);
                put_u64(&mut b, *nonce);
                put_u64(&mut b, *grant);
                put_stamp(&mut b, *clk);
                put_u64(&mut b, *left);
                put_u32(&mut b, u32::from(*is_last));
                put_stamp(&mut b, *previous);
                put_told(&mut b, entries);
                PROTOTYPE
            }
            Frame::Busy { nonce } => {
                put_u64(&mut b, *nonce);
                BUSY
            }
            Frame::ReadRequest { epoch, id, block } => {
                put_u64(&mut b, *epoch);
                put_u64(&mut b, *id);
                put_block(&mut b, *block);
                READ_REQUEST
            }
            Frame::ReadReply { id, row, data } => {
                put_u64(&mut b, *id);
                put_u32(&mut b, u32::from(row.is_some()));
                if let Some(row) = row {
                    b.extend_from_slice(RowBytes::from(row).as_bytes());
                }
                blocks = data;
                READ_REPLY
            }
            Frame::Ack { hi, credit, clk } => {
                put_stamp(&mut b, *hi);
                put_u64(&mut b, *credit);
                put_stamp(&mut b, *clk);
                ACK
            }
            Frame::Ship { previous, clk, fenced, records, data } => {
                let mut ship =
                    ShipBuilder::new(session, *previous, *clk, *fenced, records, data.len());
                ship.block(data.len()).copy_from_slice(data);
                return ship.finish();
            }
        };
        let body = b.len() - HEADER;
        seal(&mut b, kind, session, body);
        b.extend_from_slice(blocks);
        b
    }

    /// Reads a frame and the session it travels in. Never panics.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if the bytes are no frame of this version (R10), saying what was found.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Frame<'_>)> {
        let Ok((header, rest)) = HeaderBytes::read_from_prefix(bytes) else {
            return Err(broken(format!("a frame of {} bytes is no frame", bytes.len())));
        };
        if header.magic != MAGIC {
            return Err(broken(format!("a frame's magic is {:02x?}", header.magic)));
        }
        if header.version.get() != VERSION {
            let found = header.version.get();
            return Err(broken(format!("the peer speaks version {found}, this device {VERSION}")));
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
            PROTOTYPE => Frame::Prototype {
                nonce: f.u64()?,
                grant: f.u64()?,
                clk: f.stamp()?,
                left: f.u64()?,
                is_last: f.u32()? != 0,
                previous: f.stamp()?,
                entries: f.told()?,
            },
            BUSY => Frame::Busy { nonce: f.u64()? },
            READ_REQUEST => Frame::ReadRequest { epoch: f.u64()?, id: f.u64()?, block: f.block()? },
            READ_REPLY => {
                let id = f.u64()?;
                let row = if f.u32()? == 0 { None } else { Some(f.row()?) };
                Frame::ReadReply { id, row, data }
            }
            ACK => Frame::Ack { hi: f.stamp()?, credit: f.u64()?, clk: f.stamp()? },
            SHIP => Frame::Ship {
                previous: f.stamp()?,
                clk: f.stamp()?,
                fenced: f.u32()? != 0,
                records: {
                    let count = f.count(88)?;
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

    fn decode_hello(f: &mut Fields<'_>) -> Result<Hello> {
        let group = u128::from_le_bytes(f.take(16)?.try_into().expect("16 bytes"));
        let (device, nonce) = (f.u64()?, f.u64()?);
        let lineage = (f.u64()?, f.u64()?);
        let mode = match f.u32()? {
            0 => Mode::Paired,
            1 => Mode::Detached,
            2 => Mode::Copying,
            other => return Err(broken(format!("the peer's mode is {other}, not 0 to 2"))),
        };
        let flags = f.u32()?;
        let epoch = f.u64()?;
        let (hi, clk, newest) = (f.stamp()?, f.stamp()?, f.stamp()?);
        let (credit, block_size) = (f.u64()?, f.u32()?);
        let count = f.count(12)?;
        let volume = |f: &mut Fields<'_>| Ok(VolumeSpec { id: f.u32()?, bytes: f.u64()? });
        let volumes = (0..count).map(|_| volume(f)).collect::<Result<_>>()?;
        Ok(Hello {
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
            credit,
            block_size,
            volumes,
        })
    }
}
