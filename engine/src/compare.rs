//! Two closed devices' normal volumes, compared where either of them may hold anything but zeros: at
//! rest they are equal (I14), and as a volume has no checksums only this finds damage in one. And
//! what the comparison of a running pair is told and tells ([`crate::Device::begin_compare`]).
//!
//! The work grows with what was written, never with the volumes' size: segments that neither has
//! are not looked at, and holes are skipped by asking the storage for its next data.

use crate::error::{Error, Kind, Result};
use crate::format::superblock::Superblock;
use crate::storage::{FileName, Storage};
use crate::unit::SECTOR;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;

/// Bytes compared at a time.
const CHUNK: u64 = 1 << 20;

/// A comparison: its extent, and the differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Volumes of the group.
    pub volumes: u64,
    /// Their sizes together.
    pub volume_bytes: u64,
    /// Bytes at which at least one device may hold something.
    pub compared_bytes: u64,
    /// Volumes that differ.
    pub differing_volumes: u64,
    /// Ranges that differ.
    pub differing_ranges: u64,
    /// Their bytes, in whole sectors.
    pub differing_bytes: u64,
}

/// Sectors next to each other that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The volume.
    pub volume: u32,
    /// Byte offset in it.
    pub offset: u64,
    /// How long.
    pub bytes: u64,
}

/// How the normal volumes of a running pair are compared ([`crate::Device::begin_compare`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareLimits {
    /// A volume and the bytes of it whose blocks are looked at; `None`: all of every volume.
    pub range: Option<(u32, Range<u64>)>,
    /// Most bytes of blocks that this device reads in a second, 1 at least; as many does the peer.
    /// [`crate::Comparison::limit`] changes it.
    pub bytes_per_second: u64,
    /// How often a block is looked at that was not at rest before, 1 at least.
    pub looks: u32,
    /// Nanoseconds until those that were not at rest are looked at again.
    pub again_after_ns: u64,
    /// Most ranges that differ which the report lists.
    pub ranges_max: usize,
}

impl Default for CompareLimits {
    fn default() -> CompareLimits {
        CompareLimits {
            range: None,
            bytes_per_second: u64::MAX,
            looks: 8,
            again_after_ns: 1_000_000_000,
            ranges_max: 64,
        }
    }
}

/// How far the comparison of a running pair has come, or what it came to. In the end each of its
/// `blocks` is in one of the classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompareReport {
    /// Blocks to be looked at.
    pub blocks: u64,
    /// Those whose checksums are the same.
    pub equal: u64,
    /// Those whose checksums differ: one of the two volumes is damaged there.
    pub different: u64,
    /// The first ranges of those, as found.
    pub ranges: Vec<Differing>,
    /// Those that were not at rest at any look: nothing is known of them.
    pub undecided: u64,
    /// Those in segments that neither device has made, and without a record: neither volume has
    /// anything of them.
    pub skipped: u64,
    /// Those that a storage cannot read.
    pub unreadable: u64,
    /// Those that were not at rest and are to be looked at again.
    pub waiting: u64,
    /// Bytes that this device has read from its volumes.
    pub read_bytes: u64,
    /// Bytes of frames, both ways.
    pub line_bytes: u64,
}

/// Compares all volumes of two devices, whose superblocks say that they are of one group; tells
/// `each` of every range that differs, by volume and offset. Errors call the devices by `names`.
///
/// # Errors
/// [`Kind::Damaged`] if a segment is not as long as it should be, [`Kind::Storage`] if one cannot
/// be read.
pub fn volumes(
    storages: [&dyn Storage; 2],
    superblocks: &[Superblock; 2],
    names: [&dyn Display; 2],
    each: &mut dyn FnMut(Differing),
) -> Result<Compared> {
    let mut present = [BTreeMap::new(), BTreeMap::new()];
    for k in [0, 1] {
        present[k] = segments(storages[k], &superblocks[k], names[k])?;
    }
    let mut compared = Compared::default();
    let mut specs = superblocks[0].volumes.clone();
    specs.sort_by_key(|v| v.id);
    for spec in specs {
        let mut sides = [0, 1].map(|k| Side {
            storage: storages[k],
            device: names[k],
            volume: spec.id,
            size: spec.bytes,
            segment_bytes: superblocks[k].segment_bytes,
            present: present[k].remove(&spec.id).unwrap_or_default(),
            ahead: Some(0..0),
        });
        compared.volumes += 1;
        compared.volume_bytes = compared.volume_bytes.saturating_add(spec.bytes);
        let before = compared.differing_ranges;
        volume(&mut sides, &mut compared, each)?;
        compared.differing_volumes += u64::from(compared.differing_ranges > before);
    }
    Ok(compared)
}

