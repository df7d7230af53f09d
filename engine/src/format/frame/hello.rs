//! The hello: its first bytes never change, so that devices of any two versions find out what they
//! both speak.

use super::super::superblock::{Lost, VolumeSpec, mode_number, mode_of};
use super::fields::{Fields, HEADER, broken, put_stamp, put_u32, put_u64};
use super::ladder::take_round;
use crate::error::Result;
use crate::unit::{Mode, Round, Stamp};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The wire versions that this program speaks.
pub const WIRE: WireRange = WireRange { min: 3, max: 4 };

/// The wire features that this program knows, a bit each.
pub const FEATURES: u64 =
    SERVING_FEATURE | EXTENTS_FEATURE | CHECKSUMS_FEATURE | SUMS_FEATURE | OFFER_FEATURE;

/// A device that serves says so, and that hosts reach it ([`Frame::Serving`]).
pub(crate) const SERVING_FEATURE: u64 = 1;

/// Records without data may be of many blocks (R19).
pub(crate) const EXTENTS_FEATURE: u64 = 2;

/// A device answers for the checksums of its normal volumes ([`Frame::ChecksumRequest`]).
pub(crate) const CHECKSUMS_FEATURE: u64 = 8;

/// Of blocks that the peer may have, checksums go in place of copies ([`super::Ladder::Sums`]).
pub(crate) const SUMS_FEATURE: u64 = 16;

/// A device that serves offers its host to the other ([`Frame::Offer`]).
pub(crate) const OFFER_FEATURE: u64 = 32;

/// A range of wire versions, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl std::fmt::Display for WireRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.min == self.max {
            true => write!(f, "wire version {}", self.min),
            false => write!(f, "wire versions {} to {}", self.min, self.max),
        }
    }
}

impl WireRange {
    /// The version that a device with this range speaks with one of `theirs`: the highest of both.
    ///
    /// # Errors
    /// [`Kind::Protocol`](crate::error::Kind::Protocol), naming both ranges, if no version is in both.
    pub fn common(self, theirs: WireRange) -> Result<u16> {
        let highest = self.max.min(theirs.max);
        match highest >= self.min.max(theirs.min) {
            true => Ok(highest),
            false => Err(broken(format!(
                "the peer speaks {theirs}, this device {self}: they have none in common; upgrade \
                 the older of the two first"
            ))),
        }
    }
}

/// The part of a hello that never changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloPrefix {
    min: U16,
    max: U16,
    /// Bytes of the fixed part that follows; it only grows, at its end.
    fixed: U32,
    features: U64,
}

const HELLO_PREFIX: usize = size_of::<HelloPrefix>();
const _: () = assert!(HELLO_PREFIX == 16);
/// Bytes of a hello's fixed part as this version writes it.
const HELLO_FIXED: usize = 224;

/// The first frame of a device when it connects (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire versions that it speaks.
    pub wire: WireRange,
    /// The wire features that it knows, a bit each.
    pub features: u64,
    /// The consistency group.
    pub group: u128,
    /// The sender.
    pub device: u64,
    /// Names this connection.
    pub nonce: u64,
    /// The sender's lineage.
    pub lineage: (u64, u64),
    /// How its host writes reach its peer.
    pub mode: Mode,
    /// Whether its volumes are a prefix of history.
    pub usable: bool,
    /// Whether it refuses host I/O.
    pub fenced: bool,
    /// Whether a takeover request of its own is open.
    pub asking: bool,
    /// The highest tenure it granted or held.
    pub epoch: u64,
    /// Highest stamp it received.
    pub hi: Stamp,
    /// The highest stamp that it knows of as sealed (R2): at least `hi` and `newest`.
    pub clk: Stamp,
    /// The newest own stamp it ever recorded.
    pub newest: Stamp,
    /// The round of the ladder.
    pub round: Round,
    /// The mark of lost writes that hosts were told of (R20); none so far.
    pub lost: Option<Lost>,
    /// The last stamp told to it (R18).
    pub told: Stamp,
    /// How many records it can be told of before they arrive (R18).
    pub told_max: u64,
    /// Free places of its received log.
    pub credit: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Its volumes.
    pub volumes: Vec<VolumeSpec>,
    /// Whether it has admitted writes alone, with no word of the peer: a branch of its own (D10).
    pub alone: bool,
    /// The lineages that its own has come by (D10).
    pub ancestors: Vec<(u64, u64)>,
}

