//! The host is stopped, and moves: by command, by the device's own watch on it, by its first request elsewhere.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

#[allow(dead_code)]
#[path = "nbd/client.rs"]
mod client;
#[allow(dead_code)]
mod served;
use client::{Client, FLUSH, GO, READ, SHUTDOWN, wish};
use served::{Served, run_with, until};

struct Pair {
    scratch: tempfile::TempDir,
    a: Served,
    b: Served,
}

impl Pair {
    /// A pair that is connected, with these lines in the configurations of the hosts.
    fn new(of_hosts: [&str; 2]) -> Pair {
        let scratch = tempfile::tempdir().unwrap();
        for (name, lines) in ["a", "b"].into_iter().zip(of_hosts) {
            let socket = scratch.path().join(format!("{name}.nbd"));
            let text = format!("[hosts]\nnbd = [\"unix:{}\"]\n{lines}", socket.display());
            fs::write(scratch.path().join(format!("{name}.toml")), text).unwrap();
        }
        let (mut a, invitation) = Served::made(scratch.path());
        let config = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        a.serve(&["--listen", "127.0.0.1:0", "--config", &config("a.toml")]);
        let address = a.status("/link/address").as_str().unwrap().to_owned();
        let mut b = Served::at(scratch.path().join("b"));
        let (code, _, story) = run_with(&["join", b.path(), &address], &invitation);
        assert_eq!(code, Some(0), "{story}");
        b.serve(&["--config", &config("b.toml")]);
        let pair = Pair { scratch, a, b };
        pair.meets();
        pair
    }

    fn meets(&self) {
        until("they are connected", || {
            self.a.status("/connected") == true && self.b.status("/connected") == true
        });
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.nbd"))
    }

    fn roles(&self) -> [String; 2] {
        [&self.a, &self.b].map(|device| device.status("/role").as_str().unwrap().to_owned())
    }
}

#[test]
fn a_fence_serves_nowhere_until_it_is_undone() {
    let mut pair = Pair::new(["", ""]);
    assert_eq!(pair.b.ask(&["fence"]).0, Some(9), "it does not serve");
    let (code, said, story) = pair.a.ask(&["fence"]);
    assert_eq!(
        (code, &said["role"], &said["tenure"]),
        (Some(0), &"fenced-here".into(), &1.into()),
        "{story}"
    );
    assert_eq!(pair.a.ask(&["fence"]).0, Some(0), "it is fenced");
    assert_eq!(pair.roles(), ["fenced-here", "fenced"]);
    assert_eq!(pair.a.ask(&["handover"]).0, Some(9));
    // The fence outlives the process.
    let address = pair.a.status("/link/address").as_str().unwrap().to_owned();
    pair.a.end("-KILL");
    pair.a.serve(&["--listen", &address]);
    pair.meets();
    assert_eq!(pair.roles(), ["fenced-here", "fenced"]);
    let (code, said, story) = pair.a.ask(&["resume"]);
    assert_eq!(
        (code, &said["role"], &said["tenure"]),
        (Some(0), &"serving".into(), &1.into()),
        "{story}"
    );
    assert_eq!(pair.a.ask(&["resume"]).0, Some(0), "it serves");

    // Another takes over as ever, and then nothing is left to be undone.
    pair.meets();
    assert_eq!(pair.a.ask(&["fence"]).0, Some(0));
    assert_eq!(pair.b.ask(&["takeover"]).0, Some(0));
    assert_eq!(pair.roles(), ["fenced", "serving"]);
    assert_eq!(pair.a.ask(&["resume"]).0, Some(9));
    assert_eq!(pair.a.ask(&["resume", "--alone"]).0, Some(9));
    // Without the peer nothing vouches for it but an operator.
    assert_eq!(pair.b.ask(&["fence"]).0, Some(0));
    pair.a.end("-KILL");
    until("the loss is noticed", || pair.b.status("/connected") == false);
    assert_eq!(pair.b.ask(&["resume"]).0, Some(13));
    assert_eq!(pair.b.status("/role"), "fenced-here");
    assert_eq!(pair.b.ask(&["resume", "--alone"]).0, Some(0));
    assert_eq!(pair.b.status("/role"), "serving");
}

#[test]
fn a_device_that_no_other_has_joined_is_resumed_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut served, _) = Served::made(scratch.path());
    served.serve(&[]);
    assert_eq!(served.ask(&["fence"]).0, Some(0));
    served.end("-TERM");
    served.serve(&[]);
    assert_eq!(served.status("/role"), "fenced-here");
    assert_eq!(served.ask(&["resume"]).0, Some(0));
    assert_eq!(served.status("/role"), "serving");
}

