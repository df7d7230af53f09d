//! Acceptance scenarios by name, as short scripts on the simulated world: its disks, its line, its
//! checks at every step. At the end of each everything comes to rest, and both copies are equal and
//! hold all that was written.

mod found_equal;
mod late_write;
mod lost_tail;
mod lying_disk;
mod no_record;
mod torn_below_need;

use super::clock::SimClock;
use super::disk::{Leaves, Trouble};
use super::host::{Order, What};
use super::payload::Value;
use super::plan::Plan;
use super::random::Random;
use super::tape::Tape;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::failover::Policy;
use crate::limits::Settings;
use crate::moment::{Moment, at_every_moment};
use crate::unit::Stamp;
use std::rc::Rc;
use std::sync::Arc;

const A: Side = 0;
const B: Side = 1;
const X: u64 = 0;
const Y: u64 = 1;
const BLOCKS: u64 = 8;
const HOUR: i64 = 3_600_000_000_000;

const ALL_LEAVES: [Leaves; 4] = [Leaves::Nothing, Leaves::All, Leaves::Writes, Leaves::Sectors];

struct Scene(Rc<World>);

impl Scene {
    /// One volume of eight blocks of a sector; every record ships by itself.
    fn new() -> Scene {
        Scene::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Scene {
        Scene::of(512, change)
    }

    /// Blocks of `block_size` bytes in as many sectors.
    fn of(block_size: usize, change: impl FnOnce(&mut Settings)) -> Scene {
        let mut plan = Plan::new(0);
        (plan.block_size, plan.volumes, plan.depth) = (block_size, vec![BLOCKS], 64);
        (plan.journals, plan.clocks) = ([4, 4], [(0, 1), (0, 1)]);
        let mut settings = Settings { ship_bytes_max: 1, ..Settings::default() };
        change(&mut settings);
        plan.settings = [settings.clone(), settings];
        let scene = Scene(Rc::new(World::new(plan, Arc::new(Tape::new(None)))));
        scene.meet();
        scene
    }

    fn device(&self, at: Side) -> Arc<Device> {
        self.0.device(at).expect("open")
    }

    fn serves(&self, at: Side) -> bool {
        self.0.serving() == Some(at)
    }

    /// The host at `at` orders something, and looks once.
    fn order(&self, at: Side, what: What, block: u64, blocks: u64) -> Value {
        let session = self.0.session(at).expect("it serves");
        let sectors = block..block + blocks;
        let number = self.0.history.borrow().issued.len() as Value;
        let (late, fua, time, soon, volume) = (false, false, None, true, 0);
        self.0.issue(at, session, Order { what, volume, sectors, fua, late, time, soon });
        number
    }

    fn write(&self, at: Side, block: u64) -> Value {
        self.order(at, What::Write, block, 1)
    }

    /// A write that is durable, and may ship.
    fn write_durably(&self, at: Side, block: u64) -> Value {
        let value = self.write(at, block);
        self.order(at, What::Flush, 0, 0);
        self.commit(at);
        self.0.poll_all(at);
        value
    }

    /// Whether the request has written anything.
    fn was_admitted(&self, request: Value) -> bool {
        let history = self.0.history.borrow();
        history.after(Stamp::ZERO).iter().any(|record| record.request == request)
    }

    fn read(&self, at: Side, block: u64) {
        self.order(at, What::Read, block, 1);
    }

    fn commit(&self, at: Side) {
        self.0.step(at, Device::step_commit);
    }

    fn ship(&self, at: Side) {
        while self.0.step(at, Device::step_ship).is_some_and(|count| count > 0) {}
    }

    fn reflect(&self, at: Side) {
        self.0.step(at, Device::step_reflect);
        self.0.check_volume(at, false);
    }

    fn checkpoint(&self, at: Side) {
        self.0.step(at, Device::checkpoint_now);
    }

    /// All control messages arrive, in both directions; no data does.
    fn talk(&self) {
        for _ in 0..4 {
            [A, B].into_iter().for_each(|at| while self.0.control(at) {});
        }
        [A, B].into_iter().for_each(|at| self.0.poll_all(at));
    }

    /// Everything under way arrives.
    fn carry(&self) {
        for at in [A, B] {
            self.commit(at);
            self.ship(at);
        }
        [A, B].into_iter().for_each(|at| self.0.receive(at, usize::MAX));
        self.talk();
    }

    fn cut(&self) {
        if let Some(wire) = self.0.machines[A].wire.borrow().as_ref() {
            wire.cut(|_| 0, false);
        }
        // Both ends learn of it.
        self.talk();
    }

    fn meet(&self) {
        self.meet_with_loss();
        // Most scenarios are not about what a crash takes.
        [A, B].into_iter().for_each(|at| self.0.accept_loss(at));
    }

    /// The same, and nobody accepts what a crash has taken.
    fn meet_with_loss(&self) {
        [A, B].into_iter().for_each(|at| self.0.start(at));
        [A, B].into_iter().for_each(|at| self.0.plug(at));
        self.talk();
    }

    fn takeover(&self, to: Side) {
        self.0.ask_for_host(to);
        self.talk();
        assert!(self.serves(to), "{} does not serve", NAMES[to]);
    }

    /// Whenever `step` comes to `moment`, `story` happens before it goes on.
    fn amid<T>(&self, moment: Moment, story: fn(&Scene), step: impl FnOnce() -> T) -> T {
        let scene = Scene(self.0.clone());
        let come = move |now| {
            if now == moment {
                story(&scene)
            }
        };
        at_every_moment(Some(Box::new(come)));
        let done = step();
        at_every_moment(None);
        done
    }

    fn kill(&self, at: Side) {
        self.0.crash(at, None);
    }

    fn power_cut(&self, at: Side, leaves: Leaves, seed: u64) {
        self.0.crash(at, Some((leaves, &mut Random::new(seed))));
    }

    /// The content of both copies at rest, by block.
    fn ends(&self) -> Vec<Value> {
        self.0.settle();
        self.holds();
        assert!(!self.0.ended.get());
        let image = self.0.machines[A].image.borrow();
        image.blocks.iter().map(|content| content[0]).collect()
    }

    fn holds(&self) {
        assert_eq!(self.0.tape.what_broke(), None);
    }
}

#[test]
fn s16_r_full_throttle() {
    let scene = Scene::new();
    scene.cut();
    let mut last = 0;
    while scene.0.machines[A].asked.borrow().is_empty() {
        last = scene.write(A, last as u64 % BLOCKS);
        scene.commit(A);
        scene.reflect(A);
        scene.checkpoint(A);
        assert!(last < 10_000, "it is never throttled");
    }
    let late = [scene.write(A, X), scene.write(A, X)];
    scene.holds();
    scene.meet();
    assert!(scene.ends()[X as usize] >= late[1], "order is kept");
    assert_eq!(scene.0.tape.counted("requests refused"), 0);
}

#[test]
fn s17_dup_after_reconnect() {
    for window in [1, 16] {
        for arrive in 0..=window {
            let scene = Scene::new();
            for n in 0..window {
                scene.write(A, n as u64 % 3);
            }
            scene.commit(A);
            scene.ship(A);
            let reconnect = |scene: &Scene| {
                scene.cut();
                scene.meet();
            };
            if arrive == 0 {
                reconnect(&scene);
            } else {
                // The new connection's hello is from before B took in what it is taking in.
                scene.amid(Moment::Received, reconnect, || scene.0.receive(B, arrive));
                assert!(scene.device(A).status().connected);
            }
            let there = scene.device(B).status().hi;
            scene.ship(A);
            scene.0.receive(B, arrive);
            assert_eq!(scene.device(B).status().hi, there, "what has come is shipped again");
            scene.reflect(B);
            scene.takeover(B);
            let newest = scene.write(B, X);
            scene.read(B, X);
            scene.read(B, Y);
            assert!(scene.ends()[X as usize] >= newest);
        }
    }
}

#[test]
fn s18_link_cut_takeover() {
    for answered in [false, true] {
        let scene = Scene::new();
        let value = scene.write_durably(A, X);
        scene.0.ask_for_host(B);
        if answered {
            while scene.0.control(A) {}
            assert_eq!(scene.0.serving(), None, "A has fenced itself");
        }
        scene.cut();
        scene.meet();
        scene.meet();
        assert!(scene.serves(B), "it asks again by itself");
        scene.read(B, X);
        assert!(scene.ends()[X as usize] >= value);
    }
}

/// Death in each operation of either disk, with every sort of thing that a power cut leaves.
#[test]
fn s19_crash_each_step() {
    let leaves = [None].into_iter().chain(ALL_LEAVES.map(Some));
    for (leaves, at) in leaves.flat_map(|leaves| [(leaves, A), (leaves, B)]) {
        for after in 0.. {
            let scene = Scene::new();
            scene.0.machines[at].disk.arm(after, Trouble::Death, after);
            for block in [X, Y, X] {
                scene.write_durably_if(A, block);
            }
            scene.carry();
            [A, B].into_iter().for_each(|side| scene.reflect(side));
            [A, B].into_iter().for_each(|side| scene.checkpoint(side));
            // Nobody may hear of this one before it is durable, which it is at the latest when A
            // fences itself.
            scene.write_if(A, Y);
            scene.ship(A);
            scene.0.receive(B, usize::MAX);
            if !scene.0.machines[A].is_dead() && !scene.0.machines[B].is_dead() {
                scene.0.ask_for_host(B);
                scene.talk();
                scene.write_durably_if(B, X);
            }
            scene.carry();
            let died = scene.0.machines[at].is_dead();
            match leaves {
                None => scene.kill(at),
                Some(leaves) => scene.power_cut(at, leaves, after),
            }
            scene.ends();
            if !died {
                assert!(after > 10, "{after} operations in all?");
                break;
            }
        }
    }
}

impl Scene {
    /// Writes if `at` serves and lives; whether it did.
    fn write_if(&self, at: Side, block: u64) -> bool {
        let serves = self.serves(at) && !self.0.machines[at].is_dead();
        if serves {
            self.write(at, block);
        }
        serves
    }

