//! A device whose journal needs more address space than its process may have.
#![cfg(target_os = "linux")]

mod common;

use afterimage::internal::clock::SystemClock;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::storage::{FileName, Storage};
use afterimage::{Device, Kind};
use common::hooked::Hooked;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The bytes of address space that this process has.
fn taken() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn refused_address_space_is_an_error() {
    let storage = Arc::new(Hooked::default());
    storage.is_sparse.store(true, SeqCst);
    let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 30 }];
    let geometry = Geometry { journal_bytes: 64 << 30, ..Geometry::new(1, 1, volumes) };
    Device::create(&*storage, &geometry, true).unwrap();
    let superblock = || {
        let mut bytes = [0; 512];
        storage.read(FileName::Superblock, 0, &mut bytes).unwrap();
        bytes
    };
    let before = superblock();
    let open =
        || Device::open(storage.clone(), Arc::new(SystemClock::default()), Settings::default());

    let usual = getrlimit(Resource::As);
    let limited = Rlimit { current: Some(taken() + (256 << 20)), ..usual };
    setrlimit(Resource::As, limited).unwrap();
    let refused = open();
    setrlimit(Resource::As, usual).unwrap();
    let Err(refused) = refused else { panic!("there is room for 2^24 places") };
    assert_eq!(refused.kind(), Kind::Config, "{refused}");
    let text = refused.to_string();
    for part in ["68719476736 bytes", "blocks of 4096", "1476395008 bytes", "ulimit -v", "smaller"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(superblock(), before, "an opening that failed changed something");

    let device = open().unwrap();
    device.resume_alone().unwrap();
    device.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
}
