//! Resident memory and speed of a device while a host writes and never flushes.
//!
//!     cargo run --release -p afterimage-benches --bin memory [-- --quick] [--dir DIR] [--disk]
//!     [--peer] [WRITES]
//!
//! Ten million writes of 4 KiB, to random blocks of a volume that is nowhere. The background commits
//! them to a log in memory, ships them to a peer that acknowledges everything at once, and writes
//! over the log again. Resident memory is looked at after each tenth; as many `pwrite`s to a cached
//! file take turns with the tenths. Fails if memory is not flat after the first tenth: its largest
//! more than 20 % above its smallest.
//!
//! `memory --records [--quick]` counts bytes of memory instead: of a place that is not used, of a
//! record and of what is told ([`records`]).
//!
//! `--disk`: the log is on disk, beside that file, and a commit syncs it. `--peer`: the peer is a
//! whole device, in memory.

mod records;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Result;
use afterimage::internal::format::frame::{Frame, Hello};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, memory_link};
use afterimage::internal::request::Request;
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::internal::unit::Stamp;
use afterimage_benches::split::Split;
use afterimage_benches::{Column, Random, resident};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
const SPAN: u64 = 64 << 20;
const JOURNAL: u64 = 64 << 20;

/// A peer that is only there to acknowledge: no record that it is sent costs it anything.
#[derive(Default)]
struct Drain {
    answers: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
}

impl Drain {
    const NONCE: u64 = 1;

    fn answers(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.answers.lock().expect("nobody panics with it")
    }
}

impl Link for Drain {
    fn send(&self, _: Lane, frame: Vec<u8>) -> Result<()> {
        let credit = 2 * JOURNAL / BLOCK;
        let answer = match Frame::decode(&frame)?.1 {
            Frame::Hello(hello) => Frame::Hello(Hello {
                device: hello.device + 1,
                nonce: Drain::NONCE,
                fenced: true,
                hi: Stamp::ZERO,
                newest: Stamp::ZERO,
                clk: Stamp::ZERO,
                credit,
                ..hello
            }),
            Frame::Ship { records, .. } => {
                let last = records.last().expect("a frame has records");
                Frame::Ack { hi: last.row.stamp, credit }
            }
            _ => return Ok(()),
        };
        self.answers().push_back(answer.encode(Drain::NONCE));
        self.arrived.notify_all();
        Ok(())
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        Ok(if lane == Lane::Control { self.answers().pop_front() } else { None })
    }

    fn queued(&self, _: Lane) -> u64 {
        0
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        let timeout = Duration::from_nanos(timeout_ns);
        if lane == Lane::Data {
            std::thread::sleep(timeout);
            return false;
        }
        let empty = |answers: &mut VecDeque<_>| answers.is_empty();
        let waited = self.arrived.wait_timeout_while(self.answers(), timeout, empty);
        !waited.expect("nobody panics with it").1.timed_out()
    }

    fn close(&self) {}
}

