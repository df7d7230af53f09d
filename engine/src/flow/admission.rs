//! Which requests may be admitted and served: those of the open tenure (R14) and of a session that is
//! not over (R20).
//!
//! A host's connection may die and come back by itself, and repeat what was not answered. So sessions
//! are numbered as they are opened, and each volume knows its *writer*: the highest number that has
//! written to it. The first write of a higher session raises it: requests of lower sessions that are not
//! admitted by then never are, and the session that was the writer until now is over. A session that
//! only reads ends no other session. The writer is volatile: no session outlives the process.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `Pass::state` | the thread that ends the session (CAS from open) | threads that admit or serve | Release/Acquire; `tail` of the own queue is touched behind the store, and taken before the load: a reservation that comes after it finds the session over (queue, rule 1) |
//! | `Writer::newest` | the first write of a higher session, under `holder` | threads that admit | the same |
//! | `Writers::opened` | the thread that opens a session | – | a counter |

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::moment::{Moment, moment};
use crate::sync::{AtomicU64, Ordering, lock};
use crate::unit::Block;
use crate::weaken::{Clause, holds, instead};
use std::sync::{Arc, Mutex};

/// The call of a session's owner when it is superseded: hang up on the host. It is called, and
/// dropped, under no lock of the engine.
pub(crate) type HangUp = Box<dyn FnOnce(Error) + Send>;

const OPEN: u64 = 0;
const REVOKED: u64 = 1;
const SUPERSEDED: u64 = 2;

/// A session's right to be served, shared by its clones and its requests under way.
pub(crate) struct Pass {
    /// The tenure under which it was opened.
    pub epoch: u64,
    /// Sessions of a device are numbered from 1 as they are opened.
    pub number: u64,
    state: AtomicU64,
    hang_up: Mutex<Option<HangUp>>,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} of tenure {}", self.number, self.epoch)
    }
}

impl Pass {
    /// Whether the session is not over.
    pub fn is_open(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            REVOKED => !holds(Clause::Revoked),
            SUPERSEDED => !holds(Clause::Writer),
            _ => true,
        }
    }

    /// Ends the session, unless it is over already; whether this call did.
    fn end(&self, state: u64) -> bool {
        let ended = self.state.compare_exchange(OPEN, state, Ordering::AcqRel, Ordering::Acquire);
        ended.is_ok()
    }

    /// Why it is over.
    fn over(&self) -> Error {
        let number = self.number;
        let what = match self.state.load(Ordering::Acquire) {
            REVOKED => format!("session {number} is over: its owner has revoked it"),
            _ => format!(
                "session {number} is over: a later one writes to its volume; the host has come back \
                 there"
            ),
        };
        Error::new(Kind::Superseded, what)
    }
}

/// The writer of a volume.
pub(crate) struct Writer {
    /// The number of the session in `holder`; 0 before the volume's first write.
    newest: AtomicU64,
    holder: Mutex<Option<Arc<Pass>>>,
    /// [`crate::limits::Settings::shared_volumes`]: a session that writes ends no other.
    shared: bool,
}

impl Writer {
    /// Whether a write by `pass` may be admitted in this moment: asked behind its reservation.
    pub fn admits(&self, pass: &Pass) -> bool {
        let is_newest = self.newest.load(Ordering::Acquire) <= pass.number;
        pass.is_open() && (is_newest || !holds(Clause::Writer))
    }

    /// Makes `pass` the writer, unless a higher one is. Returns the one before it.
    fn raise(&self, pass: &Arc<Pass>) -> Option<Arc<Pass>> {
        let mut holder = lock(&self.holder);
        if self.newest.load(Ordering::Acquire) >= pass.number {
            return None;
        }
        self.newest.store(pass.number, Ordering::Release);
        holder.replace(pass.clone())
    }
}

/// The writer of every volume of the group.
pub(crate) struct Writers {
    opened: AtomicU64,
    /// By number of the volume.
    volumes: Vec<(u32, Writer)>,
}

impl Writers {
    pub fn new(volumes: impl Iterator<Item = u32>, shared: &[u32]) -> Writers {
        let writer = |id: &u32| Writer {
            newest: AtomicU64::new(0),
            holder: Mutex::default(),
            shared: shared.contains(id),
        };
        let mut volumes: Vec<_> = volumes.map(|id| (id, writer(&id))).collect();
        volumes.sort_unstable_by_key(|&(id, _)| id);
        Writers { opened: AtomicU64::new(0), volumes }
    }

