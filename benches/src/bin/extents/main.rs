//! The cost of requests without data, which follows the requests and not their blocks (R17, R19).
//!
//! A volume of 1 TiB is discarded by requests of 32 MiB, in the middle of which the other device takes
//! over and the host goes on there: once with nothing written before, once with 1 % written, as 10,486
//! runs of 1 MiB evenly spread, reflected and acknowledged. Logs are on disk; the volumes are too with
//! `--disk`, otherwise they only know where they have data. Then 4 KiB writes and reads beside 30,000
//! live extents take turns with such without any ([`beside`]); with `--beside` nothing else is measured.
//! Fails if a bound is exceeded.
//!
//!     cargo run --release -p afterimage-benches --bin extents -- [--dir DIR] [--disk] [--beside] [--quick] [--json FILE]

mod beside;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::request::Session;
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::resident;
use afterimage_benches::sketch::Sketch;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const REQUEST: u64 = 32 * MIB;

/// The bounds of a discard of the whole volume: seconds until hosts are answered, and bytes of each
/// log, and of memory.
const ANSWER_BOUND: f64 = 5.0;
const BYTES_BOUND: u64 = 64 * MIB;

/// The other bounds: how many times a write, or a read, beside extents costs one without.
const RATIO_BOUND: f64 = 1.2;

struct Case {
    volume: u64,
    /// Runs of 1 MiB that are written before.
    runs: u64,
    on_disk: bool,
}

/// The most of what is looked at all the time.
#[derive(Default)]
struct Peaks {
    /// Bytes used of both logs of the one device and of the other.
    used: [AtomicU64; 2],
    resident: AtomicU64,
}

impl Peaks {
    fn look(&self, devices: &[Arc<Device>; 2]) {
        for (used, device) in self.used.iter().zip(devices) {
            let status = device.status();
            let now = status.own_used_bytes + status.recv_used_bytes;
            used.fetch_max(now, Ordering::Relaxed);
        }
        self.resident.fetch_max(resident(), Ordering::Relaxed);
    }
}

/// Connects the two with threads of their own; the first serves.
fn serve(devices: &[Arc<Device>; 2], clock: Arc<dyn Clock>) -> ([Threads; 2], Session) {
    let [a, b] = devices;
    let (end_a, end_b) = memory_link(Line::default(), clock);
    let threads = devices.each_ref().map(|device| Threads::start(device).expect("threads"));
    a.connect(Arc::new(end_a)).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    while !devices.iter().all(|device| device.status().connected) {
        std::thread::sleep(Duration::from_millis(1));
    }
    (threads, a.session().expect("A serves"))
}

fn is_busy(device: &Arc<Device>) -> bool {
    let status = device.status();
    status.backlog_records + status.unreflected_records > 0
}

