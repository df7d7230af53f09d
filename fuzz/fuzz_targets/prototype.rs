//! A peer's told records, taken in and paid, against a plain map.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage::internal::fuzz::prototype(bytes));
