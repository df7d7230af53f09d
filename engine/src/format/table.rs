//! A differential administration table as bytes: its runs of blocks in rising order, each as what it
//! differs in from the one before, so that most take three bytes.
//!
//! A run is numbers (`number.rs`): twice the distance of its first block from the end of the run before,
//! and one more if it lies in a later volume, where the distance is counted from block 0; then, if so,
//! how much higher that volume's number is; how many blocks follow the first.
//!
//! In a side file the runs stand behind a header, and zeros fill its last page. The superblock names
//! the file, its length and its checksum, so a table is replaced whole: the new one is written beside it
//! and synced, and the next update of the superblock names it.

use super::{PAGE, checksum, is_magic, number};
use crate::unit::{Block, Blocks};
use std::iter::Peekable;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// No volume has a block with this number or a higher one.
const NUMBER_END: u64 = 1 << 53;

/// Most bytes of a run.
const RUN_BYTES_MAX: usize = 3 * number::BYTES_MAX;

/// Appends `runs`, in rising order, until the next one may not fit into `room` bytes; returns how many.
pub(crate) fn put(
    to: &mut Vec<u8>,
    runs: &mut Peekable<impl Iterator<Item = Blocks>>,
    room: usize,
) -> u64 {
    let (begin, mut count) = (to.len(), 0);
    let mut before = Block { volume: 0, number: 0 };
    while to.len() - begin + RUN_BYTES_MAX <= room
        && let Some(run) = runs.next()
    {
        let volumes = run.volume - before.volume;
        let from = if volumes == 0 { before.number } else { 0 };
        number::put(to, (run.numbers.start - from) << 1 | u64::from(volumes > 0));
        if volumes > 0 {
            number::put(to, volumes.into());
        }
        number::put(to, run.count() - 1);
        before = Block { volume: run.volume, number: run.numbers.end };
        count += 1;
    }
    count
}

/// Reads `count` runs, in rising order and none next to another, off the front of `bytes`.
///
/// # Errors
/// A text that names what was found, if the bytes are no such runs.
pub(crate) fn take(bytes: &mut &[u8], count: u64) -> Result<Vec<Blocks>, String> {
    let mut runs = Vec::with_capacity(count.min(bytes.len() as u64 / 2) as usize);
    let mut before: Option<Block> = None;
    while (runs.len() as u64) < count {
        let first = number::take(bytes)?;
        let Block { mut volume, number: mut from } =
            before.unwrap_or(Block { volume: 0, number: 0 });
        if first & 1 == 1 {
            let higher = number::take_small(bytes, "step to a later volume")?;
            if higher == 0 {
                return Err("a run lies in a later volume, none higher".into());
            }
            let volumes = volume.checked_add(higher);
            volume =
                volumes.ok_or_else(|| format!("a run lies {higher} volumes above {volume}"))?;
            from = 0;
        } else if first == 0 && before.is_some() {
            return Err(format!("a run begins where the one before ends, at {volume}:{from}"));
        }
        let start = from.saturating_add(first >> 1);
        let end = start.saturating_add(number::take(bytes)?).saturating_add(1);
        if end > NUMBER_END {
            return Err(format!("a run ends with block {volume}:{}, which no volume has", end - 1));
        }
        runs.push(Blocks { volume, numbers: start..end });
        before = Some(Block { volume, number: end });
    }
    Ok(runs)
}

const MAGIC: [u8; 4] = *b"AFTB";
/// Version of the side file.
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 4],
    version: U32,
    group: [u8; 16],
    device: U64,
    runs: U64,
    /// Of all bytes of the file, with zeros here.
    checksum: U64,
}

const HEADER: usize = size_of::<HeaderBytes>();
const _: () = assert!(HEADER == 48);

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The consistency group.
    pub group: u128,
    /// The device's number in its pair.
    pub device: u64,
}

impl Owner {
    /// The side file of a table of `runs`, which rise and of which none is next to another, in whole
    /// pages; and its checksum.
    pub fn encode(&self, runs: impl Iterator<Item = Blocks>) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; HEADER];
        let runs = put(&mut bytes, &mut runs.peekable(), usize::MAX).into();
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        let (group, device) = (self.group.to_le_bytes(), self.device.into());
        let version = VERSION.into();
        let mut header =
            HeaderBytes { magic: MAGIC, version, group, device, runs, checksum: 0.into() };
        let sum = sum_of(header, &bytes[HEADER..]);
        header.checksum = sum.into();
        bytes[..HEADER].copy_from_slice(header.as_bytes());
        (bytes, sum)
    }

    /// The runs of the side file `bytes`, of which the superblock says that it has the checksum `sum`.
    ///
    /// # Errors
    /// A text that says how the file is damaged, or another one than that.
    pub fn decode(&self, bytes: &[u8], sum: u64) -> Result<Vec<Blocks>, String> {
        let Ok((header, mut rest)) = HeaderBytes::read_from_prefix(bytes) else {
            return Err(format!("a table has at least {HEADER} bytes, found {}", bytes.len()));
        };
        is_magic(&header.magic, &MAGIC)?;
        let (stored, computed) = (header.checksum.get(), sum_of(header, rest));
        if stored != computed {
            return Err(format!("checksum is {stored:016x}, the bytes give {computed:016x}"));
        }
        if header.version.get() != VERSION {
            let found = header.version.get();
            return Err(format!("version is {found}, this program reads {VERSION}"));
        }
        if stored != sum {
            return Err(format!("it is another table: checksum is {stored:016x}, not {sum:016x}"));
        }
        let of = Owner { group: u128::from_le_bytes(header.group), device: header.device.get() };
        if of != *self {
            let show = |o: &Owner| format!("device {} of group {:x}", o.device, o.group);
            return Err(format!("it is a table of {}, not of {}", show(&of), show(self)));
        }
        let runs = take(&mut rest, header.runs.get())?;
        match rest.iter().position(|&byte| byte != 0) {
            None => Ok(runs),
            Some(at) => Err(format!("byte {at} behind the runs is {:#04x}, not 0", rest[at])),
        }
    }
}

