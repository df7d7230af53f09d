//! Space in the logs (R9): which places are held and which are free, what the peer may fill, and when
//! a log is so full that a checkpoint must not wait.
//!
//! A log's bytes are counted in places, one a record ([`crate::journal`] raises the queue's limit as
//! its ring comes free).
//!
//! | rule | where |
//! |---|---|
//! | a request takes all its places or none, before it reserves | `Queue::insert_with` |
//! | without a place a host's write waits, within bounds, and is not admitted | `flow/write.rs` |
//! | an own record holds its place while it is in R, in L, or above `fl`; a received one while it is in L, or above `fl` | [`Device::freeable`] |
//! | the peer may fill the places of the received log that are free: its credit | [`Device::credit`], `table/out.rs` |
//! | a received log with less than a quarter free, and an own one without room for the largest request, forces a checkpoint, if that frees something | [`Device::is_getting_full`] |
//! | a place is given up once the superblock no longer needs it | [`Device::free`] |

use crate::device::Device;
use crate::sync::lock;
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};

impl Device {
    /// How many records more the peer may ship.
    pub(crate) fn credit(&self) -> u64 {
        self.peer.recv.journal.queue.free()
    }

    /// The positions of the own and the received log before which a checkpoint may free, with N
    /// durable up to `fl` and R holding what is above `floor`.
    pub(super) fn freeable(&self, fl: Stamp, floor: Stamp) -> [Position; 2] {
        let mut upto = fl;
        if holds(Clause::HeldUntilAcknowledged) {
            upto = upto.min(floor);
        }
        [self.own_freeable(upto), self.recv_freeable(fl)]
    }

    /// Gives up the places before these positions of the own and the received log, which the
    /// superblock no longer needs. Returns whether the peer's credit grows.
    pub(super) fn free(&self, [own, recv]: [Position; 2]) -> bool {
        self.own.free(own);
        let grows = recv > self.peer.recv.journal.queue.freed();
        self.peer.recv.free(recv);
        grows
    }

    /// Fewer places of a journal are free than its reserve, and a checkpoint would free some.
    pub(super) fn is_getting_full(&self) -> bool {
        let [own_reserve, recv_reserve] = self.geometry.reserves();
        let (own, recv) = (&self.own.journal.queue, &self.peer.recv.journal.queue);
        if recv.free() >= recv_reserve && own.free() >= own_reserve {
            return false;
        }
        let (reflected, floor) = {
            let tables = lock(&self.tables);
            (tables.normal.reflected(), tables.out.floor())
        };
        if recv.free() < recv_reserve && recv.freed() < recv.tail() {
            let oldest = recv.freed();
            if recv.settled(oldest).is_some() && recv.stamp(oldest) <= reflected {
                return true;
            }
        }
        own.free() < own_reserve && {
            // Another checkpoint may free meanwhile.
            let freeable = self.own_freeable(reflected.min(floor)).saturating_sub(own.freed());
            freeable > 0 && freeable >= (own.tail() - own.freed()) / 4
        }
    }

    /// The position before which every own record is at or below `upto`: whole requests only, and
    /// never what the log's writer or the sequencer has yet to look at.
    fn own_freeable(&self, upto: Stamp) -> Position {
        let queue = &self.own.journal.queue;
        let sequenced = lock(&self.tables).own.settled();
        let bound = self.own.settled().min(sequenced);
        let mut position = queue.freed();
        while position < bound {
            let (_, count) = queue.group(position);
            let done = match queue.settled(position) {
                Some(false) => true,
                Some(true) => queue.stamp(position + count - 1) <= upto,
                None => false,
            };
            if !done || position + count > bound {
                break;
            }
            position += count;
        }
        position
    }

    /// The position before which every received record is at or below `upto`. The records say so:
    /// the table may have dropped newer ones, which went to the volumes meanwhile.
    fn recv_freeable(&self, upto: Stamp) -> Position {
        let queue = &self.peer.recv.journal.queue;
        let end = lock(&self.tables).incoming.next();
        let kept = |&position: &Position| queue.stamp(position) > upto;
        (queue.freed()..end).find(kept).unwrap_or(end)
    }
}
