//! Any bytes from the network: an error, or a frame that another round leaves the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage::internal::fuzz::frame(bytes));
