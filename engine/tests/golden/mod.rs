//! Reads golden bytes.
//!
//! A golden file is text: a line `length N`, then lines `offset: bytes  # field` in hexadecimal;
//! bytes that no line names are zero.

pub mod values;

use std::path::Path;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The bytes of `golden/<name>.hex`.
pub fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(length) = line.strip_prefix("length ") {
            bytes.resize(length.parse().expect("a length"), 0);
        } else if let Some((offset, hex)) = line.split_once(": ") {
            let offset = usize::from_str_radix(offset, 16).expect("an offset");
            assert!(hex.len() % 2 == 0, "{name}: half a byte at {offset}");
            for (k, digits) in hex.as_bytes().chunks(2).enumerate() {
                let digits = std::str::from_utf8(digits).expect("digits");
                bytes[offset + k] = u8::from_str_radix(digits, 16).expect("two digits");
            }
        }
    }
    bytes
}

/// Gives a frame, if it is whole, the checksum of its bytes.
pub fn reseal_frame(frame: &mut [u8]) {
    let Some((header, rest)) = frame.split_at_mut_checked(32) else { return };
    let body = u64::from_le_bytes(header[8..16].try_into().expect("8 bytes"));
    let Some(body) = usize::try_from(body).ok().and_then(|length| rest.get(..length)) else {
        return;
    };
    header[24..].fill(0);
    let checksum = xxh3_64_with_seed(body, xxh3_64(header));
    header[24..].copy_from_slice(&checksum.to_le_bytes());
}

/// The wire version that a frame is in.
pub fn version_of(frame: &[u8]) -> u16 {
    u16::from_le_bytes(frame[4..6].try_into().expect("two bytes"))
}
