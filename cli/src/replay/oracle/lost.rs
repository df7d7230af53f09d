//! The loss of a site, as the hosts know it: which of their writes are gone at the forced takeover, whether
//! its sheet says so, and whether the device that returned has kept what it alone had.
//!
//! - The volumes of the forced device were read whole when it took over. From then on each sector shows what
//!   it showed then, or a write issued since: everything else is gone.
//! - Where the sheet says how old other lost writes may be, the writes before the loss tell by their stamps
//!   alone what it must list, and what the volumes must have shown.
//! - Of a discard only the time of its records is known, and it takes none for blocks that were zeros.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use afterimage::LossSheet;
use afterimage::internal::unit::{Block, Extent, Stamp};

use super::super::pattern::{self, Content};
use super::{Finding, Image, Number, Oracle, State, Write, later};

/// A block: its volume, and its number in it.
type Place = (u32, u64);

/// A forced takeover, as its checks need it.
pub struct Forced<'a> {
    /// The device's word of what it gives up.
    pub sheet: &'a LossSheet,
    /// The last that the lost device had told it of.
    pub told: Stamp,
    /// The newest record that had come.
    pub received: Stamp,
    /// Whether the writes of a tenure were issued at it.
    pub is_own: &'a dyn Fn(u64) -> bool,
}

/// The loss of the hosts.
#[derive(Default)]
pub struct Account {
    /// Of each sector the write before the loss; 0: zeros.
    before: Image,
    /// The blocks that show something else after it.
    lost: BTreeSet<Place>,
    /// Those that records were given up of.
    given_up: HashSet<Place>,
    kept: HashSet<Place>,
    /// The first write issued afterwards.
    since: Number,
    /// The figures.
    pub counts: Counts,
}

/// Blocks by what is known of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Their content is another after the loss.
    pub lost: u64,
    /// Those of them that the sheet lists as told.
    pub told: u64,
    /// Those of them that the sheet lists as given up.
    pub given_up: u64,
    /// Those of them that it does not list.
    pub others: u64,
    /// Those of them whose lost content was found in salvage.
    pub salvaged: u64,
    /// Blocks in salvage whose content was not lost: hosts have written them anew since.
    pub not_lost: u64,
}

/// The records that the sheet must list of one block.
#[derive(Default)]
struct Due {
    /// The newest that surely is one.
    newest: Option<Stamp>,
    /// Those after it that may be, by tenure and time.
    perhaps: Vec<(u64, u64)>,
    /// Whether `newest` is known by tenure and time only.
    is_zero: bool,
}

impl Due {
    fn allows(&self, listed: Option<Stamp>) -> bool {
        let Some(listed) = listed else { return self.newest.is_none() };
        let is_newest = self.newest.is_some_and(|newest| match self.is_zero {
            true => when(newest) == when(listed),
            false => newest == listed,
        });
        is_newest || self.perhaps.contains(&when(listed))
    }
}

fn when(stamp: Stamp) -> (u64, u64) {
    (stamp.epoch, stamp.time)
}

impl Oracle {
    /// The places of eight sectors that any write has touched: volume and first sector, in order.
    pub fn touched(&self) -> BTreeSet<(u32, u64)> {
        self.image.sectors().map(|(volume, sector, _)| (volume, sector / 8 * 8)).collect()
    }

    /// The write that the bytes of a sector name, 0 for zeros; what it cannot be is noted.
    pub fn content(&mut self, volume: u32, sector: u64, bytes: &[u8]) -> Option<Number> {
        match pattern::content(bytes) {
            Content::Zeros => Some(0),
            Content::Written(origin) => self.named(volume, sector, &origin),
            Content::Damaged(what) => {
                self.findings.add(Finding::Damaged { volume, sector, what });
                None
            }
        }
    }

