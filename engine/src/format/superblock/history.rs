//! The annex: the lineage that this device's content has come by (D10), and what else of the superblock
//! does not fit into its sector.

use super::super::StampBytes;
use super::ANNEX_BYTES_MAX;
use crate::unit::{Round, Stamp};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const FORCED: u32 = 1;
const ALONE: u32 = 2;
const OTHER: u32 = 4;
const MET: u32 = 8;
const IMAGE: u32 = 16;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fixed {
    ancestors: U32,
    flags: U32,
    alone: StampBytes,
    void_above: StampBytes,
    void_upto: StampBytes,
    forgotten: U64,
    other_device: U64,
    other_lineage: [U64; 2],
    other_epoch: U64,
    other_newest: StampBytes,
}

const FIXED: usize = size_of::<Fixed>();

/// Most ancestors that are kept: a device that was away for more forced takeovers than this is not known
/// as the one that returns, and an operator decides.
pub const ANCESTORS_MAX: usize = 200;

const _: () = assert!(FIXED + (ANCESTORS_MAX + 1) * 16 + 8 <= ANNEX_BYTES_MAX as usize);

/// The other device's branch of history, as its refused hello told of it: neither lineage stands in the
/// other's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// The other device.
    pub device: u64,
    /// Its lineage: number and unique id.
    pub lineage: (u64, u64),
    /// The highest tenure that it granted or held.
    pub epoch: u64,
    /// Its newest own record.
    pub newest: Stamp,
}

/// The lineage that a device's content has come by, and what is decided about it (D10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The lineages that this one has come by, oldest first: number and unique id.
    pub ancestors: Vec<(u64, u64)>,
    /// A forced takeover was the last change of this directory: its next opening serves.
    pub forced: bool,
    /// It was resumed alone, and no peer of its lineage was met since: its newest own record of then.
    pub alone: Option<Stamp>,
    /// Records above the first stamp and up to the second are given up, and count for nothing: own ones, and,
    /// where the last consistent image was put back, received ones.
    pub void: [Stamp; 2],
    /// The device that was this one's peer, and is to be refused; 0: none.
    pub forgotten: u64,
    /// The branch that the last refused hello told of.
    pub other: Option<Branch>,
    /// The last round of differential mode that the peer was in, as it said itself (D3).
    pub met: Round,
    /// Up to so many bytes the side file of the last consistent image is whole: durable at the last clean close,
    /// or when a forced takeover chose it; 0 without an image.
    pub image_bytes: u64,
}

impl History {
    /// Whether the record `stamp` was given up by a forced takeover.
    pub fn is_void(&self, stamp: Stamp) -> bool {
        stamp > self.void[0] && stamp <= self.void[1]
    }

    /// The device is resumed alone, with `newest` its newest own record.
    pub fn note_alone(&mut self, newest: Stamp) {
        self.alone = self.alone.or(Some(newest));
    }

    /// `lineage` is over: another begins, which has come by it.
    pub fn add(&mut self, lineage: (u64, u64)) {
        if !self.ancestors.contains(&lineage) {
            self.ancestors.push(lineage);
        }
        let over = self.ancestors.len().saturating_sub(ANCESTORS_MAX);
        self.ancestors.drain(..over);
    }

    /// The annex as it stands on disk.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |on, bit| if on { bit } else { 0 };
        let flags = flag(self.forced, FORCED)
            | flag(self.alone.is_some(), ALONE)
            | flag(self.other.is_some(), OTHER)
            | flag(self.met != Round::default(), MET)
            | flag(self.image_bytes > 0, IMAGE);
        let other = self.other.unwrap_or_default();
        let mut fixed = Fixed::new_zeroed();
        fixed.ancestors = (self.ancestors.len() as u32).into();
        fixed.flags = flags.into();
        fixed.alone = self.alone.unwrap_or_default().into();
        fixed.void_above = self.void[0].into();
        fixed.void_upto = self.void[1].into();
        fixed.forgotten = self.forgotten.into();
        fixed.other_device = other.device.into();
        fixed.other_lineage = [other.lineage.0.into(), other.lineage.1.into()];
        fixed.other_epoch = other.epoch.into();
        fixed.other_newest = other.newest.into();
        let mut bytes = fixed.as_bytes().to_vec();
        let met = (self.met.generation, self.met.counter);
        let met = Some(met).filter(|_| flags & MET != 0);
        for (number, id) in self.ancestors.iter().chain(&met) {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        if flags & IMAGE != 0 {
            bytes.extend_from_slice(&self.image_bytes.to_le_bytes());
        }
        bytes
    }

    /// Reads an annex whose checksum is right.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<History, String> {
        let Ok((fixed, rest)) = Fixed::read_from_prefix(bytes) else {
            return Err(format!(
                "the annex has {} bytes, at least {FIXED} are needed",
                bytes.len()
            ));
        };
        let flags = fixed.flags.get();
        if flags & !(FORCED | ALONE | OTHER | MET | IMAGE) != 0 {
            return Err(format!("the annex has flags {flags:#x}, of which this program knows 31"));
        }
        let count = fixed.ancestors.get() as usize;
        let rows = count.saturating_add(usize::from(flags & MET != 0));
        let tail = 8 * usize::from(flags & IMAGE != 0);
        if count > ANCESTORS_MAX || rest.len() != rows * 16 + tail {
            let found = rest.len();
            return Err(format!("the annex has {count} ancestors in {found} bytes"));
        }
        let u64_at = |row: &[u8], at| u64::from_le_bytes(row[at..at + 8].try_into().expect("8"));
        let other = Branch {
            device: fixed.other_device.get(),
            lineage: (fixed.other_lineage[0].get(), fixed.other_lineage[1].get()),
            epoch: fixed.other_epoch.get(),
            newest: fixed.other_newest.into(),
        };
        let (rest, image_bytes) = rest.split_at(rows * 16);
        let mut ancestors: Vec<_> =
            rest.chunks_exact(16).map(|row| (u64_at(row, 0), u64_at(row, 8))).collect();
        let met = ancestors.split_off(count).pop().unwrap_or_default();
        Ok(History {
            ancestors,
            met: Round { generation: met.0, counter: met.1 },
            forced: flags & FORCED != 0,
            alone: (flags & ALONE != 0).then(|| fixed.alone.into()),
            void: [fixed.void_above.into(), fixed.void_upto.into()],
            forgotten: fixed.forgotten.get(),
            other: (flags & OTHER != 0).then_some(other),
            image_bytes: if tail > 0 { u64_at(image_bytes, 0) } else { 0 },
        })
    }
}
