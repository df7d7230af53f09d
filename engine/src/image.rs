//! The last consistent image (LADDER 6): while the normal volumes are no state that the hosts' data ever had,
//! a side file keeps what was overwritten in them since they were one.
//!
//! | state | superblock | normal volumes |
//! |---|---|---|
//! | kept | `image`, not a prefix | with the saved blocks over them they are the image; each block is saved before its first write (`Writing`) |
//! | put back | `image`, a prefix | a forced takeover has chosen the image: reads find the saved blocks (`Overlay`), until a checkpoint has written them back |
//! | neither | no `image` | the file, if there is one, counts for nothing |

use crate::error::{Error, Kind, Result};
use crate::format::image::{ImagePoint, decode, encode};
use crate::format::salvage::Origin;
use crate::format::superblock::Superblock;
use crate::format::{PAGE, data_checksum};
use crate::saved::{self, Pending};
use crate::storage::{FileName, SideKind, Storage};
use crate::table::bits::Bits;
use crate::unit::{Block, Blocks, Extent, Stamp};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};

/// The side file.
pub(crate) const FILE: FileName =
    FileName::Side { kind: SideKind::new("image").expect("a word"), number: 0 };

fn origin(superblock: &Superblock) -> Origin {
    let Superblock { group, device, lineage, block_size, .. } = *superblock;
    Origin { group, device, lineage, block_size }
}

/// Whether a device has its last consistent image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageStatus {
    /// The normal volumes are one: none is kept.
    #[default]
    NotNeeded,
    /// It is kept.
    Kept {
        /// Of when it is.
        point: ImagePoint,
        /// How many blocks were saved.
        blocks: u64,
        /// The side file's length, in bytes; at most [`crate::Settings::image_bytes_max`].
        bytes: u64,
    },
    /// It is not.
    Missing {
        /// Why.
        why: String,
    },
    /// A forced takeover has chosen it: it is served, and on its way back into the normal volumes.
    PutBack {
        /// Of when it is.
        point: ImagePoint,
    },
}

/// The saved blocks as a read finds them, until they are in the normal volumes again.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub zeros: Bits,
    /// Where in the file each block's data is, and its checksum.
    pub data: BTreeMap<Block, (u64, u64)>,
}

impl Overlay {
    /// Reads `block`, if it is one of these.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the file cannot be read; [`Kind::Damaged`] if it is not what was saved.
    pub fn read(&self, storage: &dyn Storage, block: Block, buf: &mut [u8]) -> Result<bool> {
        if self.zeros.contains(block) {
            buf.fill(0);
            return Ok(true);
        }
        let Some(&(at, checksum)) = self.data.get(&block) else { return Ok(false) };
        let read = storage.read(FILE, at, buf);
        read.map_err(|e| Error::storage(format!("reading block {block} at {at} of {FILE}"), e))?;
        if data_checksum(buf) != checksum {
            let what = format!("{FILE}: block {block} at {at} is not what was saved");
            return Err(Error::new(Kind::Damaged, what));
        }
        Ok(true)
    }
}

/// An image that is kept.
#[derive(Debug)]
pub(crate) struct Writing {
    pub point: ImagePoint,
    pub saved: Bits,
    pub bytes: u64,
    pending: Pending,
}

impl Writing {
    /// Begins the image of the volumes as they are at `point`: an empty one, durable.
    pub fn begin(
        storage: &dyn Storage,
        superblock: &Superblock,
        point: ImagePoint,
    ) -> io::Result<Writing> {
        remove(storage)?;
        let origin = origin(superblock);
        saved::put(storage, FILE, 0, &encode(&origin, point))?;
        storage.sync(FILE)?;
        Ok(Writing { point, saved: Bits::default(), bytes: PAGE, pending: Pending::new(origin) })
    }

