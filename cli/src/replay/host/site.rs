//! The loss of a site: the device that the hosts are at is gone with its process, the other one is forced
//! to take over, hosts go on there, and the lost one returns as its target.
//!
//! The line goes down first. Whatever was admitted completes, and the hosts' last request is a flush, so
//! that the oracle knows the stamp of every write that the lost device has. A request that was not admitted is
//! issued again at the other device.

use std::time::Duration;

use afterimage::internal::unit::Mode;

use super::super::oracle::{Account, Forced, Image};
use super::super::pair::ForcedTakeover;
use super::super::pattern::SECTOR;
use super::super::requests::{Event, NAMES};
use super::{BURST, Host};
use crate::exit::{Exit, Failure};
use crate::words::duration;

/// A request that has not completed for so long at the device that is about to be lost was not admitted.
const STILL_NS: u64 = 50_000_000;

/// How long the hosts wait for the mode in which a site is to be lost.
const MODE_WAIT_NS: u64 = 30_000_000_000;

/// How often they look meanwhile, and whether the resync of a returned device has ended.
const LOOK_NS: u64 = 1_000_000;

/// A site that was lost.
pub struct LostSite {
    /// The device.
    pub device: usize,
    /// Requests issued before.
    pub row: u64,
    /// When it was lost.
    pub at: u64,
    /// How its writes reached the other one then.
    pub mode: Mode,
    /// Blocks that the other one owed it then.
    owed_blocks: u64,
    /// How the other device took over.
    pub forced: ForcedTakeover,
    /// The tenure in which the other device serves.
    pub epoch: u64,
    /// The hosts' loss by it.
    pub account: Account,
    /// Its return.
    pub back: Option<Return>,
}

/// The return of a lost device, and the resync into it.
pub struct Return {
    /// Requests issued before.
    pub row: u64,
    /// When it returned.
    pub at: u64,
    /// Blocks whose content was not the same at both devices then.
    pub differing_blocks: u64,
    /// Their data at the device that serves, in bytes; blocks of zeros have none.
    pub differing_bytes: u64,
    /// Whole blocks of the writes that were issued from then on until the resync ended, in bytes.
    pub written_bytes: u64,
    /// Data of the copies that were sent until then, once it has ended, in bytes.
    pub copied_bytes: Option<u64>,
    looked_at: u64,
}

impl LostSite {
    /// When it returned.
    pub(super) fn back_at(&self) -> Option<u64> {
        self.back.as_ref().map(|back| back.at)
    }

    /// The resync that goes on.
    fn resync(&mut self) -> Option<&mut Return> {
        self.back.as_mut().filter(|back| back.copied_bytes.is_none())
    }
}

