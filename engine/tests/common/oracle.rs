//! The hosts' writes, in the order of the stamps: slow, obvious, and never wrong.

use afterimage::internal::unit::{Block, Extent, Stamp};
use std::ops::Range;

/// A group's content: a value for every sector of every volume, in the order of the volumes.
pub type Image = Vec<u64>;

/// One record of a completed write.
#[derive(Clone, Debug)]
pub struct Written {
    pub stamp: Stamp,
    /// The device that took it.
    pub by: usize,
    pub extent: Extent,
    /// Its written part, as sectors of the image.
    pub sectors: Range<usize>,
    pub value: u64,
}

/// The history of a group.
pub struct Oracle {
    /// Sectors of each volume.
    volumes: Vec<u64>,
    block_sectors: u64,
    pub records: Vec<Written>,
}

impl Oracle {
    pub fn new(volumes: Vec<u64>, block_sectors: u64) -> Oracle {
        Oracle { volumes, block_sectors, records: Vec::new() }
    }

    pub fn sectors(&self) -> usize {
        self.volumes.iter().sum::<u64>() as usize
    }

    /// Where sector `number` of `volume` stands in an image.
    pub fn at(&self, volume: u32, number: u64) -> usize {
        let before: u64 = self.volumes[..volume as usize].iter().sum();
        (before + number) as usize
    }

    /// The extents of the records that a write of `sectors` has, or zeros of them.
    pub fn extents(
        &self,
        volume: u32,
        sectors: &Range<u64>,
        zeros: bool,
    ) -> impl Iterator<Item = Extent> + use<> {
        let number = sectors.start / self.block_sectors;
        let count = sectors.end.div_ceil(self.block_sectors) - number;
        let most = if zeros { Extent::LEVEL_MAX } else { 0 };
        Extent::split(Block { volume, number }, count, most)
    }

    /// A write has completed at device `by`, its first block's record with `first`. A write issued
    /// after another was completed or seen is newer, whatever the clocks say (R1).
    pub fn wrote(
        &mut self,
        by: usize,
        first: Stamp,
        volume: u32,
        sectors: &Range<u64>,
        value: u64,
    ) {
        for (sequence, extent) in (first.sequence..).zip(self.extents(volume, sectors, value == 0))
        {
            let stamp = Stamp { sequence, ..first };
            if let Some(last) = self.records.last() {
                assert!(last.stamp < stamp, "R1: {stamp} was stamped after {}", last.stamp);
            }
            let from = sectors.start.max(extent.first.number * self.block_sectors);
            let to = sectors.end.min(extent.end() * self.block_sectors);
            let sectors = self.at(volume, from)..self.at(volume, from) + (to - from) as usize;
            self.records.push(Written { stamp, by, extent, sectors, value });
        }
    }

    /// The content after the first `count` records.
    pub fn image(&self, count: usize) -> Image {
        let mut image = vec![0; self.sectors()];
        self.records[..count].iter().for_each(|r| image[r.sectors.clone()].fill(r.value));
        image
    }

    /// How many records are at or below `stamp`.
    pub fn upto(&self, stamp: Stamp) -> usize {
        self.records.partition_point(|r| r.stamp <= stamp)
    }

    /// The values that `sector` had at some time since there were `since` records.
    pub fn had(&self, sector: usize, since: usize) -> Vec<u64> {
        let holds = |r: &&Written| r.sectors.contains(&sector);
        let before = self.records[..since].iter().rev().find(holds).map_or(0, |r| r.value);
        let after = self.records[since..].iter().filter(holds).map(|r| r.value);
        std::iter::once(before).chain(after).collect()
    }
}

/// A content that follows history record by record.
pub struct Replay {
    pub image: Image,
    next: usize,
}

impl Replay {
    pub fn new(oracle: &Oracle) -> Replay {
        Replay { image: vec![0; oracle.sectors()], next: 0 }
    }

    /// Goes on to every record at or below `stamp`.
    pub fn advance_to(&mut self, oracle: &Oracle, stamp: Stamp) {
        while let Some(r) = oracle.records.get(self.next).filter(|r| r.stamp <= stamp) {
            self.image[r.sectors.clone()].fill(r.value);
            self.next += 1;
        }
    }
}
