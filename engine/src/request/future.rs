//! How a ticket waits: as a [`Future`], in a parked thread, or with a callback. All three enter a
//! waker where the thing that they wait for happens ([`crate::wake`]).

use super::{Completion, Pending, State, Ticket};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::flow::admission::HangUp;
use crate::limits::Durability;
use crate::sync::{AtomicBool, Ordering, lock};
use crate::wake::{Bell, Key, block_on};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Takes the outcome of a request.
pub(crate) type Callback = Box<dyn FnOnce(Result<Completion>) + Send>;

/// The thing that a request waits for when it cannot go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    /// `None`: it goes on by itself, once others have had their turn.
    pub key: Option<Key>,
    /// When it looks again anyway, on the monotonic clock.
    pub until: Option<u64>,
    /// How many places, for [`Key::Places`].
    pub places: u64,
}

impl Awaited {
    fn until_woken(key: Key) -> Awaited {
        Awaited { key: Some(key), until: None, places: 0 }
    }
}

/// The place of a request in the lists of waiters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    /// Kept as long as the request waits: of those that wait for places the lowest number comes first.
    number: u64,
    key: Key,
    until: Option<u64>,
}

impl Pending {
    /// The thing that it waits for now; `None` if it is done.
    fn awaited(&self, device: &Device) -> Option<Awaited> {
        match &self.state {
            State::Write { parts, .. } => parts.front().map(|part| part.awaited),
            State::Read(read) => Some(read.awaited(device)),
            State::Round(round) => Some(Awaited::until_woken(Key::Round(*round))),
            State::Written => Some(Awaited::until_woken(Key::Written)),
            State::Done(_) | State::Taken => None,
        }
    }

    /// Goes as far as it can; if there is no outcome, `waker` is woken when it can go further. With
    /// `is_timed` that includes the end of its time, of which [`Device::step_calls`] takes care.
    fn poll_with(
        &mut self,
        device: &Device,
        waker: &Waker,
        is_timed: bool,
    ) -> Poll<Result<Completion>> {
        loop {
            self.advance(device);
            if let Some(outcome) = self.take() {
                self.leave(device);
                return Poll::Ready(outcome);
            }
            match self.awaited(device) {
                Some(Awaited { key: Some(key), until, places }) => {
                    if !self.enter(device, key, places, until.filter(|_| is_timed), waker) {
                        return Poll::Pending;
                    }
                }
                Some(Awaited { key: None, .. }) => {
                    self.leave(device);
                    waker.wake_by_ref();
                    return Poll::Pending;
                }
                None => return Poll::Pending, // the outcome was taken before
            }
        }
    }

    /// Stands where `key` is waited for, and nowhere else. Whether it has come there just now, and
    /// must look again.
    fn enter(
        &mut self,
        device: &Device,
        key: Key,
        places: u64,
        until: Option<u64>,
        waker: &Waker,
    ) -> bool {
        let waiters = &device.wakes.waiters;
        let before = self.stand;
        let number = before.map_or_else(|| waiters.number(), |stand| stand.number);
        if let Some(stand) = before {
            if stand.key != key {
                waiters.leave(stand.key, number);
            }
            if let Some(time) = stand.until.filter(|_| stand.until != until) {
                waiters.leave(Key::Time(time), number);
            }
        }
        self.stand = Some(Stand { number, key, until });
        let mut is_new = waiters.enter(key, number, places, waker);
        if let Key::Round(round) = key {
            device.own.want(round);
        }
        if let Some(time) = until {
            is_new |= waiters.enter(Key::Time(time), number, 0, waker);
            if waiters.next_time() == Some(time) {
                device.host.calls.bell.ring();
            }
        }
        if is_new && before.is_some_and(|stand| stand.key == Key::Places) {
            // It was woken for places and did not get them: they are for the next in line.
            device.give_up_places(number);
        }
        is_new
    }

    /// Leaves the lists of waiters.
    pub(super) fn leave(&mut self, device: &Device) {
        let Some(Stand { number, key, until }) = self.stand.take() else { return };
        device.wakes.waiters.leave(key, number);
        if let Some(time) = until {
            device.wakes.waiters.leave(Key::Time(time), number);
        }
        if key == Key::Places {
            device.give_up_places(number);
        }
    }

    /// As [`Ticket::wait`].
    pub(super) fn wait(&mut self, device: &Device) -> Result<Completion> {
        loop {
            self.advance(device);
            if let Some(outcome) = self.take() {
                self.leave(device);
                return outcome;
            }
            if let State::Round(round) = self.state {
                let strict = device.settings.durability == Durability::Strict;
                let done = device.lead_round(round, strict);
                self.state = State::Done(done.err());
                continue;
            }
            if let State::Written = self.state {
                let done = device.own.write_out(true).map_err(|e| device.halt(e));
                self.state = State::Done(done.err());
                continue;
            }
            let outcome = block_on(|waker| {
                if let Poll::Ready(outcome) = self.poll_with(device, waker, false) {
                    return ControlFlow::Break(Some(outcome));
                }
                match self.awaited(device) {
                    Some(Awaited { key: Some(Key::Round(_) | Key::Written), .. }) => {
                        ControlFlow::Break(None)
                    }
                    Some(Awaited { key: None, .. }) => {
                        std::thread::yield_now();
                        ControlFlow::Continue(Some(0))
                    }
                    Some(Awaited { until: Some(until), .. }) => {
                        let left = until.saturating_sub(device.clock.monotonic());
                        ControlFlow::Continue(Some(left))
                    }
                    _ => ControlFlow::Continue(None),
                }
            });
            match outcome {
                Some(outcome) => return outcome,
                None => self.leave(device),
            }
        }
    }
}

