//! The deterministic simulator: the production code of two devices on simulated disks, line and
//! clocks, with their hosts, in one thread, from one seed.
//!
//! | file | what it is |
//! |---|---|
//! | `action` | what can happen next, given by seed and number alone |
//! | `plan` | what a seed's world is like |
//! | `world` | two machines and what can be done to them |
//! | `disk`, `line`, `clock` | the simulated hardware |
//! | `host`, `payload` | requests, and what they write |
//! | `life` | starts, closings, kills, power cuts |
//! | `lost` | completed writes that a crash takes |
//! | `force` | sites that are lost, forced takeovers, and what returns |
//! | `returns` | hosts that come back on new connections |
//! | `fenced_here` | an operator stops hosts at a device, and resumes it |
//! | `variants` | moves by files, offers of the host |
//! | `ladder` | differential mode: suspensions, rounds, copies |
//! | `compare` | comparisons of the running pair |
//! | `faithless` | disks that lie and rot, and what comes of it |
//! | `history`, `promises`, `settle` | the oracle, and one function a promise |
//! | `scenarios` | acceptance scenarios by name, as scripts |
//! | `stall` | other threads, coming in between |
//! | `shrink` | a failing run made short |
//! | `tape` | one line an event |
//!
//! A run is a list of actions. The seed and an action's number give the action; one that does not
//! apply is an idle tick. So any selection of a run's actions is a run too, and a failing run is
//! shrunk by leaving actions out.

mod action;
mod clock;
mod compare;
mod disk;
mod faithless;
mod fenced_here;
mod force;
mod history;
mod host;
mod ladder;
mod life;
mod line;
mod lost;
mod payload;
mod plan;
mod promises;
mod random;
mod returns;
#[cfg(all(test, not(loom)))]
mod scenarios;
mod settle;
mod shrink;
mod stall;
mod tape;
#[cfg(test)]
mod told;
mod variants;
mod world;

pub use action::Selection;
pub use shrink::shrink;
pub use tape::Sort;

use crate::moment::NO_DEADLOCK;
pub use crate::moment::{Moment, at_every_moment};
use action::Moods;
use plan::Plan;
use random::Random;
use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use tape::Tape;
use world::World;

/// 0 is device A, which serves first, 1 is device B.
type Side = usize;

const NAMES: [&str; 2] = ["A", "B"];

/// Takes every event of a run: its number and its line.
pub type Sink = Box<dyn FnMut(u64, Arguments<'_>) + Send>;

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: String,
    /// The finding instead.
    pub story: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.promise, self.story)
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many events there were.
    pub events: u64,
    /// The same by sort: messages, disk, host, takeovers, faults.
    pub sorts: [u64; 5],
    /// The other counts.
    pub named: BTreeMap<&'static str, u64>,
    /// How many actions were done.
    pub actions: u64,
    /// The promise that did not hold.
    pub violation: Option<Violation>,
}

/// How many actions the run of a seed has.
pub fn actions_of(seed: u64) -> u64 {
    Random::of(seed, 5, 0).pick(&[500, 2000, 4000, 8000])
}

/// Runs the selected actions of a seed, and then brings everything to rest.
pub fn run(seed: u64, selection: &Selection, sink: Option<Sink>) -> Outcome {
    let tape = Arc::new(Tape::new(sink));
    let mut actions = 0;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let plan = Plan::new(seed);
        let mut moods = Moods::new(seed, plan.never.clone());
        let world = Rc::new(World::new(plan, tape.clone()));
        let same = world.clone();
        at_every_moment(Some(Box::new(move |moment| same.at(moment))));
        for number in selection.numbers() {
            if tape.is_broken() || world.ended.get() {
                return;
            }
            actions += 1;
            world.act(moods.action(number));
        }
        world.settle();
    }));
    at_every_moment(None);
    let (events, sorts, named, broken) = tape.end();
    let violation = match (broken, ended) {
        (Some((promise, story)), _) => Some(Violation { promise: promise.into(), story }),
        (None, Ok(())) => None,
        (None, Err(panic)) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied());
            let story = said.unwrap_or("a panic without words").to_string();
            let waits = story.starts_with(NO_DEADLOCK);
            let promise = if waits { NO_DEADLOCK } else { "the engine's own assertions hold" };
            Some(Violation { promise: promise.into(), story })
        }
    };
    Outcome { events, sorts, named, actions, violation }
}