fn sum_of(mut header: HeaderBytes, rest: &[u8]) -> u64 {
    header.checksum = 0.into();
    checksum(checksum(0, header.as_bytes()), rest)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs in rising order, none next to another.
    fn some() -> impl Strategy<Value = Vec<Blocks>> {
        let blocks = (
            prop_oneof![0..3u32, any::<u32>()],
            prop_oneof![0..60u64, 0..NUMBER_END - 99],
            1..9u64,
        );
        let blocks = blocks
            .prop_map(|(volume, start, count)| Blocks { volume, numbers: start..start + count });
        prop::collection::vec(blocks, 0..30).prop_map(|mut runs| {
            runs.sort_by_key(Blocks::first);
            runs.dedup_by(|next, run| {
                next.volume == run.volume && next.numbers.start <= run.numbers.end
            });
            runs
        })
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(table in some(), room in 40..200usize) {
            let mut runs = table.iter().cloned().peekable();
            let mut taken = Vec::new();
            while runs.peek().is_some() {
                let mut piece = Vec::new();
                let count = put(&mut piece, &mut runs, room);
                prop_assert!(count > 0 && piece.len() <= room);
                let mut rest = &piece[..];
                taken.extend(take(&mut rest, count).unwrap());
                prop_assert!(rest.is_empty());
                let (_, cut) = piece.split_last().unwrap();
                prop_assert!(take(&mut &piece[..cut.len()], count).is_err());
            }
            prop_assert_eq!(taken, table);
        }

        #[test]
        fn any_bytes_are_runs_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0..20u64) {
            if let Ok(runs) = take(&mut &bytes[..], count) {
                let rises = |pair: &[Blocks]| {
                    let end = Block { volume: pair[0].volume, number: pair[0].numbers.end };
                    end < pair[1].first()
                };
                prop_assert!(runs.windows(2).all(rises), "{:?}", runs);
                prop_assert!(runs.iter().all(|run| run.count() > 0));
            }
        }
    }

    #[test]
    fn a_side_file_is_read_whole_or_not_at_all() {
        let owner = Owner { group: 7, device: 1 };
        let run = |volume, start, count| Blocks { volume, numbers: start..start + count };
        let table = vec![run(0, 3, 1), run(0, 900, 70), run(2, 0, 5), run(9, 8, 1)];
        let (bytes, sum) = owner.encode(table.iter().cloned());
        assert_eq!(bytes.len(), 4096);
        assert_eq!(owner.decode(&bytes, sum), Ok(table.clone()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(owner.decode(&damaged, sum).is_err(), "byte {at}");
            assert!(owner.decode(&bytes[..at], sum).is_err(), "cut at {at}");
        }
        let refused = |owner: Owner, bytes: &[u8], sum| owner.decode(bytes, sum).unwrap_err();
        let other = Owner { group: 8, device: 1 };
        let story = "it is a table of device 1 of group 7, not of device 1 of group 8";
        assert_eq!(refused(other, &bytes, sum), story);
        assert!(refused(owner, &bytes, sum ^ 1).contains("it is another table: checksum is"));
        assert!(refused(owner, &[&bytes[..], b"?"].concat(), sum).contains("the bytes give"));
        assert!(refused(owner, &[0; 64], sum).contains("magic"));
        // Headers with a right checksum that say what is not there.
        let lie = |change: fn(&mut HeaderBytes), at: usize| {
            let (mut header, rest) = HeaderBytes::read_from_prefix(&bytes).expect("whole");
            let mut rest = rest.to_vec();
            change(&mut header);
            rest[at] ^= 1;
            rest[500 - HEADER] ^= 1;
            let sum = sum_of(header, &rest);
            header.checksum = sum.into();
            refused(owner, &[header.as_bytes(), &rest].concat(), sum)
        };
        let same = 500 - HEADER;
        assert!(lie(|h| h.version = 2.into(), same).contains("version is 2, this program reads 1"));
        assert!(lie(|h| h.runs = 3.into(), same).contains("behind the runs is 0x"));
        assert!(lie(|_| {}, 400).contains("behind the runs is 0x01, not 0"));
        assert!(lie(|h| h.runs = u64::MAX.into(), same).contains("a run begins where"));
    }

    #[test]
    fn what_was_not_put_is_refused() {
        let refused = |mut bytes: &[u8]| take(&mut bytes, 2).unwrap_err();
        assert!(refused(&[2, 0, 0, 0]).contains("a run begins where the one before ends, at 0:2"));
        assert!(refused(&[1, 0, 0]).contains("none higher"));
        assert!(
            refused(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 1, 0]).contains("1 volumes above")
        );
        assert!(
            refused(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])
                .contains("which no volume has")
        );
        assert!(refused(&[0]).contains("early"));
    }
}