impl Host<'_> {
    /// The site of the device that the host is at is lost, or returns.
    pub(super) fn change_site(&mut self) -> Result<(), Failure> {
        self.absence.pop_front();
        let (row, at) = (self.next_row, self.now());
        let Some(site) = &mut self.lost_site else { return self.lose_site() };
        let differing = self.oracle.differing(&site.account);
        let [differing_blocks, with_data] = differing.map(|blocks| blocks + site.owed_blocks);
        site.back = Some(Return {
            row,
            at,
            differing_blocks,
            differing_bytes: with_data * u64::from(self.limits.block_size),
            written_bytes: 0,
            copied_bytes: None,
            looked_at: at,
        });
        let device = site.device;
        self.pair.open(device)?;
        if self.is_down() { Ok(()) } else { self.pair.restore() }
    }

    fn lose_site(&mut self) -> Result<(), Failure> {
        let (device, to, at) = (self.active, 1 - self.active, self.now());
        self.pair.cut();
        self.settle()?;
        // Whatever completes has a flush behind it.
        loop {
            let flushed = self.session.flush();
            flushed.map_err(|e| self.failed("flushing", &e))?;
            if self.settle()? == 0 {
                break;
            }
        }
        for flight in std::mem::take(&mut self.in_flight) {
            drop(flight.ticket);
            self.refused(flight.piece, flight.asked)?;
        }
        self.pair.lose(device);
        let lost = &self.pair.status()[device];
        let (mode, owed_blocks) = (lost.mode, lost.owed_blocks);
        let forced = self.pair.force(to)?;
        let session = self.pair.device(to).session();
        self.active = to;
        self.session = session.map_err(|e| self.failed("opening a session", &e))?;
        self.note(&Event::Forced { to, epoch: self.session.epoch() });
        let shown = self.read_all()?;
        let (moves, ForcedTakeover { sheet, told, received, .. }) = (&self.moves, &forced);
        let host_in = |epoch| {
            let moved = moves.iter().rev().find(|moved| moved.takeover.epoch <= epoch);
            moved.map_or(0, |moved| moved.to)
        };
        let is_own = &|epoch| host_in(epoch) == to;
        let seen = Forced { sheet, told: *told, received: *received, is_own };
        let account = self.oracle.lose(&seen, shown);
        let (row, epoch) = (self.next_row, self.session.epoch());
        let back = None;
        self.lost_site =
            Some(LostSite { device, row, at, mode, owed_blocks, forced, epoch, account, back });
        Ok(())
    }

    /// Whether the hosts wait for the mode in which the site is to be lost.
    pub(super) fn awaits_mode(&mut self) -> Result<bool, Failure> {
        let Some((mode, since)) = &mut self.lose_in else { return Ok(false) };
        let (mode, now) = (*mode, self.pair.clock.monotonic());
        let since = *since.get_or_insert(now);
        let found = self.pair.device(self.active).status().mode;
        if found == mode {
            self.lose_in = None;
            if mode == Mode::Copying {
                // It may end by itself before anything more is issued.
                return Ok(false);
            }
            let [at, back] = [0, 1].map(|k| self.absence[k]);
            self.absence[0] = (self.next_row + BURST as u64).clamp(at, back);
            return Ok(self.absence[0] > self.next_row);
        }
        if now > since + MODE_WAIT_NS {
            let name = NAMES[self.active];
            let story = format!(
                "--lose-in: device {name} is {found}, and was not {mode} within {}; an outage, a small \
                 journal and --journal-full suspend take a pair out of its order",
                duration(MODE_WAIT_NS)
            );
            return Err(Failure::new(Exit::Usage, story));
        }
        Ok(true)
    }

    /// When the hosts look next whether a mode has come, if they wait for one.
    pub(super) fn mode_looked_at(&self) -> Option<u64> {
        let is_waiting = self.lose_in.is_some_and(|(_, since)| since.is_some());
        is_waiting.then(|| self.now() + LOOK_NS)
    }

    /// A write of so many sectors is issued.
    pub(super) fn note_resync_write(&mut self, sectors: &std::ops::Range<u64>) {
        let size = u64::from(self.limits.block_size);
        let bytes = sectors.start * SECTOR as u64..sectors.end * SECTOR as u64;
        if let Some(back) = self.lost_site.as_mut().and_then(LostSite::resync) {
            back.written_bytes += bytes.end.next_multiple_of(size) - bytes.start / size * size;
        }
    }

    /// Looks whether the resync of a device that returned has ended, as it has by the end.
    pub(super) fn look_at_resync(&mut self, now: u64, is_end: bool) {
        let Some(back) = self.lost_site.as_mut().and_then(LostSite::resync) else { return };
        if !is_end && now < back.looked_at + LOOK_NS {
            return;
        }
        back.looked_at = now;
        let status = self.pair.status();
        let active = &status[self.active];
        if is_end || active.mode == Mode::Ordered || active.differential.is_level {
            let copied = status.iter().map(|status| status.differential.copied_bytes).sum();
            back.copied_bytes = Some(copied);
        }
    }

    /// The content of the device that serves now, wherever hosts have written.
    fn read_all(&mut self) -> Result<Image, Failure> {
        let mut shown = Image::default();
        let mut page = [0; 8 * SECTOR];
        for (volume, first) in self.oracle.touched() {
            let at = first * SECTOR as u64;
            let length = (self.plan.volume_bytes(volume) - at).min(page.len() as u64);
            let page = &mut page[..length as usize];
            let read = self.session.read(volume, at, page);
            read.map_err(|e| self.failed("reading what is left", &e))?;
            for (sector, bytes) in (first..).zip(page.chunks_exact(SECTOR)) {
                if let Some(number) = self.oracle.content(volume, sector, bytes) {
                    shown.update(volume, sector..sector + 1, |shown| *shown = number);
                }
            }
        }
        Ok(shown)
    }

    /// Waits until nothing in flight completes any more; how much did.
    fn settle(&mut self) -> Result<usize, Failure> {
        let (mut moved_at, mut completed) = (self.now(), 0);
        while !self.in_flight.is_empty() && self.now() < moved_at + STILL_NS {
            match self.poll()? {
                0 => std::thread::park_timeout(Duration::from_micros(200)),
                moved => (moved_at, completed) = (self.now(), completed + moved),
            }
        }
        Ok(completed)
    }
}
