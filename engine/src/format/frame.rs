//! The frames of the two devices, as bytes.
//!
//! A frame is a 32-byte header and a body; a shipped frame's body has the same rows as a log's
//! batch, each with its remaining data information (S1500), and then the blocks. The checksum
//! covers header and body but no block: blocks have their rows' checksums.
//!
//! Every later version can read a hello's header and the first 16 bytes of its body, which never
//! change: the wire versions and the features that the sender speaks. All else is in the version
//! that both speak ([`WireRange::common`]).

mod fields;
mod hello;
mod ladder;
mod sums;

pub(crate) use fields::{HEADER, version_of};
pub(crate) use hello::{
    CHECKSUMS_FEATURE, EXTENTS_FEATURE, OFFER_FEATURE, SERVING_FEATURE, SUMS_FEATURE,
};
pub use hello::{FEATURES, Hello, WIRE, WireRange};
pub(crate) use ladder::LADDER_WIRE;
pub use ladder::{COPIES_MAX, Copied, Ladder, RUNS_MAX, Requester, TablePiece};
pub(crate) use sums::{SUM_BYTES, SUMS_MAX, add};
pub use sums::{Seen, Sum};

use super::{Row, RowBytes, is_magic, told};
use crate::error::Result;
use crate::unit::{Block, Extent, Round, Stamp};
use fields::{
    Fields, HeaderBytes, MAGIC, broken, frame_checksum, put_block, put_stamp, put_told, put_u32,
    put_u64, seal,
};
use ladder::{put_round, take_round};
use zerocopy::{FromBytes, IntoBytes};

/// Most bytes of a frame, in either lane: room for 1 MiB of data in blocks of 512 bytes
/// with a row of 88 bytes each, 1.2 MiB, and for the hello of a group of 65,536 volumes, 0.8 MiB; and
/// for rows to grow by half. A link makes no room for a longer one, and a device refuses it.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// Most bytes of data, or of entries, in one frame: what the settings allow, and the window of remote
/// reads.
pub(crate) const FRAME_DATA_MAX: u64 = 1 << 20;

const ROWS: usize = FRAME_DATA_MAX as usize / 512;
const _: () = assert!(HEADER + 64 + ROWS * (SHIPPED + 512) <= FRAME_BYTES_MAX);

