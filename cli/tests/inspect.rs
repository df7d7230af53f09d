//! `inspect` and `verify` on real directories: at rest, with records pending, after a crash,
//! damaged in every way that one finds on disks, and mixed up by a person.
#![cfg(not(loom))]

#[allow(dead_code)]
mod pair;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::{COPY_OFFSETS, Lost};
use afterimage::internal::limits::Geometry;
use afterimage::internal::link::Lane;
use afterimage::internal::request::Request;
use afterimage::internal::storage::{Directory, FileName, Storage};
use afterimage_cli::{inspect, verify};
use pair::{BLOCK, BLOCKS, Pair, VOLUMES};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

fn inspect_json(dir: &Path) -> Value {
    let mut out = Vec::new();
    let args = inspect::Args { dir: dir.to_owned(), json: true, rows: None };
    let verdict = inspect::run(&args, &mut out).expect("inspected");
    let report: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(report["version"], 1);
    assert_eq!(report["command"], "inspect");
    let word = if verdict == inspect::Verdict::Sound { "sound" } else { "damaged" };
    assert_eq!(report["verdict"], word);
    assert_eq!(report["findings"].as_array().expect("a list").is_empty(), word == "sound");
    report
}

fn inspect_text(dir: &Path, rows: Option<usize>) -> String {
    let mut out = Vec::new();
    let args = inspect::Args { dir: dir.to_owned(), json: false, rows };
    inspect::run(&args, &mut out).expect("inspected");
    String::from_utf8(out).expect("text")
}

fn verify_args(pair: &Pair, json: bool) -> verify::Args {
    verify::Args { first: pair.path(0), second: pair.path(1), json, ranges: 2 }
}

fn verify_json(pair: &Pair) -> Value {
    let mut out = Vec::new();
    let verdict = verify::run(&verify_args(pair, true), &mut out).expect("compared");
    let report: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(report["version"], 1);
    let word = match verdict {
        verify::Verdict::Equal => "equal",
        verify::Verdict::Behind => "behind",
        verify::Verdict::Different => "different",
        verify::Verdict::Damaged => "damaged",
    };
    assert_eq!(report["verdict"], word);
    report
}

fn verify_text(pair: &Pair) -> String {
    let mut out = Vec::new();
    verify::run(&verify_args(pair, false), &mut out).expect("compared");
    String::from_utf8(out).expect("text")
}

/// Rows of an unreflected table as words: entry, block, rear pointer, marks.
fn entries(table: &Value) -> Vec<String> {
    let rows = table["rows"].as_array().expect("rows").iter();
    rows.map(|r| {
        let rear = r["rear"].as_str().unwrap_or("-1");
        let mark = |name: &str, mark: &'static str| if r[name] == true { mark } else { "" };
        let marks = [mark("r_live", "R"), mark("l_live", "L"), mark("zero", "z")].concat();
        let entry = r["entry"].as_str().expect("an entry");
        format!("{entry} {}:{} {rear} {marks}", r["volume"], r["block"])
    })
    .collect()
}

/// Rows of the data location table as words.
fn located(report: &Value) -> Vec<String> {
    let rows = report["location"]["rows"].as_array().expect("rows").iter();
    rows.map(|r| format!("{}:{} {}", r["volume"], r["block"], r["entry"].as_str().expect("one")))
        .collect()
}

#[test]
fn a_new_device_is_sound_and_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = Directory::create(dir.path()).expect("created");
    Device::create(&storage, &Geometry::new(1, 1, VOLUMES.to_vec()), true).expect("created");
    let report = inspect_json(dir.path());
    assert_eq!((&report["verdict"], &report["state"]), (&"sound".into(), &"clean".into()));
    assert_eq!(report["own_log"]["next_sequence"], 1);
    assert_eq!(report["location"]["rest"], BLOCKS);
    let counts = report["superblock"]["counts"].as_u64().expect("one counts") as usize;
    let copies = &report["superblock"]["copies"];
    assert_eq!(copies[counts]["state"], "valid");
    assert_eq!(copies[counts]["volumes"][1]["bytes"], VOLUMES[1].bytes);
    assert_ne!(copies[1 - counts]["state"], "unusable");
    // These fields have no logic yet, or nothing to say.
    for none in ["lost", "cache_identity", "weakest_durability"] {
        assert_eq!(copies[counts][none], Value::Null, "{none}");
    }
    for zero in ["round_lineage", "round", "peer", "annex_bytes", "table_slot", "table_bytes"] {
        assert_eq!(copies[counts][zero], 0, "{zero}");
    }
    assert_eq!((&copies[counts]["compat"], &copies[counts]["owed"]), (&"0".into(), &false.into()));
    assert_eq!(copies[counts]["whole"]["epoch"], 0);
}

