//! The line between the devices: two lanes, each in order, the one overtaking the other as the run
//! likes; frames arrive when they are let, or are lost when the line is cut.
//!
//! A connection is a line of its own: after a cut the devices get a new one. A cut loses what has
//! not arrived from some frame on, a different one in each lane and direction, and the ends learn
//! of it only when they have taken what did arrive.

use super::tape::{Sort, Tape};
use crate::error::{Error, Kind, Result};
use crate::format::frame::Frame;
use crate::link::{Lane, Link};
use crate::sync::{AtomicBool, Ordering::Relaxed, lock};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

pub(super) struct Wire {
    tape: Arc<Tape>,
    state: Mutex<State>,
}

struct State {
    up: bool,
    /// After a cut: whether frames vanish without a word until the end has noticed.
    silent: bool,
    taken: [bool; 2],
    /// By sender and lane.
    lanes: [[VecDeque<Vec<u8>>; 2]; 2],
    /// How many frames have arrived and may be taken, by sender and lane.
    arrived: [[usize; 2]; 2],
    /// Shipped frames that arrived at each end since they were asked for.
    taken_in: [Vec<Vec<u8>>; 2],
}

impl State {
    /// Bytes under way from `side` in `lane`.
    fn queued(&self, side: usize, lane: Lane) -> u64 {
        self.lanes[side][lane as usize].iter().map(|frame| frame.len() as u64).sum()
    }
}

impl Wire {
    pub fn new(tape: Arc<Tape>) -> Arc<Wire> {
        let state = State {
            up: true,
            silent: false,
            taken: [false; 2],
            lanes: Default::default(),
            arrived: Default::default(),
            taken_in: Default::default(),
        };
        Arc::new(Wire { tape, state: Mutex::new(state) })
    }

    pub fn is_up(&self) -> bool {
        lock(&self.state).up
    }

    /// The end at `side`, once.
    pub fn take_end(
        self: &Arc<Wire>,
        side: usize,
        dead: Arc<AtomicBool>,
        control_bytes_max: u64,
    ) -> Option<Arc<End>> {
        let taken = std::mem::replace(&mut lock(&self.state).taken[side], true);
        (!taken).then(|| Arc::new(End { wire: self.clone(), side, dead, control_bytes_max }))
    }

    pub fn is_taken(&self, side: usize) -> bool {
        lock(&self.state).taken[side]
    }

    /// Cuts the line: of the frames under way from each end in each lane so many still arrive.
    pub fn cut(&self, mut arrive: impl FnMut(usize) -> usize, silent: bool) {
        let mut state = lock(&self.state);
        if !state.up {
            return;
        }
        state.up = false;
        state.silent = silent;
        for lane in state.lanes.iter_mut().flatten() {
            lane.truncate(arrive(lane.len()));
        }
    }

    /// The shipped frames that have arrived at `side` since the last such call.
    pub fn taken_in(&self, side: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.state).taken_in[side])
    }

    /// Loses the oldest data frame under way to `side`; whether there was one.
    pub fn lose(&self, side: usize) -> bool {
        let mut state = lock(&self.state);
        state.up && state.lanes[1 - side][Lane::Data as usize].pop_front().is_some()
    }

    /// The sender repeats what has arrived at `side`: `frame` is under way to it before all else.
    pub fn repeat(&self, side: usize, frame: Vec<u8>) {
        let mut state = lock(&self.state);
        if state.up {
            state.lanes[1 - side][Lane::Data as usize].push_front(frame);
        }
    }

    /// Lets `count` more frames of `lane` arrive at `side`; how many there are to arrive.
    pub fn let_arrive(&self, side: usize, lane: Lane, count: usize) -> usize {
        let mut state = lock(&self.state);
        let (from, lane) = (1 - side, lane as usize);
        let under_way = state.lanes[from][lane].len();
        state.arrived[from][lane] = count.min(under_way);
        state.arrived[from][lane]
    }

    /// Whether `side` would find anything: a frame under way, or the news of a cut.
    pub fn has_news(&self, side: usize, lane: Lane) -> bool {
        let state = lock(&self.state);
        !state.up || !state.lanes[1 - side][lane as usize].is_empty()
    }
}

/// One end of a line, in the hands of a process.
pub(super) struct End {
    wire: Arc<Wire>,
    side: usize,
    /// Whether that process has died: it sends nothing more and hears nothing more.
    dead: Arc<AtomicBool>,
    /// With more than this in the control lane, a question or an answer brings the line down.
    control_bytes_max: u64,
}

impl End {
    /// Whether the control lane is too full for `frame`.
    fn overflows(&self, state: &State, lane: Lane, frame: &[u8]) -> bool {
        let is_paced = |frame| matches!(frame, Frame::ReadRequest { .. } | Frame::ReadReply { .. });
        let held = state.queued(self.side, lane);
        lane == Lane::Control
            && held > self.control_bytes_max
            && Frame::decode(frame).is_ok_and(|(_, frame)| is_paced(frame))
    }
}

fn no_peer() -> Error {
    Error::new(Kind::NoPeer, "the simulated line is cut")
}

impl Link for End {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        if self.dead.load(Relaxed) {
            return Err(no_peer());
        }
        let mut state = lock(&self.wire.state);
        if state.up && self.overflows(&state, lane, &frame) {
            drop(state);
            self.wire.cut(|_| 0, false);
            let (tape, name) = (&self.wire.tape, super::NAMES[self.side]);
            let story = format!("{name} overflows its control lane, and the line is down");
            tape.event(Sort::Fault, format_args!("{story}"));
            tape.broken("questions and answers wait until the lane takes them", story);
            return Err(no_peer());
        }
        match (state.up, state.silent) {
            (true, _) => state.lanes[self.side][lane as usize].push_back(frame),
            (false, true) => {}
            (false, false) => return Err(no_peer()),
        }
        Ok(())
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        if self.dead.load(Relaxed) {
            return Err(no_peer());
        }
        let mut state = lock(&self.wire.state);
        let (from, at) = (1 - self.side, lane as usize);
        if state.arrived[from][at] > 0
            && let Some(frame) = state.lanes[from][at].pop_front()
        {
            state.arrived[from][at] -= 1;
            if lane == Lane::Data {
                state.taken_in[self.side].push(frame.clone());
            }
            drop(state);
            let (name, bytes) = (super::NAMES[self.side], frame.len());
            self.wire.tape.event(Sort::Message, format_args!("{name} gets {lane:?} {bytes}"));
            return Ok(Some(frame));
        }
        match state.up || !state.lanes[from][at].is_empty() {
            true => Ok(None),
            false => Err(no_peer()),
        }
    }

    fn queued(&self, lane: Lane) -> u64 {
        lock(&self.wire.state).queued(self.side, lane)
    }

    fn wait(&self, lane: Lane, _timeout_ns: u64) -> bool {
        self.wire.has_news(self.side, lane)
    }

    /// Half of what is under way in each lane still arrives.
    fn close(&self) {
        if !self.dead.load(Relaxed) {
            self.wire.cut(|frames| frames / 2, false);
        }
    }
}
