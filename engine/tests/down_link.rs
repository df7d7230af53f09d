//! A link that is down, and returns from every wait at once: nobody spins on it.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Link};
use afterimage::internal::storage::Memory;
use afterimage::internal::threads::Threads;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// It takes what it is given until it is down.
#[derive(Default)]
struct Hasty {
    down: AtomicBool,
    asked: AtomicU64,
}

impl Link for Hasty {
    fn send(&self, _: Lane, _: Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn receive(&self, _: Lane) -> Result<Option<Vec<u8>>> {
        self.asked.fetch_add(1, SeqCst);
        match self.down.load(SeqCst) {
            true => Err(Error::new(Kind::NoPeer, "down")),
            false => Ok(None),
        }
    }

    fn queued(&self, _: Lane) -> u64 {
        0
    }

    fn wait(&self, _: Lane, timeout_ns: u64) -> bool {
        let down = self.down.load(SeqCst);
        if !down {
            std::thread::sleep(Duration::from_nanos(timeout_ns));
        }
        down
    }

    fn close(&self) {}
}

#[test]
fn nobody_spins_on_a_link_that_is_down() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let storage = Arc::new(Memory::new());
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    let device = Device::open(storage, clock, Settings::default()).unwrap();
    let link = Arc::new(Hasty::default());
    device.connect(link.clone()).unwrap();
    let threads = Threads::start(&device).unwrap();
    link.down.store(true, SeqCst);
    std::thread::sleep(Duration::from_millis(50));
    let (since, before) = (Instant::now(), link.asked.load(SeqCst));
    std::thread::sleep(Duration::from_millis(500));
    let asked = link.asked.load(SeqCst) - before;
    // Two threads look at the link, each at most once in a nap of a millisecond.
    let most = 2 * since.elapsed().as_millis() as u64 + 2;
    assert!(asked <= most, "the link was looked at {asked} times, {most} at most");
    threads.stop();
}
