//! Salvage: what a forced takeover gave up stays in side files that can be listed and read (D10), until an
//! operator, or the time that he has set, removes them.
//!
//! Two things come here: own records that the forced device gives up, with their stamps; and, at the device
//! that returns, the content of the blocks that only bits tell of, before a copy overwrites it.

mod unsaved;

use crate::error::{Error, Kind, Result};
use crate::format::salvage::{Chunk, Origin, Saved};
use crate::format::superblock::Superblock;
use crate::format::told::Owner;
use crate::format::unsaved::Unsaved;
use crate::format::{PAGE, data_checksum};
use crate::saved::{self, Pending};
use crate::storage::{FileName, SideKind, Storage, Volumes};
use crate::superblock;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::table::bits::Bits;
use crate::unit::{Block, Blocks, Extent, Stamp};
use std::sync::Mutex;

pub(crate) const KIND: SideKind = SideKind::new("salvage").expect("a word");

/// A salvage file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageFile {
    /// The number in its name.
    pub number: u32,
    /// Its length, in bytes.
    pub bytes: u64,
    /// The lineage that was given up: number and unique id; `None` if no chunk of it can be read.
    pub lineage: Option<(u64, u64)>,
    /// Wall time of the first and the last chunk, in nanoseconds since 1970.
    pub saved_at: (u64, u64),
    /// How many blocks it has, a block that was given up twice counted twice.
    pub blocks: u64,
}

fn file(number: u32) -> FileName {
    FileName::Side { kind: KIND, number }
}

fn failed(doing: &str, number: u32) -> impl Fn(std::io::Error) -> Error {
    let what = format!("{doing} {}", file(number));
    move |e| Error::storage(what.clone(), e)
}

