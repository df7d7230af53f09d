//! L → normal volume: own and received records in one stamp order (S1502, R8).
//!
//! A step takes the oldest records that may go and writes the newest of each block, sorted by
//! address: readers keep reading the records until the whole step is in the volumes, so what a
//! reader sees of N is always a prefix of history.

use crate::device::Device;
use crate::error::{Kind, Result};
use crate::format::batch::Log;
use crate::moment::{Moment, moment};
use crate::queue::{Content, Record};
use crate::salvage::Incoming;
use crate::storage::Storage;
use crate::sync::{Ordering, lock};
use crate::table::runs::{Run, newest_runs};
use crate::unit::{Block, Stamp};
use std::io::IoSlice;

/// Most bytes of one write to a volume.
const RUN_BYTES_MAX: usize = 256 << 10;

/// A step takes no record more once its records have so many bytes: where the storage cannot punch
/// holes, zeros are written.
const STEP_BYTES_MAX: u64 = 1 << 30;

impl Device {
    /// Reflects up to [`crate::limits::Settings::reflect_records_max`] records, the oldest of L
    /// (S1502, R8); returns how many.
    ///
    /// # Errors
    /// [`crate::error::Kind::Halted`] if a record cannot be read or a volume not be written.
    pub fn step_reflect(&self) -> Result<usize> {
        let _telling = self.events.enter();
        self.step_reflect_some(self.settings.reflect_records_max)
    }

    /// Reflects if it is due (S1502, R8): enough records wait, or they have waited long enough, or
    /// they hold much of a journal. Returns how many it reflected.
    ///
    /// # Errors
    /// As [`Device::step_reflect`].
    pub fn step_reflect_due(&self) -> Result<usize> {
        let _telling = self.events.enter();
        if let Ok(_still) = self.reflecting.try_lock() {
            self.end_image()?;
            self.mark_first()?;
        }
        let waiting = {
            let mut tables = lock(&self.tables);
            self.sequence(&mut tables);
            tables.unreflected()
        };
        let now = self.clock.monotonic();
        if waiting < self.reflect_enough() && now < self.reflect_due_at.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let next = now.saturating_add(self.settings.reflect_interval_ns);
        self.reflect_due_at.store(next, Ordering::Relaxed);
        self.step_reflect()
    }

    /// Whether everything that may go to N is there, and not all of it was there at the last checkpoint.
    pub(crate) fn is_behind_reflection(&self) -> bool {
        let tables = lock(&self.tables);
        !tables.is_reflectable() && self.superblock.get().fl < tables.normal.reflected()
    }

    /// So many records are reflected without waiting for more.
    pub(crate) fn reflect_enough(&self) -> u64 {
        (self.settings.reflect_records_max as u64).min(self.geometry.places() / 4)
    }

    /// As [`Device::step_reflect`] (S1502, R8), at most `most` records.
    ///
    /// # Errors
    /// As [`Device::step_reflect`].
    pub fn step_reflect_some(&self, most: usize) -> Result<usize> {
        let mut buffer = self.begin_step(&self.reflecting)?;
        self.end_image()?;
        self.write_back_image()?;
        let mut oldest = self.oldest_reflectable(most);
        if self.mark_first()? {
            // An image may have begun amid these records.
            oldest = self.oldest_reflectable(most);
        }
        if oldest.0.is_empty() {
            return Ok(0);
        }
        let (taken, upto, own_end, recv_end) = oldest;
        self.save_before_records(&taken).map_err(|e| self.halt(e))?;
        if self.image.upto().is_some_and(|image| upto > image) {
            let blocks = taken.iter().map(|(_, record)| record.extent().into());
            self.save_before(blocks).map_err(|e| self.halt(e))?;
        }
        moment(Moment::Reflecting);
        self.write_newest(&taken, &mut buffer).map_err(|e| self.unreadable(e))?;
        moment(Moment::Reflected);
        for (log, record) in &taken {
            match log {
                Log::Own => self.own.journal.queue.set_reflected(record.position),
                Log::Recv => self.peer.recv.journal.queue.set_reflected(record.position),
            }
        }
        lock(&self.tables).reflect([own_end, recv_end], upto, taken.len() as u64);
        Ok(taken.len())
    }

    /// At a device that returned, what records of the peer's history are to overwrite is saved first, as far
    /// as there is room (D10).
    fn save_before_records(&self, taken: &[(Log, Record)]) -> Result<()> {
        let Some(tenure) = self.peer.saving.tenure() else { return Ok(()) };
        let with = (&*self.storage as &dyn Storage, &self.volumes, self.clock.wall());
        let records = taken.iter().map(|(_, record)| record);
        let theirs = records.filter(|record| record.stamp.epoch >= tenure);
        let changes = theirs.map(|record| (record.extent().into(), Incoming::Record));
        match self.peer.saving.before(with, changes) {
            Err(error) if error.kind() == Kind::Protocol => {
                let goes_on = "records of the peer's history replace what is not saved";
                self.note_salvage_full(error, goes_on);
                Ok(())
            }
            other => other,
        }
    }

