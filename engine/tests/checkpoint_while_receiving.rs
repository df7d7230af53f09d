//! A checkpoint at a device that has reflected everything, while records are just arriving, frees
//! none of those: they are in the received log before they are in the table.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::Memory;
use afterimage::internal::threads::Threads;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn what_is_arriving_is_not_freed() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |device: u64| {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
        let geometry = Geometry::new(1, device, volumes);
        Device::create(&*storage, &geometry, device == 1).unwrap();
        Device::open(storage, clock.clone(), Settings::default()).unwrap()
    };
    let (a, b) = (open(1), open(2));
    a.resume_alone().unwrap();
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    let threads = Threads::start(&a).unwrap();
    let stop = AtomicBool::new(false);
    let running = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let control = scope.spawn(|| while running() && b.step_control().is_ok() {});
        let receive = scope.spawn(|| while running() && b.step_receive().is_ok() {});
        // Everything received is in the volume and freed as fast as can be.
        let reflect = scope
            .spawn(|| while running() && b.step_reflect().is_ok() && b.checkpoint_now().is_ok() {});
        let session = a.session().unwrap();
        let began = Instant::now();
        let mut number = 0u64;
        while began.elapsed() < Duration::from_secs(5) && !reflect.is_finished() {
            session.write(0, number % 256 * 4096, &number.to_le_bytes().repeat(512)).unwrap();
            number += 1;
        }
        stop.store(true, Ordering::Relaxed);
        for (name, thread) in [("control", control), ("receive", receive), ("reflect", reflect)] {
            assert!(thread.join().is_ok(), "{name} panicked after {number} writes");
        }
    });
    threads.stop();
    assert!(b.status().halted.is_none(), "{:?}", b.status().halted);
}
