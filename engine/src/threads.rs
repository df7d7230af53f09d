//! Threads that do a device's background work: the standard way to drive the steps.
//!
//! Six a device, so that nothing urgent waits behind something long: control frames; received
//! records; commits; shipping; reflection and checkpoints; callbacks, which are the caller's. They
//! sleep when there is nothing to do, until something is or its time comes (`flow/rest.rs`); a
//! host's write wakes one of them only if the log was clean before it, or has much to commit.

mod connect;

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::flow::rest::GATHER_NS;
use crate::link::Lane;
use crate::sync::{AtomicBool, Ordering, lock};
use crate::wake::Bell;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records that come within this time are received, or shipped, together.
const GATHER: Duration = Duration::from_nanos(GATHER_NS);

/// How long a thread waits for a frame at most. It begins with little and waits twice as long each
/// time that nothing comes.
const FRAME_NS: std::ops::Range<u64> = GATHER_NS..512 * GATHER_NS;

/// The niceness of work that can wait.
const PATIENT: i32 = 10;

/// The running threads of one device. They stop when this is dropped, or when the device halts.
#[derive(Debug)]
pub struct Threads {
    device: Arc<Device>,
    stop: Arc<AtomicBool>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts the background work of `device`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Storage`] if the system refuses a thread.
    pub fn start(device: &Arc<Device>) -> Result<Threads> {
        let threads =
            Threads { device: device.clone(), stop: Arc::default(), running: Mutex::default() };
        let mut patience = FRAME_NS.start;
        threads.spawn(
            device,
            "control",
            |d| &d.wakes.line,
            move |device, heard| {
                if device.step_control()? {
                    patience = FRAME_NS.start;
                } else if device.owes_control() {
                    wait_for_frame(device, Lane::Control, heard, &mut FRAME_NS.start.clone());
                } else {
                    wait_for_frame(device, Lane::Control, heard, &mut patience);
                }
                Ok(())
            },
        )?;
        let mut patience = FRAME_NS.start;
        threads.spawn(
            device,
            "receive",
            |d| &d.wakes.line,
            move |device, heard| {
                match device.step_receive()? {
                    0 => wait_for_frame(device, Lane::Data, heard, &mut patience),
                    // One sync and one acknowledgement for what comes soon after.
                    few if !device.is_full_batch(few / 4) => std::thread::sleep(GATHER / 2),
                    _ => {}
                }
                Ok(())
            },
        )?;
        let mut is_new = false;
        threads.spawn(
            device,
            "commit",
            |d| &d.wakes.commit,
            move |device, heard| {
                if std::mem::take(&mut is_new) {
                    device.gather_for_commit(heard);
                } else if !device.step_commit_due()? {
                    is_new = device.rest_from_commits(heard);
                }
                Ok(())
            },
        )?;
        threads.spawn(
            device,
            "ship",
            |d| &d.wakes.ship,
            |device, heard| {
                let committed = device.own.committed();
                device.send_questions();
                let climbed = device.step_ladder()?;
                match device.step_ship()? {
                    0 if climbed => {}
                    0 => device.rest_from_shipping(heard, committed),
                    few if !device.is_full_batch(few) => std::thread::sleep(GATHER),
                    _ => {}
                }
                Ok(())
            },
        )?;
        threads.spawn(
            device,
            "reflect",
            |d| &d.wakes.reflect,
            |device, heard| {
                let seen = device.logged();
                let reflected = device.step_reflect_due()?;
                let checkpointed = device.step_checkpoint()?;
                if reflected == 0 && !checkpointed {
                    device.rest_from_reflecting(heard, seen);
                }
                Ok(())
            },
        )?;
        threads.spawn(
            device,
            "calls",
            |d| &d.host.calls.bell,
            |device, heard| {
                if device.step_calls() == 0 {
                    device.rest_from_calls(heard);
                }
                Ok(())
            },
        )?;
        Ok(threads)
    }

    fn spawn(
        &self,
        device: &Arc<Device>,
        name: &str,
        bell: fn(&Device) -> &Bell,
        mut step: impl FnMut(&Device, u64) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (device, stop) = (device.clone(), self.stop.clone());
        let patient = name == "reflect";
        let name = format!("{}-{name}", device.geometry().device);
        let run = move || {
            if patient {
                // Reflection can wait as long as hosts keep the processors busy; when they wait
                // for it, they do not. Where this is not allowed it is done without.
                let _ = setpriority_process(Some(gettid()), PATIENT);
            }
            loop {
                // Before anything is looked at, whether to stop included: the step does not sleep
                // through a ring from here on.
                let heard = bell(&device).heard();
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let stepped = catch_unwind(AssertUnwindSafe(|| step(&device, heard)));
                let what = "a background step panicked, which is a fault of this program: report it, \
                            with the panic's message";
                let stepped = stepped.unwrap_or_else(|_| Err(Error::new(Kind::Halted, what)));
                if let Err(error) = stepped {
                    // Nothing goes on without this thread. A device that has halted says no more.
                    let _telling = device.events.enter();
                    device.halt(error);
                    // Requests that wait end, and their callbacks are called.
                    device.step_calls();
                    break;
                }
            }
        };
        let spawned = std::thread::Builder::new().name(name).spawn(run);
        let handle = spawned.map_err(|e| Error::storage("starting a background thread", e))?;
        lock(&self.running).push(handle);
        Ok(())
    }

    /// Stops the threads and waits for them. The connection ends, as nobody is left to listen to it:
    /// so no thread waits for a frame meanwhile.
    pub fn stop(self) {}
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        {
            let _telling = self.device.events.enter();
            self.device.hang_up(&Error::new(Kind::NoPeer, "the threads of the device are stopped"));
        }
        self.device.ring_all();
        for handle in lock(&self.running).drain(..) {
            handle.thread().unpark();
            // A panic there has been reported by the panic hook; there is nothing to add.
            let _ = handle.join();
        }
    }
}

/// Waits for a frame in `lane`, or for a link; `heard` is from before the last look.
fn wait_for_frame(device: &Device, lane: Lane, heard: u64, patience: &mut u64) {
    let awaited = lock(&device.failover).awaited(lane);
    match awaited {
        Some(link) if link.wait(lane, *patience) => *patience = FRAME_NS.start,
        Some(_) => *patience = (2 * *patience).min(FRAME_NS.end),
        None => device.wakes.line.wait(heard, None),
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
        let threads =
            Threads { device: device.clone(), stop: Arc::default(), running: Mutex::default() };
        let refused = |_: &Device, _| Err(Error::new(Kind::Timeout, "nobody foresaw this"));
        threads.spawn(&device, "odd", |d| &d.host.calls.bell, refused).unwrap();
        let handle = lock(&threads.running).pop().unwrap();
        handle.join().unwrap();
        let halted = device.status().halted.expect("halted");
        assert_eq!(halted.kind(), Kind::Halted);
        assert!(halted.to_string().contains("nobody foresaw this"), "{halted}");
    }
}
