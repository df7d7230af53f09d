//! The example `tcp_pair`: two processes, killed and started again under a checked load with
//! takeovers. `TCP_PAIR_KILLS` says how often (4 unless it does).
#![cfg(not(loom))]

#[path = "../examples/tcp_pair.rs"]
mod tcp_pair;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const BLOCKS: u64 = 64;

/// The process of a device, if this was started as one; no test.
#[test]
fn device() {
    let Ok(arguments) = std::env::var("TCP_PAIR_DEVICE") else { return };
    let arguments: Vec<String> = arguments.split('\n').map(str::to_owned).collect();
    tcp_pair::run(&arguments).expect("the device runs");
}

struct Device {
    arguments: String,
    child: Child,
    answers: Receiver<String>,
}

impl Device {
    fn start(arguments: &str) -> Device {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device", "--nocapture"])
            .env("TCP_PAIR_DEVICE", arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (give, answers) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once("> ")
                    && give.send(answer.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let device = Device { arguments: arguments.to_owned(), child, answers };
        assert_eq!(device.answer().as_deref(), Some("open"));
        device
    }

    /// `None` if it died first.
    fn answer(&self) -> Option<String> {
        match self.answers.recv_timeout(Duration::from_secs(60)) {
            Ok(answer) => Some(answer),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(_) => panic!("no answer for a minute"),
        }
    }

    fn ask(&mut self, command: &str) {
        // One that has died does not take it, and gives no answer.
        let _ = writeln!(self.child.stdin.as_mut().unwrap(), "{command}");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// A host: it goes to the device that serves.
struct Host {
    devices: [Device; 2],
    at: usize,
    /// The values that each block may hold: several after a write whose answer nobody has heard.
    held: Vec<Vec<u64>>,
}

impl Host {
    /// Asks whoever serves, until somebody answers `wanted`.
    fn insist(&mut self, command: &str, wanted: &str) -> String {
        let since = Instant::now();
        loop {
            self.devices[self.at].ask(command);
            let answer = self.devices[self.at].answer().expect("it runs");
            if let Some(answer) = answer.strip_prefix(wanted) {
                return answer.trim().to_owned();
            }
            let retryable =
                ["Fenced", "NotProven", "NotReady", "NoPeer", "Timeout", "JournalFull", "Busy"];
            assert!(retryable.iter().any(|kind| answer.starts_with(kind)), "{command}: {answer}");
            assert!(since.elapsed() < Duration::from_secs(60), "{command}: {answer} for a minute");
            if answer.starts_with("Fenced") || answer.starts_with("NotProven") {
                self.at = 1 - self.at;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn check(&mut self, block: u64) {
        let found: u64 = self.insist(&format!("read {block}"), "read").parse().unwrap();
        let held = &mut self.held[block as usize];
        assert!(held.contains(&found), "block {block} holds {found}, not one of {held:?}");
        *held = vec![found];
    }
}

#[test]
fn a_pair_survives_kills() {
    let kills: u64 = std::env::var("TCP_PAIR_KILLS").map_or(4, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    // A port that was free just now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = |id: usize, role: &str, way: &str| {
        let path = scratch.path().join(id.to_string());
        format!("{}\n{id}\n{role}\n{way}\n127.0.0.1:{port}", path.display())
    };
    let devices = [arguments(1, "active", "accept"), arguments(2, "passive", "dial")]
        .map(|a| Device::start(&a));
    let mut host = Host { devices, at: 0, held: vec![vec![0]; BLOCKS as usize] };
    let (mut random, mut value, mut takeovers) = (Random(7), 0, 0);
    for kill in 0..kills {
        for _ in 0..60 {
            value += 1;
            let block = random.below(BLOCKS);
            match random.below(10) {
                0..6 => {
                    host.insist(&format!("write {block} {value}"), "written");
                    host.held[block as usize] = vec![value];
                }
                6..9 => host.check(block),
                _ => {
                    let to = 1 - host.at;
                    host.devices[to].ask("takeover");
                    let answer = host.devices[to].answer().expect("it runs");
                    takeovers += u64::from(answer.starts_with("serves"));
                    assert!(!answer.starts_with("Halted"), "{answer}");
                }
            }
        }
        // One of the two dies while the one that serves has a write under way.
        let (block, victim) = (random.below(BLOCKS), random.below(2) as usize);
        value += 1;
        let at = host.at;
        host.devices[at].ask(&format!("write {block} {value}"));
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        host.devices[victim].kill();
        match host.devices[at].answer() {
            Some(answer) if answer == "written" => host.held[block as usize] = vec![value],
            _ => host.held[block as usize].push(value),
        }
        let again = host.devices[victim].arguments.clone();
        host.devices[victim] = Device::start(&again);
        host.check(block);
        println!("kill {kill} of device {}: all is well", victim + 1);
    }
    (0..BLOCKS).for_each(|block| host.check(block));
    assert!(takeovers > 0 || kills == 0, "no takeover came to its end");
    println!("{kills} kills, {takeovers} takeovers");
}
