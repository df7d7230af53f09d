//! `afterimage recover` as a user runs it: what it finds, what it refuses, and the two together.

#[allow(dead_code)]
mod pair;
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;

use afterimage::Policy;
use afterimage::internal::storage::Directory;
use afterimage::internal::superblock;
use afterimage_cli::verify::{Args, Verdict};
use pair::Pair;
use random::Random;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn afterimage(command: &str, paths: &[&Path]) -> Output {
    let mut all = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    all.arg(command).args(paths).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two directories as a killed process leaves them: A has moved the host to B with a backlog, and
/// B has written since. The locks are gone with their process.
fn killed() -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    pair.settle();
    pair.write(0, 0, 1, 10);
    pair.settle();
    pair.links[0].hold(afterimage::internal::link::Lane::Data, true);
    pair.write(0, 0, 2, 12);
    pair.take_over(1);
    pair.write(1, 0, 3, 13);
    copies(&pair)
}

fn copies(pair: &Pair) -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
    let copies = tempfile::tempdir().unwrap();
    let paths = [0, 1].map(|k| {
        let to = copies.path().join(["a", "b"][k]);
        copy(&pair.path(k), &to);
        to
    });
    (copies, paths)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            // Segments of terabytes are holes.
            false if fs::metadata(entry.path()).unwrap().len() > 1 << 30 => {}
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_pair_that_was_killed_is_brought_together() {
    let (_copies, [a, b]) = killed();
    let output = afterimage("recover", &[&a, &b]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert_eq!(stderr(&output), "", "no progress in a pipe");
    for part in [
        "device 1, was NOT closed cleanly",
        "own.log: 3 live records",
        "recv.log: 2 live records",
        "the host belongs at the other device",
        "records or blocks were missing",
        "neither owes the other anything now",
        "b: closed cleanly",
    ] {
        assert!(said.contains(part), "no '{part}' in {said}");
    }
    let output = afterimage("verify", &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let again = afterimage("recover", &[&b]);
    assert!(stdout(&again).contains("was closed cleanly"), "{}", stdout(&again));
    assert_eq!(again.status.code(), Some(0));
}

/// A pair that was killed in differential mode goes back to ordered mode: blocks are copied, both ways.
#[test]
fn a_pair_that_was_killed_while_suspended_is_brought_together() {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    pair.devices[0].suspend().unwrap();
    pair.write(0, 3, 9, 12);
    pair.take_over(1);
    pair.write(1, 0, 2, 13);
    let (_copies, [a, b]) = copies(&pair);
    let output = afterimage("recover", &[&a, &b]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert!(said.contains("neither owes the other anything now"), "{said}");
    let output = afterimage("verify", &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

/// Killed between the grant and its arrival, neither of the two serves, and by bits only a device that serves
/// sends anything.
#[test]
fn a_pair_that_was_killed_within_a_takeover_is_brought_together() {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    pair.devices[0].suspend().unwrap();
    pair.write(0, 3, 9, 12);
    pair.devices[0].set_policy(afterimage::Policy::default()).unwrap();
    pair.devices[1].begin_takeover().unwrap();
    while pair.devices[0].step_control().unwrap() {}
    assert!(pair.devices.iter().all(|device| !device.status().serving));
    // A held it last, in whichever order the two are named.
    for in_order in [true, false] {
        let (_copies, [a, b]) = copies(&pair);
        let paths = if in_order { [&a, &b] } else { [&b, &a] };
        let output = afterimage("recover", &paths.map(|path| path.as_path()));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let given = "a does from now on, as it held it last, in tenure 1, and the other one in 0";
        assert!(stdout(&output).contains(given), "{}", stdout(&output));
        let is_fenced = |dir: &Path| {
            let directory = Directory::open_read_only(dir).unwrap();
            superblock::load(&directory).unwrap().fenced
        };
        assert!(!is_fenced(&a) && is_fenced(&b));
        let output = afterimage("verify", &[&a, &b]);
        assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    }
}

/// A policy is an operator's word, and counts more.
#[test]
fn a_preferred_device_gets_the_host_of_a_pair_that_was_killed_within_a_takeover() {
    let pair = Pair::new();
    pair.write(0, 0, 1, 11);
    pair.devices[0].suspend().unwrap();
    pair.write(0, 3, 9, 12);
    pair.devices[0].set_policy(Policy::default()).unwrap();
    pair.devices[1].begin_takeover().unwrap();
    while pair.devices[0].step_control().unwrap() {}
    pair.devices[1].set_policy(Policy { prefer: true, ..Policy::default() }).unwrap();
    let (_copies, [a, b]) = copies(&pair);
    let output = afterimage("recover", &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("b does from now on, which it asked for by itself"), "{said}");
}

/// A differential group rests level, and never in order.
#[test]
fn a_differential_group_is_brought_together() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("t.csv");
    fs::write(&trace, "128166372003061629,hm,0,Write,0,4096,100\n").unwrap();
    let devices = directory.path().join("devices");
    let words: [&Path; 4] =
        [&trace, Path::new("--mode"), Path::new("differential"), Path::new("--keep")];
    let output = afterimage("replay", &[&words[..], &[Path::new("--dir"), &devices]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let [a, b] = ["a", "b"].map(|name| devices.join(name));
    for command in ["recover", "verify"] {
        let output = afterimage(command, &[&a, &b]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
}

#[test]
fn one_alone_is_closed_with_its_records_pending() {
    let (_copies, [a, b]) = killed();
    let output = afterimage("recover", &[&a]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stdout(&output).contains("both hold"));
    let output = afterimage("recover", &[&a, &b]);
    assert!(stdout(&output).contains("device 1, was closed cleanly"), "{}", stdout(&output));
    assert_eq!(afterimage("verify", &[&a, &b]).status.code(), Some(0));
}

#[test]
fn a_bad_copy_of_the_superblock_is_told_and_written_anew() {
    let (_copies, [a, _]) = killed();
    let file = a.join("superblock");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let output = afterimage("recover", &[&a]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("written anew"), "{}", stdout(&output));
    assert!(!stdout(&afterimage("recover", &[&a])).contains("written anew"));
}

#[test]
fn what_rots_is_named_and_left_alone() {
    let (_copies, [_, b]) = killed();
    let file = b.join("recv.log");
    let mut bytes = fs::read(&file).unwrap();
    // The data of the first record: the second one's batch says that it was durable.
    bytes[4096 + 700] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let before = fs::read(b.join("superblock")).unwrap();
    let output = afterimage("recover", &[&b]);
    assert_eq!(output.status.code(), Some(4), "{}", stdout(&output));
    let said = stderr(&output);
    for part in ["recv.log", "recv:1", "4096", "afterimage inspect"] {
        assert!(said.contains(part), "no '{part}' in {said}");
    }
    assert_eq!(fs::read(b.join("superblock")).unwrap(), before, "nothing was changed");
}

/// Every file of a device, with its contents.
fn contents(device: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(device).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// `recover` of `paths` ends with `status`, says `why`, and leaves every byte as it was.
fn refused(paths: &[&Path], status: i32, why: &str) {
    let before: Vec<_> = paths.iter().map(|path| contents(path)).collect();
    let output = afterimage("recover", paths);
    let story = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{why}: {}{story}", stdout(&output));
    assert!(story.contains(why), "{why}: {story}");
    let after: Vec<_> = paths.iter().map(|path| contents(path)).collect();
    assert!(before == after, "{why}: something was changed");
}

#[test]
fn what_is_refused_is_left_as_it_is() {
    let (_one, [a, b]) = killed();
    let (_other, [_, other]) = killed();
    assert_eq!(afterimage("recover", &[&a, &b]).status.code(), Some(0));
    let empty = tempfile::tempdir().unwrap();
    refused(&[&a, empty.path()], 4, "there is no superblock");
    refused(&[empty.path(), &a], 4, "there is no superblock");
    let stranger = tempfile::tempdir().unwrap();
    let words = ["replay", "--keep", "--journal-size", "1MiB", "--dir"];
    let trace = stranger.path().join("one.iolog");
    fs::write(&trace, "fio version 3 iolog\n1 f write 0 4096\n").unwrap();
    let mut replay = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    let made = replay.args(words).arg(stranger.path()).arg(&trace).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    refused(&[&b, &stranger.path().join("a")], 4, "bringing the two together");
    refused(&[&stranger.path().join("b"), &a], 4, "bringing the two together");
    // One that is sound beside one that is damaged, cleanly closed or not.
    let log = other.join("recv.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[4096 + 700] ^= 1;
    fs::write(&log, bytes).unwrap();
    refused(&[&a, &other], 4, "recv.log");
    refused(&[&other, &a], 4, "recv.log");
    // One alone, of which a copy of the superblock would be written anew, if the rest were sound.
    let superblock = a.join("superblock");
    let mut bytes = fs::read(&superblock).unwrap();
    bytes[100] ^= 1;
    fs::write(&superblock, bytes).unwrap();
    fs::write(a.join("volumes/0.0"), [1; 512]).unwrap();
    refused(&[&a], 4, "volumes/0.0");
    refused(&[&b, &a], 4, "volumes/0.0");
    refused(&[&b, &b], 5, "open elsewhere");
}

#[test]
fn a_refused_replay_leaves_devices_and_results_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("one.iolog"), "fio version 3 iolog\n1 f write 0 4096\n").unwrap();
    let replay = || {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        replay.current_dir(folder.path()).args(["replay", "one.iolog", "--dir", "d", "--keep"]);
        replay.args(["--journal-size", "1MiB", "--json", "r", "--hlog", "h"]).output().unwrap()
    };
    assert_eq!(replay().status.code(), Some(0));
    let before = contents(folder.path());
    assert_eq!(replay().status.code(), Some(5));
    assert!(before == contents(folder.path()), "something was changed");
    fs::remove_dir_all(at("d/a")).unwrap();
    let before = contents(folder.path());
    let output = replay();
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("d/b holds a device already"), "{}", stderr(&output));
    assert!(before == contents(folder.path()) && !at("d/a").exists(), "something was changed");
}

#[test]
fn what_is_no_device_or_only_half_of_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let missing = path.join("none");
    assert_eq!(afterimage("recover", &[&missing]).status.code(), Some(4));
    fs::write(path.join("own.log"), vec![0; 8192]).unwrap();
    fs::write(path.join("recv.log.new"), vec![0; 4096]).unwrap();
    let output = afterimage("recover", &[path]);
    assert_eq!(output.status.code(), Some(4));
    let said = stderr(&output);
    assert!(said.contains("making was cut short") && said.contains("remove it"), "{said}");
    assert!(!path.join("lock").exists(), "it was looked at only");
}

/// As `replay --dir` leaves one: whoever is told that this is a broken device may remove it.
#[test]
fn a_folder_of_devices_is_refused_with_their_names() {
    let (copies, [a, b]) = killed();
    let folder = copies.path();
    for (command, paths) in
        [("inspect", &[folder][..]), ("verify", &[folder, &b]), ("recover", &[folder])]
    {
        let output = afterimage(command, paths);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("devices are in {} and", a.display())), "{said}");
    }
}

#[test]
fn one_that_is_open_elsewhere_is_refused() {
    let pair = Pair::new();
    let output = afterimage("recover", &[&pair.path(0)]);
    assert_eq!(output.status.code(), Some(5), "{}", stdout(&output));
    assert!(stderr(&output).contains("open elsewhere"), "{}", stderr(&output));
}

/// Both directories are looked at before either is changed: what was closed cleanly and is refused
/// is closed cleanly.
#[test]
fn a_refusal_leaves_both_devices_as_they_were() {
    let (copies, [a, b]) = killed();
    let [missing, damaged, another, lost] =
        ["missing", "damaged", "another", "lost"].map(|name| copies.path().join(name));
    // B without what it wrote last, which A is about to receive.
    copy(&b, &lost);
    let bytes = fs::metadata(lost.join("own.log")).unwrap().len();
    fs::write(lost.join("own.log"), vec![0; bytes as usize]).unwrap();
    assert_eq!(afterimage("recover", &[&a, &b]).status.code(), Some(0));
    copy(&b, &damaged);
    let superblock = fs::read(damaged.join("superblock")).unwrap();
    let nonsense: Vec<u8> = b"NONSENSE".iter().copied().cycle().take(superblock.len()).collect();
    fs::write(damaged.join("superblock"), nonsense).unwrap();
    device_of_another_pair(&another);
    for (refused, status, said) in [
        (&missing, 4, "missing: "),
        (&damaged, 4, "damaged: "),
        (&damaged, 4, "expected magic \"AFTSUPER\", found \"NONSENSE\""),
        (&another, 4, "another pair"),
        (&lost, 4, "lost durable records"),
        (&a, 5, "a is open elsewhere"),
    ] {
        for paths in [[a.as_path(), refused], [refused, a.as_path()]] {
            let before = paths.map(|path| fs::read(path.join("superblock")).ok());
            let output = afterimage("recover", &paths);
            let story = stderr(&output);
            assert_eq!(output.status.code(), Some(status), "{story}");
            assert!(story.contains(said), "no '{said}' in {story}");
            assert!(paths.iter().any(|path| story.contains(path.to_str().unwrap())), "{story}");
            assert_eq!(stdout(&output), "", "nothing was opened");
            let after = paths.map(|path| fs::read(path.join("superblock")).ok());
            assert!(after == before, "something was changed: {story}");
        }
    }
    assert_eq!(afterimage("recover", &[&a, &b]).status.code(), Some(0));
}

fn device_of_another_pair(path: &Path) {
    let storage = afterimage::internal::storage::Directory::create(path).unwrap();
    let geometry = afterimage::internal::limits::Geometry::new(9, 2, pair::VOLUMES.to_vec());
    afterimage::Device::create(&storage, &geometry, false).unwrap();
}

#[test]
fn two_of_different_pairs_are_refused() {
    let (_first, [a, _]) = killed();
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("x");
    device_of_another_pair(&path);
    let output = afterimage("recover", &[&a, &path]);
    assert_eq!(output.status.code(), Some(4), "{}", stdout(&output));
    assert!(stderr(&output).contains("another pair"), "{}", stderr(&output));
}

/// Rot in a normal volume is noticed by no device itself; a comparison does, every time.
#[test]
fn damage_in_a_normal_volume_is_found_by_a_comparison() {
    let (_copies, [a, b]) = killed();
    assert_eq!(afterimage("recover", &[&a, &b]).status.code(), Some(0));
    let args = Args { first: a.clone(), second: b.clone(), json: false, ranges: 5 };
    let compare = || afterimage_cli::verify::compare(&args).unwrap();
    let (mut random, file) = (Random::new(1), a.join("volumes/0.0"));
    let sound = fs::read(&file).unwrap();
    for _ in 0..200 {
        let mut bytes = sound.clone();
        let at = random.within(0..bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.within(0..8);
        fs::write(&file, &bytes).unwrap();
        let report = compare();
        assert_eq!(report.verdict(), Verdict::Different, "byte {at}");
        let mut text = Vec::new();
        report.write(&args, &mut text).unwrap();
        let named = format!("volume 0: 512 bytes at {} differ", at / 512 * 512);
        assert!(String::from_utf8_lossy(&text).contains(&named), "byte {at}");
    }
    fs::write(&file, &sound).unwrap();
    assert_eq!(compare().verdict(), Verdict::Equal);
}
