//! Real kills: the program replays a real trace through two takeovers and is killed at a random
//! moment; what it leaves is recovered by the program and judged by its request log.
//!
//! `KILL_ROUNDS=200` kills so many at work and judges what is left, `KILL_SEED=n` repeats one round. When a round is repeated
//! the moment is the same, the machine is not: what was found need not be found again.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use afterimage::internal::storage::Directory;
use afterimage_cli::replay::judge::{Claim, History, Shown};
use afterimage_cli::replay::requests;

#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
use random::Random;

/// Requests of the trace in a round.
const ROWS: usize = 1500;

/// Longer than this nothing takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The part of the shipped trace that is replayed: after the format of the file system, whose
/// discards of the whole disk would be most of the round.
fn trace(directory: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/postgres-ext4.iolog.gz");
    let mut text = String::new();
    let mut file = flate2::read::GzDecoder::new(fs::File::open(shipped).unwrap());
    file.read_to_string(&mut text).unwrap();
    let is_large = |line: &str| {
        let length = line.rsplit(' ').next().and_then(|word| word.parse().ok());
        line.contains(" trim ") && length.is_some_and(|length: u64| length > 8 << 20)
    };
    let lines = text.lines().filter(|line| !is_large(line)).take(ROWS);
    let path = directory.join("trace.iolog");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    path
}

fn afterimage(command: &str) -> Command {
    let mut all = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    all.arg(command).stdin(Stdio::null());
    all
}

/// A replay in `directory`: the child.
fn replay(trace: &Path, directory: &Path, seed: u64) -> Child {
    let mut command = afterimage("replay");
    command.arg(trace).arg("--dir").arg(directory.join("devices")).arg("--keep");
    command.arg("--request-log").arg(directory.join("log"));
    command.args(["--takeover-at", "35%", "--takeover-at", "70%", "--link-rate", "40MiB/s"]);
    command.args(["--link-delay", "2ms", "--journal-size", "4MiB", "--depth", "8"]);
    command.args(["--seed", &seed.to_string()]);
    if seed.is_multiple_of(3) {
        command.args(["--durability", "strict"]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn run(command: &str, devices: &[&Path]) -> (Option<i32>, String) {
    let output = afterimage(command).args(devices).output().expect("the program starts");
    (output.status.code(), text(&output))
}

/// The outcome of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Killed before there was a pair.
    TooEarly,
    /// Killed, and judged.
    Killed,
    /// Done before the kill, and judged.
    Done,
}

/// Kills a replay `after` its start.
fn round(trace: &Path, seed: u64, after: Duration) -> (Came, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut child = replay(trace, path, seed);
    std::thread::sleep(after);
    child.kill().expect("it can be killed");
    let output = child.wait_with_output().unwrap();
    let done = output.status.code().is_some();
    assert!(!done || output.status.success(), "the replay failed: {}", text(&output));

    let log = fs::read_to_string(path.join("log")).unwrap_or_default();
    let events = requests::parse(&log).unwrap();
    let history = History::of(&events);
    let [a, b] = ["a", "b"].map(|name| path.join("devices").join(name));
    if !is_made(&a) || !is_made(&b) {
        assert!(!done && history.writes() == 0, "there was a pair");
        for half in [&a, &b].into_iter().filter(|device| !is_made(device)) {
            let (code, story) = run("recover", &[half]);
            assert_eq!(code, Some(4), "{story}");
            assert!(!half.exists() || story.contains("making was cut short"), "{story}");
        }
        return (Came::TooEarly, 0);
    }
    if seed.is_multiple_of(2) {
        // The content of one of them alone may be old, but it must have been true once.
        let (code, story) = run("recover", &[&b]);
        assert_eq!(code, Some(0), "{story}");
        judge(&b, &history, Claim::Closed);
    }
    let (code, story) = run("recover", &[&a, &b]);
    assert_eq!(code, Some(0), "{story}");
    let (code, story) = run("verify", &[&a, &b]);
    assert_eq!(code, Some(0), "{story}");
    judge(&a, &history, Claim::Promised);
    judge(&b, &history, Claim::Promised);
    (if done { Came::Done } else { Came::Killed }, history.promised())
}

fn is_made(device: &Path) -> bool {
    // The superblock is written last, and its first copy first.
    fs::read(device.join("superblock")).is_ok_and(|bytes| bytes.iter().take(512).any(|&b| b != 0))
}

fn judge(device: &Path, history: &History, claim: Claim) {
    let storage = Directory::open_read_only(device).unwrap();
    let shown = Shown::read(&storage, history).unwrap();
    let findings = history.judge(&shown, claim);
    let name = device.display();
    assert_eq!(findings.count(), 0, "{name}, {claim:?}: {:#?}", findings.first());
}

#[test]
fn what_was_promised_survives_a_kill() {
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let trace = trace(directory.path());
    let mut whole = {
        let began = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        let output = replay(&trace, directory.path(), 1).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        began.elapsed()
    };
    assert!(whole < PATIENCE, "a replay takes {whole:?}");
    let rounds = number("KILL_ROUNDS").unwrap_or(10) as usize;
    let seeds = match number("KILL_SEED") {
        Some(seed) => seed..seed + 1,
        // Some are killed while half-made, some are done: twice as many will do.
        None => 0..2 * rounds as u64 + 10,
    };
    let alone = seeds.end - seeds.start == 1;
    let (mut came, mut promised) = (Vec::new(), 0);
    let count = |came: &[Came], which| came.iter().filter(|&&outcome| outcome == which).count();
    for seed in seeds {
        if count(&came, Came::Killed) == rounds {
            break;
        }
        let mut random = Random::new(seed);
        // One in eight while the directories are made, one in eight about the end.
        let from = whole.as_micros() as u64;
        let after = match seed % 8 {
            0 => random.within(0..from / 20),
            1 => random.within(from * 9 / 10..from * 21 / 20),
            _ => random.within(from / 50..from),
        };
        let story = format!("KILL_SEED={seed}: killed after {after} of {from} us");
        let outcome =
            std::panic::catch_unwind(|| round(&trace, seed, Duration::from_micros(after)));
        let Ok((outcome, kept)) = outcome else { panic!("{story}") };
        came.push(outcome);
        if outcome == Came::Done {
            // The machine is faster now than it was at first.
            whole = whole * 9 / 10;
        }
        promised += kept;
    }
    let [early, killed, done] =
        [Came::TooEarly, Came::Killed, Came::Done].map(|which| count(&came, which));
    let mut err = std::io::stderr();
    let line = format!(
        "rounds of up to {whole:?}: {killed} killed at work, {early} while half-made, {done} were done; \
         {promised} writes were promised and are there\n"
    );
    err.write_all(line.as_bytes()).unwrap();
    assert!(alone || killed == rounds && promised > 0, "{killed} of {rounds} were judged");
}