#[cfg(feature = "simulate")]
impl Ticket {
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether it is delayed because the journal is filling.
    pub(crate) fn is_paced(&self) -> bool {
        self.pending.stand.is_some_and(|stand| stand.key == Key::Paced)
    }

    /// Whether it may be done without having been woken: others come first for the places that are
    /// free, or the block has come by itself, and the answer is still to come.
    pub(crate) fn may_sleep(&self) -> bool {
        match self.pending.stand.map(|stand| stand.key) {
            Some(Key::Places) => self.device.wakes.waiters.in_line() > 1,
            Some(Key::Reply(number)) => !self.device.is_answered(number),
            _ => false,
        }
    }
}

impl Future for Ticket {
    type Output = Result<Completion>;

    /// The outcome (S1010, S1607), once. It leads no commit, the background does. Its time-outs are
    /// kept by [`Device::step_calls`]. The waker may be called under locks of the engine: it
    /// arranges for the next poll and does no more.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Completion>> {
        let Ticket { device, pending } = self.get_mut();
        pending.poll_with(device, context.waker(), true)
    }
}

/// The callbacks that were woken, and the handlers of sessions that were superseded.
#[derive(Default)]
pub(crate) struct Calls {
    woken: Mutex<VecDeque<Woken>>,
    /// There is one, or a ticket waits for an earlier moment than all others.
    pub bell: Bell,
}

/// A call that is to be made under no lock.
pub(crate) enum Woken {
    /// If the request has an outcome.
    Request(Arc<Call>),
    HangUp(HangUp, Error),
}

impl Calls {
    /// Those that have been woken up to now; they are woken again if they wait for more.
    pub fn take(&self) -> VecDeque<Woken> {
        std::mem::take(&mut *lock(&self.woken))
    }

    /// A session is over for this reason.
    pub fn hang_up(&self, hang_up: HangUp, why: Error) {
        self.push(Woken::HangUp(hang_up, why));
    }

    fn push(&self, woken: Woken) {
        lock(&self.woken).push_back(woken);
        self.bell.ring();
    }
}

impl Woken {
    /// Whether the call was made.
    pub fn try_finish(self, device: &Device) -> bool {
        match self {
            Woken::Request(call) => call.try_finish(device),
            Woken::HangUp(hang_up, why) => make(|| hang_up(why)),
        }
    }

    /// The device is gone.
    pub fn end(self, error: &Error) {
        match self {
            Woken::Request(call) => call.end(error),
            Woken::HangUp(hang_up, why) => _ = make(|| hang_up(why)),
        }
    }
}

/// Makes a call of the caller's. A panic there is its own and has been reported by the panic hook:
/// nothing of the device's state is in doubt.
fn make(call: impl FnOnce()) -> bool {
    let _ = catch_unwind(AssertUnwindSafe(call));
    true
}

/// A request with a callback. Its waker owns it.
pub(crate) struct Call {
    calls: Arc<Calls>,
    /// Whether it is in `calls`.
    is_woken: AtomicBool,
    waits: Mutex<Option<(Pending, Callback)>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let calls = self.calls.clone();
            calls.push(Woken::Request(self));
        }
    }
}

impl Call {
    /// Calls `callback` once the request has an outcome, at once if it has.
    pub fn begin(device: &Device, pending: Pending, callback: Callback) {
        let waits = Mutex::new(Some((pending, callback)));
        let calls = device.host.calls.clone();
        Arc::new(Call { calls, is_woken: AtomicBool::new(false), waits }).try_finish(device);
    }

    /// Whether the callback was called.
    pub fn try_finish(self: &Arc<Self>, device: &Device) -> bool {
        let mut waits = lock(&self.waits);
        // Cleared under the lock: a wake from here on puts the call into `calls` again.
        self.is_woken.swap(false, Ordering::AcqRel);
        let Some((pending, _)) = &mut *waits else { return false };
        let waker = Waker::from(self.clone());
        let Poll::Ready(outcome) = pending.poll_with(device, &waker, true) else { return false };
        let (_, callback) = waits.take().expect("just seen");
        drop(waits);
        make(|| callback(outcome))
    }

    /// The device is gone.
    pub fn end(&self, error: &Error) {
        let waits = lock(&self.waits).take();
        if let Some((_, callback)) = waits {
            make(|| callback(Err(error.clone())));
        }
    }
}
