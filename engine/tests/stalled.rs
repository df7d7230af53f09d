//! A thread stalled at one of the engine's moments, and what others do meanwhile: each story by
//! name, in one thread.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::format::frame::Frame;
use afterimage::internal::link::Lane;
use afterimage::internal::queue::{Clk, Content, Insert, NewRecord, NewWrite, Queue, Sequencer};
use afterimage::internal::request::Request;
use afterimage::internal::simulate::{Moment, at_every_moment};
use afterimage::internal::unit::{Block, Stamp};
use common::{A, Action, B, Pair, Step::*, X, Y};
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

/// At the `nth` next `moment` of this thread, from 0, `meanwhile` happens, once.
fn stalled_at(moment: Moment, mut nth: u64, meanwhile: impl FnOnce() + 'static) {
    let mut meanwhile = Some(meanwhile);
    at_every_moment(Some(Box::new(move |at| {
        if at == moment {
            match nth {
                0 => meanwhile.take().into_iter().for_each(|meanwhile| meanwhile()),
                _ => nth -= 1,
            }
        }
    })));
}

/// Ends what [`stalled_at`] began.
fn end_stall() {
    at_every_moment(None);
}

/// A holds a record of X that the peer has not got, and a newer one that came from the peer. Both
/// are about to be reflected, and the newer one freed.
fn both_queues() -> Pair {
    let mut pair = Pair::new();
    pair.hold(A, Lane::Data, true);
    pair.write(A, X, 1);
    pair.step(A, Commit);
    pair.takeover(B).unwrap();
    pair.write(B, X, 2);
    pair.steps(B, &[Commit, Ship]);
    assert!(pair.step(A, Receive));
    pair.steps(B, &[Control]);
    pair.takeover(A).unwrap();
    pair
}

fn reflect_and_free(device: &Device) {
    while device.step_reflect().unwrap() > 0 {}
    device.checkpoint_now().unwrap();
}

/// The reader found the old record in the own queue; by the time it came to the other one, the
/// newer record was gone from there.
#[test]
fn a_read_does_not_take_the_older_of_two_records() {
    let mut pair = both_queues();
    let a = pair.devices[A].clone();
    stalled_at(Moment::Looking, 1, move || reflect_and_free(&a));
    let read = pair.read(A, X);
    end_stall();
    assert_eq!(pair.devices[A].status().unreflected_records, 0, "it was stalled");
    assert_eq!(read, (2, false));
    pair.drain();
}

/// The same, where what was read would become the other half of a write, on both devices.
#[test]
fn a_partial_write_does_not_bring_an_older_half_back() {
    let mut pair = both_queues();
    let a = pair.devices[A].clone();
    stalled_at(Moment::Looking, 1, move || reflect_and_free(&a));
    pair.submit(A, 0, Action::Write(0..4, 3));
    end_stall();
    assert_eq!(pair.devices[A].status().unreflected_records, 0, "it was stalled");
    let halves = pair.submit(A, 0, Action::Read(0..8));
    assert_eq!(pair.outcome(halves).unwrap().unwrap().values, [3, 3, 3, 3, 2, 2, 2, 2]);
    pair.drain();
}

/// An owed record came, was written over, and the newer record was reflected and freed. The
/// reader, which had only seen that something was owed, asked the peer, which did not know yet.
#[test]
fn a_read_does_not_ask_for_what_has_come() {
    let mut pair = Pair::new();
    pair.takeover(B).unwrap();
    pair.hold(B, Lane::Data, true);
    pair.write(B, X, 2);
    pair.steps(B, &[Commit, Ship]);
    pair.takeover(A).unwrap();
    pair.write(A, X, 9);
    let (a, b) = (pair.devices[A].clone(), pair.devices[B].clone());
    let (gate, end) = (pair.gates[A].clone(), pair.ends[B].clone());
    stalled_at(Moment::Looking, 0, move || {
        // The thread that receives is stalled before it acknowledges.
        gate.keep(|frame| matches!(frame, Frame::Ack { .. }));
        end.hold(Lane::Data, false);
        assert_eq!(a.step_receive().unwrap(), 1);
        a.step_commit().unwrap();
        assert_eq!(a.step_ship().unwrap(), 1);
        assert_eq!(b.step_receive().unwrap(), 1);
        assert!(a.step_control().unwrap());
        reflect_and_free(&a);
        assert_eq!(gate.held(), 2, "acknowledgements of what came, and of the room it left");
    });
    let read = pair.read(A, X);
    end_stall();
    assert_eq!(read, (9, false));
    pair.gates[A].release();
    pair.drain();
}

