//! The history that the hosts must see: every write with its stamp, and which write each sector shows.
//!
//! The devices promise one history: writes ordered by their stamps, an order that never
//! contradicts real time. So the oracle needs no model of replication:
//! - the image follows the highest stamp of each sector ([`Image`]);
//! - a read may show, of each sector, the newest write completed before the read was issued, or
//!   one with a higher stamp: completed meanwhile, or still in flight. Zeros may be shown where
//!   nothing was written, or where such a write is a discard. No later read may go behind
//!   what a read has shown;
//! - a write's stamp is above every stamp completed, or shown by a read, before it was issued;
//! - a refused write is never shown: it was not admitted;
//! - no two records have the same stamp;
//! - after the loss of a site (`lost`) the history goes on from what the other device shows.
//!
//! A check that needs the stamp of a write in flight, which is not known yet, is made
//! when it completes. The oracle is told of everything by one thread, in the order of real time.

mod findings;
mod image;
mod lost;
mod reads;
#[cfg(test)]
mod tests;

pub use findings::{Finding, Findings};
pub use image::{Image, Number};
pub use lost::{Account, Counts, Forced};
pub use reads::PendingRead;

use std::collections::HashMap;
use std::ops::Range;

use afterimage::internal::unit::Stamp;

use super::pattern::SECTOR;

/// A moment: how many things had happened by then.
type Tick = u64;

/// One write, discards included.
struct Write {
    volume: u32,
    begin: u64,
    end: u64,
    /// A discard: it shows as zeros, and no sector names it.
    zero: bool,
    state: State,
    /// Of its first block; each further block's sequence is one higher.
    stamp: Stamp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Done,
    Refused,
}

/// A write in flight.
struct Flying {
    number: Number,
    /// The tenure it was issued in.
    epoch: u64,
    issued: Tick,
    /// Its stamp must be above this.
    above: Stamp,
    /// A read has shown it.
    shown: Option<Shown>,
}

struct Shown {
    since: Tick,
    /// The highest of its blocks that was shown, counted from its first.
    block: u32,
    /// The newest completed write that it was shown in place of.
    instead_of: Number,
    /// The lowest stamp of those issued after that and completed.
    later: Option<Stamp>,
}

/// A sector was shown as `older` and then, by a later read, as `newer`.
struct Pair {
    volume: u32,
    sector: u64,
    older: Number,
    newer: Number,
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Reads.
    pub reads: u64,
    /// Sectors of reads.
    pub sectors: u64,
    /// Those of them that were zeros.
    pub zero_sectors: u64,
    /// Stamps of completed writes.
    pub stamps: u64,
}

/// See the module.
pub struct Oracle {
    run: u64,
    block_sectors: u64,
    image: Image,
    /// By number; the first stands for "nothing written".
    writes: Vec<Write>,
    flying: Vec<Flying>,
    /// Discards completed, in the order in which they did.
    zeroed: Vec<(Tick, Number)>,
    /// Sectors that a read has shown as a write still in flight.
    shown: HashMap<(u32, u64), Number>,
    pairs: Vec<Pair>,
    tick: Tick,
    /// The first write issued since a site was lost: none before it is shown that was not shown then.
    since: Number,
    /// The highest stamp completed, or shown and completed since.
    sealed: Stamp,
    checked: Checked,
    findings: Findings,
}

impl Oracle {
    /// Nothing written yet. `run` is in every payload.
    pub fn new(run: u64, block_size: u32) -> Oracle {
        let state = State::Done;
        let nothing = Write { volume: 0, begin: 0, end: 0, zero: true, state, stamp: Stamp::ZERO };
        Oracle {
            run,
            block_sectors: u64::from(block_size) / SECTOR as u64,
            image: Image::default(),
            writes: vec![nothing],
            flying: Vec::new(),
            zeroed: Vec::new(),
            shown: HashMap::new(),
            pairs: Vec::new(),
            tick: 0,
            since: 0,
            sealed: Stamp::ZERO,
            checked: Checked::default(),
            findings: Findings::default(),
        }
    }

