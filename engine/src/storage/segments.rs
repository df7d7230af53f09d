//! The files of the normal volumes: made at the first write, and never again.
//!
//! # Rules
//! - **Made, then listed, then counted on**: a segment is durable when [`Storage::create`] returns;
//!   `Segments::list` writes it down before the checkpoint that its first records are dropped
//!   after. Whatever is listed must be there at the next opening ([`crate::format::segments`]).
//! - **There, not listed** is a crash between the two: it is listed next time.
//! - **Reads wait for no creation**: a segment is created outside the lock that reads take. Until it
//!   is present it reads as zeros, which is what it holds.

use super::{FileName, Fill, Storage};
use crate::error::{Error, Kind, Result};
use crate::format::segments::{self, SECTOR_SEGMENTS};
use crate::format::superblock::Superblock;
use crate::sync::lock;
use crate::unit::SECTOR;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A volume's segments.
struct Extent {
    /// Bytes of the volume, in whole blocks.
    bytes: u64,
    /// The number of its first segment in the table.
    first: u64,
}

/// Which segments there can be.
struct Layout {
    segment_bytes: u64,
    volumes: HashMap<u32, Extent>,
    /// How many there can be in all.
    count: u64,
    /// Where the table begins in the superblock's file.
    table: u64,
}

/// Which segments there are.
#[derive(Default)]
struct Found {
    present: HashSet<FileName>,
    lists: Lists,
    findings: Vec<Finding>,
}

/// Numbers of segments.
#[derive(Default)]
struct Lists {
    /// In the table on disk.
    listed: BTreeSet<u64>,
    /// There, and not listed yet.
    new: BTreeSet<u64>,
}

/// All segments of an open device.
pub(super) struct Segments {
    storage: Arc<dyn Storage>,
    layout: Layout,
    /// One writer at a time holds it, while it creates a segment.
    creating: Mutex<()>,
    present: RwLock<HashSet<FileName>>,
    lists: Mutex<Lists>,
}

/// Something wrong with a file.
pub type Finding = (FileName, String);

/// The faults of a device's segments: those that were made and are not there, those of a
/// wrong length, and sectors of their table that cannot be read. Files that belong to no volume
/// are no concern of this.
///
/// # Errors
/// [`Kind::Storage`] if the storage fails.
pub fn check(storage: &dyn Storage, superblock: &Superblock) -> Result<Vec<Finding>> {
    Layout::of(superblock).look(storage).map(|found| found.findings)
}

impl Layout {
    fn of(superblock: &Superblock) -> Layout {
        let (block_size, segment_bytes) = (superblock.block_size, superblock.segment_bytes);
        let mut first = 0;
        let mut volumes = HashMap::new();
        for volume in &superblock.volumes {
            let bytes = volume.bytes.next_multiple_of(block_size.into());
            volumes.insert(volume.id, Extent { bytes, first });
            first += volume.bytes.div_ceil(segment_bytes);
        }
        let table = segments::offset(superblock.volumes.len());
        Layout { segment_bytes, volumes, count: first, table }
    }

    /// The number of a segment in the table, and how long it is; `None`: no volume has it.
    fn number(&self, file: FileName) -> Option<(u64, u64)> {
        let FileName::Segment { volume, index } = file else { return None };
        let Extent { bytes, first } = *self.volumes.get(&volume)?;
        let begins = u64::from(index).checked_mul(self.segment_bytes)?;
        let left = bytes.checked_sub(begins).filter(|&left| left > 0)?;
        Some((first + u64::from(index), left.min(self.segment_bytes)))
    }

    /// The segment that has the number.
    fn name(&self, number: u64) -> Option<FileName> {
        self.volumes.iter().find_map(|(&volume, extent)| {
            let index = u32::try_from(number.checked_sub(extent.first)?).ok()?;
            let file = FileName::Segment { volume, index };
            self.number(file).map(|_| file)
        })
    }

