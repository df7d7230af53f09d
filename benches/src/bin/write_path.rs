//! The cost of a host's durable write beside the raw disk, with the peer connected and shipping.
//!
//! The own log is on disk; the peer and both normal volumes are in memory. Raw references and
//! ours take turns in one run; ratios are medians over the rounds. *Alone*: the host's thread is the
//! only one that runs. Everywhere else both devices' threads are at work beside it, so that the peer
//! takes what the host has written just before.
//!
//!     cargo run --release -p afterimage-benches --bin write_path -- [--dir DIR] [--quick] [--disk] [--json FILE]
//!
//! `--disk` puts both devices wholly on this disk, beside, without a bound.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Durability, Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::request::{Request, Session};
use afterimage::internal::storage::{Directory, FileName, Memory, Storage};
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BATCH: usize = 128 << 10;
const SPAN: u64 = 64 << 20;
/// So many flushed writes fit the journal, though nothing is freed meanwhile.
const ALONE_MAX: usize = 8_000;

struct Pair {
    host: Session,
    devices: [Arc<Device>; 2],
    threads: Option<[Threads; 2]>,
}

fn pair(dir: &Path, durability: Durability, disk: bool) -> Pair {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let volumes = vec![VolumeSpec { id: 0, bytes: SPAN }];
    let open = |id: u64| {
        let path = dir.join(format!("{id}-{durability:?}-{disk}"));
        let storage: Arc<dyn Storage> = match (disk, id) {
            (true, _) => Arc::new(Directory::create(path).expect("a directory")),
            (false, 1) => Arc::new(Split::create(path, &[FileName::OwnLog]).expect("a directory")),
            (false, _) => Arc::new(Memory::new()),
        };
        let geometry =
            Geometry { journal_bytes: 256 << 20, ..Geometry::new(1, id, volumes.clone()) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        let settings = Settings { durability, ..Settings::default() };
        Device::open(storage, clock.clone(), settings).expect("a device")
    };
    let (a, b) = (open(1), open(2));
    let devices = [a, b];
    let threads = start(&devices);
    devices[0].resume_alone().expect("A serves");
    let host = devices[0].session().expect("A serves");
    let data = vec![1; 1 << 20];
    for offset in (0..SPAN).step_by(data.len()) {
        host.write(0, offset, &data).expect("written"); // memory is touched before it is timed
    }
    let pair = Pair { host, devices, threads: Some(threads) };
    pair.settle();
    pair
}

/// Starts the threads of both devices, and connects them.
fn start(devices: &[Arc<Device>; 2]) -> [Threads; 2] {
    let threads = devices.each_ref().map(|device| Threads::start(device).expect("threads"));
    let (end_a, end_b) = memory_link(Line::default(), Arc::new(SystemClock::default()));
    devices[0].connect(Arc::new(end_a)).expect("connected");
    devices[1].connect(Arc::new(end_b)).expect("connected");
    threads
}

impl Pair {
    /// Waits until nothing of an earlier phase is left to be done behind the next.
    fn settle(&self) {
        let busy = |d: &Arc<Device>| {
            let status = d.status();
            status.backlog_records + status.unreflected_records > 0
        };
        while self.devices.iter().any(busy) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Calls `step` while no thread of the devices runs, with nothing of an earlier phase left.
    fn alone<T>(&mut self, step: impl FnOnce(&Session) -> T) -> T {
        self.settle();
        self.devices[0].checkpoint_now().expect("a checkpoint");
        self.threads = None;
        let result = step(&self.host);
        // The connection has ended with the threads.
        self.threads = Some(start(&self.devices));
        result
    }
}

struct Raw {
    file: File,
    next: u64,
}

impl Raw {
    const LENGTH: u64 = 256 << 20;

    fn new(dir: &Path) -> Raw {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join("raw"));
        let file = file.expect("a file");
        let zeros = vec![0; 1 << 20];
        for offset in (0..Raw::LENGTH).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).expect("written");
        }
        file.sync_all().expect("synced");
        Raw { file, next: 0 }
    }

    fn write(&mut self, data: &[u8]) {
        self.file.write_all_at(data, self.next).expect("written");
        self.file.sync_data().expect("synced");
        self.next = (self.next + data.len() as u64) % Raw::LENGTH;
    }
}

struct Rng(u64);

impl Rng {
    fn offset(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (SPAN / BLOCK as u64) * BLOCK as u64
    }
}

/// Median microseconds of `step`, called for `time`, at most so often.
fn latency(time: Duration, most: usize, mut step: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut all = Vec::new();
    while began.elapsed() < time && all.len() < most {
        let t = Instant::now();
        step();
        all.push(t.elapsed().as_secs_f64() * 1e6);
    }
    median(all)
}

fn flushed(host: &Session, offset: u64, data: &[u8]) {
    host.write(0, offset, data).expect("written");
    host.flush().expect("flushed");
}

