//! A line that does what a line in memory does not: delay frames of one kind in the control lane,
//! where the order of frames in a lane would otherwise leave no room for a race, refuse to send while
//! what has arrived is still handed over, send data twice, and keep the receiver waiting.

use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::format::frame::Frame;
use afterimage::internal::link::{Lane, Link, MemoryLink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether a frame is kept back.
pub type Kept = fn(&Frame<'_>) -> bool;

/// One end; what it sends is kept back, what it receives is not.
pub struct Gate {
    end: MemoryLink,
    kept: Mutex<(Option<Kept>, Vec<Vec<u8>>)>,
    /// Whether sending fails.
    pub broken: AtomicBool,
    /// Whether every data frame is sent twice.
    pub twice: AtomicBool,
    /// The call made when data is looked for next.
    looked: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Gate {
    pub fn new(end: MemoryLink) -> Gate {
        let no = || AtomicBool::new(false);
        Gate { end, kept: Mutex::default(), broken: no(), twice: no(), looked: Mutex::default() }
    }

    /// Keeps back the control frames that `kept` names, from now on.
    pub fn keep(&self, kept: Kept) {
        self.kept.lock().unwrap().0 = Some(kept);
    }

    /// Runs `hook` when data is looked for next.
    pub fn when_looked(&self, hook: impl FnOnce() + Send + 'static) {
        *self.looked.lock().unwrap() = Some(Box::new(hook));
    }

    /// How many frames are kept back.
    pub fn held(&self) -> usize {
        self.kept.lock().unwrap().1.len()
    }

    /// Sends what was kept back.
    pub fn release(&self) {
        let (kept, frames) = std::mem::take(&mut *self.kept.lock().unwrap());
        assert!(kept.is_some());
        frames.into_iter().for_each(|frame| self.end.send(Lane::Control, frame).unwrap());
    }
}

impl Link for Gate {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        if self.broken.load(SeqCst) {
            return Err(Error::new(Kind::NoPeer, "broken"));
        }
        let mut kept = self.kept.lock().unwrap();
        let decoded = Frame::decode(&frame).unwrap().1;
        if lane == Lane::Control && kept.0.is_some_and(|keeps| keeps(&decoded)) {
            kept.1.push(frame);
            return Ok(());
        }
        if lane == Lane::Data && self.twice.load(SeqCst) {
            self.end.send(lane, frame.clone())?;
        }
        self.end.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        let hook = self.looked.lock().unwrap().take_if(|_| lane == Lane::Data);
        hook.into_iter().for_each(|hook| hook());
        self.end.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.end.queued(lane)
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.end.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.end.close();
    }
}
