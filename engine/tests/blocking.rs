//! The calls that wait for their answer, with one buffer and with several.
#![cfg(not(loom))]

mod common;

use common::{A, B, Pair, Step::*, X};
use std::io::{IoSlice, IoSliceMut};

#[test]
fn every_request_has_a_call_that_waits() {
    let pair = Pair::new();
    let host = pair.devices[A].session().unwrap();
    let blocks = [vec![1; 4096], vec![2; 4096], vec![3; 4096]];
    let stamp = host.write_vectored(0, 0, &[0, 1, 2].map(|k| IoSlice::new(&blocks[k]))).unwrap();
    let (mut front, mut behind) = (vec![0; 512], vec![0; 3 * 4096 - 512]);
    let mut read = || {
        let mut buffers = [IoSliceMut::new(&mut front), IoSliceMut::new(&mut behind)];
        host.read_vectored(0, 0, &mut buffers).unwrap();
        [&front[..], &behind[..]].concat()
    };
    let mut expected = blocks.concat();
    assert_eq!(read(), expected);

    host.write_zeroes(0, 512, 512).unwrap();
    expected[512..1024].fill(0);
    assert_eq!(read(), expected);

    // Of the edges only whole blocks go.
    host.discard(0, 2048, 8192).unwrap();
    expected[4096..8192].fill(0);
    assert_eq!(read(), expected);

    let device = &pair.devices[A];
    assert_eq!(device.step_sequence(), 0, "nothing is durable yet");
    let durable = host.write_fua(0, 512, &[4; 512]).unwrap();
    expected[512..1024].fill(4);
    assert_eq!(read(), expected);
    assert!(durable > stamp);
    assert!(device.step_sequence() > 0, "all up to it is durable");
}

#[test]
fn requests_of_no_bytes_wait_for_nobody() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Sequence]);
    pair.takeover(B).unwrap();
    assert_eq!(pair.devices[B].status().owed_blocks, 1);
    let host = pair.devices[B].session().unwrap();
    host.read_vectored(0, 0, &mut []).unwrap();
    host.write(0, 512, &[]).unwrap();
    host.write_zeroes(0, 512, 0).unwrap();
    host.discard(0, 512, 0).unwrap();
    assert_eq!(pair.devices[B].status().owed_blocks, 1, "block X was not asked for");
}
