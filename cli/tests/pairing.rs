//! Two devices become a pair over the network, by an invitation, and replicate; and those that are not invited do not.

use std::fs;
use std::path::Path;

#[allow(dead_code)]
mod served;
use served::{Served, run, run_with, until};

/// A device that waits for a peer, its invitation, and where it listens.
fn inviting(scratch: &Path) -> (Served, String, String) {
    let (mut a, invitation) = Served::made(scratch);
    a.serve(&["--listen", "127.0.0.1:0"]);
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    (a, invitation, address)
}

fn join(dir: &Path, address: &str, invitation: &str) -> (Option<i32>, String) {
    let (code, _, story) = run_with(&["join", dir.to_str().unwrap(), address], invitation);
    (code, story)
}

/// A pair that is connected.
fn pair(scratch: &Path) -> [Served; 2] {
    let (pair, _) = invited_pair(scratch);
    pair
}

/// The same, and its invitation.
fn invited_pair(scratch: &Path) -> ([Served; 2], String) {
    let (a, invitation, address) = inviting(scratch);
    let mut b = Served::at(scratch.join("b"));
    let (code, story) = join(&b.dir, &address, &invitation);
    assert_eq!(code, Some(0), "{story}");
    b.serve(&[]);
    until("they are connected", || {
        b.status("/connected") == true && a.status("/connected") == true
    });
    ([a, b], invitation)
}

#[test]
fn four_commands_make_a_pair_and_the_host_moves() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, b] = pair(scratch.path());
    assert_eq!((a.status("/role"), b.status("/role")), ("serving".into(), "fenced".into()));
    assert_eq!((a.status("/device"), b.status("/device")), (1.into(), 2.into()));
    let keys = [&a, &b].map(|device| device.status("/link/peer_key"));
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.as_str().is_some()), "{keys:?}");
    let names = [&a, &b].map(|device| fs::read(device.dir.join("volumes.json")).unwrap());
    assert_eq!(names[0], names[1]);

    assert_eq!(b.ask(&["takeover", "--dry-run"]).0, Some(0));
    assert_eq!(b.status("/role"), "fenced");
    assert_eq!(b.ask(&["drain", "--timeout", "5s"]).0, Some(9), "it does not serve");
    let (code, ready, story) = b.ask(&["takeover"]);
    assert_eq!((code, &ready["tenure"]), (Some(0), &2.into()), "{story}");
    assert_eq!(b.status("/role"), "serving");
    until("the other one is fenced", || a.status("/role") == "fenced");
    assert_eq!(a.ask(&["wait", "0.0.0"]).0, Some(15), "the host has moved on");
    let (code, _, story) = b.ask(&["handover"]);
    assert_eq!(code, Some(0), "{story}");
    until("the host is back", || a.status("/role") == "serving");
    assert_eq!(a.ask(&["drain", "--timeout", "10s"]).0, Some(0));

    // A service that was killed comes back to its peer, which dials.
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    a.end("-KILL");
    until("the loss is noticed", || b.status("/connected") == false);
    assert_eq!(b.ask(&["takeover"]).0, Some(13), "there is no peer to ask");
    a.serve(&["--listen", &address]);
    until("they are connected again", || b.status("/connected") == true);
    until("the host is served", || a.status("/role") == "serving");
}

#[test]
fn an_invitation_makes_one_peer() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut a, invitation, address) = inviting(scratch.path());
    let [b, thief] = ["b", "thief"].map(|name| scratch.path().join(name));
    let joined = join(&b, &address, &invitation);
    assert_eq!(joined.0, Some(0), "{}", joined.1);
    let pinned = fs::read(a.dir.join("peer.json")).unwrap();
    let (code, story) = join(&thief, &address, &invitation);
    assert!(code == Some(5) && story.contains("another device has used the invitation"), "{story}");
    assert_eq!(fs::read(a.dir.join("peer.json")).unwrap(), pinned);
    assert!(!thief.join("superblock").exists() && !thief.join("peer.json").exists());

    // The same device, whose making was cut short, is answered again; also by the next service.
    fs::write(b.join("superblock"), [0; 16384]).unwrap();
    fs::write(b.join("own.log.new"), [0; 99]).unwrap();
    fs::write(b.join("link.new"), [0; 9]).unwrap();
    a.end("-KILL");
    a.serve(&["--listen", &address]);
    let (code, story) = join(&b, &address, &invitation);
    assert_eq!(code, Some(0), "{story}");
    let (code, story) = join(&b, &address, &invitation);
    assert!(code == Some(5) && story.contains("stands there already"), "{story}");
}

#[test]
fn wrong_invitations_are_refused_and_five_make_it_void() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, invitation, address) = inviting(scratch.path());
    let dir = scratch.path().join("b");
    for (text, status) in [("", 2), ("afterimage-invitation-abcd", 2), ("no invitation", 2)] {
        assert_eq!(join(&dir, &address, text).0, Some(status), "{text}");
    }
    // A new one voids the old, whose secret is wrong now.
    let (code, invited, story) = a.ask(&["invite"]);
    assert_eq!(code, Some(0), "{story}");
    for _ in 0..5 {
        let (code, story) = join(&dir, &address, &invitation);
        assert!(code == Some(5) && story.contains("refuses"), "{story}");
    }
    let newer = invited["invitation"].as_str().unwrap();
    let (code, story) = join(&dir, &address, newer);
    assert!(code == Some(5), "it is void: {story}");
    // By another device's invitation nothing is sent.
    let other = tempfile::tempdir().unwrap();
    let (_, stranger) = Served::made(other.path());
    let (code, story) = join(&dir, &address, &stranger);
    assert!(code == Some(5) && story.contains("nothing was sent"), "{story}");
    let (_, newest, _) = a.ask(&["invite"]);
    let (code, story) = join(&dir, &address, newest["invitation"].as_str().unwrap());
    assert_eq!(code, Some(0), "{story}");
}

