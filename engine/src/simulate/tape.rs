//! The tape of a run: one line an event, counted, and kept or shown only where somebody wants it.

use super::{Side, Sink};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::sync::Mutex;

/// The sorts of events that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// A frame arrived, or was lost.
    Message,
    /// A disk wrote, synced, made or emptied something.
    Disk,
    /// A host asked for something, or was answered.
    Host,
    /// A device asked for the host, got it, gave it up.
    Takeover,
    /// Something broke, or was repaired.
    Fault,
}

/// Whether `story` tells of what a faithless disk does to a device.
pub(super) fn says_what_is_lost(story: &str) -> bool {
    ["lost durable records", "both devices of the pair are unfenced"]
        .iter()
        .any(|words| story.contains(words))
}

/// A promise, and the story of how it was broken.
type Broken = (&'static str, String);

/// The tape of a run.
pub(super) struct Tape {
    state: Mutex<State>,
}

struct State {
    events: u64,
    sorts: [u64; 5],
    /// Things worth counting by name.
    named: BTreeMap<&'static str, u64>,
    sink: Option<Sink>,
    broken: Option<Broken>,
    /// Nothing that happens from now on breaks a promise.
    over: bool,
    /// A disk has lied or rotted: what follows from it may be stopped and refused.
    faithless: [bool; 2],
    /// A connection was refused for it.
    refused: bool,
    /// By receiver: its line has lost frames.
    lossy: [bool; 2],
    /// By device: its program was once one that does not know records of many blocks.
    old: [bool; 2],
}

impl Tape {
    pub fn new(sink: Option<Sink>) -> Tape {
        let state = State {
            events: 0,
            sorts: [0; 5],
            named: BTreeMap::new(),
            sink,
            broken: None,
            over: false,
            faithless: [false; 2],
            refused: false,
            lossy: [false; 2],
            old: [false; 2],
        };
        Tape { state: Mutex::new(state) }
    }

    /// Something happened.
    pub fn event(&self, sort: Sort, line: Arguments<'_>) {
        let mut state = lock(&self.state);
        state.events += 1;
        state.sorts[sort as usize] += 1;
        let number = state.events;
        if let Some(sink) = &mut state.sink {
            sink(number, line);
        }
    }

    /// How many events there were: the time of the run.
    pub fn now(&self) -> u64 {
        lock(&self.state).events
    }

    /// Counts `what` without making it an event of its own.
    pub fn count(&self, what: &'static str) {
        *lock(&self.state).named.entry(what).or_default() += 1;
    }

    /// How often `what` was counted.
    #[cfg(test)]
    pub fn counted(&self, what: &str) -> u64 {
        lock(&self.state).named.get(what).copied().unwrap_or(0)
    }

    /// The promise that was broken.
    #[cfg(test)]
    pub fn what_broke(&self) -> Option<(&'static str, String)> {
        lock(&self.state).broken.clone()
    }

    /// A promise was broken; the first one stays.
    pub fn broken(&self, promise: &'static str, story: String) {
        let mut state = lock(&self.state);
        if !state.over {
            state.broken.get_or_insert((promise, story));
        }
    }

    /// The run is over: nobody can tell right from wrong any more.
    pub fn judge_no_more(&self) {
        lock(&self.state).over = true;
    }

    /// A disk has lied or rotted, or what came of that is over.
    pub fn set_faithless(&self, side: Side, faithless: bool) {
        lock(&self.state).faithless[side] = faithless;
    }

    pub fn is_faithless(&self) -> bool {
        lock(&self.state).faithless.contains(&true)
    }

    /// The line of `side` has lost a frame to it, which `side` may find and then gives the
    /// connection up; or it has a new line.
    pub fn set_lossy(&self, side: Side, lossy: bool) {
        lock(&self.state).lossy[side] = lossy;
    }

    /// The program at `side` is an older one, which does not know records of many blocks: a hello of it
    /// may come late.
    pub fn set_old(&self, side: Side) {
        lock(&self.state).old[side] = true;
    }

    pub fn is_lossy(&self) -> bool {
        lock(&self.state).lossy.contains(&true)
    }

    /// `side` refused its peer: a promise is broken unless a disk or a line was faithless.
    pub fn refused(&self, side: Side, promise: &'static str, story: String) {
        if lock(&self.state).lossy[side] && story.contains("the peer ships") {
            return;
        }
        let is_too_old = ["know records of many blocks", "know differential mode"];
        if lock(&self.state).old[1 - side] && is_too_old.iter().any(|words| story.contains(words)) {
            return self.count("older programs refused");
        }
        // It got the newest one between its hello and its peer's, which no program does that runs.
        if lock(&self.state).old[1 - side]
            && story.contains("(wire feature 8), which was not agreed")
        {
            return self.count("upgrades amid a hello");
        }
        if story.contains("the two devices hold histories that have parted") {
            return self.count("branches refused");
        }
        let excused = self.is_faithless() && says_what_is_lost(&story);
        lock(&self.state).refused = true;
        if !excused {
            self.broken(promise, story);
        }
    }

    pub fn is_refused(&self) -> bool {
        lock(&self.state).refused
    }

    pub fn is_broken(&self) -> bool {
        lock(&self.state).broken.is_some()
    }

    /// Takes what the run came to: events, by sort, by name, and the broken promise.
    pub fn end(&self) -> (u64, [u64; 5], BTreeMap<&'static str, u64>, Option<Broken>) {
        let mut state = lock(&self.state);
        state.sink = None;
        (state.events, state.sorts, std::mem::take(&mut state.named), state.broken.take())
    }
}
