//! Completed writes after a crash (R20), on a directory and in memory; S38 is on the simulated world
//! (`engine/src/simulate/scenarios/lost_tail.rs`).
#![cfg(not(loom))]

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Durability, Geometry, Settings};
use afterimage::internal::request::Request;
use afterimage::internal::storage::{Directory, Memory, Storage};
use std::io::IoSlice;
use std::sync::{Arc, mpsc};

fn create(storage: &dyn Storage) {
    let mut geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    geometry.journal_bytes = 8 << 20;
    Device::create(storage, &geometry, true).unwrap();
}

fn open(storage: Arc<dyn Storage>, durability: Durability) -> Arc<Device> {
    let settings = Settings { durability, ..Settings::default() };
    let device = Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap();
    device.resume_alone().unwrap();
    device
}

/// Writes a block through every sort of call, and lets the device go as a killed process does.
fn write_and_die(device: Arc<Device>) {
    let host = device.session().unwrap();
    host.write(0, 0, &[1; 4096]).unwrap();
    let data = [2; 4096];
    let slices = [IoSlice::new(&data)];
    assert!(host.submit(Request::write(0, 4096, &slices)).unwrap().poll().unwrap().is_ok());
    let (say, hear) = mpsc::channel();
    host.submit_with(Request::write(0, 8192, &slices), move |done| say.send(done.is_ok()).unwrap())
        .unwrap();
    assert!(hear.recv().unwrap());
    host.write_zeroes(0, 0, 512).unwrap();
}

/// The first byte of what [`write_and_die`] has written, and of the block after it.
fn found(device: &Arc<Device>) -> [u8; 4] {
    let host = device.session().unwrap();
    [512, 4096, 8192, 12288].map(|offset| {
        let mut buffer = [9; 512];
        host.read(0, offset, &mut buffer).unwrap();
        buffer[0]
    })
}

#[test]
fn what_was_written_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let storage = Directory::create(&path).unwrap();
    create(&storage);
    // Where nobody vouches for the cache the device cannot know, and says so.
    let vouched = storage.cache_identity().is_some();
    write_and_die(open(Arc::new(storage), Durability::Written));
    let device = open(Arc::new(Directory::open(&path).unwrap()), Durability::Written);
    assert_eq!(device.recovery().lost_writes, !vouched);
    assert_eq!(device.status().lost_writes.is_some(), !vouched);
    device.accept_loss().unwrap();
    assert_eq!(found(&device), [1, 2, 2, 0]);
}

/// Only writes count that may have completed: an opening that lets no host in adds no doubt.
#[test]
fn an_opening_that_serves_nobody_loses_nothing() {
    let storage = Arc::new(Memory::new());
    create(&*storage);
    let device = open(storage.clone(), Durability::Strict);
    device.session().unwrap().write(0, 4096, &[2; 4096]).unwrap();
    drop(device);
    let settings = Settings { durability: Durability::VolatileCache, ..Settings::default() };
    let waits = Device::open(storage.clone(), Arc::new(SystemClock::default()), settings).unwrap();
    assert_eq!(waits.session().unwrap_err().kind(), Kind::NotProven);
    drop(waits);
    let device = open(storage, Durability::Strict);
    assert!(!device.recovery().lost_writes);
    assert_eq!(found(&device), [0, 2, 0, 0]);
}

#[test]
fn what_was_cached_is_lost_with_the_process_and_said_to_be() {
    let storage = Arc::new(Memory::new());
    create(&*storage);
    write_and_die(open(storage.clone(), Durability::VolatileCache));
    for opening in 0..2 {
        let device = open(storage.clone(), Durability::Strict);
        assert_eq!(device.recovery().lost_writes, opening == 0, "it is found once");
        let refused = device.session().unwrap_err();
        assert_eq!(refused.kind(), Kind::LostWrites);
        assert!(!refused.kind().is_retryable() && refused.to_string().contains("accept_loss"));
        assert!(device.status().serving && device.status().lost_writes.is_some());
    }
    let device = open(storage.clone(), Durability::Strict);
    device.accept_loss().unwrap();
    device.accept_loss().unwrap();
    assert_eq!(found(&device), [0; 4]);
    drop(device);
    // Accepted for good, and a strict device loses nothing more.
    write_and_die_strictly(open(storage.clone(), Durability::Strict));
    assert_eq!(found(&open(storage, Durability::Strict))[0], 3);
}

fn write_and_die_strictly(device: Arc<Device>) {
    device.session().unwrap().write(0, 0, &[3; 4096]).unwrap();
}

#[test]
fn a_clean_close_leaves_no_question() {
    for durability in [Durability::Written, Durability::VolatileCache, Durability::Never] {
        let storage = Arc::new(Memory::new());
        create(&*storage);
        let device = open(storage.clone(), durability);
        device.session().unwrap().write(0, 0, &[1; 4096]).unwrap();
        device.close().unwrap();
        drop(device);
        let device = open(storage, durability);
        assert!(!device.recovery().lost_writes && device.session().is_ok(), "{durability:?}");
    }
}
