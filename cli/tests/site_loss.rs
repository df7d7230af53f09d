//! The loss of a site with real processes: the commands of the worst day through the services that run, and hosts that
//! come back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

mod hosts;
#[allow(dead_code)]
mod served;
use hosts::{Blocks, Host, VOLUMES, after, empty, now, place};
use served::{Served, run, run_with, until};

/// A forced takeover takes no longer; a build without optimisation is not measured.
const FORCED_IN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

/// A device, and how it is served.
struct Site {
    device: Served,
    words: Vec<String>,
}

impl std::ops::Deref for Site {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.device
    }
}

impl Site {
    /// The device in `scratch/name`, whose hosts wait `patience` for it.
    fn new(scratch: &Path, name: &str, patience: &str, words: &[&str]) -> Site {
        let config = scratch.join(format!("{name}.toml"));
        let tenures = scratch.join(format!("{name}.tenures"));
        let hook = format!("echo $AFTERIMAGE_TENURE >> '{}'", tenures.display());
        let hooks = format!("[hooks]\nready = [\"/bin/sh\", \"-c\", \"{hook}\"]\n");
        fs::write(&config, format!("[hosts]\npatience = \"{patience}\"\n{hooks}")).unwrap();
        let socket = scratch.join(format!("{name}.nbd"));
        let nbd = format!("unix:{}", socket.display());
        let words = [&["--config", config.to_str().unwrap(), "--nbd", &nbd], words].concat();
        let words = words.into_iter().map(str::to_owned).collect();
        Site { device: Served::at(scratch.join(name)), words }
    }

    fn socket(&self) -> PathBuf {
        self.dir.with_extension("nbd")
    }

    /// Whether its hook has run for this tenure.
    fn has_been_told_of(&self, tenure: &Value) -> bool {
        let (tenure, tenures) = (tenure.to_string(), self.dir.with_extension("tenures"));
        fs::read_to_string(tenures).is_ok_and(|told| told.lines().any(|line| line == tenure))
    }

    fn start(&mut self) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.device.serve(&words);
    }

    fn kill(&mut self) {
        self.device.end("-KILL");
    }

    fn host(&self) -> io::Result<Host> {
        Host::connect(&self.socket())
    }

    /// Asks, and expects this exit status.
    fn told(&self, words: &[&str], expected: i32) -> Value {
        let (code, text, story) = self.command(&[words, &["--json"]].concat());
        assert_eq!(code, Some(expected), "{words:?}: {text} {story}");
        serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
    }

    /// The same, as text.
    fn text(&self, words: &[&str], expected: i32) -> String {
        let (code, text, story) = self.command(words);
        assert_eq!(code, Some(expected), "{words:?}: {text} {story}");
        text + &story
    }

    fn command(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let (command, rest) = words.split_at(if words[0] == "salvage" { 2 } else { 1 });
        run(&[command, &[self.path()], rest].concat())
    }
}

/// A pair that is connected; the first device serves.
fn pair(scratch: &Path, patience: &str) -> [Site; 2] {
    let mut a = Site::new(scratch, "a", patience, &["--listen", "127.0.0.1:0"]);
    let volumes = VOLUMES.map(|name| format!("{name}=1MiB"));
    let words = ["init", a.path(), "--journal", "64MiB", "--volume", &volumes[0], "--volume"];
    let (code, invitation, story) = run(&[&words[..], &[&volumes[1]]].concat());
    assert_eq!(code, Some(0), "{story}");
    a.start();
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    // Its next service listens there, too.
    *a.words.last_mut().unwrap() = address.clone();
    let b = joined(scratch, "b", patience, (&address, &invitation));
    until("they are connected", || a.status("/connected") == true);
    [a, b]
}

fn joined(scratch: &Path, name: &str, patience: &str, invited: (&str, &str)) -> Site {
    let mut site = Site::new(scratch, name, patience, &[]);
    let (code, _, story) = run_with(&["join", site.path(), invited.0], invited.1);
    assert_eq!(code, Some(0), "{story}");
    site.start();
    until("it is connected", || site.status("/connected") == true);
    site
}

/// The writes of a host until its device was gone.
struct Load {
    /// Each acknowledged write, and the wall time at which it was issued.
    acknowledged: Vec<(u64, u64)>,
    /// The write that was not answered.
    open: u64,
}

/// A host writes at `a` from number `from` on; after `time` and `least` writes the device is killed.
fn load_until_lost(a: &mut Site, from: u64, time: Duration, least: u64) -> Load {
    let mut host = a.host().unwrap();
    let is_enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let begun = Instant::now();
            let mut load = Load { acknowledged: Vec::new(), open: from };
            loop {
                let issued = now();
                if host.write(load.open).is_err() {
                    return load;
                }
                load.acknowledged.push((load.open, issued));
                load.open += 1;
                let is_late = begun.elapsed() >= time && load.open - from >= least;
                is_enough.store(is_late, Ordering::Release);
            }
        });
        until("it has written enough", || is_enough.load(Ordering::Acquire));
        a.kill();
        writes.join().unwrap()
    })
}