/// A feature that only a later version knows, and a mark: both are shown, and neither is damage.
#[test]
fn a_device_of_a_later_version_is_looked_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = Directory::create(dir.path()).expect("created");
    Device::create(&storage, &Geometry::new(1, 1, VOLUMES.to_vec()), true).expect("created");
    let mut superblock = afterimage::internal::superblock::load(&storage).expect("a superblock");
    superblock.features.ro_compat = 0x100;
    superblock.lost = Some(Lost { found: 7, ..Lost::default() });
    superblock.cache_identity = [0xab; 32];
    let bytes = superblock.encode();
    for offset in COPY_OFFSETS {
        storage.write(FileName::Superblock, offset, &[IoSlice::new(&bytes)]).expect("written");
    }
    drop(storage);
    let report = inspect_json(dir.path());
    assert_eq!(report["verdict"], "sound");
    let notes = report["notes"].to_string();
    assert!(notes.contains("ro_compat features 0x100 are of a later version"), "{notes}");
    let copy = &report["superblock"]["copies"][1];
    assert_eq!((&copy["ro_compat"], &copy["lost"]["found"]), (&"100".into(), &7.into()));
    assert_eq!(copy["cache_identity"], "ab".repeat(32));
    let text = inspect_text(dir.path(), None);
    assert!(
        text.contains("0.0.0, since 0, found 7") && text.contains("abababababababab "),
        "{text}"
    );
}

#[test]
fn own_records_wait_in_the_remote_table() {
    let pair = Pair::new();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 5, 1);
    pair.write(0, 3, 1 << 30, 2);
    let session = pair.devices[0].session().expect("serving");
    let zeroes = Request::write_zeroes(0, 0, BLOCK).fua();
    session.submit(zeroes).expect("taken").wait().expect("zeroed");
    pair.close();
    let report = inspect_json(&pair.path(0));
    assert_eq!((&report["verdict"], &report["state"]), (&"sound".into(), &"clean".into()));
    let remote = entries(&report["remote_unreflected"]);
    assert_eq!(remote, ["own:1 0:5 own:2 R", "own:2 3:1073741824 own:3 R", "own:3 0:0 -1 Rz"]);
    // A close reflects what it may.
    assert_eq!(entries(&report["local_unreflected"]), [""; 0]);
    assert_eq!(located(&report), [""; 0]);
    assert_eq!(report["location"]["rest"], BLOCKS);
    assert_eq!(report["own_log"]["records"], 3);
    assert_eq!(report["own_log"]["next_sequence"], 4);
    let text = inspect_text(&pair.path(0), Some(1));
    assert!(text.contains("damage: none found"), "{text}");
    assert!(text.contains("own:1  0:5    1"), "{text}");
    assert!(text.contains("… 2 rows more"), "{text}");
    assert!(!text.contains("own:3"), "{text}");
}

#[test]
fn a_device_that_is_behind_says_so() {
    let pair = Pair::new();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 5, 1);
    pair.write(0, 0, 6, 2);
    pair.take_over(1);
    pair.write(1, 0, 7, 3);
    pair.write(1, 0, 7, 4);
    pair.close();
    let report = inspect_json(&pair.path(1));
    assert_eq!((&report["verdict"], &report["state"]), (&"sound".into(), &"clean".into()));
    let rows = ["own:1 0:7 own:2 RL", "own:2 0:7 -1 RL"];
    assert_eq!(entries(&report["local_unreflected"]), rows);
    assert_eq!(entries(&report["remote_unreflected"]), rows);
    assert_eq!(located(&report), ["0:7 own:2"]);
    assert_eq!(report["location"]["rest"], BLOCKS - 1);
    assert_eq!(report["location"]["behind"], true);
    assert!(inspect_text(&pair.path(1), None).contains("-2: the peer still owes"));
    let fenced = inspect_json(&pair.path(0));
    assert_eq!(fenced["location"]["fenced"], true);
    assert_eq!(fenced["remote_unreflected"]["rows"].as_array().expect("rows").len(), 2);

    let compared = verify_json(&pair);
    assert_eq!((&compared["verdict"], &compared["pending"]), (&"behind".into(), &true.into()));
    assert_eq!(compared["devices"][0]["unreceived"], 2);
    assert_eq!(compared["devices"][1]["unreflected"], 2);
    assert_eq!(compared["devices"][1]["behind"], true);
    let text = verify_text(&pair);
    assert!(text.contains("BEHIND: "), "{text}");
    assert!(text.contains("it is behind"), "{text}");
}

