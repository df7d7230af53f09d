//! Any bytes on disk as a batch header or a superblock: an error, or what encodes to the same.
#![no_main]

use afterimage::format::batch::Header;
use afterimage::format::superblock::{COPY_BYTES, Superblock};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
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
});
