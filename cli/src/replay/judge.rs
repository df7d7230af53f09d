//! The judge of final states: what volumes may hold after a crash, given what the hosts had asked
//! for and been told until then.
//!
//! A [`History`] follows the [`Event`]s; at any moment it can judge what volumes [`Shown`]:
//! - **Nothing invented**: every sector is zeros or the payload of a write issued for that place
//!   in this run, and not refused.
//! - **Nothing promised is lost**: a write that completed as durable itself, or before a flush was
//!   issued, or a durable write, that completed; or before the host moved; or that the other device
//!   has acknowledged.
//! - **Closed under real time**: where a write survives, everything that had completed before it
//!   was issued survives. With *t* the latest issue of any write that shows, that is everything
//!   completed before *t*: one pass over the image, one over the writes.
//! - **A write that a forced device lacks is lost**: of the writes before that, those count that were issued at the
//!   lost device and acknowledged by then.
//!
//! A write *survives* if each of its sectors shows it, or one with a higher stamp. A write that was
//! in flight has no stamp that anybody knows; it may be the newer one.

use std::io;
use std::ops::Range;

use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::storage::Storage;
use afterimage::internal::unit::Stamp;
use afterimage::salvage;

use super::oracle::{Finding, Findings, Image, Number};
use super::pattern::{self, Content, SECTOR};
use super::requests::Event;
use super::verify::each_sector;

/// A moment: how many events had happened by then.
type Tick = u64;

/// The writes that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Everything promised: the volumes of a pair that has recovered and come to rest.
    Promised,
    /// Only that what shows is closed under real time: a device's own volumes, at any time.
    Closed,
}

#[derive(Clone, Debug)]
struct Write {
    volume: u32,
    sectors: Range<u64>,
    zero: bool,
    durable: bool,
    /// The device that it was issued at.
    at: usize,
    issued: Tick,
    state: State,
    /// A forced takeover came after it, of a device that may lack it.
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    Done { at: Tick, stamp: Stamp },
    Refused,
}

/// Everything asked for and told, up to some moment.
#[derive(Clone, Debug, Default)]
pub struct History {
    run: u64,
    block_sectors: u64,
    now: Tick,
    /// The device that the host is at.
    host: usize,
    /// By number, from 1.
    writes: Vec<Write>,
    /// Flushes in flight: number, moment of issue.
    flushes: Vec<(u64, Tick)>,
    /// Whatever had completed before this is promised.
    promised: Tick,
    /// By device, the newest of its stamps that the other one has acknowledged.
    acknowledged: [Stamp; 2],
    /// Writes that were issued before the last forced takeover.
    before_force: usize,
}

/// The content of a device's volumes: of each sector, the write.
#[derive(Default)]
pub struct Shown {
    image: Image,
    findings: Findings,
}

