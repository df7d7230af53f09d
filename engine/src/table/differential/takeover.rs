//! D4: takeover at any moment. The answerer's table is what the requester is owed.

use super::work::{Grant, Message, Ordered, Work};
use super::{Consistent, Differential, Mode, Round, Side};
use crate::table::bits::Bits;
use crate::weaken::{Clause, holds};

/// The state that a takeover request tells of. A requester of a lower lineage says M with it: its table,
/// and the blocks of R and L.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Its mode.
    pub mode: Mode,
    /// Its round.
    pub round: Round,
    /// The last tenure in which it was active.
    pub last_active: u64,
    /// Its lineage.
    pub generation: u64,
    /// The last announcement that it has heard in its round; 0 if none, or not all before it.
    pub told: u64,
}

/// The fate of a grant.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It does not fit the requester any more: it asks again.
    AskAgain,
    /// It is a prototype: the rules of ordered mode go on with it.
    Prototype,
    /// It is a table: the device serves after this.
    Table(Work),
}

impl Differential {
    /// A request of this device.
    pub fn request(&self) -> Request {
        let Differential { mode, round, last_active, generation, .. } = *self;
        Request { mode, round, last_active, generation, told: self.told.heard }
    }

    /// Whether a request is answered with a prototype: both keep order, in one round (D4).
    pub fn grants_prototype(&self, request: &Request) -> bool {
        let of_one_round = request.mode == Mode::Ordered && request.round == self.round;
        self.mode == Mode::Ordered && (of_one_round || !holds(Clause::GrantKind))
    }

    /// M: what differs here from the peer's history, if the peer was forced (D10).
    pub fn differing(&self, ordered: &Ordered) -> Bits {
        let mut m = Bits::default();
        if holds(Clause::AskWithTable) {
            m.add(&self.table);
            m.add(&self.flying);
            m.add(&ordered.unacknowledged);
            m.add(&ordered.unreflected);
        }
        m
    }

    /// The device, just fenced, answers a request (D4). Both in ordered mode and of one round: a prototype;
    /// else the table, which R and the blocks in flight are part of, beyond what was told: it is the blocks of
    /// [`Differential::untold`]. `m` is the requester's, if its lineage
    /// is lower; else empty.
    pub fn grant(&mut self, request: Request, m: &Bits, ordered: Ordered) -> Work {
        let sync = holds(Clause::FenceSync);
        if self.grants_prototype(&request) {
            let send = Some(Message::Grant(Grant::Prototype { round: self.round }));
            return Work { sync, send, ..Work::default() };
        }
        // In modes p and s every bit is in what is stored, or a live record above `cut` implies it: after a
        // restart that is enough (D8), so that the grant waits for no table to be written, and `cut` stays
        // where it is. Bits that a restart brings back beyond these are of blocks whose newest content both
        // devices had in this tenure: such a block is as one that was granted, and whose copy has come. In
        // the other modes R becomes bits, and M is stored nowhere yet.
        let mut keeps_table = matches!(self.mode, Mode::Collecting | Mode::Sending);
        if request.generation < self.generation {
            self.add_to_table(m);
            // M may have come with `opened`, too, and be in no table that is stored.
            keeps_table &= !holds(Clause::DifferingStored);
        }
        self.land();
        if holds(Clause::FenceTable) {
            self.add_to_table(&ordered.unacknowledged);
        }
        let told = if self.has_told(&request) { self.telling.said } else { 0 };
        self.told.give_up(&self.owed);
        let later = request.generation == self.generation && request.last_active > self.last_active;
        self.tell_anew(told > 0);
        self.enter(Mode::Collecting, self.round.max(request.round).next());
        if self.awaits_sync() {
            // The last copies are not durable here: a power cut may take them.
            self.consistent = Consistent::No;
        }
        (self.owed, self.owing) = (Bits::default(), false);
        if !keeps_table || !holds(Clause::KeptCut) {
            self.leave_order(&ordered.unreflected, ordered.newest);
        }
        let (round, generation) = (self.round, self.generation);
        let send = Some(Message::Grant(Grant::Table { round, generation, later, told }));
        Work { sync, leaves_order: true, store: !keeps_table, keeps_table, send, ..Work::default() }
    }

    /// The requester takes a grant that answers its open request (D4, R5), with the table that it has
    /// gathered, and is active from the tenure `epoch` on. The newer of the two has a block: the answerer,
    /// unless the requester was active later.
    pub fn take(&mut self, grant: Grant, mut granted: Bits, epoch: u64, ordered: Ordered) -> Taken {
        let fits = match grant {
            Grant::Prototype { round } => self.mode == Mode::Ordered && round == self.round,
            Grant::Table { round, told, .. } => {
                round > self.round && (told == 0 || told == self.told.heard)
            }
        };
        if !fits {
            return Taken::AskAgain;
        }
        self.last_active = epoch;
        let Grant::Table { round, generation, later, told } = grant else {
            return Taken::Prototype;
        };
        if told > 0 {
            let told = std::mem::take(&mut self.told.blocks);
            let beyond = std::mem::replace(&mut granted, told);
            granted.add(&beyond);
        }
        self.land();
        if self.generation < generation && holds(Clause::AskWithTable) {
            // The answerer has been told of it.
            self.table = Bits::default();
        } else {
            self.add_to_table(&ordered.unacknowledged);
        }
        if self.generation > generation && holds(Clause::GrantOfReturned) {
            self.add_to_table(&granted);
            granted = Bits::default();
        }
        self.generation = self.generation.max(generation);
        if later && holds(Clause::KeepLater) {
            granted.subtract(&self.table);
        } else if holds(Clause::PeerNewer) {
            self.table.subtract(&granted);
        }
        self.owed = granted;
        self.begin(Mode::Collecting, round);
        self.leave_order(&ordered.unreflected, ordered.newest);
        self.settle(Side::Active);
        Taken::Table(Work { leaves_order: true, store: true, ..Work::default() })
    }
}
