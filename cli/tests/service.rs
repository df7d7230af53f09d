//! A device as a service: real processes, asked by real commands and by callers that do not keep to the rules.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

#[allow(dead_code)]
mod served;
use served::{Served, afterimage, is_root, run, until};

/// A device that is served, and where it is kept.
fn serving() -> (tempfile::TempDir, Served) {
    let scratch = tempfile::tempdir().unwrap();
    let (mut served, _) = Served::made(scratch.path());
    served.serve(&[]);
    (scratch, served)
}

fn socket_mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_device_is_made_served_asked_and_stopped() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut served, invitation) = Served::made(scratch.path());
    assert!(invitation.lines().count() == 1 && invitation.starts_with("afterimage-invitation-"));
    assert_eq!(served.ask(&["status"]).0, Some(8), "no service runs");
    served.serve(&[]);
    let (code, status, _) = served.ask(&["status"]);
    assert_eq!(code, Some(0));
    assert_eq!((&status["role"], &status["connected"]), (&"serving".into(), &false.into()));
    assert_eq!((&status["tenure"], &status["version"]), (&1.into(), &1.into()));
    let (code, text, _) = run(&["status", served.path()]);
    assert!(code == Some(0) && text.starts_with("device 1 serves\n"), "{text}");

    let (code, mark, _) = served.ask(&["mark"]);
    assert_eq!((code, &mark["point"]), (Some(0), &"0.0.0".into()));
    assert_eq!(served.ask(&["wait", "0.0.0", "--timeout", "5s"]).0, Some(0));
    assert_eq!(served.ask(&["wait", "1.7.0"]).0, Some(5), "there is no such write");
    assert_eq!(run(&["wait", served.path(), "1.7"]).0, Some(2), "this is no point");
    assert_eq!(served.ask(&["drain", "--timeout", "5s"]).0, Some(0));
    assert_eq!(served.ask(&["rate", "10MiB/s"]).1["bytes_per_second"], 10 << 20);
    assert_eq!(served.ask(&["rate", "off"]).1["bytes_per_second"], 0);
    assert_eq!(served.ask(&["takeover"]).0, Some(5), "it serves already");
    assert_eq!(served.ask(&["takeover", "--dry-run"]).0, Some(5), "it serves already");
    assert_eq!(served.ask(&["handover"]).0, Some(13), "there is no peer");
    assert_eq!(served.ask(&["resume", "--alone"]).0, Some(0), "it serves already");

    let (code, _, story) = run(&["serve", served.path()]);
    assert_eq!(code, Some(5), "{story}");
    let (code, story) = served.end("-TERM");
    assert!(code == Some(0) && story.contains("closed cleanly"), "{story}");
    let left: Vec<_> = fs::read_dir(&served.dir).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("sock")), "{left:?}");
    assert_eq!(run(&["inspect", served.path()]).0, Some(0));
}