#[test]
fn received_records_of_a_dead_device_are_shown() {
    let pair = Pair::new();
    for (block, byte) in [(5, 1), (6, 2), (5, 3)] {
        pair.write(0, 0, block, byte);
    }
    pair.carry();
    // Nobody closes them.
    let report = inspect_json(&pair.path(1));
    assert_eq!((&report["verdict"], &report["state"]), (&"sound".into(), &"unclean".into()));
    let rows = ["recv:1 0:5 recv:2 L", "recv:2 0:6 recv:3 L", "recv:3 0:5 -1 L"];
    assert_eq!(entries(&report["local_unreflected"]), rows);
    assert_eq!(located(&report), ["0:5 recv:3", "0:6 recv:2"]);
    // R as the last checkpoint knew it: the acknowledgements since are not on disk.
    let own = inspect_json(&pair.path(0));
    assert_eq!(own["remote_unreflected"]["rows"].as_array().expect("rows").len(), 3);
    let compared = verify_json(&pair);
    assert_eq!(compared["devices"][0]["unreceived"], 0);
    assert_eq!(compared["devices"][1]["unreflected"], 3);
}

#[test]
fn what_an_earlier_lap_left_in_a_log_is_no_damage() {
    let pair = Pair::new();
    for lap in 0..9 {
        for block in 0..70 {
            pair.write(0, 0, block, lap);
        }
        pair.settle();
        pair.devices.iter().for_each(|d| d.checkpoint_now().expect("a checkpoint"));
    }
    pair.close();
    let report = inspect_json(&pair.path(0));
    assert_eq!((&report["verdict"], &report["state"]), (&"sound".into(), &"clean".into()));
    assert_eq!(report["own_log"]["next_sequence"], 9 * 70 + 1);
    assert_eq!(report["own_log"]["first_sequence"], 9 * 70 + 1);
    let end = report["own_log"]["end_offset"].as_u64().expect("an offset");
    assert!(end < 2 << 20, "it has wrapped: {end}");
    assert_eq!(verify_json(&pair)["verdict"], "equal");
}

#[test]
fn looking_changes_nothing() {
    let pair = Pair::new();
    pair.write(0, 0, 5, 1);
    pair.settle();
    pair.close();
    let path = pair.path(0);
    fs::remove_file(path.join("lock")).expect("removed");
    let before = contents(&path);
    inspect_json(&path);
    inspect_text(&path, None);
    verify_json(&pair);
    assert_eq!(contents(&path), before);
}

fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("read");
            found.insert(path, bytes);
        }
    }
    found
}

