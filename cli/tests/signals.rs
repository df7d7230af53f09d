//! Signals, as a user sends them: nothing is left behind, or it is said what and where.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a trace that takes a minute at its own pace.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows: String =
        (1..=600).map(|row| format!("{} f write {} 4096\n", row * 100_000, row * 4096)).collect();
    fs::write(folder.path().join("slow.iolog"), format!("fio version 3 iolog\n{rows}")).unwrap();
    fs::write(folder.path().join("one.iolog"), "fio version 3 iolog\n1 f write 0 4096\n").unwrap();
    folder
}

fn start(folder: &TempDir, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(words).current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a device below has a segment: hosts have written to it.
fn has_written(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.is_dir() && (path.ends_with("volumes") || has_written(&path)))
}

/// Sends `signal` to `child` and waits for its end: what it said on the standard error.
fn end(mut child: Child, signal: i32) -> String {
    let name = format!("-{signal}");
    let sent = Command::new("kill").args([&name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut story = String::new();
    child.stderr.take().unwrap().read_to_string(&mut story).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal), "{status}: {story}");
    story
}

#[test]
fn a_signal_leaves_no_temporary_directory_and_no_half_result() {
    for signal in [2, 15] {
        let folder = folder();
        let devices = folder.path().join("d");
        let words = ["replay", "slow.iolog", "--speed", "1", "--dir", "d", "--json", "r"];
        let child = start(&folder, &words);
        wait_for("it writes", || has_written(&devices));
        let story = end(child, signal);
        assert!(story.contains(if signal == 2 { "SIGINT" } else { "SIGTERM" }), "{story}");
        let left: Vec<_> = fs::read_dir(&devices).unwrap().collect();
        assert!(left.is_empty() && !folder.path().join("r").exists(), "{left:?}: {story}");
    }
}

#[test]
fn a_signal_says_that_kept_devices_remain_and_where() {
    let folder = folder();
    let words = ["replay", "slow.iolog", "--speed", "1", "--dir", "d", "--keep"];
    let child = start(&folder, &words);
    wait_for("it writes", || has_written(&folder.path().join("d")));
    let story = end(child, 15);
    assert!(story.contains("the devices remain in d/a and d/b"), "{story}");
    assert!(story.contains("`afterimage recover d/a d/b`"), "{story}");
    let recovered = start(&folder, &["recover", "d/a", "d/b"]).wait_with_output().unwrap();
    assert_eq!(recovered.status.code(), Some(0));
}

#[test]
fn a_signal_before_there_is_anything_leaves_nothing() {
    let folder = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(["replay", "-", "--dir", "d", "--json", "r"]).current_dir(folder.path());
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its standard input never ends.
    let input = child.stdin.take();
    let threads = format!("/proc/{}/task", child.id());
    wait_for("it watches", || fs::read_dir(&threads).is_ok_and(|all| all.count() > 1));
    end(child, 2);
    drop(input);
    assert!(!folder.path().join("d").exists() && !folder.path().join("r").exists());
}

/// Runs under `ulimit -f`, in blocks of 512 bytes.
fn limited(folder: &TempDir, blocks: u64, words: &str) -> Output {
    let script = format!("ulimit -f {blocks}; exec \"$0\" {words}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_afterimage")]).current_dir(folder.path());
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_file_that_would_be_too_large_is_an_error_with_its_name() {
    let folder = folder();
    let named = |output: &Output, status: i32, what: &str| {
        let story = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{}: {story}", output.status);
        for part in [what, "File too large", "SIGXFSZ", "ulimit -f"] {
            assert!(story.contains(part), "no '{part}' in {story}");
        }
    };
    // A log, as it is made; a segment of a volume, once hosts are served; a result.
    let small = "--journal-size 4MiB";
    let log = limited(&folder, 2000, &format!("replay one.iolog --dir d {small}"));
    named(&log, 4, "own.log");
    assert_eq!(fs::read_dir(folder.path().join("d")).unwrap().count(), 0);
    fs::write(
        folder.path().join("far.iolog"),
        "fio version 3 iolog\n1 f write 0 4096\n2 f write 536870912 4096\n",
    )
    .unwrap();
    let segment = limited(&folder, 20_000, &format!("replay far.iolog --dir d {small}"));
    named(&segment, 4, "volumes/0.");
    let result = limited(&folder, 0, "replay one.iolog --memory --json r");
    named(&result, 6, "writing r");
    assert!(!folder.path().join("r").exists());
}

#[test]
fn a_planned_duration_is_said() {
    let folder = folder();
    for (speed, passes, said) in [("600", "1", "takes 99.8 ms"), ("1200", "2", "takes 99.8 ms")] {
        let words = ["replay", "slow.iolog", "--memory", "--speed", speed, "--passes", passes];
        let output = start(&folder, &words).wait_with_output().unwrap();
        let story = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(story.contains(said), "{story}");
    }
    let output = start(&folder, &["replay", "one.iolog", "--memory"]).wait_with_output().unwrap();
    assert!(output.stderr.is_empty());
}
