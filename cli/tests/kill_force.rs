//! A site is lost, with real processes and directories: a replay is killed, and the device that the hosts were
//! not at is forced to take over, by `afterimage force`, which is killed at random moments and repeated. Hosts
//! write there; the lost device returns, by `afterimage recover`, killed and repeated as well, and takes the
//! host back. In one round of four it was resumed alone meanwhile, and `afterimage resolve` decides, killed
//! too.
//!
//! After each kill a force, or a resolution, is done as a whole or not at all. The hosts' writes that were
//! promised before the loss stand in the volumes or in salvage, those promised since in the volumes.
//!
//! `FORCE_ROUNDS=50` makes so many rounds, `FORCE_SEED=n` repeats one; `TMPDIR` says where.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::limits::Settings;
use afterimage::internal::storage::Directory;
use afterimage::internal::threads::Threads;
use afterimage_cli::replay::judge::{Claim, History};
use afterimage_cli::replay::pattern::{self, Origin, SECTOR};
use afterimage_cli::replay::requests::{self, Event};
use pair::step;

#[allow(dead_code)]
mod killed;
#[allow(dead_code)]
mod pair;
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
use killed::{
    afterimage, is_consistent, is_made, judge, judge_with_salvage, replay, run, superblock_of,
    text, trace,
};
use random::Random;

const WAYS: [&str; 4] = [
    "--takeover-at 35%,70% --link-rate 20MiB/s",
    "--journal-full suspend --outage 8%..30%,50%..65% --takeover-at 35%,70% --link-rate 40MiB/s",
    "--mode differential --takeover-at 35%,70% --link-rate 20MiB/s",
    "--journal-full suspend --takeover-at 25%,40%,60%,80% --link-rate 12MiB/s",
];

const BLOCK: u64 = 4096;

/// Blocks that hosts write at a time.
const FEW: u64 = 40;

/// A replay is killed within this time, and commands on both directories, and on one, within these.
const REPLAY_US: u64 = 1_500_000;
const COMMAND_US: [u64; 2] = [150_000, 25_000];

/// Of each command, how often it was killed, and how often what it does was done by then.
type Kills = BTreeMap<&'static str, (u64, u64)>;

fn open(dir: &Path) -> Arc<Device> {
    let storage = Arc::new(Directory::open(dir).unwrap());
    let settings = Settings { resume_order_after_ns: 0, ..Settings::default() };
    Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap()
}

/// The commands that are killed in a round, and what the hosts did in it.
struct Round<'a> {
    random: Random,
    events: Vec<Event>,
    kills: &'a mut Kills,
}

impl Round<'_> {
    /// Runs a command, and kills it at a random moment a few times, until `is_done`; its output once it ended.
    fn command(
        &mut self,
        words: &[&str],
        dirs: &[&Path],
        is_done: impl Fn() -> bool,
    ) -> Option<Output> {
        let most = COMMAND_US[usize::from(dirs.len() == 1)];
        for _ in 0..self.random.within(0..4) {
            let mut command = afterimage(words[0]);
            command.args(dirs).args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_micros(self.random.within(0..most)));
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.code().is_some() {
                return Some(output);
            }
            let name = ["force", "recover", "resolve"].into_iter().find(|name| *name == words[0]);
            let (kills, done) = self.kills.entry(name.unwrap()).or_default();
            *kills += 1;
            if is_done() {
                *done += 1;
                return None;
            }
        }
        Some(afterimage(words[0]).args(dirs).args(&words[1..]).output().unwrap())
    }

    /// Hosts write a few blocks at a device that serves, and make them durable.
    fn write(&mut self, device: &Arc<Device>) {
        let _ = device.accept_loss();
        let _threads = Threads::start(device).unwrap();
        let session = device.session().expect("it serves");
        let run = self.events.iter().find_map(|event| match event {
            Event::Begun { run, .. } => Some(*run),
            _ => None,
        });
        let volumes = device.geometry().volumes.clone();
        for _ in 0..FEW {
            let issued = |event: &Event| match event {
                Event::Issued { volume, sectors, .. } => Some((*volume, sectors.start)),
                _ => None,
            };
            let old: Vec<_> = self.events.iter().filter_map(issued).collect();
            let (volume, near) = old[self.random.within(0..old.len() as u64) as usize];
            let bytes = volumes.iter().find(|v| v.id == volume).unwrap().bytes;
            let block = (near * SECTOR as u64 / BLOCK).min(bytes / BLOCK - 1);
            let sector = block * BLOCK / SECTOR as u64;
            let write = old.len() as u32 + 1;
            let sectors = sector..sector + BLOCK / SECTOR as u64;
            let count = (BLOCK / SECTOR as u64) as u32;
            let run = run.expect("it has begun");
            let origin =
                Origin { run, volume, sector, write: write.into(), row: 0, index: 0, count };
            let mut data = vec![0; BLOCK as usize];
            pattern::fill(&mut data, origin);
            let (zero, durable) = (false, false);
            self.events.push(Event::Issued { write, volume, sectors, zero, durable });
            let stamp = session.write(volume, block * BLOCK, &data).unwrap();
            self.events.push(Event::Completed { write, stamp: Some(stamp) });
        }
        let flush = u64::MAX - self.events.len() as u64;
        self.events.push(Event::FlushIssued { flush });
        session.flush().unwrap();
        self.events.push(Event::Flushed { flush });
    }

    fn history(&self) -> History {
        History::of(&self.events)
    }

    /// The device at which the hosts are, as they know.
    fn host(&self) -> usize {
        let moved = self.events.iter().rev().find_map(|event| match event {
            Event::Moved { to, .. } | Event::Forced { to, .. } => Some(*to),
            _ => None,
        });
        moved.unwrap_or(0)
    }
}

