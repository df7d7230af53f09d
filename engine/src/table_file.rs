//! The side files of the differential administration table: two, of which the superblock names one.
//!
//! A table is written whole to the other file, and counts once an update of the superblock names it. So
//! a crash at any moment leaves the table that the superblock names.

use crate::error::{Error, Kind, Result};
use crate::format::superblock::{Superblock, TABLE_BYTES_MAX, TableRef};
use crate::format::table::Owner;
use crate::storage::{FileName, Fill, SideKind, Storage};
use crate::unit::Blocks;
use std::io::{self, IoSlice};

/// The kind of side file that a table is in.
pub(crate) const KIND: SideKind = SideKind::new("table").expect("a word");

fn file(slot: u8) -> FileName {
    FileName::Side { kind: KIND, number: slot.into() }
}

fn owner(superblock: &Superblock) -> Owner {
    Owner { group: superblock.group, device: superblock.device }
}

/// Writes a table of `runs`, which rise and of which none is next to another, to the side file that
/// `superblock` does not name; durable when this returns. The next update of the superblock must name
/// it, and no update may come between: [`crate::superblock::SuperblockFile::update_with_table`]. Of an
/// empty table nothing is written.
///
/// # Errors
/// [`Kind::Config`] if the table would be too long, with nothing written; [`Kind::Storage`] if the
/// storage fails.
pub(crate) fn write(
    storage: &dyn Storage,
    superblock: &Superblock,
    runs: impl Iterator<Item = Blocks>,
) -> Result<TableRef> {
    let mut runs = runs.peekable();
    if runs.peek().is_none() {
        return Ok(TableRef { bytes: 0, checksum: 0, ..superblock.table });
    }
    let (bytes, checksum) = owner(superblock).encode(runs);
    let slot = 1 - superblock.table.slot;
    let (file, length) = (file(slot), bytes.len() as u64);
    if length > TABLE_BYTES_MAX {
        let what =
            format!("{file} would have {length} bytes, at most {TABLE_BYTES_MAX} are allowed");
        return Err(Error::new(Kind::Config, what));
    }
    let wrote = make(storage, file, length)
        .and_then(|()| storage.write(file, 0, &[IoSlice::new(&bytes)]))
        .and_then(|()| storage.sync(file));
    wrote.map_err(|e| Error::storage(format!("writing {file}"), e))?;
    Ok(TableRef { slot, bytes: length, checksum })
}

/// Makes `file` `length` bytes long, whatever it was.
fn make(storage: &dyn Storage, file: FileName, length: u64) -> io::Result<()> {
    match storage.length(file)? {
        Some(found) if found == length => return Ok(()),
        Some(found) if found < length => return storage.grow(file, length),
        Some(_) => storage.remove(file)?,
        None => {}
    }
    storage.create(file, length, Fill::Sparse)
}

/// The runs of the table that `superblock` names, rising, none next to another, all within the volumes.
///
/// # Errors
/// [`Kind::Damaged`] if its side file is not there, not as long as it was, or not the one that was
/// written; [`Kind::Storage`] if the storage fails.
pub fn read(storage: &dyn Storage, superblock: &Superblock) -> Result<Vec<Blocks>> {
    check(storage, superblock)?.map_err(|(file, what)| {
        let story = "the superblock names it as the table of the blocks that the peer may lack: see \
                     `afterimage inspect`, then put the file back as it was, or make this device anew \
                     from its peer";
        Error::new(Kind::Damaged, format!("{file} {what}; {story}"))
    })
}

/// As [`read`], or the file and what is wrong with it.
///
/// # Errors
/// [`Kind::Storage`] if the storage fails.
pub fn check(
    storage: &dyn Storage,
    superblock: &Superblock,
) -> Result<std::result::Result<Vec<Blocks>, (FileName, String)>> {
    let TableRef { slot, bytes: length, checksum } = superblock.table;
    if length == 0 {
        return Ok(Ok(Vec::new()));
    }
    let file = file(slot);
    let wrong = |what: String| Ok(Err((file, what)));
    let failed = |e| Error::storage(format!("reading {file}"), e);
    match storage.length(file).map_err(failed)? {
        Some(found) if found == length => {}
        Some(found) => return wrong(format!("has {found} bytes, and the table {length}")),
        None => return wrong("is missing".into()),
    }
    let mut bytes = vec![0; length as usize];
    storage.read(file, 0, &mut bytes).map_err(failed)?;
    let runs = match owner(superblock).decode(&bytes, checksum) {
        Ok(runs) => runs,
        Err(what) => return wrong(format!("is not the table that was written: {what}")),
    };
    let blocks = superblock.volume_blocks();
    let is_outside =
        |run: &&Blocks| blocks.get(&run.volume).is_none_or(|&count| run.numbers.end > count);
    match runs.iter().find(is_outside) {
        None => Ok(Ok(runs)),
        Some(run) => {
            let (first, last) = (run.first(), run.numbers.end - 1);
            wrong(format!("has blocks {first} to {last}, which no volume has"))
        }
    }
}