    /// A site is lost, and nothing is in flight. The other device was forced, and `after` is what it shows:
    /// the hosts' history goes on from there.
    pub fn lose(&mut self, forced: &Forced<'_>, after: Image) -> Account {
        debug_assert!(self.flying.is_empty(), "whatever was not admitted is refused");
        let mut account = Account { since: self.writes.len() as Number, ..Account::default() };
        for (volume, sector, number) in self.image.sectors() {
            if !self.write_of(number).zero {
                account.before.update(volume, sector..sector + 1, |shown| *shown = number);
            }
            let shown = after.get(volume, sector);
            if account.before.get(volume, sector) != shown {
                account.lost.insert((volume, sector / self.block_sectors));
            }
        }
        let Forced { sheet, .. } = forced;
        for (extent, _) in &sheet.given_up {
            account.given_up.extend(blocks(*extent));
        }
        let told = Told::of(sheet);
        let lost = account.lost.iter();
        account.counts.lost = lost.len() as u64;
        let is_told = |&&at: &&Place| told.has(at);
        account.counts.told = lost.clone().filter(is_told).count() as u64;
        account.counts.given_up =
            lost.clone().filter(|at| account.given_up.contains(at)).count() as u64;
        let others = lost.filter(|at| !is_told(at) && !account.given_up.contains(at));
        account.counts.others = others.count() as u64;
        if sheet.others_after.is_some() {
            self.check_sheet(forced, &told, &after);
        }
        self.sealed = Stamp::ZERO;
        self.image = after;
        self.since = account.since;
        self.zeroed.clear();
        self.shown.clear();
        self.pairs.clear();
        account
    }

    /// How many blocks show another content now, or a write in flight may, than before the loss of
    /// `account`; and how many of them are not of zeros now.
    pub fn differing(&self, account: &Account) -> [u64; 2] {
        let shown = |volume, sector| {
            let number = self.image.get(volume, sector);
            if self.write_of(number).zero { 0 } else { number }
        };
        let mut differing: BTreeSet<Place> = BTreeSet::new();
        for (volume, sector, _) in self.image.sectors().chain(account.before.sectors()) {
            if shown(volume, sector) != account.before.get(volume, sector) {
                differing.insert((volume, sector / self.block_sectors));
            }
        }
        let has_data = |&&(volume, block): &&Place| {
            let mut sectors = block * self.block_sectors..(block + 1) * self.block_sectors;
            sectors.any(|sector| shown(volume, sector) != 0)
        };
        let mut with_data: BTreeSet<Place> = differing.iter().filter(has_data).copied().collect();
        for flying in &self.flying {
            let &Write { volume, begin, end, zero, .. } = self.write_of(flying.number);
            if zero {
                continue;
            }
            let blocks = begin / self.block_sectors..end.div_ceil(self.block_sectors);
            with_data.extend(blocks.map(|block| (volume, block)));
        }
        differing.extend(&with_data);
        [differing, with_data].map(|blocks| blocks.len() as u64)
    }

