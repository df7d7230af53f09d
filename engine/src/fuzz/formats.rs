//! Bytes from the network or a disk as what they may be: an error, or what another round of
//! encoding and decoding leaves the same.

use crate::format::batch::Header;
use crate::format::frame::{Frame, version_of};
use crate::format::superblock::{COPY_BYTES, Superblock};

/// A frame.
pub fn frame(bytes: &[u8]) {
    if let Ok((session, frame)) = Frame::decode(bytes) {
        let again = frame.encode_in(version_of(bytes), session);
        assert!(Frame::decode(&again).expect("encoded here") == (session, frame));
    }
}

/// A batch's header, and a superblock with its table of volumes behind it.
pub fn headers(bytes: &[u8]) {
    let block_size = 512 << (bytes.first().copied().unwrap_or(0) % 8);
    if let Ok(Some(header)) = Header::decode(bytes, block_size) {
        assert_eq!(Header::decode(&header.encode(block_size)[..], block_size), Ok(Some(header)));
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
