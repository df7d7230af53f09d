//! Whether a recorded history of one register is linearizable: every operation seems to have
//! happened at one moment between its call and its return.
//!
//! Every write has a value of its own, so that a read names the write it saw. Then the method of
//! Gibbons and Korach (*Testing Shared Memories*, SIAM J. Comput. 26, 1997) decides in the time of
//! a sort. A write and its reads are a cluster; they must follow each other without another write
//! between. From the first return among them to the last call, if that is later, the register must
//! have held the value all the time: a *forward* zone. Otherwise the cluster fits at one moment
//! anywhere from the last call to the first return: a *backward* zone. The history is linearizable
//! exactly if no read returns before its write is called, no two forward zones overlap, and no
//! backward zone lies wholly in a forward one.

use std::collections::HashMap;

/// One operation on a register. Times are of one monotonic clock; equal ones say nothing.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub called: u64,
    /// [`NEVER`] for a write that failed: it may have happened at any time since its call, or not.
    pub returned: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Every value but once, and never 0.
    Write(u64),
    Read(u64),
}

pub const NEVER: u64 = u64::MAX;

/// The value before the first write.
pub const INITIAL: u64 = 0;

/// A write and the reads of its value.
struct Cluster {
    value: u64,
    write: Op,
    /// The earliest return and the latest call of all.
    first_return: u64,
    last_call: u64,
    is_read: bool,
}

/// Says what cannot have happened, if there is something.
pub fn check(history: &[Op]) -> Result<(), String> {
    let initial = Op { called: 0, returned: 0, what: What::Write(INITIAL) };
    let mut clusters = HashMap::new();
    for &op in std::iter::once(&initial).chain(history) {
        if let What::Write(value) = op.what {
            let (first_return, last_call) = (op.returned, op.called);
            let cluster = Cluster { value, write: op, first_return, last_call, is_read: false };
            assert!(clusters.insert(value, cluster).is_none(), "{value} is written twice");
        }
    }
    for op in history {
        let What::Read(value) = op.what else { continue };
        let Some(cluster) = clusters.get_mut(&value) else {
            return Err(format!("{op:?} returns what was never written"));
        };
        if op.returned < cluster.write.called {
            return Err(format!("{op:?} returns before {:?} is called", cluster.write));
        }
        cluster.first_return = cluster.first_return.min(op.returned);
        cluster.last_call = cluster.last_call.max(op.called);
        cluster.is_read = true;
    }
    // A failed write that nobody saw need not have happened.
    let happened = clusters.into_values().filter(|c| c.is_read || c.write.returned != NEVER);
    let (mut forward, backward): (Vec<_>, Vec<_>) =
        happened.partition(|c| c.first_return < c.last_call);
    forward.sort_by_key(|c| c.first_return);
    let held =
        |c: &Cluster| format!("{} is held from {} to {}", c.value, c.first_return, c.last_call);
    for pair in forward.windows(2) {
        if pair[1].first_return < pair[0].last_call {
            return Err(format!("{}, but {}", held(&pair[0]), held(&pair[1])));
        }
    }
    for cluster in &backward {
        let before = forward.partition_point(|f| f.first_return < cluster.last_call);
        let Some(around) = before.checked_sub(1).map(|at| &forward[at]) else { continue };
        if cluster.first_return < around.last_call {
            let Cluster { value, last_call, first_return, .. } = cluster;
            let other = format!("{value} came and went between {last_call} and {first_return}");
            return Err(format!("{}, but {other}", held(around)));
        }
    }
    Ok(())
}

/// The same by trying every order, for a few operations: the oracle of the tests.
pub fn check_by_trying(history: &[Op]) -> bool {
    fn try_orders(left: &[Op], value: u64) -> bool {
        if left.iter().all(|op| op.returned == NEVER && matches!(op.what, What::Write(_))) {
            return true;
        }
        (0..left.len()).any(|k| {
            let op = left[k];
            let rest: Vec<Op> =
                left.iter().enumerate().filter(|e| e.0 != k).map(|e| *e.1).collect();
            if rest.iter().any(|other| other.returned < op.called) {
                return false; // that one was over before this began
            }
            match op.what {
                What::Write(new) => try_orders(&rest, new),
                What::Read(read) => read == value && try_orders(&rest, value),
            }
        })
    }
    try_orders(history, INITIAL)
}
