//! Replays of pairs that leave the order of writes: always in differential mode, or suspended by a full
//! journal and back by themselves; and what the command says of both.

use std::path::{Path, PathBuf};
use std::process::Command;

fn replay(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_afterimage"))
        .arg("replay")
        .args(words)
        .output()
        .expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/postgres-ext4.iolog.gz")
}

/// The shared traces, where there are any.
fn shared() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_none_or(|extension| extension != "md"));
    paths.sort();
    paths
}

fn holds(trace: &Path, words: &[&str]) {
    let words = [&[trace.to_str().expect("a path"), "--memory"], words].concat();
    let (code, text) = replay(&words);
    assert_eq!(code, Some(0), "{words:?}\n{text}");
    assert!(text.contains("verified: every read was right"), "{words:?}\n{text}");
}

const TAKEOVERS: [&str; 2] = ["--takeover-at", "25%,50%,75%"];
const SUSPENDS: [&str; 8] = [
    "--journal-size",
    "16MiB",
    "--journal-full",
    "suspend",
    "--outage",
    "5%..20%,30%..45%",
    "--takeover-at",
    "25%,50%,75%",
];

#[test]
fn a_pair_always_in_differential_mode_holds() {
    for block in ["512", "4KiB", "64KiB"] {
        let words = ["--limit-rows", "4000", "--mode", "differential", "--block-size", block];
        holds(&shipped(), &[&words[..], &TAKEOVERS].concat());
    }
}

/// Twice, out of the order and in the middle of a copy; takeovers wait for none.
#[test]
fn a_pair_that_suspends_comes_back_and_holds() {
    for block in ["512", "4KiB", "64KiB"] {
        let words = ["--limit-rows", "6000", "--block-size", block];
        holds(&shipped(), &[&words[..], &SUSPENDS].concat());
    }
}

#[test]
fn the_shared_traces_hold_in_both_modes() {
    for trace in shared() {
        let most = ["--limit-rows", "20000"];
        holds(&trace, &[&most[..], &["--mode", "differential"], &TAKEOVERS].concat());
        holds(&trace, &[&most[..], &SUSPENDS].concat());
    }
}

#[test]
fn a_mode_that_is_none_is_refused() {
    let (code, text) = replay(&[shipped().to_str().unwrap(), "--mode", "sideways"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("ordered") && text.contains("differential"), "{text}");
}
