//! A durable write that is polled, not waited for, completes even if the background's own commit
//! made it durable before anybody asked for one.

use afterimage::Device;
use afterimage::clock::SystemClock;
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Durability, Geometry, Settings};
use afterimage::request::Request;
use afterimage::storage::Memory;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_polled_durable_write_completes_though_the_log_is_clean() {
    let storage = Arc::new(Memory::new());
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    // The background commits whenever there is something to commit.
    let settings =
        Settings { durability: Durability::Strict, commit_interval_ns: 0, ..Settings::default() };
    let device = Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap();
    let stop = AtomicBool::new(false);
    device.resume_alone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                device.step_commit_due().unwrap();
            }
        });
        let session = device.session().unwrap();
        let data = [7; 4096];
        let mut stuck = None;
        'writes: for write in 0..1_000 {
            let slices = [IoSlice::new(&data)];
            let mut ticket = session.submit(Request::write(0, 0, &slices)).unwrap();
            // Counted, not timed: that the process was stopped for a while is no failure.
            let mut polls = 0;
            while ticket.poll().is_none() {
                polls += 1;
                match polls {
                    0..10_000 => std::hint::spin_loop(),
                    10_000..15_000 => std::thread::sleep(Duration::from_millis(1)),
                    _ => {
                        stuck = Some(write);
                        break 'writes;
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(stuck, None, "this write never completes");
    });
}
