//! A device directory with damage: opened, or refused, and reported on; never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cli::inspect::fuzz_directory(bytes));