#[test]
fn every_damage_is_named_and_none_is_fatal() {
    let pair = Pair::new();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 5, 1);
    pair.write(0, 0, 6, 2);
    pair.close();
    let path = pair.path(0);
    let set_length = |file: &str, length: u64| {
        let open = fs::OpenOptions::new().write(true).open(path.join(file));
        open.and_then(|f| f.set_len(length)).expect("cut");
    };
    for file in ["superblock", "own.log", "recv.log", "volumes/0.0"] {
        let whole = fs::read(path.join(file)).expect("read");
        let named = |doing: &str| {
            let report = inspect_json(&path);
            let findings = report["findings"].as_array().expect("a list");
            assert!(findings.iter().any(|f| f["file"] == file), "{doing} {file}: {findings:?}");
            assert!(inspect_text(&path, None).contains("DAMAGED"), "{doing} {file}");
        };
        for length in [0, 1, 511, 4095, 4096, 8191, 8192, 12_287] {
            if length < whole.len() as u64 {
                set_length(file, length);
                named(&format!("{length} bytes of"));
                fs::write(path.join(file), &whole).expect("restored");
            }
        }
        fs::remove_file(path.join(file)).expect("removed");
        if file != "volumes/0.0" {
            named("without"); // a segment that is missing was never written
        }
        fs::create_dir(path.join(file)).expect("made");
        named("a directory in place of");
        fs::remove_dir(path.join(file)).expect("removed");
        // A volume's bytes are anybody's, and nothing was received.
        if file != "volumes/0.0" && file != "recv.log" {
            fs::write(path.join(file), vec![0xa5; whole.len()]).expect("filled");
            named("garbage in");
        }
        fs::write(path.join(file), &whole).expect("restored");
        assert_eq!(inspect_json(&path)["verdict"], "sound", "{file} restored");
    }
    let args = inspect::Args { dir: path.join("nothing"), json: false, rows: None };
    let error = inspect::run(&args, &mut Vec::new()).expect_err("not there");
    assert_eq!(error.kind(), Kind::Storage);
    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(inspect_json(empty.path())["verdict"], "damaged");
}

#[test]
fn a_log_that_was_emptied_is_named_by_verify_too() {
    let pair = Pair::new();
    pair.write(0, 0, 5, 1);
    pair.settle();
    pair.close();
    let log = pair.path(0).join("own.log");
    fs::write(&log, []).expect("emptied");
    let text = verify_text(&pair);
    assert!(text.contains("DAMAGED: own.log has 0 bytes, should have 4194304"), "{text}");
    fs::remove_file(&log).expect("removed");
    let text = verify_text(&pair);
    assert!(text.contains("DAMAGED: own.log is missing"), "{text}");
    let text = inspect_text(&pair.path(0), None);
    assert!(text.contains("DAMAGED: 1 finding\n"), "{text}");
}

/// A changed byte of `file` of the device `k`.
fn change(pair: &Pair, k: usize, file: &str, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let open = fs::OpenOptions::new().write(true).open(pair.path(k).join(file));
    open.and_then(|f| f.write_all_at(bytes, at)).expect("changed");
}

/// The exit status of the command `verify` and what it says at the end.
fn verify_command(pair: &Pair) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_afterimage"));
    let output = command.arg("verify").args([pair.path(0), pair.path(1)]).output().expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().unwrap_or_default().to_owned();
    (output.status.code(), last)
}

#[test]
fn verify_never_exits_0_with_damage_found() {
    let pair = Pair::new();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 5, 1);
    pair.close();
    assert_eq!(verify_command(&pair).0, Some(7));
    for (k, file, bytes) in [
        (0, "own.log", &[0xff; 16][..]),
        (1, "superblock", &[0xff; 600]),
        (0, "superblock", &[0xff; 600]),
        (1, "own.log", &[]),
    ] {
        let path = pair.path(k).join(file);
        let whole = fs::read(&path).expect("read");
        let at = if file == "superblock" { COPY_OFFSETS[1] } else { 4096 };
        match bytes {
            [] => fs::write(&path, bytes).expect("emptied"),
            _ => (0..whole.len() as u64 / 4096)
                .filter(|page| file == "own.log" || page * 4096 == at)
                .for_each(|page| change(&pair, k, file, page * 4096, bytes)),
        }
        let (code, last) = verify_command(&pair);
        assert_eq!(code, Some(1), "{k} {file}: {last}");
        assert!(last.starts_with("DAMAGED: "), "{k} {file}: {last}");
        fs::write(&path, whole).expect("mended");
        assert_eq!(verify_command(&pair).0, Some(7));
    }
    fs::create_dir_all(pair.path(1).join("volumes")).expect("made");
    fs::write(pair.path(1).join("volumes/0.9"), [0; 512]).expect("made");
    assert_eq!(verify_command(&pair).0, Some(1), "a segment that belongs nowhere");
}

