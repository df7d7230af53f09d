//! Requests that nobody waits for. A durable write that is polled completes even if the background's
//! own commit made it durable before anybody asked for one; a callback is called however the device
//! ends.

use afterimage::Device;
use afterimage::clock::SystemClock;
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Durability, Geometry, Settings};
use afterimage::request::Request;
use afterimage::storage::Memory;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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

/// Requests with callbacks hold their device: one that is closed calls them all, also if one of them
/// panics, and goes away.
#[test]
fn a_closed_device_has_called_every_callback() {
    let storage = Arc::new(Memory::new());
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    let clock = Arc::new(SystemClock::default());
    let device = Device::open(storage, clock, Settings::default()).unwrap();
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let (tell, told) = mpsc::channel();
    let submit = |panics: bool| {
        let tell = tell.clone();
        let data = vec![7; 1 << 20];
        let done = move |outcome: afterimage::error::Result<_>| {
            tell.send(outcome.is_ok()).unwrap();
            assert!(!panics, "a callback's own fault");
        };
        session.submit_with(Request::write(0, 0, &[IoSlice::new(&data)]), done).unwrap();
    };
    // Until the journal is full.
    submit(false);
    while told.try_recv().is_ok() {
        submit(false);
    }
    submit(true);
    submit(false);
    assert!(told.try_recv().is_err(), "three wait for a place");
    catch_unwind(AssertUnwindSafe(|| device.close())).expect_err("the second callback panics");
    device.close().expect_err("it is closed");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [false; 3]);
    let gone = Arc::downgrade(&device);
    drop((session, device));
    assert!(gone.upgrade().is_none(), "somebody still holds it");
}
