//! A random walk over a pair, from a seed: everything a host, a link and a clock can do to it, step
//! by step, held against a slow obvious oracle after every step.
//!
//! The checks: every read, the order of the stamps, both normal volumes as prefixes of history
//! ([`common`]); the location table kept by the seed's rules against the location derived (I6); at
//! rest, one device serves, all requests have ended, both devices hold the same (I14).
//!
//! `SEED=n cargo test -p afterimage --test random_pair` walks one seed again and tells each move;
//! `WALKS=n` walks more seeds; `SCRIPT=file` walks what a fuzzer found.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::{Durability, Settings};
use afterimage::internal::link::Lane;
use common::kept::KeptTable;
use common::random::Random;
use common::{A, Action, B, Pair, Spec, Step};
use std::ops::Range;

const WALKS: u64 = 300;
const MOVES: u64 = 400;

#[test]
fn random_walks() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect(name));
    let one = number("SEED");
    let seeds = one.map_or(0..number("WALKS").unwrap_or(WALKS), |seed| seed..seed + 1);
    let mut seen = Seen::default();
    for seed in seeds {
        let on_panic = Tell(seed);
        Walk::new(Random::new(seed), one.is_some(), &mut seen).run();
        std::mem::forget(on_panic);
    }
    if one.is_none() {
        println!("{seen:?}");
        let Seen { takeovers, crossed, remote_reads, waited, fenced, stale } = seen;
        let all = [takeovers, crossed, remote_reads, waited, fenced, stale];
        assert!(all.iter().all(|&n| n > 0), "something never happened: {seen:?}");
    }
}

/// A walk that `bytes` choose: the body of the fuzz target `operations`.
pub fn scripted_walk(bytes: &[u8]) {
    let tells = std::env::var_os("SCRIPT").is_some();
    Walk::new(Random::scripted(bytes), tells, &mut Seen::default()).run();
}

#[test]
fn scripted_walks() {
    if let Some(script) = std::env::var_os("SCRIPT") {
        return scripted_walk(&std::fs::read(script).expect("SCRIPT names a file"));
    }
    let mut random = Random::new(1);
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..random.within(0..2000)).map(|_| random.next() as u8).collect();
        scripted_walk(&bytes);
    }
}

/// Names the seed if its walk fails.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        println!("SEED={}", self.0);
    }
}

/// The cases that the walks have come by.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    takeovers: u64,
    crossed: u64,
    remote_reads: u64,
    /// Writes that waited, for the peer or for a place, and were completed.
    waited: u64,
    /// Requests that a fence ended.
    fenced: u64,
    /// Writes while another one of the same block was waiting.
    stale: u64,
}

struct Walk<'a> {
    random: Random,
    pair: Pair,
    seen: &'a mut Seen,
    tells: bool,
    value: u64,
    /// Host times begin here; the hosts' clocks are this far apart.
    now: u64,
    skew: [u64; 2],
    /// Requests under way.
    names: Vec<(u64, Action)>,
    /// The location table of the device that serves, and where that stands.
    kept: Option<KeptTable>,
}

