//! Any bytes of a client of NBD: answered within bounds, or hung up on.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cli::nbd::fuzz_nbd(bytes));