/// A partial write that others overtake again and again gets its turn. Nobody polls it any more:
/// whoever else writes the block waits within bounds, and in another tenure not at all.
#[test]
fn a_turn_that_nobody_takes_holds_up_within_bounds() {
    let mut pair = Pair::new();
    let write = |pair: &Pair, offset: u64, sectors: usize| {
        let data = vec![7; sectors * 512];
        let data = [IoSlice::new(&data)];
        let request = Request::write(0, offset, &data);
        pair.devices[A].session().unwrap().submit(request).unwrap()
    };
    let host = pair.devices[A].session().unwrap();
    at_every_moment(Some(Box::new(move |at| {
        if at == Moment::Located {
            host.write(0, 0, &[9; 4096]).unwrap();
        }
    })));
    let mut overtaken = write(&pair, 512, 1);
    end_stall();
    let mut other = write(&pair, 0, 8);
    assert!(other.poll().is_none(), "it is not its turn");
    pair.clocks[A].pass(pair.spec.settings.admit_timeout_ns + 1);
    let late = other.poll().unwrap().unwrap_err();
    assert_eq!(late.kind(), Kind::Timeout, "{late}");
    pair.takeover(B).unwrap();
    pair.takeover(A).unwrap();
    assert!(write(&pair, 0, 8).poll().unwrap().is_ok());
    assert_eq!(overtaken.poll().unwrap().unwrap_err().kind(), Kind::Fenced);
}

fn whole(block: u64, time: u64) -> NewWrite<'static> {
    let records = &[NewRecord { checksum: 0, content: Content::Data, level: 0 }];
    let block = Block { volume: 0, number: block };
    NewWrite { block, records, time, written_at: 0, bases: [None; 2] }
}

/// Inserts the write `inner` while the write `outer`, which has taken its place, is not published;
/// the stamps, and what then comes out in stamp order.
fn overlapping(outer: (u64, u64), inner: (u64, u64)) -> ([Stamp; 2], Vec<Stamp>, Arc<Queue>) {
    let (queue, clk) = (Arc::new(Queue::new(64, 1, 1).unwrap()), Arc::new(Clk::new()));
    queue.raise_limit(64);
    clk.open(1, 0);
    let insert = {
        let (queue, clk) = (queue.clone(), clk.clone());
        move |write: (u64, u64)| match queue.insert(&clk, 1, &whole(write.0, write.1)) {
            Insert::Published { stamp, .. } => stamp,
            other => panic!("{other:?}"),
        }
    };
    let inner_stamp = Arc::new(OnceLock::new());
    let (insert_inner, into) = (insert.clone(), inner_stamp.clone());
    stalled_at(Moment::Reserved, 0, move || into.set(insert_inner(inner)).unwrap());
    let outer_stamp = insert(outer);
    end_stall();
    let mut out = Vec::new();
    Sequencer::new(1).take(&queue, &clk, |_| true, &mut out);
    let order = out.into_iter().map(|e| e.0).collect();
    ([outer_stamp, *inner_stamp.get().unwrap()], order, queue)
}

/// Two writes in flight at once. To different blocks their hosts' times order them; to the same
/// block the one that is published first is the older (S02).
#[test]
fn s02_overlap_same_block_in_the_queue() {
    for (outer_time, inner_time) in [(200, 100), (100, 200), (100, 100)] {
        let ([outer, inner], order, queue) = overlapping((X, outer_time), (X, inner_time));
        assert!(outer > inner, "the one that was overtaken on its block is stamped again");
        assert_eq!(order, [inner, outer]);
        let newest = queue.newest(Block { volume: 0, number: X }).0.unwrap();
        assert_eq!(newest.stamp, outer, "what a read returns is what N ends with");
    }
    let ([outer, inner], order, _) = overlapping((X, 200), (Y, 100));
    assert_eq!((outer.time, inner.time), (200, 100), "arrived later, but is older by its time");
    assert_eq!(order, [inner, outer]);
}
