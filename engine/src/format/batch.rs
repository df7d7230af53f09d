//! A batch of a log: one page of header with the rows of the table, then their data.
//!
//! One `pwritev` writes it, one `fdatasync` makes it durable. Data of row *k* stands behind the
//! header, block after block in row order, rows without data left out; the whole is padded to a
//! page. A batch never wraps around the end of its log.

use super::superblock::SEQUENCE_MAX;
use super::{PAGE, Row, RowBytes, StampBytes, check_page, checksum, is_magic};
use crate::unit::Stamp;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTBATCH";

/// Version of a batch's header.
pub const VERSION: u16 = 2;

/// Most rows in one batch.
pub const ROWS_MAX: usize = 62;

/// Which of a device's two logs a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// Records of host writes made here: the remote unreflected volume.
    Own,
    /// Records received from the peer: the local unreflected volume.
    Recv,
}

#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 8],
    version: U16,
    log: u8,
    reserved: u8,
    rows: U32,
    checksum: U64,
    device: U64,
    incarnation: U64,
    sequence: U64,
    synced: U64,
    previous: StampBytes,
    data_bytes: U32,
    group: [u8; 16],
    offset: U64,
    opened: U64,
    unused: [u8; 16],
    row: [RowBytes; ROWS_MAX],
}

const _: () = assert!(size_of::<HeaderBytes>() == PAGE as usize);

/// The fields that every batch of a log has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The consistency group: a block of user data may hold another group's log.
    pub group: u128,
    /// Which log.
    pub log: Log,
    /// The device that writes it.
    pub device: u64,
    /// The log's life: batches of an earlier one are dead (R13).
    pub incarnation: u64,
}

/// A batch's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub identity: Identity,
    /// Log sequence number of the first row; the others follow without a gap.
    pub sequence: u64,
    /// The highest log sequence number known durable when this was written.
    pub synced: u64,
    /// Its own byte offset in the log: a copy of a header elsewhere is no batch.
    pub offset: u64,
    /// The generation of the superblock at the opening of the device that wrote it: what an
    /// earlier recovery cut off is older than what was written in its place.
    pub opened: u64,
    /// Received log: the stamp received before the first row's. Own log: zero.
    pub previous: Stamp,
    /// The rows.
    pub rows: Vec<Row>,
}

/// The size of a batch on disk, in bytes.
pub fn batch_bytes(rows_with_data: u64, block_size: u64) -> u64 {
    PAGE + (rows_with_data * block_size).next_multiple_of(PAGE)
}

impl Header {
    /// Bytes of data behind the header, without padding.
    pub fn data_bytes(&self, block_size: u64) -> u64 {
        self.rows.iter().filter(|r| r.has_data).count() as u64 * block_size
    }

    /// The header as it stands on disk.
    pub fn encode(&self, block_size: u64) -> Box<[u8; PAGE as usize]> {
        assert!(!self.rows.is_empty() && self.rows.len() <= ROWS_MAX);
        let mut bytes = HeaderBytes::new_box_zeroed().expect("a page");
        bytes.magic = MAGIC;
        bytes.version = VERSION.into();
        bytes.log = match self.identity.log {
            Log::Own => 1,
            Log::Recv => 2,
        };
        bytes.rows = (self.rows.len() as u32).into();
        bytes.device = self.identity.device.into();
        bytes.incarnation = self.identity.incarnation.into();
        bytes.sequence = self.sequence.into();
        bytes.synced = self.synced.into();
        bytes.group = self.identity.group.to_le_bytes();
        bytes.offset = self.offset.into();
        bytes.opened = self.opened.into();
        bytes.previous = self.previous.into();
        bytes.data_bytes = (self.data_bytes(block_size) as u32).into();
        for (to, row) in bytes.row.iter_mut().zip(&self.rows) {
            *to = row.into();
        }
        bytes.checksum = checksum(0, bytes.as_bytes()).into();
        let mut page = Box::new([0; PAGE as usize]);
        page.copy_from_slice(bytes.as_bytes());
        page
    }

    /// Whether a header may begin here at all: a cheap first test for scans of many pages.
    pub fn is_likely(page: &[u8]) -> bool {
        page.starts_with(&MAGIC)
    }

    /// Reads a header. `None`: no batch has ever begun here.
    ///
    /// # Errors
    /// Which field is wrong and how; a page of another size, a wrong checksum, another version.
    pub fn decode(page: &[u8], block_size: u64) -> Result<Option<Header>, String> {
        let Ok(bytes) = HeaderBytes::read_from_bytes(page) else {
            return Err(format!("a header is {PAGE} bytes, found {}", page.len()));
        };
        if bytes.magic != MAGIC {
            return match page.iter().all(|&b| b == 0) {
                true => Ok(None),
                false => Err(is_magic(&bytes.magic, &MAGIC).expect_err("just looked at")),
            };
        }
        let mut unsigned = bytes.clone();
        unsigned.checksum = 0.into();
        check_page(unsigned.as_bytes(), bytes.checksum.get(), bytes.version.get(), &[VERSION])?;
        let log = match bytes.log {
            1 => Log::Own,
            2 => Log::Recv,
            other => return Err(format!("log is {other}, neither 1 (own) nor 2 (received)")),
        };
        let rows = bytes.rows.get() as usize;
        if rows == 0 || rows > ROWS_MAX {
            return Err(format!("rows is {rows}, not 1 to {ROWS_MAX}"));
        }
        let rows = bytes.row[..rows].iter().enumerate();
        let header = Header {
            identity: Identity {
                group: u128::from_le_bytes(bytes.group),
                log,
                device: bytes.device.get(),
                incarnation: bytes.incarnation.get(),
            },
            sequence: bytes.sequence.get(),
            synced: bytes.synced.get(),
            offset: bytes.offset.get(),
            opened: bytes.opened.get(),
            previous: bytes.previous.into(),
            rows: rows
                .map(|(k, row)| row.decode().map_err(|e| format!("row {k}: {e}")))
                .collect::<Result<_, _>>()?,
        };
        let expected = header.data_bytes(block_size);
        if u64::from(bytes.data_bytes.get()) != expected {
            let found = bytes.data_bytes.get();
            return Err(format!("data_bytes is {found}, the rows give {expected}"));
        }
        if header.sequence == 0 || header.sequence > SEQUENCE_MAX {
            return Err(format!("sequence is {}, which no record has", header.sequence));
        }
        Ok(Some(header))
    }
}