    /// Finds out which there are, and which there should be.
    fn look(&self, storage: &dyn Storage) -> Result<Found> {
        let mut found = Found::default();
        let failed = |e| Error::storage("looking at the segments", e);
        self.read_table(storage, &mut found).map_err(failed)?;
        let mut files = storage.files().map_err(failed)?;
        files.sort();
        let mut there = BTreeSet::new();
        for file in files {
            let Some((number, bytes)) = self.number(file) else { continue };
            let length = storage.length(file).map_err(failed)?.unwrap_or(0);
            if length != bytes {
                let what = format!("has {length} bytes, should have {bytes}");
                found.findings.push((file, what));
            }
            there.insert(number);
            found.present.insert(file);
        }
        let Found { lists, findings, .. } = &mut found;
        for &number in lists.listed.difference(&there) {
            findings.push(match self.name(number) {
                Some(file) => (file, "is missing, though the table of segments lists it".into()),
                None => (
                    FileName::Superblock,
                    format!("lists segment {number}, which belongs to no volume"),
                ),
            });
        }
        lists.new = there.difference(&lists.listed).copied().collect();
        Ok(found)
    }

    fn read_table(&self, storage: &dyn Storage, found: &mut Found) -> io::Result<()> {
        let file = FileName::Superblock;
        let length = storage.length(file)?.unwrap_or(0);
        for number in 0..self.count.div_ceil(SECTOR_SEGMENTS) as u32 {
            let at = self.table + u64::from(number) * SECTOR;
            let mut sector = [0; SECTOR as usize];
            let read = match at + SECTOR <= length {
                true => {
                    storage.read(file, at, &mut sector)?;
                    segments::decode(number, &sector)
                }
                false => Err("is not there".into()),
            };
            match read {
                Ok(made) => found.lists.listed.extend(made),
                Err(what) => {
                    found.findings.push((file, format!("table of segments at {at}: {what}")));
                }
            }
        }
        Ok(())
    }
}

impl Segments {
    /// Those of an existing device.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if anything is wrong with them; [`Kind::Storage`].
    pub fn open(storage: Arc<dyn Storage>, superblock: &Superblock) -> Result<Segments> {
        let layout = Layout::of(superblock);
        let Found { present, mut lists, findings } = layout.look(&*storage)?;
        if !superblock.clean {
            // After a failed sync the table may be in a cache only: the next checkpoint writes it anew.
            lists.new.extend(&lists.listed);
        }
        if let Some((file, what)) = findings.first() {
            let story = format!("{file}: {what}; nothing was changed, see `afterimage inspect`");
            return Err(Error::new(Kind::Damaged, story));
        }
        let (present, lists) = (RwLock::new(present), Mutex::new(lists));
        Ok(Segments { storage, layout, creating: Mutex::default(), present, lists })
    }

    /// Whether it was made.
    pub fn is_present(&self, file: FileName) -> bool {
        self.present.read().unwrap_or_else(PoisonError::into_inner).contains(&file)
    }

    /// Makes it if need be; durable when this returns.
    pub fn ensure(&self, file: FileName) -> Result<()> {
        if self.is_present(file) {
            return Ok(());
        }
        let Some((number, bytes)) = self.layout.number(file) else {
            let what = format!("{file} lies beyond the end of its volume");
            return Err(Error::new(Kind::Invalid, what));
        };
        let _one = lock(&self.creating);
        if !self.is_present(file) {
            let created = self.storage.create(file, bytes, Fill::Sparse);
            created.map_err(|e| Error::storage(format!("creating {file}"), e))?;
            lock(&self.lists).new.insert(number);
            self.present.write().unwrap_or_else(PoisonError::into_inner).insert(file);
        }
        Ok(())
    }

    /// Lists every segment made so far, durably.
    pub fn list(&self) -> Result<()> {
        let mut lists = lock(&self.lists);
        let Lists { listed, new } = &mut *lists;
        if new.is_empty() {
            return Ok(());
        }
        let sectors: BTreeSet<u64> = new.iter().map(|number| number / SECTOR_SEGMENTS).collect();
        listed.append(new);
        let file = FileName::Superblock;
        let written = sectors.into_iter().try_for_each(|sector| {
            let first = sector * SECTOR_SEGMENTS;
            let made = listed.range(first..first + SECTOR_SEGMENTS).copied();
            let bytes = segments::encode(sector as u32, made);
            self.storage.write(file, self.layout.table + sector * SECTOR, &[IoSlice::new(&bytes)])
        });
        let listing = |e| Error::storage(format!("writing the table of segments in {file}"), e);
        written.and_then(|()| self.storage.sync(file)).map_err(listing)
    }
}