impl Hello {
    pub(super) fn put(&self, b: &mut Vec<u8>) {
        let (min, max) = (self.wire.min.into(), self.wire.max.into());
        let (fixed, features) = ((HELLO_FIXED as u32).into(), self.features.into());
        b.extend_from_slice(HelloPrefix { min, max, fixed, features }.as_bytes());
        b.extend_from_slice(&self.group.to_le_bytes());
        put_u64(b, self.device);
        put_u64(b, self.nonce);
        put_u64(b, self.lineage.0);
        put_u64(b, self.lineage.1);
        put_u32(b, mode_number(self.mode).into());
        let flags = [self.usable, self.fenced, self.asking, self.lost.is_some(), self.alone];
        put_u32(b, (0..).zip(flags).map(|(k, on)| u32::from(on) << k).sum());
        put_u64(b, self.epoch);
        put_stamp(b, self.hi);
        put_stamp(b, self.clk);
        put_stamp(b, self.newest);
        put_u64(b, self.credit);
        put_u32(b, self.block_size);
        put_u32(b, self.volumes.len() as u32);
        put_u64(b, self.round.generation);
        put_u64(b, self.round.counter);
        let lost = self.lost.unwrap_or_default();
        put_stamp(b, lost.first);
        put_u64(b, lost.since);
        put_u64(b, lost.found);
        put_stamp(b, self.told);
        put_u64(b, self.told_max);
        put_u32(b, self.ancestors.len() as u32);
        debug_assert_eq!(b.len(), HEADER + HELLO_PREFIX + HELLO_FIXED);
        for volume in &self.volumes {
            put_u32(b, volume.id);
            put_u64(b, volume.bytes);
        }
        for &(number, id) in &self.ancestors {
            put_u64(b, number);
            put_u64(b, id);
        }
    }

    /// Reads the fixed part as far as this version knows it and the sender wrote it; what a later
    /// version puts behind it, or behind the volumes, is passed over.
    pub(super) fn take(f: &mut Fields<'_>) -> Result<Hello> {
        let prefix = f.take(HELLO_PREFIX)?;
        let prefix = HelloPrefix::read_from_bytes(prefix).expect("16 bytes");
        let wire = WireRange { min: prefix.min.get(), max: prefix.max.get() };
        if wire.min > wire.max {
            return Err(broken(format!(
                "the peer speaks wire versions {} to {}",
                wire.min, wire.max
            )));
        }
        // The rest of a hello of other versions may stand anywhere.
        WIRE.common(wire)?;
        let sent = f.take(prefix.fixed.get() as usize)?;
        let mut fixed = [0; HELLO_FIXED];
        let known = sent.len().min(HELLO_FIXED);
        fixed[..known].copy_from_slice(&sent[..known]);
        let p = &mut Fields(&fixed);
        let group = u128::from_le_bytes(p.take(16)?.try_into().expect("16 bytes"));
        let (device, nonce) = (p.u64()?, p.u64()?);
        let lineage = (p.u64()?, p.u64()?);
        let mode = p.u32()?;
        let mode = mode_of(mode).map_err(|e| broken(format!("the peer's {e}")))?;
        let flags = p.u32()?;
        let epoch = p.u64()?;
        let (hi, clk, newest) = (p.stamp()?, p.stamp()?, p.stamp()?);
        let (credit, block_size, count) = (p.u64()?, p.u32()?, p.u32()?);
        let round = take_round(p)?;
        let lost = Lost { first: p.stamp()?, since: p.u64()?, found: p.u64()? };
        let (told, told_max, ancestors) = (p.stamp()?, p.u64()?, p.u32()?);
        let volumes = f.take((count as usize).saturating_mul(12))?;
        let volume = |mut row: Fields<'_>| Ok(VolumeSpec { id: row.u32()?, bytes: row.u64()? });
        let volumes = volumes.chunks_exact(12).map(|row| volume(Fields(row)));
        let volumes = volumes.collect::<Result<_>>()?;
        let ancestors = f.take((ancestors as usize).saturating_mul(16))?;
        let kin = |mut row: Fields<'_>| Ok((row.u64()?, row.u64()?));
        let ancestors = ancestors.chunks_exact(16).map(|row| kin(Fields(row)));
        let ancestors = ancestors.collect::<Result<_>>()?;
        f.0 = &[];
        Ok(Hello {
            wire,
            features: prefix.features.get(),
            group,
            device,
            nonce,
            lineage,
            mode,
            usable: flags & 1 != 0,
            fenced: flags & 2 != 0,
            asking: flags & 4 != 0,
            epoch,
            hi,
            clk,
            newest,
            round,
            lost: (flags & 8 != 0).then_some(lost),
            told,
            told_max,
            credit,
            block_size,
            volumes,
            alone: flags & 16 != 0,
            ancestors,
        })
    }
}
