//! The oracle must hold its tongue about every legal history and catch each kind of illegal one.

use super::super::pattern::{self, Origin};
use super::*;

const RUN: u64 = 7;
const EPOCH: u64 = 1;

fn oracle() -> Oracle {
    Oracle::new(RUN, 4096)
}

fn at(time: u64) -> Option<Stamp> {
    Some(Stamp { epoch: EPOCH, time, sequence: 0 })
}

/// Issues a write of `sectors` of volume 0.
fn write(oracle: &mut Oracle, sectors: Range<u64>) -> Number {
    oracle.write(0, sectors, false, EPOCH)
}

fn discard(oracle: &mut Oracle, sectors: Range<u64>) -> Number {
    oracle.write(0, sectors, true, EPOCH)
}

/// The bytes of sector `sector` after the write `number`; 0 gives zeros.
fn bytes(number: Number, sector: u64) -> Vec<u8> {
    let mut data = vec![0; SECTOR];
    if number > 0 {
        let write = number.into();
        let origin = Origin { run: RUN, volume: 0, sector, write, row: 0, index: 0, count: 1 };
        pattern::fill(&mut data, origin);
    }
    data
}

/// A read of `sector` that shows `number`.
fn read(oracle: &mut Oracle, sector: u64, number: Number) {
    oracle.read_done(0, sector, &bytes(number, sector), None);
}

fn found(oracle: &Oracle) -> &[Finding] {
    oracle.findings().first()
}

/// A sheet that lists blocks of volume 0 as told, each with the time of its record, of a device that had
/// received all up to the time 10 and was told of all up to the time 20.
fn lose(oracle: &mut Oracle, told: &[(u64, u64)], after: u64, shows: &[(u64, Number)]) -> Account {
    let mut sheet = afterimage::LossSheet::default();
    let entry = |&(number, time): &(u64, u64)| {
        let block = afterimage::internal::unit::Block { volume: 0, number };
        (block.into(), at(time).unwrap())
    };
    sheet.told = told.iter().map(entry).collect();
    sheet.others_after = Some(after);
    let mut image = Image::default();
    for &(block, number) in shows {
        image.update(0, block * 8..block * 8 + 8, |shown| *shown = number);
    }
    let [received, told] = [10, 20].map(|time| at(time).unwrap());
    let forced = Forced { sheet: &sheet, told, received, is_own: &|_| false };
    oracle.lose(&forced, image)
}

/// Writes of a block each: one that had arrived, one that was told, one of which nothing was known.
fn three_blocks() -> Oracle {
    let mut oracle = oracle();
    for (block, time) in [(0, 10), (1, 20), (2, 30)] {
        let number = write(&mut oracle, block * 8..block * 8 + 8);
        oracle.write_done(number, at(time));
    }
    oracle
}

#[test]
fn a_true_loss_sheet_holds_and_lost_writes_are_gone() {
    let mut oracle = three_blocks();
    let mut account = lose(&mut oracle, &[(1, 20)], 20, &[(0, 1)]);
    let Counts { lost, told, others, .. } = account.counts;
    assert_eq!((lost, told, others), (2, 1, 1));
    read(&mut oracle, 0, 1);
    read(&mut oracle, 8, 0);
    let salvaged = |oracle: &mut Oracle, account: &mut Account, number: u64| {
        let data: Vec<u8> =
            (number * 8..).take(8).flat_map(|sector| bytes(number as Number + 1, sector)).collect();
        let block = afterimage::internal::unit::Block { volume: 0, number };
        oracle.salvaged(account, block, 1, &data);
    };
    salvaged(&mut oracle, &mut account, 1);
    salvaged(&mut oracle, &mut account, 2);
    oracle.close_account(&mut account);
    assert_eq!((found(&oracle), account.counts.salvaged), (&[][..], 2));
    // Neither comes back, and another copy of a block is none of it.
    read(&mut oracle, 8, 2);
    assert!(matches!(found(&oracle), [Finding::Stale { number: 2, .. }]), "{:?}", found(&oracle));
}

