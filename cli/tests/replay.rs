//! `afterimage replay` as a user runs it: exit status, messages, results, and the real traces.

mod made;
mod real_traces;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use made::{fio, made, msr};
use serde_json::Value;
use tempfile::TempDir;

/// Takeovers under backlog: the link is slower than the devices.
const MOVES: [&str; 10] = [
    "--takeover-at",
    "30%",
    "--takeover-at",
    "60%",
    "--takeover-at",
    "90%",
    "--link-rate",
    "20MiB/s",
    "--link-delay",
    "5ms",
];

fn afterimage() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.arg("replay").stdin(Stdio::null());
    command
}

/// Runs with `args`, in memory unless they say where.
fn replay(args: &[&str]) -> Output {
    let mut command = afterimage();
    if !args.iter().any(|arg| ["--dir", "--memory"].contains(arg)) {
        command.arg("--memory");
    }
    command.args(args).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs with `args` and gives what it measured; it must have held.
fn measure(args: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("out.json");
    let output = replay(&[args, &["--json", json.to_str().unwrap()]].concat());
    let story = format!("{args:?}\n{}{}", stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{story}");
    assert!(stdout(&output).contains("verified: every read was right"), "{story}");
    let document: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(document["held"], true, "{story}");
    assert_eq!(document["verification"]["violations"], 0, "{story}");
    assert_eq!(document["verification"]["devices_equal"], true, "{story}");
    document
}

fn file(directory: &TempDir, name: &str, content: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn a_command_line_that_cannot_be_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(5)));
    for args in [
        vec![],
        vec!["--nonsense", &trace],
        vec!["--takeover-at", "120%", &trace],
        vec!["--link-rate", "fast", &trace],
        vec!["--block-size", "1000", &trace],
        vec!["--journal-size", "4KiB", &trace],
    ] {
        let output = replay(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{args:?}");
    }
    let untimed = "fio version 2 iolog\nx add\nx open\nx write 0 4096\nx close\n";
    let trace = file(&directory, "untimed.log", untimed);
    for (flag, value) in [("--speed", "2"), ("--takeover-at", "90s"), ("--skew", "-1h")] {
        let output = replay(&[flag, value, &trace]);
        assert_eq!(output.status.code(), Some(2));
        let message = stderr(&output);
        assert!(message.contains(flag), "{message}");
        assert!(message.contains("needs a trace with times"), "{message}");
    }
    measure(&[&trace, "--takeover-at", "50%"]);
}

#[test]
fn a_takeover_after_the_last_request_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    // The last request comes after 100 µs; a second pass begins 1 ms later.
    let trace = file(&directory, "t.csv", &msr(&made(5)));
    let output = replay(&["--takeover-at", "101us", &trace]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("comes 100 µs after the first"), "{}", stderr(&output));
    measure(&["--takeover-at", "100us", &trace]);
    measure(&["--takeover-at", "1200us", "--passes", "2", &trace]);
}

#[test]
fn help_goes_to_the_standard_output() {
    let output = afterimage().arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("--takeover-at") && stderr(&output).is_empty());
}