impl History {
    /// The history that `events` tell.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> History {
        let mut history = History::default();
        events.into_iter().for_each(|event| history.note(event));
        history
    }

    /// One more event. Events of a replay come in its order, or this panics.
    pub fn note(&mut self, event: &Event) {
        self.now += 1;
        match event {
            Event::Begun { run, block_size } => {
                self.run = *run;
                self.block_sectors = u64::from(*block_size) / SECTOR as u64;
            }
            Event::Issued { write, volume, sectors, zero, durable } => {
                assert_eq!(*write as usize, self.writes.len() + 1, "writes are counted");
                self.writes.push(Write {
                    volume: *volume,
                    sectors: sectors.clone(),
                    zero: *zero,
                    durable: *durable,
                    at: self.host,
                    issued: self.now,
                    state: State::InFlight,
                    lost: false,
                });
            }
            Event::Completed { write, stamp } => {
                let at = self.now;
                let write = self.write_mut(*write);
                write.state = State::Done { at, stamp: stamp.unwrap_or(Stamp::ZERO) };
                let promised = if write.durable { write.issued } else { 0 };
                self.promised = self.promised.max(promised);
            }
            Event::Refused { write } => self.write_mut(*write).state = State::Refused,
            Event::FlushIssued { flush } => self.flushes.push((*flush, self.now)),
            Event::Flushed { flush } => {
                let at = self.flushes.iter().position(|(number, _)| number == flush);
                let (_, issued) = self.flushes.swap_remove(at.expect("it was issued"));
                self.promised = self.promised.max(issued);
            }
            Event::Moved { to, .. } => {
                self.host = *to;
                self.promised = self.now;
            }
            Event::Forced { to, .. } => {
                let is_there = |write: &Write| write.at != *to && self.is_acknowledged(write);
                let lost: Vec<bool> = self.writes.iter().map(|write| !is_there(write)).collect();
                for (write, lost) in self.writes.iter_mut().zip(lost) {
                    write.lost |= lost;
                }
                (self.host, self.before_force) = (*to, self.writes.len());
            }
            Event::Acknowledged { at, stamp } => {
                let newest = &mut self.acknowledged[*at];
                *newest = (*newest).max(*stamp);
            }
        }
    }

    /// The same history, of which nothing is lost: salvage has what a forced device lacked.
    #[must_use]
    pub fn unforced(&self) -> History {
        let mut unforced = self.clone();
        unforced.writes.iter_mut().for_each(|write| write.lost = false);
        unforced
    }

    /// Whether a device was forced, with a write before that.
    pub fn is_forced(&self) -> bool {
        self.before_force > 0
    }

    /// How many writes have been issued.
    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// How many completed writes must not be lost, whatever shows.
    pub fn promised(&self) -> usize {
        self.writes.iter().filter(|write| self.is_promised(write)).count()
    }

    /// Whether zeros of a sector may be those of a discard after the forced takeover. A discard that made no record
    /// found zeros there (R19), and left what was lost before to the salvage.
    fn is_zeroed_since(&self, volume: u32, sector: u64) -> bool {
        let is_its = |write: &Write| {
            let made_record = match write.state {
                State::InFlight => true,
                State::Done { stamp, .. } => stamp != Stamp::ZERO,
                State::Refused => false,
            };
            write.zero && made_record && write.volume == volume && write.sectors.contains(&sector)
        };
        self.writes[self.before_force..].iter().any(is_its)
    }

    fn write(&self, number: Number) -> &Write {
        &self.writes[number as usize - 1]
    }

    fn write_mut(&mut self, number: Number) -> &mut Write {
        &mut self.writes[number as usize - 1]
    }

    /// Whether a write has completed, and must not be lost when processes die.
    pub fn has_promised(&self, number: Number) -> bool {
        self.is_promised(self.write(number))
    }

    fn is_promised(&self, write: &Write) -> bool {
        let State::Done { at, .. } = write.state else { return false };
        let is_promised = write.durable || at < self.promised || self.is_acknowledged(write);
        is_promised && !write.lost
    }

    fn is_acknowledged(&self, write: &Write) -> bool {
        let State::Done { stamp, .. } = write.state else { return false };
        self.last_stamp(write, stamp) <= self.acknowledged[write.at]
    }

    /// The stamp of a write's last block.
    fn last_stamp(&self, write: &Write, first: Stamp) -> Stamp {
        let Range { start, end } = write.sectors;
        let blocks = end.div_ceil(self.block_sectors) - start / self.block_sectors;
        Stamp { sequence: first.sequence.saturating_add(blocks.saturating_sub(1) as u32), ..first }
    }

    /// The faults of what volumes show.
    pub fn judge(&self, shown: &Shown, claim: Claim) -> Findings {
        let mut findings = Findings::default();
        findings.add_all(&shown.findings);
        // The latest issue of any write that shows.
        let mut latest = 0;
        for (volume, sector, number) in shown.image.sectors() {
            match self.check_name(volume, sector, number) {
                Ok(write) => latest = latest.max(write.issued),
                Err(finding) => findings.add(finding),
            }
        }
        let is_due = |write: &Write| match write.state {
            State::Done { at, .. } => {
                at < latest && !write.lost || claim == Claim::Promised && self.is_promised(write)
            }
            _ => false,
        };
        let expected = self.newest(|write| is_due(write));
        for (volume, sector, due) in expected.sectors() {
            let number = shown.image.get(volume, sector);
            if !self.may_show(volume, sector, number, due) {
                findings.add(Finding::WrongAtRest { volume, sector, expected: due, number });
            }
        }
        findings
    }

    /// The content of volumes if the chosen writes, all completed, take effect in their order.
    fn newest(&self, is_chosen: impl Fn(&Write) -> bool) -> Image {
        let mut chosen: Vec<(Stamp, Number)> = (1..)
            .zip(&self.writes)
            .filter(|(_, write)| is_chosen(write))
            .filter_map(|(number, write)| match write.state {
                State::Done { stamp, .. } => Some((stamp, number)),
                _ => None,
            })
            .collect();
        chosen.sort_unstable();
        let mut image = Image::default();
        for (_, number) in chosen {
            let Write { volume, ref sectors, zero, .. } = *self.write(number);
            match zero {
                true => image.update_present(volume, sectors.clone(), |shown| *shown = number),
                false => image.update(volume, sectors.clone(), |shown| *shown = number),
            }
        }
        image
    }

    /// The write that a sector names, if it may stand there at all.
    fn check_name(&self, volume: u32, sector: u64, number: Number) -> Result<&Write, Finding> {
        let misplaced = Finding::NeverIssued { volume, sector, number };
        let write = self.writes.get((number as usize).wrapping_sub(1)).ok_or(misplaced.clone())?;
        if write.state == State::Refused {
            return Err(Finding::RefusedShown { number });
        }
        let is_its_place = write.volume == volume && write.sectors.contains(&sector);
        if is_its_place && !write.zero { Ok(write) } else { Err(misplaced) }
    }

    /// Whether a sector may show `number` (0: zeros) where `due` must not be lost.
    fn may_show(&self, volume: u32, sector: u64, number: Number, due: Number) -> bool {
        let State::Done { stamp, .. } = self.write(due).state else { return true };
        let is_newer = |write: &Write| match write.state {
            State::InFlight => true,
            State::Done { stamp: its, .. } => its > stamp,
            State::Refused => false,
        };
        if number == due || number == 0 && self.write(due).zero {
            return true;
        }
        if number != 0 {
            // A name that no write of this run has is a finding of its own.
            return self.check_name(volume, sector, number).map_or(true, is_newer);
        }
        let mut zeroed = self.writes.iter().filter(|write| {
            write.zero && write.volume == volume && write.sectors.contains(&sector)
        });
        zeroed.any(is_newer)
    }
}

