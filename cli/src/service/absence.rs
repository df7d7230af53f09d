//! The device's own watch on its hosts: when there has been none for so long, the host is offered to the peer.
//!
//! # Rules
//! - **For want of hosts only**: one must have opened an export in this tenure.
//! - **Once**: after an offer, whatever comes of it, a host must be seen again before the next.
//! - **To a peer that is there**: while none is connected the offer waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afterimage::{Clock, Device, SystemClock};
use serde_json::json;

use super::hosts::Hosts;
use super::news::News;
use crate::words::duration;

/// How often hosts are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// The device and its hosts, as a look finds them.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The tenure in which hosts are served; 0: they are not.
    tenure: u64,
    /// How many have an export open.
    hosts: usize,
    /// How often one was opened since the service's start.
    opened: u64,
    connected: bool,
}

/// The watch, and what it has seen.
#[derive(Debug)]
struct Watch {
    /// For so long there must have been no host.
    most: Duration,
    tenure: u64,
    opened: u64,
    has_had_one: bool,
    gone_since: Option<Instant>,
}

impl Watch {
    fn new(most: Duration) -> Watch {
        Watch { most, tenure: 0, opened: 0, has_had_one: false, gone_since: None }
    }

    /// Whether the host is to be offered now.
    fn look(&mut self, now: Instant, seen: Seen) -> bool {
        let is_new_tenure = seen.tenure != self.tenure;
        let has_come = seen.hosts > 0 || seen.opened != self.opened && !is_new_tenure;
        (self.tenure, self.opened) = (seen.tenure, seen.opened);
        self.has_had_one = has_come || self.has_had_one && !is_new_tenure;
        if has_come || is_new_tenure {
            self.gone_since = None;
        }
        if seen.tenure == 0 || seen.hosts > 0 || !self.has_had_one {
            return false;
        }
        let since = *self.gone_since.get_or_insert(now);
        let is_due = seen.connected && now.saturating_duration_since(since) >= self.most;
        self.has_had_one &= !is_due;
        is_due
    }
}

/// The thread of the watch. Dropped, it ends.
pub struct Absence {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Absence {
    /// Offers the host of `device` to its peer once there has been none of `hosts` for `most`.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn start(
        most: Duration,
        device: &Arc<Device>,
        hosts: &Arc<Hosts>,
        news: &Arc<News>,
    ) -> std::io::Result<Absence> {
        let stop = Arc::<(Mutex<bool>, Condvar)>::default();
        let (stops, device, hosts) = (stop.clone(), Arc::downgrade(device), Arc::downgrade(hosts));
        let news = news.clone();
        let mut watch = Watch::new(most);
        let run = move || {
            while !has_stopped(&stops) && look(&mut watch, (&device, &hosts), &news).is_some() {}
        };
        let thread = std::thread::Builder::new().name("hosts' absence".into()).spawn(run)?;
        Ok(Absence { stop, thread: Some(thread) })
    }
}

fn has_stopped((stop, bell): &(Mutex<bool>, Condvar)) -> bool {
    let stop = stop.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = bell.wait_timeout_while(stop, LOOK, |stop| !*stop);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

/// A look; `None` once the service is gone.
fn look(
    watch: &mut Watch,
    (device, hosts): (&Weak<Device>, &Weak<Hosts>),
    news: &News,
) -> Option<()> {
    let (device, hosts) = (device.upgrade()?, hosts.upgrade()?);
    let status = device.status();
    let tenure = if status.serving { status.epoch } else { 0 };
    let (open, opened) = hosts.open();
    let seen = Seen { tenure, hosts: open, opened, connected: status.connected };
    if watch.look(Instant::now(), seen) {
        let most = duration(watch.most.as_nanos() as u64);
        let outcome = match device.offer_host() {
            Ok(()) => "it is offered to the peer".to_owned(),
            Err(error) => format!("the peer cannot be offered it: {error}"),
        };
        let text = format!("no host has been here for {most}: {outcome}");
        let at = SystemClock::default().wall();
        news.put("hosts-gone", text, json!({ "tenure": tenure, "outcome": outcome }), at);
    }
    Some(())
}

impl Drop for Absence {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    /// Looks at these times, in seconds; those at which the host is offered.
    fn offers(looks: &[(u64, Seen)]) -> Vec<u64> {
        let (begun, mut watch) = (Instant::now(), Watch::new(MOST));
        let mut offered = Vec::new();
        for &(at, seen) in looks {
            if watch.look(begun + Duration::from_secs(at), seen) {
                offered.push(at);
            }
        }
        offered
    }

    const HERE: Seen = Seen { tenure: 3, hosts: 1, opened: 1, connected: true };
    const GONE: Seen = Seen { hosts: 0, ..HERE };

    #[test]
    fn a_host_that_is_gone_for_long_enough_is_offered_once() {
        let looks = [(0, HERE), (5, GONE), (14, GONE), (15, GONE), (40, GONE), (60, GONE)];
        assert_eq!(offers(&looks), [15]);
        // It came, and went between two looks.
        let again = Seen { opened: 2, ..GONE };
        let looks = [(0, HERE), (5, GONE), (15, GONE), (20, again), (29, again), (30, again)];
        assert_eq!(offers(&looks), [15, 30]);
        let looks = [(0, HERE), (5, GONE), (14, HERE), (15, GONE), (24, GONE), (25, GONE)];
        assert_eq!(offers(&looks), [25]);
    }

    #[test]
    fn without_a_host_in_this_tenure_nothing_is_offered() {
        assert_eq!(offers(&[(0, GONE), (50, GONE)]), [0; 0]);
        let next = Seen { tenure: 4, ..GONE };
        let elsewhere = Seen { tenure: 0, ..GONE };
        let looks = [(0, HERE), (1, elsewhere), (2, next), (50, next)];
        assert_eq!(offers(&looks), [0; 0]);
        let came = Seen { opened: 2, ..next };
        assert_eq!(offers(&[(0, HERE), (1, elsewhere), (2, next), (3, came), (13, came)]), [13]);
    }

    #[test]
    fn the_offer_waits_for_a_peer() {
        let alone = Seen { connected: false, ..GONE };
        assert_eq!(offers(&[(0, HERE), (5, alone), (30, alone), (31, GONE), (60, GONE)]), [31]);
    }
}