fn device(id: u64, storage: Arc<dyn Storage>, clock: &Arc<dyn Clock>) -> Arc<Device> {
    let volumes = vec![VolumeSpec { id: 0, bytes: SPAN }];
    let geometry = Geometry { journal_bytes: JOURNAL, ..Geometry::new(1, id, volumes) };
    Device::create(&*storage, &geometry, id == 1).expect("a device");
    Device::open(storage, clock.clone(), Settings::default()).expect("a device")
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut has = |flag: &str| {
        let before = arguments.len();
        arguments.retain(|a| a != flag);
        arguments.len() < before
    };
    if has("--records") {
        return records::main(has("--quick"), &arguments);
    }
    let (quick, disk, peer) = (has("--quick"), has("--disk"), has("--peer"));
    let dir = arguments.iter().position(|a| a == "--dir");
    let dir = dir.map(|at| arguments.drain(at..at + 2).next_back().expect("a directory"));
    let dir = dir.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("afterimage-memory-{}", std::process::id()));
    let usual = if quick { 300_000 } else { 10_000_000 };
    let writes: u64 = arguments.first().map_or(usual, |a| a.parse().expect("a number of writes"));

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let on_disk: &[FileName] = if disk { &[FileName::OwnLog] } else { &[] };
    let storage = Split::create(dir.clone(), on_disk).expect("a directory");
    let a = device(1, Arc::new(storage.without_volumes()), &clock);
    let mut threads = vec![Threads::start(&a).expect("threads")];
    let b = peer.then(|| device(2, Arc::new(Memory::new()), &clock));
    match &b {
        None => a.connect(Arc::new(Drain::default())).expect("connected"),
        Some(b) => {
            let (end_a, end_b) = memory_link(Line::default(), clock);
            threads.push(Threads::start(b).expect("threads"));
            a.connect(Arc::new(end_a)).expect("connected");
            b.connect(Arc::new(end_b)).expect("connected");
        }
    }
    a.resume_alone().expect("A serves");
    let host = a.session().expect("A serves");

    let raw = File::options().write(true).create_new(true).open(dir.join("raw")).expect("a file");
    let data = vec![7; BLOCK as usize];
    let mut random = Random::new(1);
    let mut offset = || random.draw() % (SPAN / BLOCK) * BLOCK;
    for at in (0..SPAN).step_by(data.len()) {
        raw.write_all_at(&data, at).expect("written"); // cached before it is timed
    }
    // Each rests a while before the other is timed: neither pays for what the other left behind.
    let mut timed = |each: u64, write: &mut dyn FnMut(u64)| {
        std::thread::sleep(Duration::from_millis(if quick { 20 } else { 500 }));
        let began = Instant::now();
        (0..each).for_each(|_| write(offset()));
        began.elapsed().as_nanos() as f64 / each as f64
    };
    let mut pwrite = |at| raw.write_all_at(&data, at).expect("written");
    let waited = Cell::new(0);
    let slices = [IoSlice::new(&data)];
    let mut unflushed = |at| {
        let ticket = host.submit(Request::write(0, at, &slices)).expect("submitted");
        waited.set(waited.get() + ticket.wait().expect("written").waited_ns);
    };
    let mut raw_ns = Column::new("a cached pwrite");
    let mut all_ns = Column::new("a write");
    let mut own_ns = Column::new("a write, less its wait for room in the log");
    let mut residents = Vec::new();
    println!("      writes  resident MiB  ns a write  of them waiting  ns a cached pwrite");
    for tenth in 1..=10 {
        let each = writes.div_ceil(10);
        let raw = timed(each, &mut pwrite);
        let before = waited.get();
        let all = timed(each, &mut unflushed);
        let wait = (waited.get() - before) as f64 / each as f64;
        residents.push(resident());
        raw_ns.figures.push(raw);
        all_ns.figures.push(all);
        own_ns.figures.push(all - wait);
        let resident = residents[tenth - 1] as f64 / f64::from(1 << 20);
        let done = tenth as u64 * each;
        println!("{done:12}  {resident:12.1}  {all:10.0}  {wait:15.0}  {raw:18.0}");
    }
    let status = a.status();
    assert!(status.connected, "the peer has gone: {status:?}");
    drop(threads);
    std::fs::remove_dir_all(&dir).expect("removed");

    println!("rate / rate of cached pwrite: {:.2}", raw_ns.ratio(&all_ns));
    let own = raw_ns.ratio(&own_ns);
    println!("the same, less the wait for room in the log: {own:.2}, bound 0.85");
    let later = &residents[1..];
    let (least, most) = (later.iter().min().expect("some"), later.iter().max().expect("some"));
    let growth = *most as f64 / *least as f64;
    println!("largest / smallest resident memory: {growth:.3}, bound 1.2");
    if growth > 1.2 {
        std::process::exit(1);
    }
}