/// One round; `None` if the replay was killed before there was a pair, or has ended.
fn round(trace: &Path, seed: u64, kills: &mut Kills) -> Option<(usize, Duration)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut random = Random::new(seed);
    let mut child = replay(trace, path, WAYS[seed as usize % WAYS.len()], seed);
    std::thread::sleep(Duration::from_micros(random.within(REPLAY_US / 10..REPLAY_US)));
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_none_or(|code| code == 0), "{}", text(&output));
    let dirs = ["a", "b"].map(|name| path.join("devices").join(name));
    let log = fs::read_to_string(path.join("log")).unwrap_or_default();
    let mut events = requests::parse(&log).unwrap();
    // Of what completed in a volatile cache, and was not promised, some may be gone.
    let then = History::of(&events);
    events.retain(|event| match event {
        Event::Completed { write, .. } => then.has_promised(*write),
        _ => true,
    });
    let is_write = |event: &Event| matches!(event, Event::Issued { .. });
    if !dirs.iter().all(|dir| is_made(dir)) || events.iter().filter(|e| is_write(e)).count() < 9 {
        return None;
    }
    let mut round = Round { random, events, kills };

    // The device that holds the host, or did last, is lost.
    let found = dirs.each_ref().map(|dir| superblock_of(dir));
    let lost = found.iter().position(|s| !s.fenced).unwrap_or(round.host());
    if round.host() != lost {
        round.events.push(Event::Moved { to: lost, epoch: found[lost].epoch });
    }
    let [lost_dir, dir] = [&dirs[lost], &dirs[1 - lost]];
    let mut parts = seed % 4 == 3;
    if parts {
        let alone = open(lost_dir);
        parts = alone.resume_alone().is_ok();
        if parts {
            round.write(&alone);
        }
        alone.close().unwrap();
    }

    // Forced, as a whole or not at all.
    let before = found[1 - lost].lineage;
    let is_forced = || {
        let found = superblock_of(dir);
        let is_forced = found.lineage != before;
        assert_eq!(is_forced, found.history.forced && !found.fenced && found.lost.is_none());
        is_forced
    };
    let words = ["force", "--yes", "--accept-loss", "--newest"];
    let words = if is_consistent(dir) { &words[..3] } else { &words[..] };
    let began = Instant::now();
    let output = round.command(words, &[dir], is_forced);
    let took = began.elapsed();
    if let Some(output) = output {
        let is_newest = output.status.code() == Some(11);
        let newest = ["force", "--yes", "--accept-loss", "--newest"];
        let output =
            if is_newest { round.command(&newest, &[dir], is_forced) } else { Some(output) };
        let done = output.as_ref().is_none_or(|output| output.status.success());
        assert!(done, "{}", text(&output.unwrap()));
    }
    assert!(is_forced(), "it is forced");
    let sheet = dir.join(format!("loss-{}.json", before.0 + 1));
    let sheet: serde_json::Value = serde_json::from_slice(&fs::read(sheet).unwrap()).unwrap();
    assert!(sheet["told"].is_array(), "{sheet}");
    let again = run("force", &[dir]);
    assert_eq!(again.0, Some(8), "{}", again.1);
    round.events.push(Event::Forced { to: 1 - lost, epoch: superblock_of(dir).epoch });

    // Hosts write there.
    let forced = open(dir);
    round.write(&forced);
    if parts {
        let alone = open(lost_dir);
        [&forced, &alone].iter().for_each(|device| drop(device.status()));
        // The one that hears of the other first hangs up, perhaps before the other has heard.
        let has_met = || superblock_of(dir).history.other.is_some();
        for devices in [[&forced, &alone], [&alone, &forced]].into_iter().cycle().take(10) {
            if !has_met() {
                step(devices, 20, has_met);
            }
        }
        alone.close().unwrap();
    }
    if round.random.once_in(2) {
        forced.close().unwrap();
    }
    drop(forced);
    if parts {
        let before = superblock_of(dir).lineage;
        let is_resolved = || superblock_of(dir).lineage != before;
        if let Some(output) = round.command(&["resolve", "--yes"], &[dir], is_resolved) {
            assert!(output.status.success(), "{}", text(&output));
        }
        assert!(is_resolved(), "it is resolved");
    }

    // The lost device returns.
    if let Some(output) = round.command(&["recover"], &[dir, lost_dir], || false) {
        assert!(output.status.success(), "{}", text(&output));
    }
    let check = |history: &History| {
        let (code, story) = run("verify", &[dir, lost_dir]);
        assert_eq!(code, Some(0), "{story}");
        judge(dir, history, Claim::Promised);
        judge(lost_dir, history, Claim::Promised);
        judge_with_salvage([dir, lost_dir], history);
    };
    check(&round.history());

    // It takes the host back.
    let devices = [open(dir), open(lost_dir)];
    let [forced, returned] = &devices;
    let mut asks = false;
    step([forced, returned], 10_000, || {
        asks = asks || returned.status().connected && returned.begin_takeover().is_ok();
        returned.poll_takeover().is_some_and(|taken| taken.is_ok())
    });
    round.events.push(Event::Moved { to: lost, epoch: returned.status().epoch });
    round.write(returned);
    devices.iter().for_each(|device| device.close().unwrap());
    drop(devices);
    if let Some(output) = round.command(&["recover"], &[dir, lost_dir], || false) {
        assert!(output.status.success(), "{}", text(&output));
    }
    check(&round.history());
    Some((round.history().promised(), took))
}

