//! Extents, nearly all of one block, and their stamps, as one device tells the other of them (R18): in
//! rising stamp order, each as what it differs in from the one before, so that most take six bytes.
//!
//! An entry is a byte of flags and then numbers (`number.rs`): the volume, if another; the epoch, if
//! another; the block's number less that before (2d for a distance of d, 2d - 1 for one of -d); the
//! time less that before, in 64 bits that wrap; the sequence, if not the one before and one; how many
//! extents follow that are told of by the same entry, if any: the next ones, of the same length, with
//! the next sequences; the level, if it is not 0 (R19).

use super::{checksum, number};
use crate::unit::{Block, Extent, Stamp};

const VOLUME: u8 = 1;
const EPOCH: u8 = 2;
const SEQUENCE: u8 = 4;
const MORE: u8 = 8;
const LEVEL: u8 = 16;

/// Most bytes of an entry.
pub(crate) const ENTRY_BYTES_MAX: usize = 1 + 5 + 10 + 10 + 10 + 5 + 5 + 1;

/// Appends `entries`, which follow `before`.
pub(crate) fn put(to: &mut Vec<u8>, before: Stamp, entries: &[(Extent, Stamp)]) {
    let mut last = (Block { volume: 0, number: 0 }.into(), before);
    let mut rest = entries;
    while let Some((&entry, behind)) = rest.split_first() {
        let mut end = entry;
        let more = behind.iter().take_while(|&&next| {
            let is_next = next == after(end);
            end = if is_next { next } else { end };
            is_next
        });
        let more = more.count();
        let (Extent { first: block, level }, stamp) = entry;
        let before: Block = {
            let (extent, _): (Extent, Stamp) = last;
            extent.first
        };
        let is_followed = stamp.sequence == last.1.sequence.wrapping_add(1);
        let flags = [
            (VOLUME, block.volume != before.volume),
            (EPOCH, stamp.epoch != last.1.epoch),
            (SEQUENCE, !is_followed),
            (MORE, more > 0),
            (LEVEL, level > 0),
        ];
        let flags = flags.iter().filter(|flag| flag.1).map(|flag| flag.0).sum::<u8>();
        to.push(flags);
        if flags & VOLUME != 0 {
            number::put(to, block.volume.into());
        }
        if flags & EPOCH != 0 {
            number::put(to, stamp.epoch);
        }
        let distance = block.number.wrapping_sub(before.number);
        number::put(to, distance << 1 ^ (distance as i64 >> 63) as u64);
        number::put(to, stamp.time.wrapping_sub(last.1.time));
        if flags & SEQUENCE != 0 {
            number::put(to, stamp.sequence.into());
        }
        if flags & MORE != 0 {
            number::put(to, more as u64);
        }
        if flags & LEVEL != 0 {
            to.push(level);
        }
        last = end;
        rest = &behind[more..];
    }
}

/// Reads `count` entries that follow `before` off the front of `bytes`.
///
/// # Errors
/// A text that names the bytes found, if they are no such entry.
pub(crate) fn take(
    bytes: &mut &[u8],
    before: Stamp,
    count: usize,
) -> Result<Vec<(Extent, Stamp)>, String> {
    let mut entries = Vec::with_capacity(count);
    let (mut block, mut stamp) = (Block { volume: 0, number: 0 }, before);
    while entries.len() < count {
        let flags = number::take(bytes)?;
        if flags >= 2 * u64::from(LEVEL) {
            return Err(format!("an entry has the unknown flags {flags:#x}"));
        }
        let has = |flag: u8| flags & u64::from(flag) != 0;
        if has(VOLUME) {
            block.volume = number::take_small(bytes, "volume")?;
        }
        if has(EPOCH) {
            stamp.epoch = number::take(bytes)?;
        }
        let distance = number::take(bytes)?;
        block.number = block.number.wrapping_add(distance >> 1 ^ (distance & 1).wrapping_neg());
        stamp.time = stamp.time.wrapping_add(number::take(bytes)?);
        stamp.sequence = match has(SEQUENCE) {
            true => number::take_small(bytes, "sequence")?,
            false => stamp.sequence.wrapping_add(1),
        };
        let (more, left) =
            (if has(MORE) { number::take(bytes)? } else { 0 }, count - entries.len() - 1);
        if more > left as u64 {
            return Err(format!("an entry tells of {more} extents more, where {left} are left"));
        }
        let level = if has(LEVEL) { number::take_small(bytes, "level")? } else { 0 };
        let extent = match u8::try_from(level) {
            Ok(level) if level <= Extent::LEVEL_MAX => Extent::around(block, level),
            _ => {
                return Err(format!("an entry has the level {level}, above {}", Extent::LEVEL_MAX));
            }
        };
        if extent.first != block {
            return Err(format!(
                "an entry has an extent of level {level} that begins with {block}, no multiple of its length"
            ));
        }
        let mut entry = (extent, stamp);
        entries.push(entry);
        for _ in 0..more {
            entry = after(entry);
            entries.push(entry);
        }
        (block, stamp) = (entry.0.first, entry.1);
    }
    Ok(entries)
}

const MAGIC: &[u8; 4] = b"AFTT";
/// The version of the side file.
const VERSION: u32 = 1;
/// Magic (4), version (4), group (16), device (8), lineage (16), how many entries (8), their bytes
/// (8), checksum of all that and of the entries (8).
const SIDE_HEADER: usize = 72;

/// Whose side file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub group: u128,
    pub device: u64,
    pub lineage: (u64, u64),
}

