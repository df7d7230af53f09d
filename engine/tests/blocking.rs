//! The calls that wait for their answer, with one buffer and with several.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::Geometry;
use afterimage::internal::storage::{FileName, Memory, Storage, Volumes};
use afterimage::internal::superblock;
use afterimage::internal::unit::Block;
use common::hooked::{Call, Hooked};
use common::{A, B, Pair, Spec, Step::*, X, Y};
use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, mpsc};
use std::time::Duration;

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

/// A segment's creation syncs directories: on a slow disk a host's reads must not wait for it.
#[test]
fn a_read_waits_for_no_segment_that_is_being_created() {
    let hooked = Arc::new(Hooked::default());
    let storages: [Arc<dyn Storage>; 2] = [hooked.clone(), Arc::new(Memory::new())];
    let mut pair = Pair::with(Spec { storages, ..Spec::default() });
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Sequence]);
    let (go_on, hangs) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let reached = tell.clone();
    hooked.when(Call::Create, FileName::Segment { volume: 0, index: 0 }, move || {
        reached.send("creating").unwrap();
        hangs.recv().unwrap();
    });
    let device = &pair.devices[A];
    std::thread::scope(|scope| {
        let reflecting = scope.spawn(|| device.step_reflect().unwrap());
        let soon = Duration::from_secs(60);
        assert_eq!(told.recv_timeout(soon), Ok("creating"));
        let host = device.session().unwrap();
        scope.spawn(move || {
            let mut block = [9; 4096];
            host.read(0, Y * 4096, &mut block).unwrap();
            assert_eq!(block, [0; 4096]);
            tell.send("read").unwrap();
        });
        let read = told.recv_timeout(Duration::from_secs(5));
        go_on.send(()).unwrap();
        assert_eq!(read, Ok("read"), "the read waits for the creation");
        assert!(reflecting.join().unwrap() > 0);
    });
}

/// A sync that finds nothing written since the one under way waits for it: what it is asked for is not durable before.
#[test]
fn a_sync_of_the_volumes_ends_behind_the_one_under_way() {
    let storage = Arc::new(Hooked::default());
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    let superblock = superblock::load(&*storage).unwrap();
    let volumes = Arc::new(Volumes::open(storage.clone(), &superblock).unwrap());
    let block = Block { volume: 0, number: 0 };
    volumes.write(block, &[IoSlice::new(&[7; 4096])]).unwrap();
    let beside = volumes.clone();
    storage.when(Call::Sync, FileName::Segment { volume: 0, index: 0 }, move || {
        let (ended, ends) = mpsc::channel();
        std::thread::spawn(move || ended.send(beside.sync().unwrap()));
        assert!(ends.recv_timeout(Duration::from_millis(200)).is_err(), "nothing is durable yet");
    });
    volumes.sync().unwrap();
    assert!(storage.has_happened());
}