/// The numbers of a device's side files of this `kind`, rising.
fn numbers(storage: &dyn Storage, kind: SideKind) -> Result<Vec<u32>> {
    let files = storage.files().map_err(|e| Error::storage("listing the files", e))?;
    let mut numbers: Vec<u32> = files
        .into_iter()
        .filter_map(|file| match file {
            FileName::Side { kind: found, number } if found == kind => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Calls `each` with each chunk of a file, and where it begins; returns where the last one ends.
fn chunks(storage: &dyn Storage, number: u32, each: impl FnMut(u64, &Chunk)) -> Result<u64> {
    saved::chunks(storage, file(number), 0, each).map_err(failed("reading", number))
}

/// The salvage files of a device, in the order of their numbers.
///
/// # Errors
/// [`Kind::Storage`] if the storage fails.
pub fn list(storage: &dyn Storage) -> Result<Vec<SalvageFile>> {
    let numbers = numbers(storage, KIND)?;
    let described = numbers.into_iter().map(|number| {
        let (mut lineage, mut saved_at, mut blocks) = (None, (0, 0), 0);
        let bytes = chunks(storage, number, |_, chunk| {
            if lineage.is_none() {
                saved_at.0 = chunk.saved_at;
            }
            lineage = Some(chunk.origin.lineage);
            saved_at.1 = chunk.saved_at;
            blocks += chunk.entries.iter().map(|(entry, _)| entry.count).sum::<u64>();
        })?;
        Ok(SalvageFile { number, bytes, lineage, saved_at, blocks })
    });
    described.collect()
}

/// Every entry of the salvage file `number`, with its data (empty: zeros), in the order in which they were
/// saved.
///
/// # Errors
/// [`Kind::Invalid`] if there is no such file; [`Kind::Damaged`] if the data of an entry is not what was
/// saved, after the entries before it; the error of `each`; [`Kind::Storage`].
pub fn read(
    storage: &dyn Storage,
    number: u32,
    mut each: impl FnMut(&Saved, &[u8]) -> Result<()>,
) -> Result<()> {
    let name = file(number);
    if storage.length(name).map_err(failed("reading", number))?.is_none() {
        return Err(Error::new(Kind::Invalid, format!("there is no {name}")));
    }
    let mut all = Vec::new();
    chunks(storage, number, |at, chunk| all.push((at, chunk.clone())))?;
    all.iter().try_for_each(|(at, chunk)| read_chunk(storage, number, *at, chunk, &mut each))
}

/// As [`read`], of the chunk at `at`.
fn read_chunk(
    storage: &dyn Storage,
    number: u32,
    at: u64,
    chunk: &Chunk,
    each: &mut impl FnMut(&Saved, &[u8]) -> Result<()>,
) -> Result<()> {
    let name = file(number);
    let mut data = vec![0; chunk.origin.block_size as usize];
    for (entry, offset) in &chunk.entries {
        if !entry.has_data {
            each(entry, &[])?;
            continue;
        }
        storage.read(name, at + offset, &mut data).map_err(failed("reading", number))?;
        if data_checksum(&data) != entry.checksum {
            let (block, at) = (entry.block, at + offset);
            let what = format!(
                "{name}: the data of block {block} at {at} is damaged; in the last chunk of a file that may \
                 be the mark of a power cut: nothing was overwritten then, and a later file has it"
            );
            return Err(Error::new(Kind::Damaged, what));
        }
        each(entry, &data)?;
    }
    Ok(())
}

/// Whether the last chunk of a salvage file has all its data: a power cut may have kept its header alone.
fn is_whole(storage: &dyn Storage, number: u32) -> Result<bool> {
    let mut last = None;
    chunks(storage, number, |at, chunk| last = Some((at, chunk.clone())))?;
    let Some((at, chunk)) = last else { return Ok(true) };
    match read_chunk(storage, number, at, &chunk, &mut |_, _| Ok(())) {
        Err(error) if error.kind() == Kind::Damaged => Ok(false),
        other => other.map(|()| true),
    }
}

/// Removes the salvage file `number` of a device that is not open. Its blocks are not saved again.
///
/// # Errors
/// [`Kind::Storage`] if the storage fails, or there is no such file; [`Kind::Damaged`] if there is no superblock.
pub fn remove(storage: &dyn Storage, number: u32) -> Result<()> {
    remove_all(storage, &[number])
}

fn remove_all(storage: &dyn Storage, files: &[u32]) -> Result<()> {
    if !files.is_empty() {
        unsaved::settle(storage, &superblock::load(storage)?)?;
    }
    let remove = |&number| storage.remove(file(number)).map_err(failed("removing", number));
    files.iter().try_for_each(remove)
}

/// Removes every salvage file whose last chunk was saved before the wall time `before`, in nanoseconds
/// since 1970; returns how many. As [`remove`].
///
/// # Errors
/// As [`remove`].
pub fn expire(storage: &dyn Storage, before: u64) -> Result<usize> {
    let old = list(storage)?.into_iter().filter(|f| f.lineage.is_some() && f.saved_at.1 < before);
    let old: Vec<u32> = old.map(|file| file.number).collect();
    remove_all(storage, &old).map(|()| old.len())
}

/// Writes salvage of one lineage.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The file, and where its last chunk ends; `None` before the first chunk.
    at: Option<(u32, u64)>,
    /// Bytes of all salvage files.
    bytes: u64,
    bytes_max: u64,
    pending: Pending,
}

impl Writer {
    /// Writes what is given up of the lineage that `superblock` has, as long as all salvage files together
    /// have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the storage fails.
    pub fn new(storage: &dyn Storage, superblock: &Superblock, bytes_max: u64) -> Result<Writer> {
        let Superblock { group, device, lineage, block_size, .. } = *superblock;
        let all = list(storage)?;
        let bytes = all.iter().map(|file| file.bytes).sum();
        let same = all.iter().rev().find(|file| file.lineage == Some(lineage));
        let at = match same {
            // Behind a chunk that is damaged nothing is read.
            Some(file) if is_whole(storage, file.number)? => Some((file.number, file.bytes)),
            // A file that no chunk can be read of is left alone.
            _ => all.last().map(|file| (file.number + 1, 0)),
        };
        let pending = Pending::new(Origin { group, device, lineage, block_size });
        Ok(Writer { at, bytes, bytes_max, pending })
    }

    fn owner(&self) -> Owner {
        let Origin { group, device, lineage, .. } = self.pending.origin;
        Owner { group, device, lineage }
    }

    /// Notes one block down, for the next [`Writer::flush`].
    pub fn add(&mut self, block: Block, stamp: Stamp, data: &[u8]) {
        self.pending.add(block, stamp, data);
    }

    /// Whether a flush is due: of one more block the chunk would be too long, or there would be no room for it.
    pub fn is_full_chunk(&self) -> bool {
        self.pending.is_full() || self.bytes + self.pending.bytes_with_another() > self.bytes_max
    }

    /// Makes what was noted down durable.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if the files would have more bytes than they may: nothing was written;
    /// [`Kind::Storage`] if the storage fails.
    pub fn flush(&mut self, storage: &dyn Storage, now: u64) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = self.pending.take(now);
        let length = chunk.len() as u64;
        if self.bytes + length > self.bytes_max {
            let what = format!(
                "salvage is full: its files have {} bytes, and may have {} (`Settings::salvage_bytes_max`): look \
                 at them (`afterimage salvage`), then remove some, or open the device with a higher bound, or \
                 with 0 to save nothing",
                self.bytes, self.bytes_max
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        let (number, at) = self.at.unwrap_or_default();
        let name = file(number);
        let failed = failed("writing", number);
        saved::put(storage, name, at, &chunk).map_err(&failed)?;
        storage.sync(name).map_err(&failed)?;
        debug_assert!(length.is_multiple_of(PAGE));
        self.at = Some((number, at + length));
        self.bytes += length;
        Ok(())
    }
}

/// The content that is about to come over blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incoming<'a> {
    /// That of one block.
    Data(&'a [u8]),
    /// Zeros.
    Zeros,
    /// The same as is there.
    Same,
    /// A record's, which goes over them whether they were saved or not.
    Record,
}

/// The blocks that a device that returned saves before the peer's content comes over them.
#[derive(Debug)]
pub(crate) struct Saving {
    /// While any may be due, the tenure with which the peer's history begins; else [`NONE`]. A flush may hold
    /// `due` for long, and nobody waits for that who asks for this. Release/Acquire: a reader that finds a tenure
    /// finds the blocks.
    tenure: AtomicU64,
    /// The lineage that was noted down; locked for moments.
    lineage: Mutex<Option<(u64, u64)>>,
    due: Mutex<Due>,
    /// Since the opening something had no room. Locked for moments.
    full: Mutex<Option<Error>>,
}

/// No tenure has this number.
const NONE: u64 = u64::MAX;

impl Default for Saving {
    fn default() -> Saving {
        Saving {
            tenure: AtomicU64::new(NONE),
            lineage: Mutex::default(),
            due: Mutex::default(),
            full: Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Due {
    blocks: Bits,
    /// Records of this tenure and later ones are of the peer's history.
    tenure: u64,
    /// Of the lineage that the side file is about; `None`: there is no such file.
    writer: Option<Writer>,
    /// The file may have more blocks than `blocks`.
    is_ahead: bool,
    /// Of those the ones that salvage has not: the content that came was theirs.
    same: Bits,
}

impl Due {
    /// Makes the file say what is due, and no more.
    fn store(&mut self, storage: &dyn Storage) -> Result<()> {
        let Some(writer) = self.writer.as_ref().filter(|_| self.is_ahead) else { return Ok(()) };
        let runs = self.blocks.runs().collect();
        unsaved::replace(storage, &Unsaved { owner: writer.owner(), tenure: self.tenure, runs })?;
        (self.is_ahead, self.same) = (false, Bits::default());
        Ok(())
    }
}

/// Nothing is to be saved at the device in `storage`.
///
/// # Errors
/// [`Kind::Storage`] if the storage fails.
pub(crate) fn owe_nothing(storage: &dyn Storage) -> Result<()> {
    unsaved::clear(storage)
}

impl Saving {
    /// The content of the blocks in `differing` is saved from now on before it is overwritten, but by records
    /// of tenures before the present one: it is of the lineage that `superblock` has, and is noted down once for
    /// each. All salvage files together have at most `bytes_max` bytes. This is durable.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the storage fails.
    pub fn begin(
        &self,
        storage: &dyn Storage,
        superblock: &Superblock,
        differing: Bits,
        bytes_max: u64,
    ) -> Result<()> {
        let due = &mut *lock(&self.due);
        if self.knows(superblock.lineage) {
            return Ok(());
        }
        let mut blocks = differing;
        unsaved::take_saved(storage, superblock.lineage, &mut blocks)?;
        blocks.add(&due.blocks);
        let writer = Some(Writer::new(storage, superblock, bytes_max)?);
        let tenure = superblock.epoch;
        *due = Due { blocks, tenure, writer, is_ahead: true, same: Bits::default() };
        due.store(storage)?;
        self.note(due);
        Ok(())
    }

    /// Blocks that an earlier opening had not saved are still to be.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the storage fails.
    pub fn resume(
        &self,
        storage: &dyn Storage,
        superblock: &Superblock,
        bytes_max: u64,
    ) -> Result<()> {
        let Some((Unsaved { owner, tenure, .. }, blocks)) = unsaved::read(storage, superblock)?
        else {
            return Ok(());
        };
        let given_up = Superblock { lineage: owner.lineage, ..superblock.clone() };
        let writer = Some(Writer::new(storage, &given_up, bytes_max)?);
        let due = &mut *lock(&self.due);
        *due = Due { blocks, tenure, writer, is_ahead: true, same: Bits::default() };
        self.note(due);
        Ok(())
    }

    /// Makes the side file say what is due, of a device of this `lineage`, and no more. Of its own lineage the
    /// file stays when nothing is due any more: so that is known. With `is_over` nothing is: N has all of the
    /// history that is served, and nothing else.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the storage fails.
    pub fn store(&self, storage: &dyn Storage, lineage: (u64, u64), is_over: bool) -> Result<()> {
        let due = &mut *lock(&self.due);
        let Some(writer) = &due.writer else { return Ok(()) };
        if is_over || due.blocks.is_empty() && writer.owner().lineage != lineage {
            unsaved::clear(storage)?;
            *due = Due::default();
            self.note(due);
            return Ok(());
        }
        due.store(storage)
    }

    /// Removes the salvage file `number`, as [`remove`] does where no device is open: what had no room may have some now.
    /// `superblock` is the device's, and the others together have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`remove`]; with [`Kind::Invalid`] there is no such file.
    pub fn remove(
        &self,
        storage: &dyn Storage,
        superblock: &Superblock,
        (number, bytes_max): (u32, u64),
    ) -> Result<()> {
        let due = &mut *lock(&self.due);
        if !numbers(storage, KIND)?.contains(&number) {
            return Err(Error::new(Kind::Invalid, format!("there is no {}", file(number))));
        }
        due.store(storage)?;
        remove(storage, number)?;
        if let Some(writer) = &mut due.writer {
            let given_up = Superblock { lineage: writer.owner().lineage, ..superblock.clone() };
            *writer = Writer::new(storage, &given_up, bytes_max)?;
        }
        *lock(&self.full) = None;
        Ok(())
    }

    /// Whether it was noted down what is given up of `lineage`.
    pub fn knows(&self, lineage: (u64, u64)) -> bool {
        *lock(&self.lineage) == Some(lineage)
    }

    fn note(&self, due: &Due) {
        *lock(&self.lineage) = due.writer.as_ref().map(|writer| writer.owner().lineage);
        let tenure = if due.blocks.is_empty() { NONE } else { due.tenure };
        self.tenure.store(tenure, Ordering::Release);
    }

    /// The first content that had no room, if any had none.
    pub fn full(&self) -> Option<Error> {
        lock(&self.full).clone()
    }

    /// Notes down `why` content had no room; whether it is the first.
    pub fn note_full(&self, why: &Error) -> bool {
        let full = &mut *lock(&self.full);
        let is_first = full.is_none();
        full.get_or_insert_with(|| why.clone());
        is_first
    }

    /// Whether anything is to be saved.
    pub fn is_due(&self) -> bool {
        self.tenure().is_some()
    }

    /// The tenure with which the peer's history begins, while anything is to be saved: records of it and of later
    /// ones are of that history.
    pub fn tenure(&self) -> Option<u64> {
        Some(self.tenure.load(Ordering::Acquire)).filter(|&tenure| tenure != NONE)
    }

    /// As the content of blocks is about to change to the one that comes with them, what differs is saved, durably,
    /// with one sync for all that one chunk takes.
    ///
    /// # Errors
    /// As [`Writer::flush`]; [`Kind::Storage`] if a volume cannot be read. Blocks that were not saved are due as
    /// before, but for those of records.
    pub fn before<'a>(
        &self,
        (storage, volumes, now): (&dyn Storage, &Volumes, u64),
        changes: impl Iterator<Item = (Blocks, Incoming<'a>)>,
    ) -> Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let due = &mut *lock(&self.due);
        let Some(writer) = &due.writer else { return Ok(()) };
        let mut data = vec![0; writer.pending.origin.block_size as usize];
        let changes: Vec<_> = changes.collect();
        let mut overwrites = |(run, incoming): &(Blocks, Incoming<'_>)| {
            let named = due.same.within(run.range());
            let mut blocks =
                named.flat_map(|run| run.numbers.map(move |number| (run.volume, number)));
            blocks.any(|(volume, number)| {
                let read = volumes.read(Block { volume, number }, &mut data);
                read.is_err() || !incoming.is(&data)
            })
        };
        if changes.iter().any(&mut overwrites) {
            // Salvage does not tell that they are not due.
            due.store(storage)?;
        }
        let mut changes = changes.into_iter();
        let Some(writer) = &mut due.writer else { return Ok(()) };
        // Taken out, and not durable yet.
        let mut taken: Vec<Blocks> = Vec::new();
        let mut save = || -> Result<()> {
            for (run, incoming) in &mut changes {
                let parts = due.blocks.remove(&run);
                due.is_ahead |= !parts.is_empty();
                let is_record = matches!(incoming, Incoming::Record);
                taken.extend(parts.iter().filter(|_| !is_record).cloned());
                for (n, part) in parts.iter().enumerate() {
                    for block in part.each() {
                        volumes.read(block, &mut data)?;
                        match incoming.is(&data) {
                            true => due.same.insert(Extent::from(block).into()),
                            false => writer.add(block, Stamp::ZERO, &data),
                        }
                        if writer.is_full_chunk() {
                            writer.flush(storage, now)?;
                            let numbers = block.number + 1..part.numbers.end;
                            let rest = Blocks { numbers, ..*part };
                            let rest = std::iter::once(&rest).chain(&parts[n + 1..]);
                            let left = |run: &&Blocks| !is_record && !run.numbers.is_empty();
                            taken = rest.filter(left).cloned().collect();
                        }
                    }
                }
            }
            writer.flush(storage, now)
        };
        let saved = save();
        if saved.is_err() {
            taken.into_iter().for_each(|run| due.blocks.insert(run));
            let records = changes.filter(|(_, incoming)| matches!(incoming, Incoming::Record));
            records.for_each(|(run, _)| drop(due.blocks.remove(&run)));
        }
        if due.blocks.is_empty() {
            due.store(storage)?;
            self.note(due);
        }
        saved
    }
}

impl Incoming<'_> {
    /// Whether this is the content `found`.
    fn is(self, found: &[u8]) -> bool {
        match self {
            Incoming::Data(data) => data == found,
            Incoming::Zeros => found.iter().all(|&byte| byte == 0),
            Incoming::Same => true,
            Incoming::Record => false,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::Geometry;
    use crate::storage::Memory;
    use std::io::IoSlice;

    /// A power cut keeps the header of a chunk and not its data: the content is still in its place, and is
    /// saved again, where it is read.
    #[test]
    fn salvage_goes_on_behind_a_chunk_that_was_cut_short() {
        let storage = Memory::new();
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
        let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, 1, volumes) };
        Device::create(&storage, &geometry, true).unwrap();
        let superblock = superblock::load(&storage).unwrap();
        let block = |number| Block { volume: 0, number };
        let save = |blocks: &[u64]| {
            let mut writer = Writer::new(&storage, &superblock, 1 << 20).unwrap();
            for &number in blocks {
                writer.add(block(number), Stamp::ZERO, &[number as u8; 4096]);
            }
            writer.flush(&storage, 1).unwrap();
        };
        save(&[1]);
        save(&[2, 3]);
        let end = list(&storage).unwrap()[0].bytes;
        storage.write(file(0), end - 4096, &[IoSlice::new(&[0; 4096])]).unwrap();
        save(&[3, 4]);
        let mut found = Vec::new();
        for SalvageFile { number, .. } in list(&storage).unwrap() {
            let read = read(&storage, number, |entry, data| {
                found.push((entry.block.number, data[0]));
                Ok(())
            });
            assert_eq!(read.is_err(), number == 0);
        }
        assert_eq!(found, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    }

    /// The blocks of such a chunk are yet to be saved.
    #[test]
    fn a_chunk_that_was_cut_short_has_saved_nothing() {
        let storage = Memory::new();
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
        let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, 1, volumes) };
        Device::create(&storage, &geometry, true).unwrap();
        let superblock = superblock::load(&storage).unwrap();
        let mut writer = Writer::new(&storage, &superblock, 1 << 20).unwrap();
        for number in 1..4 {
            writer.add(Block { volume: 0, number }, Stamp::ZERO, &[number as u8; 4096]);
            if number > 1 {
                writer.flush(&storage, 1).unwrap();
            }
        }
        let unsaved = || {
            let mut blocks: Bits = [Blocks { volume: 0, numbers: 0..5 }].into_iter().collect();
            unsaved::take_saved(&storage, superblock.lineage, &mut blocks).unwrap();
            blocks.runs().flat_map(|run| run.numbers).collect::<Vec<_>>()
        };
        assert_eq!(unsaved(), [0, 4]);
        let end = list(&storage).unwrap()[0].bytes;
        storage.write(file(0), end - 4096, &[IoSlice::new(&[0; 4096])]).unwrap();
        assert_eq!(unsaved(), [0, 3, 4]);
    }
}
