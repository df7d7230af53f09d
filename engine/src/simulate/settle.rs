//! The end of a run: faults stop, everything is started, connected and let go; in bounded virtual
//! time both devices must then hold the history, all of it.

use super::NAMES;
use super::host::What;
use super::payload::{self, SECTOR};
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use crate::device::Device;
use crate::internal::compare;
use crate::superblock;
use crate::sync::lock;
use crate::unit::Stamp;
use std::fmt::Display;
use std::ops::Range;

/// Rounds, each of a hundredth of a virtual second, in which everything must come to rest.
const ROUNDS: u64 = 20_000;

impl World {
    /// Once faults stop, progress resumes in bounded time, and copies converge.
    pub fn settle(&self) {
        self.machines.iter().for_each(|machine| machine.disk.disarm());
        self.stall.take();
        self.sites.gone.take();
        self.end_moves();
        self.upgrade();
        if self.tape.is_lossy() {
            // Nobody misses the last frame of all.
            self.cut_line(&mut Random::of(self.plan.seed, 6, 0));
        }
        // Hosts are served again, now and then for longer than the journals have room.
        let mut random = Random::of(self.plan.seed, 4, 0);
        let wanted = random.pick(&[4, 4, 4, 160]);
        let mut goal = None;
        for round in 0..ROUNDS {
            self.round(round);
            let given_up = self.tape.is_faithless() && self.tape.is_refused();
            if self.tape.is_broken() || self.ended.get() || given_up {
                return;
            }
            let rests = self.is_at_rest();
            if rests {
                self.check_heard();
            }
            if goal.is_none() && rests {
                goal = Some(self.served.get() + wanted);
            }
            match goal {
                Some(goal) if self.served.get() < goal => self.probe(&mut random),
                Some(_) if rests => {
                    self.check_converged();
                    [0, 1].into_iter().for_each(|side| self.check_salvage(side));
                    return self.check_comparison();
                }
                _ => {}
            }
        }
        let status = [0, 1].map(|side| self.device(side).map(|d| d.status()));
        self.tape.broken("progress resumes after the last fault", format!("{status:?}"));
    }

    /// A hundredth of a second of both devices' threads: only what is due.
    fn round(&self, round: u64) {
        // Of two that refuse each other the one hears why, or the other.
        let first = (round / 64 % 2) as usize;
        for side in [first, 1 - first] {
            self.machines[side].clock.pass(10_000_000);
            self.start(side);
            self.plug(side);
            self.accept_loss(side);
            self.resolve();
            self.unfence(side);
            if self.serving().is_none() && round % 50 == 10 + 20 * side as u64 {
                self.ask_for_host(side);
            }
            while self.control(side) && !self.tape.is_broken() {}
            self.receive(side, usize::MAX);
            self.step(side, Device::step_commit_due);
            while self.ship(side).is_some_and(|count| count > 0) {}
            while self.climb(side) && !self.tape.is_broken() {}
            self.step(side, Device::step_reflect_due);
            self.check_volume(side, false);
            self.step(side, Device::step_checkpoint);
            self.poll_all(side);
            self.look_at_takeover(side);
            self.check_fenced_here(side);
            self.bury(side);
        }
        self.check_one_serves();
    }

    fn is_at_rest(&self) -> bool {
        let rests = |side: usize| {
            let Some(device) = self.device(side) else { return false };
            let owes = !device.own.is_clean()
                || device.step_sequence() > 0
                || lock(&device.tables).unreflected() > 0;
            let news =
                [crate::link::Lane::Data, crate::link::Lane::Control].into_iter().any(|lane| {
                    self.machines[side]
                        .wire
                        .borrow()
                        .as_ref()
                        .is_none_or(|w| w.has_news(side, lane))
                });
            let connected = lock(&device.failover).connection.peer().is_some();
            let by_bits = self.is_by_bits(&device);
            connected && !owes && !by_bits && !news && self.machines[side].asked.borrow().is_empty()
        };
        rests(0) && rests(1) && self.serving().is_some()
    }

