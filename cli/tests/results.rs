//! Where results go, as a user runs it: never over an input, another result or a device; `-` is the
//! standard output; the request log is appended to.

use std::fs::{self, File, hard_link};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const TRACE: &str = "fio version 3 iolog\n1 f write 0 4096\n";
const FLAGS: [&str; 3] = ["--json", "--hlog", "--request-log"];

/// A folder that holds a trace.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one.iolog"), TRACE).unwrap();
    folder
}

fn command(folder: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(words).current_dir(folder.path()).stdin(Stdio::null());
    command
}

fn run(folder: &TempDir, words: &[&str]) -> Output {
    command(folder, words).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file below, with its contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), fs::read(&path).unwrap_or_default())),
        }
    }
    found.sort();
    found
}

fn refused(folder: &TempDir, words: &[&str]) {
    refusal(folder, command(folder, words), &format!("{words:?}"));
}

/// Exit status 2, both names are told, and every file is as it was.
fn refusal(folder: &TempDir, mut command: Command, what: &str) {
    let before = files(folder.path());
    let output = command.output().unwrap();
    let story = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{what}: {story}");
    assert!(story.contains("name another file; nothing was written"), "{what}: {story}");
    assert_eq!(before, files(folder.path()), "{what}");
}

#[test]
fn no_result_is_written_over_the_trace() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    symlink("one.iolog", at("link")).unwrap();
    symlink("link", at("link of a link")).unwrap();
    hard_link(at("one.iolog"), at("hard")).unwrap();
    symlink(".", at("here")).unwrap();
    let absolute = at("one.iolog").display().to_string();
    for flag in FLAGS {
        for name in
            ["one.iolog", "./one.iolog", "link", "link of a link", "hard", "here/hard", &absolute]
        {
            refused(&folder, &["replay", "one.iolog", "--memory", flag, name]);
            refused(&folder, &["replay", "hard", "--memory", flag, name]);
        }
        let mut command = command(&folder, &["replay", "-", "--memory", flag, "link"]);
        command.stdin(File::open(at("one.iolog")).unwrap());
        refusal(&folder, command, "the standard input");
    }
    refused(&folder, &["replay", "one.iolog", "--dir", "/proc/nowhere", "--json", "link"]);
    // A trace that is not there is not made either.
    refused(&folder, &["replay", "none", "--memory", "--json", "here/none"]);
}

#[test]
fn two_results_have_two_files() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("there"), "something").unwrap();
    hard_link(at("there"), at("hard")).unwrap();
    symlink("not there yet", at("dangling")).unwrap();
    symlink(".", at("here")).unwrap();
    for (first, second) in [
        ("there", "there"),
        ("there", "hard"),
        ("r", "r"),
        ("r", "./r"),
        ("here/r", "r"),
        ("dangling", "not there yet"),
        ("-", "-"),
        ("-", "/dev/stdout"),
    ] {
        for (one, other) in
            [("--json", "--hlog"), ("--hlog", "--request-log"), ("--json", "--request-log")]
        {
            let words = ["replay", "one.iolog", "--memory", one, first, other, second];
            refused(&folder, &words);
        }
    }
    // The file behind the standard output is a result's too.
    let mut redirected = command(&folder, &["replay", "one.iolog", "--memory", "--json", "hard"]);
    redirected.stdout(File::options().append(true).open(at("there")).unwrap());
    refusal(&folder, redirected, "the standard output");
    let null = ["replay", "one.iolog", "--memory", "--json", "/dev/null", "--hlog", "/dev/null"];
    assert_eq!(run(&folder, &null).status.code(), Some(0));
}

#[test]
fn no_result_is_written_into_a_device() {
    let folder = folder();
    let made =
        run(&folder, &["replay", "one.iolog", "--dir", "d", "--keep", "--journal-size", "1MiB"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let at = |name: &str| folder.path().join(name);
    symlink("d/a/superblock", at("link")).unwrap();
    hard_link(at("d/a/superblock"), at("hard")).unwrap();
    fs::create_dir(at("e")).unwrap();
    fs::create_dir(at("e/b")).unwrap();
    for flag in FLAGS {
        for name in ["d/a/superblock", "d/b/result", "d/a/volumes/result", "link"] {
            refused(&folder, &["replay", "one.iolog", "--memory", flag, name]);
        }
        for (dir, name) in [("d", "hard"), ("e", "e/a"), ("e", "e/b/superblock"), ("e", "e/b/r")] {
            refused(&folder, &["replay", "one.iolog", "--dir", dir, "--keep", flag, name]);
        }
    }
}

#[test]
fn a_dash_is_the_standard_output() {
    let folder = folder();
    for dash in ["-", "/dev/stdout"] {
        let output = run(&folder, &["replay", "one.iolog", "--memory", "--json", dash]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
        assert_eq!(document["held"], true);
        assert!(text(&output.stderr).contains("verified: every read was right"));
    }
    let output = run(&folder, &["replay", "one.iolog", "--memory", "--request-log", "-"]);
    assert!(text(&output.stdout).starts_with("afterimage-requests 1 "));
    assert!(text(&output.stdout).lines().any(|line| line.starts_with("completed 1 ")));
    let output = run(&folder, &["replay", "one.iolog", "--memory", "--hlog", "-"]);
    assert!(text(&output.stdout).starts_with('#'), "{}", text(&output.stdout));
    assert!(!folder.path().join("-").exists());

    let keep = ["replay", "one.iolog", "--dir", "d", "--keep", "--journal-size", "1MiB"];
    assert_eq!(run(&folder, &keep).status.code(), Some(0));
    for words in [
        &["inspect", "--json", "-", "d/a"][..],
        &["inspect", "d/a", "--json", "-"],
        &["verify", "--json", "-", "d/a", "d/b"],
        &["verify", "d/a", "d/b", "--json", "-", "--ranges", "3"],
    ] {
        let output = run(&folder, words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
        assert_eq!(document["command"], words[0]);
    }
}

#[test]
fn the_request_log_is_appended_to() {
    let folder = folder();
    let log = folder.path().join("log");
    for earlier in ["an earlier log\n", "cut short in a li", ""] {
        fs::write(&log, earlier).unwrap();
        for runs in 1..=2 {
            let words = ["replay", "one.iolog", "--memory", "--request-log", "log"];
            assert_eq!(run(&folder, &words).status.code(), Some(0));
            let found = fs::read_to_string(&log).unwrap();
            assert!(found.starts_with(earlier), "{found}");
            let begun = found.lines().filter(|line| line.starts_with("afterimage-requests 1 "));
            assert_eq!(begun.count(), runs, "{found}");
        }
    }
}
