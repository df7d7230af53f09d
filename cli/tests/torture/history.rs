//! What all hosts saw together: one history of each sector, and after a force an earlier state of all of them.

use std::collections::{HashMap, HashSet};

use super::host::{History, SECTORS, VOLUMES};
use super::linearizable::{NEVER, Op, What, check};

/// The sectors of all volumes.
pub const ALL: u64 = SECTORS * VOLUMES.len() as u64;

/// The values of all sectors, from which a history begins.
pub type State = Vec<u64>;

/// The operations on each sector, those that got no reply among them.
pub struct Histories {
    ops: Vec<Vec<Op>>,
    from: State,
}

impl Histories {
    /// `is_bounded`: a write that got no reply cannot happen once the same host's next connection has written.
    pub fn new(from: &State, seen: Vec<History>, is_bounded: bool) -> Histories {
        let mut ops = vec![Vec::new(); ALL as usize];
        for (sector, &value) in from.iter().enumerate().filter(|(_, value)| **value != 0) {
            ops[sector].push(Op { called: 0, returned: 0, what: What::Write(value) });
        }
        let mut read = HashSet::new();
        for (sector, op) in seen.iter().flat_map(|history| &history.ops) {
            ops[*sector as usize].push(*op);
            if let What::Read(value) = op.what {
                read.insert((*sector, value));
            }
        }
        for lost in seen.iter().flat_map(|history| &history.unanswered) {
            let is_over = is_bounded && read.contains(&(lost.sector, lost.value));
            let returned = if is_over { lost.until } else { NEVER };
            let op = Op { called: lost.called, returned, what: What::Write(lost.value) };
            ops[lost.sector as usize].push(op);
        }
        Histories { ops, from: from.clone() }
    }

    /// Reads of all sectors, after everything else.
    pub fn end(&mut self, state: &State, at: u64) {
        for (ops, &value) in self.ops.iter_mut().zip(state) {
            ops.push(Op { called: at, returned: at + 1, what: What::Read(value) });
        }
    }

    /// Every sector has one history.
    pub fn check(&self) -> Result<(), String> {
        for (sector, ops) in self.ops.iter().enumerate() {
            check(ops).map_err(|why| {
                let mut story = format!("sector {sector}: {why}\n");
                let mut of_it = ops.clone();
                of_it.sort_by_key(|op| op.called);
                of_it.iter().for_each(|op| story += &format!("    {op:?}\n"));
                story
            })?;
        }
        Ok(())
    }

    /// `state` is one that the data had: whatever was written before something that is there was called, is there.
    pub fn check_prefix(&self, state: &State) -> Result<(), String> {
        let mut newest = 0;
        let mut visible = Vec::new();
        for (sector, (ops, &value)) in self.ops.iter().zip(state).enumerate() {
            let writes: HashMap<u64, Op> = ops
                .iter()
                .filter_map(|op| match op.what {
                    What::Write(value) => Some((value, *op)),
                    What::Read(_) => None,
                })
                .collect();
            let initial = Op { called: 0, returned: 0, what: What::Write(0) };
            let begins = value == self.from[sector];
            let write = writes.get(&value).copied().or(begins.then_some(initial));
            let write = write.ok_or(format!("sector {sector}: {value} was never written here"))?;
            newest = newest.max(write.called);
            visible.push((write, writes));
        }
        for (sector, (write, writes)) in visible.iter().enumerate() {
            let missing = writes
                .values()
                .find(|other| write.returned < other.called && other.returned < newest);
            if let Some(missing) = missing {
                return Err(format!(
                    "sector {sector}: {write:?} is there and {missing:?} is not, but something called at {newest} is"
                ));
            }
        }
        Ok(())
    }
}