    /// In ordered mode the stamps alone tell what has arrived.
    fn check_sheet(&mut self, forced: &Forced<'_>, told: &Told, after: &Image) {
        let Forced { sheet, told: last, received, is_own } = *forced;
        let written: BTreeSet<Place> =
            self.image.sectors().map(|(v, sector, _)| (v, sector / self.block_sectors)).collect();
        let given_up: HashSet<Stamp> = sheet.given_up.iter().map(|entry| entry.1).collect();
        let given_up_at: HashSet<_> = given_up.iter().map(|stamp| when(*stamp)).collect();
        let mut done: Vec<(Stamp, Number)> = (0..)
            .zip(&self.writes)
            .filter(|(_, write)| write.state == State::Done && write.stamp != Stamp::ZERO)
            .map(|(number, write)| (write.stamp, number))
            .collect();
        done.sort_unstable();
        let (mut all, mut expected) = (Image::default(), Image::default());
        let mut open: HashSet<Place> = HashSet::new();
        let mut due: HashMap<Place, Due> = HashMap::new();
        let mut times: HashMap<(u64, u64), Vec<Number>> = HashMap::new();
        let known = last.max(received);
        for &(stamp, number) in &done {
            let Write { volume, begin, end, zero, .. } = *self.write_of(number);
            let is_own = is_own(stamp.epoch);
            times.entry(when(stamp)).or_default().push(number);
            let newest = later(stamp, (self.records_of(number).max(1) - 1) as u32);
            let after = sheet.others_after.unwrap_or_default();
            if !is_own && newest > known && when(stamp) != when(known) && stamp.time <= after {
                self.findings.add(Finding::NotYounger { number, stamp, after });
            }
            let first = begin / self.block_sectors;
            let range = (volume, first)..(volume, end.div_ceil(self.block_sectors));
            if zero {
                let is_there = match is_own {
                    true => !given_up_at.contains(&when(stamp)),
                    false => when(stamp) <= when(received),
                };
                let is_open = when(stamp) == when(received);
                for &at in written.range(range) {
                    let of_block = at.1 * self.block_sectors..(at.1 + 1) * self.block_sectors;
                    let sectors = of_block.start.max(begin)..of_block.end.min(end);
                    let was_zero = all.get_range(volume, of_block).iter().all(|&n| n == 0);
                    all.update(volume, sectors.clone(), |shown| *shown = 0);
                    if is_there {
                        expected.update(volume, sectors.clone(), |shown| *shown = 0);
                    }
                    if is_open {
                        open.insert(at);
                    }
                    if !is_own && when(stamp) >= when(received) && when(stamp) <= when(last) {
                        let due = due.entry(at).or_default();
                        match was_zero || is_open || when(stamp) == when(last) {
                            true => due.perhaps.push(when(stamp)),
                            false => {
                                *due = Due { newest: Some(stamp), is_zero: true, ..Due::default() };
                            }
                        }
                    }
                }
                continue;
            }
            for (at, record) in (first..range.end.1).zip(0..) {
                let record = later(stamp, record);
                let of_block = at * self.block_sectors..(at + 1) * self.block_sectors;
                let sectors = of_block.start.max(begin)..of_block.end.min(end);
                all.update(volume, sectors.clone(), |shown| *shown = number);
                let is_there =
                    if is_own { !given_up.contains(&record) } else { record <= received };
                if is_there {
                    expected.update(volume, sectors, |shown| *shown = number);
                } else if !is_own && record <= last {
                    let newest = Some(record);
                    due.insert((volume, at), Due { newest, ..Due::default() });
                }
            }
        }
        for &(volume, block) in &written {
            let (listed, due) = (told.newest((volume, block)), due.get(&(volume, block)));
            if !due.map_or(listed.is_none(), |due| due.allows(listed)) {
                let due = due.and_then(|due| due.newest);
                self.findings.add(Finding::Sheet { volume, block, due, listed });
            }
            let sectors = block * self.block_sectors..(block + 1) * self.block_sectors;
            if open.contains(&(volume, block)) {
                continue;
            }
            for sector in sectors {
                let (due, number) = (expected.get(volume, sector), after.get(volume, sector));
                if due != number {
                    let expected = due;
                    let finding = Finding::WrongAfterForce { volume, sector, expected, number };
                    self.findings.add(finding);
                }
            }
        }
        for &(extent, stamp) in sheet.told.iter().chain(&sheet.given_up) {
            let Extent { first: Block { volume, number }, .. } = extent;
            let holds = |&of: &Number| {
                let write = self.write_of(of);
                let blocks =
                    write.begin / self.block_sectors..write.end.div_ceil(self.block_sectors);
                write.volume == volume && blocks.start <= number && extent.end() <= blocks.end
            };
            if !times.get(&when(stamp)).is_some_and(|all| all.iter().any(holds)) {
                let (block, listed) = (number, Some(stamp));
                self.findings.add(Finding::Sheet { volume, block, due: None, listed });
            }
        }
    }

