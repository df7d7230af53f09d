//! Any bytes as the link over TCP and the pairing of two devices take them: an error, or what another round
//! leaves the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage::internal::fuzz::link(bytes));
