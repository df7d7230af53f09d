//! Commands of an operator's at changes of role: for an address that moves.
//!
//! # Rules
//! - **In the order of the changes**, one at a time, in a thread of their own: no hook delays the device.
//! - **`ready` ends before hosts are told** that they reach this device; then the peer hangs up on those that it keeps.
//! - **Within the limit**: a hook that takes longer is killed, and all goes on.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afterimage::{Clock, Device, Event, SystemClock};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::config;
use super::news::News;
use super::systemd;

/// How often a hook that runs is looked at.
const LOOK: Duration = Duration::from_millis(5);

enum Next {
    /// The device serves.
    Ready {
        device: Weak<Device>,
        epoch: u64,
        owed_blocks: u64,
    },
    /// The host is granted to the peer, or an operator has stopped it.
    Fenced {
        device: Weak<Device>,
        epoch: u64,
    },
    End,
}

/// The thread of the hooks. Dropped, it ends after the hook that runs.
pub struct Hooks {
    next: Mutex<Sender<Next>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hooks {
    /// Runs the hooks of `settings` at the changes of the devices that it follows, and tells what comes of them.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn start(settings: config::Hooks, news: &Arc<News>) -> std::io::Result<Hooks> {
        let (next, come) = channel();
        let news = news.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stops = stop.clone();
        let run = move || run_all((&come, &stops), &settings, &news);
        let thread = std::thread::Builder::new().name("hooks".into()).spawn(run)?;
        Ok(Hooks { next: Mutex::new(next), stop, thread: Some(thread) })
    }

    /// Runs them at the changes of `device`, the present one among them if it serves already.
    pub fn follow(&self, device: &Arc<Device>) {
        let weak = Arc::downgrade(device);
        // A listener may be called by several threads, one after the other.
        let tell = Mutex::new(lock(&self.next).clone());
        device.on_event(move |event| {
            let device = weak.clone();
            let change = match *event {
                Event::Ready { epoch, owed_blocks } => Next::Ready { device, epoch, owed_blocks },
                Event::Fenced { epoch, .. } | Event::FencedHere { epoch, .. } => {
                    Next::Fenced { device, epoch }
                }
                _ => return,
            };
            // After the end no hook runs.
            let _ = lock(&tell).send(change);
        });
        let status = device.status();
        if status.serving {
            let device = Arc::downgrade(device);
            let (epoch, owed_blocks) = (status.epoch, status.owed_blocks);
            let _ = lock(&self.next).send(Next::Ready { device, epoch, owed_blocks });
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = lock(&self.next).send(Next::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_all((come, stop): (&Receiver<Next>, &AtomicBool), settings: &config::Hooks, news: &News) {
    let limit = Duration::from_nanos(settings.limit.0);
    for next in come {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let (device, name, words, epoch, owed_blocks) = match next {
            Next::Ready { device, epoch, owed_blocks } => {
                (device, "ready", &settings.ready, epoch, owed_blocks)
            }
            Next::Fenced { device, epoch } => (device, "fenced", &settings.fenced, epoch, 0),
            Next::End => return,
        };
        // One that was opened again has changes of its own.
        let Some(device) = device.upgrade().filter(|device| device.status().halted.is_none())
        else {
            continue;
        };
        if let [program, arguments @ ..] = &words[..] {
            let mut command = Command::new(program);
            systemd::keep_from(&mut command);
            command
                .args(arguments)
                .env("AFTERIMAGE_EVENT", name)
                .env("AFTERIMAGE_DEVICE", device.geometry().device.to_string())
                .env("AFTERIMAGE_TENURE", epoch.to_string())
                .env("AFTERIMAGE_OWED_BLOCKS", owed_blocks.to_string());
            let begun = Instant::now();
            let outcome = run(command, limit);
            let (event, outcome) = match outcome {
                Ok(()) => ("hook", "it has ended well".to_owned()),
                Err(why) => ("hook-failed", why),
            };
            let took = begun.elapsed().as_nanos() as u64;
            let text = format!("hook {name} ({program}): {outcome}");
            let facts = json!({ "hook": name, "outcome": outcome, "took_ns": took });
            news.put(event, text, facts, SystemClock::default().wall());
        }
        if name == "ready" {
            let status = device.status();
            if status.serving && status.epoch == epoch {
                // It may serve no more by now: then hosts belong elsewhere.
                let _ = device.reachable();
            }
        }
    }
}

/// Runs a command to its end, or kills it, with all that it has started.
fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    let until = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("it cannot be started: {e}"))?;
    loop {
        match child.try_wait() {
            Err(e) => return Err(format!("its end cannot be waited for: {e}")),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it has failed: {status}")),
            Ok(None) if Instant::now() >= until => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err(format!(
                    "it took longer than {} ms, and was killed",
                    limit.as_millis()
                ));
            }
            Ok(None) => std::thread::sleep(LOOK),
        }
    }
}
