//! The superblock's file: two copies of one sector each, both written by every update.
//!
//! A sector is written whole or not at all, so a copy that is wrong has rotted, and the other one
//! is of the same generation, or of the one before an update that was never reported as done. Either
//! is a state to go on from. Opening always updates, so a damaged or older copy does not stay.

use crate::error::{Error, Kind, Result};
use crate::format::superblock::{
    ANNEX_BYTES_MAX, Annex, COPY_BYTES, COPY_OFFSETS, Features, History, LogState, REST,
    Superblock, TableRef, VOLUMES_OFFSET,
};
use crate::format::{PAGE, checksum, segments};
use crate::limits::Geometry;
use crate::storage::{FileName, Fill, Storage};
use crate::sync::lock;
use crate::table_file;
use crate::unit::{Blocks, Mode, Round, SECTOR, Stamp};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

const FILE: FileName = FileName::Superblock;

/// The superblock of an open device.
pub struct SuperblockFile {
    storage: Arc<dyn Storage>,
    /// The superblock as it was last made durable. Locked for moments: a reader does not wait for the
    /// disk.
    current: Mutex<Arc<Superblock>>,
    /// The fault of the copy that was not read, at opening.
    bad_copy: Option<String>,
    /// Locked by an update, for as long as that takes.
    updating: Mutex<()>,
}

/// Writes the files of a new device: logs, then the superblock that makes it one. The active one
/// of a new pair begins unfenced in epoch 1; the other is fenced.
///
/// # Errors
/// [`Kind::Config`] for an impossible geometry, with nothing written; [`Kind::Storage`] if the
/// storage refuses, also because there is a device.
pub fn create(storage: &dyn Storage, geometry: &Geometry, active: bool) -> Result<()> {
    geometry.check()?;
    let log = LogState {
        bytes: geometry.journal_bytes,
        incarnation: 1,
        tail_offset: 0,
        tail_sequence: 1,
        durable: 0,
        opened: 1,
    };
    let superblock = Superblock {
        generation: 1,
        group: geometry.group,
        device: geometry.device,
        mode: if geometry.differential { Mode::Sending } else { Mode::Ordered },
        fenced: !active,
        clean: true,
        prefer: active,
        resume_alone: false,
        usable: true,
        block_size: geometry.block_size,
        segment_bytes: geometry.segment_bytes,
        epoch: 1,
        lineage: (1, geometry.group as u64),
        hi: Stamp::ZERO,
        acked: Stamp::ZERO,
        need: Stamp::ZERO,
        whole: Stamp::ZERO,
        fl: Stamp::ZERO,
        consat: Stamp::ZERO,
        features: Features {
            incompat: match geometry.differential {
                true => Features::DIFFERENTIAL | Features::ALWAYS_DIFFERENTIAL,
                false => 0,
            },
            ..Features::default()
        },
        lost: None,
        round: Round::default(),
        last_active: u64::from(active),
        peer: 0,
        cut: Stamp::ZERO,
        owed: false,
        fenced_here: false,
        image: false,
        cache_identity: [0; 32],
        weakest: 0,
        annex: Annex::default(),
        history: History::default(),
        table: TableRef::default(),
        rest: [0; REST],
        own: log,
        recv: log,
        volumes: geometry.volumes.clone(),
    };
    let doing = |what: &str, file| format!("{what} {file}");
    for file in [FileName::OwnLog, FileName::RecvLog] {
        let created = storage.create(file, geometry.journal_bytes, Fill::Written);
        created.map_err(|e| Error::storage(doing("creating", file), e))?;
    }
    let table = Superblock::encode_volumes(&geometry.volumes);
    let Geometry { volumes, segment_bytes, .. } = geometry;
    let segments = segments::offset(volumes.len());
    let length = segments::end(volumes, *segment_bytes).next_multiple_of(PAGE);
    let mut tables = vec![0; (length - VOLUMES_OFFSET) as usize];
    tables[..table.len()].copy_from_slice(&table);
    let sectors = tables[(segments - VOLUMES_OFFSET) as usize..].chunks_mut(SECTOR as usize);
    sectors.zip(0..).for_each(|(sector, k)| sector.copy_from_slice(&segments::encode(k, [])));
    let wrote = storage
        .create(FILE, length, Fill::Written)
        .and_then(|()| storage.write(FILE, VOLUMES_OFFSET, &[IoSlice::new(&tables)]))
        .and_then(|()| storage.sync(FILE))
        .and_then(|()| write_copies(storage, &superblock));
    wrote.map_err(|e| Error::storage(doing("writing", FILE), e))
}

