//! Waiting without polling: a request that cannot go on is woken when it can, as a future, by its
//! callback, or in a parked thread, and is not woken in vain.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::{Kind, Result};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Durability, Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::request::{Request, Session, Ticket};
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use common::hooked::{Call, Hooked};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);
const BLOCK: usize = 4096;

/// Counts how often it was woken, and unparks its thread.
struct Woken(AtomicUsize, std::thread::Thread);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
        self.1.unpark();
    }
}

fn sleeper() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken(AtomicUsize::new(0), std::thread::current()));
    (woken.clone(), Waker::from(woken))
}

fn poll(ticket: &mut Ticket, waker: &Waker) -> Poll<std::result::Result<(), Kind>> {
    let outcome = Pin::new(ticket).poll(&mut Context::from_waker(waker));
    outcome.map(|outcome| outcome.map(drop).map_err(|e| e.kind()))
}

fn device(number: u64, settings: Settings) -> Arc<Device> {
    device_on(Arc::new(Memory::new()), number, settings)
}

fn device_on(storage: Arc<dyn Storage>, number: u64, settings: Settings) -> Arc<Device> {
    let mut geometry = Geometry::new(7, number, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    geometry.journal_bytes = 16 << 20;
    Device::create(&*storage, &geometry, number == 1).unwrap();
    Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap()
}

/// A pair of which the first serves, and the first's end of the line.
fn pair(settings: Settings) -> ([Arc<Device>; 2], MemoryLink) {
    let devices = [1, 2].map(|number| device(number, settings.clone()));
    let clock: Arc<dyn Clock> = devices[0].clock().clone();
    let (end_a, end_b) = memory_link(Line::default(), clock);
    devices[0].connect(Arc::new(end_a.clone())).unwrap();
    devices[1].connect(Arc::new(end_b)).unwrap();
    for _ in 0..4 {
        devices.iter().for_each(|device| while device.step_control().unwrap() {});
    }
    (devices, end_a)
}

/// Everything that the background of both does.
fn steps(devices: &[Arc<Device>; 2]) {
    for device in devices {
        while device.step_control().unwrap() {}
        device.step_receive().unwrap();
        device.step_commit().unwrap();
        while device.step_ship().unwrap() > 0 {}
        while device.step_reflect().unwrap() > 0 {}
        device.checkpoint_now().unwrap();
    }
}

fn submit(session: &Session, number: usize) -> Ticket {
    let data = [number as u8; BLOCK];
    let offset = (number % 64 * BLOCK) as u64;
    session.submit(Request::write(0, offset, &[IoSlice::new(&data)])).unwrap()
}

/// A ticket that waits, with what wakes it.
type Waiting = (Ticket, Arc<Woken>, Waker);

fn try_write(session: &Session, number: usize) -> Option<Waiting> {
    let (woken, waker) = sleeper();
    let mut ticket = submit(session, number);
    poll(&mut ticket, &waker).is_pending().then_some((ticket, woken, waker))
}

/// Writes until a write finds no place though all before it are committed.
fn fill(session: &Session) -> Waiting {
    for number in 0.. {
        if let Some(waiting) = try_write(session, number) {
            session.device().step_commit().unwrap();
            if waiting.1.0.load(SeqCst) == 0 {
                return waiting;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_durable_write_is_polled_when_its_commit_has_ended() {
    let device = device(1, Settings::default());
    let threads = Threads::start(&device).unwrap();
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let (woken, waker) = sleeper();
    let began = Instant::now();
    let mut polls = 0;
    for number in 0..50 {
        let data = [number; BLOCK];
        let slices = [IoSlice::new(&data)];
        let request = Request::write(0, 0, &slices).fua();
        let mut ticket = session.submit(request).unwrap();
        loop {
            polls += 1;
            let before = woken.0.load(SeqCst);
            match poll(&mut ticket, &waker) {
                Poll::Ready(outcome) => break outcome.unwrap(),
                Poll::Pending => {
                    while woken.0.load(SeqCst) == before {
                        assert!(began.elapsed() < LONG, "nobody woke it");
                        std::thread::park_timeout(LONG);
                    }
                }
            }
        }
    }
    assert!(polls <= 100, "{polls} polls of 50 writes");
    threads.stop();
}

/// A host is slow to give its write to the log file, and leads no commit: another's is woken once,
/// when that one is done.
#[test]
fn a_written_write_is_woken_when_the_log_is_free() {
    let hooked = Arc::new(Hooked::default());
    let settings = Settings { durability: Durability::Written, ..Settings::default() };
    let device = device_on(hooked.clone(), 1, settings);
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let (at_log, comes) = mpsc::channel();
    let (go_on, hangs) = mpsc::channel::<()>();
    hooked.when(Call::Write, FileName::OwnLog, move || {
        at_log.send(()).unwrap();
        let _ = hangs.recv_timeout(LONG);
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| session.write(0, 0, &[1; BLOCK]).unwrap());
        comes.recv().unwrap();
        let (woken, waker) = sleeper();
        let mut ticket = submit(&session, 1);
        for _ in 0..3 {
            assert!(poll(&mut ticket, &waker).is_pending());
        }
        assert_eq!(woken.0.load(SeqCst), 0, "the log is not free");
        let (say, hear) = mpsc::channel();
        let (data, offset) = ([2; BLOCK], 2 * BLOCK as u64);
        let slices = [IoSlice::new(&data)];
        let request = Request::write(0, offset, &slices);
        session.submit_with(request, move |done| say.send(done.is_ok()).unwrap()).unwrap();
        for _ in 0..3 {
            assert_eq!(device.step_calls(), 0);
        }
        go_on.send(()).unwrap();
        slow.join().unwrap();
        assert_eq!(woken.0.load(SeqCst), 1);
        assert_eq!(poll(&mut ticket, &waker), Poll::Ready(Ok(())));
        assert_eq!(device.step_calls(), 1);
        assert!(hear.recv().unwrap());
    });
}

/// A loop without threads reflects, commits, and asks how long it may sleep: not for ever, as what it has
/// committed is to be reflected.
#[test]
fn a_loop_is_told_of_the_reflection_that_it_owes() {
    let device = device(1, Settings::default());
    device.resume_alone().unwrap();
    assert_eq!(device.next_deadline(), None);
    device.session().unwrap().write(0, 0, &[1; BLOCK]).unwrap();
    assert_eq!(device.step_reflect_due().unwrap(), 0);
    assert!(device.step_commit().unwrap());
    let within = device.clock().monotonic() + Settings::default().reflect_interval_ns;
    assert!(device.next_deadline().is_some_and(|deadline| deadline <= within));
    assert_eq!(device.step_reflect().unwrap(), 1);
}

/// Ten wait for places. They are woken in the order in which they came, once each, and one that is
/// dropped leaves its place to the next.
#[test]
fn places_wake_those_who_wait_for_them() {
    let (devices, line) = pair(Settings::default());
    let session = devices[0].session().unwrap();
    line.hold(Lane::Data, true);
    let mut waiting = vec![fill(&session)];
    waiting.extend((0..9).map(|number| try_write(&session, number).expect("there is no place")));
    steps(&devices);
    assert!(waiting.iter().all(|w| w.1.0.load(SeqCst) == 0), "nothing has come free");
    line.hold(Lane::Data, false);
    let began = Instant::now();
    let mut dropped = false;
    while !waiting.is_empty() {
        assert!(began.elapsed() < LONG, "{} wait for ever", waiting.len());
        steps(&devices);
        let is_woken = |w: &Waiting| w.1.0.load(SeqCst) > 0;
        let woken = waiting.iter().take_while(|w| is_woken(w)).count();
        assert!(!waiting[woken..].iter().any(is_woken), "the first first");
        if woken > 0 && !dropped {
            // The wake meant for it is the next one's.
            dropped = true;
            drop(waiting.remove(0));
            continue;
        }
        for (mut ticket, woken, waker) in waiting.drain(..woken) {
            assert_eq!(poll(&mut ticket, &waker), Poll::Ready(Ok(())));
            assert_eq!(woken.0.load(SeqCst), 1);
        }
    }
    assert!(dropped);
}

/// A ticket whose time is over is woken by the step that keeps the time, which tells when that is.
#[test]
fn a_ticket_is_woken_when_its_time_is_over() {
    let settings = Settings { admit_timeout_ns: 50_000_000, ..Settings::default() };
    let device = device(1, settings);
    device.resume_alone().unwrap();
    let session = device.session().unwrap();
    let (mut ticket, woken, waker) = fill(&session);
    while device.step_reflect().unwrap() > 0 {}
    device.checkpoint_now().unwrap();
    let deadline = device.next_deadline().expect("the ticket's time");
    let before = device.clock().monotonic();
    device.step_calls();
    if device.clock().monotonic() < deadline {
        assert_eq!(woken.0.load(SeqCst), 0, "its time is not over");
    }
    std::thread::sleep(Duration::from_nanos(deadline.saturating_sub(before)));
    device.step_calls();
    assert_eq!(woken.0.load(SeqCst), 1);
    assert_eq!(poll(&mut ticket, &waker), Poll::Ready(Err(Kind::JournalFull)));
    assert_eq!(device.next_deadline(), None);
}

/// A callback runs in a thread of its own, with no lock of the engine held: it may use the device.
#[test]
fn a_callback_may_use_the_device() {
    let hooked = Arc::new(Hooked::default());
    let device = device_on(hooked.clone(), 1, Settings::default());
    let threads = Threads::start(&device).unwrap();
    device.resume_alone().unwrap();
    let (tell, told) = mpsc::channel();
    let next = device.session().unwrap();
    let data = [IoSlice::new(&[7; BLOCK])];
    let request = || Request::write(0, 0, &data).fua();
    let done = move |outcome: afterimage::internal::error::Result<_>| {
        outcome.unwrap();
        next.device().status();
        next.flush().unwrap();
        tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
    };
    // It is not durable before `submit_with` has returned.
    let (go_on, hangs) = mpsc::channel::<()>();
    hooked.when(Call::Sync, FileName::OwnLog, move || {
        let _ = hangs.recv_timeout(LONG);
    });
    device.session().unwrap().submit_with(request(), done).unwrap();
    go_on.send(()).unwrap();
    let name = told.recv_timeout(LONG).unwrap();
    assert_eq!(name.as_deref(), Some("1-calls"));
    threads.stop();
}

/// Hosts that wait for places in parked threads, for much longer than the journal has room: a
/// wake-up that is lost is a request that times out.
#[test]
fn parked_hosts_are_woken() {
    let (devices, line) = pair(Settings { suspend_from_percent: 0, ..Settings::default() });
    let threads = devices.each_ref().map(|device| Threads::start(device).unwrap());
    line.hold(Lane::Data, true);
    std::thread::scope(|scope| {
        // One session: a later one that writes would supersede the others (R20).
        let session = devices[0].session().unwrap();
        for host in 0..4 {
            let session = session.clone();
            scope.spawn(move || {
                for number in 0..1_000 {
                    let offset = ((host * 16 + number % 13) * BLOCK) as u64;
                    session.write(0, offset, &[host as u8; 3 * BLOCK]).unwrap();
                }
            });
        }
        while devices[0].status().own_free_places >= 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        line.hold(Lane::Data, false);
    });
    threads.into_iter().for_each(Threads::stop);
}

/// A line whose data lane is full at every second look, and has room by the next.
struct Flickering(MemoryLink, AtomicUsize);

impl Link for Flickering {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        self.0.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.0.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        let is_full = lane == Lane::Data && self.1.fetch_add(1, SeqCst).is_multiple_of(2);
        if is_full { u64::MAX } else { self.0.queued(lane) }
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.0.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.0.close();
    }
}

/// A lane that is full when a batch is to be sent has room a moment later, before the thread that
/// ships goes to sleep: it sends the batch all the same.
#[test]
fn a_batch_that_found_a_full_lane_is_sent() {
    let devices = [1, 2].map(|number| device(number, Settings::default()));
    let (end_a, end_b) = memory_link(Line::default(), devices[0].clock().clone());
    let flickering = Flickering(end_a, AtomicUsize::new(0));
    devices[0].connect(Arc::new(flickering)).unwrap();
    devices[1].connect(Arc::new(end_b)).unwrap();
    for _ in 0..4 {
        devices.iter().for_each(|device| while device.step_control().unwrap() {});
    }
    let _threads = devices.each_ref().map(|device| Threads::start(device).unwrap());
    let session = devices[0].session().unwrap();
    for number in 0..20 {
        let written = session.write(0, 0, &[number; BLOCK]).unwrap();
        session.flush().unwrap();
        let until = Instant::now() + LONG;
        while devices[0].status().acked < written {
            assert!(Instant::now() < until, "write {number} has never been shipped");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes wait up to a bound in bytes. One more is refused, with its buffer left to the caller, or
/// its blocking call waits until there is room.
#[test]
fn what_waits_is_bounded_by_bytes() {
    // Three writes of a block.
    let settings = Settings { waiting_bytes_max: 3 * 5000, ..Settings::default() };
    let (devices, line) = pair(settings);
    let session = devices[0].session().unwrap();
    line.hold(Lane::Data, true);
    let mut waiting = vec![fill(&session)];
    waiting.extend((0..2).map(|number| try_write(&session, number).expect("there is no place")));
    let refused = |offset| {
        let mut buffer = vec![9; BLOCK];
        let refused = session.submit(Request::write_buffer(0, offset, &mut buffer)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        assert!(refused.kind().is_retryable());
        assert_eq!(buffer, [9; BLOCK]);
    };
    refused(0);
    refused(512);
    let zeroes = Request::write_zeroes(0, 512, 2 * BLOCK as u64);
    assert_eq!(session.submit(zeroes).unwrap_err().kind(), Kind::Busy);
    // A dropped request makes room, once.
    drop(waiting.pop());
    waiting.push(try_write(&session, 5).expect("there is no place"));
    refused(0);
    std::thread::scope(|scope| {
        let session = &session;
        let hosts = [7, 8].map(|value| {
            let offset = u64::from(value) * BLOCK as u64;
            scope.spawn(move || session.write(0, offset, &[value; BLOCK]).unwrap())
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(hosts.iter().all(|host| !host.is_finished()), "there is no room");
        line.hold(Lane::Data, false);
        let began = Instant::now();
        while hosts.iter().any(|host| !host.is_finished()) {
            assert!(began.elapsed() < LONG, "nobody woke a host");
            steps(&devices);
            waiting.retain_mut(|(ticket, _, waker)| poll(ticket, waker).is_pending());
        }
    });
    assert!(waiting.is_empty());
}

/// A journal has more places than cells for data on its way to the log: a write that finds all cells
/// taken waits for a commit, though places are free, and no data is lost.
#[test]
fn a_write_waits_for_a_cell() {
    const SMALL: usize = 512;
    const BLOCKS: u64 = 100;
    let storage = Arc::new(Hooked::default());
    storage.is_sparse.store(true, SeqCst);
    let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * SMALL as u64 }];
    let mut geometry = Geometry::new(7, 1, volumes);
    (geometry.block_size, geometry.journal_bytes) = (SMALL as u32, 256 << 20);
    Device::create(&*storage, &geometry, true).unwrap();
    let clock = Arc::new(SystemClock::default());
    // No commit is due but for the host that waits.
    let (commit_interval_ns, commit_bytes) = (3_600_000_000_000, 1 << 40);
    let settings = Settings { commit_interval_ns, commit_bytes, ..Settings::default() };
    let device = Device::open(storage, clock, settings).unwrap();
    device.resume_alone().unwrap();
    let host = device.session().unwrap();
    let (_, waker) = sleeper();
    let of = |write: u64| (write % BLOCKS, [write as u8; SMALL]);
    let mut writes = 0;
    for round in 0..3 {
        let free = device.status().own_free_places;
        let mut last = loop {
            let (block, data) = of(writes);
            writes += 1;
            let slices = [IoSlice::new(&data)];
            let request = Request::write(0, block * SMALL as u64, &slices);
            let mut ticket = host.submit(request).unwrap();
            if poll(&mut ticket, &waker).is_pending() {
                break ticket;
            }
        };
        assert!(writes > (round + 1) * 16_000 && writes < (round + 1) * 17_000, "{writes}");
        assert!(free <= 17_000, "{free} places, and fewer cells");
        assert!(device.step_commit_due().unwrap());
        assert_eq!(poll(&mut last, &waker), Poll::Ready(Ok(())));
        let mut found = [0; SMALL];
        for write in writes - BLOCKS..writes {
            let (block, data) = of(write);
            host.read(0, block * SMALL as u64, &mut found).unwrap();
            assert_eq!(found, data);
        }
    }
}