    /// The right of a new session.
    pub fn pass(&self, epoch: u64) -> Arc<Pass> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        let state = AtomicU64::new(OPEN);
        Arc::new(Pass { epoch, number, state, hang_up: Mutex::default() })
    }

    /// Drops the handlers of the sessions that write. To be called without a lock.
    pub fn drop_hang_ups(&self) {
        for (_, writer) in &self.volumes {
            let holder = lock(&writer.holder).clone();
            let hang_up = holder.and_then(|pass| lock(&pass.hang_up).take());
            drop(hang_up);
        }
    }

    fn of(&self, volume: u32) -> &Writer {
        let found = self.volumes.binary_search_by_key(&volume, |&(id, _)| id);
        &self.volumes[found.expect("the request was held against the volumes")].1
    }
}

impl Device {
    /// Refuses requests of a session that is over (R20), and of any tenure but the open one (R14).
    pub(crate) fn check_pass(&self, pass: &Pass) -> Result<()> {
        if !pass.is_open() {
            return Err(pass.over());
        }
        self.check_tenure(pass.epoch)
    }

    /// A write by `pass` is to be admitted to `volume` (R20): as its writer, which it becomes if no
    /// higher session is. The one before it is over then, and a lower one that writes is so too.
    ///
    /// # Errors
    /// [`Kind::Superseded`] if a higher session has written to the volume.
    pub(crate) fn claim(&self, volume: u32, pass: &Arc<Pass>) -> Result<&Writer> {
        let writer = self.host.writers.of(volume);
        if writer.shared || writer.newest.load(Ordering::Acquire) == pass.number {
            return Ok(writer);
        }
        if let Some(before) = writer.raise(pass) {
            self.supersede(&before);
        }
        if writer.newest.load(Ordering::Acquire) > pass.number && holds(Clause::Writer) {
            self.supersede(pass);
            return Err(pass.over());
        }
        Ok(writer)
    }

    /// Admits zeros for blocks that provably read as zeros already, for which there is no record (R17):
    /// nothing is owed, then nothing is live, then nothing is in N, in the open tenure. A record that the
    /// peer pays is live behind the first look, one that leaves its queue is in N behind the second, and
    /// the zeros of N are durable, as a zero record is live until the checkpoint behind its reflection. The
    /// request takes effect where the records are looked at.
    pub(crate) fn takes_no_record(
        &self,
        first: Block,
        blocks: u64,
        pass: &Pass,
        writer: &Writer,
    ) -> bool {
        let has_none = || {
            let has_none = self.is_quiet(first, blocks);
            moment(Moment::Looking);
            has_none
        };
        let is_zero = || {
            let is_zero = self.volumes.read_as_zeros(first, blocks);
            moment(Moment::Looking);
            is_zero
        };
        instead::records_then_volume(has_none, is_zero)
            && self.own.journal.queue.admits(&self.clk, pass.epoch, || writer.admits(pass))
    }

    /// Whether the content of these blocks is in N for certain, while this device serves: nothing is owed,
    /// then nothing is live.
    pub(crate) fn is_quiet(&self, first: Block, blocks: u64) -> bool {
        let (own, recv) = (&self.own.journal.queue, &self.peer.recv.journal.queue);
        let is_owed =
            self.peer.owed.may_be_of(first, blocks) || self.peer.machine.may_owe(first, blocks);
        !(is_owed || own.may_have(first, blocks) || recv.may_have(first, blocks))
    }

    /// `hang_up` is called once, as callbacks are, if the session of `pass` is superseded, or has been.
    pub(crate) fn on_hang_up(&self, pass: &Pass, hang_up: HangUp) {
        let before = lock(&pass.hang_up).replace(hang_up);
        drop(before);
        self.settle(pass);
    }

    fn supersede(&self, pass: &Pass) {
        self.end(pass, SUPERSEDED);
    }

    /// The owner of the session gives it up.
    pub(crate) fn revoke(&self, pass: &Pass) {
        self.end(pass, REVOKED);
    }

    /// Nothing more is admitted by `pass`, and what waits ends.
    fn end(&self, pass: &Pass, state: u64) {
        if !pass.end(state) {
            return;
        }
        // A reservation from here on finds the session over.
        self.own.journal.queue.horizon();
        self.host.turns.leave(pass.number);
        self.wakes.waiters.wake_all();
        self.settle(pass);
    }

    /// The handler of a session that is over is called, or dropped if its owner knows.
    fn settle(&self, pass: &Pass) {
        let state = pass.state.load(Ordering::Acquire);
        if state == OPEN {
            return;
        }
        let hang_up = lock(&pass.hang_up).take();
        if let Some(hang_up) = hang_up.filter(|_| state == SUPERSEDED) {
            self.host.calls.hang_up(hang_up, pass.over());
        }
    }
}
