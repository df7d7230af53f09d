//! Torture: two daemons, encrypted, and hosts at both by NBD; at random, from one seed that repeats the plan: kills of
//! either, restarts, devices that stand still, takeovers, also crossing, handovers, a line that is cut at any byte, down,
//! silent or slow, suspensions; the loss of the device that serves, the other one forced, the lost one back.
//!
//! The check trusts nothing but what hosts sent, got, and when: each sector has one history
//! (`engine/tests/common/linearizable.rs`). After a force the data are an earlier state of all volumes together, and
//! nothing that it lost comes back.
//!
//! With `REAL_PARTS=1`; `TORTURE` says how many rounds (8), `TORTURE_SEED` which first (1).

#[allow(dead_code)]
#[path = "../served/mod.rs"]
mod served;

#[allow(dead_code)]
#[path = "../../../engine/tests/common/linearizable.rs"]
mod linearizable;
#[allow(dead_code)]
#[path = "../../../engine/tests/common/random.rs"]
mod random;

mod history;
mod host;
mod plan;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use history::{ALL, Histories, State};
use host::{Host, VOLUMES};
use plan::{Event, Make, Plan};
use random::Random;
use served::parts::{number, real_parts};
use served::proxy::Weather;
use world::{Forced, World, answer};

/// Hosts of each volume.
const HOSTS: u64 = 3;

/// Rounds of one pair.
const ROUNDS: u64 = 8;

/// Counts of all that the rounds came by.
#[derive(Default, Debug)]
struct Seen {
    reads_and_writes: usize,
    unanswered: usize,
    taken_back: usize,
    refused: u64,
    connections: u64,
    events: BTreeMap<String, u64>,
}

impl Seen {
    fn count(&mut self, what: impl Into<String>) {
        *self.events.entry(what.into()).or_default() += 1;
    }
}

struct Torture {
    world: World,
    make: Make,
    state: State,
    hosts_so_far: u64,
    orders: Vec<std::thread::JoinHandle<String>>,
}

#[test]
fn hosts_see_one_history_whatever_happens() {
    if !real_parts() {
        eprintln!("SKIPPED: it runs with REAL_PARTS=1");
        return;
    }
    let (first, rounds) = (number("TORTURE_SEED", 1), number("TORTURE", 8));
    let (begun, mut seen) = (Instant::now(), Seen::default());
    let last = first + rounds;
    let mut seed = first;
    while seed < last {
        // The pair has a seed of its own, by which each of its rounds can be told apart.
        let make = Make::draw(&mut Random::new(seed));
        let scratch = tempfile::tempdir().unwrap().keep();
        println!("seed {seed}: {make:?} in {}", scratch.display());
        let mut torture = Torture {
            world: World::make(&scratch, &make),
            make,
            state: vec![0; ALL as usize],
            hosts_so_far: 0,
            orders: Vec::new(),
        };
        let mut was_forced = false;
        for round in seed..last.min(seed + ROUNDS) {
            let mut plan = Plan::draw(&mut Random::new(round << 20));
            // A returned device has the state of before until its resync ends.
            plan.is_forced &= !was_forced;
            was_forced = plan.is_forced;
            println!("round {round}: {plan:?}");
            torture.round(round, &plan, &mut seen);
        }
        torture.world.check_log();
        drop(torture);
        std::fs::remove_dir_all(&scratch).unwrap();
        seed += ROUNDS;
    }
    println!("{rounds} rounds in {:.0} s: {seen:#?}", begun.elapsed().as_secs_f64());
}

