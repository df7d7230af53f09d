//! A device of many volumes is opened in time linear in their number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::storage::{FileName, Fill, Memory, Storage};

/// The shortest of three openings, each with its close, of a device of so many volumes, each of
/// which has been written to.
fn opening(volumes: u32) -> Duration {
    let bytes = 65_536;
    let specs = (0..volumes).map(|id| VolumeSpec { id, bytes }).collect();
    let geometry =
        Geometry { journal_bytes: 4 << 20, segment_bytes: bytes, ..Geometry::new(1, 1, specs) };
    let storage = Arc::new(Memory::new());
    Device::create(&*storage, &geometry, true).unwrap();
    for volume in 0..volumes {
        storage.create(FileName::Segment { volume, index: 0 }, bytes, Fill::Sparse).unwrap();
    }
    let open = || {
        let began = Instant::now();
        let clock = Arc::new(SystemClock::default());
        let device = Device::open(storage.clone(), clock, Settings::default()).unwrap();
        device.close().unwrap();
        began.elapsed()
    };
    (0..3).map(|_| open()).min().unwrap()
}

/// Ten times as many may take thirty times as long; a square would be a hundred times.
#[test]
fn opening_is_linear_in_the_number_of_volumes() {
    let (few, many) = (opening(2_000), opening(20_000));
    assert!(many < few * 30 + Duration::from_millis(50), "{few:?} for 2,000, {many:?} for 20,000");
}
