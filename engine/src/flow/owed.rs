//! The debt of one peer (`pend`, R5, R18) as hosts' reads find it (R7): beside the tables, under a lock
//! of its own, so that no read waits for a step.

use crate::sync::{AtomicBool, Ordering};
use crate::table::prototype::Debt;
use crate::unit::{Block, Extent, Stamp};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The debt of one peer.
pub(crate) struct Owed {
    /// The debt, as far as the peer has told (R18); complete while this device is active. A step that
    /// changes it locks the tables first. Entries are added while this device is fenced only.
    debt: RwLock<Debt>,
    /// Whether `debt` needs to be asked at all: `hi < need`, while active. Release/Acquire: a reader
    /// that finds it cleared finds those records, or a tenure that is over.
    is_due: AtomicBool,
}

impl Owed {
    /// Begins with the `debt` told before the opening. The device does not serve yet.
    pub fn new(debt: Debt) -> Owed {
        Owed { debt: RwLock::new(debt), is_due: AtomicBool::new(false) }
    }

    /// The newest stamp that the peer owes for `block`, while this device serves.
    pub fn of(&self, block: Block) -> Option<Stamp> {
        if self.is_due() { self.told().owed(block) } else { None }
    }

    /// Whether the peer may owe any of the `blocks` blocks from `first` on, while this device serves.
    pub fn may_be_of(&self, first: Block, blocks: u64) -> bool {
        self.is_due() && self.told().may_owe(first, blocks)
    }

    /// Whether this device serves and something is owed.
    pub fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    /// The debt, locked for reading.
    pub fn told(&self) -> RwLockReadGuard<'_, Debt> {
        self.debt.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The debt, locked for reading; `None` while a step changes it.
    pub fn try_told(&self) -> Option<RwLockReadGuard<'_, Debt>> {
        self.debt.try_read().ok()
    }

    /// Takes a piece of what the peer tells: as [`Debt::extend`], or, where `left` more may follow
    /// before it is asked for, as [`Debt::append`], with room for them.
    ///
    /// # Errors
    /// As [`Debt::extend`].
    pub fn tell(
        &self,
        previous: Stamp,
        piece: &[(Extent, Stamp)],
        left: Option<u64>,
        hi: Stamp,
        most: u64,
    ) -> Result<(), String> {
        let mut debt = self.debt_mut();
        match left {
            Some(left) => {
                debt.reserve(left.min(most));
                debt.append(previous, piece, hi, most)
            }
            None => debt.extend(previous, piece, hi, most),
        }
    }

    /// The next piece is the last one of a prototype.
    pub fn end_pieces(&self) {
        self.debt_mut().end_pieces();
    }

    /// A takeover has merged what was told, before its tenure opens (R5); `due`: `hi < need`.
    pub fn begin(&self, due: bool) {
        self.is_due.store(due, Ordering::Release);
    }

    /// A fence: hosts read nothing here any more. The debt stays known (R18).
    pub fn end(&self) {
        self.is_due.store(false, Ordering::Release);
    }

    /// Everything up to `hi` has arrived and is published, and `is_behind` says whether any of what
    /// is owed is still missing. Returns whether the last of it has arrived now. The caller holds
    /// the tables, as a takeover does that begins the next debt.
    pub fn pay(&self, hi: Stamp, is_behind: bool) -> bool {
        self.told().pay(hi);
        let is_due = self.is_due();
        debug_assert!(!is_due || is_behind != self.told().is_empty(), "I5");
        let caught_up = is_due && !is_behind;
        if caught_up {
            self.end();
            self.debt_mut().sweep();
        }
        caught_up
    }

    /// Bits tell of what the peer owes from now on: what it told of before is forgotten (D1).
    pub fn forget(&self) {
        self.end();
        *self.debt_mut() = Debt::default();
    }

    fn debt_mut(&self) -> RwLockWriteGuard<'_, Debt> {
        self.debt.write().unwrap_or_else(PoisonError::into_inner)
    }
}