    /// The oldest unreflected records that R8 lets go: those up to `hi` or `whole` always, all of
    /// them once everything owed at the last takeover is here.
    pub(crate) fn oldest_reflectable(&self, most: usize) -> (Vec<(Log, Record)>, Stamp, u64, u64) {
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        let limit = tables.reflectable();
        let (own_records, received) = (tables.own.records(), tables.incoming.records());
        let (mut own, mut recv) = (tables.normal.first_own(), received.begin());
        let mut taken = Vec::new();
        let mut upto = Stamp::ZERO;
        let mut bytes = 0;
        // A block is saved as the records of before have left it.
        let new_history = self.peer.saving.tenure();
        let image = self.image.upto();
        let mut is_parted = false;
        while taken.len() < most && bytes < STEP_BYTES_MAX {
            let next_own = own_records.get(own).filter(|e| e.0 <= limit);
            let next_recv = received.get(recv).filter(|e| e.0 <= limit);
            let (log, (stamp, position)) = match (next_own, next_recv) {
                (None, None) => break,
                (Some(o), Some(r)) if o.0 < r.0 => (Log::Own, o),
                (Some(o), None) => (Log::Own, o),
                (_, Some(r)) => (Log::Recv, r),
            };
            let is_new = |stamp: Stamp| {
                let is_of_peer = new_history.is_some_and(|tenure| stamp.epoch >= tenure);
                (is_of_peer, image.is_some_and(|upto| stamp > upto))
            };
            if upto != Stamp::ZERO && is_new(stamp) != is_new(upto) {
                is_parted = true;
                self.reflect_due_at.store(0, Ordering::Relaxed);
                break;
            }
            let queue = match log {
                Log::Own => {
                    own += 1;
                    &self.own.journal.queue
                }
                Log::Recv => {
                    recv += 1;
                    &self.peer.recv.journal.queue
                }
            };
            let record = queue.record(position);
            bytes += record.extent().blocks() * u64::from(self.geometry.block_size);
            taken.push((log, record));
            upto = stamp;
        }
        if bytes >= STEP_BYTES_MAX {
            // The rest is due at once.
            self.reflect_due_at.store(0, Ordering::Relaxed);
        }
        if taken.len() < most && bytes < STEP_BYTES_MAX && limit == Stamp::MAX && !is_parted {
            let left = own_records.end() - own + received.end() - recv;
            debug_assert!(
                left == 0,
                "I4: nothing holds the rest back, and {left} records are left"
            );
        }
        (taken, upto, own, recv)
    }

    /// Writes the newest record of each block, in address order, neighbours together, zeros of any
    /// length at once (R19).
    fn write_newest(&self, taken: &[(Log, Record)], buffer: &mut Vec<u8>) -> Result<()> {
        let runs = newest_runs(taken.iter().map(|(_, record)| record.extent()));
        let size = self.geometry.block_size as usize;
        buffer.resize(RUN_BYTES_MAX.max(size), 0);
        let mut rest = &runs[..];
        while let Some(&Run { first, .. }) = rest.first() {
            let content = taken[rest[0].newest].1.content;
            let mut end = first.number;
            let joins = |run: &&Run| {
                let joins = run.first == Block { number: end, ..first }
                    && taken[run.newest].1.content == content;
                end += run.blocks;
                joins
            };
            let mut count = rest.iter().take_while(joins).count();
            if content == Content::Zero {
                let (these, others) = rest.split_at(count);
                rest = others;
                let mut left = these.iter().map(|run| run.blocks).sum::<u64>();
                let mut block = first;
                while left > 0 {
                    let room = self.volumes.bytes_to_segment_end(block) / size as u64;
                    self.volumes.zero(block, left.min(room))?;
                    block.number += left.min(room);
                    left = left.saturating_sub(room);
                }
                continue;
            }
            let room = (buffer.len() as u64).min(self.volumes.bytes_to_segment_end(first));
            count = count.min((room / size as u64) as usize);
            let (these, others) = rest.split_at(count);
            rest = others;
            for (n, run) in these.iter().enumerate() {
                let (log, record) = &taken[run.newest];
                let to = &mut buffer[n * size..(n + 1) * size];
                let read = match log {
                    Log::Own => self.own.read(record, to)?,
                    Log::Recv => self.peer.recv.read(record, to)?,
                };
                assert!(read, "I8: an unreflected record was freed");
            }
            self.volumes.write(first, &[IoSlice::new(&buffer[..count * size])])?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::clock::{Clock, SystemClock};
    use crate::device::Device;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Line, memory_link};
    use crate::storage::Memory;
    use std::sync::Arc;

    /// Each record may have 32 MiB, and a storage that cannot punch holes writes them. The rest of
    /// what a step leaves is due at once.
    #[test]
    fn a_step_takes_a_gibibyte_at_most() {
        const REQUEST: u64 = 32 << 20;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let [a, b] = [1, 2].map(|id| {
            let storage = Arc::new(Memory::new());
            let mut geometry = Geometry::new(7, id, vec![VolumeSpec { id: 0, bytes: 4 << 30 }]);
            geometry.journal_bytes = 16 << 20;
            Device::create(&*storage, &geometry, id == 1).unwrap();
            let reflect_interval_ns = 3_600_000_000_000;
            let settings = Settings { reflect_interval_ns, ..Settings::default() };
            Device::open(storage, clock.clone(), settings).unwrap()
        });
        let (end_a, end_b) = memory_link(Line::default(), clock);
        a.connect(Arc::new(end_a)).unwrap();
        b.connect(Arc::new(end_b)).unwrap();
        for device in [&a, &b, &a, &b] {
            while device.step_control().unwrap() {}
        }
        let host = a.session().unwrap();
        for request in 0..48 {
            // A discard of zeros would need no record.
            host.write(0, request * REQUEST, &[7; 4096]).unwrap();
            host.discard(0, request * REQUEST, REQUEST).unwrap();
        }
        a.step_commit().unwrap();
        assert_eq!(a.step_reflect().unwrap(), 64, "32 of them, and as many blocks");
        assert_eq!(a.step_reflect_due().unwrap(), 32, "the rest waited for the interval");
        assert_eq!(a.step_reflect_due().unwrap(), 0);
    }
}
