//! The payload: every 512-byte sector that a replay writes names the write it came from.
//!
//! `docs/payload.md` has the byte table, so that an outside program can check the volume files.
//! A sector is either all zeros (never written, or discarded) or exactly what its own header
//! says, to the last byte: a lost, torn, misplaced or stale sector is seen for what it is.

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector.
pub const SECTOR: usize = afterimage::internal::unit::SECTOR as usize;

const MAGIC: [u8; 8] = *b"aftimage";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// The distance of the filler's words: 2^64 divided by the golden ratio, odd.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 8],
    version: U32,
    volume: U32,
    run: U64,
    write: U64,
    sector: U64,
    row: U64,
    index: U32,
    count: U32,
    checksum: U64,
}

const _: () = assert!(size_of::<HeaderBytes>() == HEADER);

/// A write as its sectors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The run that wrote it.
    pub run: u64,
    /// The volume it was meant for.
    pub volume: u32,
    /// The sector it was meant for, counted from the volume's beginning.
    pub sector: u64,
    /// The write's number in the run, from 1; a request issued again has a new one.
    pub write: u64,
    /// The request's number in the run, from 0.
    pub row: u64,
    /// Which sector of its write, from 0.
    pub index: u32,
    /// How many sectors its write has.
    pub count: u32,
}

/// The content of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but zeros.
    Zeros,
    /// A payload, whole.
    Written(Origin),
    /// Something no replay writes; what is wrong with it.
    Damaged(&'static str),
}

/// Fills `data`, whole sectors, as the write that `first` names, from its first sector on.
/// `first.index` and `first.count` are taken from the length.
pub fn fill(data: &mut [u8], first: Origin) {
    debug_assert!(data.len().is_multiple_of(SECTOR));
    let count = (data.len() / SECTOR) as u32;
    for (index, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let mut header = HeaderBytes {
            magic: MAGIC,
            version: VERSION.into(),
            volume: first.volume.into(),
            run: first.run.into(),
            write: first.write.into(),
            sector: (first.sector + index as u64).into(),
            row: first.row.into(),
            index: (index as u32).into(),
            count: count.into(),
            checksum: U64::ZERO,
        };
        let checksum = xxh3_64(&header.as_bytes()[..HEADER - 8]);
        header.checksum = checksum.into();
        let (head, filler) = sector.split_at_mut(HEADER);
        head.copy_from_slice(header.as_bytes());
        for (at, word) in filler.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&filler_word(checksum, at).to_le_bytes());
        }
    }
}

/// The content of `sector`, every byte of it looked at.
pub fn content(sector: &[u8]) -> Content {
    assert_eq!(sector.len(), SECTOR);
    if sector == [0; SECTOR].as_slice() {
        return Content::Zeros;
    }
    let (header, filler) = HeaderBytes::ref_from_prefix(sector).expect("longer than a header");
    if header.magic != MAGIC {
        return Content::Damaged("neither zeros nor a payload");
    }
    if header.version.get() != VERSION {
        return Content::Damaged("a payload of another version");
    }
    let checksum = header.checksum.get();
    if xxh3_64(&sector[..HEADER - 8]) != checksum {
        return Content::Damaged("a payload's header with a wrong checksum");
    }
    let mut difference = 0;
    for (at, word) in filler.chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of 8"));
        difference |= word ^ filler_word(checksum, at);
    }
    if difference != 0 {
        return Content::Damaged("a payload's header before another's rest: a torn sector");
    }
    Content::Written(Origin {
        run: header.run.get(),
        volume: header.volume.get(),
        sector: header.sector.get(),
        write: header.write.get(),
        row: header.row.get(),
        index: header.index.get(),
        count: header.count.get(),
    })
}

fn filler_word(checksum: u64, at: usize) -> u64 {
    checksum.wrapping_add((at as u64 + 1).wrapping_mul(STEP))
}

/// Spoils the beginning of every sector of a buffer that is to be read into, so that what an
/// earlier read left there cannot pass for an answer.
pub fn spoil(buffer: &mut [u8]) {
    for sector in buffer.chunks_mut(SECTOR) {
        let head = sector.len().min(8);
        sector[..head].fill(0xA5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Origin = Origin {
        run: 0x1122_3344_5566_7788,
        volume: 3,
        sector: 1000,
        write: 42,
        row: 7,
        index: 0,
        count: 2,
    };

    fn two_sectors() -> Vec<u8> {
        let mut data = vec![0xEE; 2 * SECTOR];
        fill(&mut data, FIRST);
        data
    }

    #[test]
    fn what_was_filled_is_read_back() {
        let data = two_sectors();
        assert_eq!(content(&data[..SECTOR]), Content::Written(FIRST));
        let second = Origin { sector: 1001, index: 1, ..FIRST };
        assert_eq!(content(&data[SECTOR..]), Content::Written(second));
        assert_eq!(content(&[0; SECTOR]), Content::Zeros);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let data = two_sectors();
        for at in 0..SECTOR {
            let mut sector = data[..SECTOR].to_vec();
            sector[at] ^= 1;
            assert!(matches!(content(&sector), Content::Damaged(_)), "byte {at}");
        }
        let mut nearly_zero = [0; SECTOR];
        nearly_zero[SECTOR - 1] = 1;
        assert!(matches!(content(&nearly_zero), Content::Damaged(_)));
    }

    #[test]
    fn a_torn_sector_is_noticed() {
        let mut old = vec![0; SECTOR];
        fill(&mut old, Origin { write: 41, ..FIRST });
        let data = two_sectors();
        // Before byte 32 the two are the same.
        for cut in (32..SECTOR).step_by(8) {
            let torn = [&data[..cut], &old[cut..]].concat();
            assert!(matches!(content(&torn), Content::Damaged(_)), "cut at {cut}");
        }
    }

    #[test]
    fn a_spoilt_buffer_holds_nothing() {
        let mut data = two_sectors();
        spoil(&mut data);
        for sector in data.chunks(SECTOR) {
            assert!(matches!(content(sector), Content::Damaged(_)));
        }
    }

    /// The bytes of docs/payload.md: an outside program depends on them.
    #[test]
    fn golden_bytes() {
        let data = two_sectors();
        let mut head = Vec::new();
        head.extend(b"aftimage\x01\0\0\0\x03\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11");
        head.extend(42u64.to_le_bytes());
        head.extend(1000u64.to_le_bytes());
        head.extend(7u64.to_le_bytes());
        head.extend([0, 0, 0, 0, 2, 0, 0, 0]);
        let checksum = xxh3_64(&head);
        head.extend(checksum.to_le_bytes());
        assert_eq!(checksum, GOLDEN_CHECKSUM);
        for at in 0..56u64 {
            let word = checksum.wrapping_add((at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            head.extend(word.to_le_bytes());
        }
        assert_eq!(&data[..SECTOR], &head[..]);
    }

    const GOLDEN_CHECKSUM: u64 = 16_548_315_917_489_357_067;
}
