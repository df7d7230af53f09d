//! Comparisons of the running pair: begun, gone on with and given up at any time, and once more in
//! the end, when nothing moves.

use super::action::Kind;
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::compare::{CompareLimits, CompareReport};
use crate::error::{Kind as ErrorKind, Result};
use crate::flow::compare::{Compare, Comparison};
use crate::unit::Block;
use std::collections::BTreeSet;

/// Steps in which the last comparison must come to its end.
const STEPS: u64 = 100_000;

impl World {
    /// Begins a comparison at `side`, goes on with the one that is under way, or gives it up.
    pub fn compare(&self, side: Side, random: &mut Random) {
        let machine = &self.machines[side];
        let under_way = machine.comparison.borrow_mut().take();
        let Some(comparison) = under_way else {
            return self.begin_comparison(side, random);
        };
        if random.once_in(64) {
            return self.tape.count("comparisons given up");
        }
        // With frames in between or without.
        let frames = random.pick(&[0, 0, 1, 8]);
        for _ in 0..random.within(1..8) {
            match self.go_on(side, &comparison) {
                Some(Compare::Done(report)) => return self.has_compared(side, &report),
                Some(_) => {}
                None => return,
            }
            for _ in 0..frames {
                self.control(1 - side);
                self.control(side);
            }
        }
        let same = self.device(side).is_some_and(|device| comparison.is_of(&device));
        if same {
            *machine.comparison.borrow_mut() = Some(comparison);
        }
    }

    fn begin_comparison(&self, side: Side, random: &mut Random) {
        let limits = CompareLimits {
            bytes_per_second: random.pick(&[1_000_000, u64::MAX]),
            looks: random.within(1..6) as u32,
            again_after_ns: random.within(0..2_000_000),
            ..CompareLimits::default()
        };
        let Some(device) = self.device(side).filter(|device| device.halted.get().is_none()) else {
            return;
        };
        let begun = self.within(side, || device.begin_compare(limits));
        let known = |kind| matches!(kind, ErrorKind::NoPeer | ErrorKind::Invalid);
        match begun {
            Ok(comparison) => {
                self.tape.event(Sort::Host, format_args!("{} begins to compare", NAMES[side]));
                *self.machines[side].comparison.borrow_mut() = Some(comparison);
            }
            Err(error) if known(error.kind()) || self.machines[side].is_dead() => {}
            Err(error) => self.check_halt(side, &error),
        }
    }

    /// One step of `comparison`; `None` if it goes no further.
    fn go_on(&self, side: Side, comparison: &Comparison) -> Option<Compare> {
        let device = self.device(side).filter(|device| comparison.is_of(device))?;
        let outcome: Result<Compare> = self.within(side, || comparison.step());
        if self.machines[side].is_dead() {
            return None;
        }
        let report = device.status().comparison;
        if let Some(report) = report {
            self.check_healthy(side, &report);
        }
        match outcome {
            Ok(done) => Some(done),
            // The peer has got an older program.
            Err(error) if error.kind() == ErrorKind::Invalid => None,
            Err(error) => {
                self.check_halt(side, &error);
                None
            }
        }
    }

    /// Nothing but damage makes the volumes differ where they may be compared.
    fn check_healthy(&self, side: Side, report: &CompareReport) {
        let faults = [Kind::Lie, Kind::Rot, Kind::RotVolume];
        let may_differ = !faults.iter().all(|kind| self.plan.never.contains(kind));
        if report.different > 0 && !may_differ {
            let story = format!("{} finds {report:?}", NAMES[side]);
            self.tape.broken("a comparison of a healthy pair reports no difference", story);
        }
    }

    fn has_compared(&self, side: Side, report: &CompareReport) {
        self.check_healthy(side, report);
        let name = NAMES[side];
        let CompareReport { equal, different, undecided, skipped, unreadable, .. } = *report;
        let sum = equal + different + undecided + skipped + unreadable;
        if sum != report.blocks || report.waiting > 0 {
            let story = format!("{name}: {report:?}");
            self.tape.broken("each block of a comparison comes into one class", story);
        }
        let line = format_args!("{name} has compared: {equal} equal, {undecided} undecided");
        self.tape.event(Sort::Host, line);
        self.tape.count("comparisons");
        for (count, what) in [
            (equal, "comparisons with equal blocks"),
            (undecided, "comparisons with undecided blocks"),
            (skipped, "comparisons with skipped blocks"),
        ] {
            if count > 0 {
                self.tape.count(what);
            }
        }
    }

    /// When nothing moves, a comparison of the running pair decides every block, and what `differs` is
    /// what it reports.
    pub fn check_online_comparison(&self, differs: &BTreeSet<usize>, random: &mut Random) {
        let side = random.below(2);
        [0, 1].into_iter().for_each(|side| drop(self.machines[side].comparison.take()));
        let Some(device) = self.device(side) else { return };
        let limits = CompareLimits { ranges_max: usize::MAX, ..CompareLimits::default() };
        let promise = "damage in a volume is found by comparing the running devices";
        let begun = self.within(side, || device.begin_compare(limits));
        let comparison = match begun {
            Ok(comparison) => comparison,
            // The connection stands since one of the programs was an older one.
            Err(error) if error.kind() == ErrorKind::Invalid && self.plan.old_programs => return,
            Err(error) => return self.tape.broken(promise, error.to_string()),
        };
        for _ in 0..STEPS {
            let outcome = self.within(side, || comparison.step());
            match outcome {
                Ok(Compare::Done(report)) => return self.check_found(side, &report, differs),
                Ok(Compare::Waits(_)) => {
                    self.machines[side].clock.pass(1_000_000);
                    self.control(1 - side);
                    self.control(side);
                }
                Ok(Compare::Goes) => {}
                Err(error) => return self.tape.broken(promise, error.to_string()),
            }
        }
        self.tape.broken(promise, format!("no end: {:?}", device.status().comparison));
    }

    fn check_found(&self, side: Side, report: &CompareReport, differs: &BTreeSet<usize>) {
        let size = self.plan.block_size as u64;
        let blocks = report.ranges.iter().flat_map(|range| {
            let first = Block { volume: range.volume, number: range.offset / size };
            let first = self.plan.index(first);
            first..first + range.bytes.div_ceil(size) as usize
        });
        let found: BTreeSet<usize> = blocks.collect();
        if found != *differs || report.undecided > 0 || found.len() as u64 != report.different {
            let story = format!("{} finds {report:?}, {differs:?} differ", NAMES[side]);
            let promise = "damage in a volume is found by comparing the running devices";
            return self.tape.broken(promise, story);
        }
        self.tape.count("comparisons at rest");
        if !found.is_empty() {
            self.tape.count("damage in a volume found by the running pair");
        }
    }
}
