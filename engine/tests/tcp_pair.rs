//! The example `tcp_pair`: two processes, killed and started again under a checked load with
//! takeovers. `TCP_PAIR_KILLS` says how often (4 unless it does).
#![cfg(not(loom))]

#[path = "../examples/tcp_pair.rs"]
mod tcp_pair;

use afterimage::{Directory, Settings, SystemClock};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
            .env("TCP_PAIR_SILENCE_MS", "2000")
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

/// A host of a new pair: the active device accepts at the first port, the other dials the second.
fn pair(scratch: &Path, ports: [u16; 2]) -> Host {
    let start = |at: usize, role: &str, way: &str| {
        let path = scratch.join((at + 1).to_string());
        let (path, id, port) = (path.display(), at + 1, ports[at]);
        Device::start(&format!("{path}\n{id}\n{role}\n{way}\n127.0.0.1:{port}"))
    };
    let devices = [start(0, "active", "accept"), start(1, "passive", "dial")];
    Host { devices, at: 0, held: vec![vec![0]; BLOCKS as usize] }
}

/// A port that was free just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Between the two devices: it carries what they say, until it is cut.
struct Proxy {
    port: u16,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let cuts = proxy.cuts.clone();
        std::thread::spawn(move || {
            for dialled in listener.incoming().flatten() {
                let Ok(onwards) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let two =
                    |stream: &TcpStream| [stream.try_clone().unwrap(), stream.try_clone().unwrap()];
                let ([a, b], [c, d]) = (two(&dialled), two(&onwards));
                let born = cuts.load(Ordering::SeqCst);
                for (from, to) in [(a, c), (d, b)] {
                    let cuts = cuts.clone();
                    std::thread::spawn(move || {
                        carry(from, to, || cuts.load(Ordering::SeqCst) > born)
                    });
                }
            }
        });
        proxy
    }

    /// From now on it swallows, without a word, what comes over the connections that there are, their
    /// ends included. New ones can be made.
    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: impl Fn() -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if !is_cut() && to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    if is_cut() {
        std::mem::forget((from, to)); // closed with the process
    } else {
        let _ = to.shutdown(std::net::Shutdown::Both); // it may be down already
    }
}

/// A device waited for ever for a peer that was gone without a word.
#[test]
fn a_silent_peer_is_given_up() {
    let scratch = tempfile::tempdir().unwrap();
    let port = free_port();
    let proxy = Proxy::to(port);
    let mut host = pair(scratch.path(), [port, proxy.port]);
    host.insist("write 0 1", "written");
    // The active device loses its power: the other, which dials, hears nothing of it.
    proxy.cut();
    host.devices[0].kill();
    let again = host.devices[0].arguments.clone();
    host.devices[0] = Device::start(&again);
    host.insist("write 0 2", "written");
    // A firewall forgets the connections: both are there, and neither hears the other.
    proxy.cut();
    host.devices[1].ask("takeover");
    let answer = host.devices[1].answer().expect("it runs");
    assert!(answer.starts_with("serves"), "{answer}");
    assert_eq!(host.insist("read 0", "read"), "2");
}

/// After a crash that may have lost writes nobody was able to let hosts in again.
#[test]
fn a_loss_is_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut host = pair(scratch.path(), [port, port]);
    host.insist("write 0 1", "written");
    host.devices[0].kill();
    let storage = Directory::open(scratch.path().join("1")).unwrap();
    let clock = Arc::new(SystemClock::default());
    let settings = Settings::default();
    let device = afterimage::Device::open(Arc::new(storage), clock, settings).unwrap();
    // It serves, its writes need not reach the log file, and it is not closed.
    device.resume_alone().unwrap();
    drop(device);
    let again = host.devices[0].arguments.clone();
    host.devices[0] = Device::start(&again);
    host.insist("write 0 2", "LostWrites");
    host.devices[0].ask("accept");
    assert_eq!(host.devices[0].answer().as_deref(), Some("accepted"));
    host.insist("write 0 2", "written");
}

#[test]
fn a_pair_survives_kills() {
    let kills: u64 = std::env::var("TCP_PAIR_KILLS").map_or(4, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut host = pair(scratch.path(), [port, port]);
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
