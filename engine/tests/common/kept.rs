//! The data location table of a device that serves, kept by the seed's rules from what the history
//! says of each move, and held against the location that the device derives (I6).

use super::Pair;
use super::oracle::Written;
use afterimage::internal::table::location::Kept;
use afterimage::internal::unit::{Block, Stamp};
use std::collections::BTreeMap;

pub struct KeptTable {
    at: usize,
    epoch: u64,
    kept: Kept,
    /// The stamp up to which it has followed.
    hi: Stamp,
    reflected: Stamp,
    records: usize,
}

impl KeptTable {
    /// As after a takeover: from what the peer owes and the newest entries here.
    pub fn new(pair: &Pair, at: usize) -> KeptTable {
        let status = pair.devices[at].status();
        let mut owed = BTreeMap::new();
        let mut local = BTreeMap::new();
        for record in &pair.oracle.records {
            for block in blocks(record) {
                if record.by != at && record.stamp > status.hi {
                    owed.insert(block, record.stamp);
                } else if record.stamp > status.reflected {
                    local.insert(block, record.stamp);
                }
            }
        }
        let table = KeptTable {
            at,
            epoch: status.epoch,
            kept: Kept::merge(owed.into_iter(), local.into_iter()),
            hi: status.hi,
            reflected: status.reflected,
            records: pair.oracle.records.len(),
        };
        table.check(pair);
        table
    }

    pub fn is_of(&self, pair: &Pair, at: usize) -> bool {
        self.at == at && self.epoch == pair.devices[at].status().epoch
    }

    /// The newest entry of a block here, with everything up to `hi` received and up to
    /// `reflected` in the normal volume.
    fn newest(&self, pair: &Pair, of: Block, hi: Stamp, reflected: Stamp) -> Option<Stamp> {
        let records = pair.oracle.records[..self.records].iter().rev();
        let mut here = records.filter(|r| r.extent.holds(of) && (r.by == self.at || r.stamp <= hi));
        here.next().map(|r| r.stamp).filter(|&stamp| stamp > reflected)
    }

    /// Follows what one move did.
    pub fn follow(mut self, pair: &Pair) -> KeptTable {
        let status = pair.devices[self.at].status();
        let now = (status.hi, status.reflected, pair.oracle.records.len());
        if now == (self.hi, self.reflected, self.records) {
            return self;
        }
        for record in &pair.oracle.records[self.records..] {
            assert_eq!(record.by, self.at, "only one device takes writes");
            blocks(record).for_each(|block| self.kept.written(block, record.stamp));
        }
        self.records = pair.oracle.records.len();
        let between = |from: Stamp, to: Stamp| {
            pair.oracle.records[pair.oracle.upto(from)..pair.oracle.upto(to)].iter()
        };
        let arrived = between(self.hi, status.hi).filter(|r| r.by != self.at);
        for (record, block) in arrived.flat_map(|r| blocks(r).map(move |block| (r, block))) {
            // Remaining: what the peer's prototype named, if it is newer.
            let theirs = pair.oracle.records.iter().rev().find(|r: &&Written| {
                r.by != self.at && r.extent.holds(block) && r.stamp.epoch < self.epoch
            });
            let remaining = theirs.map(|r| r.stamp).filter(|&stamp| stamp > record.stamp);
            let newest = self.newest(pair, block, record.stamp, self.reflected);
            self.kept.copied(block, newest, remaining);
        }
        self.hi = status.hi;
        for record in between(self.reflected, status.reflected) {
            for block in blocks(record) {
                let newest = self.newest(pair, block, self.hi, record.stamp);
                self.kept.reflected(block, newest);
            }
        }
        self.reflected = status.reflected;
        self.check(pair);
        self
    }

    fn check(&self, pair: &Pair) {
        let size = u64::from(pair.spec.block_size) / 512;
        for (volume, sectors) in (0..).zip(&pair.spec.volumes) {
            for number in 0..sectors.div_ceil(size) {
                let block = Block { volume, number };
                let derived = pair.devices[self.at].location(block);
                assert!(
                    self.kept.agrees(block, &derived),
                    "I6: {block} is derived as {derived:?}, kept {:?}",
                    self.kept
                );
            }
        }
    }
}

fn blocks(record: &Written) -> impl Iterator<Item = Block> + use<> {
    let first = record.extent.first;
    (first.number..record.extent.end()).map(move |number| Block { number, ..first })
}