/// Both copies, durable when this returns.
fn write_copies(storage: &dyn Storage, superblock: &Superblock) -> std::io::Result<()> {
    let bytes = superblock.encode();
    for offset in COPY_OFFSETS {
        storage.write(FILE, offset, &[IoSlice::new(&bytes)])?;
    }
    storage.sync(FILE)
}

/// Both copies, each as it is or with what is wrong with it.
///
/// # Errors
/// [`Kind::Damaged`] if there is no superblock or it is too short, [`Kind::Storage`] if the storage
/// fails.
pub fn read_copies(storage: &dyn Storage) -> Result<[Result<Superblock, String>; 2]> {
    let failed = |e| Error::storage(format!("reading {FILE}"), e);
    let length = storage.length(FILE).map_err(failed)?.ok_or_else(|| {
        Error::new(Kind::Damaged, format!("there is no {FILE}: this is no device directory"))
    })?;
    let most = crate::limits::VOLUMES_MAX as u64 * 16;
    let mut volumes = vec![0; length.saturating_sub(VOLUMES_OFFSET).min(most) as usize];
    if !volumes.is_empty() {
        storage.read(FILE, VOLUMES_OFFSET, &mut volumes).map_err(failed)?;
    }
    let copy = |k: usize| -> Result<Result<Superblock, String>> {
        Ok(match copy_bytes(storage, k)? {
            Some(bytes) => {
                Superblock::decode(&bytes, &volumes).and_then(|found| with_annex(storage, found))
            }
            None => Err(format!(
                "the file has only {length} bytes, and the copy ends at {}",
                COPY_OFFSETS[k] + COPY_BYTES
            )),
        })
    };
    Ok([copy(0)?, copy(1)?])
}

/// `found` with the annex that it names.
fn with_annex(storage: &dyn Storage, mut found: Superblock) -> Result<Superblock, String> {
    let Annex { slot, bytes, checksum: sum } = found.annex;
    if bytes == 0 {
        return Ok(found);
    }
    if slot > 1 || u64::from(bytes) > ANNEX_BYTES_MAX {
        return Err(format!("the annex is said to have {bytes} bytes in slot {slot}"));
    }
    let mut annex = vec![0; bytes as usize];
    let at = annex_offset(slot);
    storage.read(FILE, at, &mut annex).map_err(|e| format!("reading the annex at {at}: {e}"))?;
    let computed = checksum(0, &annex);
    if computed != sum {
        return Err(format!("the annex at {at} gives checksum {computed:016x}, not {sum:016x}"));
    }
    found.history = History::decode(&annex)?;
    Ok(found)
}

/// Where the annex of a slot stands in the file.
fn annex_offset(slot: u8) -> u64 {
    COPY_OFFSETS[usize::from(slot)] + COPY_BYTES
}

/// Writes the annex of `history` into the slot that `superblock` does not name; durable when this returns.
fn write_annex(
    storage: &dyn Storage,
    superblock: &Superblock,
    history: &History,
) -> std::io::Result<Annex> {
    let bytes = history.encode();
    let slot = 1 - superblock.annex.slot;
    storage.write(FILE, annex_offset(slot), &[IoSlice::new(&bytes)])?;
    storage.sync(FILE)?;
    Ok(Annex { slot, bytes: bytes.len() as u32, checksum: checksum(0, &bytes) })
}

