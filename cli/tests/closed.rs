//! `afterimage resume-alone`, `prefer` and `accept-loss` as a user runs them: what they change, what
//! they refuse, each refusal's exit status, and that it changes nothing.

#[allow(dead_code)]
mod pair;

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::format::superblock::Superblock;
use afterimage::internal::limits::Settings;
use afterimage::internal::storage::Directory;
use pair::{Pair, contents, superblock};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

fn afterimage(words: &[&str], dir: &Path, rest: &[&str]) -> Output {
    let mut all = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    all.args(words).arg(dir).args(rest).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The words of every command, the directory left out, and those behind it.
const COMMANDS: [(&[&str], &[&str]); 5] = [
    (&["resume-alone"], &["on"]),
    (&["resume-alone"], &["off"]),
    (&["prefer"], &["on"]),
    (&["prefer"], &["off"]),
    (&["accept-loss"], &[]),
];

/// The command ends with `status`, says `why` on the error output alone, and leaves every byte as it
/// was; so does its dry run.
fn refused((words, rest): (&[&str], &[&str]), dir: &Path, status: i32, why: &str) {
    for dry in [&["--dry-run"][..], &[]] {
        let before = contents(dir);
        let output = afterimage(words, dir, &[rest, dry].concat());
        let story = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{words:?} {dry:?}: {story}");
        assert!(story.contains(why), "{words:?}: no '{why}' in {story}");
        assert_eq!(stdout(&output), "", "{words:?}");
        assert!(before == contents(dir), "{words:?} {dry:?}: something was changed");
    }
}

/// The command ends well and says every one of `parts`.
fn done(words: &[&str], dir: &Path, rest: &[&str], parts: &[&str]) {
    let output = afterimage(words, dir, rest);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
    parts.iter().for_each(|part| assert!(said.contains(part), "no '{part}' in {said}"));
}

fn json(words: &[&str], dir: &Path, rest: &[&str]) -> Value {
    let output = afterimage(words, dir, &[rest, &["--json", "-"]].concat());
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// A pair that was closed, in a folder; the host was at the first.
fn closed() -> (tempfile::TempDir, [PathBuf; 2]) {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    pair.settle();
    pair.close();
    let folder = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    // The pair keeps its locks.
    dirs.iter().enumerate().for_each(|(k, dir)| copy(&pair.path(k), dir));
    (folder, dirs)
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A copy of a device that is open, as its process's end leaves it.
fn killed(pair: &Pair, k: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("device");
    copy(&pair.path(k), &to);
    (folder, to)
}

/// As a killed one that was opened and closed again: its writes completed in a volatile cache.
fn with_a_loss() -> (tempfile::TempDir, PathBuf) {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    let (folder, dir) = killed(&pair, 0);
    open(&dir).close().unwrap();
    assert!(superblock(&dir).lost.is_some(), "the test has nothing to accept");
    (folder, dir)
}

fn open(dir: &Path) -> Arc<Device> {
    let storage = Arc::new(Directory::open(dir).unwrap());
    Device::open(storage, Arc::new(SystemClock::default()), Settings::default()).unwrap()
}

#[test]
fn resume_alone_is_switched_and_counts_at_the_next_opening() {
    let (_folder, [dir, _]) = closed();
    let before = superblock(&dir);
    let words = &["resume-alone"];
    done(words, &dir, &["off"], &["resume-alone is off already; nothing was changed"]);
    done(words, &dir, &["on", "--dry-run"], &["would be on; nothing was changed"]);
    assert_eq!(superblock(&dir), before);
    let said = ["device 1, active, tenure 1, closed cleanly", "is on now", "must make sure"];
    done(words, &dir, &["on"], &said);
    let expected = Superblock { generation: before.generation + 1, resume_alone: true, ..before };
    assert_eq!(superblock(&dir), expected);
    let device = open(&dir);
    assert!(device.recovery().clean && device.status().serving);
    device.close().unwrap();
    drop(device);
    let report = json(words, &dir, &["off"]);
    let expected = [("before", true), ("after", false), ("changed", true), ("dry_run", false)];
    expected.iter().for_each(|&(name, is)| assert_eq!(report[name], is, "{name} of {report}"));
    assert!(!superblock(&dir).resume_alone);
}

#[test]
fn prefer_is_switched_even_of_a_device_that_was_killed() {
    let pair = Pair::new();
    let (_folder, dir) = killed(&pair, 1);
    let before = superblock(&dir);
    assert!(!before.clean && !before.prefer);
    done(&["prefer"], &dir, &["on"], &["device 2, fenced", "NOT closed", "prefer is on now"]);
    let expected = Superblock { generation: before.generation + 1, prefer: true, ..before };
    assert_eq!(superblock(&dir), expected);
    assert!(open(&dir).policy().prefer);
}

#[test]
fn a_loss_is_accepted_once_with_what_it_was() {
    let (_folder, dir) = with_a_loss();
    let marked = superblock(&dir);
    let words = &["accept-loss"];
    let story = ["may be lost", "found: 20", "first record lost: ", "lost since: ", "UTC"];
    done(words, &dir, &["--dry-run"], &[&story[..], &["nothing was changed"]].concat());
    assert_eq!(superblock(&dir), marked);
    let report = json(words, &dir, &["--dry-run"]);
    let lost = marked.lost.unwrap();
    assert_eq!(report["lost"]["found"], lost.found);
    assert_eq!(report["lost"]["since"], lost.since);
    assert_eq!(report["lost"]["first"]["epoch"], lost.first.epoch);
    assert_eq!((&report["changed"], &report["dry_run"]), (&false.into(), &true.into()));
    done(words, &dir, &[], &[&story[..], &["accepted"]].concat());
    let expected = Superblock { generation: marked.generation + 1, lost: None, ..marked };
    assert_eq!(superblock(&dir), expected);
    refused(COMMANDS[4], &dir, 8, "nothing to accept");
    let device = open(&dir);
    device.resume_alone().unwrap();
    device.session().unwrap();
}

#[test]
fn a_loss_is_refused_where_it_cannot_be_accepted() {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    let (_folder, dir) = killed(&pair, 0);
    refused(COMMANDS[4], &dir, 10, "`afterimage recover");
    let (_other, [a, b]) = closed();
    refused(COMMANDS[4], &a, 8, "nothing to accept");
    refused(COMMANDS[4], &b, 9, "the host belongs at the other device");
}

#[test]
fn a_device_that_is_open_elsewhere_is_left_alone() {
    let pair = Pair::new();
    COMMANDS.iter().for_each(|&command| refused(command, &pair.path(0), 5, "open elsewhere"));
}

/// Every command on every kind of directory that is no sound device.
#[test]
fn damaged_and_foreign_directories_are_refused_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, bytes: Option<Vec<u8>>| {
        let dir = folder.path().join(name);
        fs::create_dir(&dir).unwrap();
        bytes.into_iter().for_each(|bytes| fs::write(dir.join("superblock"), bytes).unwrap());
        dir
    };
    let (parent, [a, _]) = closed();
    let sound = fs::read(a.join("superblock")).unwrap();
    let mut both_rotten = sound.clone();
    (both_rotten[100], both_rotten[4096 + 100]) = (both_rotten[100] ^ 1, both_rotten[4196] ^ 1);
    let mut later = sound.clone();
    later[8] = 200;
    for at in [0, 4096] {
        later.copy_within(0..512, at);
        reseal(&mut later[at..at + 512]);
    }
    let nonsense = b"NONSENSE".iter().copied().cycle().take(sound.len()).collect();
    for (dir, status, why) in [
        (made("nothing", None), 4, "there is no superblock"),
        (made("empty", Some(Vec::new())), 4, "unusable"),
        (made("torn", Some(sound[..300].to_vec())), 4, "unusable"),
        (made("blank", Some(vec![0; sound.len()])), 4, "cut short"),
        (made("rotten", Some(both_rotten)), 4, "afterimage inspect"),
        (made("foreign", Some(nonsense)), 4, "AFTSUPER"),
        (made("later", Some(later)), 2, "nothing was changed"),
    ] {
        COMMANDS.iter().for_each(|&command| refused(command, &dir, status, why));
    }
    let foreign = made("stranger", None);
    fs::write(foreign.join("notes"), "mine").unwrap();
    COMMANDS.iter().for_each(|&command| refused(command, &foreign, 4, "no superblock"));
    assert!(!foreign.join("lock").exists(), "it was looked at only");
    COMMANDS.iter().for_each(|&command| refused(command, parent.path(), 2, "devices are in"));
    let (words, rest) = COMMANDS[0];
    let missing = afterimage(words, &folder.path().join("none"), rest);
    assert_eq!(missing.status.code(), Some(4), "{}", stderr(&missing));
}

/// The checksum of a copy of the superblock, made right again.
fn reseal(copy: &mut [u8]) {
    copy[16..24].fill(0);
    let sum = xxhash_rust::xxh3::xxh3_64(copy);
    copy[16..24].copy_from_slice(&sum.to_le_bytes());
}

/// A crash between the writes of the two copies leaves one of them older, or one rots.
#[test]
fn a_bad_copy_is_named_and_written_anew_by_a_change_only() {
    let (_folder, [dir, _]) = closed();
    let file = dir.join("superblock");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let words = &["resume-alone"];
    done(words, &dir, &["on", "--dry-run"], &["superblock: copy 0: ", "would be on"]);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(json(words, &dir, &["on", "--dry-run"])["bad_copy"].is_string());
    done(words, &dir, &["on"], &["superblock: copy 0: ", "written anew", "is on now"]);
    assert!(json(words, &dir, &["on"])["bad_copy"].is_null());
    assert!(superblock(&dir).resume_alone);
}

#[test]
fn a_command_line_that_cannot_be_ends_with_2() {
    let (_folder, [dir, _]) = closed();
    for (words, rest) in [
        (&["resume-alone"], &[][..]),
        (&["resume-alone"], &["maybe"]),
        (&["prefer"], &["on", "off"]),
        (&["accept-loss"], &["on"]),
    ] {
        let before = contents(&dir);
        let output = afterimage(words, &dir, rest);
        assert_eq!(output.status.code(), Some(2), "{words:?} {rest:?}: {}", stderr(&output));
        assert!(before == contents(&dir), "{words:?}");
    }
}
