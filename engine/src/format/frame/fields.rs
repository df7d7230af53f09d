//! A frame's header with its checksum, and the fields of a body, written and read.

use super::super::{Row, RowBytes, StampBytes, checksum, told};
use super::TOLD_MAX;
use crate::error::{Error, Kind, Result};
use crate::unit::{Block, Extent, Stamp};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const MAGIC: [u8; 4] = *b"AFTF";

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct HeaderBytes {
    pub(super) magic: [u8; 4],
    pub(super) version: U16,
    pub(super) kind: U16,
    /// Bytes of the body that the checksum covers; blocks follow it.
    pub(super) body: U64,
    pub(super) session: U64,
    pub(super) checksum: U64,
}

pub(crate) const HEADER: usize = size_of::<HeaderBytes>();
const _: () = assert!(HEADER == 32);

/// The wire version of a frame that was decoded.
pub(crate) fn version_of(frame: &[u8]) -> u16 {
    HeaderBytes::read_from_prefix(frame).map_or(0, |(header, _)| header.version.get())
}

pub(super) fn seal(bytes: &mut [u8], version: u16, kind: u16, session: u64, body: usize) {
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

pub(super) fn frame_checksum(header: &HeaderBytes, body: &[u8]) -> u64 {
    checksum(checksum(0, header.as_bytes()), body)
}

pub(super) fn put_u32(to: &mut Vec<u8>, value: u32) {
    to.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_stamp(to: &mut Vec<u8>, stamp: Stamp) {
    to.extend_from_slice(StampBytes::from(stamp).as_bytes());
}

pub(super) fn put_block(to: &mut Vec<u8>, block: Block) {
    put_u32(to, block.volume);
    put_u64(to, block.number);
}

pub(super) fn put_told(to: &mut Vec<u8>, previous: Stamp, entries: &[(Extent, Stamp)]) {
    put_stamp(to, previous);
    put_u32(to, entries.len() as u32);
    told::put(to, previous, entries);
}

/// Takes fields off the front of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
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

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("4 bytes")))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")))
    }

    pub(super) fn stamp(&mut self) -> Result<Stamp> {
        let bytes = StampBytes::read_from_bytes(self.take(20)?).expect("20 bytes");
        Ok(bytes.into())
    }

    pub(super) fn block(&mut self) -> Result<Block> {
        Ok(Block { volume: self.u32()?, number: self.u64()? })
    }

    pub(super) fn row(&mut self) -> Result<Row> {
        let bytes = RowBytes::read_from_bytes(self.take(64)?).expect("64 bytes");
        bytes.decode().map_err(|e| broken(format!("a shipped row: {e}")))
    }

    /// The stamp told before, and entries that follow it.
    pub(super) fn told(&mut self) -> Result<(Stamp, Vec<(Extent, Stamp)>)> {
        let (previous, count) = (self.stamp()?, self.u32()? as usize);
        if count > TOLD_MAX {
            return Err(broken(format!(
                "a frame claims {count} entries, more than the {TOLD_MAX} that one may have"
            )));
        }
        let entries = told::take(&mut self.0, previous, count);
        entries.map(|entries| (previous, entries)).map_err(|e| broken(format!("a frame: {e}")))
    }

    /// How many items of `size` bytes are said to follow, checked against what is there.
    pub(super) fn count(&mut self, size: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(broken(format!(
                "a frame claims {count} items of {size} bytes, and has {} bytes left",
                self.0.len()
            ))),
        }
    }
}

pub(super) fn broken(what: String) -> Error {
    Error::new(Kind::Protocol, what)
}
