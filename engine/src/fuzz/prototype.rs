//! A peer's told records, taken in and paid, against a plain map.

use super::Input;
use crate::table::prototype::Debt;
use crate::unit::{Block, Extent, Stamp};
use std::collections::BTreeMap;

/// Pieces of what a peer tells, right or wrong, and what arrives in between.
pub fn prototype(bytes: &[u8]) {
    let mut input = Input(bytes);
    let stamp = |n: u64| Stamp { epoch: 1 + n / 64, time: n / 4 % 16, sequence: (n % 4) as u32 };
    let block = |n: u64| Block { volume: (n % 2) as u32, number: n / 2 };
    let most = 16;
    let mut debt = Debt::default();
    let mut oracle = BTreeMap::new();
    let (mut last, mut hi) = (Stamp::ZERO, Stamp::ZERO);
    while !input.is_spent() {
        let mut next = input.below(256);
        let previous = match input.below(8) {
            0 => stamp(next),
            1 => hi,
            _ => last,
        };
        let mut before = previous;
        let mut piece = Vec::new();
        let mut is_right = true;
        for _ in 0..input.below(8) {
            // Rising as a rule.
            next = match input.below(32) {
                0 => input.below(256),
                step => (next + step).min(300),
            };
            let level = if input.below(4) == 0 { input.below(4) } else { 0 };
            let (b, s) = (Extent::around(block(input.below(64)), level as u8), stamp(next));
            piece.push((b, s));
            is_right &= s > before;
            if is_right && s > last && s > hi {
                let has_room = oracle.len() < most || oracle.contains_key(&b);
                is_right = before <= last.max(hi) && has_room;
                if is_right {
                    oracle.insert(b, s);
                    last = s;
                }
            }
            before = s;
        }
        let taken = debt.extend(previous, &piece, hi, most as u64);
        assert_eq!(taken.is_ok(), is_right, "{taken:?} of {piece:?} behind {previous}");
        hi = hi.max(stamp(input.below(1 + next / 2)));
        debt.pay(hi);
        oracle.retain(|_, owed| *owed > hi);
        assert_eq!(debt.last(), last);
        let blocks: u64 = oracle.keys().map(Extent::blocks).sum();
        assert_eq!((debt.len(), debt.is_empty()), (blocks, oracle.is_empty()));
        assert_eq!(debt.iter().collect::<BTreeMap<_, _>>(), oracle);
        for b in (0..64).map(block) {
            let around = oracle.iter().filter(|(extent, _)| extent.holds(b));
            assert_eq!(debt.owed(b), around.map(|(_, stamp)| *stamp).max());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeded() {
        super::super::over_seeded_bytes(5000, 200, super::prototype);
    }
}
