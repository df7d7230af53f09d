//! `replay` of traces that are odd and can be read: what it says of them, and that they hold.

use std::fs;
use std::io::Write;
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

const MSR: &str = "128166385295514663,hm,0,Write,4096,2048,2833\n\
                   128166385295514878,hm,0,Read,4096,512,2617\n";

/// Replays a trace of these bytes in memory: what the program said, and the document.
fn replay(bytes: &[u8]) -> (Output, Option<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let (trace, json) = (directory.path().join("odd"), directory.path().join("out.json"));
    fs::write(&trace, bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.arg("replay").arg(&trace).args(["--memory", "--depth", "1", "--json"]).arg(&json);
    let output = command.output().expect("the program starts");
    let document = fs::read(json).ok().map(|text| serde_json::from_slice(&text).unwrap());
    (output, document)
}

/// Replays a trace that must hold: the table, the errors, and the document.
fn held(bytes: &[u8]) -> (String, String, Value) {
    let (output, document) = replay(bytes);
    let (table, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{table}{errors}");
    let document = document.expect("a document");
    assert_eq!(document["held"], true);
    (table, errors, document)
}

#[test]
fn sections_are_counted_and_keep_their_order() {
    // The last write of sector 0 is the second log's; sorted, the first log's would be.
    let joined = "fio version 3 iolog\n1 f write 0 4096\n9 f write 0 4096\n\
                  fio version 3 iolog\n0 f write 0 8192\n4 f read 0 8192\n";
    let (table, _, document) = held(joined.as_bytes());
    assert!(table.contains("2 sections with clocks of their own"), "{table}");
    assert_eq!(document["trace"]["sections"], 2);
    assert_eq!(document["trace"]["out_of_order_rows"], 0);
    assert_eq!(document["trace"]["span_ns"], 12_000);

    let (table, _, document) = held(MSR.as_bytes());
    assert!(!table.contains("section"), "{table}");
    assert_eq!(document["trace"]["sections"], 1);
}

#[test]
fn rows_out_of_order_are_reported() {
    let rows: Vec<&str> = MSR.lines().rev().collect();
    let (table, _, document) = held(rows.join("\n").as_bytes());
    let told = "1 row out of order, sorted; the largest step back 21.5 µs";
    assert!(table.contains(told), "{table}");
    assert_eq!(document["trace"]["out_of_order_rows"], 1);
    assert_eq!(document["trace"]["largest_step_back_ns"], 21_500);
}

#[test]
fn bytes_behind_gzip_are_warned_of() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(MSR.as_bytes()).unwrap();
    let mut bytes = encoder.finish().unwrap();
    assert_eq!(held(&bytes).1, "", "nothing to warn of");
    bytes.extend(b"trailing");
    let (_, errors, document) = held(&bytes);
    assert!(errors.starts_with("afterimage: warning: "), "{errors}");
    assert!(errors.contains("8 bytes of something that is no gzip follow"), "{errors}");
    assert_eq!(document["trace"]["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(document["trace"]["rows"], 2);
}

#[test]
fn write_zeroes_make_zeros_at_the_edges_too() {
    let lines = "8,0 0 1 0.1 9 Q W 0 + 64 [a]\n8,0 0 2 0.2 9 Q WZS 3 + 42 [a]\n\
                 8,0 0 3 0.3 9 Q ZA 8 + 1 [a]\n8,0 0 4 0.4 9 Q R 0 + 64 [a]\n\
                 8,0 0 5 0.5 9 Q WZ 9 + 1 [a]\n";
    let (table, _, document) = held(lines.as_bytes());
    assert!(table.contains("\nzero "), "{table}");
    assert_eq!(document["requests"]["zero"]["requests"], 2);
    assert_eq!(document["requests"]["zero"]["bytes"], 43 * 512);
    assert_eq!(document["requests"]["write"]["requests"], 2);
    // Sectors 3 to 44 are zeros, but for the appended one: a discard would leave those outside of
    // whole blocks as they were.
    let verification = &document["verification"];
    assert_eq!(verification["read_zero_sectors"], 41);
    assert_eq!(verification["devices"][0]["data_sectors"], 64 - 41);
}

#[test]
fn text_in_utf_16_is_told() {
    let wide: Vec<u8> = MSR.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (output, document) = replay(&wide);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("is text in UTF-16") && document.is_none(), "{errors}");
}
