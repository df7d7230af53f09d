//! `afterimage force`, `resolve`, `forget-peer` and `salvage` as a user runs them: what they say, what they
//! change, what they refuse with which exit status, and that a refusal and a dry run change nothing.

#[allow(dead_code)]
mod pair;

use afterimage::internal::clock::SystemClock;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::Lane;
use afterimage::internal::storage::Directory;
use afterimage::{Device, ImageStatus, Kind};
use pair::{BLOCK, Pair, contents, step, superblock};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Exit status, output and error output of a command on a directory.
fn run(words: &[&str], dir: &Path, rest: &[&str]) -> (i32, String, String) {
    let mut all = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    let output = all.args(words).arg(dir).args(rest).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(words: &[&str], dir: &Path, rest: &[&str], parts: &[&str]) {
    let (status, said, story) = run(words, dir, rest);
    assert_eq!(status, 0, "{words:?} {rest:?}: {story}");
    parts.iter().for_each(|part| assert!(said.contains(part), "no '{part}' in {said}"));
}

/// As [`done`], and every byte is as it was.
fn only_said(words: &[&str], dir: &Path, rest: &[&str], parts: &[&str]) {
    let before = contents(dir);
    done(words, dir, rest, parts);
    assert!(before == contents(dir), "{words:?} {rest:?}: something was changed");
}

fn refused(words: &[&str], dir: &Path, rest: &[&str], status: i32, why: &str) {
    let before = contents(dir);
    let (found, said, story) = run(words, dir, rest);
    assert_eq!((found, said.as_str()), (status, ""), "{words:?} {rest:?}: {story}");
    assert!(story.contains(why), "{words:?} {rest:?}: no '{why}' in {story}");
    assert!(before == contents(dir), "{words:?} {rest:?}: something was changed");
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn open(dir: &Path) -> Arc<Device> {
    let storage = Arc::new(Directory::open(dir).unwrap());
    Device::open(storage, Arc::new(SystemClock::default()), Settings::default()).unwrap()
}

/// The directories of a pair that is closed, and keeps its locks.
fn closed(pair: Pair) -> (tempfile::TempDir, [PathBuf; 2]) {
    pair.close();
    let folder = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    dirs.iter().enumerate().for_each(|(k, dir)| copy(&pair.path(k), dir));
    (folder, dirs)
}

/// Blocks 0 and 1 are at both; then device a was suspended, and what was written there is on its way to
/// device b by copies, of which some have come.
fn amid_a_resync() -> (tempfile::TempDir, [PathBuf; 2]) {
    let pair = Pair::new();
    pair.write(0, 0, 0, 11);
    pair.write(0, 0, 1, 22);
    pair.settle();
    pair.devices[0].suspend().unwrap();
    for (block, byte) in [(0, 33), (2, 44), (9, 55)] {
        pair.write(0, 0, block, byte);
    }
    let is_amid = || {
        let status = pair.devices[1].status();
        matches!(status.image, ImageStatus::Kept { blocks: 3, .. })
    };
    for _ in 0..2000 {
        for device in &pair.devices {
            device.step_control().unwrap();
            device.step_commit().unwrap();
            while device.step_reflect().unwrap() > 0 {}
            device.step_checkpoint().unwrap();
            device.step_ladder().unwrap();
            device.step_ship().unwrap();
            device.step_receive().unwrap();
            if is_amid() {
                return closed(pair);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{:?}", pair.devices[1].status());
}

/// Block 0 is at both; of blocks 1 and 2 device b was told, and has none of them.
fn parted() -> (tempfile::TempDir, [PathBuf; 2]) {
    let pair = Pair::new();
    pair.write(0, 0, 0, 11);
    pair.settle();
    pair.links[0].hold(Lane::Data, true);
    let session = pair.devices[0].session().unwrap();
    session.write(0, BLOCK, &[22; 2 * BLOCK as usize]).unwrap();
    session.flush().unwrap();
    drop(session);
    for _ in 0..9 {
        for device in &pair.devices {
            device.step_control().unwrap();
        }
    }
    closed(pair)
}

/// Connects two devices, and steps them until nothing moves.
fn meet(devices: [&Arc<Device>; 2]) {
    step(devices, 40, || false);
}

#[test]
fn a_site_is_lost_and_returns() {
    let (folder, [a, b]) = parted();
    let sheet = [
        "data go from device 2 to the other one",
        "told by the other device and not received: 2 blocks",
        "volume 0, blocks 1 to 2: 1.",
        "given up: 0 blocks",
        "every other lost write is younger than 20",
        "UTC",
        "nothing was changed; --yes does it",
    ];
    only_said(&["force"], &b, &[], &sheet);
    done(&["force"], &b, &["--yes"], &["forced", "loss-2.txt", "hosts are refused"]);
    let text = fs::read_to_string(b.join("loss-2.txt")).unwrap();
    sheet[..6].iter().for_each(|part| assert!(text.contains(part), "no '{part}' in {text}"));
    let json: Value = serde_json::from_slice(&fs::read(b.join("loss-2.json")).unwrap()).unwrap();
    assert_eq!((&json["told"][0]["block"], &json["told"][0]["blocks"]), (&1.into(), &2.into()));
    assert!(superblock(&b).history.forced && superblock(&b).lost.is_some());
    let forced = open(&b);
    assert_eq!(forced.session().unwrap_err().kind(), Kind::LostWrites);
    forced.accept_loss().unwrap();
    let returned = open(&a);
    meet([&returned, &forced]);
    assert_eq!(returned.session().unwrap_err().kind(), Kind::Fenced);
    returned.close().unwrap();
    forced.close().unwrap();
    drop((returned, forced));

    // Its salvage is what it alone had.
    let salvage = |action| ["salvage", action];
    only_said(&salvage("list"), &a, &[], &["0: 2 blocks of lineage 1 ("]);
    only_said(&salvage("list"), &b, &[], &["no salvage"]);
    only_said(&salvage("show"), &a, &["0"], &["volume 0, blocks 1 to 1: data", "is not known"]);
    let to = folder.path().join("out");
    let words = ["0", "--to", to.to_str().unwrap()];
    done(&salvage("export"), &a, &words, &["2 blocks of file 0"]);
    let image = fs::read(to.join("0.img")).unwrap();
    assert_eq!((image.len(), image[0]), (1 << 20, 0));
    assert!(image[BLOCK as usize..3 * BLOCK as usize].iter().all(|&byte| byte == 22));
    refused(&salvage("export"), &a, &words, 5, "is there already");
    for action in ["show", "remove"] {
        refused(&salvage(action), &a, &["7"], 8, "there is no");
    }
    refused(&salvage("export"), &a, &["7", "--to", "x"], 8, "there is no");
    only_said(&salvage("remove"), &a, &["0"], &["nothing was changed"]);
    done(&salvage("remove"), &a, &["0", "--yes"], &["removed"]);
    only_said(&salvage("list"), &a, &[], &["no salvage"]);
}

#[test]
fn the_last_image_is_served_amid_a_resync() {
    let (_folder, [_, b]) = amid_a_resync();
    only_said(&["inspect"], &b, &[], &["LAST CONSISTENT IMAGE: kept", "saved: 3 blocks"]);
    let sheet = [
        "served: an earlier state of the hosts' data",
        "the last that this device had, at 20",
        "written since, and put back: 3 blocks",
        "volume 0, blocks 2 to 2",
        "every write since that state is lost",
    ];
    for words in [&[][..], &["--image", "last"], &["--image", "consistent"]] {
        only_said(&["force"], &b, words, &sheet);
    }
    only_said(&["force"], &b, &["--newest"], &["each block as new as it is here"]);
    refused(&["force"], &b, &["--newest", "--image", "last"], 2, "cannot be used with");
    done(&["force"], &b, &["--image", "last", "--yes", "--accept-loss"], &sheet);
    let json: Value = serde_json::from_slice(&fs::read(b.join("loss-2.json")).unwrap()).unwrap();
    assert_eq!((&json["image"], &json["put_back"][0]["block"]), (&"last".into(), &0.into()));
    only_said(&["inspect"], &b, &[], &["LAST CONSISTENT IMAGE: served"]);
    let forced = open(&b);
    let read = |block: u64| {
        let mut data = [0; BLOCK as usize];
        forced.session().unwrap().read(0, block * BLOCK, &mut data).unwrap();
        data[0]
    };
    assert_eq!([0, 1, 2, 9].map(read), [11, 22, 0, 0]);
    forced.checkpoint_now().unwrap();
    assert_eq!([0, 1, 2, 9].map(read), [11, 22, 0, 0]);
    forced.close().unwrap();
    drop(forced);
    assert!(!b.join("side/image.0").exists());
}

#[test]
fn an_image_is_asked_for_where_none_is_kept() {
    let (_folder, [_, b]) = parted();
    refused(&["force"], &b, &["--image", "last"], 11, "leave the choice of an image away");
}

/// Whatever is asked for, where no force is needed that is what is said.
#[test]
fn a_device_that_needs_no_force_says_so_of_every_image() {
    let (_folder, [a, _]) = parted();
    for image in ["consistent", "last", "newest"] {
        refused(&["force"], &a, &["--image", image], 8, "resume it alone");
    }
    let (_folder, [_, b]) = amid_a_resync();
    done(&["force"], &b, &["--yes", "--accept-loss"], &["forced"]);
    refused(&["force"], &b, &["--image", "last"], 8, "there is nothing to force");
}

/// An image that was kept, or chosen by a force, rots: what does not need it goes on without it.
#[test]
fn a_damaged_image_leaves_a_way() {
    for chosen in [false, true] {
        let (folder, [_, b]) = amid_a_resync();
        if chosen {
            done(&["force"], &b, &["--yes", "--accept-loss"], &["forced"]);
        }
        let file = b.join("side/image.0");
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let (status, said, _) = run(&["inspect"], &b, &[]);
        assert!(status == 1 && said.contains("side/image.0: at "), "{said}");
        for words in [&[][..], &["--image", "last"]] {
            refused(&["force"], &b, words, if chosen { 4 } else { 11 }, "side/image.0: at ");
        }
        let recovered = folder.path().join("recovered");
        copy(&b, &recovered);
        match chosen {
            true => refused(&["recover"], &recovered, &[], 4, "--newest"),
            false => done(&["recover"], &recovered, &[], &["closed cleanly"]),
        }
        assert_eq!(recovered.join("side/image.0").exists(), chosen);
        let parts = ["each block as new as it is here", "the last consistent image is given up"];
        let parts = &parts[..1 + usize::from(chosen)];
        only_said(&["force"], &b, &["--newest"], parts);
        done(&["force"], &b, &["--newest", "--yes", "--accept-loss"], parts);
        let forced = open(&b);
        let read = |block: u64| {
            let mut data = [0; BLOCK as usize];
            forced.session().unwrap().read(0, block * BLOCK, &mut data).unwrap();
            data[0]
        };
        assert_eq!([0, 1, 2, 9].map(read), [33, 22, 44, 55]);
    }
}

#[test]
fn a_force_with_its_loss_accepted_lets_hosts_in() {
    let (_folder, [_, b]) = parted();
    let (status, said, _) = run(&["force"], &b, &["--yes", "--accept-loss", "--newest", "--json"]);
    assert_eq!(status, 0);
    let sheet: Value = serde_json::from_str(&said).expect("one document");
    assert_eq!(sheet["image"], "newest");
    open(&b).session().unwrap();
}

/// Both devices have served apart, and have met; device a has written these blocks.
fn apart(blocks: &[u64]) -> (tempfile::TempDir, [PathBuf; 2]) {
    let (folder, [a, b]) = parted();
    refused(&["resolve"], &a, &[], 8, "met no other branch");
    done(&["force"], &b, &["--yes", "--accept-loss"], &["forced"]);
    let (alone, forced) = (open(&a), open(&b));
    alone.resume_alone().unwrap();
    for block in blocks {
        alone.session().unwrap().write(0, block * BLOCK, &[55; BLOCK as usize]).unwrap();
    }
    forced.session().unwrap().write(0, 6 * BLOCK, &[66; BLOCK as usize]).unwrap();
    for device in [&alone, &forced] {
        device.session().unwrap().flush().unwrap();
        // A hello tells of the records that the last look at the device has found.
        device.status();
    }
    meet([&alone, &forced]);
    alone.close().unwrap();
    forced.close().unwrap();
    drop((alone, forced));
    (folder, [a, b])
}

#[test]
fn both_serve_apart_and_one_is_kept() {
    let (folder, [a, b]) = apart(&[5]);
    let newest = "its newest own record, as it said when they last met: 2.";
    let to = "data go from device 1 to device 2";
    let parts = ["kept: device 1", "given up: device 2", newest, to];
    only_said(&["resolve"], &a, &[], &parts);
    // Side by side.
    let parts = [
        "the other one may not have: 3 blocks in 2 ranges, 12 KiB",
        "    first written: 20",
        "      volume 0, blocks 1 to 2\n      volume 0, blocks 5 to 5\n  given up: device 2",
        "the other one may not have: 1 block in 1 range, 4 KiB",
        "    first written: not known, as bits tell of it",
        "    last written: 20",
        "      volume 0, blocks 6 to 6\n  data go from",
    ];
    only_said(&["resolve"], &a, &["--keep", "1"], &parts[..2]);
    refused(&["resolve"], &a, &["--keep", "2", "--yes"], 9, "this is device 1");
    let (status, said, _) = run(&["resolve"], &a, &["--json"]);
    let document: Value = serde_json::from_str(&said).expect("one document");
    assert_eq!((status, &document["changed"]), (0, &false.into()));
    assert_eq!(
        (&document["kept"]["blocks"], &document["given_up"]["device"]),
        (&3.into(), &2.into())
    );
    let before = contents(&b);
    only_said(&["resolve"], &a, &[b.to_str().unwrap()], &parts);
    let third = folder.path().join("third");
    copy(&a, &third);
    refused(&["resolve"], &a, &[third.to_str().unwrap()], 8, "met device 2");
    done(&["resolve"], &a, &[b.to_str().unwrap(), "--yes"], &["resolved"]);
    assert!(before == contents(&b), "the other device is only looked at");
    open(&a).session().unwrap();
}

#[test]
fn of_many_ranges_some_are_listed() {
    let blocks: Vec<u64> = (10..30).map(|n| 2 * n).collect();
    let (_folder, [a, _]) = apart(&blocks);
    let parts = [
        "may not have: 22 blocks in 21 ranges, 88 KiB",
        "      volume 0, blocks 48 to 48\n      and 5 more ranges, of 5 blocks\n  given up",
    ];
    only_said(&["resolve"], &a, &[], &parts);
}

#[test]
fn a_peer_is_forgotten_by_the_device_that_holds_the_host() {
    let (_folder, [a, b]) = parted();
    refused(&["forget-peer"], &b, &["--yes"], 9, "holds the host");
    let parts = ["device 2 is refused from now on", "every block"];
    only_said(&["forget-peer"], &a, &[], &parts);
    done(&["forget-peer"], &a, &["--yes"], &["forgotten"]);
    assert_eq!(superblock(&a).history.forgotten, 2);
}

#[test]
fn what_cannot_be_is_refused() {
    let (folder, [a, b]) = parted();
    refused(&["force"], &a, &["--yes"], 8, "resume it alone");
    let device = open(&b);
    for command in ["force", "resolve", "forget-peer"] {
        let (status, _, story) = run(&[command], &b, &["--yes"]);
        assert_eq!(status, 5, "{command}: {story}");
        let (status, _, story) = run(&[command], &folder.path().join("none"), &["--yes"]);
        assert_eq!(status, 4, "{command}: {story}");
    }
    drop(device);
}

/// Each status of these commands stands in the manual.
#[test]
fn the_manual_has_every_status() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/exit-status.md");
    let manual = fs::read_to_string(manual).unwrap();
    for (command, statuses) in [
        ("force", &[0, 2, 4, 5, 6, 8, 11, 12][..]),
        ("resolve", &[0, 2, 4, 5, 6, 8, 9]),
        ("forget-peer", &[0, 2, 4, 5, 6, 9]),
        ("salvage", &[0, 2, 4, 5, 6, 8]),
        ("init", &[0, 2, 4, 5, 6]),
        ("serve", &[0, 2, 4, 5]),
        ("join", &[0, 2, 4, 5, 13]),
        ("wait", &[0, 14, 15]),
        ("drain", &[0, 14]),
        ("takeover", &[0, 9, 13, 14, 15]),
        ("compare", &[0, 1, 2, 5, 7, 13]),
    ] {
        let row = |line: &&str| line.starts_with(&format!("| `{command}` "));
        let row = manual.lines().find(row).unwrap_or_else(|| panic!("no row of {command}"));
        for status in statuses {
            assert!(row.contains(&format!("{status}: ")), "{command}: no {status} in {row}");
        }
    }
}
