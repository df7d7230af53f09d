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

/// Cost by extent: a request without data costs by its records, not by its blocks. Of each of these
/// most lies where nothing is, some where the write before it is.
#[test]
fn zeros_cost_by_their_requests() {
    // As many sectors as a file system gives up when it is made.
    let most = 8 << 21;
    let traces = [
        format!("8,0 1 1 0.0 7 Q D 0 + {most} [mkfs.ext4]\n"),
        format!("8,0 1 1 0.0 7 Q W 800 + 8 [a]\n8,0 1 2 0.1 7 Q WZ 3 + {most} [a]\n"),
        format!(
            "8,0 1 1 0.0 7 Q W 4096 + 16 [a]\n8,16 1 2 0.1 7 Q W 5 + 1 [a]\n\
             8,0 1 3 0.2 7 Q D 4099 + {most} [a]\n8,16 1 4 0.3 7 Q D 0 + {most} [a]\n"
        ),
    ];
    // Data sectors that are left: of the first block that a discard has in part, for example.
    for (trace, (operation, left)) in
        traces.iter().zip([("discard", 0), ("zero", 0), ("discard", 8)])
    {
        let began = std::time::Instant::now();
        let (table, _, document) = held(trace.as_bytes());
        assert_eq!(document["journal_full"]["requests"], 0, "{table}");
        let bytes = document["requests"][operation]["bytes"].as_u64().unwrap();
        assert_eq!(bytes >> 30, 8 * trace.matches(&most.to_string()).count() as u64);
        for device in document["verification"]["devices"].as_array().unwrap() {
            assert_eq!(device["data_sectors"], left, "{trace}");
        }
        // Two million records would take many times as long.
        assert!(began.elapsed().as_secs() < 10, "{trace}");
    }
}

#[test]
fn text_in_utf_16_is_told() {
    let wide: Vec<u8> = MSR.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (output, document) = replay(&wide);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("is text in UTF-16") && document.is_none(), "{errors}");
}