#[test]
fn a_pair_with_keys_is_never_without() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, mut b] = pair(scratch.path());
    assert_eq!(a.ask(&["invite"]).0, Some(5), "it has a peer");
    assert_eq!(b.ask(&["invite"]).0, Some(5), "it does not listen");
    a.end("-TERM");
    b.end("-TERM");
    for way in [["--listen", "127.0.0.1:0"], ["--peer", "127.0.0.1:1"]] {
        let (code, _, story) = run(&[&["serve", a.path(), "--insecure"], &way[..]].concat());
        assert!(code == Some(2) && story.contains("has a key"), "{story}");
    }
    let (code, _, _) =
        run(&["serve", a.path(), "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:1"]);
    assert_eq!(code, Some(2));
    // A key that others may read is not used.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(a.dir.join("link.key"), mode).unwrap();
    let (code, _, story) = run(&["serve", a.path(), "--listen", "127.0.0.1:0"]);
    assert!(code == Some(2) && story.contains("chmod 600"), "{story}");
}

/// A new device takes the place of one that is lost for good.
#[test]
fn a_lost_peer_is_forgotten_and_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let ([mut a, b], invitation) = invited_pair(scratch.path());
    drop(b);
    a.end("-TERM");
    let (code, _, story) = run(&["forget-peer", a.path(), "--yes"]);
    assert_eq!(code, Some(0), "{story}");
    a.serve(&["--listen", "127.0.0.1:0"]);
    // The old one's key and invitation open nothing any more.
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    let again = scratch.path().join("again");
    fs::create_dir(&again).unwrap();
    fs::copy(scratch.path().join("b/link.key"), again.join("link.key")).unwrap();
    let (code, story) = join(&again, &address, &invitation);
    assert!(code != Some(0) && !again.join("superblock").exists(), "{story}");
    let (code, invited, story) = a.ask(&["invite"]);
    assert_eq!(code, Some(0), "{story}");
    let mut c = Served::at(scratch.path().join("c"));
    let (code, story) = join(&c.dir, &address, invited["invitation"].as_str().unwrap());
    assert_eq!(code, Some(0), "{story}");
    c.serve(&[]);
    until("they are connected", || c.status("/connected") == true);
    assert_eq!(c.status("/device"), 3, "device 2 is refused for ever");
}

/// No secret is where others see it.
#[test]
fn secrets_are_in_their_files_only() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut a, invitation, address) = inviting(scratch.path());
    let dir = scratch.path().join("b");
    let (code, shown, story) = run_with(&["join", dir.to_str().unwrap(), &address], &invitation);
    assert_eq!(code, Some(0), "{story}");
    let status = a.ask(&["status"]).1.to_string();
    let record = fs::read(a.dir.join("invitation")).unwrap();
    let (_, log) = a.end("-TERM");
    let secret = invitation.trim().trim_start_matches("afterimage-invitation-");
    for text in [&shown, &story, &status, &log, &String::from_utf8_lossy(&record).into_owned()] {
        assert!(!text.contains(&secret[60..]), "{text}");
    }
    let key = fs::read(a.dir.join("link.key")).unwrap();
    let own = &key[key.len() - 32..];
    for file in ["peer.json", "invitation", "volumes.json", "superblock"] {
        let bytes = fs::read(a.dir.join(file)).unwrap();
        assert!(!bytes.windows(32).any(|part| part == own), "{file}");
    }
}

/// A program for a hook, which writes what it is told into a file.
fn hook(scratch: &Path, name: &str, then: &str) -> String {
    let (program, told) = (scratch.join(name), scratch.join(format!("{name}.told")));
    let line = "$AFTERIMAGE_EVENT $AFTERIMAGE_DEVICE $AFTERIMAGE_TENURE $AFTERIMAGE_OWED_BLOCKS $1";
    let text = format!("#!/bin/sh\necho \"{line}\" >> {}\n{then}\n", told.display());
    fs::write(&program, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    program.to_str().unwrap().to_owned()
}

#[test]
fn hooks_run_at_changes_of_role_within_their_limit() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, mut b] = pair(scratch.path());
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    a.end("-TERM");
    b.end("-TERM");
    let [ready, fenced] = [("ready", "sleep 30"), ("fenced", "exit 3")]
        .map(|(name, then)| hook(scratch.path(), name, then));
    let config = scratch.path().join("config.toml");
    let text = format!(
        "[link]\nlisten = \"{address}\"\n[hooks]\nready = [\"{ready}\", \"here\"]\nfenced = [\"{fenced}\"]\nlimit = \"300ms\"\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(run(&["config", "check", config]).0, Some(0));
    a.serve(&["--config", config]);
    b.serve(&[]);
    until("the host is served", || a.status("/role") == "serving");
    let told = |name: &str| {
        fs::read_to_string(scratch.path().join(format!("{name}.told"))).unwrap_or_default()
    };
    until("the hook has run", || told("ready") == "ready 1 1 0 here\n");
    let (code, _, story) = b.ask(&["takeover"]);
    assert_eq!(code, Some(0), "{story}");
    // Its program sleeps longer than its limit, and holds up nothing.
    until("the other hook has run", || told("fenced") == "fenced 1 2 0 \n");
    fs::write(config, "[hooks]\nreddy = []\n").unwrap();
    let (code, _, story) = run(&["config", "check", config]);
    assert!(code == Some(2) && story.contains("hooks.reddy"), "{story}");
    let (code, example, _) = run(&["config", "example"]);
    assert!(code == Some(0) && example.contains("[hooks]"));
}
