//! The debt, records that the peer has told of and this device has not received, goes to a side file at
//! a close and at a halt, and is read at the next opening (R18). Without the file, or with one that is
//! damaged, the next takeover request names an older stamp, and the peer tells the rest once more.
//!
//! The same of announcements of bits (LADDER 6), in a file of its own, which counts for one opening: what a
//! device was told that is killed afterwards is not known.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::format::PAGE;
use crate::format::superblock::Superblock;
use crate::format::told::Owner;
use crate::format::told_bits::ToldBits;
use crate::limits::{Geometry, TOLD_FILE_BYTES_MAX};
use crate::storage::{FileName, Fill, SideKind, Storage, Volumes};
use crate::sync::lock;
use crate::table::announced::Announced;
use crate::table::prototype::Debt;
use crate::unit::{Blocks, Extent, Mode, Stamp};
use std::io::{self, IoSlice};

const FILE: FileName = FileName::Side { kind: SideKind::new("told").expect("a word"), number: 0 };

const BITS: FileName = FileName::Side { kind: SideKind::new("told").expect("a word"), number: 1 };

fn owner(superblock: &Superblock) -> Owner {
    let Superblock { group, device, lineage, .. } = *superblock;
    Owner { group, device, lineage }
}

/// The debt above `hi` that the side file of an earlier opening has: empty without a sound file.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(crate) fn told_before(
    storage: &dyn Storage,
    superblock: &Superblock,
    volumes: &Volumes,
    hi: Stamp,
) -> Result<Debt> {
    let most = Geometry::of(superblock).prototype_entries_max();
    let failed = |e| Error::storage(format!("reading {FILE}"), e);
    let mut debt = Debt::default();
    let length = storage.length(FILE).map_err(failed)?.unwrap_or(0);
    let mut bytes = vec![0; length.min(TOLD_FILE_BYTES_MAX) as usize];
    // A file that cannot be read is no failure: the peer tells once more. In differential mode bits tell.
    if superblock.mode != Mode::Ordered
        || bytes.is_empty()
        || storage.read(FILE, 0, &mut bytes).is_err()
    {
        return Ok(debt);
    }
    let told = owner(superblock).read_side_file(&bytes, most).unwrap_or_default();
    let is_known = |&(extent, stamp): &(Extent, Stamp)| {
        volumes.contains(extent) && stamp.epoch <= superblock.epoch
    };
    if told.iter().all(is_known) && debt.extend(Stamp::ZERO, &told, hi, most).is_err() {
        debt = Debt::default();
    }
    Ok(debt)
}

/// The announcements of bits that the side file of an earlier opening has: none without a sound file, or in
/// ordered mode. The file is emptied, if it `counts_once`.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(crate) fn told_bits_before(
    storage: &dyn Storage,
    superblock: &Superblock,
    counts_once: bool,
) -> Result<Option<ToldBits>> {
    let failed = |e| Error::storage(format!("reading {BITS}"), e);
    let length = storage.length(BITS).map_err(failed)?.unwrap_or(0);
    let mut bytes = vec![0; length.min(TOLD_FILE_BYTES_MAX) as usize];
    if bytes.is_empty() || storage.read(BITS, 0, &mut bytes).is_err() {
        return Ok(None);
    }
    let blocks = superblock.volume_blocks();
    let is_known = |(run, _): &(Blocks, u64)| {
        blocks.get(&run.volume).is_some_and(|&count| run.numbers.end <= count)
    };
    let told = ToldBits::decode(owner(superblock), &bytes).filter(|told| {
        superblock.mode != Mode::Ordered && told.told.iter().chain(&told.earlier).all(is_known)
    });
    if counts_once && bytes[..PAGE as usize].iter().any(|&byte| byte != 0) {
        let empty = |e| Error::storage(format!("emptying {BITS}"), e);
        write_whole(storage, BITS, &[0; PAGE as usize]).map_err(empty)?;
    }
    Ok(told)
}

