//! A device whose journal needs more address space than its process may have.
#![cfg(target_os = "linux")]

mod common;

use afterimage::internal::clock::SystemClock;
use afterimage::internal::limits::Settings;
use afterimage::internal::storage::{FileName, Storage};
use afterimage::{Device, Kind};
use common::hooked::Hooked;
use common::memory;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;

#[test]
fn refused_address_space_is_an_error() {
    let (storage, _) = Hooked::with_large_journals();
    let superblock = || {
        let mut bytes = [0; 512];
        storage.read(FileName::Superblock, 0, &mut bytes).unwrap();
        bytes
    };
    let before = superblock();
    let open =
        || Device::open(storage.clone(), Arc::new(SystemClock::default()), Settings::default());

    let usual = getrlimit(Resource::As);
    let limited = Rlimit { current: Some(memory()[0] + (256 << 20)), ..usual };
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
