//! Two daemons, the line between them, and orders to them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{ALL, Kills, State};
use super::host::{Connection, VOLUMES};
use super::plan::Make;
use super::served::proxy::Proxy;
use super::served::{afterimage, run, run_with};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    dirs: [PathBuf; 2],
    pub sockets: [PathBuf; 2],
    configs: [PathBuf; 2],
    log: PathBuf,
    pub daemons: [Option<Child>; 2],
    pub proxy: Proxy,
    /// The clock of all times.
    pub began: Instant,
    /// Kills since they were last asked for.
    pub kills: Kills,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl World {
    /// A pair in the folder `at`.
    pub fn make(at: &Path, make: &Make) -> World {
        let [dirs, sockets, configs] =
            ["", ".nbd", ".toml"].map(|end| ["a", "b"].map(|name| at.join(format!("{name}{end}"))));
        // Free, and nobody else asks for it.
        let listens: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = Proxy::new(listens);
        let Make { is_shared, suspend_after_ms, pacing_ms, reads_wait_ms, .. } = make;
        for which in [0, 1] {
            let line = match which {
                0 => format!("listen = \"{listens}\""),
                _ => format!("peer = \"{}\"", proxy.address),
            };
            let exports =
                VOLUMES.map(|name| format!("[hosts.exports.{name}]\nshared = {is_shared}\n"));
            let settings = format!(
                "[link]\n{line}\n[hosts]\nnbd = [\"unix:{}\"]\npatience = \"300ms\"\n{}[device]\nsuspend-after = \
                 \"{suspend_after_ms}ms\"\npacing-max = \"{pacing_ms}ms\"\ntakeover-timeout = \"2s\"\n\
                 remote-read-timeout = \"{reads_wait_ms}ms\"\nadmit-timeout = \"1s\"\nresume-order-after = \"50ms\"\n\
                 [control]\nforce = \"0600\"\n",
                text(&sockets[which]),
                exports.concat()
            );
            fs::write(&configs[which], settings).unwrap();
        }
        let mode = if make.is_differential { "differential" } else { "ordered" };
        let mut words = vec!["init", text(&dirs[0]), "--journal", "8MiB", "--mode", mode];
        let volumes = VOLUMES.map(|name| format!("{name}=1MiB"));
        volumes.iter().for_each(|volume| words.extend(["--volume", volume]));
        let (code, invitation, story) = run(&words);
        assert_eq!(code, Some(0), "{story}");
        let log = at.join("log");
        let daemons = [None, None];
        let (began, kills) = (Instant::now(), Kills::default());
        let mut world = World { dirs, sockets, configs, log, daemons, proxy, began, kills };
        world.start(0);
        let address = world.proxy.address.to_string();
        let (code, _, story) = run_with(&["join", text(&world.dirs[1]), &address], &invitation);
        assert_eq!(code, Some(0), "{story}");
        world.start(1);
        world
    }

    pub fn start(&mut self, at: usize) {
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let words = ["serve", text(&self.dirs[at]), "--config", text(&self.configs[at])];
        self.daemons[at] = Some(afterimage(&words).stderr(log).spawn().unwrap());
        self.until(&format!("device {at} starts"), |world| {
            let ended = world.daemons[at].as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "device {at} does not start: {ended:?}: {}", world.told());
            world.status(at).is_some()
        });
    }

    /// The last complaints of the daemons.
    pub fn told(&self) -> String {
        let told = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = told.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub fn kill(&mut self, at: usize) {
        if let Some(mut daemon) = self.daemons[at].take() {
            let early = daemon.try_wait().unwrap();
            assert!(early.is_none(), "device {at} has ended by itself: {early:?}: {}", self.told());
            let from = self.began.elapsed();
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            let until = self.began.elapsed();
            self.kills[at].push((from.as_nanos() as u64, until.as_nanos() as u64));
        }
    }

    pub fn signal(&self, at: usize, signal: &str) {
        if let Some(daemon) = &self.daemons[at] {
            let mut kill = std::process::Command::new("kill");
            assert!(kill.args([signal, &daemon.id().to_string()]).status().unwrap().success());
        }
    }

    /// Closes it; it must end well.
    pub fn stop(&mut self, at: usize) {
        self.signal(at, "-TERM");
        if let Some(mut daemon) = self.daemons[at].take() {
            let begun = Instant::now();
            let ended = loop {
                if let Some(ended) = daemon.try_wait().unwrap() {
                    break ended;
                }
                if begun.elapsed() > PATIENCE {
                    self.daemons[at] = Some(daemon);
                    panic!("device {at} does not close: {}", self.told());
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            assert!(ended.success(), "device {at} closes badly: {ended}: {}", self.told());
        }
    }

    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut World) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > PATIENCE {
                let states = [0, 1].map(|at| self.status(at));
                panic!("not within {PATIENCE:?}: {what}: {states:#?}\n{}", self.told());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends an order to the service, as its command does.
    pub fn send(&self, at: usize, socket: &str, order: &str) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(self.dirs[at].join(socket)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(order.as_bytes()).ok()?;
        stream.write_all(b"\n").ok()?;
        Some(stream)
    }

    pub fn status(&self, at: usize) -> Option<Value> {
        let stream = self.send(at, "see.sock", "{\"order\": \"status\"}")?;
        Some(answer(stream)?["done"]["document"].clone())
    }

    /// The device that serves.
    pub fn serving(&self) -> Option<usize> {
        [0, 1].into_iter().find(|&at| self.status(at).is_some_and(|it| it["role"] == "serving"))
    }

    /// The values of all sectors, at the device `at`.
    pub fn state(&mut self, at: usize) -> State {
        let mut state = State::new();
        for volume in VOLUMES {
            let begun = Instant::now();
            loop {
                let read =
                    Connection::open(&self.sockets[at], volume).and_then(|mut it| it.read_all());
                match read {
                    Ok(values) => break state.extend(values),
                    Err(why) => assert!(
                        begun.elapsed() < PATIENCE,
                        "device {at} cannot be read: {why}: {:#?}",
                        self.status(at)
                    ),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert_eq!(state.len() as u64, ALL);
        state
    }

    /// The closed devices are the same.
    pub fn compare(&mut self) {
        let (code, told, story) = run(&["verify", text(&self.dirs[0]), text(&self.dirs[1])]);
        assert_eq!(code, Some(0), "{told}{story}");
    }

    /// Forces the closed device `at` to take over; what it then has.
    pub fn force(&mut self, at: usize) -> Forced {
        let words = ["force", text(&self.dirs[at]), "--yes", "--accept-loss"];
        match run(&words) {
            (Some(0), ..) => Forced::Earlier,
            (Some(8), ..) => Forced::LacksNothing,
            (Some(11), ..) => {
                let (code, told, story) = run(&[&words[..], &["--newest"]].concat());
                assert_eq!(code, Some(0), "{told}{story}");
                Forced::Mixture
            }
            (code, told, story) => panic!("force ends with {code:?}: {told}{story}"),
        }
    }

    /// No daemon has panicked.
    pub fn check_log(&self) {
        let told = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!told.contains("panicked"), "{told}");
    }
}

/// The outcome of a force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    Earlier,
    /// The volumes were no state that the data ever had.
    Mixture,
    /// It is resumed, as there is nothing to lose.
    LacksNothing,
}

/// The last line of an answer.
pub fn answer(stream: UnixStream) -> Option<Value> {
    let line = BufReader::new(stream).lines().map_while(Result::ok).last()?;
    serde_json::from_str(&line).ok()
}

impl Drop for World {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
