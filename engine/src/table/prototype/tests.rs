use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn stamp(time: u64) -> Stamp {
    Stamp { epoch: 1 + time / 64, time, sequence: 0 }
}

fn block(number: u64) -> Block {
    Block { volume: 3, number }
}

/// A piece may leave out an older record of a block that a later piece names.
#[test]
fn a_prototype_that_ends_in_the_middle_is_not_kept() {
    let block = |number| Extent::from(Block { volume: 0, number });
    let mut debt = Debt::default();
    debt.extend(Stamp::ZERO, &[(block(0), stamp(1)), (block(1), stamp(2))], Stamp::ZERO, 9)
        .unwrap();
    let kept = debt.kept();
    assert_eq!(kept, debt.iter().collect::<Vec<_>>());
    debt.append(stamp(2), &[(block(1), stamp(5))], Stamp::ZERO, 9).unwrap();
    assert_eq!((debt.kept(), debt.last()), (kept.clone(), stamp(5)));
    debt.extend(stamp(5), &[(block(3), stamp(6))], Stamp::ZERO, 9).unwrap();
    assert_eq!((debt.kept(), debt.last()), (kept, stamp(6)), "an announcement ends no prototype");
    debt.end_pieces();
    debt.extend(stamp(6), &[(block(0), stamp(7))], Stamp::ZERO, 9).unwrap();
    let all = [(block(1), stamp(5)), (block(3), stamp(6)), (block(0), stamp(7))];
    assert_eq!(debt.kept(), all);
}

