//! A peer whose frames are well formed and whose fields are lies, at a connected device.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage::internal::fuzz::peer(bytes));
