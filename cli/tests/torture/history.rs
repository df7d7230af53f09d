//! All that hosts saw, together: one history of each sector, and after a force an earlier state of all of them.

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
    /// Writes that were seen and taken back by a kill.
    pub taken_back: usize,
}

/// When each device was killed: from, until.
pub type Kills = [Vec<(u64, u64)>; 2];

/// Between a host's leaving and a kill that may take back what it has not been answered.
const LEAVING: u64 = 10_000_000;

impl Histories {
    /// From one state to another. `is_bounded`: a write that got no reply cannot happen once the same host's next connection has written.
    ///
    /// A read may return a write that has not completed (R2), which a kill may then take back: such a pair is left out,
    /// if no read has seen it after the kill.
    pub fn new(
        (from, to): (&State, &State),
        seen: Vec<History>,
        kills: &Kills,
        is_bounded: bool,
    ) -> Histories {
        let mut ops = vec![Vec::new(); ALL as usize];
        for (sector, &value) in from.iter().enumerate().filter(|(_, value)| **value != 0) {
            ops[sector].push(Op { called: 0, returned: 0, what: What::Write(value) });
        }
        // The latest call of a read of each value.
        let mut read: HashMap<(u64, u64), u64> = HashMap::new();
        for (sector, op) in seen.iter().flat_map(|history| &history.ops) {
            if let What::Read(value) = op.what {
                let latest = read.entry((*sector, value)).or_default();
                *latest = op.called.max(*latest);
            }
        }
        let last = (0..).zip(to).map(|(sector, &value)| ((sector, value), NEVER));
        read.extend(last);
        let mut taken_back = HashSet::new();
        for lost in seen.iter().flat_map(|history| &history.unanswered) {
            let latest = read.get(&(lost.sector, lost.value)).copied();
            let is_killed = kills[lost.at].iter().any(|&(from, until)| {
                (from.saturating_sub(LEAVING)..).contains(&lost.ended)
                    && lost.called < until
                    && latest.is_some_and(|latest| latest < until)
            });
            if is_killed {
                taken_back.insert((lost.sector, lost.value));
                continue;
            }
            let is_over = is_bounded && latest.is_some();
            let returned = if is_over { lost.until } else { NEVER };
            let op = Op { called: lost.called, returned, what: What::Write(lost.value) };
            ops[lost.sector as usize].push(op);
        }
        for (sector, op) in seen.iter().flat_map(|history| &history.ops) {
            let is_taken_back =
                matches!(op.what, What::Read(value) if taken_back.contains(&(*sector, value)));
            if !is_taken_back {
                ops[*sector as usize].push(*op);
            }
        }
        Histories { ops, from: from.clone(), taken_back: taken_back.len() }
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