#[test]
fn a_killed_service_leaves_nothing_in_the_way_of_the_next() {
    let (_scratch, mut served) = serving();
    served.end("-KILL");
    assert_eq!(served.ask(&["status"]).0, Some(8));
    served.serve(&[]);
    assert_eq!(served.ask(&["status"]).1["role"], "serving");
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("a");
    let path = dir.to_str().unwrap();
    for (volume, more, status) in [
        ("data", &[][..], 2),
        ("=1MiB", &[], 2),
        ("a b=1MiB", &[], 2),
        ("data=1MiB", &["--volume", "data=2MiB"], 2),
        ("data=1MiB", &["--journal", "4KiB"], 2),
        ("data=1MiB", &["--block-size", "3KiB"], 2),
        ("data=100B", &[], 2),
    ] {
        let (code, _, story) = run(&[&["init", path, "--volume", volume], more].concat());
        assert_eq!(code, Some(status), "{volume} {more:?}: {story}");
        assert!(!dir.exists(), "{volume} {more:?}: {story}");
    }
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter"), "dear").unwrap();
    assert_eq!(run(&["init", path, "--volume", "data=1MiB"]).0, Some(5), "something stands there");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn each_right_has_a_socket() {
    let (_scratch, served) = serving();
    let modes =
        ["see.sock", "operate.sock", "force.sock"].map(|s| socket_mode(&served.dir.join(s)));
    assert_eq!(modes, [0o660, 0o600, if is_root() { 0 } else { 0o600 }]);
    let drain = b"{\"order\": \"drain\", \"timeout_ms\": 1}\n";
    let status = b"{\"order\": \"status\"}\n";
    let refused = served.answer("see.sock", drain);
    assert_eq!(refused["failed"]["exit"], 5, "{refused}");
    assert!(refused["failed"]["why"].as_str().unwrap().contains("operate.sock"), "{refused}");
    let force = served.answer("operate.sock", b"{\"order\": \"accept-loss\"}\n");
    assert_eq!(force["failed"]["exit"], 5, "{force}");
    for socket in ["see.sock", "operate.sock", "force.sock"] {
        assert!(served.answer(socket, status)["done"].is_object(), "{socket}");
    }
    assert!(served.answer("force.sock", drain)["done"].is_object());
}

#[test]
fn callers_that_keep_to_no_rule_are_refused() {
    let (_scratch, served) = serving();
    let long = [b"{\"order\": \"".to_vec(), vec![b'x'; 1 << 20], b"\"}\n".to_vec()].concat();
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "does not know the order"),
        (b"{\"order\": \"burn\"}\n", "does not know the order"),
        (b"\xff\xfe\n", "not text"),
        (&long, "more than 65536 bytes"),
    ] {
        let answer = served.answer("see.sock", bytes);
        assert_eq!(answer["failed"]["exit"], 2, "{answer}");
        assert!(answer["failed"]["why"].as_str().unwrap().contains(why), "{why}: {answer}");
    }
    // Callers that say nothing keep others out, until they hang up.
    let mut silent: Vec<UnixStream> = Vec::new();
    until("all have a seat", || {
        // A caller of before may have had one still.
        silent.extend((silent.len()..16).map(|_| served.call("see.sock")));
        silent.push(served.call("see.sock"));
        served.ask(&["status"]).0 == Some(5)
    });
    drop(silent);
    until("the seats are free", || served.ask(&["status"]).0 == Some(0));
    // A caller that hangs up while it waits leaves no thread.
    let threads = || {
        fs::read_dir(format!("/proc/{}/task", served.child.as_ref().unwrap().id())).unwrap().count()
    };
    let before = threads();
    for _ in 0..200 {
        // One that finds no seat is hung up on.
        let mut caller = served.call("operate.sock");
        let _ = caller
            .write_all(b"{\"order\": \"wait\", \"point\": \"0.0.0\", \"timeout_ms\": null}\n");
        let mut follower = served.call("see.sock");
        let _ = follower.write_all(b"{\"order\": \"events\"}\n");
    }
    until("no thread is left", || threads() == before);
}

#[test]
fn the_log_has_each_order_with_its_user_and_no_secret() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut served, first) = Served::made(scratch.path());
    served.serve(&["--log", "trace", "--listen", "127.0.0.1:0"]);
    let (code, answer, story) = served.ask(&["invite"]);
    assert_eq!(code, Some(0), "{story}");
    assert_eq!(served.ask(&["handover"]).0, Some(13), "there is no peer");
    let (_, log) = served.end("-TERM");
    let user = fs::metadata("/proc/self").unwrap().uid();
    for order in ["Status", "Invite", "Handover"] {
        let line = format!("order user={user} order={order}");
        assert!(log.contains(&line), "{line}: {log}");
    }
    assert!(log.contains(&format!("no order was carried out user={user} why=")), "{log}");
    // Neither whole nor in parts.
    let parts = |secret: &str| -> Vec<String> {
        let secret = secret.trim().trim_start_matches("afterimage-invitation-");
        secret
            .as_bytes()
            .chunks_exact(12)
            .map(|part| String::from_utf8_lossy(part).into())
            .collect()
    };
    for secret in [&*first, answer["invitation"].as_str().unwrap()] {
        assert!(parts(secret).iter().all(|part| !log.contains(part)), "{log}");
    }
}

#[test]
fn events_are_followed_as_they_happen() {
    let (_scratch, mut served) = serving();
    let mut follower = afterimage(&["events", served.path(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    // A device that stops tells its followers so.
    served.end("-TERM");
    let output = follower.wait().map(|status| status.code()).unwrap();
    assert_eq!(output, Some(8), "the service stops");
}