    /// The findings so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The same, for good.
    pub fn into_findings(self) -> Findings {
        self.findings
    }

    /// Notes something that did not hold, seen elsewhere.
    pub fn find(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// Notes several such things.
    pub fn find_all(&mut self, findings: &Findings) {
        self.findings.add_all(findings);
    }

    /// How much was checked so far.
    pub fn checked(&self) -> Checked {
        self.checked
    }

    /// The name of the run.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The highest stamp completed so far, that of a request's last block.
    pub fn sealed(&self) -> Stamp {
        self.sealed
    }

    /// A write of `sectors` is about to be issued in the tenure `epoch`; its number. `zero`: a
    /// discard, whose sectors are those that it will make zero.
    pub fn write(&mut self, volume: u32, sectors: Range<u64>, zero: bool, epoch: u64) -> Number {
        self.tick += 1;
        let number = Number::try_from(self.writes.len()).expect("fewer writes than 2^32");
        let Range { start: begin, end } = sectors;
        let state = State::InFlight;
        self.writes.push(Write { volume, begin, end, zero, state, stamp: Stamp::ZERO });
        let (issued, above) = (self.tick, self.sealed);
        self.flying.push(Flying { number, epoch, issued, above, shown: None });
        number
    }

    /// The write has completed.
    pub fn write_done(&mut self, number: Number, stamp: Option<Stamp>) {
        let flying = self.land(number);
        self.write_mut(number).state = State::Done;
        let Write { volume, begin, end, zero, .. } = *self.write_of(number);
        let Some(stamp) = stamp else {
            // A discard of no whole block takes no record, nor do zeros where there were zeros.
            if begin < end && !zero {
                self.findings.add(Finding::NoStamp { number });
            }
            return;
        };
        self.checked.stamps += 1;
        self.write_mut(number).stamp = stamp;
        if stamp.epoch != flying.epoch {
            self.findings.add(Finding::WrongEpoch { number, stamp, epoch: flying.epoch });
        }
        if stamp <= flying.above {
            self.findings.add(Finding::StampTooLow { number, stamp, above: flying.above });
        }
        for other in &mut self.flying {
            if let Some(shown) = &mut other.shown
                && shown.since < flying.issued
            {
                shown.later = Some(shown.later.map_or(stamp, |later| later.min(stamp)));
            }
        }
        if let Some(shown) = flying.shown {
            self.settle_shown(number, stamp, &shown);
        }
        let last = self.records_of(number).saturating_sub(1) as u32;
        self.sealed = self.sealed.max(later(stamp, last));
        self.settle_pairs();
        self.apply(number, volume, begin..end);
        if zero {
            self.zeroed.push((self.tick, number));
        }
        // Discards leave no mark on pages never written: one that completed while this was in
        // flight may yet be the newer.
        for at in self.zeroed_since(flying.issued)..self.zeroed.len() {
            let zeroed = self.zeroed[at].1;
            let Write { volume: of, begin: from, end: to, .. } = *self.write_of(zeroed);
            let both = begin.max(from)..end.min(to);
            if of == volume && zeroed != number && !both.is_empty() {
                self.apply(zeroed, volume, both);
            }
        }
    }

    /// The write was refused: it must never be shown.
    pub fn write_refused(&mut self, number: Number) {
        let flying = self.land(number);
        self.write_mut(number).state = State::Refused;
        if flying.shown.is_some() {
            self.shown.retain(|_, &mut shown| shown != number);
            self.findings.add(Finding::RefusedShown { number });
        }
    }

    /// Every sector that a volume at rest must show a write at: volume, sector, number.
    pub fn written(&self) -> impl Iterator<Item = (u32, u64, Number)> {
        self.image.sectors().filter(|&(_, _, number)| !self.write_of(number).zero)
    }

    /// All writes are done: no two records may have one stamp.
    pub fn check_stamps_unique(&mut self) {
        let done = self.writes.iter().zip(0..).skip(1);
        let mut stamps: Vec<(Stamp, u64, Number)> = done
            .filter(|(write, _)| write.state == State::Done && write.stamp != Stamp::ZERO)
            .map(|(write, number)| (write.stamp, self.records_of(number), number))
            .collect();
        stamps.sort_unstable();
        for pair in stamps.windows(2) {
            let ((stamp, blocks, first), (next, _, second)) = (pair[0], pair[1]);
            if later(stamp, (blocks - 1) as u32) >= next {
                self.findings.add(Finding::SameStamp { stamp: next, first, second });
            }
        }
    }

    /// How many records a write surely has: one a block, unless they are of many blocks.
    fn records_of(&self, number: Number) -> u64 {
        let Write { begin, end, zero, .. } = *self.write_of(number);
        let blocks = end.div_ceil(self.block_sectors) - begin / self.block_sectors;
        if zero { blocks.min(1) } else { blocks }
    }

    fn write_of(&self, number: Number) -> &Write {
        &self.writes[number as usize]
    }

    fn write_mut(&mut self, number: Number) -> &mut Write {
        &mut self.writes[number as usize]
    }

    /// Takes a write out of those in flight.
    fn land(&mut self, number: Number) -> Flying {
        self.tick += 1;
        let at = self.flying.iter().rposition(|flying| flying.number == number);
        self.flying.swap_remove(at.expect("a write ends once"))
    }

    /// Lets the image show a completed write wherever its stamp is the highest.
    fn apply(&mut self, number: Number, volume: u32, sectors: Range<u64>) {
        let Oracle { image, writes, .. } = self;
        let Write { stamp, zero, .. } = writes[number as usize];
        let change = |shown: &mut Number| {
            if writes[*shown as usize].stamp < stamp {
                *shown = number;
            }
        };
        match zero {
            true => image.update_present(volume, sectors, change),
            false => image.update(volume, sectors, change),
        }
    }

    /// Where the discards begin that completed after `tick`.
    fn zeroed_since(&self, tick: Tick) -> usize {
        self.zeroed.partition_point(|&(at, _)| at < tick)
    }

    /// A write that reads had shown while it was in flight has completed.
    fn settle_shown(&mut self, number: Number, stamp: Stamp, shown: &Shown) {
        if stamp < self.write_of(shown.instead_of).stamp {
            let Write { volume, begin: sector, .. } = *self.write_of(number);
            let expected = shown.instead_of;
            self.findings.add(Finding::Stale { volume, sector, expected, number });
        }
        let above = later(stamp, shown.block);
        if let Some(stamp) = shown.later.filter(|&stamp| stamp <= above) {
            self.findings.add(Finding::StampTooLow { number, stamp, above });
        }
        for flying in self.flying.iter_mut().filter(|flying| flying.issued > shown.since) {
            flying.above = flying.above.max(above);
        }
        self.shown.retain(|_, &mut shown| shown != number);
    }

    /// Decides what can be decided now about sectors that two reads showed differently.
    fn settle_pairs(&mut self) {
        let Oracle { pairs, writes, findings, .. } = self;
        pairs.retain(|&Pair { volume, sector, older, newer }| {
            let (first, second) = (&writes[older as usize], &writes[newer as usize]);
            if first.state == State::InFlight || second.state == State::InFlight {
                return true;
            }
            if first.state == State::Done && second.stamp < first.stamp {
                let (expected, number) = (older, newer);
                findings.add(Finding::Stale { volume, sector, expected, number });
            }
            false
        });
    }
}

/// The stamp of the block `count` blocks after the one stamped `first`.
fn later(first: Stamp, count: u32) -> Stamp {
    Stamp { sequence: first.sequence.saturating_add(count), ..first }
}
