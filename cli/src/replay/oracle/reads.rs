//! Checking what reads show, and what volumes at rest hold, against the history.

use std::ops::Range;

use super::super::pattern::{self, Content, Origin, SECTOR};
use super::{Finding, Number, Oracle, Pair, Shown, State, Tick};

/// A read that did not complete at once, and the writes that it may show.
pub struct PendingRead {
    issued: Tick,
    floors: Vec<Number>,
    /// Sectors that an earlier read showed as a write still in flight.
    shown: Vec<(u64, Number)>,
}

impl Oracle {
    /// A read of `sectors` was issued and did not complete at once. Nothing else must have been
    /// told to the oracle since it was issued.
    pub fn read_pending(&mut self, volume: u32, sectors: Range<u64>) -> PendingRead {
        self.tick += 1;
        let floors = self.image.get_range(volume, sectors.clone());
        let shown = match self.shown.is_empty() {
            true => Vec::new(),
            false => sectors
                .filter_map(|sector| Some((sector, *self.shown.get(&(volume, sector))?)))
                .collect(),
        };
        PendingRead { issued: self.tick, floors, shown }
    }

    /// A read from `sector` on has returned `data`. `pending`: what was noted when it was issued,
    /// unless it completed at once.
    pub fn read_done(
        &mut self,
        volume: u32,
        sector: u64,
        data: &[u8],
        pending: Option<&PendingRead>,
    ) {
        let count = (data.len() / SECTOR) as u64;
        let at_once;
        let pending = match pending {
            Some(pending) => pending,
            None => {
                at_once = self.read_pending(volume, sector..sector + count);
                &at_once
            }
        };
        self.tick += 1;
        self.checked.reads += 1;
        self.checked.sectors += count;
        for (at, bytes) in data.chunks_exact(SECTOR).enumerate() {
            let floor = pending.floors[at];
            let sector = sector + at as u64;
            match pattern::content(bytes) {
                Content::Zeros => {
                    self.checked.zero_sectors += 1;
                    let shown = pending.shown.iter().find(|(of, _)| *of == sector).map(|s| s.1);
                    self.check_zeros(volume, sector, floor, shown, pending.issued);
                }
                Content::Written(origin) => {
                    if let Some(number) = self.named(volume, sector, &origin) {
                        self.check_write(volume, sector, floor, number, pending);
                    }
                }
                Content::Damaged(what) => {
                    self.findings.add(Finding::Damaged { volume, sector, what });
                }
            }
        }
    }

    /// Compares one sector of a volume at rest with the image; whether it shows a write.
    ///
    /// # Errors
    /// The write that the sector shows and must not.
    pub fn at_rest(&self, volume: u32, sector: u64, bytes: &[u8]) -> Result<bool, Finding> {
        let expected = self.image.get(volume, sector);
        let shows = |number| Err(Finding::WrongAtRest { volume, sector, expected, number });
        match pattern::content(bytes) {
            Content::Zeros if self.write_of(expected).zero => Ok(false),
            Content::Zeros => shows(0),
            Content::Damaged(what) => Err(Finding::Damaged { volume, sector, what }),
            Content::Written(origin) => match self.check_name(volume, sector, &origin)? {
                number if number == expected => Ok(true),
                number => shows(number),
            },
        }
    }

    /// The write that a sector names, unless it cannot be.
    pub(super) fn named(&mut self, volume: u32, sector: u64, origin: &Origin) -> Option<Number> {
        self.check_name(volume, sector, origin).map_err(|finding| self.findings.add(finding)).ok()
    }

    fn check_name(&self, volume: u32, sector: u64, origin: &Origin) -> Result<Number, Finding> {
        if (origin.run, origin.volume, origin.sector) != (self.run, volume, sector) {
            return Err(Finding::Misplaced { volume, sector, origin: *origin });
        }
        let write = self.writes.get(origin.write as usize).filter(|write| {
            !write.zero && write.volume == volume && (write.begin..write.end).contains(&sector)
        });
        match write {
            None => Err(Finding::Misplaced { volume, sector, origin: *origin }),
            Some(write) if write.state == State::Refused => {
                Err(Finding::RefusedShown { number: origin.write as Number })
            }
            Some(_) => Ok(origin.write as Number),
        }
    }

    fn check_write(
        &mut self,
        volume: u32,
        sector: u64,
        floor: Number,
        number: Number,
        pending: &PendingRead,
    ) {
        if number != floor {
            if self.write_of(number).state == State::InFlight {
                self.show(volume, sector, floor, number);
            } else if number < self.since
                || self.write_of(number).stamp < self.write_of(floor).stamp
            {
                let expected = floor;
                self.findings.add(Finding::Stale { volume, sector, expected, number });
            }
        }
        for &(of, older) in &pending.shown {
            if of == sector && older != number {
                self.pairs.push(Pair { volume, sector, older, newer: number });
                self.settle_pairs();
            }
        }
    }

    /// A read showed a write in flight in place of `floor`.
    fn show(&mut self, volume: u32, sector: u64, floor: Number, number: Number) {
        let block =
            (sector / self.block_sectors - self.write_of(number).begin / self.block_sectors) as u32;
        let floor_stamp = self.write_of(floor).stamp;
        let Oracle { flying, writes, tick, .. } = self;
        let flying = flying.iter_mut().find(|flying| flying.number == number);
        let shown = flying.expect("it is in flight").shown.get_or_insert(Shown {
            since: *tick,
            block,
            instead_of: floor,
            later: None,
        });
        shown.block = shown.block.max(block);
        if floor_stamp > writes[shown.instead_of as usize].stamp {
            shown.instead_of = floor;
        }
        self.shown.insert((volume, sector), number);
    }

    /// Zeros were read where `floor` was the newest completed write when the read was issued and
    /// `shown`, if any, had been shown.
    fn check_zeros(
        &mut self,
        volume: u32,
        sector: u64,
        floor: Number,
        shown: Option<Number>,
        issued: Tick,
    ) {
        if self.write_of(floor).zero && shown.is_none() {
            return;
        }
        let floor_stamp = self.write_of(floor).stamp;
        let shown_issued = shown.and_then(|number| {
            self.flying.iter().find(|flying| flying.number == number).map(|flying| flying.issued)
        });
        let covers = |number: Number| {
            let write = self.write_of(number);
            write.zero && write.volume == volume && (write.begin..write.end).contains(&sector)
        };
        let since = self.zeroed_since(issued.min(shown_issued.unwrap_or(Tick::MAX)));
        let explained = self.flying.iter().any(|flying| covers(flying.number))
            || self.zeroed[since..]
                .iter()
                .any(|&(_, number)| covers(number) && self.write_of(number).stamp > floor_stamp);
        if !explained {
            let expected = shown.unwrap_or(floor);
            self.findings.add(Finding::Stale { volume, sector, expected, number: 0 });
        }
    }
}
