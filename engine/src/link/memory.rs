//! A line within the process: two ends, a rate, a delay, and the means to hold and to cut it.
//!
//! # The model, for each direction
//! - The line carries one frame at a time. A frame begins to leave when the line is free, has left
//!   `length / rate` later, and arrives `delay` after that.
//! - Control overtakes: a control frame goes before every data frame that has not begun to leave,
//!   and those wait for as much longer as it takes. Which data frames have begun is worked out
//!   only in a call that sends, receives or waits, from the time at that moment, so that the answer is
//!   the same as if it were done all the time.
//! - A cut loses the frames that have not arrived. The others are still handed over, and then, once
//!   in each lane, the news that the link was down, even if it is up again by then: frames were
//!   lost between what came before and what comes after, and a reader must know.
//!
//! Time is the given clock's. Only sleeping is the operating system's, for a computed time; after
//! each sleep the clock is asked again. A line without rate and delay asks no clock at all to send
//! and receive.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Lane, Link};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// A line's rate and delay, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Bytes per second; `None` is without limit.
    pub rate: Option<u64>,
    /// Nanoseconds from the one end to the other.
    pub delay_ns: u64,
}

/// The two ends of a new line in memory.
///
/// # Panics
/// A rate of zero would deliver nothing, ever: use [`MemoryLink::hold`].
pub fn memory_link(line: Line, clock: Arc<dyn Clock>) -> (MemoryLink, MemoryLink) {
    assert!(line.rate != Some(0), "a line of rate 0 carries nothing");
    let wire = Arc::new(Wire { line, clock, directions: Default::default() });
    (MemoryLink { wire: wire.clone(), side: 0 }, MemoryLink { wire, side: 1 })
}

/// One end of a line in memory. A clone is the same end.
#[derive(Clone)]
pub struct MemoryLink {
    wire: Arc<Wire>,
    side: usize,
}

/// The line, which the two ends share.
struct Wire {
    line: Line,
    clock: Arc<dyn Clock>,
    /// By the side that sends.
    directions: [Direction; 2],
}

#[derive(Default)]
struct Direction {
    state: Mutex<State>,
    /// Rung when something changes that a sleeper would want to know.
    bell: Condvar,
}

/// Something at or on its way to the receiving end of a lane.
enum Event {
    /// A frame, and when it arrives.
    Frame(u64, Vec<u8>),
    /// The link was cut here.
    Cut,
}

/// One lane of one direction.
#[derive(Default)]
struct LaneState {
    /// Whether frames are kept back, and those that are.
    hold: bool,
    held: VecDeque<Vec<u8>>,
    /// The events that have begun to leave, in the order and with the times of arrival.
    events: VecDeque<Event>,
    /// Bytes of the frames that have not left.
    queued: u64,
    /// When each frame that has begun to leave will have left, and its bytes.
    leaving: VecDeque<(u64, u64)>,
}

/// One direction of the line.
#[derive(Default)]
struct State {
    down: bool,
    /// The line was cut, and this direction's sender has sent nothing since: it may not know.
    stale: bool,
    /// When the last frame that has begun to leave will have left.
    busy_until: u64,
    /// Data frames that have not begun to leave, and since when they wait.
    waiting: VecDeque<(u64, Vec<u8>)>,
    lanes: [LaneState; 2],
    /// Threads asleep until the bell; without any, it is not rung.
    sleepers: usize,
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    /// Puts `frame` on the line no earlier than `since`.
    fn depart(&mut self, line: Line, since: u64, lane: Lane, frame: Vec<u8>) {
        let left = self.busy_until.max(since).saturating_add(line.time(frame.len()));
        self.busy_until = left;
        let arrival = left.saturating_add(line.delay_ns);
        let lane = self.lane(lane);
        lane.leaving.push_back((left, frame.len() as u64));
        lane.events.push_back(Event::Frame(arrival, frame));
    }

    /// Lets every data frame depart whose turn has come by `now`.
    fn advance(&mut self, line: Line, now: u64) {
        while self.busy_until <= now
            && let Some((since, frame)) = self.waiting.pop_front()
        {
            self.depart(line, since, Lane::Data, frame);
        }
        for lane in &mut self.lanes {
            while let Some(&(left, bytes)) = lane.leaving.front()
                && left <= now
            {
                lane.queued -= bytes;
                lane.leaving.pop_front();
            }
        }
    }

    /// Takes a frame that is not held for the line.
    fn submit(&mut self, line: Line, now: u64, lane: Lane, frame: Vec<u8>) {
        match lane {
            Lane::Control => self.depart(line, now, lane, frame),
            Lane::Data => {
                self.waiting.push_back((now, frame));
                self.advance(line, now);
            }
        }
    }

    /// Whether `lane` has something to hand over at `now`.
    fn ready(&mut self, lane: Lane, now: u64) -> bool {
        match self.lane(lane).events.front() {
            Some(Event::Frame(arrival, _)) => *arrival <= now,
            Some(Event::Cut) => true,
            None => false,
        }
    }

    /// When the next frame of `lane` will arrive, as far as can be told now.
    fn next_arrival(&mut self, line: Line, lane: Lane) -> Option<u64> {
        if let Some(Event::Frame(arrival, _)) = self.lane(lane).events.front() {
            return Some(*arrival);
        }
        let (_, frame) = self.waiting.front().filter(|_| lane == Lane::Data)?;
        let left = self.busy_until.saturating_add(line.time(frame.len()));
        Some(left.saturating_add(line.delay_ns))
    }