/// Discards a whole volume; whether the bounds are kept.
fn discard_all(dir: &Path, name: &str, case: &Case, figures: &mut Figures) -> bool {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let storages = [1, 2].map(|id: u64| {
        let path = dir.join(id.to_string());
        Arc::new(Sketch::create(path, case.on_disk).expect("a directory"))
    });
    let mut id = 0;
    let devices = storages.each_ref().map(|storage| {
        id += 1;
        let volumes = vec![VolumeSpec { id: 0, bytes: case.volume }];
        // So large that a request may have 32 MiB, and waits for no room.
        let geometry = Geometry { journal_bytes: 512 * MIB, ..Geometry::new(1, id, volumes) };
        Device::create(&**storage, &geometry, id == 1).expect("a device");
        Device::open(storage.clone(), clock.clone(), Settings::default()).expect("a device")
    });
    let (threads, host) = serve(&devices, clock);
    let [_, b] = &devices;
    let data = vec![Sketch::BYTE; MIB as usize];
    for run in 0..case.runs {
        host.write(0, case.volume / case.runs * run / MIB * MIB, &data).expect("written");
    }
    drop(data);
    while devices.iter().any(is_busy) {
        std::thread::sleep(Duration::from_millis(5));
    }
    devices.iter().for_each(|device| device.checkpoint_now().expect("a checkpoint"));

    let written = || storages.each_ref().map(|storage| storage.log_bytes());
    let (before, logged_before) = (resident(), written());
    let (peaks, is_over) = (Peaks::default(), AtomicBool::new(false));
    let (mut longest, mut takeover) = (Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    let (answered, punched) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peaks.look(&devices);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut host = host;
        let middle = case.volume / 2 / REQUEST * REQUEST;
        for offset in (0..case.volume).step_by(REQUEST as usize) {
            let asked = Instant::now();
            if offset == middle {
                b.takeover().expect("B serves");
                takeover = asked.elapsed();
                host = b.session().expect("B serves");
            }
            let length = REQUEST.min(case.volume - offset);
            host.discard(0, offset, length).expect("discarded");
            longest = longest.max(asked.elapsed());
        }
        let answered = began.elapsed();
        peaks.look(&devices);
        while !storages.iter().all(|storage| storage.is_zero().expect("volumes")) {
            assert!(began.elapsed() < Duration::from_secs(600), "some volume keeps its data");
            std::thread::sleep(Duration::from_millis(5));
        }
        let punched = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (answered.as_secs_f64(), punched.as_secs_f64())
    });
    while devices.iter().any(is_busy) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let logged: Vec<_> =
        written().iter().zip(logged_before).map(|(now, then)| now - then).collect();
    let used = peaks.used.map(AtomicU64::into_inner);
    let grown = peaks.resident.into_inner().saturating_sub(before);
    drop(threads);
    drop((devices, storages));
    for id in ["1", "2"] {
        std::fs::remove_dir_all(dir.join(id)).expect("removed");
    }

    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let most = used[0].max(used[1]).max(logged[0]).max(logged[1]);
    let longest = longest.as_secs_f64();
    println!("{name}: {} requests", case.volume.div_ceil(REQUEST));
    println!(
        "  answered: all within {answered:.3} s, bound {ANSWER_BOUND}; the longest {:.1} ms, the takeover {:.1} ms",
        longest * 1e3,
        takeover.as_secs_f64() * 1e3
    );
    println!(
        "  logs: {:.2} and {:.2} MiB used at most, {:.2} and {:.2} MiB written, bound {}",
        mib(used[0]),
        mib(used[1]),
        mib(logged[0]),
        mib(logged[1]),
        mib(BYTES_BOUND)
    );
    println!("  memory: {:.2} MiB more resident, bound {}", mib(grown), mib(BYTES_BOUND));
    println!("  punched: both volumes {punched:.3} s after the first request");
    figures.add(&format!("answered, {name}"), answered, "s", Better::Less);
    figures.add(&format!("longest answer, {name}"), longest * 1e3, "ms", Better::Less);
    figures.add(&format!("log, {name}"), mib(most), "MiB", Better::Less);
    figures.add(&format!("memory, {name}"), mib(grown), "MiB", Better::Less);
    figures.add(&format!("punched, {name}"), punched, "s", Better::Less);
    answered <= ANSWER_BOUND && most <= BYTES_BOUND && grown <= BYTES_BOUND
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|a| a == name);
    let quick = has("--quick");
    let dir = args.iter().position(|a| a == "--dir").map(|i| PathBuf::from(&args[i + 1]));
    let dir =
        dir.unwrap_or_else(std::env::temp_dir).join(format!("extents-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut figures = Figures::default();
    let (volume, runs) = if quick { (4 << 30, 40) } else { (1 << 40, 10_486) };
    let on_disk = has("--disk");
    let mut good = true;
    if !has("--beside") {
        let fresh = Case { volume, runs: 0, on_disk };
        good &= discard_all(&dir, "nothing written", &fresh, &mut figures);
        let written = Case { volume, runs, on_disk };
        good &= discard_all(&dir, "1 % written", &written, &mut figures);
    }
    good &= beside::compare(&dir, quick, &mut figures);
    std::fs::remove_dir_all(&dir).expect("removed");
    figures.write();
    std::process::exit(i32::from(!good && !quick));
}
