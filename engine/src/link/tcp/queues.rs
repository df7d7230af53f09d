//! The two ends of a lane's queues: frames on their way to the writer, and from the reader.

use super::frames::HEARTBEAT;
use crate::sync::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Frames on their way out.
#[derive(Default)]
pub(super) struct Outgoing {
    state: Mutex<Out>,
    more: Condvar,
}

#[derive(Default)]
struct Out {
    is_down: bool,
    frames: VecDeque<Vec<u8>>,
    /// Bytes of all frames that have not left.
    bytes: u64,
}

/// A frame of so many bytes is copied, so that many go out together.
const SHORT: usize = 8 << 10;

/// Frames that the writer has taken.
#[derive(Default)]
pub(super) struct Taken {
    /// Bytes of frames that were copied.
    pub(super) short_bytes: u64,
    /// The frame behind them; it may be empty.
    pub(super) long: Vec<u8>,
}

impl Outgoing {
    /// Whether `frame` was taken: not by a lane that is down, nor beyond `most` bytes.
    pub(super) fn push(&self, frame: Vec<u8>, most: u64) -> bool {
        let mut out = lock(&self.state);
        if out.is_down || out.bytes + frame.len() as u64 > most {
            return false;
        }
        out.bytes += frame.len() as u64;
        out.frames.push_back(frame);
        drop(out);
        self.more.notify_one();
        true
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }

    /// Takes up to about `most` bytes of frames that are to be sent now: a copy of short ones behind their lengths
    /// in `plain`, and behind it, if there is one, a long frame. A heartbeat if nothing is there within
    /// `beat`; `None` once the lane is down.
    pub(super) fn take(&self, most: usize, beat: Duration, plain: &mut Vec<u8>) -> Option<Taken> {
        plain.clear();
        let idle = |out: &mut Out| !out.is_down && out.frames.is_empty();
        let waited = self.more.wait_timeout_while(lock(&self.state), beat, idle);
        let (mut out, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if out.is_down {
            return None;
        }
        if out.frames.is_empty() {
            plain.extend(HEARTBEAT);
        }
        let mut taken = Taken::default();
        while plain.len() < most
            && let Some(frame) = out.frames.pop_front()
        {
            plain.extend((frame.len() as u32).to_le_bytes());
            if frame.len() > SHORT {
                taken.long = frame;
                break;
            }
            plain.extend(&frame);
            taken.short_bytes += frame.len() as u64;
        }
        Some(taken)
    }

    /// So many bytes of frames have left.
    pub(super) fn left(&self, bytes: u64) {
        let mut out = lock(&self.state);
        out.bytes = out.bytes.saturating_sub(bytes);
    }

    /// Lets `time` pass; `false` once the lane is down.
    pub(super) fn pause(&self, time: Duration) -> bool {
        time.is_zero() || {
            let up = |out: &mut Out| !out.is_down;
            let waited = self.more.wait_timeout_while(lock(&self.state), time, up);
            !waited.unwrap_or_else(PoisonError::into_inner).0.is_down
        }
    }

    /// The lane is down: what has not left is lost.
    pub(super) fn close(&self) {
        *lock(&self.state) = Out { is_down: true, ..Out::default() };
        self.more.notify_all();
    }
}

/// Most bytes of frames that wait to be received; more stay in the socket, and then at the peer.
const ARRIVED_MAX: usize = 4 << 20;

/// Bytes of memory that a frame which waits counts for: an empty one takes some, too.
fn cost(frame: &[u8]) -> usize {
    frame.len() + 64
}

/// Frames that have arrived.
#[derive(Default)]
pub(super) struct Arrived {
    state: Mutex<In>,
    /// There is a frame, or the lane is down.
    news: Condvar,
    /// A frame was received, or the lane is down.
    room: Condvar,
}

#[derive(Default)]
struct In {
    is_down: bool,
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Arrived {
    /// Waits for room, and adds `frame`; `false` once the lane is down.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        let full = |arrived: &mut In| !arrived.is_down && arrived.bytes > ARRIVED_MAX;
        let waited = self.room.wait_while(lock(&self.state), full);
        let mut arrived = waited.unwrap_or_else(PoisonError::into_inner);
        if arrived.is_down {
            return false;
        }
        arrived.bytes += cost(&frame);
        arrived.frames.push_back(frame);
        drop(arrived);
        self.news.notify_all();
        true
    }

    /// The next frame, if there is one; an error once the lane is down and has none.
    pub(super) fn pop(&self) -> Result<Option<Vec<u8>>, ()> {
        let mut arrived = lock(&self.state);
        let Some(frame) = arrived.frames.pop_front() else {
            return if arrived.is_down { Err(()) } else { Ok(None) };
        };
        let was_full = arrived.bytes > ARRIVED_MAX;
        arrived.bytes -= cost(&frame);
        drop(arrived);
        if was_full {
            self.room.notify_one();
        }
        Ok(Some(frame))
    }

    /// Waits for a frame or the end of the lane; whether there is either.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let idle = |arrived: &mut In| !arrived.is_down && arrived.frames.is_empty();
        let waited = self.news.wait_timeout_while(lock(&self.state), most, idle);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The lane is down; what has arrived is kept or `forgotten`.
    pub(super) fn close(&self, forgotten: bool) {
        let mut arrived = lock(&self.state);
        arrived.is_down = true;
        if forgotten {
            *arrived = In { is_down: true, ..In::default() };
        }
        drop(arrived);
        self.news.notify_all();
        self.room.notify_all();
    }
}