/// Which write is the last of those whose state `found` is, each after the one before; they are over `before`.
fn prefix(found: &Blocks, before: &Blocks, first: u64, end: u64) -> u64 {
    let last = found.iter().flatten().copied().filter(|&n| n >= first).max().unwrap_or(first - 1);
    assert!(last < end, "nobody has written {last}");
    assert_eq!(*found, after(before, first..=last), "no state that the data had, up to {last}");
    last
}

/// Every acknowledged write that is lost is on the sheet, or younger than the time that it names.
fn check_sheet(b: &Site, lost: &[(u64, u64)]) {
    let mut sheets: Vec<_> = fs::read_dir(&b.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("loss-"))
        .collect();
    sheets.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let sheet: Value = serde_json::from_slice(&fs::read(sheets.pop().unwrap()).unwrap()).unwrap();
    let others = sheet["others_after_ns"].as_u64().expect("records came in order");
    for &(n, issued) in lost {
        let (volume, block) = place(n);
        let is_told = sheet["told"].as_array().unwrap().iter().any(|run| {
            let first = run["block"].as_u64().unwrap();
            let blocks = first..first + run["blocks"].as_u64().unwrap();
            run["volume"] == volume && blocks.contains(&block)
        });
        assert!(is_told || issued >= others, "write {n} of {issued}, others are after {others}");
    }
}

/// Site A is lost under load, B is forced and serves, A returns and takes over again; round after round.
#[test]
fn a_site_is_lost_and_returns_again_and_again() {
    let rounds = std::env::var("SITE_LOSSES").map_or(2, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, b] = pair(scratch.path(), "10s");
    let (mut blocks, mut next) = (empty(), 1);
    for round in 0..rounds {
        a.told(&["rate", "128KiB/s"], 0);
        let first = next;
        let load = load_until_lost(&mut a, first, Duration::from_millis(300), 400);
        next = load.open + 1;
        until("the loss is noticed", || b.status("/connected") == false);

        let dry = b.told(&["takeover", "--force"], 0);
        assert_eq!((&dry["changed"], b.status("/role")), (&false.into(), "fenced".into()));
        let begun = Instant::now();
        let forced = b.told(&["takeover", "--force", "--yes", "--accept-loss"], 0);
        let mut host = b.host().unwrap();
        let found = host.read().unwrap();
        let took = begun.elapsed();
        assert!(took < FORCED_IN, "{took:?}: {forced}");
        assert_eq!((&forced["changed"], &forced["serving"]), (&true.into(), &true.into()));
        until("its hook has moved the address", || b.has_been_told_of(&forced["tenure"]));
        let last = prefix(&found, &blocks, first, next);
        let is_lost = |&&(n, _): &&(u64, u64)| n > last;
        let lost: Vec<_> = load.acknowledged.iter().filter(is_lost).copied().collect();
        check_sheet(&b, &lost);
        let ready = Duration::from_nanos(forced["ready_after_ns"].as_u64().unwrap());
        println!(
            "round {round}: ready after {ready:?}, the command and a host's first read {took:?}, {} of {} writes lost",
            lost.len(),
            load.acknowledged.len()
        );
        assert!(!lost.is_empty(), "the line was slower than the host");
        blocks = found;

        let written = next..next + 200;
        written.clone().for_each(|n| host.write(n).unwrap());
        (blocks, next) = (after(&blocks, written.clone()), written.end);
        a.start();
        until("the lost site is back", || {
            b.status("/connected") == true && a.status("/role") == "fenced"
        });
        b.told(&["drain", "--timeout", "60s"], 0);
        let equal = b.told(&["compare"], 0);
        assert_eq!((&equal["different"], &equal["undecided"]), (&0.into(), &0.into()), "{equal}");
        // The content that only the lost site had is there, until it is removed.
        let files = a.told(&["salvage", "list"], 0)["files"].as_array().unwrap().clone();
        assert!(!files.is_empty());
        for file in files {
            let number = file["number"].to_string();
            assert_eq!(a.told(&["salvage", "remove", &number], 0)["changed"], false);
            assert_eq!(a.told(&["salvage", "remove", &number, "--yes"], 0)["changed"], true);
            a.told(&["salvage", "show", &number], 8);
        }
        a.told(&["takeover"], 0);
        assert_eq!(a.host().unwrap().read().unwrap(), blocks);
        a.told(&["drain", "--timeout", "60s"], 0);
    }
}

