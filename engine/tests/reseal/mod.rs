//! Changed bytes with a right checksum again: what a checksum does not tell has to be seen by what
//! reads them.

/// Gives a superblock's copy or a batch's header, if it is whole, the checksum of its bytes.
pub fn reseal(page: &mut [u8]) {
    if [512, 4096].contains(&page.len()) {
        page[16..24].fill(0);
        let checksum = xxhash_rust::xxh3::xxh3_64(page);
        page[16..24].copy_from_slice(&checksum.to_le_bytes());
    }
}