impl Torture {
    fn round(&mut self, round: u64, plan: &Plan, seen: &mut Seen) {
        let (stop, began) = (AtomicBool::new(false), self.world.began);
        let hosts: Vec<Host> = (0..HOSTS * VOLUMES.len() as u64)
            .map(|number| {
                self.hosts_so_far += 1;
                Host {
                    id: self.hosts_so_far,
                    volume: number as usize % VOLUMES.len(),
                    sockets: self.world.sockets.clone(),
                    seed: round << 8 | number,
                }
            })
            .collect();
        let histories = std::thread::scope(|scope| {
            let running: Vec<_> =
                hosts.iter().map(|host| scope.spawn(|| host.run(began, &stop))).collect();
            // Hosts are to stop also when the rest fails.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for (wait, event) in &plan.events {
                    std::thread::sleep(*wait);
                    self.happen(event, seen);
                }
                self.heal(round, seen);
                std::thread::sleep(Duration::from_millis(100));
                if plan.is_forced {
                    self.lose(seen);
                }
            }));
            stop.store(true, Relaxed);
            let histories: Vec<_> = running.into_iter().map(|host| host.join()).collect();
            worked.unwrap_or_else(|why| std::panic::resume_unwind(why));
            histories
                .into_iter()
                .map(|history| history.expect("a host found nothing wrong"))
                .collect::<Vec<_>>()
        });
        for history in &histories {
            seen.reads_and_writes += history.ops.len();
            seen.unanswered += history.unanswered.len();
            seen.refused += history.refused;
            seen.connections += history.connections;
        }
        let forced = plan.is_forced.then(|| self.force(round, seen));
        let serving = self.world.serving().expect("one serves");
        if forced.is_none() {
            self.drain(serving);
        }
        let kills = std::mem::take(&mut self.world.kills);
        let state = self.world.state(serving);
        let between = (&self.state, &state);
        let mut histories = Histories::new(between, histories, &kills, !self.make.is_shared);
        seen.taken_back += histories.taken_back;
        if forced.is_none() {
            histories.end(&state, self.world.began.elapsed().as_nanos() as u64);
        }
        histories.check().unwrap_or_else(|why| panic!("round {round}: {why}"));
        if forced.is_some_and(|forced| forced != Forced::Mixture) {
            let prefix = histories.check_prefix(&state);
            prefix.unwrap_or_else(|why| panic!("round {round}, forced: {why}"));
        }
        self.state = state;
        if plan.is_compared && !plan.is_forced {
            (0..2).for_each(|at| self.world.stop(at));
            self.world.compare();
            (0..2).for_each(|at| self.world.start(at));
            seen.count("compared");
        }
    }

    fn order(&mut self, at: usize, socket: &str, order: &str) {
        if let Some(stream) = self.world.send(at, socket, order) {
            let name = order.split('"').nth(3).unwrap_or_default().to_owned();
            self.orders.push(std::thread::spawn(move || {
                let exit = match answer(stream) {
                    None => "not answered".into(),
                    Some(said) if said.get("done").is_some() => "done".into(),
                    Some(said) => format!("exit {}", said["failed"]["exit"]),
                };
                format!("{name}: {exit}")
            }));
        }
    }

    fn happen(&mut self, event: &Event, seen: &mut Seen) {
        let name = format!("{event:?}");
        seen.count(name.split('(').next().unwrap_or_default());
        let world = &mut self.world;
        match *event {
            Event::Kill(which, gone) => {
                let killed: Vec<usize> = (0..2).filter(|&at| which[at]).collect();
                killed.iter().for_each(|&at| world.kill(at));
                std::thread::sleep(gone);
                killed.iter().for_each(|&at| world.start(at));
            }
            Event::Restart(at) => {
                world.stop(at);
                world.start(at);
            }
            Event::Freeze(at, time) => {
                world.signal(at, "-STOP");
                std::thread::sleep(time);
                world.signal(at, "-CONT");
            }
            Event::TakeOver(which) => {
                let takeover = "{\"order\": \"takeover\", \"dry_run\": false, \"no_wait\": true}";
                (0..2)
                    .filter(|&at| which[at])
                    .for_each(|at| self.order(at, "operate.sock", takeover));
            }
            Event::HandOver(at) => self.order(at, "operate.sock", "{\"order\": \"handover\"}"),
            Event::Cut(after) => world.proxy.cut(after),
            Event::Down(time) => {
                world.proxy.set(Weather { down: true, ..Weather::default() });
                world.proxy.cut(None);
                std::thread::sleep(time);
                world.proxy.set(Weather::default());
            }
            Event::Silence(silent, time) => {
                world.proxy.set(Weather { silent, ..Weather::default() });
                std::thread::sleep(time);
                world.proxy.set(Weather::default());
            }
            Event::Slow(delay, bytes_per_second) => {
                world.proxy.set(Weather { delay, bytes_per_second, ..Weather::default() });
            }
            Event::Rate(rate) => self.rate(rate),
        }
    }

    fn rate(&mut self, rate: u64) {
        let order = format!("{{\"order\": \"rate\", \"bytes_per_second\": {rate}}}");
        (0..2).for_each(|at| self.order(at, "operate.sock", &order));
    }

    /// The line is good, both devices are connected, and one serves.
    fn heal(&mut self, round: u64, seen: &mut Seen) {
        self.world.proxy.heal();
        self.rate(0);
        for at in 0..2 {
            if self.world.daemons[at].is_none() {
                self.world.start(at);
            }
        }
        self.world.until("both are connected", |world| {
            (0..2).all(|at| world.status(at).is_some_and(|it| it["connected"] == true))
        });
        for order in std::mem::take(&mut self.orders) {
            seen.count(order.join().unwrap());
        }
        let at = (round % 2) as usize;
        let mut tries = 0;
        self.world.until("one of them serves", |world| {
            tries += 1;
            if world.serving().is_none() && tries % 20 == 0 {
                // Both may be fenced: somebody must ask.
                let takeover = "{\"order\": \"takeover\", \"dry_run\": false, \"no_wait\": true}";
                world.send(at, "operate.sock", takeover).and_then(answer);
            }
            world.serving().is_some()
        });
        self.world.check_log();
    }

    fn drain(&mut self, serving: usize) {
        let order = "{\"order\": \"drain\", \"timeout_ms\": 50000}";
        let said = self.world.send(serving, "operate.sock", order).and_then(answer);
        let is_done = said.as_ref().is_some_and(|said| said.get("done").is_some());
        assert!(
            is_done,
            "{said:?}: {:#?}\n{}",
            [0, 1].map(|at| self.world.status(at)),
            self.world.told()
        );
        for at in [0, 1] {
            let status = self.world.status(at).expect("it runs");
            assert!(
                status["lost_writes"] == false && status["trouble"] == serde_json::json!([]),
                "{status:#?}"
            );
        }
    }

    /// The device that serves is lost under load, with some of what it has not at the other one.
    fn lose(&mut self, seen: &mut Seen) {
        self.rate(1 << 20);
        std::thread::sleep(Duration::from_millis(150));
        let lost = self.world.serving().unwrap_or(0);
        self.world.kill(lost);
        for order in std::mem::take(&mut self.orders) {
            seen.count(order.join().unwrap());
        }
    }

    /// The other one is forced; hosts go on there.
    fn force(&mut self, round: u64, seen: &mut Seen) -> Forced {
        let at = self.world.daemons.iter().position(Option::is_some).expect("one is left");
        match round % 2 {
            0 => self.world.stop(at),
            _ => self.world.kill(at),
        }
        let forced = self.world.force(at);
        seen.count(format!("forced: {forced:?}"));
        self.world.start(at);
        if forced == Forced::LacksNothing {
            let order = "{\"order\": \"resume-alone\"}";
            let said = self.world.send(at, "force.sock", order).and_then(answer);
            assert!(said.as_ref().is_some_and(|it| it.get("done").is_some()), "{said:?}");
        }
        self.world.until("it serves", |world| world.serving() == Some(at));
        forced
    }
}