/// Hosts that are there before the force wait through it; without a word about the loss they are refused.
#[test]
fn hosts_wait_for_the_force_and_for_the_loss_to_be_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, b] = pair(scratch.path(), "5s");
    a.told(&["rate", "64KiB/s"], 0);
    load_until_lost(&mut a, 1, Duration::from_millis(100), 200);
    until("the loss is noticed", || b.status("/connected") == false);
    let socket = b.socket();
    let early = std::thread::spawn(move || Host::connect(&socket).map(drop));
    until("a host waits", || b.status("/hosts") == 1);
    assert!(b.text(&["takeover", "--force", "--yes"], 0).contains("refused until the loss is"));
    assert_eq!(b.status("/role"), "refusing");
    let refused = early.join().unwrap().unwrap_err().to_string();
    assert!(refused.contains("accept-loss"), "{refused}");

    let socket = b.socket();
    let late = std::thread::spawn(move || Host::connect(&socket)?.read());
    until("a host waits", || b.status("/hosts") == 1);
    assert!(b.text(&["accept-loss", "--dry-run"], 0).contains("nothing was changed"));
    assert_eq!(b.status("/role"), "refusing");
    b.told(&["accept-loss"], 0);
    late.join().unwrap().unwrap();
    assert_eq!(b.status("/role"), "serving");
    b.told(&["accept-loss"], 8);
    b.told(&["takeover", "--force", "--yes"], 8);
    let refused = b.answer("operate.sock", b"{\"order\": \"forget-peer\", \"yes\": true}\n");
    assert_eq!(refused["failed"]["exit"], 5, "{refused}");
}

#[test]
fn a_peer_that_is_there_is_neither_forced_nor_forgotten() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, b] = pair(scratch.path(), "1s");
    for device in [&a, &b] {
        let story = device.text(&["takeover", "--force", "--yes"], 5);
        assert!(story.contains("the peer is connected"), "{story}");
        device.told(&["force", "--yes"], 5);
        device.told(&["forget-peer", "--yes"], 5);
        device.told(&["resolve", "--yes"], 8);
        device.told(&["salvage", "remove", "0", "--yes"], 8);
        assert!(device.text(&["salvage", "list"], 0).contains("no salvage"));
        device.told(&["compare", "--volume", "wal"], 0);
        device.told(&["compare", "--volume", "sea"], 2);
    }
    assert_eq!(run(&["takeover", b.path(), "--yes"]).0, Some(2), "nothing is forced");
    assert_eq!(run(&["resolve", a.path(), b.path()]).0, Some(2), "a service looks at its own");
    a.kill();
    until("the loss is noticed", || b.status("/connected") == false);
    b.told(&["forget-peer", "--yes"], 9);
    b.told(&["compare"], 13);
    b.told(&["takeover", "--force", "--image", "last"], 11);
}

/// Both sites serve on alone; one history is kept, and the other device follows.
#[test]
fn of_two_histories_one_is_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, mut b] = pair(scratch.path(), "10s");
    let mut host = a.host().unwrap();
    (1..50).for_each(|n| host.write(n).unwrap());
    a.told(&["drain", "--timeout", "20s"], 0);
    a.kill();
    until("the loss is noticed", || b.status("/connected") == false);
    b.told(&["takeover", "--force", "--yes", "--accept-loss"], 0);
    b.host().unwrap().write(50).unwrap();
    b.kill();
    a.start();
    a.told(&["resume", "--alone"], 0);
    let mut host = a.host().unwrap();
    (60..70).for_each(|n| host.write(n).unwrap());
    b.start();
    until("they have met", || a.ask(&["resolve"]).0 == Some(0));
    a.told(&["resolve", "--keep", "2", "--yes"], 9);
    let shown = a.told(&["resolve", "--keep", "1"], 0);
    assert_eq!((&shown["changed"], &shown["kept"]["device"]), (&false.into(), &1.into()));
    host.write(70).unwrap();
    a.told(&["resolve", "--keep", "1", "--yes"], 0);
    assert!(host.write(71).is_err(), "hosts were hung up on");
    let mut host = a.host().unwrap();
    host.write(72).unwrap();
    until("the other one follows", || b.status("/connected") == true);
    a.told(&["drain", "--timeout", "20s"], 0);
    a.told(&["compare"], 0);
    let kept = after(&empty(), (1..50).chain(60..71).chain([72]));
    assert_eq!(host.read().unwrap(), kept);
    b.told(&["takeover"], 0);
    assert_eq!(b.host().unwrap().read().unwrap(), kept);
}

/// Another device takes the place of one that is lost for good, while hosts come and go.
#[test]
fn a_lost_device_is_replaced_without_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let [a, mut b] = pair(scratch.path(), "10s");
    let mut host = a.host().unwrap();
    (1..50).for_each(|n| host.write(n).unwrap());
    b.kill();
    until("the loss is noticed", || a.status("/connected") == false);
    a.told(&["invite"], 5);
    assert_eq!(a.told(&["forget-peer"], 0)["changed"], false);
    host.write(50).unwrap();
    assert_eq!(a.told(&["forget-peer", "--yes"], 0)["peer"], 2);
    let mut host = a.host().unwrap();
    host.write(51).unwrap();
    b.start();
    let invitation = a.told(&["invite"], 0)["invitation"].as_str().unwrap().to_owned();
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    let c = joined(scratch.path(), "c", "10s", (&address, &invitation));
    assert_eq!((c.status("/device"), b.status("/connected")), (3.into(), false.into()));
    a.told(&["drain", "--timeout", "20s"], 0);
    c.told(&["compare"], 0);
    c.told(&["takeover"], 0);
    assert_eq!(c.host().unwrap().read().unwrap(), after(&empty(), 1..52));
}