/// Bytes a second of `step`, which returns the bytes it wrote, called for `time`.
fn rate(time: Duration, mut step: impl FnMut() -> usize) -> f64 {
    let began = Instant::now();
    let mut bytes = 0;
    while began.elapsed() < time {
        bytes += step();
    }
    bytes as f64 / began.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// `count` writes outstanding at once from one thread, then all awaited.
fn outstanding(host: &Session, rng: &mut Rng, data: &[u8], count: usize) -> usize {
    let slices = [IoSlice::new(data)];
    let submit = |offset| host.submit(Request::write(0, offset, &slices)).expect("submitted");
    let tickets: Vec<_> = (0..count).map(|_| submit(rng.offset())).collect();
    for ticket in tickets {
        ticket.wait().expect("written");
    }
    count * data.len()
}

/// Bytes a second of `threads` threads that each keep `each` writes outstanding.
fn threads_rate(host: &Session, time: Duration, threads: usize, each: usize) -> f64 {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let bytes: usize = std::thread::scope(|scope| {
        let run = |seed: u64| {
            let (stop, host) = (&stop, host.clone());
            scope.spawn(move || {
                let (mut rng, data, mut bytes) = (Rng(seed), vec![seed as u8; BLOCK], 0);
                while !stop.load(Ordering::Relaxed) {
                    bytes += outstanding(&host, &mut rng, &data, each);
                }
                bytes
            })
        };
        let handles: Vec<_> = (1..=threads as u64).map(|t| run(t * 7919)).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        handles.into_iter().map(|h| h.join().expect("a writer")).sum()
    });
    bytes as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let dir = args.iter().position(|a| a == "--dir").map(|i| PathBuf::from(&args[i + 1]));
    let dir =
        dir.unwrap_or_else(std::env::temp_dir).join(format!("write_path-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (rounds, time) = if has("--quick") { (1, 100) } else { (7, 1000) };
    let time = Duration::from_millis(time);
    let mut figures = Figures::default();
    for disk in [false, true].into_iter().take(if has("--disk") { 2 } else { 1 }) {
        let place = if disk { "both devices wholly on this disk" } else { "own log on disk" };
        let mut raw = Raw::new(&dir);
        let (block, batch) = (vec![3; BLOCK], vec![4; BATCH]);
        let mut rng = Rng(88172645463325252);
        // Before the other pairs are there: their threads would run beside it.
        let mut quiet: Vec<[f64; 2]> = Vec::new();
        {
            std::fs::create_dir_all(dir.join("alone")).expect("a directory");
            let mut pair = pair(&dir.join("alone"), Durability::VolatileCache, disk);
            for _ in 0..rounds {
                quiet.push(pair.alone(|host| {
                    let raw = latency(time, ALONE_MAX, || raw.write(&block));
                    [raw, latency(time, ALONE_MAX, || flushed(host, rng.offset(), &block))]
                }));
            }
        }
        let mut table: Vec<[f64; 6]> = Vec::new();
        let cached = pair(&dir, Durability::VolatileCache, disk);
        let strict = pair(&dir, Durability::Strict, disk);
        for _ in 0..rounds {
            let raw4 = latency(time, usize::MAX, || raw.write(&block));
            let ours4 = latency(time, usize::MAX, || flushed(&cached.host, rng.offset(), &block));
            let raw128 = rate(time, || {
                raw.write(&batch);
                BATCH
            });
            let settled = |threads, each| {
                [&cached, &strict].into_iter().for_each(Pair::settle);
                threads_rate(&strict.host, time, threads, each)
            };
            let (one, two, many) = (settled(1, 32), settled(2, 16), settled(32, 1));
            strict.settle();
            table.push([raw4, ours4, raw128, one, two, many]);
        }
        let middle = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], all[0], all[all.len() - 1])
        };
        let ratios = |of: fn(&[f64; 6]) -> f64| middle(table.iter().map(of).collect());
        let column = |k: usize| median(table.iter().map(|row| row[k]).collect());
        println!("{place}; {rounds} rounds of {time:?} each");
        println!("raw pwrite+fdatasync 4 KiB     {:8.1} us p50", column(0));
        println!("host write 4 KiB + flush       {:8.1} us p50", column(1));
        let alone = |k: usize| median(quiet.iter().map(|row| row[k]).collect());
        println!("alone: raw pwrite+fdatasync    {:8.1} us p50", alone(0));
        println!("alone: host write + flush      {:8.1} us p50", alone(1));
        println!("raw sequential 128 KiB batches {:8.1} MB/s", column(2) / 1e6);
        println!("32 outstanding, 1 thread       {:8.1} MB/s", column(3) / 1e6);
        println!("32 outstanding, 2 threads      {:8.1} MB/s", column(4) / 1e6);
        println!("32 blocking threads            {:8.1} MB/s", column(5) / 1e6);
        let show = |what: &str, bound: &str, (m, lo, hi): (f64, f64, f64)| {
            println!("{what:46} {m:5.2} ({lo:.2}-{hi:.2}) {bound}");
        };
        let bound = |text: &'static str| if disk { "" } else { text };
        let quiet = middle(quiet.iter().map(|r| r[1] / r[0]).collect());
        show("write+flush / raw write+sync, alone", bound("<= 1.10"), quiet);
        let busy = ratios(|r| r[1] / r[0]);
        show("write+flush / raw write+sync", bound("<= 1.25, median of five runs"), busy);
        show(
            "32 outstanding from 1 thread / raw batches",
            bound(">= 0.6"),
            ratios(|r| r[3] / r[2]),
        );
        show(
            "32 outstanding from 2 threads / raw batches",
            bound(">= 0.6"),
            ratios(|r| r[4] / r[2]),
        );
        show("32 blocking threads / raw batches", bound(">= 0.4"), ratios(|r| r[5] / r[2]));
        let mut add = |name: &str, value: f64, unit: &str, better| {
            let name = if disk { format!("{name}, all on disk") } else { name.into() };
            figures.add(&name, value, unit, better);
        };
        add("write+flush", column(1), "us", Better::Less);
        add("write+flush to raw", busy.0, "ratio", Better::Less);
        add("write+flush to raw, alone", quiet.0, "ratio", Better::Less);
        add("32 of 1 thread", column(3) / 1e6, "MB/s", Better::More);
        add("32 of 2 threads", column(4) / 1e6, "MB/s", Better::More);
        add("32 blocking threads", column(5) / 1e6, "MB/s", Better::More);
        std::fs::remove_file(dir.join("raw")).expect("removed");
    }
    std::fs::remove_dir_all(&dir).expect("removed");
    figures.write();
}