#[test]
fn a_false_loss_sheet_is_found() {
    let told = |told: &[(u64, u64)], after, shows: &[(u64, Number)]| {
        let mut oracle = three_blocks();
        let mut account = lose(&mut oracle, told, after, shows);
        let findings = found(&oracle).to_vec();
        oracle.close_account(&mut account);
        let unsaved = found(&oracle)[findings.len()..].to_vec();
        assert!(unsaved.iter().all(|f| matches!(f, Finding::NotSalvaged { .. })), "{unsaved:?}");
        (findings, unsaved.len())
    };
    assert!(matches!(
        told(&[], 20, &[(0, 1)]).0[..],
        [Finding::Sheet { block: 1, listed: None, .. }]
    ));
    let (more, unsaved) = told(&[(1, 20), (2, 30)], 20, &[(0, 1)]);
    assert!(matches!(more[..], [Finding::Sheet { block: 2, due: None, .. }]), "{more:?}");
    assert_eq!(unsaved, 2);
    let old = told(&[(1, 20)], 30, &[(0, 1)]).0;
    assert!(matches!(old[..], [Finding::NotYounger { number: 3, .. }]), "{old:?}");
    let (kept, unsaved) = told(&[(1, 20)], 20, &[(0, 1), (1, 2)]);
    assert!(matches!(kept[0], Finding::WrongAfterForce { number: 2, .. }), "{kept:?}");
    assert_eq!(unsaved, 1);
}

#[test]
fn a_plain_history_holds() {
    let mut oracle = oracle();
    read(&mut oracle, 5, 0);
    let first = write(&mut oracle, 0..8);
    oracle.write_done(first, at(10));
    let second = write(&mut oracle, 4..6);
    oracle.write_done(second, at(11));
    for sector in 0..8 {
        read(&mut oracle, sector, if (4..6).contains(&sector) { second } else { first });
    }
    read(&mut oracle, 8, 0);
    oracle.check_stamps_unique();
    assert_eq!(found(&oracle), []);
    assert_eq!(oracle.checked(), Checked { reads: 10, sectors: 10, zero_sectors: 2, stamps: 2 });
    assert_eq!(oracle.written().count(), 8);
}

#[test]
fn a_stale_read_is_caught() {
    let mut oracle = oracle();
    let old = write(&mut oracle, 0..8);
    oracle.write_done(old, at(10));
    let new = write(&mut oracle, 0..8);
    oracle.write_done(new, at(11));
    read(&mut oracle, 3, old);
    let expected = Finding::Stale { volume: 0, sector: 3, expected: new, number: old };
    assert_eq!(found(&oracle), [expected]);
}

#[test]
fn a_lost_write_is_caught() {
    let mut oracle = oracle();
    let number = write(&mut oracle, 0..1);
    oracle.write_done(number, at(10));
    read(&mut oracle, 0, 0);
    let expected = Finding::Stale { volume: 0, sector: 0, expected: number, number: 0 };
    assert_eq!(found(&oracle), [expected]);
    assert!(oracle.at_rest(0, 0, &bytes(0, 0)).is_err());
    assert_eq!(oracle.at_rest(0, 0, &bytes(number, 0)), Ok(true));
}

#[test]
fn swapped_blocks_are_caught() {
    let mut oracle = oracle();
    let number = write(&mut oracle, 0..16);
    oracle.write_done(number, at(10));
    oracle.read_done(0, 0, &bytes(number, 8), None);
    assert!(matches!(found(&oracle), [Finding::Misplaced { sector: 0, .. }]));
    assert!(oracle.at_rest(0, 8, &bytes(number, 0)).is_err());
}

#[test]
fn another_runs_data_is_caught() {
    let mut oracle = oracle();
    let number = write(&mut oracle, 0..8);
    oracle.write_done(number, at(10));
    let mut data = vec![0; SECTOR];
    let (write, count) = (number.into(), 8);
    let origin = Origin { run: RUN + 1, volume: 0, sector: 0, write, row: 0, index: 0, count };
    pattern::fill(&mut data, origin);
    oracle.read_done(0, 0, &data, None);
    data[100] ^= 1;
    oracle.read_done(0, 0, &data, None);
    assert!(matches!(found(&oracle), [Finding::Misplaced { .. }, Finding::Damaged { .. }]));
}