/// The segments of every volume, each as long as it must be.
fn segments(
    storage: &dyn Storage,
    superblock: &Superblock,
    device: &dyn Display,
) -> Result<BTreeMap<u32, BTreeSet<u32>>> {
    let named = |what: &dyn Display| format!("{} of {}", what, device);
    let sizes: BTreeMap<u32, u64> = superblock.volumes.iter().map(|v| (v.id, v.bytes)).collect();
    let block = u64::from(superblock.block_size);
    let mut present: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let files = storage.files().map_err(|e| Error::storage(named(&"listing the files"), e))?;
    for file in files {
        let FileName::Segment { volume, index } = file else { continue };
        let size = sizes.get(&volume).map_or(0, |size| size.next_multiple_of(block));
        let begins = u64::from(index).saturating_mul(superblock.segment_bytes);
        if begins >= size {
            continue; // beyond its volume's end: no host reads it
        }
        let expected = superblock.segment_bytes.min(size - begins);
        let length = storage.length(file).map_err(|e| Error::storage(named(&file), e))?;
        if length != Some(expected) {
            let found = length.unwrap_or(0);
            let what = format!("{} has {found} bytes, should have {expected}", named(&file));
            return Err(Error::new(Kind::Damaged, what));
        }
        present.entry(volume).or_default().insert(index);
    }
    Ok(present)
}

/// One device's view of one volume.
struct Side<'a> {
    storage: &'a dyn Storage,
    device: &'a dyn Display,
    volume: u32,
    size: u64,
    segment_bytes: u64,
    present: BTreeSet<u32>,
    /// The data found last; `None`: there is no more.
    ahead: Option<Range<u64>>,
}

impl Side<'_> {
    fn failed(&self, file: FileName, error: std::io::Error) -> Error {
        Error::storage(format!("reading {file} of {}", self.device), error)
    }

    /// The stretch that may hold data at or after `at`, as far as one segment knows.
    fn data_from(&mut self, at: u64) -> Result<Option<Range<u64>>> {
        while let Some(ahead) = &self.ahead {
            if ahead.end > at {
                return Ok(Some(ahead.start.max(at)..ahead.end));
            }
            self.ahead = self.find_data(at)?;
        }
        Ok(None)
    }

    fn find_data(&self, at: u64) -> Result<Option<Range<u64>>> {
        let first = u32::try_from(at / self.segment_bytes).unwrap_or(u32::MAX);
        for &index in self.present.range(first..) {
            let file = FileName::Segment { volume: self.volume, index };
            let begins = u64::from(index) * self.segment_bytes;
            let found = self.storage.next_data(file, at.saturating_sub(begins));
            if let Some(found) = found.map_err(|e| self.failed(file, e))? {
                // A host sees the last block only as far as the volume goes.
                let end = (begins + found.end).min(self.size);
                let start = begins + found.start;
                return Ok((start < end).then_some(start..end));
            }
        }
        Ok(None)
    }

    /// Fills `buf` from byte `at` of the volume.
    fn read(&self, mut at: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let index = (at / self.segment_bytes) as u32;
            let within = at % self.segment_bytes;
            let now = (self.segment_bytes - within).min(buf.len() as u64);
            let (front, rest) = std::mem::take(&mut buf).split_at_mut(now as usize);
            if self.present.contains(&index) {
                let file = FileName::Segment { volume: self.volume, index };
                let read = self.storage.read(file, within, front);
                read.map_err(|e| self.failed(file, e))?;
            } else {
                front.fill(0);
            }
            at += now;
            buf = rest;
        }
        Ok(())
    }
}

fn volume(
    sides: &mut [Side<'_>; 2],
    compared: &mut Compared,
    each: &mut dyn FnMut(Differing),
) -> Result<()> {
    let mut at = 0;
    let mut bufs = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
    let mut open: Option<Range<u64>> = None;
    let volume = sides[0].volume;
    let mut close = |range: Option<Range<u64>>, compared: &mut Compared| {
        let Some(range) = range else { return };
        let bytes = range.end - range.start;
        compared.differing_ranges += 1;
        compared.differing_bytes += bytes;
        each(Differing { volume, offset: range.start, bytes });
    };
    loop {
        let found = [sides[0].data_from(at)?, sides[1].data_from(at)?];
        let Some(start) = found.iter().flatten().map(|r| r.start).min() else { break };
        // To the end of the data that begins here: what the other has there is read with it.
        let here = found.iter().flatten().filter(|r| r.start == start);
        let end = here.map(|r| r.end).max().expect("one begins here");
        let end = end.min(start + CHUNK);
        let length = (end - start) as usize;
        for (side, buf) in sides.iter().zip(&mut bufs) {
            side.read(start, &mut buf[..length])?;
        }
        compared.compared_bytes += end - start;
        let (a, b) = (&bufs[0][..length], &bufs[1][..length]);
        if a != b {
            let sectors = a.chunks(SECTOR as usize).zip(b.chunks(SECTOR as usize));
            for ((a, b), k) in sectors.zip(0..).filter(|((a, b), _)| a != b) {
                debug_assert!(a.len() == b.len());
                let begins = start + k * SECTOR;
                let ends = begins + a.len() as u64;
                match &mut open {
                    Some(range) if range.end == begins => range.end = ends,
                    _ => close(open.replace(begins..ends), compared),
                }
            }
        }
        at = end;
    }
    close(open, compared);
    Ok(())
}
