//! Memory of a device with a large journal, none of whose places is used.
#![cfg(target_os = "linux")]

mod common;

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::limits::Settings;
use common::hooked::Hooked;
use common::resident;
use std::sync::Arc;

/// Its journals have 2^25 places together, each of which had memory when a device was opened.
#[test]
fn an_unused_place_takes_no_memory() {
    let (storage, geometry) = Hooked::with_large_journals();
    let before = resident();
    let device = Device::open(storage, Arc::new(SystemClock::default()), Settings::default());
    let device = device.unwrap();
    device.resume_alone().unwrap();
    device.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
    device.step_commit().unwrap();
    let taken = resident().saturating_sub(before);
    assert!(taken < 16 << 20, "{taken} bytes for one record in {}", geometry.places());
}
