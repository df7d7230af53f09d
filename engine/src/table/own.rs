//! Own records, durable and final, in stamp order: every R and L read them here, and each record
//! stands here once.

use super::unreflected::{Index, Unreflected};
use crate::queue::{Clk, Queue, Sequencer};
use crate::unit::{Position, Stamp};

/// The table of own records, and what fills it from their queue.
pub(crate) struct Own {
    sequencer: Sequencer,
    records: Unreflected,
    /// The newest record there was since the opening.
    newest: Stamp,
}

impl Own {
    /// Without records; they will begin at `first`.
    pub fn new(first: Position) -> Own {
        Own {
            sequencer: Sequencer::new(first),
            records: Unreflected::default(),
            newest: Stamp::ZERO,
        }
    }

    /// Takes from the queue, in stamp order, what nothing can come before any more and `ready`
    /// accepts (S1604, S1606; R2); returns it.
    pub fn take(
        &mut self,
        queue: &Queue,
        clk: &Clk,
        ready: impl Fn(Position) -> bool,
    ) -> Vec<(Stamp, Position)> {
        let mut taken = Vec::new();
        self.sequencer.take(queue, clk, ready, &mut taken);
        for &(stamp, position) in &taken {
            self.records.push(stamp, position);
            self.newest = stamp;
        }
        taken
    }

    /// The records that R or L still needs.
    pub fn records(&self) -> &Unreflected {
        &self.records
    }

    /// The newest record there was since the opening, those that it found included.
    pub fn newest(&self) -> Stamp {
        self.newest
    }

    /// The newest record that was published by the last look at the queue, final or not.
    pub fn newest_published(&self) -> Stamp {
        self.sequencer.newest_pending().unwrap_or_default().max(self.newest)
    }

    /// Whether everything published is here.
    pub fn is_complete(&self) -> bool {
        self.sequencer.is_empty()
    }

    /// Every position below this was looked at.
    pub fn settled(&self) -> Position {
        self.sequencer.settled()
    }

    /// Drops what neither R nor L needs any more.
    pub fn drop_before(&mut self, index: Index) {
        self.records.drop_before(index);
    }
}
