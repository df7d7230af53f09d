//! Pacing: writes are delayed while the own journal is filling, by no more than a bound, and hold
//! nothing meanwhile.
#![cfg(not(loom))]

mod common;

use afterimage::internal::clock::SystemClock;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, MemoryLink, memory_link};
use afterimage::internal::storage::{FileName, Storage};
use afterimage::internal::threads::Threads;
use afterimage::{Clock, Completion, Device, Event, Kind, Request, Rung, Session, Ticket};
use common::ManualClock;
use common::hooked::{Call, Hooked};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);
const BLOCK: usize = 4096;
const SECOND: u64 = 1_000_000_000;
const FROM: u64 = 50;
const UNTIL: u64 = 30;

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A pair of which the first serves and paces; the second takes nothing until it is told to.
struct Paced {
    devices: [Arc<Device>; 2],
    disk: Arc<Hooked>,
    clock: Arc<ManualClock>,
    /// The first device's end of the line, kept.
    _line: MemoryLink,
    session: Session,
    told: Arc<Mutex<Vec<String>>>,
}

fn settings(pacing_max_ns: u64) -> Settings {
    Settings {
        pacing_max_ns,
        pacing_from_percent: FROM,
        pacing_until_percent: UNTIL,
        // One record at a time.
        ship_bytes_max: 1,
        ..Settings::default()
    }
}

fn device(number: u64, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, max: u64) -> Arc<Device> {
    let mut geometry = Geometry::new(7, number, vec![VolumeSpec { id: 0, bytes: 1 << 30 }]);
    geometry.journal_bytes = 16 << 20;
    Device::create(&*storage, &geometry, number == 1).unwrap();
    Device::open(storage, clock, settings(max)).unwrap()
}

impl Paced {
    fn new(pacing_max_ns: u64) -> Paced {
        let clock = Arc::new(ManualClock::default());
        let disks = [1, 2].map(|_| Arc::new(Hooked::default()));
        let open =
            |at: usize| device(at as u64 + 1, disks[at].clone(), clock.clone(), pacing_max_ns);
        let devices = [open(0), open(1)];
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        devices[0].on_event(move |event| match event {
            Event::Paced { fill_percent } if *fill_percent >= FROM => {
                tell.lock().unwrap().push("paced".into());
            }
            Event::PacingEnded { fill_percent } if *fill_percent < UNTIL => {
                tell.lock().unwrap().push("ended".into());
            }
            Event::Paced { .. } | Event::PacingEnded { .. } => {
                tell.lock().unwrap().push(format!("{event:?}"));
            }
            _ => {}
        });
        let (end_a, end_b) = memory_link(Line::default(), clock.clone());
        devices[0].connect(Arc::new(end_a.clone())).unwrap();
        devices[1].connect(Arc::new(end_b)).unwrap();
        for _ in 0..4 {
            devices.iter().for_each(|device| while device.step_control().unwrap() {});
        }
        let session = devices[0].session().unwrap();
        let [disk, _] = disks;
        Paced { devices, disk, clock, _line: end_a, session, told }
    }

