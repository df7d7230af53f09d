//! A place in the queue's ring, and the record in it, field by field.

use super::extent::Span;
use super::record::{Content, NO_PLACE, Record};
use crate::sync::{AtomicU64, Ordering::*};
use crate::unit::{Extent, Position, Stamp};

pub(super) const MEMBER: u64 = 0;
pub(super) const INSERTING: u64 = 1;
pub(super) const PUBLISHED: u64 = 2;
pub(super) const VOID: u64 = 3;

/// In a shape: the record is published by itself, whatever its request was.
pub(super) const ALONE: u64 = 1 << 63;

pub(super) const REFLECTED: u64 = 1;
pub(super) const DURABLE: u64 = 2;
pub(super) const MARKS: u64 = REFLECTED | DURABLE;

/// A place in the ring, all zeros before its first use. Every field has one writer at a time: see the
/// table in [`super`].
#[derive(Debug, Default)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
pub(super) struct Slot {
    /// `position << 2 | tag`; the tag of a request's first slot speaks for the request.
    pub state: AtomicU64,
    /// The next older position of the bucket's chain, 0 at its end.
    pub prev: AtomicU64,
    /// Of its extent and, in a request's first slot, of the request: see [`Span`].
    pub span: AtomicU64,
    /// `volume << 32 | sequence`
    pub volume_sequence: AtomicU64,
    pub time: AtomicU64,
    pub epoch: AtomicU64,
    /// `index << 32 | count << 1 | is data`, with [`ALONE`] if the record's request is not published
    /// as one here: index and count have 31 bits.
    pub shape: AtomicU64,
    pub checksum: AtomicU64,
    pub written_at: AtomicU64,
    /// The byte offset in the log, a multiple of 512, with marks in its lowest bits.
    pub place: AtomicU64,
}

impl Slot {
    pub fn extent(&self) -> Extent {
        let volume = (self.volume_sequence.load(Acquire) >> 32) as u32;
        Span(self.span.load(Acquire)).extent(volume)
    }

    /// Whether its record has just this extent.
    pub fn is_of(&self, extent: Extent) -> bool {
        let volume = self.volume_sequence.load(Acquire) >> 32;
        Span(self.span.load(Acquire)).is_of(extent) && volume == u64::from(extent.first.volume)
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            epoch: self.epoch.load(Acquire),
            time: self.time.load(Acquire),
            sequence: self.volume_sequence.load(Acquire) as u32,
        }
    }

    /// Which of those that are published together, and how many they are.
    pub fn group(&self) -> (u64, u64) {
        match self.shape.load(Acquire) {
            shape if shape & ALONE != 0 => (0, 1),
            shape => (shape >> 32, (shape & 0xffff_ffff) >> 1),
        }
    }

    /// The record here, which stands at `position`.
    pub fn record(&self, position: Position) -> Record {
        let shape = self.shape.load(Acquire);
        let (place, extent) = (self.place.load(Acquire), self.extent());
        Record {
            position,
            stamp: self.stamp(),
            block: extent.first,
            level: extent.level,
            content: if shape & 1 == 1 { Content::Data } else { Content::Zero },
            checksum: self.checksum.load(Acquire),
            index: ((shape & !ALONE) >> 32) as u32,
            count: (shape as u32) >> 1,
            written_at: self.written_at.load(Acquire),
            place: if place | MARKS == NO_PLACE { NO_PLACE } else { place & !MARKS },
            was_reflected: place & REFLECTED != 0,
        }
    }
}
