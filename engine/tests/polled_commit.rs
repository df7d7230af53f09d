//! Requests that nobody waits for. A durable write that is polled completes even if the background's
//! own commit made it durable before anybody asked for one; a callback is called however the device
//! ends.

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::error::{Kind, Result};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Durability, Geometry, Settings};
use afterimage::internal::request::{Completion, Request};
use afterimage::internal::storage::{Directory, Memory, Storage};
use afterimage::internal::threads::Threads;
use std::io::IoSlice;
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

type Told = mpsc::Receiver<Result<Completion>>;

fn device(storage: Arc<dyn Storage>) -> Arc<Device> {
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    let clock = Arc::new(SystemClock::default());
    let device = Device::open(storage, clock, Settings::default()).unwrap();
    device.resume_alone().unwrap();
    device
}

/// Fills the journal; then three requests wait for a place, and the second's callback panics.
fn three_that_wait(device: &Arc<Device>) -> Told {
    let session = device.session().unwrap();
    let (tell, told) = mpsc::channel();
    let submit = |panics: bool| {
        let tell = tell.clone();
        let data = vec![7; 1 << 20];
        let done = move |outcome| {
            tell.send(outcome).unwrap();
            assert!(!panics, "a callback's own fault");
        };
        session.submit_with(Request::write(0, 0, &[IoSlice::new(&data)]), done).unwrap();
    };
    submit(false);
    while told.try_recv().is_ok() {
        submit(false);
    }
    submit(true);
    submit(false);
    assert!(told.try_recv().is_err(), "three wait for a place");
    told
}

fn kinds(told: &Told) -> Vec<Option<Kind>> {
    told.try_iter().map(|outcome| outcome.err().map(|e| e.kind())).collect()
}

/// A device that is closed calls every callback, also if one of them panics.
#[test]
fn a_closed_device_has_called_every_callback() {
    let device = device(Arc::new(Memory::new()));
    let told = three_that_wait(&device);
    device.close().unwrap();
    device.close().expect_err("it is closed");
    assert_eq!(kinds(&told), [Some(Kind::Halted); 3]);
    let gone = Arc::downgrade(&device);
    drop(device);
    assert!(gone.upgrade().is_none(), "somebody still holds it");
}

/// A request that waits does not keep its device, nor the lock of its directory: whoever drops the
/// device's last `Arc` ends it.
#[test]
fn a_dropped_device_has_called_every_callback_and_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let device = device(Arc::new(Directory::create(&path).unwrap()));
    let told = three_that_wait(&device);
    drop(device);
    assert_eq!(kinds(&told), [Some(Kind::Halted); 3]);
    Directory::open(&path).expect("nobody holds the directory");
}

/// A panic of a callback is no broken invariant of the device: its threads go on.
#[test]
fn a_callback_that_panics_does_not_stop_the_device() {
    let device = device(Arc::new(Memory::new()));
    let threads = Threads::start(&device).unwrap();
    let session = device.session().unwrap();
    for panics in [true, false] {
        let (tell, told) = mpsc::channel();
        let data = [IoSlice::new(&[7; 4096])];
        let request = Request::write(0, 0, &data).fua();
        let done = move |outcome: Result<Completion>| {
            tell.send(outcome.is_ok()).unwrap();
            assert!(!panics, "a callback's own fault");
        };
        session.submit_with(request, done).unwrap();
        assert!(told.recv_timeout(Duration::from_secs(10)).unwrap());
    }
    threads.stop();
    device.close().expect("it has not halted");
}
