//! Hosts write more than the line carries, for a while: the pair suspends, sends while they write, and comes
//! back to ordered mode by itself. Both devices are in memory, and hold what was written in the end.
//!
//! A copy counts as needless if its block was copied before, and no write of it began later than 5 ms before
//! that copy was sent: by then nothing of the frame had been read.

use super::{BLOCK, Options, wait};
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Result;
use afterimage::internal::format::frame::{Frame, Ladder};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::request::Session;
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::{Device, Mode, Status};
use afterimage_benches::Random;
use afterimage_benches::figures::{Better, Figures};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LINE: u64 = 10_000_000;
const LOAD: u64 = 100_000_000;
const HOSTS: u64 = 4;
const PACING_NS: u64 = 50_000_000;
/// A frame is read from its blocks within this time before it is sent, in microseconds.
const READ_US: u32 = 5_000;

/// The times of a block, in microseconds from the beginning.
#[derive(Default)]
struct Times {
    /// The last write of it began.
    written: AtomicU32,
    /// The last copy of it was sent; 0: none.
    copied: AtomicU32,
}

/// All that a device has sent.
struct Seen {
    began: Instant,
    blocks: Vec<Times>,
    bytes: AtomicU64,
    copies: AtomicU64,
    needless: AtomicU64,
}

impl Seen {
    fn now(&self) -> u32 {
        self.began.elapsed().as_micros() as u32
    }

    fn note(&self, frame: &[u8]) {
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        let Ok((_, Frame::Ladder(Ladder::Copy { copies, .. }))) = Frame::decode(frame) else {
            return;
        };
        let now = self.now();
        for block in copies.iter().flat_map(|copied| copied.blocks().each()) {
            let times = &self.blocks[block.number as usize];
            let before = times.copied.swap(now, Ordering::Relaxed);
            let written = times.written.load(Ordering::Relaxed);
            self.copies.fetch_add(1, Ordering::Relaxed);
            if before != 0 && written < before.saturating_sub(READ_US) {
                self.needless.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// An end of the line that counts what is sent.
struct Counted {
    link: MemoryLink,
    seen: Arc<Seen>,
}

impl Link for Counted {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        self.seen.note(&frame);
        self.link.send(lane, frame)
    }
    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.link.receive(lane)
    }
    fn queued(&self, lane: Lane) -> u64 {
        self.link.queued(lane)
    }
    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.link.wait(lane, timeout_ns)
    }
    fn close(&self) {
        self.link.close();
    }
}

/// A host's part of the load: blocks of its own, each with the number of its last write.
struct Host {
    last: Vec<u32>,
    longest: Duration,
    writes: u64,
}

fn host(session: &Session, number: u64, blocks: u64, seen: &Seen, stop: &AtomicBool) -> Host {
    let own = blocks / HOSTS;
    let mut host = Host { last: vec![0; own as usize], longest: Duration::ZERO, writes: 0 };
    let (mut random, mut data) = (Random::new(number + 1), vec![0; BLOCK as usize]);
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * (LOAD / HOSTS / BLOCK) as f64;
        if host.writes as f64 > due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let k = random.draw() % own;
        let block = k * HOSTS + number;
        host.writes += 1;
        host.last[k as usize] = host.writes as u32;
        fill(&mut data, block, host.writes as u32);
        seen.blocks[block as usize].written.store(seen.now(), Ordering::Relaxed);
        let since = Instant::now();
        session.write(0, block * BLOCK, &data).expect("no host gets an error");
        host.longest = host.longest.max(since.elapsed());
    }
    host
}

fn fill(data: &mut [u8], block: u64, write: u32) {
    let word = block << 32 | u64::from(write);
    data.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
}

fn is_at_rest(status: &Status) -> bool {
    let records = status.backlog_records + status.unreflected_records;
    let pending = records + status.differential.table_blocks;
    status.mode == Mode::Ordered && status.differential.is_consistent && pending == 0
}