#[test]
fn a_dry_run_moves_nothing_and_a_move_says_how_long_it_took() {
    let pair = Pair::new(["", ""]);
    let (code, said, story) = pair.a.ask(&["handover", "--dry-run"]);
    assert_eq!(
        (code, &said["dry_run"], &said["owed_blocks"]),
        (Some(0), &true.into(), &0.into()),
        "{story}"
    );
    assert!(said["ready_after_ns"].is_null());
    assert_eq!(pair.b.ask(&["handover", "--dry-run"]).0, Some(9));
    assert_eq!(pair.a.ask(&["takeover", "--dry-run"]).0, Some(5));
    assert_eq!(pair.b.ask(&["takeover", "--dry-run"]).0, Some(0));
    assert_eq!(pair.roles(), ["serving", "fenced"]);
    let (code, said, story) = pair.a.ask(&["handover"]);
    assert_eq!(
        (code, &said["tenure"], &said["caught_up"]),
        (Some(0), &2.into(), &true.into()),
        "{story}"
    );
    assert!(said["ready_after_ns"].as_u64().unwrap() > 0);
    assert_eq!(pair.roles(), ["fenced", "serving"]);
    let last = &pair.a.ask(&["takeover", "--dry-run"]).1["ready_after_ns"];
    assert_eq!(*last, said["ready_after_ns"], "as last time");
}

#[test]
fn a_host_that_is_gone_is_handed_over() {
    let pair = Pair::new(["handover-after = \"300ms\"\n", ""]);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(pair.roles(), ["serving", "fenced"], "it has had no host");
    let host = Client::simple(&pair.socket("a"), "data");
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(pair.roles(), ["serving", "fenced"], "its host is there");
    drop(host);
    until("the host is handed over", || pair.roles() == ["fenced", "serving"]);
    // It comes back without a host, and stays.
    assert_eq!(pair.a.ask(&["takeover"]).0, Some(0));
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(pair.roles(), ["serving", "fenced"]);
}

/// Whether nothing comes for half a second.
fn is_silent(host: &mut Client) -> bool {
    host.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let kind = std::io::Read::read(&mut host.stream, &mut [0]).unwrap_err().kind();
    host.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[test]
fn the_first_read_at_the_fenced_device_takes_the_host_over() {
    let of_b = "patience = \"100ms\"\n[hosts.exports.data]\ntakeover-at-first-io = true\n";
    let pair = Pair::new(["", of_b]);
    let mut other = Client::connect(&pair.socket("b"));
    assert_eq!(other.answer(GO, &wish("wal", &[])), SHUTDOWN, "this export is not set so");
    let mut host = Client::simple(&pair.socket("b"), "data");
    let flush = host.ask(0, FLUSH, 0, 0);
    assert!(is_silent(&mut host), "a flush neither reads nor changes anything");
    assert_eq!(pair.roles(), ["serving", "fenced"]);
    let read = host.ask(0, READ, 0, 4096);
    assert_eq!(host.done(), (flush, 0));
    assert_eq!(host.done(), (read, 0));
    assert_eq!(host.take_many(4096), vec![0; 4096]);
    assert_eq!(pair.roles(), ["fenced", "serving"]);

    // Once a minute, and no more.
    assert_eq!(pair.a.ask(&["takeover"]).0, Some(0));
    let mut host = Client::simple(&pair.socket("b"), "data");
    let write = host.ask_write(0, 0, &[7; 4096]);
    assert!(is_silent(&mut host));
    assert_eq!(pair.roles(), ["serving", "fenced"]);
    // It is served once the device is, whatever brought that about.
    assert_eq!(pair.b.ask(&["takeover"]).0, Some(0));
    assert_eq!(host.done(), (write, 0));
}

#[test]
fn requests_that_wait_do_not_outlive_the_wait() {
    let of_b = "[hosts.exports.data]\ntakeover-at-first-io = true\n";
    let pair = Pair::new(["", of_b]);
    let mut early = Client::simple(&pair.socket("b"), "data");
    let mut kept = Client::simple(&pair.socket("b"), "data");
    kept.ask(0, FLUSH, 0, 0);
    assert_eq!(pair.a.ask(&["fence"]).0, Some(0));
    assert_eq!(pair.b.ask(&["takeover"]).0, Some(0));
    // Nobody looks for a session for it: it comes back.
    assert_eq!(std::io::Read::read(&mut kept.stream, &mut [0]).unwrap(), 0);
    let mut host = Client::simple(&pair.socket("b"), "data");
    let flush = host.ask(0, FLUSH, 0, 0);
    assert_eq!(host.done(), (flush, 0));
    // An operator's fence is not undone by a host.
    assert_eq!(pair.b.ask(&["fence"]).0, Some(0));
    let mut late = Client::connect(&pair.socket("b"));
    late.option(GO, &wish("data", &[]));
    // One that has its export open since before the takeover asks for data now.
    early.ask_write(0, 0, &[7; 4096]);
    assert!(is_silent(&mut early));
    assert_eq!(pair.b.status("/role"), "fenced-here");
    assert_eq!(pair.b.ask(&["resume"]).0, Some(0));
}