#[test]
fn a_pair_of_which_one_is_behind_is_neither_equal_nor_damaged() {
    let pair = Pair::new();
    pair.write(0, 0, 5, 1);
    pair.settle();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 6, 2);
    pair.write(0, 0, 7, 0);
    pair.close();
    let (code, last) = verify_command(&pair);
    assert_eq!(code, Some(7), "{last}");
    assert!(last.starts_with("BEHIND: ") && last.contains("`afterimage recover "), "{last}");
    // Contents that differ where a record belongs are rightful, elsewhere they are not.
    change(&pair, 1, "volumes/0.0", 6 * BLOCK + 512, &[9]);
    let (code, last) = verify_command(&pair);
    assert_eq!(code, Some(7), "{last}");
    change(&pair, 1, "volumes/0.0", 5 * BLOCK + 512, &[9]);
    let report = verify_json(&pair);
    assert_eq!((&report["verdict"], &report["pending"]), (&"different".into(), &true.into()));
    assert_eq!(report["unexplained_ranges"], 1);
    assert!(verify_text(&pair).contains("of these, 1 range by no record that is on its way"));
    assert_eq!(verify_command(&pair).0, Some(1));
}

#[test]
fn records_that_are_received_and_not_reflected_are_on_their_way() {
    let pair = Pair::new();
    pair.write(0, 0, 5, 1);
    pair.carry();
    assert_eq!(verify_command(&pair).0, Some(7));
    pair.settle();
    pair.close();
    let (code, last) = verify_command(&pair);
    assert_eq!((code, last.as_str()), (Some(0), "EQUAL"));
}

#[test]
fn of_a_superblock_cut_short_everything_there_is_looked_at() {
    let pair = Pair::new();
    pair.close();
    let path = pair.path(0).join("superblock");
    let whole = fs::read(&path).expect("read");
    let errors = |length: usize| {
        fs::write(&path, &whole[..length]).expect("cut");
        let report = inspect_json(&pair.path(0));
        [0, 1].map(|k| report["superblock"]["copies"][k]["error"].as_str().expect("bad").to_owned())
    };
    let table = "the table of volumes has 0 bytes, needs 32";
    assert_eq!(errors(8191), [table, table]);
    let short = |k: u64, length: u64| {
        format!("the file has only {length} bytes, and the copy ends at {}", k * 4096 + 512)
    };
    assert_eq!(errors(4607), [table.to_string(), short(1, 4607)]);
    assert_eq!(errors(0), [short(0, 0), short(1, 0)]);
}

#[test]
fn one_changed_byte_of_a_log_is_named() {
    let pair = Pair::new();
    pair.links[0].hold(Lane::Data, true);
    pair.write(0, 0, 5, 1);
    pair.write(0, 0, 6, 2);
    pair.close();
    let file = pair.path(0).join("own.log");
    let whole = fs::read(&file).expect("read");
    let finding = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&file, bytes).expect("changed");
        let report = inspect_json(&pair.path(0));
        let findings = report["findings"].as_array().expect("a list");
        let what = findings.iter().map(|f| f["what"].as_str().expect("words"));
        (what.collect::<Vec<_>>().join("; "), report["remote_unreflected"]["rows"].clone())
    };
    let (what, rows) = finding(5000);
    assert!(what.contains("data of own:1 at 4096: checksum is"), "{what}");
    assert_eq!((&rows[0]["intact"], &rows[1]["intact"]), (&false.into(), &true.into()));
    let (what, rows) = finding(8192 + 100);
    assert!(what.contains("records 2 to 2 were durable and are gone"), "{what}");
    assert_eq!(rows.as_array().expect("rows").len(), 1);
    fs::write(&file, &whole).expect("restored");
    assert_eq!(inspect_json(&pair.path(0))["verdict"], "sound");
}

#[test]
fn garbage_is_no_device_and_no_reason_to_panic() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("volumes")).expect("made");
    let mut seed = 1u64;
    for round in 0..20 {
        for file in ["superblock", "own.log", "recv.log", "volumes/0.0", "volumes/x"] {
            let bytes = (0..round * 1111).map(|_| {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (seed >> 56) as u8
            });
            fs::write(dir.path().join(file), bytes.collect::<Vec<u8>>()).expect("written");
        }
        assert_eq!(inspect_json(dir.path())["verdict"], "damaged");
        let first = dir.path().to_owned();
        let args = verify::Args { second: first.clone(), first, json: false, ranges: 1 };
        let error = verify::run(&args, &mut Vec::new()).expect_err("no device");
        assert_eq!(error.kind(), Kind::Damaged);
    }
}

