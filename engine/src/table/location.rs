//! The data location table (500/600): where a block's newest data is (figure 14, R7).
//!
//! Nothing is kept for a block at -1, so the table grows with pending blocks and never with the
//! volume. The engine derives a location from the newest local record and the peer's debt at the
//! moment it is asked, which cannot go stale; [`Kept`] is the seed's table with the seed's rules,
//! and tests hold the two against each other (I6).

use crate::queue::Record;
use crate::unit::{Block, Stamp};
use std::collections::HashMap;

/// Where the newest data of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// -1: in the normal volume.
    Normal,
    /// -2: at the other device.
    Remote,
    /// In an entry of the remote unreflected volume.
    Own(Record),
    /// In an entry of the local unreflected volume.
    Received(Record),
}

/// The location of a block (R7) from its newest own record, its newest received record and the
/// newest stamp that the peer owes for it.
pub fn locate(own: Option<Record>, received: Option<Record>, owed: Option<Stamp>) -> Location {
    let newest = match (own, received) {
        (Some(o), Some(r)) if r.stamp > o.stamp => Some(Location::Received(r)),
        (Some(o), _) => Some(Location::Own(o)),
        (None, Some(r)) => Some(Location::Received(r)),
        (None, None) => None,
    };
    let stamp = newest.as_ref().and_then(Location::record).map(|r| r.stamp);
    if owed.is_some_and(|owed| stamp.is_none_or(|stamp| owed > stamp)) {
        return Location::Remote;
    }
    match newest {
        Some(found) if found.record().is_some_and(|r| !r.was_reflected) => found,
        _ => Location::Normal,
    }
}

impl Location {
    /// The entry's record, if it is in an entry.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Location::Own(record) | Location::Received(record) => Some(record),
            Location::Normal | Location::Remote => None,
        }
    }

    fn value(&self) -> Value {
        match self {
            Location::Normal => Value::Normal,
            Location::Remote => Value::Remote,
            Location::Own(r) | Location::Received(r) => Value::Entry(r.stamp),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Normal,
    Remote,
    Entry(Stamp),
}

/// The seed's table, kept by the seed's rules: every row that is not -1. An entry is named by its
/// stamp.
#[derive(Debug, Default)]
pub struct Kept {
    rows: HashMap<Block, Value>,
}

impl Kept {
    /// Builds the table from a prototype and the newest local entry of each block (S805, rules
    /// (1) and (2)).
    pub fn merge(
        prototype: impl Iterator<Item = (Block, Stamp)>,
        newest_local: impl Iterator<Item = (Block, Stamp)>,
    ) -> Kept {
        let mut kept = Kept::default();
        for (block, stamp) in newest_local {
            kept.set(block, Value::Entry(stamp));
        }
        for (block, owed) in prototype {
            match kept.rows.get(&block) {
                Some(Value::Entry(newest)) if owed <= *newest => {}
                _ => kept.set(block, Value::Remote),
            }
        }
        kept
    }

    fn set(&mut self, block: Block, value: Value) {
        match value {
            Value::Normal => self.rows.remove(&block),
            other => self.rows.insert(block, other),
        };
    }

    fn newest(&mut self, block: Block, newest: Option<Stamp>) {
        self.set(block, newest.map_or(Value::Normal, Value::Entry));
    }

    /// After a host write (S1604): its entry is the newest.
    pub fn written(&mut self, block: Block, stamp: Stamp) {
        self.set(block, Value::Entry(stamp));
    }

    /// After a remote copy of `block` (S1502, rules (1) to (4-2)).
    pub fn copied(&mut self, block: Block, newest_local: Option<Stamp>, remaining: Option<Stamp>) {
        match (newest_local, remaining) {
            (None, None) => self.set(block, Value::Normal),
            (None, Some(_)) => self.set(block, Value::Remote),
            (Some(newest), None) => self.set(block, Value::Entry(newest)),
            (Some(newest), Some(remaining)) if remaining > newest => self.set(block, Value::Remote),
            (Some(newest), Some(_)) => self.set(block, Value::Entry(newest)),
        }
    }

    /// After a reflection of `block` (S1502, rules (1) to (4)).
    pub fn reflected(&mut self, block: Block, newest_local: Option<Stamp>) {
        if self.rows.get(&block) != Some(&Value::Remote) {
            self.newest(block, newest_local);
        }
    }

    /// Whether the table says of `block` what was derived (I6).
    pub fn agrees(&self, block: Block, derived: &Location) -> bool {
        self.rows.get(&block).copied().unwrap_or(Value::Normal) == derived.value()
    }

    /// How many rows are not -1.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether every row is -1.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