#[test]
fn a_site_is_lost_and_comes_back_though_commands_are_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let trace = trace(directory.path());
    let rounds = number("FORCE_ROUNDS").unwrap_or(8);
    let seeds = match number("FORCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..2 * rounds + 8,
    };
    let alone = seeds.end - seeds.start == 1;
    let (mut kills, mut done, mut promised, mut longest) = (Kills::new(), 0, 0, Duration::ZERO);
    for seed in seeds {
        if done == rounds {
            break;
        }
        let outcome = std::panic::catch_unwind(|| {
            let mut kills = Kills::new();
            (round(&trace, seed, &mut kills), kills)
        });
        let Ok((outcome, more)) = outcome else { panic!("FORCE_SEED={seed}") };
        let Some((kept, took)) = outcome else { continue };
        (done, promised, longest) = (done + 1, promised + kept, longest.max(took));
        for (name, (killed, was_done)) in more {
            let all = kills.entry(name).or_default();
            (all.0, all.1) = (all.0 + killed, all.1 + was_done);
        }
    }
    eprintln!(
        "{done} rounds; killed, and done by then: {kills:?}; forced within {longest:?}, with its kills; \
         {promised} promises were kept"
    );
    assert!(alone || done == rounds, "{done} of {rounds} rounds");
}