/// Blocks that the peer told of by bits and that had not arrived when the device was closed, or halted: runs
/// in rising order, each with the time of its newest announcement in nanoseconds since 1970, which is 0 if it
/// is not known. Nothing of them in ordered mode (LADDER 6). Only looks.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub fn told_bits_kept(
    storage: &dyn Storage,
    superblock: &Superblock,
) -> Result<Vec<(Blocks, u64)>> {
    let ToldBits { told, earlier, .. } =
        told_bits_before(storage, superblock, false)?.unwrap_or_default();
    let mut all = Announced::default();
    earlier.iter().chain(&told).for_each(|(run, number)| all.insert(run, *number));
    Ok(all.runs().collect())
}

impl Device {
    /// Blocks that the peer told of, by records (R18) or by bits (LADDER 6), and whose data has not arrived:
    /// runs in rising order, each with the time of its newest announcement in nanoseconds since 1970, which
    /// is 0 if it is not known; and whether announcements came that were not kept.
    pub fn told_and_missing(&self) -> (Vec<(Blocks, u64)>, bool) {
        let hi = lock(&self.tables).incoming.hi();
        let (mut told, is_part) = {
            let machine = self.peer.machine.read();
            (machine.told(), machine.is_told_in_part())
        };
        for (extent, stamp) in self.peer.owed.told().iter().filter(|told| told.1 > hi) {
            told.insert(&extent.into(), stamp.time);
        }
        (told.runs().collect(), is_part)
    }

    /// Writes down the announcements of bits that have not been followed by copies, as
    /// [`Device::keep_told`] does.
    pub(crate) fn keep_told_bits(&self, told: ToldBits) {
        if !told.told.is_empty() || !told.earlier.is_empty() {
            let mut bytes = told.encode(owner(&self.superblock.get()));
            bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
            if bytes.len() as u64 <= TOLD_FILE_BYTES_MAX {
                let _ = write_whole(self.storage_apart(), BITS, &bytes);
            }
        }
    }

    /// Writes down what the peer owes, `told`. A file that cannot be written leaves it to be told
    /// once more.
    pub(crate) fn keep_told(&self, told: Vec<(Extent, Stamp)>) {
        if !told.is_empty() {
            let owner = owner(&self.superblock.get());
            let mut bytes = owner.side_file(told, TOLD_FILE_BYTES_MAX as usize);
            // Whole pages; what a longer file has behind them is not looked at.
            bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
            let _ = write_whole(self.storage_apart(), FILE, &bytes);
        }
    }
}