    /// Salvage has a block, or several of zeros, that hosts wrote before the loss.
    pub fn salvaged(&mut self, account: &mut Account, block: Block, count: u64, data: &[u8]) {
        let volume = block.volume;
        if data.is_empty() {
            let run = (volume, block.number)..(volume, block.number + count);
            for &at in account.lost.range(run) {
                match account.was_zero(at, self.block_sectors) {
                    true => drop(account.kept.insert(at)),
                    false if account.given_up.contains(&at) => {}
                    false => self.findings.add(Finding::WrongSalvage { volume, block: at.1 }),
                }
            }
            return;
        }
        let at = (volume, block.number);
        let first = block.number * self.block_sectors;
        let mut is_last = true;
        for (sector, bytes) in (first..).zip(data.chunks_exact(super::SECTOR)) {
            let number = self.content(volume, sector, bytes);
            is_last &= number == Some(account.before.get(volume, sector));
        }
        match (is_last, account.lost.contains(&at)) {
            (true, true) => drop(account.kept.insert(at)),
            (true, false) => account.counts.not_lost += 1,
            (false, _) if account.given_up.contains(&at) => {}
            (false, _) => self.findings.add(Finding::WrongSalvage { volume, block: block.number }),
        }
    }

    /// All salvage was seen: each block that was lost must have been in it. Zeros that hosts have made zeros
    /// again were overwritten by nothing.
    pub fn close_account(&mut self, account: &mut Account) {
        account.counts.salvaged = account.kept.len() as u64;
        let zeroed: Vec<Write> = self.writes[account.since as usize..]
            .iter()
            .filter(|write| write.zero && write.state == State::Done)
            .map(|write| Write { ..*write })
            .collect();
        for at in account.lost.iter().filter(|at| !account.kept.contains(at)) {
            let &(volume, block) = at;
            let of_block = block * self.block_sectors..(block + 1) * self.block_sectors;
            let is_zeroed = |write: &Write| {
                write.volume == volume && write.begin < of_block.end && of_block.start < write.end
            };
            if !account.was_zero(*at, self.block_sectors) || !zeroed.iter().any(is_zeroed) {
                self.findings.add(Finding::NotSalvaged { volume, block });
            }
        }
    }
}

fn blocks(extent: Extent) -> impl Iterator<Item = Place> {
    (extent.first.number..extent.end()).map(move |number| (extent.first.volume, number))
}

impl Account {
    fn was_zero(&self, (volume, block): Place, block_sectors: u64) -> bool {
        let sectors = block * block_sectors..(block + 1) * block_sectors;
        self.before.get_range(volume, sectors).iter().all(|&number| number == 0)
    }
}

/// The entries of the sheet for what was told: of records by extent, and of blocks with a bit.
struct Told {
    newest: HashMap<Extent, Stamp>,
    level_max: u8,
    /// Volume and first block, and the block behind the last.
    blocks: BTreeMap<Place, u64>,
}

impl Told {
    fn of(sheet: &LossSheet) -> Told {
        let newest: HashMap<Extent, Stamp> = sheet.told.iter().copied().collect();
        let level_max = newest.keys().map(|extent| extent.level).max().unwrap_or(0);
        let runs = sheet.told_blocks.iter().map(|(run, _)| run);
        let blocks = runs.map(|run| ((run.volume, run.numbers.start), run.numbers.end));
        Told { newest, level_max, blocks: blocks.collect() }
    }

    fn has(&self, at: Place) -> bool {
        let run = self.blocks.range(..=at).next_back();
        let has_bit = run.is_some_and(|(&(volume, _), &end)| volume == at.0 && at.1 < end);
        has_bit || self.newest(at).is_some()
    }

    /// The newest stamp listed for a block.
    fn newest(&self, (volume, number): Place) -> Option<Stamp> {
        let around = |level| Extent::around(Block { volume, number }, level);
        (0..=self.level_max).filter_map(|level| self.newest.get(&around(level)).copied()).max()
    }
}
