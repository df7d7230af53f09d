//! The side file of what is yet to be saved, for a device that takes the host over right after its return, and
//! is opened anew before everything came. It is replaced by one with a higher number; while there are two,
//! both count.

use super::{chunks, numbers, read_chunk};
use crate::error::{Error, Kind, Result};
use crate::format::PAGE;
use crate::format::salvage::Saved;
use crate::format::superblock::Superblock;
use crate::format::unsaved::Unsaved;
use crate::storage::{FileName, Fill, SideKind, Storage};
use crate::table::bits::Bits;
use crate::unit::{Blocks, Stamp};
use std::io::IoSlice;

const KIND: SideKind = SideKind::new("unsaved").expect("a word");

fn file(number: u32) -> FileName {
    FileName::Side { kind: KIND, number }
}

fn failed(doing: &str, number: u32) -> impl Fn(std::io::Error) -> Error {
    let what = format!("{doing} {}", file(number));
    move |e| Error::storage(what.clone(), e)
}

/// Makes `unsaved` durable, in the place of what was written before.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(super) fn replace(storage: &dyn Storage, unsaved: &Unsaved) -> Result<()> {
    let mut bytes = unsaved.encode();
    bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
    let old = numbers(storage, KIND)?;
    let number = old.last().map_or(0, |last| last + 1);
    let file = file(number);
    let write = || {
        storage.create(file, bytes.len() as u64, Fill::Sparse)?;
        storage.write(file, 0, &[IoSlice::new(&bytes)])?;
        storage.sync(file)
    };
    write().map_err(failed("writing", number))?;
    remove(storage, old)
}

/// Nothing is to be saved.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(super) fn clear(storage: &dyn Storage) -> Result<()> {
    remove(storage, numbers(storage, KIND)?)
}

fn remove(storage: &dyn Storage, old: Vec<u32>) -> Result<()> {
    old.into_iter()
        .try_for_each(|number| storage.remove(file(number)).map_err(failed("removing", number)))
}

/// The blocks of the salvage that there is are not due, whatever becomes of it.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(super) fn settle(storage: &dyn Storage, superblock: &Superblock) -> Result<()> {
    let Some((unsaved, blocks)) = read(storage, superblock)? else { return Ok(()) };
    replace(storage, &Unsaved { runs: blocks.runs().collect(), ..unsaved })
}

/// The newest file, and the blocks that are yet to be saved; `None` if there is no file. A file that is not sound
/// was never whole: what it was to say was said again, or nothing was overwritten.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(super) fn read(
    storage: &dyn Storage,
    superblock: &Superblock,
) -> Result<Option<(Unsaved, Bits)>> {
    let whole: Bits = superblock.whole().collect();
    let mut newest: Option<Unsaved> = None;
    let mut blocks = Bits::default();
    for number in numbers(storage, KIND)? {
        let failed = failed("reading", number);
        let length = storage.length(file(number)).map_err(&failed)?.unwrap_or(0);
        let mut bytes = vec![0; length as usize];
        storage.read(file(number), 0, &mut bytes).map_err(&failed)?;
        let found = Unsaved::decode(superblock.group, superblock.device, &bytes);
        let is_inside = |found: &Unsaved| found.runs.iter().all(|run| whole.covers(run));
        if let Some(found) = found.filter(is_inside) {
            found.runs.iter().for_each(|run| blocks.insert(run.clone()));
            newest = Some(found);
        }
    }
    let Some(newest) = newest else { return Ok(None) };
    take_saved(storage, newest.owner.lineage, &mut blocks)?;
    Ok(Some((newest, blocks)))
}

/// Takes out of `blocks` what the salvage of `lineage` has, durably: it may have been overwritten since. Of the
/// last chunk of a file a power cut may have kept the header and not the data; then nothing was overwritten.
///
/// # Errors
/// [`crate::error::Kind::Storage`] if the storage fails.
pub(super) fn take_saved(
    storage: &dyn Storage,
    lineage: (u64, u64),
    blocks: &mut Bits,
) -> Result<()> {
    let mut take = |entry: &Saved| {
        if entry.stamp == Stamp::ZERO {
            let first = entry.block.number;
            let numbers = first..first.saturating_add(entry.count);
            blocks.remove(&Blocks { volume: entry.block.volume, numbers });
        }
    };
    for number in numbers(storage, super::KIND)? {
        let mut last = None;
        chunks(storage, number, |at, chunk| {
            let is_same = chunk.origin.lineage == lineage;
            if let Some((_, chunk)) = last.replace((at, chunk.clone())).filter(|_| is_same) {
                chunk.entries.iter().for_each(|(entry, _)| take(entry));
            }
        })?;
        let Some((at, chunk)) = last.filter(|(_, chunk)| chunk.origin.lineage == lineage) else {
            continue;
        };
        let salvage = super::file(number);
        storage.sync(salvage).map_err(super::failed("syncing", number))?;
        let found = read_chunk(storage, number, at, &chunk, &mut |entry, _| {
            take(entry);
            Ok(())
        });
        match found {
            Err(error) if error.kind() == Kind::Damaged => {}
            other => other?,
        }
    }
    Ok(())
}
