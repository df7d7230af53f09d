//! The side file of announcements of bits: what one device told the other of, by runs of blocks, and what
//! has not arrived (LADDER 6).
//!
//! A run is four numbers (`number.rs`): the volume; the first block less the end of the run before, in 64 bits
//! that wrap; how many blocks; the announcement's number less that before, in 64 bits that wrap.

use super::told::Owner;
use super::{checksum, number};
use crate::unit::{Blocks, Round};

const MAGIC: &[u8; 4] = b"AFTA";
const VERSION: u32 = 1;
/// Magic (4), version (4), group (16), device (8), lineage (16), round (16), the last announcement of the
/// round (8), its runs (8), those of earlier rounds (8), bytes of the runs (8), checksum of all that and of
/// the runs (8).
const HEADER: usize = 104;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToldBits {
    pub round: Round,
    /// The last announcement of the round; 0 if none, or not all before it are here.
    pub heard: u64,
    /// The runs of the round, each with the number of its announcement.
    pub told: Vec<(Blocks, u64)>,
    /// The same of earlier rounds.
    pub earlier: Vec<(Blocks, u64)>,
}

impl ToldBits {
    /// The file of a device.
    pub fn encode(&self, owner: Owner) -> Vec<u8> {
        let (mut bytes, mut end, mut last) = (vec![0; HEADER], 0, 0);
        for (run, said) in self.told.iter().chain(&self.earlier) {
            number::put(&mut bytes, run.volume.into());
            number::put(&mut bytes, run.numbers.start.wrapping_sub(end));
            number::put(&mut bytes, run.count());
            number::put(&mut bytes, said.wrapping_sub(last));
            (end, last) = (run.numbers.end, *said);
        }
        let counts = [self.told.len(), self.earlier.len(), bytes.len() - HEADER];
        let [told, earlier, length] = counts.map(|count| count as u64);
        let Round { generation, counter } = self.round;
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(&owner.group.to_le_bytes());
        let (number, id) = owner.lineage;
        let numbers =
            [owner.device, number, id, generation, counter, self.heard, told, earlier, length];
        for (to, number) in bytes[24..96].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(checksum(0, &bytes[..96]), &bytes[HEADER..]);
        bytes[96..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The content of a device's file; `None` if it is damaged, another's, or of another version.
    pub fn decode(owner: Owner, bytes: &[u8]) -> Option<ToldBits> {
        let (header, runs) = bytes.split_at_checked(HEADER)?;
        let number =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let mut runs = runs.get(..usize::try_from(number(88)).ok()?)?;
        if checksum(checksum(0, &header[..96]), runs) != number(96) {
            return None;
        }
        let own = ToldBits::default().encode(owner);
        if own[..48] != header[..48] {
            return None;
        }
        let (mut end, mut last) = (0u64, 0u64);
        let mut take = |count: u64| {
            let mut taken = Vec::new();
            for _ in 0..count {
                let volume = number::take_small(&mut runs, "volume").ok()?;
                let start = end.wrapping_add(number::take(&mut runs).ok()?);
                end =
                    start.checked_add(number::take(&mut runs).ok()?).filter(|end| *end > start)?;
                last = last.wrapping_add(number::take(&mut runs).ok()?);
                taken.push((Blocks { volume, numbers: start..end }, last));
            }
            Some(taken)
        };
        let (told, earlier) = (take(number(72))?, take(number(80))?);
        let round = Round { generation: number(48), counter: number(56) };
        Some(ToldBits { round, heard: number(64), told, earlier })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: Owner = Owner { group: 7, device: 1, lineage: (2, 3) };

    fn runs() -> impl Strategy<Value = Vec<(Blocks, u64)>> {
        let number = || prop_oneof![0..20u64, 0..1u64 << 53];
        let run = (0..3u32, number(), 1..9u64, number());
        let run = run.prop_map(|(volume, start, count, said)| {
            (Blocks { volume, numbers: start..start + count }, said)
        });
        prop::collection::vec(run, 0..9)
    }

    proptest! {
        #[test]
        fn a_side_file_is_read_whole_or_not_at_all(told in runs(), earlier in runs(), heard in 0..9u64) {
            let round = Round { generation: 4, counter: heard + 5 };
            let all = ToldBits { round, heard, told, earlier };
            let mut bytes = all.encode(OWNER);
            for at in 0..bytes.len() {
                bytes[at] ^= 4;
                prop_assert_eq!(ToldBits::decode(OWNER, &bytes), None);
                bytes[at] ^= 4;
                prop_assert_eq!(ToldBits::decode(OWNER, &bytes[..at]), None);
            }
            for other in [Owner { group: 8, ..OWNER }, Owner { lineage: (2, 4), ..OWNER }] {
                prop_assert_eq!(ToldBits::decode(other, &bytes), None);
            }
            bytes.extend([0; 512]);
            prop_assert_eq!(ToldBits::decode(OWNER, &bytes), Some(all));
        }
    }
}
