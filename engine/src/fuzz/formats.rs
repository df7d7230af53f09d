//! Bytes from the network or a disk as what they may be: an error, or what another round of
//! encoding and decoding leaves the same.

use crate::format::batch::Header;
use crate::format::frame::{Frame, version_of};
use crate::format::planned::Planned;
use crate::format::superblock::{COPY_BYTES, Superblock};
use crate::format::table::{self, Owner};
use crate::format::{image, salvage};

/// A frame.
pub fn frame(bytes: &[u8]) {
    if let Ok((session, frame)) = Frame::decode(bytes) {
        let again = frame.encode_in(version_of(bytes), session);
        assert!(Frame::decode(&again).expect("encoded here") == (session, frame));
    }
}

/// A batch's header, runs of blocks, a table's side file, an image's page, a chunk of saved blocks, a file of a
/// planned move, and a superblock with its table of volumes behind it.
pub fn headers(bytes: &[u8]) {
    let block_size = 512 << (bytes.first().copied().unwrap_or(0) % 8);
    if let Ok(Some(header)) = Header::decode(bytes, block_size) {
        assert_eq!(Header::decode(&header.encode(block_size)[..], block_size), Ok(Some(header)));
    }
    for count in 0..8 {
        if let Ok(runs) = table::take(&mut &*bytes, count) {
            let mut again = Vec::new();
            let put = table::put(&mut again, &mut runs.iter().cloned().peekable(), usize::MAX);
            assert_eq!((put, table::take(&mut &again[..], count)), (count, Ok(runs)));
        }
    }
    let number = |at: usize| {
        bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("8")))
    };
    let group = bytes.get(8..24).map_or(0, |b| u128::from_le_bytes(b.try_into().expect("16")));
    let owner = Owner { group, device: number(24) };
    if let Ok(runs) = owner.decode(bytes, number(40)) {
        let (again, sum) = owner.encode(runs.iter().cloned());
        assert_eq!(owner.decode(&again, sum), Ok(runs));
    }
    if let Ok((origin, point)) = image::decode(bytes) {
        assert_eq!(image::decode(&image::encode(&origin, point)), Ok((origin, point)));
    }
    if let Some(chunk) = salvage::decode(bytes) {
        let entries: Vec<_> = chunk.entries.iter().map(|(entry, _)| *entry).collect();
        let blocks = entries.iter().filter(|entry| entry.has_data).count();
        let data = vec![0; blocks * chunk.origin.block_size as usize];
        let again = salvage::encode(&chunk.origin, chunk.saved_at, &entries, &data);
        assert_eq!(salvage::decode(&again), Some(chunk));
    }
    for file in [Planned::Request, Planned::Grant] {
        if let Ok(frames) = file.decode(bytes) {
            let frames: Vec<Vec<u8>> = frames.into_iter().map(Vec::from).collect();
            assert_eq!(file.encode(&frames), bytes);
        }
    }
    let (copy, volumes) = bytes.split_at(bytes.len().min(COPY_BYTES as usize));
    if let Ok(superblock) = Superblock::decode(copy, volumes) {
        let volumes = Superblock::encode_volumes(&superblock.volumes);
        let again = Superblock::decode(&superblock.encode()[..], &volumes);
        assert_eq!(again, Ok(superblock));
    }
}

#[cfg(test)]
mod tests {
    use super::super::over_seeds;

    #[test]
    fn seeds() {
        over_seeds("frame", super::frame);
        over_seeds("headers", super::headers);
    }
}