/// Bytes of a shipped record without its data.
const SHIPPED: usize = 88;
/// Most records that are told of in one frame.
pub(crate) const TOLD_MAX: usize = 1 << 15;
const _: () = assert!(HEADER + 128 + TOLD_MAX * told::ENTRY_BYTES_MAX <= FRAME_BYTES_MAX);

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
        /// The device that asks.
        device: u64,
        /// Names the request.
        nonce: u64,
        /// The last stamp told (R18): the answer names what is newer.
        told: Stamp,
        /// The requester's place on the ladder; from wire version 4 on, and then always: a request without
        /// one says that it is in ordered mode and was never in another.
        ladder: Option<Requester>,
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
        /// Extent and newest stamp.
        entries: Vec<(Extent, Stamp)>,
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
    /// The sender serves, and its host is gone: the receiver is to ask for the host. With the wire feature 32
    /// only.
    Offer {
        /// The sender's tenure.
        epoch: u64,
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
        /// Extent and stamp.
        entries: Vec<(Extent, Stamp)>,
    },
    /// Records, in stamp order, with their data one after the other.
    Ship {
        /// The round that they belong to (D3); from wire version 4 on, before that the first one.
        round: Round,
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
    /// Asks for the checksums of neighbouring blocks of a normal volume. With the wire feature 8 only,
    /// as its answer.
    ChecksumRequest {
        /// Names the question.
        id: u64,
        /// The first block.
        block: Block,
        /// How many blocks.
        count: u32,
        /// The first so many, which may be more than `count`, lie in segments that were never made at
        /// the sender, and it has no live record of them.
        absent: u64,
    },
    /// Answers a question for checksums: all of its blocks, or only how many from its first on lie
    /// in segments that neither device has made, without a live record.
    ChecksumReply {
        /// The question.
        id: u64,
        /// Its blocks, in runs.
        sums: Vec<Sum>,
    },
    /// A pair that leaves ordered mode, or comes back to it, says these. From wire version 4 on.
    Ladder(Ladder<'a>),
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
        round: Round,
        previous: Stamp,
        granted: u64,
        records: &[Shipped],
        data_bytes: usize,
    ) -> ShipBuilder {
        let mut bytes = Vec::with_capacity(HEADER + 64 + records.len() * SHIPPED + data_bytes);
        bytes.resize(HEADER, 0);
        put_stamp(&mut bytes, previous);
        put_u64(&mut bytes, granted);
        if version >= LADDER_WIRE {
            put_round(&mut bytes, round);
        }
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
const CHECKSUM_REQUEST: u16 = 15;
const CHECKSUM_REPLY: u16 = 16;
const OFFER: u16 = 26;

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
            Frame::Hello(hello) => {
                hello.put(&mut b);
                HELLO
            }
            Frame::Takeover { epoch, device, nonce, told, ladder } => {
                put_u64(&mut b, *epoch);
                put_u64(&mut b, *device);
                put_u64(&mut b, *nonce);
                put_stamp(&mut b, *told);
                if version >= LADDER_WIRE {
                    ladder.unwrap_or_default().put(&mut b);
                }
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
            Frame::Offer { epoch } => {
                put_u64(&mut b, *epoch);
                OFFER
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
            Frame::ChecksumRequest { id, block, count, absent } => {
                put_u64(&mut b, *id);
                put_block(&mut b, *block);
                put_u32(&mut b, *count);
                put_u64(&mut b, *absent);
                CHECKSUM_REQUEST
            }
            Frame::ChecksumReply { id, sums } => {
                b.reserve(12 + sums.len() * SUM_BYTES);
                put_u64(&mut b, *id);
                put_u32(&mut b, sums.len() as u32);
                sums.iter().for_each(|sum| sum.put(&mut b));
                CHECKSUM_REPLY
            }
            Frame::Ladder(ladder) => {
                let (kind, data) = ladder.put(&mut b);
                blocks = data;
                kind
            }
            Frame::Ship { round, previous, granted, records, data } => {
                let (round, previous, bytes) = (*round, *previous, data.len());
                let mut ship =
                    ShipBuilder::new(version, session, round, previous, *granted, records, bytes);
                ship.block(data.len()).copy_from_slice(data);
                return ship.finish();
            }
        };
        let body = b.len() - HEADER;
        seal(&mut b, version, kind, session, body);
        b.extend_from_slice(blocks);
        b
    }

    /// Whether these bytes, if they are a frame, have copies or checksums of blocks.
    pub fn brings_copies(bytes: &[u8]) -> bool {
        HeaderBytes::read_from_prefix(bytes)
            .is_ok_and(|(header, _)| Ladder::brings_copies(header.kind.get()))
    }

    /// Reads a frame and the session it travels in. Never panics.
    ///
    /// # Errors
    /// [`Kind::Protocol`](crate::error::Kind::Protocol) if the bytes are no frame of this version (R10), saying what was found.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Frame<'_>)> {
        if bytes.len() > FRAME_BYTES_MAX {
            let found = bytes.len();
            return Err(broken(format!(
                "a frame has {found} bytes, more than the {FRAME_BYTES_MAX} that one may have"
            )));
        }
        let Ok((header, rest)) = HeaderBytes::read_from_prefix(bytes) else {
            return Err(broken(format!(
                "a frame has {} bytes, fewer than its header takes: {}",
                bytes.len(),
                size_of::<HeaderBytes>()
            )));
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
        let on_ladder = version >= LADDER_WIRE;
        let frame = match header.kind.get() {
            HELLO => Frame::Hello(Hello::take(&mut f)?),
            TAKEOVER => {
                let (epoch, device, nonce) = (f.u64()?, f.u64()?, f.u64()?);
                let told = f.stamp()?;
                let ladder = on_ladder.then(|| Requester::take(&mut f)).transpose()?;
                Frame::Takeover { epoch, device, nonce, told, ladder }
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
            OFFER => Frame::Offer { epoch: f.u64()? },
            ACK => Frame::Ack { hi: f.stamp()?, credit: f.u64()? },
            ANNOUNCE => {
                let (previous, entries) = f.told()?;
                Frame::Announce { previous, entries }
            }
            CHECKSUM_REQUEST => {
                let (id, block) = (f.u64()?, f.block()?);
                Frame::ChecksumRequest { id, block, count: f.u32()?, absent: f.u64()? }
            }
            CHECKSUM_REPLY => {
                let (id, count) = (f.u64()?, f.count(SUM_BYTES)?);
                let sums = (0..count).map(|_| Sum::take(&mut f)).collect::<Result<_>>()?;
                Frame::ChecksumReply { id, sums }
            }
            SHIP => Frame::Ship {
                previous: f.stamp()?,
                granted: f.u64()?,
                round: if on_ladder { take_round(&mut f)? } else { Round::default() },
                records: {
                    let count = f.count(SHIPPED)?;
                    (0..count).map(|_| Self::decode_shipped(&mut f)).collect::<Result<_>>()?
                },
                data,
            },
            kind if on_ladder && Ladder::has(kind) => {
                Frame::Ladder(Ladder::take(kind, &mut f, data)?)
            }
            other => {
                return Err(broken(format!(
                    "a frame is of kind {other}, which wire version {version} does not have"
                )));
            }
        };
        let blocks = matches!(
            frame,
            Frame::ReadReply { .. } | Frame::Ship { .. } | Frame::Ladder(Ladder::Copy { .. })
        );
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
}
