//! `afterimage replay --lose-site`: a site is lost, the other device is forced, the lost one returns; the loss
//! sheet and the salvage are compared with what the hosts wrote.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn replay(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.arg("replay").args(words).output().expect("the program runs")
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/postgres-ext4.iolog.gz")
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

/// Replays the shipped trace, which must hold; what is said of the lost site.
fn lose(words: &[&str]) -> Value {
    lose_of(&shipped(), words)
}

fn lose_of(trace: &Path, words: &[&str]) -> Value {
    let all = [&[trace.to_str().unwrap(), "--json", "-", "--limit-rows", "1500"], words].concat();
    let output = replay(&all);
    let table = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}\n{table}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["verification"]["devices_equal"], true, "{words:?}\n{table}");
    let site = document["lost_site"].clone();
    // Beyond an opening, which takes part in both.
    let beyond = number(&site, "force_ns").saturating_sub(number(&site, "opening_ns"));
    assert!(beyond < 1_000_000_000, "{words:?} {site}");
    // Blocks that are equal cost their checksums.
    let due = number(&site, "differing_bytes") + number(&site, "written_bytes");
    let copied = number(&site, "copied_bytes");
    assert!(10 * copied.saturating_sub(SUMS_BYTES) <= 13 * due, "{words:?} {site}");
    site
}

/// Checksums of blocks that both devices may have.
const SUMS_BYTES: u64 = 64 << 10;

const SLOW: [&str; 2] = ["--link-rate", "8MiB"];

#[test]
fn the_sheet_lists_what_was_told_and_salvage_has_what_was_lost() {
    for at in ["20%", "50%..60%", "90%..100%"] {
        let site = lose(&[&["--memory", "--lose-site", at], &SLOW[..]].concat());
        assert_eq!((&site["mode"], &site["image"]), (&"ordered".into(), &"consistent".into()));
        assert_eq!(site["mode_at_end"], "ordered", "{site}");
        assert!(site["others_after_ns"].is_number() && number(&site, "told_records") > 0, "{site}");
        assert!(number(&site, "lost_blocks_told") > 0, "{site}");
        assert_eq!(number(&site, "lost_blocks"), number(&site, "salvaged_blocks"), "{site}");
    }
}

#[test]
fn a_site_is_lost_out_of_the_order_too() {
    let suspends = ["--journal-size", "16MiB", "--journal-full", "suspend"];
    for words in [
        &["--mode", "differential", "--lose-site", "60%"][..],
        &["--mode", "differential", "--lose-site", "40%..80%", "--takeover-at", "20%,90%"],
        &[&["--lose-site", "25%", "--outage", "5%..20%,30%..45%"], &suspends[..]].concat(),
        // While the line is down, and back before it is up.
        &[&["--lose-site", "30%..40%", "--outage", "20%..60%"], &suspends[..]].concat(),
    ] {
        let site = lose(&[&["--memory"], words, &SLOW[..]].concat());
        assert!(number(&site, "lost_blocks") > 0, "{words:?} {site}");
    }
}

/// Hosts have moved before: of what the forced device wrote itself, some waits for what is lost.
#[test]
fn takeovers_before_and_after_hold() {
    let moves = ["--takeover-at", "25%,50%,75%", "--link-rate", "20MiB"];
    for at in ["7%", "41%", "88%", "60%..70%"] {
        lose(&[&["--memory", "--lose-site", at], &moves[..]].concat());
    }
}

#[test]
fn a_directory_is_forced_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let words = ["--dir", dir, "--keep", "--lose-site", "50%"];
    let site = lose(&[&words[..], &SLOW].concat());
    assert!(number(&site, "salvaged_blocks") > 0, "{site}");
    assert!(directory.path().join("a/side/salvage.0").exists());
}

