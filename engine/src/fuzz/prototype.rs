//! A prototype taken in, merged and paid, against a plain map.

use super::Input;
use crate::table::prototype::Debt;
use crate::unit::{Block, Stamp};
use std::collections::BTreeMap;

/// Pieces of a prototype, right or wrong, then `hi` at the merge, then payments.
pub fn prototype(bytes: &[u8]) {
    let mut input = Input(bytes);
    let stamp = |n: u64| Stamp { epoch: 1 + n / 64, time: n / 4 % 16, sequence: (n % 4) as u32 };
    let block = |n: u64| Block { volume: (n % 2) as u32, number: n / 2 };
    let mut debt = Debt::default();
    let mut oracle = BTreeMap::new();
    let mut last = 256u64;
    for _ in 0..input.below(16) {
        let mut piece = Vec::new();
        let mut is_right = true;
        for _ in 0..input.below(8) {
            // Falling as a rule, and blocks that rarely meet.
            let n = match input.below(32) {
                0 => input.below(256),
                step => last.saturating_sub(step),
            };
            let b = block(input.below(64));
            is_right &= n < last && oracle.insert(b, stamp(n)).is_none();
            last = n;
            piece.push((b, stamp(n)));
        }
        let total = match input.below(16) {
            0 => input.below(64),
            _ => u64::MAX,
        };
        is_right &= debt.entries() + piece.len() as u64 <= total;
        let taken = debt.extend(&piece, total);
        assert_eq!(taken.is_ok(), is_right, "{taken:?} of {piece:?}");
        if !is_right {
            return;
        }
    }
    assert_eq!(debt.entries(), oracle.len() as u64);
    let hi = stamp(input.below(256));
    let debt = debt.merge(hi, 2);
    oracle.retain(|_, owed| *owed > hi);
    let need = oracle.values().max().copied().unwrap_or(Stamp::ZERO);
    let mut paid = hi;
    loop {
        assert_eq!((debt.need(), debt.tenure()), (need, 2));
        assert_eq!((debt.len(), debt.is_empty()), (oracle.len() as u64, oracle.is_empty()));
        assert_eq!(debt.iter().collect::<BTreeMap<_, _>>(), oracle);
        for b in (0..64).map(block) {
            assert_eq!(debt.owed(b), oracle.get(&b).copied());
        }
        if input.is_spent() {
            return;
        }
        paid = paid.max(stamp(input.below(256)));
        debt.pay(paid);
        oracle.retain(|_, owed| *owed > paid);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeded() {
        super::super::over_seeded_bytes(5000, 200, super::prototype);
    }
}
