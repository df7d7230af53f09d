//! The last consistent image in the data path (LADDER 6): when one begins, what is saved before N is written,
//! when it ends, and how a forced takeover's choice of it comes back into N.
//!
//! N is written by reflection and by copies, each under the lock `reflecting`, which the callers of these
//! steps hold. Records up to the image's point go to N as they are: they are in the image.

use super::Tables;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::image::ImagePoint;
use crate::format::superblock::Superblock;
use crate::image::{FILE, ImageStatus, Overlay, Writing, remove};
use crate::salvage::Writer;
use crate::storage::Storage;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::table::bits::Bits;
use crate::table::differential::{Consistent, Differential};
use crate::unit::{Block, Blocks, Extent, Stamp};
use crate::weaken::{Clause, holds};
use std::io::IoSlice;
use std::sync::Mutex;

/// The image of a device. `status` is locked for moments.
#[derive(Debug, Default)]
pub(crate) struct Image {
    status: Mutex<ImageStatus>,
    /// The image that is kept; locked by who holds `reflecting`, or opens or forces the device.
    writing: Mutex<Option<Writing>>,
    /// Records up to it, and none of those that come later, are in the newest state of N that is a prefix:
    /// set by each step of the machine that finds one, taken by the image that begins with it. And the number
    /// of the lineage then.
    point: Mutex<Option<(Stamp, u64)>>,
    /// The fault of the one that this opening gave up.
    given_up: Option<String>,
    /// The one that was chosen, on its way back into N.
    back: Mutex<Option<Back>>,
    /// So many bytes of its file are durable.
    back_bytes: AtomicU64,
    /// The writer of the content that it replaces, once some is to be kept; `None` within: nothing is.
    /// Locked by who holds `reflecting`.
    salvage: Mutex<Option<Option<Writer>>>,
}

/// An image on its way back.
#[derive(Debug)]
struct Back {
    /// Its file, whose blocks are to be read there after a crash.
    writing: Writing,
    /// Of these the ones that records were written over since the last checkpoint.
    over: Bits,
}

/// Most bytes of an image that go back into N in one step.
const PIECE_BYTES: usize = 8 << 20;

impl Image {
    /// As the file has it, for a device with this superblock that says it is `consistent` or not; and what is
    /// to be read in the place of N.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`] or [`crate::Kind::Storage`] if a forced takeover has chosen the image, and the
    /// file is not what it was, unless the opening `gives_up`.
    pub fn load(
        storage: &dyn Storage,
        superblock: &Superblock,
        consistent: Consistent,
        gives_up: bool,
    ) -> Result<(Image, Overlay)> {
        let is_put_back = superblock.usable && superblock.consat == Stamp::ZERO;
        if superblock.image && is_put_back {
            let loaded = Writing::load(storage, superblock).and_then(|(writing, overlay)| {
                let cleared = writing.clear_end(storage);
                cleared.map_err(|e| Error::storage(format!("writing the end of {FILE}"), e))?;
                Ok((writing, overlay))
            });
            return match loaded {
                Ok((writing, overlay)) => Ok((Image::chosen(writing), overlay)),
                // Without it N is a mixture.
                Err(error) if gives_up && error.kind() == Kind::Damaged => {
                    let given_up = Some(error.to_string());
                    Ok((Image { given_up, ..Image::default() }, Overlay::default()))
                }
                Err(error) => Err(error),
            };
        }
        let loaded = match superblock.image {
            _ if consistent == Consistent::Yes => return Ok(Default::default()),
            false => Err("none was kept when the device was opened".to_string()),
            true => Writing::load(storage, superblock).map_err(|error| error.to_string()),
        };
        let loaded = loaded.and_then(|(writing, _)| {
            if !is_of(writing.point, superblock) {
                return Err(OLD.to_string());
            }
            writing.clear_end(storage).map_err(|error| error.to_string())?;
            Ok(writing)
        });
        let (status, writing) = match loaded {
            Ok(writing) => (kept(&writing), Some(writing)),
            Err(why) => (ImageStatus::Missing { why }, None),
        };
        let image =
            Image { status: Mutex::new(status), writing: Mutex::new(writing), ..Image::default() };
        Ok((image, Overlay::default()))
    }

    /// A forced takeover has chosen the one that `writing` has.
    fn chosen(writing: Writing) -> Image {
        Image {
            status: Mutex::new(ImageStatus::PutBack { point: writing.point }),
            back_bytes: AtomicU64::new(writing.bytes),
            back: Mutex::new(Some(Back { writing, over: Bits::default() })),
            ..Image::default()
        }
    }

    /// Whether there is one, or none, and why.
    pub fn status(&self) -> ImageStatus {
        lock(&self.status).clone()
    }

