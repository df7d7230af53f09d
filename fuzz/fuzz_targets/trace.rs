//! Any bytes as a trace: an error or rows, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cli::trace::fuzz_trace(bytes));
