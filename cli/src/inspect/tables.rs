//! The three tables of a device that is not running, from its logs and its superblock.

use super::logs::{Entry, LogRead};
use afterimage::internal::format::superblock::Superblock;
use afterimage::internal::table::runs::{Run, newest_runs};
use afterimage::internal::unit::Stamp;

/// The tables, in stamp order.
pub(crate) struct Tables {
    /// Remote unreflected (figure 13): own records that the peer has not acknowledged.
    pub(crate) remote: Vec<Entry>,
    /// Local unreflected (figure 12): records, own and received, that are not surely in the
    /// normal volume.
    pub(crate) local: Vec<Entry>,
    /// Data location (figure 14): the rows that are not -1.
    pub(crate) location: Vec<(Run, Entry)>,
    /// The highest stamp received.
    pub(crate) hi: Stamp,
}

impl Tables {
    /// The tables of the device whose superblock and logs these are.
    pub(crate) fn new(superblock: &Superblock, own: &LogRead, recv: &LogRead) -> Tables {
        let sorted = |mut entries: Vec<Entry>| {
            entries.sort_by_key(|e| e.row.stamp);
            entries
        };
        let newer = |log: &LogRead, than: Stamp| -> Vec<Entry> {
            log.entries.iter().filter(|e| e.row.stamp > than).copied().collect()
        };
        let mut local = newer(own, superblock.fl);
        local.extend(newer(recv, superblock.fl));
        let local = sorted(local);
        let location = newest_runs(local.iter().map(|e| e.row.extent())).into_iter();
        Tables {
            remote: sorted(newer(own, superblock.acked)),
            location: location.map(|run| (run, local[run.newest])).collect(),
            local,
            hi: superblock.hi.max(recv.newest()),
        }
    }

    /// A stamp that two of the records have.
    pub(crate) fn repeated_stamp(&self) -> Option<Stamp> {
        let twice = |table: &[Entry]| {
            let pair = table.windows(2).find(|w| w[0].row.stamp == w[1].row.stamp);
            pair.map(|w| w[0].row.stamp)
        };
        twice(&self.remote).or_else(|| twice(&self.local))
    }
}