fn write_whole(storage: &dyn Storage, file: FileName, bytes: &[u8]) -> io::Result<()> {
    match storage.length(file)? {
        None => storage.create(file, bytes.len() as u64, Fill::Sparse)?,
        Some(length) if length < bytes.len() as u64 => storage.grow(file, bytes.len() as u64)?,
        Some(_) => {}
    }
    storage.write(file, 0, &[IoSlice::new(bytes)])?;
    storage.sync(file)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::error::Kind;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::Settings;
    use crate::link::{Lane, Line, memory_link};
    use crate::storage::Memory;
    use crate::unit::Block;
    use std::sync::Arc;

    const BLOCKS: u64 = 300;

    fn device(id: u64) -> (Arc<Memory>, Arc<Device>) {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * 4096 }];
        let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).unwrap();
        (storage.clone(), open(&storage))
    }

    fn open(storage: &Arc<Memory>) -> Arc<Device> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Device::open(storage.clone(), clock, Settings::default()).unwrap()
    }

    /// A line between the two, on which no data of `a` leaves, and what they say on it.
    fn meet(a: &Arc<Device>, b: &Arc<Device>) {
        let (end, other) = memory_link(Line::default(), a.clock().clone());
        end.hold(Lane::Data, true);
        a.connect(Arc::new(end)).unwrap();
        b.connect(Arc::new(other)).unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
    }

    #[test]
    fn what_was_told_is_known_after_a_close_and_a_halt() {
        let ((_, a), (storage, b)) = (device(1), device(2));
        a.resume_alone().unwrap();
        let host = a.session().unwrap();
        for n in (0..BLOCKS).step_by(3) {
            host.write(0, n * 4096, &[5; 4096]).unwrap();
        }
        host.flush().unwrap();
        meet(&a, &b);
        let told = |device: &Device| (device.status().told_blocks, device.status().told);
        let (before, bytes) = (told(&b), b.status().told_bytes);
        assert_eq!((before.0, bytes), (BLOCKS / 3, BLOCKS / 3 * 4096));
        b.close().unwrap();
        drop(b);

        let b = open(&storage);
        assert_eq!(told(&b), before, "after a close");
        meet(&a, &b);
        host.write(0, 4096, &[6; 4096]).unwrap();
        host.flush().unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
        let before = told(&b);
        assert_eq!(before.0, BLOCKS / 3 + 1);
        b.halt(Error::new(Kind::Protocol, "for a test"));
        drop(b);

        let b = open(&storage);
        assert_eq!(told(&b), before, "after a halt");
        b.close().unwrap();
        drop(b);

        // A damaged file says nothing, and costs nothing but the telling.
        storage.write(FILE, 80, &[IoSlice::new(b"?")]).unwrap();
        let b = open(&storage);
        assert_eq!(told(&b), (0, Stamp::ZERO));
        meet(&a, &b);
        assert_eq!(told(&b), before);
        b.begin_takeover().unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
        let takeover = b.poll_takeover().expect("it has ended").unwrap();
        assert_eq!(takeover.owed_blocks, BLOCKS / 3 + 1);

        // A sound file that names a block or a tenure that cannot be says nothing either.
        let (owner, epoch) = (owner(&b.superblock.get()), takeover.epoch);
        drop(b);
        for (number, epoch, known) in
            [(0, epoch, 1), (BLOCKS - 1, epoch, 1), (BLOCKS, epoch, 0), (0, epoch + 1, 0)]
        {
            let entry =
                (Block { volume: 0, number }.into(), Stamp { epoch, time: u64::MAX, sequence: 0 });
            let bytes = owner.side_file(vec![entry], PAGE as usize);
            storage.write(FILE, 0, &[IoSlice::new(&bytes)]).unwrap();
            assert_eq!(told(&open(&storage)).0, known, "block {number} of tenure {epoch}");
        }
    }

    /// The same of announcements of bits; a takeover after it is granted only what was not told.
    #[test]
    fn bits_that_were_told_are_known_after_a_close_and_a_halt() {
        let ((_, a), (storage, b)) = (device(1), device(2));
        a.resume_alone().unwrap();
        let host = a.session().unwrap();
        let settle = |b: &Arc<Device>| {
            for _ in 0..9 {
                while a.step_control().unwrap() || b.step_control().unwrap() {}
                for device in [&a, b] {
                    while device.step_ladder().unwrap() {}
                    device.step_reflect().unwrap();
                    device.step_checkpoint().unwrap();
                }
            }
        };
        meet(&a, &b);
        a.suspend().unwrap();
        for n in (0..BLOCKS).step_by(3) {
            host.write(0, n * 4096, &[5; 4096]).unwrap();
        }
        host.flush().unwrap();
        settle(&b);
        let before = b.told_and_missing();
        assert_eq!(before.0.len() as u64, BLOCKS / 3);
        let now = a.clock().wall();
        assert!(before.0.iter().all(|(_, time)| now - time < 60_000_000_000), "{before:?}");
        b.close().unwrap();
        drop(b);

        let b = open(&storage);
        assert_eq!(b.told_and_missing(), before, "after a close");
        drop(b);
        // The file counts once: the device was killed.
        let b = open(&storage);
        assert_eq!(b.told_and_missing().0, []);
        meet(&a, &b);
        settle(&b);
        let before = b.told_and_missing();
        assert_eq!(before.0.len() as u64, BLOCKS / 3);
        b.halt(Error::new(Kind::Protocol, "for a test"));
        drop(b);

        let b = open(&storage);
        assert_eq!(b.told_and_missing(), before, "after a halt");
        meet(&a, &b);
        settle(&b);
        b.begin_takeover().unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
        let takeover = b.poll_takeover().expect("it has ended").unwrap();
        assert_eq!(takeover.owed_blocks, BLOCKS / 3);
        assert!(a.peer.machine.read().untold().is_empty(), "nothing was granted by name");
        assert_eq!(b.told_and_missing().0.len() as u64, BLOCKS / 3);
    }
}