    fn probe(&self, random: &mut Random) {
        let Some(side) = self.serving() else { return };
        for what in [What::Read, What::Write, What::Write, What::Write] {
            self.ask(what, side, false, random);
        }
    }

    /// Rot and misdirected writes in normal volumes, in the course of the run or at its end, are
    /// found by comparing the devices at rest: exactly what is wrong.
    fn check_comparison(&self) {
        let random = &mut Random::of(self.plan.seed, 6, 0);
        let side = self.plan.rotting;
        let disk = &self.machines[side].disk;
        if self.tape.is_broken() {
            return;
        }
        if random.once_in(3)
            && let Some(what) = disk.rot_volume(random)
        {
            self.tape.event(Sort::Fault, format_args!("{what}"));
        }
        let views = [0, 1].map(|side: usize| self.machines[side].disk.process());
        let load = |side: usize| superblock::load(&views[side]);
        let superblocks = match (load(0), load(1)) {
            (Ok(a), Ok(b)) => [a, b],
            // It has rotted under a device that runs, which it does not need it for.
            _ => return,
        };
        let wrong = self.wrong_sectors(side);
        let sectors = self.plan.block_sectors() as usize;
        self.check_online_comparison(&wrong.iter().map(|at| at / sectors).collect(), random);
        let names: [&dyn Display; 2] = [&NAMES[0], &NAMES[1]];
        let mut found: Vec<usize> = Vec::new();
        let compared =
            compare::volumes([&views[0], &views[1]], &superblocks, names, &mut |range| {
                found.extend(self.sectors_of(&range));
            });
        if let Err(error) = compared {
            return self.tape.broken("volumes can be compared", error.to_string());
        }
        if found != wrong {
            let story = format!("sectors {found:?} of the group differ, {wrong:?} are wrong");
            return self.tape.broken("rot in a volume is found by comparing the devices", story);
        }
        if !found.is_empty() {
            self.tape.count("rot in a volume found by comparing");
        }
    }

    /// The group's numbers of the sectors of a range.
    fn sectors_of(&self, range: &compare::Differing) -> Range<usize> {
        let first = self.place(range.volume, range.offset / SECTOR as u64);
        first..first + range.bytes as usize / SECTOR
    }

    /// The group's numbers of those sectors in N of `side` that are not what was written.
    fn wrong_sectors(&self, side: usize) -> Vec<usize> {
        let history = self.history.borrow();
        let mut wrong = Vec::new();
        for index in 0..history.blocks() {
            let newest = history.content(index, Stamp::MAX);
            let at = self.plan.block(index);
            let before = at.number * self.plan.block_sectors();
            let count = self.plan.volumes[at.volume as usize] - before;
            let count = count.min(self.plan.block_sectors()) as usize;
            let bytes = self.normal_bytes(side, index);
            let sectors = bytes.chunks(SECTOR).zip(newest).zip(self.plan.place(index)..);
            for ((sector, value), place) in sectors.take(count) {
                if payload::value(sector, place) != Ok(value) {
                    wrong.push(place);
                }
            }
        }
        wrong
    }

    /// Both copies hold what was written.
    fn check_converged(&self) {
        [0, 1].into_iter().for_each(|side| self.check_volume(side, true));
        let history = self.history.borrow();
        for (name, machine) in super::NAMES.iter().zip(&self.machines) {
            let image = machine.image.borrow();
            for (index, held) in image.blocks.iter().enumerate() {
                let newest = history.content(index, Stamp::MAX);
                if *held != newest || machine.replays_upto.get().is_some() {
                    let block = self.plan.block(index);
                    let story = format!("{name} holds {held:?} at block {block}, not {newest:?}");
                    return self.tape.broken("copies converge", story);
                }
            }
        }
    }
}