#[test]
fn a_trace_that_cannot_be_read_ends_with_3() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.csv");
    let output = replay(&[missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("none.csv"), "{}", stderr(&output));
    let header = file(&directory, "header.log", "fio version 3 iolog\n0 x add\n0 x open\n");
    let empty = file(&directory, "empty.csv", "");
    for (args, words) in [
        (vec![header.as_str()], "header.log: the trace has no requests to replay"),
        (vec![&empty, "--format", "msr"], "empty.csv: the trace has no requests to replay"),
        (vec![&empty], "empty.csv: is empty; there is nothing to replay"),
    ] {
        let output = replay(&args);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = replay(&["-", "-"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("- is given twice"), "{}", stderr(&output));
}

#[test]
fn a_bad_row_names_file_line_and_field_and_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut text = msr(&made(20));
    let second = text.find('\n').unwrap() + 1;
    text.insert_str(second, "128166372003061629,hm,0,Write,12x,512,1\n");
    let trace = file(&directory, "bad.csv", &text);
    let output = replay(&[&trace]);
    assert_eq!(output.status.code(), Some(3));
    let message = stderr(&output);
    for part in ["bad.csv", "line 2", "Offset", "12x", "--skip-bad-rows"] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    let document = measure(&["--skip-bad-rows", &trace]);
    assert_eq!(document["trace"]["bad_rows"], 1);
    assert_eq!(document["trace"]["rows"], 20);
}

#[test]
fn an_address_beyond_any_volume_names_its_row() {
    let directory = tempfile::tempdir().unwrap();
    let end = ((1u64 << 62) - (1 << 20)) / 512;
    let row = |lba| format!("0,8,512,w,0.0\n0,{lba},512,w,0.0\n");
    measure(&[&file(&directory, "last.spc", &row(end - 1))]);
    let trace = file(&directory, "beyond.spc", &row(end));
    let output = replay(&[&trace]);
    assert_eq!(output.status.code(), Some(3));
    for part in ["beyond.spc", "line 2", "below 4 EiB", "--skip-bad-rows"] {
        assert!(stderr(&output).contains(part), "no {part} in {}", stderr(&output));
    }
    measure(&["--skip-bad-rows", &trace]);
}

#[test]
fn a_result_that_cannot_be_written_ends_with_6() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(5)));
    let devices = directory.path().join("devices");
    let dir = devices.to_str().unwrap();
    for flag in ["--json", "--hlog", "--request-log"] {
        let path = directory.path().to_str().unwrap();
        let output = replay(&[flag, path, &trace, "--dir", dir, "--keep"]);
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        assert!(stderr(&output).contains(path), "{}", stderr(&output));
        assert!(!devices.exists(), "found out before anything is replayed");
    }
}

