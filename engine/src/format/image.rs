//! The last consistent image, as it stands in a side file (LADDER 6): a page that says whose it is and of
//! when, then chunks of saved blocks (`salvage.rs`), each durable before what it saves is overwritten. A
//! chunk that was cut short is the end. The superblock says whether the file counts.

use super::salvage::Origin;
use super::{PAGE, StampBytes, checksum, is_magic};
use crate::unit::Stamp;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTIMAGE";
const VERSION: u32 = 1;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    block_size: U32,
    checksum: U64,
    group: [u8; 16],
    device: U64,
    lineage: [U64; 2],
    upto: StampBytes,
    at: U64,
}

const HEAD: usize = size_of::<Head>();
const _: () = assert!(HEAD == 92);

/// The state of which a last consistent image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImagePoint {
    /// The newest record here that is in it: of those that come later none is. Copies have no stamps.
    pub upto: Stamp,
    /// Wall time from which on the volumes were no state of the hosts' data any more, in nanoseconds since 1970.
    pub at: u64,
    /// The lineage of the device then: number and unique id.
    pub lineage: (u64, u64),
}

/// The first page of the file.
pub fn encode(origin: &Origin, point: ImagePoint) -> Vec<u8> {
    let mut head = Head {
        magic: MAGIC,
        version: VERSION.into(),
        block_size: origin.block_size.into(),
        checksum: 0.into(),
        group: origin.group.to_le_bytes(),
        device: origin.device.into(),
        lineage: [point.lineage.0.into(), point.lineage.1.into()],
        upto: point.upto.into(),
        at: point.at.into(),
    };
    head.checksum = checksum(0, head.as_bytes()).into();
    let mut bytes = head.as_bytes().to_vec();
    bytes.resize(PAGE as usize, 0);
    bytes
}

/// Whose image the file is that begins with `bytes`, and of when.
///
/// # Errors
/// The fault of the page.
pub fn decode(bytes: &[u8]) -> Result<(Origin, ImagePoint), String> {
    let Ok((mut head, _)) = Head::read_from_prefix(bytes) else {
        return Err(format!("an image begins with {HEAD} bytes, found {}", bytes.len()));
    };
    is_magic(&head.magic, &MAGIC)?;
    let stored = std::mem::take(&mut head.checksum).get();
    let computed = checksum(0, head.as_bytes());
    if stored != computed {
        return Err(format!("checksum is {stored:016x}, the bytes give {computed:016x}"));
    }
    let (version, block_size) = (head.version.get(), head.block_size.get());
    if version != VERSION {
        return Err(format!("version is {version}, this program reads {VERSION}"));
    }
    let origin = Origin {
        group: u128::from_le_bytes(head.group),
        device: head.device.get(),
        lineage: (head.lineage[0].get(), head.lineage[1].get()),
        block_size,
    };
    Ok((origin, ImagePoint { upto: head.upto.into(), at: head.at.get(), lineage: origin.lineage }))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_written_or_not_at_all() {
        let origin = Origin { group: 7, device: 2, lineage: (3, 9), block_size: 512 };
        let upto = Stamp { epoch: 2, time: 77, sequence: 1 };
        let point = ImagePoint { upto, at: 99, lineage: origin.lineage };
        let bytes = encode(&origin, point);
        assert_eq!((decode(&bytes), bytes.len()), (Ok((origin, point)), 4096));
        for at in 0..HEAD {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