    /// A durable write, as far as `at` serves and lives.
    fn write_durably_if(&self, at: Side, block: u64) {
        if self.write_if(at, block) {
            self.order_if(at, What::Flush);
            self.commit(at);
            self.0.poll_all(at);
        }
    }

    fn order_if(&self, at: Side, what: What) {
        if !self.0.machines[at].is_dead() {
            self.order(at, what, 0, 0);
        }
    }
}

#[test]
fn s20_restart_while_catching_up() {
    let scene = Scene::new();
    scene.write_durably(A, X);
    let y = scene.write_durably(A, Y);
    scene.takeover(B);
    let x = scene.write_durably(B, X);
    scene.kill(B);
    scene.0.start(B);
    assert!(scene.0.session(B).is_none(), "it lacks what A owes");
    scene.0.resume_alone(B);
    assert!(scene.0.session(B).is_none(), "and nobody can vouch for that");
    scene.meet();
    scene.meet();
    assert!(scene.serves(B), "with a new prototype");
    scene.read(B, X);
    scene.read(B, Y);
    assert_eq!(scene.device(B).status().owed_blocks, 2);
    scene.carry();
    assert_eq!(scene.device(B).status().owed_blocks, 0);
    let ends = scene.ends();
    assert!(ends[X as usize] >= x && ends[Y as usize] >= y);
}

#[test]
fn s21_old_record_replay() {
    for leaves in ALL_LEAVES {
        let scene = Scene::new();
        scene.write_durably(A, X);
        scene.takeover(B);
        let newer = scene.write_durably(B, X);
        // B's arrives at A and is reflected; A's stays where it is.
        scene.0.receive(B, usize::MAX);
        scene.ship(A);
        scene.0.receive(B, usize::MAX);
        scene.reflect(B);
        scene.commit(B);
        scene.ship(B);
        scene.0.receive(A, usize::MAX);
        scene.reflect(A);
        assert_eq!(scene.0.normal(A, X as usize).unwrap()[0], newer);
        scene.checkpoint(A);
        assert_eq!(scene.device(A).status().backlog_records, 1, "the old one is still in R");
        scene.power_cut(A, leaves, 1);
        scene.0.start(A);
        scene.reflect(A);
        assert_eq!(scene.0.normal(A, X as usize).unwrap()[0], newer);
        scene.ends();
    }
}

#[test]
fn s27_batch_receive_cut() {
    let (mut none, mut first, mut second_only, mut both) = (0, 0, 0, 0);
    for seed in 0..64 {
        let scene = Scene::with(|settings| settings.batch_records_max = 1);
        let wrote = [scene.write(A, X), scene.write(A, Y)];
        scene.commit(A);
        scene.ship(A);
        // Two batches are written with one sync, in which the power fails.
        scene.0.machines[B].disk.arm(2, Trouble::Death, seed);
        scene.0.receive(B, usize::MAX);
        assert!(scene.0.machines[B].is_dead());
        scene.power_cut(B, Leaves::Nothing, seed);
        scene.0.start(B);
        scene.holds();
        let hi = scene.device(B).status().hi;
        let known: Vec<_> =
            scene.0.history.borrow().after(Stamp::ZERO).iter().map(|r| r.stamp).collect();
        match scene.device(B).recovery().recv.cut_records {
            2 if hi == Stamp::ZERO => second_only += 1,
            0 if hi == Stamp::ZERO => none += 1,
            0 if hi == known[0] => first += 1,
            0 if hi == known[1] => both += 1,
            cut => panic!("{hi} was received, and {cut} cut"),
        }
        let ends = scene.ends();
        assert!(ends[X as usize] >= wrote[0] && ends[Y as usize] >= wrote[1]);
    }
    let kept = [none, first, second_only, both];
    assert!(!kept.contains(&0), "{kept:?} of 64");
}

#[test]
fn s28_crossing_requests() {
    let scene = Scene::new();
    let value = scene.write_durably(A, X);
    // Else it asks by itself, and nothing crosses.
    scene.device(A).set_policy(Policy::default()).expect("a sound disk");
    scene.0.ask_for_host(B);
    while scene.0.control(A) {}
    [A, B].into_iter().for_each(|at| scene.kill(at));
    scene.meet();
    let fenced = || [A, B].map(|at| scene.device(at).superblock.get().fenced);
    assert_eq!((fenced(), scene.0.serving()), ([true, true], None));
    [A, B].into_iter().for_each(|at| scene.0.ask_for_host(at));
    scene.talk();
    assert_eq!(scene.0.tape.counted("takeovers that crossed"), 1);
    assert_eq!(fenced().iter().filter(|&&fenced| !fenced).count(), 1);
    scene.read(scene.0.serving().expect("one serves"), X);
    assert!(scene.ends()[X as usize] >= value);
}

#[test]
fn s32_restart_low_clock() {
    let scene = Scene::new();
    scene.write_durably(A, X);
    scene.carry();
    for at in [A, B] {
        scene.reflect(at);
        scene.checkpoint(at);
    }
    scene.carry();
    scene.checkpoint(A);
    assert_eq!(scene.device(A).status().own_used_bytes, 0, "all freed");
    scene.kill(A);
    SimClock::step(&scene.0.machines[A].clock, -HOUR);
    scene.meet();
    scene.meet();
    assert!(scene.serves(A));
    let newer = scene.write_durably(A, X);
    scene.carry();
    scene.reflect(B);
    assert_eq!(scene.0.normal(B, X as usize).unwrap()[0], newer, "it has reached B");
    scene.ends();
}

#[test]
fn s33_volatile_tail() {
    let (mut none, mut second, mut third_only, mut both) = (0, 0, 0, 0);
    for seed in 0..64 {
        let scene = Scene::with(|settings| settings.batch_records_max = 1);
        let first = scene.write_durably(A, X);
        scene.write(A, Y);
        scene.write(A, 2);
        // A batch of each is written, and the power fails in their sync.
        scene.0.machines[A].disk.arm(2, Trouble::Death, seed);
        scene.commit(A);
        assert!(scene.0.machines[A].is_dead());
        scene.power_cut(A, Leaves::Nothing, seed);
        scene.0.start(A);
        scene.holds();
        let there = scene.0.history.borrow().after(Stamp::ZERO).len();
        match (there, scene.device(A).recovery().own.cut_records) {
            (1, 2) => third_only += 1,
            (1, 0) => none += 1,
            (2, 0) => second += 1,
            (3, 0) => both += 1,
            other => panic!("{other:?} records there and cut"),
        }
        assert!(scene.ends()[X as usize] >= first);
    }
    let kept = [none, second, third_only, both];
    assert!(!kept.contains(&0), "{kept:?} of 64");
}

/// R15: whenever a partial write has read the rest of its block, somebody else writes the block.
#[test]
fn a_part_of_a_block_gets_its_turn() {
    let scene = Scene::of(1024, |_| {});
    let all = |scene: &Scene| {
        scene.order(A, What::Write, X, 2);
    };
    let part = scene.amid(Moment::Located, all, || scene.order(A, What::Write, X, 1));
    let history = scene.0.history.borrow();
    assert!(history.of(X as usize).len() > 4, "others were faster");
    drop(history);
    assert!(scene.was_admitted(part));
    scene.ends();
}

/// A scenario that holds without a clause that it is about shows nothing.
#[cfg(feature = "weaken")]
#[test]
fn every_scenario_misses_its_clauses() {
    use super::told::{
        a_lost_piece_is_missed, a_piece_vouches_for_nothing_before_it, s35_slow_hand_over,
    };
    use crate::weaken::{Clause, Clause::*, without};
    use late_write::*;
    use lost_tail::*;
    use no_record::a_record_that_leaves_amid_a_look;
    use torn_below_need::{
        s34_after_an_opening, s34_amid_a_reflect_step, s34_rot_below_whole, s34_torn_below_need,
    };
    type Row = (fn(), &'static [Clause]);
    let table: [Row; 26] = [
        (s16_r_full_throttle, &[PlacesBeforeReservation, HeldUntilAcknowledged]),
        (s17_dup_after_reconnect, &[ReceiveOnce, Hello]),
        (s18_link_cut_takeover, &[AskAtHello]),
        (
            s19_crash_each_step,
            &[
                FlushSync,
                ReceiveSync,
                CheckpointSync,
                ShipBound,
                LogSyncBeforePrototype,
                FencedDurable,
                TenureDurable,
            ],
        ),
        (s20_restart_while_catching_up, &[AskAgain]),
        (s21_old_record_replay, &[ReplayAboveCheckpoint]),
        (s27_batch_receive_cut, &[Chain]),
        (s28_crossing_requests, &[CrossingRequests]),
        (s32_restart_low_clock, &[ClockRecovery]),
        (s33_volatile_tail, &[SequenceCut]),
        (s34_torn_below_need, &[Whole]),
        (s34_amid_a_reflect_step, &[Whole, WholeOfRecords]),
        (s34_after_an_opening, &[Whole, WholeOfRecords]),
        (s34_rot_below_whole, &[HiWithWhole]),
        (a_part_of_a_block_gets_its_turn, &[Turn]),
        (a_record_that_leaves_amid_a_look, &[RecordsBeforeVolume]),
        (s37_late_write, &[Revoked]),
        (s37_seems_to_live, &[Writer]),
        (s38_lost_tail, &[LostMark, LostRefused]),
        (s38_closed_before_the_word, &[LostMark, LostRefused]),
        (s38_taken_over_before_the_word, &[LostMark, LostRefused, LostTravels]),
        (s38_written, &[WrittenLog, CacheIdentity]),
        (s35_slow_hand_over, &[HandOverPaced, RepeatedGrant]),
        (a_lost_piece_is_missed, &[ToldChain]),
        (a_piece_vouches_for_nothing_before_it, &[ToldWhole]),
        (found_equal::what_is_found_equal_is_durable, &[EqualSync]),
    ];
    for (row, (scenario, clauses)) in table.into_iter().enumerate() {
        for &clause in clauses {
            without(Some(clause));
            let held = std::panic::catch_unwind(scenario).is_ok();
            without(None);
            at_every_moment(None);
            assert!(!held, "row {row} of the table holds without {}", clause.name());
        }
    }
}
