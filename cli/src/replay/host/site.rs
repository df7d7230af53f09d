//! The loss of a site: the device that the hosts are at is gone with its process, the other one is forced
//! to take over, hosts go on there, and the lost one returns as its target.
//!
//! The line goes down first. Whatever was admitted completes, and the hosts' last request is a flush, so
//! that the oracle knows the stamp of every write that the lost device has. A request that was not admitted is
//! issued again at the other device.

use std::time::Duration;

use super::super::oracle::{Account, Forced, Image};
use super::super::pair::ForcedTakeover;
use super::super::pattern::SECTOR;
use super::Host;
use crate::exit::Failure;

/// A request that has not completed for so long at the device that is about to be lost was not admitted.
const STILL_NS: u64 = 50_000_000;

/// A site that was lost.
pub struct LostSite {
    /// The device.
    pub device: usize,
    /// Requests issued before.
    pub row: u64,
    /// When it was lost.
    pub at: u64,
    /// How the other device took over.
    pub forced: ForcedTakeover,
    /// The tenure in which the other device serves.
    pub epoch: u64,
    /// The hosts' loss by it.
    pub account: Account,
    /// Requests issued before it returned, and when it did.
    pub back: Option<(u64, u64)>,
}

impl LostSite {
    /// When it returned.
    pub(super) fn back_at(&self) -> Option<u64> {
        self.back.map(|(_, at)| at)
    }
}

impl Host<'_> {
    /// The site of the device that the host is at is lost, or returns.
    pub(super) fn change_site(&mut self) -> Result<(), Failure> {
        self.absence.pop_front();
        let Some(site) = &mut self.lost_site else { return self.lose_site() };
        site.back = Some((self.next_row, self.pair.clock.monotonic()));
        let device = site.device;
        self.pair.open(device)?;
        if self.is_down() { Ok(()) } else { self.pair.restore() }
    }

    fn lose_site(&mut self) -> Result<(), Failure> {
        let (device, to, at) = (self.active, 1 - self.active, self.now());
        self.pair.cut();
        self.settle()?;
        let flushed = self.session.flush();
        flushed.map_err(|e| self.failed("flushing", &e))?;
        self.settle()?;
        for flight in std::mem::take(&mut self.in_flight) {
            drop(flight.ticket);
            self.refused(flight.piece, flight.asked)?;
        }
        self.pair.lose(device);
        let forced = self.pair.force(to)?;
        let session = self.pair.device(to).session();
        self.active = to;
        self.session = session.map_err(|e| self.failed("opening a session", &e))?;
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
        self.lost_site = Some(LostSite { device, row, at, forced, epoch, account, back: None });
        Ok(())
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

    /// Waits until nothing in flight completes any more.
    fn settle(&mut self) -> Result<(), Failure> {
        let mut moved_at = self.now();
        while !self.in_flight.is_empty() && self.now() < moved_at + STILL_NS {
            match self.poll()? {
                0 => std::thread::park_timeout(Duration::from_micros(200)),
                _ => moved_at = self.now(),
            }
        }
        Ok(())
    }
}