    /// Loses what has not arrived by `now`, and notes it in both lanes.
    fn cut(&mut self, now: u64) {
        self.down = true;
        self.stale = true;
        self.waiting.clear();
        self.busy_until = 0;
        for lane in &mut self.lanes {
            lane.held.clear();
            lane.queued = 0;
            lane.leaving.clear();
            lane.events.retain(|event| match event {
                Event::Frame(arrival, _) => *arrival <= now,
                Event::Cut => true,
            });
            if !matches!(lane.events.back(), Some(Event::Cut)) {
                lane.events.push_back(Event::Cut);
            }
        }
    }
}

impl Line {
    /// How long the line is taken by `length` bytes.
    fn time(self, length: usize) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let ns = length as u128 * 1_000_000_000 / u128::from(rate);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

impl Wire {
    /// The time, or 0 on a line where nothing takes any.
    fn now(&self) -> u64 {
        if self.line == Line::default() { 0 } else { self.clock.monotonic() }
    }
}

impl Direction {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while this is held but a failed allocation, which ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlocks the state and wakes the threads that wait for a change of it.
    fn changed(&self, state: MutexGuard<'_, State>) {
        let sleepers = state.sleepers;
        drop(state);
        if sleepers > 0 {
            self.bell.notify_all();
        }
    }
}

fn no_peer() -> Error {
    Error::new(Kind::NoPeer, "the line in memory was cut: retry when it is restored")
}

impl MemoryLink {
    /// The direction in which this end sends.
    fn outward(&self) -> &Direction {
        &self.wire.directions[self.side]
    }

    /// The direction in which this end receives.
    fn inward(&self) -> &Direction {
        &self.wire.directions[1 - self.side]
    }

    /// Keeps back the frames that this end sends in `lane` from now on, or lets go those kept
    /// back, in their order, as if they were sent now.
    pub fn hold(&self, lane: Lane, on: bool) {
        let direction = self.outward();
        let mut state = direction.state();
        let now = self.wire.now();
        state.advance(self.wire.line, now);
        state.lane(lane).hold = on;
        if !on {
            for frame in std::mem::take(&mut state.lane(lane).held) {
                state.submit(self.wire.line, now, lane, frame);
            }
        }
        direction.changed(state);
    }

    /// Cuts the line for both ends. Frames that have not arrived are lost, held ones included.
    pub fn cut(&self) {
        for direction in &self.wire.directions {
            let mut state = direction.state();
            let now = self.wire.now();
            state.advance(self.wire.line, now);
            state.cut(now);
            direction.changed(state);
        }
    }

    /// Restores the line after [`MemoryLink::cut`]. An end that has not noticed the cut is told
    /// by its next receipt in either lane; see the module.
    pub fn restore(&self) {
        for direction in &self.wire.directions {
            direction.state().down = false;
        }
    }

    /// How many frames this end has sent in `lane` that the other has not received yet, held ones
    /// included.
    pub fn in_flight(&self, lane: Lane) -> usize {
        let mut state = self.outward().state();
        let waiting = if lane == Lane::Data { state.waiting.len() } else { 0 };
        let lane = state.lane(lane);
        let frames = lane.events.iter().filter(|event| matches!(event, Event::Frame(..))).count();
        waiting + lane.held.len() + frames
    }
}

impl std::fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.wire.line;
        f.debug_struct("MemoryLink").field("line", &line).field("side", &self.side).finish()
    }
}

impl Link for MemoryLink {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        let direction = self.outward();
        let mut state = direction.state();
        if state.down {
            return Err(no_peer());
        }
        state.stale = false;
        state.lane(lane).queued += frame.len() as u64;
        if state.lane(lane).hold {
            state.lane(lane).held.push_back(frame);
            return Ok(());
        }
        let now = self.wire.now();
        state.advance(self.wire.line, now);
        state.submit(self.wire.line, now, lane, frame);
        direction.changed(state);
        Ok(())
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        let mut state = self.inward().state();
        let now = self.wire.now();
        state.advance(self.wire.line, now);
        if !state.ready(lane, now) {
            return if state.down { Err(no_peer()) } else { Ok(None) };
        }
        match state.lane(lane).events.pop_front() {
            Some(Event::Frame(_, frame)) => Ok(Some(frame)),
            Some(Event::Cut) | None => Err(no_peer()),
        }
    }

    fn queued(&self, lane: Lane) -> u64 {
        let mut state = self.outward().state();
        let now = self.wire.now();
        state.advance(self.wire.line, now);
        state.lane(lane).queued
    }

    /// Waits as the trait says. The news of a cut counts as something that has arrived: the next
    /// receipt gives it. After that the time-out is waited for.
    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        let direction = self.inward();
        let mut state = direction.state();
        // Slept time is taken off what is left even if the clock, a simulator's, did not move.
        let mut left = timeout_ns;
        let mut began = None;
        loop {
            let now = self.wire.now();
            state.advance(self.wire.line, now);
            if state.ready(lane, now) {
                return true;
            }
            if left == 0 {
                return false;
            }
            let time = self.wire.clock.monotonic();
            let deadline = began.get_or_insert(time).saturating_add(timeout_ns);
            left = left.min(deadline.saturating_sub(time));
            let arrival = state.next_arrival(self.wire.line, lane);
            let sleep = left.min(arrival.map_or(u64::MAX, |arrival| arrival.saturating_sub(now)));
            if sleep == 0 {
                // Out of time by the clock: look once more, then give up.
                left = 0;
                continue;
            }
            state.sleepers += 1;
            let slept = direction.bell.wait_timeout(state, Duration::from_nanos(sleep));
            let (woken, timed_out) = slept.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.sleepers -= 1;
            if timed_out.timed_out() {
                left -= sleep;
            }
        }
    }

    /// Cuts the line, unless it was cut and restored and this end has not sent anything since: then
    /// the line that this end had is gone already.
    fn close(&self) {
        let is_stale = self.outward().state().stale;
        if !is_stale {
            self.cut();
        }
    }
}
