//! Any bytes as a trace: an error or rows, never a panic.
#![no_main]

use afterimage_cli::trace::{Options, read_bytes};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for skip_bad_rows in [false, true] {
        let options = Options { skip_bad_rows, ..Options::default() };
        if let Ok(trace) = read_bytes("fuzz", bytes, &options) {
            assert!(trace.rows.is_sorted_by_key(|row| row.time_ns));
        }
    }
});