#[test]
fn devices_at_rest_are_equal_until_somebody_changes_a_byte() {
    let pair = Pair::new();
    pair.write(0, 0, 5, 1);
    // Terabytes apart, so that nobody looks at all that lies between.
    for block in [0, 1 << 28, (8 << 28) - 1] {
        pair.write(0, 3, block, 2);
    }
    pair.settle();
    pair.close();
    let report = verify_json(&pair);
    assert_eq!((&report["verdict"], &report["pending"]), (&"equal".into(), &false.into()));
    assert_eq!(report["volumes"], 2);
    assert!(report["compared_bytes"].as_u64().expect("a count") >= 4 * BLOCK);
    assert!(report["compared_bytes"].as_u64().expect("a count") < 1 << 24);

    let change = |file: &str, at: u64, bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        let open = fs::OpenOptions::new().write(true).open(pair.path(1).join(file));
        open.and_then(|f| f.write_all_at(bytes, at)).expect("changed");
    };
    change("volumes/3.7", (1 << 40) - 1, &[9]);
    change("volumes/0.0", 512, &[9; 1024]);
    change("volumes/0.0", 1 << 19, &[9; 1]);
    let report = verify_json(&pair);
    assert_eq!((&report["verdict"], &report["pending"]), (&"different".into(), &false.into()));
    let expected = serde_json::json!([
        { "volume": 0, "offset": 512, "bytes": 1024 },
        { "volume": 0, "offset": 1 << 19, "bytes": 512 },
    ]);
    assert_eq!(report["ranges"], expected);
    assert_eq!(report["differing_ranges"], 3);
    assert_eq!(report["differing_bytes"], 2048);
    assert_eq!(report["differing_volumes"], 2);
    let text = verify_text(&pair);
    assert!(text.contains("volume 0: 1024 bytes at 512 differ"), "{text}");
    assert!(text.contains("and 1 range more"), "{text}");
    assert!(text.contains("DIFFERENT: 2048 bytes in 3 ranges of 2 volumes"), "{text}");
}

#[test]
fn only_like_is_compared_with_like() {
    let dir = tempfile::tempdir().expect("a directory");
    let device = |name: &str, change: &dyn Fn(&mut Geometry)| {
        let mut geometry = Geometry::new(1, 2, VOLUMES.to_vec());
        geometry.journal_bytes = 4 << 20;
        change(&mut geometry);
        let path = dir.path().join(name);
        let storage = Directory::create(&path).expect("created");
        Device::create(&storage, &geometry, true).expect("created");
        path
    };
    let first = device("first", &|g| g.device = 1);
    let refused = |second: PathBuf, words: [&str; 2]| {
        let args = verify::Args { first: first.clone(), second, json: false, ranges: 1 };
        let error = verify::run(&args, &mut Vec::new()).expect_err("not alike");
        assert_eq!(error.kind(), Kind::Config);
        let story = error.to_string();
        assert!(words.iter().all(|word| story.contains(word)), "{story}");
    };
    refused(device("group", &|g| g.group = 0xbeef), ["0001 in ", "beef in "]);
    refused(device("copy", &|g| g.device = 1), ["first and ", "copy are both device 1"]);
    refused(first.clone(), ["first and ", "first are both device 1"]);
    refused(device("block", &|g| g.block_size = 512), ["4096 in ", "512 in "]);
    refused(device("fewer", &|g| g.volumes.truncate(1)), ["2 in ", "1 in "]);
    refused(device("size", &|g| g.volumes[0].bytes = 512), ["1048576 bytes in ", "512 bytes in "]);
    // The order of volumes and the size of segments and logs are a device's own affair.
    let alike = device("alike", &|g| {
        g.volumes.reverse();
        g.segment_bytes = 1 << 30;
        g.journal_bytes = 8 << 20;
    });
    let args = verify::Args { first: first.clone(), second: alike, json: false, ranges: 1 };
    let verdict = verify::run(&args, &mut Vec::new()).expect("compared");
    assert_eq!(verdict, verify::Verdict::Equal);
}
