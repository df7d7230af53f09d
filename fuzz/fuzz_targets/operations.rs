//! Actions of hosts, link, clocks and takeovers on a pair, chosen by the bytes and held against the
//! oracle of the random walks after every step.
#![no_main]

#[allow(dead_code)]
#[path = "../../engine/tests/random_pair.rs"]
mod random_pair;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| random_pair::scripted_walk(bytes));
