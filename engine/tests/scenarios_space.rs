//! Journals that are full: hosts wait, nothing is lost, nothing is refused for ever, and what would
//! drain a full journal always finds its way (S15 of the acceptance scenarios; R9).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::Settings;
use common::{A, Action, B, Pair, Spec, Step::*, X, Y, Z};

/// The smallest journals there are: a dozen records fill them if each is committed by itself.
fn small() -> Spec {
    Spec { block_size: 512, volumes: vec![64], ..Spec::default() }
}

/// Writes at `at`, committing after each, until a write has to wait; the name of that one.
fn until_throttled(pair: &mut Pair, at: usize, value: &mut u64) -> u64 {
    for _ in 0..10_000 {
        *value += 1;
        let name = pair.submit(at, 0, Action::Write(*value % 64..*value % 64 + 1, *value));
        if pair.is_pending(name) {
            return name;
        }
        pair.outcome(name).unwrap().unwrap();
        pair.steps(at, &[Commit, Ship, ReflectAll, Checkpoint]);
    }
    panic!("the journal never fills");
}

#[test]
fn s15_logs_full() {
    let mut pair = Pair::with(small());
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    let mut value = 100;
    let first = until_throttled(&mut pair, B, &mut value);
    let second = pair.submit(B, 0, Action::Write(Y..Z + 1, 7));
    assert!(pair.is_pending(second));
    assert_eq!(pair.read(B, X), (1, true), "reads go on");
    pair.drain();
    for name in [first, second] {
        assert!(pair.outcome(name).unwrap().unwrap().stamp.is_some(), "throttled, and completed");
    }
    assert_eq!((pair.read(B, Y), pair.read(B, Z)), ((7, false), (7, false)));
}

/// A received log of a dozen records, and far more than that on the line's other end.
#[test]
fn s15_logs_full_small_receiver() {
    let settings = Settings { ship_bytes_max: 1, ..Settings::default() };
    let mut pair = Pair::with(Spec { journals: [8.0, 1.0], settings, ..small() });
    let credit = pair.devices[B].status().recv_free_places;
    for value in 1..200 {
        pair.step(A, Commit);
        pair.submit(A, 0, Action::Write(value % 64..value % 64 + 1, value));
    }
    pair.step(A, Commit);
    // The window is the receiver's room: nothing is shipped beyond it.
    let shipped = (0..).take_while(|_| pair.step(A, Ship)).count() as u64;
    assert!(shipped <= credit && credit < 199, "{shipped} shipped, credit was {credit}");
    pair.settle();
    assert!(pair.devices[A].status().backlog_records > 0, "the receiver is full");
    pair.drain();
}

/// Both journals full in both directions: what is received can always be reflected and freed.
#[test]
fn s15_logs_full_both_ways() {
    let mut pair = Pair::with(small());
    pair.hold_ships(true);
    let mut value = 100;
    for to in [B, A, B] {
        let name = until_throttled(&mut pair, A + B - to, &mut value);
        pair.takeover(to).unwrap();
        assert_eq!(pair.outcome(name).unwrap().unwrap_err().kind(), Kind::Fenced);
    }
    let last = until_throttled(&mut pair, B, &mut value);
    pair.drain();
    pair.outcome(last).unwrap().unwrap();
}

/// A host waits for a place within bounds; then it is told, and may ask again.
#[test]
fn waiting_for_a_place_is_bounded() {
    let mut pair = Pair::with(small());
    pair.hold_ships(true);
    let mut value = 0;
    let name = until_throttled(&mut pair, A, &mut value);
    let flush = pair.submit(A, 0, Action::Flush);
    pair.step(A, Commit);
    pair.outcome(flush).unwrap().unwrap();
    for _ in 0..31 {
        assert!(pair.is_pending(name));
        pair.clocks[A].pass(1_000_000_000);
        pair.step(A, Commit);
    }
    let error = pair.outcome(name).unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::JournalFull);
    assert!(error.kind().is_retryable());
    pair.drain();
    pair.write(A, X, 5);
    pair.drain();
}

/// Zeros wait to be shipped as records without data, also after the device was opened again.
#[test]
fn backlog_counts_data_where_there_is_some() {
    let mut pair = Pair::with(small());
    pair.hold_ships(true);
    pair.write(A, Y, 1);
    let zeroes = pair.submit(A, 0, Action::Zeroes(Y..Z + 1));
    pair.outcome(zeroes).unwrap().unwrap();
    let backlog = |pair: &Pair| {
        let status = pair.devices[A].status();
        (status.backlog_records, status.backlog_bytes)
    };
    pair.steps(A, &[Commit, Sequence]);
    assert_eq!(backlog(&pair), (3, 512));
    pair.reopen();
    assert_eq!(backlog(&pair), (3, 512));
    pair.hold_ships(false);
    pair.drain();
    assert_eq!(backlog(&pair), (0, 0));
}

/// A journal that has never room for the largest request is not getting full while it holds nothing.
#[test]
fn an_empty_journal_needs_no_checkpoint() {
    let pair = Pair::with(small());
    let status = pair.devices[A].status();
    assert!(status.own_free_places < 32 && status.own_used_bytes == 0);
    assert!(!pair.devices[A].step_checkpoint().unwrap());
}