/// The bytes of a copy; `None` if the file ends before it does.
fn copy_bytes(storage: &dyn Storage, k: usize) -> Result<Option<[u8; COPY_BYTES as usize]>> {
    let failed = |e| Error::storage(format!("reading {FILE}"), e);
    let length = storage.length(FILE).map_err(failed)?.unwrap_or(0);
    if length < COPY_OFFSETS[k] + COPY_BYTES {
        return Ok(None);
    }
    let mut bytes = [0; COPY_BYTES as usize];
    storage.read(FILE, COPY_OFFSETS[k], &mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Refuses what a later version of this program has written, even if the other copy could be read:
/// to go on from that one would undo what the later version has promised.
fn refuse_later(storage: &dyn Storage) -> Result<()> {
    for k in [0, 1] {
        let later = copy_bytes(storage, k)?.and_then(|b| Superblock::is_of_later_version(&b));
        if let Some(what) = later {
            let what = format!(
                "{FILE}: copy {k}: {what}; nothing was changed: use the program that wrote it"
            );
            return Err(Error::new(Kind::Config, what));
        }
    }
    Ok(())
}

/// Whether neither copy was ever written, in a file that reaches beyond both.
fn are_blank(storage: &dyn Storage) -> Result<bool> {
    let length = storage.length(FILE).map_err(|e| Error::storage(format!("reading {FILE}"), e))?;
    let blank = |copy: Option<[u8; COPY_BYTES as usize]>| copy.is_some_and(|b| b == [0; 512]);
    let is_long = length.is_some_and(|length| length >= VOLUMES_OFFSET);
    Ok(is_long && blank(copy_bytes(storage, 0)?) && blank(copy_bytes(storage, 1)?))
}

/// The superblock that counts: of two valid copies the one of the higher generation.
///
/// # Errors
/// [`Kind::Damaged`] if neither copy is valid, or the one that counts says what no device's can;
/// [`Kind::Config`] if a later version of this program wrote one; as [`read_copies`].
pub fn load(storage: &dyn Storage) -> Result<Superblock> {
    load_with_bad_copy(storage).map(|(superblock, _)| superblock)
}

/// Returns the fault of the other copy, too, if there is one.
fn load_with_bad_copy(storage: &dyn Storage) -> Result<(Superblock, Option<String>)> {
    refuse_later(storage)?;
    let damaged = |what: String| {
        Error::new(Kind::Damaged, format!("{FILE}: {what}; see `afterimage inspect`"))
    };
    let older = |k: usize, than: &Superblock, it: &Superblock| {
        let (found, counts) = (it.generation, than.generation);
        (found != counts).then(|| format!("copy {k} is of generation {found}, not {counts}"))
    };
    let (superblock, bad_copy) = match read_copies(storage)? {
        [Ok(a), Ok(b)] if a.generation > b.generation => {
            let bad = older(1, &a, &b);
            (a, bad)
        }
        [Ok(a), Ok(b)] => {
            let bad = older(0, &b, &a);
            (b, bad)
        }
        [Ok(a), Err(b)] => (a, Some(format!("copy 1: {b}"))),
        [Err(a), Ok(b)] => (b, Some(format!("copy 0: {a}"))),
        [Err(_), Err(_)] if are_blank(storage)? => {
            let what = "nothing was ever written here: the device's making was cut short; \
                        remove the directory and make it anew";
            return Err(Error::new(Kind::Damaged, format!("{FILE}: {what}")));
        }
        [Err(a), Err(b)] => {
            return Err(damaged(format!("both copies are unusable (first: {a}; second: {b})")));
        }
    };
    superblock.check().map_err(damaged)?;
    let geometry = Geometry::of(&superblock);
    geometry.check().map_err(|e| damaged(e.to_string()))?;
    Ok((superblock, bad_copy))
}

/// The table stays as it is.
const NO_TABLE: Option<std::iter::Empty<Blocks>> = None;

impl SuperblockFile {
    /// `storage` takes no change after one has failed.
    pub fn open(storage: Arc<dyn Storage>) -> Result<SuperblockFile> {
        let (current, bad_copy) = load_with_bad_copy(&*storage)?;
        let open = current.features.check_open();
        open.map_err(|e| Error::new(Kind::Config, format!("{FILE}: {e}")))?;
        let current = Mutex::new(Arc::new(current));
        Ok(SuperblockFile { storage, current, bad_copy, updating: Mutex::default() })
    }

    /// The fault of one of the copies when the file was opened.
    pub fn bad_copy(&self) -> Option<&str> {
        self.bad_copy.as_deref()
    }

    /// The generation that the next update writes.
    ///
    /// # Errors
    /// [`Kind::Halted`] after 2^64 updates: there is no further one.
    pub fn next_generation(&self) -> Result<u64> {
        let what = "no generation follows 2^64 - 1, so that nothing can be changed any more";
        let exhausted = || Error::new(Kind::Halted, format!("{FILE}: {what}"));
        self.get().generation.checked_add(1).ok_or_else(exhausted)
    }

    /// The superblock that was last made durable.
    pub fn get(&self) -> Arc<Superblock> {
        lock(&self.current).clone()
    }

    /// Makes a change durable; it counts only once it is. Behind the mark of a close the storage may
    /// be another device's already: only an opening changes anything then, and takes the mark away.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the storage fails; [`Kind::Halted`] behind the mark of a close, or if the
    /// generations have run out.
    pub fn update(&self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        self.change(change, NO_TABLE, false)
    }

    /// As [`SuperblockFile::update`], of a differential administration table of `runs` with it, by the same
    /// write of the superblock (D8, D11). They rise, and none is next to another.
    ///
    /// # Errors
    /// As [`SuperblockFile::update`]; [`Kind::Config`] for a table that is too long. The table and the
    /// superblock are as they were then, unless the storage has failed.
    pub fn update_with_table(
        &self,
        runs: impl Iterator<Item = Blocks>,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        self.change(change, Some(runs), false)
    }

    /// As [`SuperblockFile::update`], of a device that is not open: the mark of its close stays.
    pub fn amend(&self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        self.change(change, NO_TABLE, true)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Superblock),
        runs: Option<impl Iterator<Item = Blocks>>,
        is_closed: bool,
    ) -> Result<()> {
        let _one = lock(&self.updating);
        let current = self.get();
        let mut next = Superblock::clone(&current);
        change(&mut next);
        if current.clean && next.clean && !is_closed {
            return Err(Error::new(Kind::Halted, format!("{FILE}: the device is closed")));
        }
        next.generation = self.next_generation()?;
        if let Some(runs) = runs {
            next.table = table_file::write(&*self.storage, &current, runs)?;
        }
        if next.history != current.history {
            let annex = write_annex(&*self.storage, &current, &next.history);
            next.annex = annex.map_err(|e| Error::storage(format!("writing {FILE}"), e))?;
        }
        let Superblock { epoch, fl, hi, acked, whole, .. } = *current;
        let rises = next.fl >= fl && next.hi >= hi && next.acked >= acked && next.whole >= whole;
        assert!(rises && next.epoch >= epoch, "I12: fl, hi, acked, whole and epoch never decrease");
        if next.is_differential() {
            next.features.incompat |= Features::DIFFERENTIAL;
        }
        // No opening would take it.
        next.check().unwrap_or_else(|what| panic!("the superblock is not written: {what}"));
        // After a failure it is unknown what is on disk: the storage refuses every later update.
        let written = write_copies(&*self.storage, &next);
        written.map_err(|e| Error::storage(format!("writing {FILE}"), e))?;
        *lock(&self.current) = Arc::new(next);
        Ok(())
    }
}
