//! How many bytes of writes may wait to be admitted ([`Settings::waiting_bytes_max`]).
//!
//! A write that is admitted at once takes none of this room. One that must wait takes it until it
//! has been admitted or is over; if there is none, it is refused with [`Kind::Busy`], and a blocking
//! call waits in line for room ([`Key::Room`]). A request of several parts takes its room before its
//! first part is admitted, so that it is not refused half done.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `Room::held` | requests that begin or cease to wait | the same | AcqRel read-modify-write; a waiter enters [`Key::Room`] before it looks, and who gives room looks for waiters afterwards |
//!
//! [`Settings::waiting_bytes_max`]: crate::limits::Settings::waiting_bytes_max

use super::{Pending, Request, Session, Ticket};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::sync::{AtomicU64, Ordering};
use crate::wake::{Key, block_on};
use crate::weaken::{Clause, holds};
use std::ops::ControlFlow;

/// The bytes of memory of writes that wait to be admitted.
#[derive(Debug)]
pub(crate) struct Room {
    held: AtomicU64,
    most: u64,
}

impl Room {
    pub fn new(most: u64) -> Room {
        Room { held: AtomicU64::new(0), most }
    }

    /// Takes room for `bytes`. One request always has room if no other waits.
    ///
    /// # Errors
    /// [`Kind::Busy`].
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let mut held = self.held.load(Ordering::Acquire);
        loop {
            let after = held.saturating_add(bytes);
            if held > 0 && after > self.most && holds(Clause::WaitingBound) {
                let most = self.most;
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "writes of {held} bytes wait to be admitted, and {bytes} more would be above \
                         `waiting_bytes_max`, {most}: repeat the request when one of them is done"
                    ),
                ));
            }
            let taken =
                self.held.compare_exchange(held, after, Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => return Ok(()),
                Err(found) => held = found,
            }
        }
    }
}

impl Pending {
    /// It does not wait to be admitted any more.
    pub(super) fn give_room(&mut self, device: &Device) {
        let bytes = std::mem::take(&mut self.room);
        if bytes > 0 {
            device.host.room.held.fetch_sub(bytes, Ordering::AcqRel);
            device.wakes.waiters.wake_first(Key::Room);
        }
    }
}

impl Session {
    /// Submits a request; while it is refused for want of room, waits for that, for as long as a
    /// write may wait for a place.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub(super) fn submit_in_line<'a>(&self, request: impl Fn() -> Request<'a>) -> Result<Ticket> {
        let submit = || match self.submit(request()) {
            Err(error) if error.kind() == Kind::Busy => ControlFlow::Continue(error),
            submitted => ControlFlow::Break(submitted),
        };
        if let ControlFlow::Break(submitted) = submit() {
            return submitted;
        }
        let device = &*self.device;
        let waiters = &device.wakes.waiters;
        let number = waiters.number();
        let until = device.clock.monotonic().saturating_add(device.settings.admit_timeout_ns);
        let outcome = block_on(|waker| {
            waiters.enter(Key::Room, number, 0, waker);
            let busy = match submit() {
                ControlFlow::Break(submitted) => return ControlFlow::Break(submitted),
                ControlFlow::Continue(busy) => busy,
            };
            match until.saturating_sub(device.clock.monotonic()) {
                0 => ControlFlow::Break(Err(busy)),
                left => ControlFlow::Continue(Some(left)),
            }
        });
        waiters.leave(Key::Room, number);
        // It may have been woken for more room than it took.
        waiters.wake_first(Key::Room);
        outcome
    }
}
