//! `afterimage replay --outage` as a user runs it: the line goes down and comes back, hosts go on, and
//! everything is verified as without.

#[allow(dead_code)]
mod made;

use made::{fio, made, msr};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn replay(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(["replay", "--memory"]).args(args).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Replays with `args`, which must hold; the document and the table.
fn measure(args: &[&str]) -> (Value, String) {
    let output = replay(&[args, &["--json", "-"]].concat());
    let table = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{table}");
    assert!(table.contains("verified: every read was right"), "{args:?}\n{table}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["verification"]["violations"], 0, "{table}");
    assert_eq!(document["verification"]["devices_equal"], true, "{table}");
    (document, table)
}

fn file(directory: &TempDir, name: &str, content: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

fn list<'a>(document: &'a Value, name: &str) -> &'a Vec<Value> {
    document[name].as_array().unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/postgres-ext4.iolog.gz")
}

#[test]
fn hosts_go_on_and_the_backlog_follows_when_the_line_is_back() {
    let trace = shipped();
    // Room for what is written in both outages together.
    let manner = ["--journal-size", "256MiB", "--limit-rows", "3000"];
    let outages = ["--outage", "50%..90%,10%..30%"];
    let (document, table) = measure(&[&[trace.to_str().unwrap()], &manner[..], &outages].concat());
    let outages = list(&document, "outages");
    let rows: Vec<_> =
        outages.iter().map(|o| ["before_row", "back_before_row"].map(|n| number(o, n))).collect();
    assert_eq!(rows, [[300, 900], [1500, 2700]]);
    for outage in outages {
        assert_eq!(outage["early"], false, "{outage}");
        // Both devices saw their connection end.
        let lasted = number(outage, "back_at_ns") - number(outage, "at_ns");
        assert!(number(outage, "noticed_ns") <= lasted, "{outage}");
        assert!(number(outage, "backlog_records") > 0, "{outage}");
        assert!(number(outage, "backlog_bytes") > 0, "{outage}");
        assert!(number(outage, "drained_ns") > 0, "{outage}");
    }
    assert!(table.contains("outage         begins"), "{table}");
}

#[test]
fn a_full_journal_makes_hosts_wait_and_the_line_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(900)));
    let args = [&trace, "--journal-size", "5MiB", "--outage", "10%..95%", "--journal-full", "wait"];
    let (document, table) = measure(&args);
    let outage = &list(&document, "outages")[0];
    assert_eq!(outage["early"], true, "{outage}");
    assert!(number(outage, "back_before_row") < 855, "{outage}");
    let waited = &outage["waited"];
    assert!(number(waited, "requests") > 0, "{outage}");
    // Hosts could do nothing for a second.
    assert!(number(waited, "lost_ns") > 900_000_000, "{outage}");
    assert!(number(&document["journal_full"], "lost_ns") >= number(waited, "lost_ns"));
    assert!(table.contains("ended early"), "{table}");
    assert_eq!(document["settings"]["journal_full"], "wait");
}

#[test]
fn a_takeover_in_an_outage_is_refused_and_hosts_stay() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(300)));
    let points = ["--takeover-at", "20%,50%,80%", "--outage", "40%..60%", "--link-delay", "2ms"];
    let (document, table) = measure(&[&[trace.as_str()], &points[..]].concat());
    let to = |name| -> Vec<_> { list(&document, name).iter().map(|t| t["to"].clone()).collect() };
    assert_eq!(to("takeovers"), ["b", "a"]);
    assert_eq!(to("refused_takeovers"), ["a"]);
    let refused = &list(&document, "refused_takeovers")[0];
    assert_eq!(number(refused, "before_row"), 150);
    assert!(refused["why"].as_str().unwrap().contains("no connection"), "{refused}");
    assert!(table.contains("takeover to a after 150 requests refused, hosts stay"), "{table}");
}

/// At its first point the line is down; at its last it is up, and the takeover waits for the hellos.
#[test]
fn a_takeover_at_the_ends_of_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(300)));
    for delay in ["0s", "20ms"] {
        let points = ["--takeover-at", "30%,60%", "--outage", "30%..60%", "--link-delay", delay];
        let (document, _) = measure(&[&[trace.as_str()], &points[..]].concat());
        let rows = |name| -> Vec<_> {
            list(&document, name).iter().map(|takeover| number(takeover, "before_row")).collect()
        };
        assert_eq!((rows("takeovers"), rows("refused_takeovers")), (vec![180], vec![90]));
    }
}

