//! The superblock's file: two copies written in turn, so that one is always whole.

use crate::error::{Error, Kind, Result};
use crate::format::superblock::{COPY_BYTES, LogState, Mode, Superblock, VOLUMES_OFFSET};
use crate::limits::Geometry;
use crate::storage::{FileName, Fill, Storage};
use crate::unit::Stamp;
use std::io::IoSlice;
use std::sync::Arc;

const FILE: FileName = FileName::Superblock;

/// The superblock of an open device.
pub(crate) struct SuperblockFile {
    storage: Arc<dyn Storage>,
    current: Superblock,
}

/// Writes the files of a new device: logs, then the superblock that makes it one. The active one
/// of a new pair begins unfenced in epoch 1; the other is fenced.
pub fn create(storage: &dyn Storage, geometry: &Geometry, active: bool) -> Result<()> {
    geometry.check()?;
    let log = LogState {
        bytes: geometry.journal_bytes,
        incarnation: 1,
        tail_offset: 0,
        tail_sequence: 1,
        durable: 0,
    };
    let superblock = Superblock {
        generation: 1,
        group: geometry.group,
        device: geometry.device,
        mode: Mode::Paired,
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
        fl: Stamp::ZERO,
        consat: Stamp::ZERO,
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
    let length = (VOLUMES_OFFSET + table.len() as u64).next_multiple_of(COPY_BYTES);
    let wrote = storage
        .create(FILE, length, Fill::Written)
        .and_then(|()| storage.write(FILE, VOLUMES_OFFSET, &[IoSlice::new(&table)]))
        .and_then(|()| storage.sync(FILE))
        .and_then(|()| {
            storage.write(FILE, place(&superblock), &[IoSlice::new(&superblock.encode()[..])])
        })
        .and_then(|()| storage.sync(FILE));
    wrote.map_err(|e| Error::storage(doing("writing", FILE), e))
}

/// Copies take turns by their generation.
fn place(superblock: &Superblock) -> u64 {
    superblock.generation % 2 * COPY_BYTES
}

/// Both copies, each as it is or with what is wrong with it.
pub fn read_copies(storage: &dyn Storage) -> Result<[Result<Superblock, String>; 2]> {
    let failed = |e| Error::storage(format!("reading {FILE}"), e);
    let length = storage.length(FILE).map_err(failed)?.ok_or_else(|| {
        Error::new(Kind::Damaged, format!("there is no {FILE}: this is no device directory"))
    })?;
    if length < VOLUMES_OFFSET {
        let what = format!("{FILE} has {length} bytes, needs at least {VOLUMES_OFFSET}");
        return Err(Error::new(Kind::Damaged, what));
    }
    let most = crate::limits::VOLUMES_MAX as u64 * 16;
    let mut volumes = vec![0; (length - VOLUMES_OFFSET).min(most) as usize];
    storage.read(FILE, VOLUMES_OFFSET, &mut volumes).map_err(failed)?;
    let mut page = [0; COPY_BYTES as usize];
    let mut copy = |k| -> Result<Result<Superblock, String>> {
        storage.read(FILE, k * COPY_BYTES, &mut page).map_err(failed)?;
        Ok(Superblock::decode(&page, &volumes))
    };
    Ok([copy(0)?, copy(1)?])
}

/// The valid copy of the higher generation.
pub fn load(storage: &dyn Storage) -> Result<Superblock> {
    match read_copies(storage)? {
        [Ok(a), Ok(b)] => Ok(if a.generation > b.generation { a } else { b }),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
        [Err(a), Err(b)] => Err(Error::new(
            Kind::Damaged,
            format!("both copies of {FILE} are unusable (first: {a}; second: {b}); see `inspect`"),
        )),
    }
}

impl SuperblockFile {
    pub fn open(storage: Arc<dyn Storage>) -> Result<SuperblockFile> {
        let current = load(&*storage)?;
        Ok(SuperblockFile { storage, current })
    }

    pub fn get(&self) -> &Superblock {
        &self.current
    }

    /// Makes a change durable; it counts only once it is.
    pub fn update(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        let mut next = self.current.clone();
        change(&mut next);
        next.generation += 1;
        let Superblock { epoch, fl, hi, acked, .. } = self.current;
        assert!(
            next.epoch >= epoch && next.fl >= fl && next.hi >= hi && next.acked >= acked,
            "I12: fl, hi, acked and epoch never decrease"
        );
        self.storage
            .write(FILE, place(&next), &[IoSlice::new(&next.encode()[..])])
            .and_then(|()| self.storage.sync(FILE))
            .map_err(|e| Error::storage(format!("writing {FILE}"), e))?;
        self.current = next;
        Ok(())
    }
}
