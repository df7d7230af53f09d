//! Threads that do a device's background work: the standard way to drive the steps.
//!
//! Four a device, so that nothing urgent waits behind something long: control frames; received
//! records; commit and shipping; reflection and checkpoints. They sleep when there is nothing to
//! do; a host's thread wakes none of them on its way.

mod connect;

pub use connect::Connector;

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::link::Lane;
use crate::sync::{AtomicBool, Ordering, lock};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an idle thread sleeps at most, so that commit interval and time-outs are kept.
const NAP: Duration = Duration::from_millis(1);

/// The niceness of work that can wait.
const PATIENT: i32 = 10;

/// The running threads of one device. They stop when this is dropped, or when the device halts.
#[derive(Debug)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts the background work of `device`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Storage`] if the system refuses a thread.
    pub fn start(device: &Arc<Device>) -> Result<Threads> {
        let threads = Threads { stop: Arc::new(AtomicBool::new(false)), running: Mutex::default() };
        threads.spawn(device, "control", |device| {
            let busy = device.step_control()?;
            if !busy {
                wait_for_frame(device, Lane::Control);
            }
            Ok(())
        })?;
        threads.spawn(device, "receive", |device| {
            match device.step_receive()? {
                0 => wait_for_frame(device, Lane::Data),
                // One sync and one acknowledgement for what comes within a nap.
                few if !device.is_full_batch(few / 4) => std::thread::sleep(NAP / 2),
                _ => {}
            }
            Ok(())
        })?;
        threads.spawn(device, "ship", |device| {
            let heard = device.work_heard();
            let committed = device.step_commit_due()?;
            let shipped = device.step_ship()?;
            let called = device.step_callbacks();
            if !committed && called == 0 && !device.is_full_batch(shipped) {
                // What trickles in is shipped a nap's worth at a time.
                device.wait_for_work(heard, NAP);
            }
            Ok(())
        })?;
        threads.spawn(device, "reflect", |device| {
            let heard = device.work_heard();
            let reflected = device.step_reflect_due()?;
            let checkpointed = device.step_checkpoint()?;
            if reflected == 0 && !checkpointed {
                device.wait_for_work(heard, NAP);
            }
            Ok(())
        })?;
        Ok(threads)
    }

    fn spawn(
        &self,
        device: &Arc<Device>,
        name: &str,
        mut step: impl FnMut(&Device) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (device, stop) = (device.clone(), self.stop.clone());
        let patient = name == "reflect";
        let name = format!("{}-{name}", device.geometry().device);
        let run = move || {
            if patient {
                // What it does can wait as long as hosts keep the processors busy; when they wait
                // for it, they do not. Where this is not allowed it is done without.
                let _ = setpriority_process(Some(gettid()), PATIENT);
            }
            while !stop.load(Ordering::Acquire) {
                let stepped = catch_unwind(AssertUnwindSafe(|| step(&device)));
                let what = "a background step panicked: an invariant does not hold";
                let stepped = stepped.unwrap_or_else(|_| Err(Error::new(Kind::Halted, what)));
                if let Err(error) = stepped {
                    // Nothing goes on without this thread. A device that has halted says no more.
                    let _telling = device.events.enter();
                    device.halt(error);
                    // Those who wait for a call are told.
                    device.step_callbacks();
                    break;
                }
            }
        };
        let spawned = std::thread::Builder::new().name(name).spawn(run);
        let handle = spawned.map_err(|e| Error::storage("starting a background thread", e))?;
        lock(&self.running).push(handle);
        Ok(())
    }

    /// Stops the threads and waits for them.
    pub fn stop(self) {}
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for handle in lock(&self.running).drain(..) {
            handle.thread().unpark();
            // A panic there has been reported by the panic hook; there is nothing to add.
            let _ = handle.join();
        }
    }
}

fn wait_for_frame(device: &Device, lane: Lane) {
    let awaited = lock(&device.failover).awaited(lane);
    match awaited {
        Some(link) => drop(link.wait(lane, NAP.as_nanos() as u64)),
        None => std::thread::sleep(NAP),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::storage::{Memory, Storage};

    /// A device must not go on without one of its threads and say nothing.
    #[test]
    fn a_step_that_fails_halts_the_device() {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let mut geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        geometry.journal_bytes = 16 << 20;
        Device::create(&*storage, &geometry, true).unwrap();
        let clock = Arc::new(SystemClock::default());
        let device = Device::open(storage, clock, Settings::default()).unwrap();
        let threads = Threads { stop: Arc::default(), running: Mutex::default() };
        let refused = |_: &Device| Err(Error::new(Kind::Timeout, "nobody foresaw this"));
        threads.spawn(&device, "odd", refused).unwrap();
        let handle = lock(&threads.running).pop().unwrap();
        handle.join().unwrap();
        let halted = device.status().halted.expect("halted");
        assert_eq!(halted.kind(), Kind::Halted);
        assert!(halted.to_string().contains("nobody foresaw this"), "{halted}");
    }
}