impl Walk<'_> {
    fn new(mut random: Random, tells: bool, seen: &mut Seen) -> Walk<'_> {
        let block_size = random.pick(&[512, 1024, 2048, 4096]);
        let block_sectors = u64::from(block_size) / 512;
        let never = u64::MAX / 2;
        let settings = Settings {
            durability: random.pick(&[
                Durability::VolatileCache,
                Durability::VolatileCache,
                Durability::Strict,
                Durability::Never,
            ]),
            remote_read_timeout_ns: never,
            admit_timeout_ns: never,
            takeover_timeout_ns: never,
            ship_bytes_max: random.pick(&[1, 4096, 1 << 18]),
            ..Settings::default()
        };
        // Neither volume ends with a whole block, and the second has more than a segment.
        let second = if random.once_in(4) { 150 } else { 6 * block_sectors };
        let volumes = vec![8 * block_sectors + block_sectors / 2, second];
        let journals = [random.pick(&[1.0, 1.0, 1.3, 4.0]), random.pick(&[1.0, 1.0, 1.3, 4.0])];
        let spec = Spec { block_size, volumes, journals, settings, ..Spec::default() };
        let skew = [random.within(0..1000), random.within(0..1000)];
        Walk {
            pair: Pair::with(spec),
            random,
            seen,
            tells,
            value: 0,
            now: 1000,
            skew,
            names: Vec::new(),
            kept: None,
        }
    }

    fn run(mut self) {
        for _ in 0..MOVES {
            if self.random.is_spent() {
                break;
            }
            self.move_once();
            if self.random.once_in(150) {
                self.rest();
            }
        }
        self.rest();
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{}", what());
        }
    }

    fn serving(&self) -> Option<usize> {
        [A, B].into_iter().find(|&at| self.pair.devices[at].status().serving)
    }

    fn move_once(&mut self) {
        self.now += self.random.within(0..20);
        match self.random.within(0..100) {
            0..35 if self.pair.waiting() < 8 => self.request(),
            0..88 => self.step(),
            88..91 => self.ask(),
            91..97 => {
                let from = self.random.pick(&[A, B]);
                let lane = self.random.pick(&[Lane::Data, Lane::Data, Lane::Control]);
                let on = self.random.once_in(if lane == Lane::Data { 2 } else { 8 });
                self.tell(|| format!("hold {from} {lane:?} {on}"));
                self.pair.hold(from, lane, on);
            }
            97..99 => {
                let at = self.random.pick(&[A, B]);
                let wall = self.random.within(0..2 * self.now);
                self.pair.clocks[at].set_wall(wall);
                self.pair.clocks[at].pass(1000);
            }
            _ if self.random.once_in(4) => self.cut(),
            _ => {}
        }
        self.observe();
    }

    fn step(&mut self) {
        use Step::*;
        let all = [
            Commit, Sequence, Ship, Receive, Control, Control, Control, Reflect, Reflect,
            Checkpoint,
        ];
        let (at, step) = (self.random.pick(&[A, B]), self.random.pick(&all));
        let step = if step == Reflect && self.random.once_in(4) { ReflectAll } else { step };
        self.tell(|| format!("{at} {step:?}"));
        self.pair.step(at, step);
    }

    /// Either device asks for the host; both, at times.
    fn ask(&mut self) {
        for at in self.random.pick(&[&[A][..], &[B], &[A, B], &[B, A]]) {
            let asked = self.pair.devices[*at].begin_takeover();
            self.tell(|| format!("{at} asks: {asked:?}"));
            if let Err(error) = asked {
                assert!(matches!(error.kind(), Kind::Invalid | Kind::NoPeer), "{error}");
            }
        }
    }

    /// The line is cut and restored, and the devices connect again.
    fn cut(&mut self) {
        self.tell(|| "cut".into());
        self.pair.ends[A].cut();
        for at in [A, B] {
            // The frames that had arrived, and then the news.
            for _ in 0..=self.pair.ends[A + B - at].in_flight(Lane::Control) {
                self.pair.step(at, Step::Control);
            }
            self.pair.steps(at, &[Step::Receive; 2]);
            for lane in [Lane::Control, Lane::Data] {
                self.pair.hold(at, lane, false);
            }
        }
        self.pair.ends[A].restore();
        self.pair.connect();
    }

    fn request(&mut self) {
        let at = match self.serving() {
            Some(at) if !self.random.once_in(20) => at,
            None if !self.random.once_in(8) => return self.step(),
            _ => self.random.pick(&[A, B]),
        };
        let volume = self.random.within(0..2) as u32;
        let sectors = self.range(volume, at);
        self.value += 1;
        let action = match self.random.within(0..20) {
            0..6 => Action::Read(sectors),
            6 => Action::Flush,
            7 => Action::Discard(sectors),
            8 if self.one_part(&sectors) => Action::Zeroes(sectors),
            _ => Action::Write(sectors, self.value),
        };
        let time = match self.random.within(0..8) {
            0 => None,
            1 => Some(u64::MAX - self.now),
            2 => Some(self.now / 100 * 100),
            _ => Some(self.now + self.skew[at] - self.random.within(0..50)),
        };
        let fua = self.random.once_in(8);
        let name = self.pair.submit_as(at, volume, action.clone(), time, fua, false);
        self.tell(|| format!("{at} #{name} {action:?} of {volume} at {time:?} fua {fua}"));
        let writes = matches!(action, Action::Write(..));
        if writes && !self.pair.is_pending(name) {
            let touched = |(other, earlier): &&(u64, Action)| {
                let meets = matches!(earlier, Action::Write(..));
                meets && self.pair.is_pending(*other)
            };
            self.seen.stale += u64::from(self.names.iter().any(|n| touched(&n)));
        }
        self.names.push((name, action));
    }

    /// Sectors of a volume within what a request may have: whole blocks as often as not.
    fn range(&mut self, volume: u32, at: usize) -> Range<u64> {
        let limits = self.pair.devices[at].limits();
        let size = self.pair.spec.volumes[volume as usize];
        let most = (limits.request_bytes_max / 512).min(size);
        let block = u64::from(limits.block_size) / 512;
        let length = 1 + self.random.within(0..most.min(3 * block));
        let start = self.random.within(0..size - length + 1);
        if self.random.once_in(2) {
            return start..start + length;
        }
        let start = start / block * block;
        start..(start + length.next_multiple_of(block).min(most / block * block)).min(size)
    }

    /// Whether zeros there are one request: the history is told only of the last.
    fn one_part(&self, sectors: &Range<u64>) -> bool {
        let block = u64::from(self.pair.spec.block_size) / 512;
        let within = sectors.start / block == (sectors.end - 1) / block;
        within || sectors.start.is_multiple_of(block) && sectors.end.is_multiple_of(block)
    }

    /// Looks at everything that may have moved.
    fn observe(&mut self) {
        for at in [A, B] {
            match self.pair.devices[at].poll_takeover() {
                Some(Ok(takeover)) => {
                    self.tell(|| format!("{at} serves: {takeover:?}"));
                    self.seen.takeovers += 1;
                }
                Some(Err(error)) => {
                    assert_eq!(error.kind(), Kind::NotReady, "{error}");
                    self.tell(|| format!("{at} lost"));
                    self.seen.crossed += 1;
                }
                None => {}
            }
        }
        for (name, action) in std::mem::take(&mut self.names) {
            match self.pair.outcome(name) {
                None => self.names.push((name, action)),
                Some(Ok(outcome)) => {
                    let remote = outcome.remote_blocks > 0;
                    match action {
                        Action::Read(_) => self.seen.remote_reads += u64::from(remote),
                        _ => self.seen.waited += u64::from(remote),
                    }
                }
                Some(Err(error)) => {
                    let kinds = [Kind::Fenced, Kind::NotReady, Kind::NotProven];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    self.seen.fenced += 1;
                }
            }
        }
        let serving = self.serving();
        self.kept = match (serving, self.kept.take()) {
            (None, _) => None,
            (Some(at), Some(table)) if table.is_of(&self.pair, at) => {
                Some(table.follow(&self.pair))
            }
            (Some(at), _) => Some(KeptTable::new(&self.pair, at)),
        };
    }

    /// Everything is let go and comes to an end; sometimes both devices are closed then.
    fn rest(&mut self) {
        self.tell(|| "rest".into());
        self.pair.drain();
        // Too many steps at once for the kept table: it begins anew.
        self.kept = None;
        self.observe();
        assert!(self.names.is_empty(), "{:?} never end", self.names);
        assert!(self.serving().is_some(), "of two that ask, one gets the host");
        for (volume, &sectors) in (0..).zip(&self.pair.spec.volumes.clone()) {
            let at = self.serving().unwrap();
            let name = self.pair.submit(at, volume, Action::Read(sectors - 1..sectors));
            assert_eq!(self.pair.outcome(name).unwrap().unwrap().remote_blocks, 0);
        }
        if self.random.once_in(3) {
            self.tell(|| "reopen".into());
            self.pair.reopen();
        }
        self.kept = None;
        self.observe();
    }
}