#[test]
fn a_stamp_not_above_one_completed_is_caught() {
    let mut oracle = oracle();
    // Three blocks: the last one's sequence is 2.
    let first = write(&mut oracle, 0..24);
    oracle.write_done(first, at(10));
    let second = write(&mut oracle, 100..101);
    oracle.write_done(second, Some(Stamp { epoch: EPOCH, time: 10, sequence: 2 }));
    let third = write(&mut oracle, 200..201);
    oracle.write_done(third, at(9));
    let caught = found(&oracle).iter().filter(|f| matches!(f, Finding::StampTooLow { .. }));
    assert_eq!(caught.count(), 2);
}

#[test]
fn writes_in_flight_together_may_have_any_order() {
    let mut oracle = oracle();
    let (a, b) = (write(&mut oracle, 0..8), write(&mut oracle, 0..8));
    oracle.write_done(a, at(20));
    oracle.write_done(b, at(10));
    // `b` completed last but is the older one.
    read(&mut oracle, 0, a);
    assert_eq!(found(&oracle), []);
    read(&mut oracle, 0, b);
    assert_eq!(found(&oracle).len(), 1);
}

#[test]
fn a_read_may_show_what_is_in_flight_and_then_seals_it() {
    let mut oracle = oracle();
    let old = write(&mut oracle, 0..8);
    oracle.write_done(old, at(10));
    let slow = write(&mut oracle, 0..8);
    read(&mut oracle, 0, old);
    read(&mut oracle, 0, slow);
    assert_eq!(found(&oracle), []);
    // Issued after the read: it has to be above.
    let late = write(&mut oracle, 100..101);
    oracle.write_done(late, at(14));
    let later = write(&mut oracle, 200..201);
    oracle.write_done(slow, at(15));
    oracle.write_done(later, at(15));
    let caught = found(&oracle).iter().filter(|f| matches!(f, Finding::StampTooLow { .. }));
    assert_eq!(caught.count(), 2);
}

#[test]
fn a_write_shown_too_early_in_history_is_caught() {
    let mut oracle = oracle();
    let slow = write(&mut oracle, 0..8);
    let newer = write(&mut oracle, 0..8);
    oracle.write_done(newer, at(20));
    read(&mut oracle, 0, slow);
    assert_eq!(found(&oracle), []);
    oracle.write_done(slow, at(10));
    assert!(matches!(found(&oracle), [Finding::Stale { .. }]));
}

#[test]
fn reads_that_go_back_are_caught() {
    let mut oracle = oracle();
    let old = write(&mut oracle, 0..8);
    oracle.write_done(old, at(10));
    let slow = write(&mut oracle, 0..8);
    read(&mut oracle, 0, slow);
    read(&mut oracle, 0, old);
    oracle.write_done(slow, at(11));
    assert!(matches!(found(&oracle), [Finding::Stale { sector: 0, .. }]));
    let mut zeros = self::oracle();
    let slow = write(&mut zeros, 0..8);
    read(&mut zeros, 0, slow);
    read(&mut zeros, 0, 0);
    assert!(matches!(found(&zeros), [Finding::Stale { number: 0, .. }]));
}

#[test]
fn a_read_in_flight_may_show_anything_since_its_issue() {
    let mut oracle = oracle();
    let older = write(&mut oracle, 0..8);
    oracle.write_done(older, at(10));
    let old = write(&mut oracle, 0..8);
    oracle.write_done(old, at(20));
    let pending: Vec<_> = (0..4).map(|_| oracle.read_pending(0, 0..1)).collect();
    let new = write(&mut oracle, 0..8);
    oracle.write_done(new, at(30));
    let newest = write(&mut oracle, 0..8);
    oracle.write_done(newest, at(40));
    for (pending, number) in pending.iter().zip([old, new, newest]) {
        oracle.read_done(0, 0, &bytes(number, 0), Some(pending));
    }
    assert_eq!(found(&oracle), []);
    oracle.read_done(0, 0, &bytes(older, 0), Some(&pending[3]));
    let expected = Finding::Stale { volume: 0, sector: 0, expected: old, number: older };
    assert_eq!(found(&oracle), [expected]);
}