    /// The image that the file has, and its blocks. A chunk at its end that was not durable when the device
    /// ended is cut off: nothing that it saves was overwritten. Up to what the superblock vouches for
    /// (`History::image_bytes`) there is no such chunk.
    ///
    /// # Errors
    /// [`Kind::Damaged`] or [`Kind::Storage`]: the file's fault. There is no image then.
    pub fn load(storage: &dyn Storage, superblock: &Superblock) -> Result<(Writing, Overlay)> {
        let failed = |e| Error::storage(format!("reading {FILE}"), e);
        let damaged = |what| {
            let story = "put the file back as it was, or go on without it: `afterimage force --newest` serves \
                         each block as new as it is here";
            Err(Error::new(Kind::Damaged, format!("{FILE}: {what}; {story}")))
        };
        let vouched = superblock.history.image_bytes;
        let mut page = vec![0; PAGE as usize];
        match storage.length(FILE).map_err(failed)? {
            None => return damaged("the file is missing".into()),
            Some(length) if length < vouched.max(PAGE) => {
                let least = vouched.max(PAGE);
                return damaged(format!("it has {length} bytes, and must have {least}"));
            }
            Some(_) => storage.read(FILE, 0, &mut page).map_err(failed)?,
        }
        let (found, point) = match decode(&page) {
            Ok(found) => found,
            Err(what) => return damaged(format!("at 0: {what}")),
        };
        let origin = origin(superblock);
        let whose = |origin: &Origin| (origin.group, origin.device, origin.block_size);
        if whose(&found) != whose(&origin) {
            return damaged(format!("at 0: it is of {found:?}, not of {origin:?}"));
        }
        let mut all = Vec::new();
        let each = |at, chunk: &_| all.push((at, Clone::clone(chunk)));
        let mut bytes = saved::chunks(storage, FILE, PAGE, each).map_err(failed)?;
        if bytes < vouched {
            return damaged(format!("no chunk is at {bytes}, and the file was whole to {vouched}"));
        }
        // A chunk is written when all before it are durable: only the last one may be cut short.
        if let Some(at) = saved::next_chunk(storage, FILE, bytes + PAGE).map_err(failed)? {
            return damaged(format!("no chunk is at {bytes}, and one is behind it, at {at}"));
        }
        for (at, chunk) in &all {
            if whose(&chunk.origin) != whose(&origin) {
                return damaged(format!("at {at}: the chunk is of {:?}", chunk.origin));
            }
            let found = saved::first_damaged(storage, FILE, (*at, chunk)).map_err(failed)?;
            let Some((block, offset)) = found else { continue };
            let is_last = at + chunk.bytes == bytes;
            if !is_last || bytes <= vouched {
                return damaged(format!("at {offset}: block {block} is not what was saved"));
            }
            bytes = *at;
        }
        all.retain(|(at, _)| *at < bytes);
        let (mut overlay, mut saved) = (Overlay::default(), Bits::default());
        for (at, chunk) in &all {
            for (entry, offset) in &chunk.entries {
                let number = entry.block.number;
                let blocks =
                    Blocks { volume: entry.block.volume, numbers: number..number + entry.count };
                let volume = superblock.volumes.iter().find(|volume| volume.id == blocks.volume);
                let size = u64::from(origin.block_size);
                if volume.is_none_or(|volume| blocks.numbers.end > volume.bytes.div_ceil(size)) {
                    let block = entry.block;
                    return damaged(format!("at {at}: it has block {block}, which no volume has"));
                }
                saved.insert(blocks.clone());
                match entry.has_data {
                    true => drop(overlay.data.insert(entry.block, (at + offset, entry.checksum))),
                    false => overlay.zeros.insert(blocks),
                }
            }
        }
        Ok((Writing { point, saved, bytes, pending: Pending::new(origin) }, overlay))
    }

    /// Zeros come behind the last chunk, so that nothing there is taken for one.
    pub fn clear_end(&self, storage: &dyn Storage) -> io::Result<()> {
        let (mut at, end) = (self.bytes, storage.length(FILE)?.unwrap_or(0));
        let zeros = [0; PAGE as usize];
        while at < end {
            let count = (end - at).min(PAGE);
            storage.write(FILE, at, &[IoSlice::new(&zeros[..count as usize])])?;
            at += count;
        }
        storage.sync(FILE)
    }

    /// Notes one block down.
    pub fn add(&mut self, block: Block, data: &[u8]) {
        self.pending.add(block, Stamp::ZERO, data);
        self.saved.insert(Extent::from(block).into());
    }

    /// Notes down that `blocks` read as zeros.
    pub fn add_zeros(&mut self, blocks: Blocks) {
        self.pending.add_zeros(&blocks, Stamp::ZERO);
        self.saved.insert(blocks);
    }

    /// Whether a flush is due.
    pub fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// The blocks that were noted down go to the file, durably if it `syncs`; `None`: there is no room for
    /// them within `most` bytes.
    pub fn flush(
        &mut self,
        storage: &dyn Storage,
        most: u64,
        syncs: bool,
    ) -> io::Result<Option<()>> {
        if self.pending.is_empty() {
            return Ok(Some(()));
        }
        let chunk = self.pending.take(self.point.at);
        let end = self.bytes + chunk.len() as u64;
        if end > most {
            return Ok(None);
        }
        saved::put(storage, FILE, self.bytes, &chunk)?;
        if syncs {
            storage.sync(FILE)?;
        }
        self.bytes = end;
        Ok(Some(()))
    }
}

/// Removes the file, if there is one.
pub(crate) fn remove(storage: &dyn Storage) -> io::Result<()> {
    match storage.length(FILE)? {
        Some(_) => storage.remove(FILE),
        None => Ok(()),
    }
}

/// The image that the device in `storage` keeps, or puts back, as its superblock says: of when it is, how
/// many blocks it has, and the file's length in bytes. `None`: none.
///
/// # Errors
/// [`Kind::Damaged`] if the file is not what it was; [`Kind::Storage`].
pub fn look(
    storage: &dyn Storage,
    superblock: &Superblock,
) -> Result<Option<(ImagePoint, u64, u64)>> {
    if !superblock.image {
        return Ok(None);
    }
    let (image, _) = Writing::load(storage, superblock)?;
    Ok(Some((image.point, image.saved.blocks(), image.bytes)))
}
