//! A discard or write-zeroes of what provably reads as zeros makes no record (R17); of anything else it
//! does.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::{Durability, Settings};
use afterimage::internal::request::{Request, Session};
use afterimage::internal::storage::FileName;
use common::hooked::{Call, Hooked};
use common::{A, Action, B, Pair, Spec, Step, X, Y};
use std::sync::Arc;

const BLOCK: u64 = 4096;

/// Discards one block; whether that took a record.
fn takes_record(pair: &mut Pair, at: usize, block: u64) -> bool {
    let name = pair.submit(at, 0, Action::Discard(block * 8..(block + 1) * 8));
    let outcome = pair.outcome(name).expect("it waits for nothing").expect("discarded");
    outcome.stamp.is_some()
}

/// Everything is reflected, acknowledged and freed at both.
fn rest(pair: &mut Pair) {
    pair.drain();
    for device in &pair.devices {
        device.checkpoint_now().unwrap();
    }
}

#[test]
fn nothing_is_discarded_where_nothing_is() {
    let mut pair = Pair::new();
    assert!(!takes_record(&mut pair, A, X));
    let zeroes = pair.submit(A, 0, Action::Zeroes(X * 8..(X + 2) * 8));
    assert_eq!(pair.outcome(zeroes).unwrap().unwrap().stamp, None);
    let discard = pair.submit(A, 0, Action::Discard(X * 8 + 4..(X + 2) * 8 + 4));
    assert_eq!(pair.outcome(discard).unwrap().unwrap().stamp, None);
    // The parts of blocks at its ends are written.
    let zeroes = pair.submit(A, 0, Action::Zeroes(X * 8 + 4..(X + 2) * 8 + 4));
    assert!(pair.outcome(zeroes).unwrap().unwrap().stamp.is_some());
    pair.drain();
}

/// A record is live until its place is free, though it is in N, and though it is zeros.
#[test]
fn a_live_record_counts_until_it_is_freed() {
    for zeros in [false, true] {
        let mut pair = Pair::new();
        pair.write(A, X, 1);
        if zeros {
            assert!(takes_record(&mut pair, A, X), "its own record is live");
        }
        pair.settle();
        let status = pair.devices[A].status();
        assert_eq!((status.backlog_records, status.unreflected_records), (0, 0));
        // N reads as zeros in the second case, and a power cut may take that back.
        assert!(takes_record(&mut pair, A, X), "its record is reflected and not freed");
        rest(&mut pair);
        assert!(!takes_record(&mut pair, A, X));
        assert!(pair.blocks(A).is_empty());
    }
}

#[test]
fn data_in_the_volume_counts() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    rest(&mut pair);
    assert!(!takes_record(&mut pair, A, Y));
    let both = pair.submit(A, 0, Action::Discard(0..16 * 8));
    assert!(pair.outcome(both).unwrap().unwrap().stamp.is_some());
    rest(&mut pair);
    assert!(!takes_record(&mut pair, A, X));
}

#[test]
fn what_the_peer_owes_counts_and_then_what_has_come() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    assert_eq!(pair.devices[B].status().owed_blocks, 1);
    assert!(takes_record(&mut pair, B, X), "it is owed");

    let mut pair = Pair::new();
    pair.write(A, X, 1);
    while pair.devices[A].status().acked == Default::default() {
        pair.steps(A, &[Step::Commit, Step::Control, Step::Ship]);
        pair.steps(B, &[Step::Control, Step::Receive]);
    }
    pair.takeover(B).unwrap();
    let status = pair.devices[B].status();
    assert_eq!((status.owed_blocks, status.unreflected_records), (0, 1));
    assert!(takes_record(&mut pair, B, X), "it has come and is in no volume");
    pair.drain();
}

/// A pair whose first device calls a hook when it looks at its volume, where block X was zeroed.
fn hooked(settings: Settings) -> (Pair, Arc<Hooked>) {
    let disk = Arc::new(Hooked::default());
    let mut spec = Spec { settings, exclusive: true, ..Spec::default() };
    spec.storages[A] = disk.clone();
    let mut pair = Pair::with(spec);
    pair.write(A, X, 1);
    rest(&mut pair);
    assert!(takes_record(&mut pair, A, X));
    rest(&mut pair);
    (pair, disk)
}

const VOLUME: FileName = FileName::Segment { volume: 0, index: 0 };

#[test]
fn none_is_admitted_by_a_tenure_or_a_session_that_is_over() {
    let (mut pair, disk) = hooked(Settings::default());
    let discard = |session: &Session| {
        session.submit(Request::discard(0, X * BLOCK, BLOCK)).unwrap().wait().map(|done| done.stamp)
    };
    let session = pair.devices[A].session().unwrap();
    assert_eq!(discard(&session).unwrap(), None);
    let revoked = session.clone();
    disk.when(Call::Look, VOLUME, move || revoked.revoke());
    assert_eq!(discard(&session).unwrap_err().kind(), Kind::Superseded);
    assert!(disk.has_happened());

    // The places that it took in vain are freed.
    rest(&mut pair);
    let session = pair.devices[A].session().unwrap();
    pair.devices[B].begin_takeover().unwrap();
    for _ in 0..3 {
        pair.step(B, Step::Control);
    }
    let fenced = pair.devices[A].clone();
    disk.when(Call::Look, VOLUME, move || while fenced.step_control().unwrap() {});
    assert_eq!(discard(&session).unwrap_err().kind(), Kind::Fenced);
    assert!(disk.has_happened() && !pair.devices[A].status().serving);
}

/// There is nothing to be made durable, so that no commit is waited for.
#[test]
fn it_completes_at_once_however_durable_writes_are() {
    let (mut pair, _) = hooked(Settings { durability: Durability::Strict, ..Settings::default() });
    pair.write(A, Y, 1);
    rest(&mut pair);
    let session = pair.devices[A].session().unwrap();
    let request = Request::write_zeroes(0, X * BLOCK, BLOCK).fua();
    let done = session.submit(request).unwrap().poll().expect("it is done").unwrap();
    assert_eq!(done.stamp, None);
    assert!(session.submit(Request::flush()).unwrap().poll().is_some());
}

/// R2: a FUA request completes after every record that was published before it is durable.
#[test]
fn one_with_fua_waits_for_what_was_published_before() {
    let (pair, _) =
        hooked(Settings { durability: Durability::VolatileCache, ..Settings::default() });
    let session = pair.devices[A].session().unwrap();
    session.write(0, Y * BLOCK, &[1; BLOCK as usize]).unwrap();
    // No block is discarded as a whole.
    let discard = Request::discard(0, X * BLOCK + 512, 512).fua();
    let mut request = session.submit(discard).unwrap();
    assert!(request.poll().is_none());
    pair.devices[A].step_commit().unwrap();
    assert_eq!(request.poll().expect("it is done").unwrap().stamp, None);
}