/// In order, after a suspension, and by bits alone.
#[test]
fn the_shared_traces_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let suspends = ["--journal-full", "suspend", "--journal-size", "16MiB", "--outage", "30%..45%"];
    for trace in paths.filter(|path| path.extension().is_none_or(|of| of != "md")) {
        lose_of(&trace, &["--memory", "--lose-site", "20%", "--link-rate", "20MiB"]);
        let words = ["--memory", "--lose-site", "50%..60%", "--link-rate", "40MiB"];
        lose_of(&trace, &[&words[..], &suspends].concat());
        lose_of(&trace, &["--memory", "--lose-site", "80%", "--mode", "differential"]);
    }
}

/// The mode at the loss can be chosen; with a takeover before it, the device collects, and the forced one has
/// what it is owed.
#[test]
fn a_site_is_lost_in_any_mode() {
    let out_of_order =
        ["--journal-size", "16MiB", "--journal-full", "suspend", "--outage", "5%..30%"];
    for (mode, words) in [
        ("ordered", &["--takeover-at", "28%"][..]),
        ("collecting", &["--takeover-at", "30%"]),
        ("sending", &[]),
        ("copying", &[]),
    ] {
        let to = ["--memory", "--lose-in", mode, "--lose-site", "30%..70%"];
        let tells = || {
            let site = lose(&[&to[..], words, &out_of_order, &SLOW].concat());
            assert_eq!(site["lost_mode"], mode, "{site}");
            assert!(number(&site, "lost_blocks") > 0, "{mode} {site}");
            number(&site, "lost_blocks_told") > 0 || mode != "sending"
        };
        // The site may be lost before an announcement of its new mode has arrived.
        assert!((0..10).any(|_| tells()), "nothing was told in mode {mode}");
    }
}

/// Points, rates and modes from a seed; `LOSE_SITES` says how many (5), `LOSE_SEED` from which on (1).
#[test]
fn sites_lost_anywhere_hold() {
    let from_environment = |name: &str, usual| -> u64 {
        std::env::var(name).map_or(usual, |word| word.parse().expect("a number"))
    };
    let first = from_environment("LOSE_SEED", 1);
    for seed in first..first + from_environment("LOSE_SITES", 5) {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9e37_79b9);
            (state >> 33) % below
        };
        let (at, rest) = (draw(10_000), draw(10_000));
        let back = at + (10_000 - at) * rest / 10_000 + 1;
        let points = format!("{}%..{}%", at as f64 / 100.0, back.min(10_000) as f64 / 100.0);
        let rate = ["1TiB", "20MiB", "8MiB"][draw(3) as usize];
        let block = ["512", "4KiB", "64KiB"][draw(3) as usize];
        let way: &[&str] = match draw(4) {
            0 => &["--mode", "differential"],
            1 => &["--journal-size", "16MiB", "--journal-full", "suspend", "--outage", "10%..45%"],
            2 => &["--takeover-at", "30%,60%,80%"],
            _ => &[],
        };
        let words =
            ["--memory", "--lose-site", &points, "--link-rate", rate, "--block-size", block];
        eprintln!("seed {seed}: {words:?} {way:?}");
        lose(&[&words[..], way].concat());
    }
}

#[test]
fn a_loss_that_cannot_be_ends_with_2() {
    let trace = shipped();
    let trace = trace.to_str().unwrap();
    for (words, why) in [
        (&["--lose-site", "40%..20%"][..], "returns where it is lost"),
        (&["--lose-site", "20%..20%"], "returns where it is lost"),
        (&["--lose-site", "101%"], "between 0% and 100%"),
        (&["--lose-site", "20%.."], "a percentage or a time"),
        (&["--lose-site", "soon"], "a percentage or a time"),
        (&["--lose-site", "99d"], "after the first"),
        (&["--lose-in", "copying"], "--lose-site"),
    ] {
        let output = replay(&[words, &["--memory", "--limit-rows", "50", trace]].concat());
        let story = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {story}");
        assert!(story.contains(why), "{words:?}: {story}");
    }
}
