//! Any bytes on disk as a batch's header, a superblock or a table: an error, or what another round
//! leaves the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage::internal::fuzz::headers(bytes));