#[test]
fn a_replay_that_fails_leaves_no_results_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(5)));
    let json = file(&directory, "out.json", "{\"held\": true}");
    let output = replay(&[&trace, "--json", &json, "--block-size", "1000"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(!Path::new(&json).exists());
    let output = replay(&[&trace, "--json", "/dev/stdout"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("\"held\": true"), "{}", stdout(&output));
}

#[test]
fn nothing_but_the_table_comes_out_of_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(300)));
    let output = replay(&[&trace, "--takeover-at", "50%"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    let table = stdout(&output);
    assert!(!table.contains('\u{1b}') && !table.contains('\r'), "{table}");
    let words = ["host write", "flush", "local read", "remote read", "shipping lag", "1 to b"];
    for word in words {
        assert!(table.contains(word), "no {word} in {table}");
    }
}

#[test]
fn json_has_the_documented_shape() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.log", &fio(&made(400)));
    // The fourth takeover finds the line down.
    let outage = ["--outage", "92%..95%", "--takeover-at", "94%"];
    let document = measure(&[&[trace.as_str()], &MOVES[..], &outage].concat());
    assert_eq!(document["version"], 1);
    let manual = fs::read_to_string(project().join("docs/replay-json.md")).unwrap();
    let mut undocumented = Vec::new();
    for (name, value) in document.as_object().unwrap() {
        let is_documented = |name: &str| {
            [format!("`{name}`"), format!("`.{name}`"), format!("`[].{name}`")]
                .iter()
                .any(|word| manual.contains(word))
        };
        let inner = match value {
            Value::Array(items) => items[0].as_object(),
            other => other.as_object(),
        };
        let names = inner.into_iter().flatten().map(|(name, _)| name);
        undocumented.extend(names.chain([name]).filter(|name| !is_documented(name)).cloned());
    }
    assert!(undocumented.is_empty(), "not in docs/replay-json.md: {undocumented:?}");
    for metric in ["write", "flush", "read-local", "read-remote", "lag", "takeover"] {
        let latency = &document["latency_ns"][metric];
        for percentile in ["p50", "p90", "p99", "p99.9", "max"] {
            assert!(latency[percentile].is_u64(), "{metric} {percentile}: {latency}");
        }
    }
    let takeovers = document["takeovers"].as_array().unwrap();
    let to: Vec<_> = takeovers.iter().map(|takeover| takeover["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["b", "a", "b"]);
    for (takeover, epoch) in takeovers.iter().zip(2..) {
        assert_eq!(takeover["epoch"], epoch);
        assert!(takeover["ready_ns"].as_u64().unwrap() >= 10_000_000, "two ways of 5 ms each");
        assert!(takeover["caught_up_ns"].is_u64());
    }
    let requests = &document["requests"];
    assert_eq!(requests["total"]["requests"], 480);
    assert_eq!(requests["flush"]["requests"], 80);
    assert_eq!(requests["discard"]["requests"], 57);
    assert_eq!(document["pace"]["tenths"][0].as_array().unwrap().len(), 10);
}

#[test]
fn made_traces_of_every_format_hold_through_takeovers() {
    let directory = tempfile::tempdir().unwrap();
    let rows = made(300);
    let blocks = ["512", "4KiB", "64KiB"];
    for ((name, volumes, bytes), block) in
        made::formats(&rows).into_iter().zip(blocks.iter().cycle())
    {
        let trace = directory.path().join("trace");
        fs::write(&trace, bytes).unwrap();
        // The formats of SSDsim and MQSim are the same, and taken for SSDsim's.
        let format = if name == "mqsim" { &["--format", name][..] } else { &[] };
        let args = [&[trace.to_str().unwrap(), "--block-size", block, "--skew", "-1h"], format];
        let document = measure(&[&args.concat()[..], &MOVES[..]].concat());
        assert_eq!(document["trace"]["format"], name);
        assert_eq!(document["trace"]["volumes"], volumes, "{name}");
        assert!(document["requests"]["total"]["requests"].as_u64().unwrap() >= 300, "{name}");
        assert_eq!(document["takeovers"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn every_durability_depth_and_pace_holds() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.log", &fio(&made(150)));
    for durability in ["strict", "written", "volatile", "never"] {
        for depth in ["1", "4", "64"] {
            let args = [&trace, "--durability", durability, "--depth", depth];
            measure(&[&args[..], &MOVES[..]].concat());
        }
    }
    // 150 requests over 5 ms of the trace's time, at a tenth of its speed.
    let paced = measure(&[&[&trace, "--speed", "0.1"], &MOVES[..]].concat());
    assert!(paced["pace"]["replay_ns"].as_u64().unwrap() > 45_000_000, "{}", paced["pace"]);
    assert_eq!(paced["settings"]["depth"], 1024);
    let passes = measure(&[&[&trace, "--passes", "3", "--limit-rows", "100"], &MOVES[..]].concat());
    assert_eq!(passes["requests"]["total"]["requests"], 300);
    assert_eq!(passes["pace"]["tenths"].as_array().unwrap().len(), 3);
    let timed = measure(&[&trace, "--takeover-at", "1ms", "--takeover-at", "0%,100%"]);
    let before: Vec<_> = timed["takeovers"].as_array().unwrap().iter().collect();
    assert_eq!(before.len(), 3);
    assert_eq!(before[0]["before_row"], 0);
    assert_eq!(before[2]["before_row"], timed["requests"]["total"]["requests"]);
}

#[test]
fn a_backlog_of_discards_has_records_without_bytes() {
    let directory = tempfile::tempdir().unwrap();
    // Something is written where something is discarded.
    let trims = (0..40).map(|at| {
        let offset = at << 20;
        format!("{at} d write {offset} 4096\n{at} d trim {offset} 1048576\n")
    });
    let begin = "fio version 3 iolog\n0 d add\n0 d open\n";
    let text: String = [begin.into()].into_iter().chain(trims).collect();
    let trace = file(&directory, "trims.log", &text);
    let document = measure(&[&trace, "--takeover-at", "100%", "--link-delay", "200ms"]);
    let takeover = &document["takeovers"][0];
    let [records, bytes] =
        ["records", "bytes"].map(|what| takeover[format!("backlog_{what}")].as_u64().unwrap());
    assert!(bytes > 0 && bytes <= 40 * 4096, "{takeover}");
    assert!(records > bytes / 4096, "{takeover}");
}

#[test]
fn a_full_journal_slows_the_replay_and_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(900)));
    let args = [&trace, "--journal-size", "5MiB", "--link-rate", "8MiB/s", "--takeover-at", "50%"];
    let document = measure(&args);
    let full = &document["journal_full"];
    assert!(full["requests"].as_u64().unwrap() > 0, "{full}");
    assert!(full["lost_ns"].as_u64().unwrap() > 0, "{full}");
}

#[test]
fn a_host_is_slowed_down_before_the_journal_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(900)));
    let most = 20_000_000;
    let args = [&trace, "--journal-size", "5MiB", "--link-rate", "8MiB/s", "--pacing-max", "20ms"];
    let document = measure(&args);
    assert_eq!(document["settings"]["pacing_max_ns"], most);
    let pacing = &document["pacing"];
    assert!(pacing["requests"].as_u64().unwrap() > 0, "{pacing}");
    assert!((1..=most).contains(&pacing["longest_ns"].as_u64().unwrap()), "{pacing}");
    // Without a bound there is none.
    let document = measure(&args[..5]);
    assert_eq!(document["pacing"]["requests"], 0);
}