impl Owner {
    /// The side file of what this device was told: as many of `entries`, from the oldest on, as
    /// surely fit `room` bytes.
    pub fn side_file(&self, mut entries: Vec<(Extent, Stamp)>, room: usize) -> Vec<u8> {
        loop {
            let mut bytes = Vec::with_capacity(SIDE_HEADER + entries.len() * 8);
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&self.group.to_le_bytes());
            for number in [self.device, self.lineage.0, self.lineage.1, entries.len() as u64, 0, 0]
            {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            put(&mut bytes, Stamp::ZERO, &entries);
            let length = (bytes.len() - SIDE_HEADER) as u64;
            bytes[56..64].copy_from_slice(&length.to_le_bytes());
            if bytes.len() <= room || entries.is_empty() {
                let sum = checksum(checksum(0, &bytes[..64]), &bytes[SIDE_HEADER..]);
                bytes[64..72].copy_from_slice(&sum.to_le_bytes());
                return bytes;
            }
            entries.truncate(entries.len() / 2);
        }
    }

    /// The told records of a side file of this device, at most `most` entries; `None` if it is
    /// damaged, another's, or of another version.
    pub fn read_side_file(&self, bytes: &[u8], most: u64) -> Option<Vec<(Extent, Stamp)>> {
        let (header, entries) = bytes.split_at_checked(SIDE_HEADER)?;
        let number =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let entries = entries.get(..usize::try_from(number(56)).ok()?)?;
        let sum = checksum(checksum(0, &header[..64]), entries);
        let count = number(48);
        if sum != number(64) || count > most {
            return None;
        }
        let told = take(&mut &*entries, Stamp::ZERO, count as usize).ok()?;
        // Its own is the same but for the entries: magic, version and owner.
        let own = self.side_file(Vec::new(), usize::MAX);
        (own[..48] == header[..48]).then_some(told)
    }
}

/// The entry of the next extent of the same request, of the same length.
fn after((extent, stamp): (Extent, Stamp)) -> (Extent, Stamp) {
    let number = extent.first.number.wrapping_add(extent.blocks());
    let first = Block { number, ..extent.first };
    (Extent { first, ..extent }, Stamp { sequence: stamp.sequence.wrapping_add(1), ..stamp })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_stamp() -> impl Strategy<Value = Stamp> {
        let near = (0..3u64, 0..4u64, 0..3u32);
        let far = (any::<u64>(), any::<u64>(), any::<u32>());
        prop_oneof![near, far].prop_map(|(epoch, time, sequence)| Stamp { epoch, time, sequence })
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(
            before in any_stamp(),
            entries in prop::collection::vec(
                (prop_oneof![0..2u32, any::<u32>()], prop_oneof![0..9u64, any::<u64>()], any_stamp(), 0..5u32, 0..20u8),
                0..40,
            ),
        ) {
            let mut told = Vec::new();
            for (volume, number, stamp, more, level) in entries {
                let level = level.saturating_sub(20 - 1 - Extent::LEVEL_MAX);
                told.push((Extent::around(Block { volume, number }, level), stamp));
                for _ in 0..more {
                    told.push(after(*told.last().unwrap()));
                }
            }
            let mut bytes = Vec::new();
            put(&mut bytes, before, &told);
            prop_assert!(bytes.len() <= told.len() * ENTRY_BYTES_MAX);
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest, before, told.len()), Ok(told.clone()));
            prop_assert!(rest.is_empty());
            if let Some((_, cut)) = bytes.split_last() && !told.is_empty() {
                prop_assert!(take(&mut &bytes[..cut.len()], before, told.len()).is_err());
            }
        }
    }

    #[test]
    fn a_side_file_is_read_whole_or_not_at_all() {
        let owner = Owner { group: 7, device: 1, lineage: (2, 3) };
        let told: Vec<_> = (1..100)
            .map(|n| {
                (
                    Block { volume: 0, number: n * 3 }.into(),
                    Stamp { epoch: 1, time: n, sequence: 5 },
                )
            })
            .collect();
        let bytes = owner.side_file(told.clone(), 4096);
        assert_eq!(owner.read_side_file(&bytes, 99), Some(told.clone()));
        assert_eq!(owner.read_side_file(&bytes, 98), None);
        let padded = [&bytes[..], &[0; 512]].concat();
        assert_eq!(owner.read_side_file(&padded, 99), Some(told.clone()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(owner.read_side_file(&damaged, 99), None, "byte {at}");
            assert_eq!(owner.read_side_file(&bytes[..at], 99), None, "cut at {at}");
        }
        for other in [Owner { group: 8, ..owner }, Owner { lineage: (2, 4), ..owner }] {
            assert_eq!(other.read_side_file(&bytes, 99), None);
        }
        let fits = owner.side_file(told.clone(), bytes.len() - 1);
        assert_eq!(owner.read_side_file(&fits, 99), Some(told[..49].to_vec()));
    }

    #[test]
    fn what_was_not_put_is_refused() {
        let refused = |mut bytes: &[u8]| take(&mut bytes, Stamp::ZERO, 2).unwrap_err();
        assert!(refused(&[32, 0, 0]).contains("flags 0x20"));
        assert!(refused(&[8, 2, 1, 2]).contains("2 extents more, where 1 are left"));
        assert!(refused(&[1, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0]).contains("volume 4294967296"));
        assert!(
            refused(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).contains("64")
        );
        assert!(refused(&[0x80; 20]).contains("ten bytes"));
    }
}