pub fn main(options: &Options, figures: &mut Figures) {
    let quick = options.quick;
    let (blocks, load, journal) = match quick {
        true => (8 << 10, Duration::from_secs(2), 16 << 20),
        false => (options.mib << 20 >> 12, Duration::from_secs(options.seconds), 256 << 20),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let seen = Arc::new(Seen {
        began: Instant::now(),
        blocks: (0..blocks).map(|_| Times::default()).collect(),
        bytes: AtomicU64::new(0),
        copies: AtomicU64::new(0),
        needless: AtomicU64::new(0),
    });
    let open = |id: u64| {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: blocks * BLOCK }];
        let geometry = Geometry { journal_bytes: journal, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        let settings =
            Settings { suspend_from_percent: 75, pacing_max_ns: PACING_NS, ..Settings::default() };
        let device = Device::open(storage.clone(), clock.clone(), settings).expect("a device");
        let threads = Threads::start(&device).expect("threads");
        (storage, device, threads)
    };
    let (of_a, a, a_threads) = open(1);
    let (of_b, b, b_threads) = open(2);
    let line = Line { rate: Some(LINE), delay_ns: 5_000_000 };
    let (end_a, end_b) = memory_link(line, clock.clone());
    a.connect(Arc::new(Counted { link: end_a.clone(), seen: seen.clone() })).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    wait("the peer is there", || a.status().connected && b.status().connected);

    let (session, stop) = (a.session().expect("A serves"), AtomicBool::new(false));
    let (mut looks, mut idle, mut modes) = (0u64, 0u64, Vec::new());
    let began = Instant::now();
    let (hosts, sent, busy) = std::thread::scope(|scope| {
        let (a, session, seen, stop) = (&a, &session, &seen, &stop);
        let hosts: Vec<_> =
            (0..HOSTS).map(|n| scope.spawn(move || host(session, n, blocks, seen, stop))).collect();
        while began.elapsed() < load {
            std::thread::sleep(Duration::from_millis(1));
            looks += 1;
            idle += u64::from(end_a.queued(Lane::Data) + end_a.queued(Lane::Control) == 0);
            if looks % 64 == 0 {
                let mode = a.status().mode;
                if modes.last().is_none_or(|&(_, last)| last != mode) {
                    modes.push((began.elapsed().as_millis(), mode));
                }
            }
        }
        let busy = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let hosts: Vec<Host> = hosts.into_iter().map(|h| h.join().expect("a host")).collect();
        let queued = end_a.queued(Lane::Data);
        (hosts, seen.bytes.load(Ordering::Relaxed) - queued, busy)
    });
    let status = a.status();
    let set = status.differential.table_blocks + status.backlog_records;
    let (copies, needless) = (&seen.copies, &seen.needless);
    let of_load = copies.load(Ordering::Relaxed);
    let since = Instant::now();
    wait("it comes back by itself", || is_at_rest(&a.status()) && is_at_rest(&b.status()));
    let back = since.elapsed().as_secs_f64();
    let later = seen.bytes.load(Ordering::Relaxed) - sent;
    drop((a_threads, b_threads));
    let file = FileName::Segment { volume: 0, index: 0 };
    let (mut wanted, mut found) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    for block in 0..blocks {
        let last = hosts[(block % HOSTS) as usize].last[(block / HOSTS) as usize];
        fill(&mut wanted, if last == 0 { 0 } else { block }, last);
        for storage in [&of_a, &of_b] {
            storage.read(file, block * BLOCK, &mut found).expect("read");
            assert!(found == wanted, "block {block} has another content");
        }
    }

    let writes: u64 = hosts.iter().map(|host| host.writes).sum();
    let longest = hosts.iter().map(|host| host.longest).max().expect("hosts").as_secs_f64() * 1e3;
    let rate = (writes * BLOCK) as f64 / busy / 1e6;
    let used = sent as f64 / busy / LINE as f64;
    let ratio = later as f64 / (set * BLOCK) as f64;
    println!("{} MiB written at random for {busy:.0} s at {rate:.1} MB/s", (blocks * BLOCK) >> 20);
    println!("modes, from the millisecond on: {modes:?}");
    println!("longest write {longest:.2} ms, bound {} ms", PACING_NS / 1_000_000);
    println!("line: {:.1} % used, nothing queued at {idle} of {looks} looks", used * 100.0);
    println!(
        "copies: {of_load} while hosts wrote, {} later",
        copies.load(Ordering::Relaxed) - of_load
    );
    println!("needless copies: {}", needless.load(Ordering::Relaxed));
    println!("at the load's end {set} blocks are set; ordered again after {back:.1} s");
    println!("sent after the load's end / blocks set then: {ratio:.3}, bound 1.1");
    figures.add("longest write beyond the line's rate", longest, "ms", Better::Less);
    figures.add("line used", used, "ratio", Better::More);
    figures.add("sent after the load", ratio, "ratio", Better::Less);
    figures.add("needless copies", needless.load(Ordering::Relaxed) as f64, "blocks", Better::Less);
}