#[test]
fn standard_input_and_several_files() {
    let directory = tempfile::tempdir().unwrap();
    let text = msr(&made(40));
    let mut child = afterimage()
        .args(["--memory", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("-: msr, 40 requests, 2 volumes"), "{}", stdout(&output));
    let (a, b) = (file(&directory, "a.csv", &text), file(&directory, "b.csv", &text));
    assert_eq!(measure(&[&a, &b])["trace"]["rows"], 80);
}

#[test]
fn kept_directories_hold_what_an_outside_program_expects() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(200)));
    let dir = directory.path().join("devices");
    let dir = dir.to_str().unwrap();
    let args = [&trace, "--dir", dir, "--keep", "--seed", "5", "--takeover-at", "50%"];
    let document = measure(&args);
    assert_eq!(document["settings"]["directory"], dir);
    let run = u64::from_str_radix(document["settings"]["run"].as_str().unwrap(), 16).unwrap();
    let mut sectors = 0;
    for volume in 0..2u32 {
        let read = |name: &str| {
            fs::read(Path::new(dir).join(name).join(format!("volumes/{volume}.0"))).unwrap()
        };
        let (a, b) = (read("a"), read("b"));
        assert!(a == b, "volume {volume} differs");
        for (number, sector) in a.chunks(512).enumerate().filter(|(_, s)| **s != [0; 512]) {
            let word = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap());
            assert_eq!(&sector[..8], b"aftimage");
            assert_eq!(word(8), 1 | u64::from(volume) << 32);
            assert_eq!((word(16), word(32)), (run, number as u64));
            assert_eq!(word(64), word(56).wrapping_add(0x9E37_79B9_7F4A_7C15));
            sectors += 1;
        }
    }
    assert_eq!(document["verification"]["written_sectors"], sectors);
    for command in [&["inspect", dir][..], &["verify", dir, dir], &["recover", dir]] {
        let output = Command::new(env!("CARGO_BIN_EXE_afterimage")).args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
        let words = format!("{dir} is no device; devices are in {dir}/a and {dir}/b");
        assert!(stderr(&output).contains(&words), "{}", stderr(&output));
    }
    // There are devices now: another run must not touch them.
    let again = replay(&args);
    assert_eq!(again.status.code(), Some(5), "{}", stderr(&again));
    assert!(stderr(&again).contains("holds a device already"), "{}", stderr(&again));
    let temporary = directory.path().join("temporary");
    measure(&[&trace, "--dir", temporary.to_str().unwrap()]);
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0, "something was left behind");
}

/// Replays in a process of which the kernel takes `limit` (`ulimit`), without a signal: files that
/// cannot grow, as on a full disk, or few descriptors.
fn limited(limit: &str, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_afterimage");
    let script = format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" replay \"$@\"");
    Command::new("bash").args(["-c", &script, program]).args(args).output().expect("bash starts")
}