#[test]
fn a_refused_write_must_not_appear() {
    let mut oracle = oracle();
    let refused = write(&mut oracle, 0..8);
    oracle.write_refused(refused);
    let again = write(&mut oracle, 0..8);
    oracle.write_done(again, at(10));
    read(&mut oracle, 0, again);
    assert_eq!(found(&oracle), []);
    read(&mut oracle, 0, refused);
    assert_eq!(found(&oracle), [Finding::RefusedShown { number: refused }]);
    let shown = write(&mut oracle, 0..8);
    read(&mut oracle, 0, shown);
    oracle.write_refused(shown);
    assert_eq!(found(&oracle).len(), 2);
}

#[test]
fn discards_show_zeros() {
    let mut oracle = oracle();
    let first = write(&mut oracle, 0..16);
    oracle.write_done(first, at(10));
    let gone = discard(&mut oracle, 0..1 << 40);
    read(&mut oracle, 0, first);
    read(&mut oracle, 0, 0);
    oracle.write_done(gone, at(11));
    read(&mut oracle, 0, 0);
    assert_eq!(found(&oracle), []);
    assert_eq!(oracle.at_rest(0, 0, &bytes(0, 0)), Ok(false));
    assert_eq!(oracle.written().count(), 0);
    read(&mut oracle, 0, first);
    assert_eq!(found(&oracle).len(), 1);
}

#[test]
fn a_discard_that_completed_meanwhile_explains_zeros() {
    let mut oracle = oracle();
    let first = write(&mut oracle, 0..8);
    oracle.write_done(first, at(10));
    let pending = oracle.read_pending(0, 0..1);
    let gone = discard(&mut oracle, 0..8);
    oracle.write_done(gone, at(11));
    let new = write(&mut oracle, 0..8);
    oracle.write_done(new, at(12));
    oracle.read_done(0, 0, &bytes(0, 0), Some(&pending));
    assert_eq!(found(&oracle), []);
}

#[test]
fn an_older_write_does_not_show_through_a_discard() {
    let mut oracle = oracle();
    let slow = write(&mut oracle, 0..8);
    let gone = discard(&mut oracle, 0..8);
    oracle.write_done(gone, at(20));
    oracle.write_done(slow, at(10));
    read(&mut oracle, 0, 0);
    assert_eq!(found(&oracle), []);
    assert_eq!(oracle.written().count(), 0);
    read(&mut oracle, 0, slow);
    assert_eq!(found(&oracle).len(), 1);
}

#[test]
fn stamps_are_unique_and_of_their_tenure() {
    let mut oracle = oracle();
    let (a, b) = (write(&mut oracle, 0..16), write(&mut oracle, 80..88));
    oracle.write_done(a, at(10));
    oracle.write_done(b, Some(Stamp { epoch: EPOCH, time: 10, sequence: 1 }));
    let c = write(&mut oracle, 0..8);
    oracle.write_done(c, Some(Stamp { epoch: EPOCH + 1, time: 0, sequence: 0 }));
    let d = write(&mut oracle, 0..8);
    oracle.write_done(d, None);
    let empty = discard(&mut oracle, 3..3);
    oracle.write_done(empty, None);
    oracle.check_stamps_unique();
    let kinds = found(&oracle);
    assert!(matches!(kinds[0], Finding::WrongEpoch { .. }));
    assert!(matches!(kinds[1], Finding::NoStamp { .. }));
    assert!(kinds[2..].iter().any(|f| matches!(f, Finding::SameStamp { first: 1, second: 2, .. })));
}