/// From the first request, to the last, of no length, one after the other; with backlogs and debts of
/// takeovers before them, every block size and durability.
#[test]
fn outages_anywhere_hold() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.log", &fio(&made(400)));
    let line = ["--link-rate", "20MiB/s", "--link-delay", "1ms", "--takeover-at", "25%,49%,75%"];
    let outages =
        ["0%..10%", "26%..40%", "50%..50.01%", "76%..77%,77%..78%", "90%..100%", "0%..100%"];
    let ways = [
        &["--block-size", "512"][..],
        &["--block-size", "64KiB", "--journal-size", "8MiB"],
        &["--durability", "strict", "--depth", "4"],
        &["--skew", "-1h"],
    ];
    for (outage, way) in outages.iter().zip(ways.iter().cycle()) {
        let args = [&[trace.as_str(), "--outage", outage], &line[..], way].concat();
        let (document, _) = measure(&args);
        assert_eq!(list(&document, "outages").len(), outage.split(',').count(), "{args:?}");
        let asked = list(&document, "takeovers").len();
        assert_eq!(asked + list(&document, "refused_takeovers").len(), 3, "{args:?}");
    }
}

/// At the trace's pace the clock decides, whatever the requests do: 400 requests in 13.3 ms of the
/// trace's time, at a fiftieth of its speed.
#[test]
fn at_the_traces_pace_an_outage_lasts_as_long_as_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(400)));
    let args = [&trace, "--speed", "0.02", "--outage", "4ms..8ms", "--journal-size", "4MiB"];
    let (document, _) = measure(&args);
    let outage = &list(&document, "outages")[0];
    let [begin, end] = ["at_ns", "back_at_ns"].map(|name| number(outage, name));
    assert!(begin >= 200_000_000 && end - begin >= 190_000_000, "{outage}");
    assert_eq!(outage["early"], false, "{outage}");
}

/// The request is lost, and both devices come back: it takes 300 ms, is made after 250 ms, and the line
/// goes down after 500 ms.
#[test]
fn a_takeover_that_an_outage_interrupts_goes_on_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let trace = file(&directory, "t.csv", &msr(&made(900)));
    let times = ["--takeover-at", "5ms", "--outage", "10ms..20ms", "--link-delay", "300ms"];
    let (document, _) = measure(&[&[trace.as_str(), "--speed", "0.02"], &times[..]].concat());
    let (takeover, outage) = (&list(&document, "takeovers")[0], &list(&document, "outages")[0]);
    let ready_at = number(takeover, "at_ns") + number(takeover, "ready_ns");
    assert!(number(takeover, "at_ns") < number(outage, "at_ns"), "{takeover} {outage}");
    assert!(ready_at > number(outage, "back_at_ns"), "{takeover} {outage}");
}

#[test]
fn an_outage_that_cannot_be_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    // The last request comes after 100 µs.
    let trace = file(&directory, "t.csv", &msr(&made(5)));
    for (words, why) in [
        (&["--outage", "40%..20%"][..], "ends where it begins"),
        (&["--outage", "20%..20%"], "ends where it begins"),
        (&["--outage", "50us..40us"], "ends where it begins"),
        (&["--outage", "90%..10us"], "ends where it begins"),
        (&["--outage", "10%..50%,40%..60%"], "is down already"),
        (&["--outage", "10us..50us", "--outage", "0%..100%"], "is down already"),
        (&["--outage", "50us..101us"], "comes 100 µs after the first"),
        (&["--outage", "20%..101%"], "between 0% and 100%"),
        (&["--outage", "20%"], "not FROM..TO"),
        (&["--outage", "soon..late"], "a percentage or a time"),
        (&["--outage", "1..2"], "has no unit"),
        (&["--journal-full", "drop"], "is neither 'wait' nor 'suspend'"),
    ] {
        let output = replay(&[words, &[&trace]].concat());
        let story = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {story}");
        assert!(story.contains(why) && stdout(&output).is_empty(), "{words:?}: {story}");
    }
    let untimed = "fio version 2 iolog\nx add\nx open\nx write 0 4096\nx close\n";
    let trace = file(&directory, "untimed.log", untimed);
    let output = replay(&["--outage", "0%..90s", &trace]);
    assert_eq!(output.status.code(), Some(2));
    let story = stderr(&output);
    assert!(story.contains("--outage TIME needs a trace with times"), "{story}");
    measure(&["--outage", "0%..100%", &trace]);
}
