//! A planted bug, to see that fuzzing finds any: three choices that must all be right.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let [first, second, third, ..] = bytes
        && *first == b'b'
        && second ^ first == 23
        && third.wrapping_add(*second) == 220
    {
        panic!("the canary was found");
    }
});