#[test]
fn a_disk_that_takes_no_more_stops_the_replay_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Volumes of 8 MiB, journals of 5 MiB.
    let row = |at: u64| format!("0,{},4096,w,0.{at:03}\n", at * 37 % 2048 * 8);
    let trace = file(&directory, "t.spc", &(0..400).map(row).collect::<String>());
    let json = file(&directory, "out.json", "old");
    let dir = directory.path().join("devices");
    let dir = dir.to_str().unwrap();
    let journal = ["--journal-size", "5MiB", "--takeover-at", "50%"];
    let args = [&[&trace, "--dir", dir, "--keep", "--json", &json][..], &journal].concat();
    let inspect = |name: &str, rows: &str| {
        let path = format!("{dir}/{name}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        command.args(["inspect", &path, "--rows", rows]).output().unwrap()
    };

    let output = limited("-f 4096", &args);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("creating own.log: File too large"), "{}", stderr(&output));
    assert!(stdout(&inspect("a", "0")).contains("superblock is missing"), "no half a device");
    fs::remove_dir_all(dir).unwrap();

    let output = limited("-f 6144", &args);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains("creating volumes/0.0: File too large"), "{message}");
    assert!(!message.contains("panicked") && !Path::new(&json).exists(), "{message}");
    for name in ["a", "b"] {
        let report = inspect(name, "0");
        assert_eq!(report.status.code(), Some(0), "{}", stdout(&report));
    }
    let devices = [format!("{dir}/a"), format!("{dir}/b")];
    for command in ["recover", "verify"] {
        let mut afterimage = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        let output = afterimage.arg(command).args(&devices).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
}

#[test]
fn a_thousand_volumes_need_no_thousand_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let row = |volume: u64| format!("1538323200,{},8,1,{volume}\n", volume * 8);
    let trace = file(&directory, "t.csv", &(0..1349).map(row).collect::<String>());
    let dir = directory.path().join("devices");
    let args = [&trace, "--dir", dir.to_str().unwrap(), "--takeover-at", "50%"];
    let output = limited("-n 256", &args);
    let story = format!("{}{}", stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{story}");
    assert!(story.contains("1,349 requests, 1,349 volumes"), "{story}");
}

#[test]
fn the_interval_log_has_every_metric() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.log", &fio(&made(200)));
    let log = directory.path().join("x.hlog");
    measure(&[&[&trace, "--hlog", log.to_str().unwrap()], &MOVES[..]].concat());
    let text = fs::read_to_string(log).unwrap();
    assert!(text.starts_with("#"), "{text}");
    for tag in ["write", "flush", "read-local", "lag", "takeover"] {
        assert!(text.contains(&format!("Tag={tag},0.")), "no {tag} in {text}");
    }
    assert!(text.contains(",HISTFAAAA"), "not in the compressed V2 encoding: {text}");
}

#[test]
fn the_shipped_trace_holds() {
    let trace = project().join("cli/traces/postgres-ext4.iolog.gz");
    let args = [trace.to_str().unwrap(), "--limit-rows", "4000"];
    let document = measure(&[&args[..], &MOVES[..]].concat());
    assert_eq!(document["requests"]["total"]["requests"], 4000);
    assert!(document["takeovers"][2]["backlog_blocks"].as_u64().unwrap() > 0);
}

#[test]
fn real_traces_hold() {
    let Some(folder) = real_traces::folder() else { return };
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_trace = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("csv" | "gz" | "vscsi" | "txt"))
    };
    let mut traces: Vec<_> = entries.filter(is_trace).collect();
    traces.sort();
    assert!(!traces.is_empty(), "a folder with a manifest has traces");
    for trace in &traces {
        let trace = trace.to_str().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().to_str().unwrap();
        for extra in [
            &["--dir", dir][..],
            &["--block-size", "512"],
            &["--block-size", "64KiB"],
            &["--skew", "-1h"],
        ] {
            let args = [&[trace, "--limit-rows", "1000"], extra, &MOVES[..]].concat();
            let document = measure(&args);
            assert_eq!(document["takeovers"].as_array().unwrap().len(), 3, "{args:?}");
        }
    }
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}
