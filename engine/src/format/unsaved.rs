//! The side file of what a returned device has yet to save (D10): the blocks whose content nobody else may
//! have, as runs (`table.rs`).

use super::told::Owner;
use super::{checksum, table};
use crate::unit::Blocks;

const MAGIC: &[u8; 4] = b"AFTU";
const VERSION: u32 = 1;
/// Magic (4), version (4), group (16), device (8), the lineage that was given up (16), the tenure with which
/// the other history begins (8), runs (8), bytes of the runs (8), checksum of all that and of the runs (8).
const HEADER: usize = 80;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// The device, and the lineage that was given up.
    pub owner: Owner,
    /// Records of this tenure and later ones are of the peer's history.
    pub tenure: u64,
    /// In rising order, none next to another.
    pub runs: Vec<Blocks>,
}

impl Unsaved {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let count = table::put(&mut bytes, &mut self.runs.iter().cloned().peekable(), usize::MAX);
        let length = (bytes.len() - HEADER) as u64;
        let Owner { group, device, lineage: (number, id) } = self.owner;
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(&group.to_le_bytes());
        let numbers = [device, number, id, self.tenure, count, length];
        for (to, number) in bytes[24..72].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(checksum(0, &bytes[..72]), &bytes[HEADER..]);
        bytes[72..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The content of the file of the `device` of `group`; `None` if it is damaged, another's, or of another
    /// version.
    pub fn decode(group: u128, device: u64, bytes: &[u8]) -> Option<Unsaved> {
        let (header, runs) = bytes.split_at_checked(HEADER)?;
        let number =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let mut runs = runs.get(..usize::try_from(number(64)).ok()?)?;
        if checksum(checksum(0, &header[..72]), runs) != number(72) {
            return None;
        }
        let owner = Owner { group, device, lineage: (number(32), number(40)) };
        let own = Unsaved { owner, tenure: 0, runs: Vec::new() }.encode();
        if own[..48] != header[..48] {
            return None;
        }
        let runs = table::take(&mut runs, number(56)).ok()?;
        Some(Unsaved { owner, tenure: number(48), runs })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_side_file_is_read_whole_or_not_at_all() {
        let owner = Owner { group: 7, device: 1, lineage: (2, 3) };
        let run = |volume, numbers| Blocks { volume, numbers };
        let all = Unsaved { owner, tenure: 9, runs: vec![run(0, 3..900), run(2, 0..1)] };
        let mut bytes = all.encode();
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert_eq!(Unsaved::decode(7, 1, &bytes), None);
            bytes[at] ^= 4;
            assert_eq!(Unsaved::decode(7, 1, &bytes[..at]), None);
        }
        assert_eq!((Unsaved::decode(8, 1, &bytes), Unsaved::decode(7, 2, &bytes)), (None, None));
        bytes.extend([0; 512]);
        assert_eq!(Unsaved::decode(7, 1, &bytes), Some(all));
    }
}
