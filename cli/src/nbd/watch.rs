//! The one thread that watches all sockets of a server: it takes in new connections, notices those whose
//! host is gone, also while nothing is read from them (R20), sends what a socket did not take before, and
//! ends what has lasted long enough.

use super::Shared;
use super::stream::{Listener, Stream};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of the bell; those of listeners follow, then those of connections.
const BELL: u64 = 0;
pub(super) const LISTENERS: u64 = 1;

/// Where nothing can be taken in, for want of descriptors or threads, it is tried again after this time.
const PAUSE: Duration = Duration::from_millis(50);

/// The end of a connection shows by any of these; the first one is asked for.
const GONE: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// Watches the sockets.
pub(super) struct Watch {
    epoll: OwnedFd,
    bell: OwnedFd,
}

impl Watch {
    pub fn new() -> io::Result<Watch> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Watch { epoll, bell })
    }

    pub fn add_listener(&self, listener: impl AsFd, number: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, listener, EventData::new_u64(number), EventFlags::IN)?)
    }

    pub fn add(&self, stream: &Stream, id: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, EventData::new_u64(id), EventFlags::RDHUP)?)
    }

    /// Tells once when the socket takes more.
    pub fn await_room(&self, stream: &Stream, id: u64) {
        self.modify(stream, id, EventFlags::RDHUP | EventFlags::OUT);
        self.ring();
    }

    fn modify(&self, stream: &Stream, id: u64, flags: EventFlags) {
        // One that is not watched any more is over.
        let _ = epoll::modify(&self.epoll, stream, EventData::new_u64(id), flags);
    }

    pub fn remove(&self, stream: &Stream) {
        // The watch may have removed it.
        let _ = epoll::delete(&self.epoll, stream);
    }

    /// Deadlines are looked at once more.
    pub fn ring(&self) {
        // A bell that has been rung too often is heard all the same.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Watches until the server stops and no connection is left.
pub(super) fn watch(shared: &Arc<Shared>, listeners: &[Listener]) {
    let watch = &shared.watch;
    let mut events = Vec::with_capacity(64);
    while !shared.has_stopped() {
        let left = shared.expire(Instant::now()).map(|at| {
            // Rounded up, so that it is over then.
            at.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        if epoll::wait(&watch.epoll, spare_capacity(&mut events), left.as_ref()).is_err() {
            // Interrupted by a signal.
            continue;
        }
        for event in events.drain(..) {
            match event.data.u64() {
                BELL => drop(rustix::io::read(&watch.bell, &mut [0; 8])),
                number => match listeners.get((number - LISTENERS) as usize) {
                    Some(listener) if !shared.take_in(listener) => std::thread::sleep(PAUSE),
                    Some(_) => {}
                    None => ready(shared, number, event.flags),
                },
            }
        }
    }
}

fn ready(shared: &Shared, id: u64, flags: EventFlags) {
    let Some(connection) = shared.connection(id) else { return };
    if flags.intersects(GONE) {
        shared.watch.remove(&connection.stream);
        connection.cut();
    } else if flags.contains(EventFlags::OUT) {
        shared.watch.modify(&connection.stream, id, EventFlags::RDHUP);
        connection.has_room();
    }
}