proptest! {
    /// Records are told and arrive in any order; the debt agrees with a map of the newest stamp
    /// per block.
    #[test]
    fn debt_is_the_newest_stamp_per_block_above_hi(
        told in prop::collection::vec(
            (0..20u64, prop_oneof![3 => Just(0), 1 => 0..4u8], 0..4u64),
            0..if cfg!(miri) { 90 } else { 900 },
        ),
    ) {
        let mut debt = Debt::default();
        let mut oracle = BTreeMap::new();
        let mut hi = Stamp::ZERO;
        let mut last = Stamp::ZERO;
        for (time, (b, level, arrived)) in (1..).zip(told) {
            let extent = Extent::around(block(b), level);
            // Little arrives before much has been told.
            let arrived = if time % 500 < 450 { 0 } else { arrived };
            debt.extend(last, &[(extent, stamp(time))], hi, 40).unwrap();
            last = stamp(time);
            oracle.insert(extent, last);
            prop_assert_eq!(debt.last(), last);
            hi = hi.max(stamp(time * arrived / 4));
            debt.pay(hi);
            oracle.retain(|_, stamp| *stamp > hi);
            for b in 0..20 {
                let around = oracle.iter().filter(|(extent, _)| extent.holds(block(b)));
                let owed = around.map(|(_, stamp)| *stamp).max();
                prop_assert_eq!(debt.owed(block(b)), owed);
                prop_assert!(owed.is_none() || debt.may_owe(block(b), 1));
            }
            prop_assert_eq!(debt.owed_for(extent), oracle.get(&extent).copied());
            prop_assert_eq!(debt.len(), oracle.keys().map(Extent::blocks).sum::<u64>());
            prop_assert_eq!(debt.is_empty(), oracle.is_empty());
            prop_assert!(!debt.is_empty() || !debt.may_owe(block(0), 1 << 40));
            let listed: Vec<_> = debt.iter().collect();
            prop_assert!(listed.is_sorted_by_key(|entry| entry.1));
            prop_assert_eq!(listed.into_iter().collect::<BTreeMap<_, _>>(), oracle.clone());
        }
    }

    /// Many pieces that are looked at behind the last only, while some of it arrives, against as
    /// many that are looked at one by one.
    #[test]
    fn an_index_filled_part_by_part_is_the_same(
        pieces in prop::collection::vec((prop::collection::vec(0..400u64, 1..90), 0..9u64), 1..9),
        earlier in 1..100u64,
    ) {
        let [mut at_once, mut one_by_one] = [(); 2].map(|()| Debt::default());
        let (mut time, mut hi) = (earlier, Stamp::ZERO);
        let begin: Vec<_> = (1..=earlier).map(|n| (block(n % 7).into(), stamp(n))).collect();
        for debt in [&mut at_once, &mut one_by_one] {
            debt.extend(Stamp::ZERO, &begin, hi, 500).unwrap();
        }
        for (piece, arrives) in pieces {
            let previous = stamp(time);
            let piece: Vec<_> = piece.into_iter().map(|b| { time += 1; (block(b).into(), stamp(time)) }).collect();
            at_once.append(previous, &piece, hi, 500).unwrap();
            one_by_one.extend(previous, &piece, hi, 500).unwrap();
            hi = hi.max(stamp(time * arrives / 10));
            at_once.pay(hi);
            one_by_one.pay(hi);
        }
        at_once.extend(stamp(time), &[], hi, 500).unwrap();
        prop_assert_eq!(at_once.len(), one_by_one.len());
        prop_assert_eq!(at_once.last(), one_by_one.last());
        let newest = |debt: &Debt| debt.iter().collect::<Vec<_>>();
        prop_assert_eq!(newest(&at_once), newest(&one_by_one));
        for b in 0..400 {
            prop_assert_eq!(at_once.owed(block(b)), one_by_one.owed(block(b)));
        }
    }

    #[test]
    fn what_breaks_the_order_is_refused(swap in 0..9usize) {
        let good: Vec<_> = (0..10u64).map(|n| (block(n).into(), stamp(n + 1))).collect();
        let extend = |previous, piece: &[_], hi, most| {
            let mut debt = Debt::default();
            debt.extend(previous, piece, hi, most)
        };
        prop_assert!(extend(Stamp::ZERO, &good, Stamp::ZERO, 10).is_ok());
        prop_assert!(extend(Stamp::ZERO, &good, Stamp::ZERO, 9).unwrap_err().contains("than 9"));
        let gap = &good[swap + 1..];
        let before = good[swap].1;
        prop_assert!(extend(before, gap, Stamp::ZERO, 11).unwrap_err().contains("told here"));
        prop_assert!(extend(before, gap, before, 11).is_ok());
        // A second refusal takes back nothing that was taken.
        let mut debt = Debt::default();
        debt.extend(Stamp::ZERO, &good[..9], Stamp::ZERO, 9).unwrap();
        let again = [(block(swap as u64).into(), stamp(10)), (block(99).into(), stamp(11))];
        debt.extend(stamp(9), &again, Stamp::ZERO, 9).unwrap_err();
        debt.extend(stamp(10), &[(block(99).into(), stamp(12))], Stamp::ZERO, 9).unwrap_err();
        prop_assert_eq!((debt.last(), debt.len()), (stamp(10), 9));
        prop_assert_eq!(debt.owed(block(swap as u64)), Some(stamp(10)));
        let mut falling = good.clone();
        falling.swap(swap, swap + 1);
        let refused = extend(Stamp::ZERO, &falling, Stamp::ZERO, 11);
        prop_assert!(refused.unwrap_err().contains("not older"));
    }

    /// Entries come round to all of it.
    #[test]
    fn the_list_of_entries_has_little_room_to_spare(told in 1000..5000u64) {
        let mut debt = Debt::default();
        let entries: Vec<_> = (1..=told).map(|n| (block(n).into(), stamp(n))).collect();
        debt.extend(Stamp::ZERO, &entries, Stamp::ZERO, told).unwrap();
        let most = told as usize + told as usize / 8 + ENTRIES_MIN;
        prop_assert!(debt.entries.capacity() <= most, "{}", debt.entries.capacity());
    }

    #[test]
    fn epochs_that_no_entry_has_are_forgotten(blocks in 1..9u64) {
        let mut debt = Debt::default();
        let end = if cfg!(miri) { 1200 } else { 5000 };
        let told = |n| Stamp { epoch: n, time: 1, sequence: 0 };
        for n in 1..end {
            let before = if n > 1 { told(n - 1) } else { Stamp::ZERO };
            debt.extend(before, &[(block(n % blocks).into(), told(n))], Stamp::ZERO, 10).unwrap();
        }
        prop_assert_eq!(debt.len(), blocks);
        prop_assert!(debt.tenures.len() < 3 * ENTRIES_MIN, "{} epochs", debt.tenures.len());
        prop_assert_eq!(debt.owed(block((end - 1) % blocks)), Some(told(end - 1)));
        let listed: Vec<_> = debt.iter().map(|(_, stamp)| stamp.epoch).collect();
        prop_assert_eq!(listed, (end - blocks..end).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_told_or_has_arrived_is_ignored(from in 0..9u64, hi in 0..12u64) {
        let good: Vec<_> = (0..10u64).map(|n| (block(n).into(), stamp(n + 1))).collect();
        let mut debt = Debt::default();
        debt.extend(Stamp::ZERO, &good[..5], Stamp::ZERO, 10).unwrap();
        debt.pay(stamp(hi));
        debt.extend(stamp(from.min(5)), &good[from.min(5) as usize..], stamp(hi), 10).unwrap();
        prop_assert_eq!(debt.len(), 10u64.saturating_sub(hi));
    }
}
