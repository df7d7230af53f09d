//! The two ends of a lane's queues: frames on their way to the writer, and from the reader.

use super::frames::{HEARTBEAT, PREFIX};
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
    /// Bytes of the first frame, its length included, that the writer has taken.
    taken: usize,
    /// Bytes of all frames that have not left.
    bytes: u64,
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

    /// Puts up to `most` bytes of frames and their lengths into `plain`; a heartbeat if there is none
    /// within `beat`. How many of them are the frames' own; `None` once the lane is down.
    pub(super) fn take(&self, most: usize, beat: Duration, plain: &mut Vec<u8>) -> Option<u64> {
        plain.clear();
        let idle = |out: &mut Out| !out.is_down && out.frames.is_empty();
        let waited = self.more.wait_timeout_while(lock(&self.state), beat, idle);
        let (mut guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let out = &mut *guard;
        if out.is_down {
            return None;
        }
        if out.frames.is_empty() {
            plain.extend(HEARTBEAT);
        }
        let mut own = 0;
        while let Some(frame) = out.frames.front()
            && plain.len() < most
        {
            if out.taken == 0 {
                plain.extend((frame.len() as u32).to_le_bytes());
                out.taken = PREFIX;
            }
            let rest = &frame[out.taken - PREFIX..];
            let now = &rest[..rest.len().min(most.saturating_sub(plain.len()))];
            plain.extend(now);
            own += now.len() as u64;
            out.taken += now.len();
            if now.len() == rest.len() {
                out.frames.pop_front();
                out.taken = 0;
            }
        }
        Some(own)
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
        arrived.bytes += frame.len();
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
        arrived.bytes -= frame.len();
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