    fn serving(&self) -> &Device {
        &self.devices[0]
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn submit(&self, number: usize) -> Ticket {
        let data = [number as u8; BLOCK];
        let offset = (number % 64 * BLOCK) as u64;
        self.session.submit(Request::write(0, offset, &[IoSlice::new(&data)])).unwrap()
    }

    /// Writes, and lets the time of each delay pass, until the journal is so full.
    fn fill(&self, percent: u64) {
        for number in 0.. {
            if self.serving().status().own_fill_percent >= percent {
                return;
            }
            let mut ticket = self.submit(number);
            if ticket.poll().is_none() {
                self.clock.pass(SECOND);
                ticket.poll().expect("its delay is over").unwrap();
            }
            if number % 16 == 0 {
                self.serving().step_commit().unwrap();
            }
        }
    }

    /// The second device takes so many records, and both give up what they can.
    fn take(&self, records: usize) {
        let [a, b] = &self.devices;
        a.step_commit().unwrap();
        for _ in 0..records {
            a.step_ship().unwrap();
            b.step_receive().unwrap();
            while a.step_control().unwrap() {}
        }
        for device in &self.devices {
            while device.step_reflect().unwrap() > 0 {}
            device.checkpoint_now().unwrap();
        }
        while a.step_control().unwrap() {}
    }

    fn delay(&self) -> u64 {
        match self.serving().status().rung {
            Rung::Paced { delay_ns } => delay_ns,
            rung => panic!("{rung:?}"),
        }
    }

    /// A write that is delayed.
    fn delayed(&self) -> (Ticket, Arc<Woken>) {
        let mut ticket = self.submit(0);
        let woken = Arc::new(Woken::default());
        assert!(poll(&mut ticket, &woken).is_pending(), "it is not delayed");
        (ticket, woken)
    }
}

fn poll(ticket: &mut Ticket, woken: &Arc<Woken>) -> Poll<Result<Completion, Kind>> {
    let waker = Waker::from(woken.clone());
    let outcome = Pin::new(ticket).poll(&mut Context::from_waker(&waker));
    outcome.map(|outcome| outcome.map_err(|e| e.kind()))
}

/// The delay is nothing at the threshold, rises with the fill, and is the bound in a full journal.
#[test]
fn the_delay_rises_with_the_fill_up_to_the_bound() {
    let paced = Paced::new(SECOND);
    assert_eq!(paced.serving().status().rung, Rung::Ordered);
    paced.fill(FROM - 1);
    assert_eq!((paced.serving().status().rung, paced.told()), (Rung::Ordered, vec![]));
    let mut last = 0;
    for percent in [FROM + 1, 60, 70, 80, 90] {
        paced.fill(percent);
        let delay = paced.delay();
        let due = SECOND * (percent - FROM) / (100 - FROM);
        assert!(delay > last && delay.abs_diff(due) <= SECOND / 20, "{delay} at {percent}");
        last = delay;
    }
    assert_eq!(paced.told(), ["paced"]);
    assert!(last <= SECOND);
}

#[test]
fn a_delayed_write_holds_no_place_and_goes_on_in_time() {
    let paced = Paced::new(SECOND);
    paced.fill(75);
    let delay = paced.delay();
    let before = paced.serving().status();
    let (mut ticket, woken) = paced.delayed();
    assert_eq!(paced.serving().status().own_free_places, before.own_free_places);
    let until = paced.clock.monotonic() + delay;
    assert!(paced.serving().next_deadline().is_some_and(|deadline| deadline <= until));
    paced.clock.pass(delay - 1);
    paced.serving().step_calls();
    assert_eq!(woken.0.load(SeqCst), 0, "its time has not come");
    assert!(poll(&mut ticket, &woken).is_pending());
    // The journal is fuller by now: no reason to wait longer.
    paced.clock.pass(1);
    paced.serving().step_calls();
    assert_eq!(woken.0.load(SeqCst), 1);
    let Poll::Ready(Ok(done)) = poll(&mut ticket, &woken) else { panic!("it waits on") };
    assert_eq!((done.paced_ns, done.waited_ns), (delay, 0));
}

/// One that is in several parts, at unaligned edges, is one write.
#[test]
fn a_request_in_parts_is_delayed_once() {
    let paced = Paced::new(SECOND);
    paced.fill(75);
    let request = Request::write_zeroes(0, 512, 3 * BLOCK as u64);
    let mut ticket = paced.session.submit(request).unwrap();
    assert!(ticket.poll().is_none());
    paced.clock.pass(SECOND);
    assert!(ticket.poll().expect("its delay is over").unwrap().paced_ns > 0);
}

#[test]
fn what_takes_no_record_is_not_delayed() {
    let paced = Paced::new(SECOND);
    paced.fill(75);
    let now = |request| paced.session.submit(request).unwrap().poll().is_some();
    assert!(now(Request::read(0, 0, vec![0; BLOCK])));
    // Nothing was written there.
    assert!(now(Request::discard(0, 512 << 20, BLOCK as u64)));
    assert!(!now(Request::discard(0, 0, BLOCK as u64)), "of what was written");
    paced.serving().step_commit().unwrap();
    paced.session.flush().unwrap();
}

/// Between the two thresholds all stays as it is; below the lower one the delayed are woken at once.
#[test]
fn pacing_ends_at_a_threshold_of_its_own() {
    let paced = Paced::new(SECOND);
    paced.fill(75);
    let (mut ticket, woken) = paced.delayed();
    while paced.serving().status().own_fill_percent >= FROM {
        paced.take(100);
    }
    assert!((UNTIL..FROM).contains(&paced.serving().status().own_fill_percent));
    assert_eq!((paced.delay(), paced.told()), (0, vec!["paced".to_owned()]));
    assert_eq!(woken.0.load(SeqCst), 0);
    while paced.serving().status().own_fill_percent >= UNTIL {
        paced.take(100);
    }
    assert_eq!(paced.serving().status().rung, Rung::Ordered);
    assert_eq!((woken.0.load(SeqCst), paced.told()), (1, vec!["paced".into(), "ended".into()]));
    assert!(poll(&mut ticket, &woken).is_ready());
    // There and back again.
    paced.fill(FROM - 1);
    assert_eq!(paced.told().len(), 2);
    paced.fill(FROM + 1);
    assert_eq!(paced.told(), ["paced", "ended", "paced"]);
}

/// Off, it costs nothing, however full the journal is.
#[test]
fn without_a_bound_nothing_is_delayed() {
    let paced = Paced::new(0);
    paced.fill(90);
    assert!(paced.submit(0).poll().is_some());
    assert_eq!((paced.serving().status().rung, paced.told()), (Rung::Ordered, vec![]));
}

#[test]
fn a_device_that_is_done_wakes_the_delayed_at_once() {
    type End = fn(&Paced);
    let ends: [(End, Kind); 4] = [
        (|p| p.serving().close().unwrap(), Kind::Halted),
        (|p| p.session.revoke(), Kind::Superseded),
        (
            |p| {
                p.devices[1].begin_takeover().unwrap();
                while p.serving().step_control().unwrap() {}
            },
            Kind::Fenced,
        ),
        (
            |p| {
                p.disk.when(Call::Sync, FileName::OwnLog, || panic!("the disk is gone"));
                let step = std::panic::AssertUnwindSafe(|| p.serving().step_commit());
                let _ = std::panic::catch_unwind(step);
                p.serving().step_commit().unwrap_err();
            },
            Kind::Halted,
        ),
    ];
    for (end, kind) in ends {
        let paced = Paced::new(SECOND);
        paced.fill(75);
        let (mut ticket, woken) = paced.delayed();
        end(&paced);
        assert!(woken.0.load(SeqCst) > 0, "{kind:?}: nobody woke it");
        assert_eq!(poll(&mut ticket, &woken).map(|o| o.map(drop)), Poll::Ready(Err(kind)));
    }
}

/// A close takes a while; those that wait learn at its beginning that it has begun.
#[test]
fn the_delayed_do_not_wait_for_the_disk_of_a_close() {
    let paced = Paced::new(SECOND);
    paced.fill(75);
    let (mut ticket, woken) = paced.delayed();
    let seen = woken.clone();
    let (tell, told) = mpsc::channel();
    paced.submit(1);
    paced.disk.when(Call::Sync, FileName::OwnLog, move || {
        tell.send(seen.0.load(SeqCst)).unwrap();
    });
    paced.serving().close().unwrap();
    assert_eq!(told.recv().unwrap(), 1);
    assert!(poll(&mut ticket, &woken).is_ready());
}

/// The prediction is by the rate of the last seconds, and there is none when nothing fills.
#[test]
fn the_time_until_the_journal_is_full_is_predicted() {
    let paced = Paced::new(0);
    let full_in = || paced.serving().status().own_full_in_ns;
    assert_eq!(full_in(), None);
    for number in 0..1200 {
        paced.submit(number).poll().expect("there is room").unwrap();
        if number % 20 == 19 {
            paced.clock.pass(SECOND / 10);
            paced.serving().step_commit().unwrap();
        }
    }
    // 5 % a second, from 31 %.
    let seconds = full_in().expect("it fills") / SECOND;
    assert!((12..=15).contains(&seconds), "{seconds}");
    paced.clock.pass(3 * SECOND);
    assert_eq!(full_in(), None, "nothing was written for long");
    paced.serving().step_commit().unwrap();
    assert_eq!(full_in(), None);
}

/// Threads that wait in a parked thread, and callbacks, need nobody's steps but the device's own.
#[test]
fn parked_threads_and_callbacks_go_on_by_themselves() {
    let clock = Arc::new(SystemClock::default());
    let device = device(1, Arc::new(Hooked::default()), clock, 20_000_000);
    let threads = Threads::start(&device).unwrap();
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let data = [1; BLOCK];
    while device.status().rung == Rung::Ordered || device.status().own_fill_percent < 60 {
        session.write(0, 0, &data).unwrap();
    }
    let slices = [IoSlice::new(&data)];
    let (say, hear) = mpsc::channel();
    let done = move |outcome: afterimage::Result<Completion>| say.send(outcome).unwrap();
    session.submit_with(Request::write(0, 0, &slices), done).unwrap();
    let paced_ns = hear.recv_timeout(LONG).expect("nobody called").unwrap().paced_ns;
    assert!((1..=20_000_000).contains(&paced_ns), "{paced_ns}");
    let ticket = session.submit(Request::write(0, 0, &slices)).unwrap();
    let began = std::time::Instant::now();
    let paced_ns = ticket.wait().unwrap().paced_ns;
    assert!(paced_ns > 0 && began.elapsed() < LONG);
    threads.stop();
}
