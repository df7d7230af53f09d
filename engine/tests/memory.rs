//! Memory that a device keeps while its host writes and never flushes.
#![cfg(target_os = "linux")]

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::Memory;
use common::resident;
use std::sync::Arc;

/// Each commit finds more requests than any list of things to be done later is emptied by.
#[test]
fn unflushed_writes_keep_no_memory() {
    const WRITES: u64 = 2048;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let [a, b] = [1, 2].map(|id| {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 64 * 4096 }];
        let geometry = Geometry { journal_bytes: 32 << 20, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).unwrap();
        Device::open(storage, clock.clone(), Settings::default()).unwrap()
    });
    let (end_a, end_b) = memory_link(Line::default(), clock);
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    a.resume_alone().unwrap();
    let host = a.session().unwrap();
    let round = || {
        for write in 0..WRITES {
            host.write(0, write % 64 * 4096, &[7; 4096]).unwrap();
        }
        a.step_commit().unwrap();
        let mut moves = true;
        while moves {
            moves = a.step_ship().unwrap() > 0;
            moves |= b.step_receive().unwrap() > 0;
            for device in [&a, &b] {
                moves |= device.step_control().unwrap() | (device.step_reflect().unwrap() > 0);
            }
        }
        [&a, &b].into_iter().for_each(|device| device.checkpoint_now().unwrap());
        assert_eq!(a.status().backlog_records, 0);
    };
    // Both journals are written over once, and every table has grown as far as it will.
    (0..8).for_each(|_| round());
    let before = resident();
    (0..24).for_each(|_| round());
    let kept = resident().saturating_sub(before);
    let written = 24 * WRITES * 4096;
    println!("{kept} bytes kept of {written} written");
    assert!(kept < written / 16, "{kept} bytes kept of {written} written");
}
