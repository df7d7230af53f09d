//! N: how far own and received records have gone to the normal volumes in their one stamp order,
//! and how far they may go (R5, R8, I7).

use super::own::Own;
use super::unreflected::Index;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// The cursors of N.
pub(crate) struct Normal {
    /// The next own record to reflect.
    own_reflected: Index,
    /// Highest stamp reflected.
    reflected: Stamp,
    /// N may hold what is up to here: `reflected`, or after an opening all that was found, of which
    /// any part may have gone to N before.
    reach: Stamp,
    /// Records reflected since the last checkpoint.
    since_checkpoint: u64,
    /// Newest stamp owed or received when this device last became active.
    need: Stamp,
    /// Newest record that could be in N when `need` was last raised: N was a prefix up to it.
    whole: Stamp,
}

impl Normal {
    /// With everything up to `fl` in N.
    pub fn new(fl: Stamp, need: Stamp, whole: Stamp) -> Normal {
        Normal { own_reflected: 0, reflected: fl, reach: fl, since_checkpoint: 0, need, whole }
    }

    /// After an opening that found records up to `newest`.
    pub fn found(&mut self, newest: Stamp) {
        self.reach = self.reach.max(newest);
    }

    /// After an opening, `own` being what was found: what is in N already is not reflected again.
    pub fn begin(&mut self, own: &Own) {
        self.own_reflected = own.records().after(self.reflected);
    }

    /// The next own record to reflect.
    pub fn first_own(&self) -> Index {
        self.own_reflected
    }

    /// Highest stamp reflected.
    pub fn reflected(&self) -> Stamp {
        self.reflected
    }

    /// N holds nothing newer than this, unless a reflection is under way.
    pub fn reach(&self) -> Stamp {
        self.reach
    }

    /// Records reflected since the last checkpoint.
    pub fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    /// Newest stamp owed or received when this device last became active.
    pub fn need(&self) -> Stamp {
        self.need
    }

    /// Newest record that could be in N when `need` was last raised.
    pub fn whole(&self) -> Stamp {
        self.whole
    }

    /// The device takes the host over, and the peer owes what is up to `need` (R5). N was a prefix
    /// of history as long as nothing was owed, however far reflection had come: every record here,
    /// of which `newest` is the newest own one, could go there, so all of them are `whole`.
    pub fn raise_need(&mut self, need: Stamp, hi: Stamp, newest: Stamp) {
        if hi >= self.need {
            // It is fl, or the stamp of a record, and so never above the newest record.
            self.whole = self.whole.max(self.reflected);
            if holds(Clause::WholeOfRecords) {
                self.whole = self.whole.max(newest).max(hi);
            }
        }
        self.need = need;
    }

    /// Nothing is needed any more: what the peer owes, bits tell of, and every record may go to N (D1).
    pub fn leave_order(&mut self) {
        self.need = Stamp::ZERO;
        // A checkpoint frees the places that R held, though nothing is reflected before it.
        self.since_checkpoint = self.since_checkpoint.max(1);
    }

    /// N has every record, own and received, and none up to `stamp` will come any more (D3).
    pub fn raise(&mut self, stamp: Stamp) {
        self.reflected = self.reflected.max(stamp);
        self.reach = self.reach.max(stamp);
    }

    /// The newest record that may go to N now (R8), with everything up to `hi` received.
    pub fn reflectable(&self, hi: Stamp) -> Stamp {
        if hi >= self.need || !holds(Clause::OnePathInOrder) {
            return Stamp::MAX;
        }
        let mut newest = hi;
        if holds(Clause::Whole) {
            newest = newest.max(self.whole);
        }
        newest
    }

    /// `count` records, up to `upto`, are in N; of the own ones those before `own` (I7).
    pub fn reflect(&mut self, own: Index, upto: Stamp, count: u64) {
        let rises = upto > self.reflected || !holds(Clause::ReplayAboveCheckpoint);
        assert!(rises, "I7: {upto} reflected after {}", self.reflected);
        self.reflected = upto.max(self.reflected);
        self.reach = self.reach.max(upto);
        self.own_reflected = own;
        self.since_checkpoint += count;
    }

    /// A checkpoint begins; it makes N durable up to the stamp returned.
    pub fn checkpoint(&mut self) -> Stamp {
        self.since_checkpoint = 0;
        self.reflected
    }
}