impl Shown {
    /// Reads the volumes of a device at rest.
    ///
    /// # Errors
    /// As [`afterimage::internal::superblock::load`]; [`afterimage::internal::error::Kind::Storage`] if a volume cannot
    /// be read.
    pub fn read(storage: &dyn Storage, history: &History) -> Result<Shown> {
        let superblock = afterimage::internal::superblock::load(storage)?;
        let mut shown = Shown::default();
        let read = each_sector(storage, superblock.segment_bytes, |volume, sector, bytes| {
            shown.add(history, volume, sector, bytes);
        });
        read.map_err(|e: io::Error| Error::storage("reading the volumes", e))?;
        Ok(shown)
    }

    /// Adds what the salvage of a device has: it was lost, unless hosts have written there since.
    ///
    /// # Errors
    /// As [`salvage::list`] and [`salvage::read`].
    pub fn add_salvage(&mut self, storage: &dyn Storage, history: &History) -> Result<()> {
        for file in salvage::list(storage)? {
            let read = salvage::read(storage, file.number, |entry, data| {
                let blocks = entry.block.number..entry.block.number + entry.count;
                let first = blocks.start * history.block_sectors;
                let sectors = first..blocks.end * history.block_sectors;
                if data.is_empty() {
                    self.image.update_present(entry.block.volume, sectors, |shown| {
                        if *shown as usize <= history.before_force {
                            *shown = 0;
                        }
                    });
                }
                for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR)) {
                    self.add_salvaged(history, entry.block.volume, sector, bytes);
                }
                Ok(())
            });
            match read {
                // A power cut may leave a chunk without its data: nothing was overwritten for it.
                Err(error) if error.kind() == Kind::Damaged => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn add_salvaged(&mut self, history: &History, volume: u32, sector: u64, bytes: &[u8]) {
        let is_of_then = |number: u64| number <= history.before_force as u64;
        let is_lost = match pattern::content(bytes) {
            Content::Written(origin) => is_of_then(origin.write),
            Content::Zeros | Content::Damaged(_) => true,
        };
        let shows_then = match self.image.get(volume, sector) {
            0 => !history.is_zeroed_since(volume, sector),
            number => is_of_then(number.into()),
        };
        if is_lost && shows_then {
            self.image.update_present(volume, sector..sector + 1, |shown| *shown = 0);
            self.add(history, volume, sector, bytes);
        }
    }

    /// A sector of a volume holds `bytes`.
    pub fn add(&mut self, history: &History, volume: u32, sector: u64, bytes: &[u8]) {
        match pattern::content(bytes) {
            Content::Zeros => {}
            Content::Damaged(what) => {
                self.findings.add(Finding::Damaged { volume, sector, what });
            }
            Content::Written(origin) => {
                let is_its_place =
                    (origin.run, origin.volume, origin.sector) == (history.run, volume, sector);
                match Number::try_from(origin.write) {
                    Ok(number) if is_its_place && number != 0 => {
                        self.image.update(volume, sector..sector + 1, |shown| *shown = number);
                    }
                    _ => self.findings.add(Finding::Misplaced { volume, sector, origin }),
                }
            }
        }
    }

    /// Sectors that hold data.
    pub fn sectors(&self) -> usize {
        self.image.sectors().count()
    }
}

#[cfg(test)]
mod tests;