    /// The fault of the one that this opening gave up, if it did.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// The blocks of the image that is kept.
    pub fn saved(&self) -> Bits {
        lock(&self.writing).as_ref().map_or_else(Bits::default, |writing| writing.saved.clone())
    }

    /// A forced takeover chooses the image that is kept: the next superblock says so.
    pub fn choose(&self) {
        let status = &mut *lock(&self.status);
        if let ImageStatus::Kept { point, bytes, .. } = *status {
            *status = ImageStatus::PutBack { point };
            self.back_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Whether it is kept.
    pub fn is_kept(&self) -> bool {
        matches!(*lock(&self.status), ImageStatus::Kept { .. })
    }

    /// Whether a forced takeover has chosen it, and it is not in N yet.
    pub fn is_put_back(&self) -> bool {
        matches!(*lock(&self.status), ImageStatus::PutBack { .. })
    }

    /// `superblock`, which says that N is `consistent`, or not, says whether there is one.
    pub fn note(&self, superblock: &mut Superblock, consistent: Consistent) {
        if self.given_up.is_some() {
            // It counts until a force has its word.
            return;
        }
        superblock.image = self.is_stored(superblock, consistent);
        if !superblock.image {
            superblock.history.image_bytes = 0;
        } else if self.is_put_back() {
            superblock.history.image_bytes = self.back_bytes.load(Ordering::Relaxed);
        }
    }

    /// So many bytes of the file are durable, if one is kept.
    pub fn durable_bytes(&self) -> u64 {
        lock(&self.writing).as_ref().map_or(0, |writing| writing.bytes)
    }

    /// Blocks of the image on its way back that records were written over since the last checkpoint.
    pub fn take_over(&self) -> Bits {
        lock(&self.back).as_mut().map_or_else(Bits::default, |back| std::mem::take(&mut back.over))
    }

    /// Notes down durably that `over`, which N has durably, is not to be read in the file any more. Whether the
    /// superblock may say that records of it are in N: not if the file cannot be written.
    pub fn note_over(&self, storage: &dyn Storage, over: Bits) -> bool {
        let mut locked = lock(&self.back);
        let Some(back) = locked.as_mut().filter(|_| !over.is_empty()) else { return true };
        let Back { writing, over: later } = back;
        let mut is_noted = true;
        for run in over.runs() {
            writing.add_over(run);
            if writing.is_full() {
                is_noted &= matches!(writing.flush(storage, u64::MAX, true), Ok(Some(())));
            }
        }
        is_noted &= matches!(writing.flush(storage, u64::MAX, true), Ok(Some(())));
        if is_noted {
            self.back_bytes.store(writing.bytes, Ordering::Relaxed);
        } else {
            writing.saved.add(&over);
            later.add(&over);
        }
        is_noted
    }

    fn is_stored(&self, superblock: &Superblock, consistent: Consistent) -> bool {
        match *lock(&self.status) {
            ImageStatus::Kept { point, .. } => {
                consistent != Consistent::Yes && is_of(point, superblock)
            }
            ImageStatus::PutBack { .. } => true,
            ImageStatus::NotNeeded | ImageStatus::Missing { .. } => false,
        }
    }

    /// The newest record that is in the image that is kept.
    pub fn upto(&self) -> Option<Stamp> {
        match *lock(&self.status) {
            ImageStatus::Kept { point, .. } => Some(point.upto),
            _ => None,
        }
    }

    /// A step of the machine finds N to be a prefix, or finds that it is not.
    pub fn look(&self, machine: &Differential, tables: &Tables) {
        if machine.consistent() == Consistent::Yes && machine.owed().is_empty() {
            let newest = tables.newest_own().max(tables.incoming.hi()).max(tables.normal.reach());
            let upto = if tables.is_behind() { tables.reflectable() } else { newest };
            *lock(&self.point) = Some((upto, machine.generation()));
        }
    }
}

/// An image of a history that was given up is not offered: the device is of the one that came by it now.
fn is_of(point: ImagePoint, superblock: &Superblock) -> bool {
    point.lineage.0 == superblock.lineage.0
}

const OLD: &str = "it was of a history that was given up";

fn kept(writing: &Writing) -> ImageStatus {
    let Writing { point, bytes, .. } = *writing;
    ImageStatus::Kept { point, blocks: writing.saved.blocks(), bytes }
}

impl Device {
    fn set_image(&self, status: ImageStatus) {
        *lock(&self.image.status) = status.clone();
        self.tell(Event::LastImage(status));
    }

    /// N is no prefix from now on: the image of what it was is begun, durably, before the superblock says
    /// so, unless there is one.
    pub(crate) fn begin_image(&self) -> Result<()> {
        if self.peer.machine.read().consistent() == Consistent::Yes {
            return Ok(());
        }
        let superblock = self.superblock.get();
        let point = lock(&self.image.point).take();
        self.write_back_image()?;
        let missing = |why: String| ImageStatus::Missing { why };
        let Some((upto, number)) = point else {
            if self.image.status() == ImageStatus::NotNeeded {
                let why = "the device was opened in the middle of what it is owed";
                self.set_image(missing(why.into()));
            }
            return Ok(());
        };
        self.forget_image()?;
        let point = ImagePoint { upto, at: self.clock.wall(), lineage: superblock.lineage };
        let status = if number != superblock.lineage.0 {
            missing(OLD.into())
        } else if self.settings.image_bytes_max == 0 {
            missing("there is no room for it: `Settings::image_bytes_max` is 0".into())
        } else {
            match Writing::begin(self.storage_apart(), &superblock, point) {
                Ok(writing) => {
                    let status = kept(&writing);
                    *lock(&self.image.writing) = Some(writing);
                    status
                }
                Err(error) => missing(format!("there is no room for it: {error}")),
            }
        };
        self.set_image(status);
        Ok(())
    }

    /// The content of these blocks is about to change in N: it is saved first, durably, if that is due.
    ///
    /// # Errors
    /// [`crate::Kind::Storage`] if N cannot be read; [`crate::Kind::Halted`].
    pub(crate) fn save_before(&self, runs: impl Iterator<Item = Blocks>) -> Result<()> {
        let mut kept_one = lock(&self.image.writing);
        let Some(writing) = &mut *kept_one else { return Ok(()) };
        let (storage, most) = (self.storage_apart(), self.settings.image_bytes_max);
        let syncs = holds(Clause::OldContentFirst);
        let mut data = vec![0; self.geometry.block_size as usize];
        let before = writing.bytes;
        let mut full = None;
        'runs: for run in runs {
            let missing = writing.saved.missing(&run);
            for (part, is_hole) in missing.runs().flat_map(|run| self.volumes.parts(run)) {
                if is_hole {
                    writing.add_zeros(part.clone());
                }
                let read = if is_hole { 0..0 } else { part.numbers.clone() };
                for block in (Blocks { numbers: read, ..part }).each() {
                    self.volumes.read(block, &mut data)?;
                    writing.add(block, &data);
                }
                if writing.is_full() {
                    full = flush(writing, storage, most, syncs);
                }
                if full.is_some() {
                    break 'runs;
                }
            }
        }
        match full.or_else(|| flush(writing, storage, most, syncs)) {
            None if writing.bytes == before => {}
            None => *lock(&self.image.status) = kept(writing),
            Some(why) => {
                *kept_one = None;
                drop(kept_one);
                self.set_image(ImageStatus::Missing { why });
                if holds(Clause::GivenUpFirst) {
                    self.forget_image()?;
                }
            }
        }
        Ok(())
    }

    /// The file counts for nothing from now on, durably; then it is removed.
    fn forget_image(&self) -> Result<()> {
        *lock(&self.image.writing) = None;
        if self.superblock.get().image {
            self.store(|s| (s.image, s.history.image_bytes) = (false, 0))?;
        }
        self.tidy_image();
        Ok(())
    }

    /// A file that counts for nothing is removed; if it stays, the next image replaces it.
    pub(crate) fn tidy_image(&self) {
        if !self.superblock.get().image {
            let _ = remove(self.storage_apart());
        }
    }

    /// Nothing is kept any more once N is a prefix again, and the superblock says so; and nothing of a history
    /// that was given up.
    pub(crate) fn end_image(&self) -> Result<()> {
        if !self.has_needless_image() {
            return Ok(());
        }
        self.forget_image()?;
        self.set_image(match self.is_durable_prefix() {
            true => ImageStatus::NotNeeded,
            false => ImageStatus::Missing { why: OLD.into() },
        });
        Ok(())
    }

    fn is_durable_prefix(&self) -> bool {
        let consistent = self.peer.machine.read().durable_marks().1;
        self.superblock.get().usable && consistent == Consistent::Yes
    }

    pub(crate) fn has_needless_image(&self) -> bool {
        match self.image.status() {
            ImageStatus::Kept { point, .. } if !is_of(point, &self.superblock.get()) => true,
            ImageStatus::Kept { .. } | ImageStatus::Missing { .. } => self.is_durable_prefix(),
            ImageStatus::NotNeeded | ImageStatus::PutBack { .. } => false,
        }
    }

    /// The image that a forced takeover has chosen goes back into N, durably, and is no side file any more. It is
    /// done before anything is written to N that would make a mixture of it.
    pub(crate) fn write_back_image(&self) -> Result<()> {
        while self.write_back_some(self.piece_blocks() as u64)? > 0 {}
        Ok(())
    }

    /// So many blocks of an image go back in one step, at most.
    pub(crate) fn piece_blocks(&self) -> usize {
        PIECE_BYTES / self.geometry.block_size as usize
    }

    /// The next blocks of that image go back, at most `most`; returns how many, and at least 1 if there was one.
    /// Behind the last of them it is at an end. The caller holds `reflecting`.
    pub(crate) fn write_back_some(&self, most: u64) -> Result<usize> {
        if !self.image.is_put_back() {
            return Ok(0);
        }
        let piece = self.volumes.overlay().first(most);
        let count = piece.0.iter().map(Blocks::count).sum::<u64>() as usize + piece.1.len();
        if !self.put_back(piece).map_err(|e| self.unreadable(e))? {
            self.volumes.sync().map_err(|e| self.halt(e))?;
            self.set_image(ImageStatus::NotNeeded);
            // Behind that: a checkpoint that finds none stores that there is none.
            *lock(&self.image.back) = None;
            // The superblock called N whole while the image counted, and N is: what is to come over it begins another
            // image before that changes.
            self.store(|s| (s.image, s.history.image_bytes) = (false, 0))?;
            self.peer.machine.unmark();
            self.tidy_image();
        }
        Ok(count.max(1))
    }

    /// Records are about to be written over `runs`: blocks of the image that stand there go back first, so that
    /// what they replace is saved, and are not to be read in its file any more.
    pub(crate) fn write_over_image(&self, runs: impl Iterator<Item = Blocks>) -> Result<()> {
        let runs: Bits = runs.collect();
        let piece = self.volumes.overlay().within(&runs);
        self.put_back(piece).map_err(|e| self.unreadable(e))?;
        if let Some(Back { writing, over }) = &mut *lock(&self.image.back) {
            for run in runs.runs() {
                writing.saved.within(run.range()).for_each(|run| over.insert(run));
            }
        }
        Ok(())
    }

    /// Writes blocks of the image to N, runs of zeros and those with data; whether others are left. The content
    /// that they replace is kept as salvage first, as far as there is room.
    fn put_back(&self, (zeros, data): (Vec<Blocks>, Vec<Block>)) -> Result<bool> {
        let of_pieces = &mut *lock(&self.image.salvage);
        if of_pieces.is_none() {
            let superblock = self.superblock.get();
            let old = superblock.history.ancestors.last().copied().unwrap_or(superblock.lineage);
            let of_old = Superblock { lineage: old, ..Superblock::clone(&superblock) };
            *of_pieces = Some(match self.settings.salvage_bytes_max {
                0 => None,
                most => Some(Writer::new(self.storage_apart(), &of_old, most)?),
            });
        }
        let salvage = of_pieces.as_mut().expect("just made");
        let mut buffers = [0; 2].map(|_| vec![0; self.geometry.block_size as usize]);
        let parts = zeros.iter().flat_map(|run| self.volumes.parts(run.clone()));
        let written = parts.filter(|(_, is_hole)| !is_hole).map(|(run, _)| run);
        let written = written.flat_map(|run| run.each());
        for block in written.chain(data.iter().copied()) {
            let Some(writer) = salvage else { break };
            let [before, after] = &mut buffers;
            self.volumes.read_beneath(block, before)?;
            self.volumes.read(block, after)?;
            if before != after {
                writer.add(block, Stamp::ZERO, before);
            }
            if writer.is_full_chunk() {
                self.keep(salvage);
            }
        }
        self.keep(salvage);
        for run in &zeros {
            self.volumes.zero_run(run)?;
        }
        for &block in &data {
            self.volumes.read(block, &mut buffers[0])?;
            self.volumes.write(block, &[IoSlice::new(&buffers[0])])?;
        }
        if salvage.is_some() {
            // Another writer may come before the next piece: each finds its own place.
            *of_pieces = None;
        }
        let data = data.into_iter().map(|block| Extent::from(block).into());
        Ok(self.volumes.uncover(zeros.into_iter().chain(data)))
    }

    /// Makes what was noted down durable; if there is no room for it, or its file fails, nothing more is.
    fn keep(&self, salvage: &mut Option<Writer>) {
        let now = self.clock.wall();
        let flushed = salvage.as_mut().map(|writer| writer.flush(self.storage_apart(), now));
        if let Some(Err(error)) = flushed {
            let goes_on = "the last consistent image, on its way back, replaces what is not saved";
            self.note_salvage_full(error, goes_on);
            *salvage = None;
        }
    }
}

/// Why what was noted down could not be saved, if it could not.
fn flush(writing: &mut Writing, storage: &dyn Storage, most: u64, syncs: bool) -> Option<String> {
    match writing.flush(storage, most, syncs) {
        Ok(Some(())) => None,
        Ok(None) => Some(format!(
            "it was given up: the side file has {} bytes, and may have {most} (`Settings::image_bytes_max`)",
            writing.bytes
        )),
        Err(error) => Some(format!("it was given up: {error}")),
    }
}
