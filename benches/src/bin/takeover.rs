//! How long a takeover takes with a backlog, and whether the volume's size matters.
//!
//! Logs and superblocks on disk, so that every durable step of a takeover is; normal volumes
//! nowhere, for it does not touch them. The link is unlimited, its data lane held, so that exactly the
//! backlog is pending. Sizes take turns in one run. Beside the time stands what the whole process
//! computed meanwhile, on all processors together: on a busy machine that is what can be compared.
//!
//! With `--told` everything has been announced before (R18); without, nothing is. `--slow` is a line
//! of 1 MiB/s with 50 ms each way, its data lane saturated; `--after MS` asks so long after the
//! last write, whether everything has been announced or not.
//!
//! With `--busy N` it measures something else: the takeover of a small backlog while N threads keep
//! the processors busy and a host writes, with the threads that reflect at the niceness they gave
//! themselves and at that of the others, in turns (raising it takes a privilege).
//!
//!     cargo run --release -p afterimage-benches --bin takeover [-- --dir DIR] [--quick] [--json FILE]
//!         [--told] [--slow [--after MS]] [--rounds N] [--pending BLOCKS] [--block BYTES] [--busy N]

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::{Directory, FileName};
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use rustix::process::{Pid, setpriority_process};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;

#[derive(Clone, Copy)]
struct Case {
    pending: u64,
    block: u64,
    told: bool,
    slow: bool,
    after: Option<Duration>,
}

/// Nanoseconds that the threads of this process have computed.
fn computed() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let of = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| of(task.path())).sum()
}

/// Milliseconds: a takeover, what was computed in it, and the first read of a block that is still at
/// the other device.
fn once(dir: &Path, volume_bytes: u64, case: Case) -> [f64; 3] {
    let Case { pending, block, told, slow, after } = case;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let path = dir.join(id.to_string());
        let durable = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog];
        let storage =
            Arc::new(Split::create(path, &durable).expect("a directory").without_volumes());
        let volumes = vec![VolumeSpec { id: 0, bytes: volume_bytes }];
        // A batch has a page of rows before its blocks.
        let journal_bytes = (pending * (block + 80) + (256 << 20)).next_multiple_of(1 << 20);
        let geometry =
            Geometry { journal_bytes, block_size: block as u32, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        let defaults = Settings::default();
        // The bytes that the slow line carries in 20 ms.
        let at_once = if slow { 20 << 10 } else { defaults.link_queue_bytes_max };
        let settings = Settings {
            told_records_max: if told || slow { defaults.told_records_max } else { 0 },
            ship_bytes_max: defaults.ship_bytes_max.min(at_once),
            link_queue_bytes_max: at_once,
            suspend_from_percent: 0,
            ..defaults
        };
        Device::open(storage, clock.clone(), settings).expect("a device")
    };
    let (a, b) = (open(1), open(2));
    let line = match slow {
        true => Line { rate: Some(1 << 20), delay_ns: 50_000_000 },
        false => Line::default(),
    };
    let (end_a, end_b) = memory_link(line, clock.clone());
    end_a.hold(Lane::Data, !slow);
    let threads = [Threads::start(&a).expect("threads"), Threads::start(&b).expect("threads")];
    a.connect(Arc::new(end_a)).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    let host = a.session().expect("A serves");
    // Scattered over the whole volume, every block once.
    let stride = volume_bytes / block / pending;
    let data = vec![5; block as usize];
    for n in 0..pending {
        host.write(0, n * stride * block, &data).expect("written");
    }
    host.flush().expect("flushed");
    let written = Instant::now();
    let is_told = || !(told || slow) || b.status().told >= a.status().reflected;
    let is_due = || after.map_or_else(is_told, |after| written.elapsed() >= after);
    while a.status().unreflected_records > 0 || !is_due() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let was_computed = computed();
    let t = Instant::now();
    let takeover = b.takeover().expect("B serves");
    let ready = t.elapsed().as_secs_f64() * 1e3;
    let computed = (computed() - was_computed) as f64 / 1e6;
    let owed = takeover.owed_blocks;
    assert!(owed == pending || slow && owed > pending / 2, "{owed} of {pending} are pending");
    if slow {
        let told = (t - written).as_secs_f64();
        println!("asked {told:.1} s after the last write; owed {owed}; ready after {ready:.0} ms");
    }
    let host = b.session().expect("B serves");
    let mut read = vec![0; block as usize];
    let t = Instant::now();
    host.read(0, (pending - 1) * stride * block, &mut read).expect("read");
    let first_read = t.elapsed().as_secs_f64() * 1e3;
    assert_eq!(read, data);
    drop(threads);
    drop((a, b));
    std::fs::remove_dir_all(dir.join("1")).expect("removed");
    std::fs::remove_dir_all(dir.join("2")).expect("removed");
    [ready, computed, first_read]
}

/// Gives the threads of this process that reflect the niceness 0.
fn as_urgent_as_others() {
    for task in std::fs::read_dir("/proc/self/task").expect("tasks").flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim_end().ends_with("-reflect") {
            let id = task.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            setpriority_process(id, 0).expect("the right to raise a priority");
        }
    }
}

/// Milliseconds of `rounds` takeovers, there and back, while the device that serves is written to.
fn under_load(dir: &Path, urgent: bool, rounds: u64) -> Vec<f64> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let storage = Arc::new(Directory::create(dir.join(id.to_string())).expect("a directory"));
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 30 }];
        let geometry = Geometry { journal_bytes: 256 << 20, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        Device::open(storage, clock.clone(), Settings::default()).expect("a device")
    };
    let devices = [open(1), open(2)];
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    let threads = devices.each_ref().map(|device| Threads::start(device).expect("threads"));
    // The threads set their own niceness as they begin.
    std::thread::sleep(Duration::from_millis(50));
    if urgent {
        as_urgent_as_others();
    }
    devices[0].connect(Arc::new(end_a)).expect("connected");
    devices[1].connect(Arc::new(end_b)).expect("connected");
    devices[0].resume_alone().expect("the first serves");
    let data = vec![5; BLOCK as usize];
    let mut took = Vec::new();
    for round in 0..rounds {
        let (old, new) = (&devices[(round % 2) as usize], &devices[(1 - round % 2) as usize]);
        let host = old.session().expect("it serves");
        // Enough that reflection is under way when the host moves.
        let writes = 8_192 + round * 397 % 4_096;
        for n in 0..writes {
            host.write(0, (n * 61 % (1 << 18)) * BLOCK, &data).expect("written");
        }
        let t = Instant::now();
        new.takeover().expect("it serves");
        took.push(t.elapsed().as_secs_f64() * 1e3);
    }
    drop(threads);
    drop(devices);
    for id in ["1", "2"] {
        std::fs::remove_dir_all(dir.join(id)).expect("removed");
    }
    took
}

/// See `--busy`.
fn compare_niceness(dir: &Path, busy: usize, turns: usize) {
    let stop = AtomicBool::new(false);
    let mut took = [Vec::new(), Vec::new()];
    std::thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for _ in 0..turns {
            for (k, urgent) in [false, true].into_iter().enumerate() {
                took[k].extend(under_load(dir, urgent, 20));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("takeovers beside {busy} busy threads; milliseconds");
    for (name, all) in ["nice 10", "nice 0"].iter().zip(&mut took) {
        all.sort_by(f64::total_cmp);
        let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
        let (median, late, most) = (at(0.5), at(0.9), at(1.0));
        println!("{name:>8}: median {median:.2}, 90 % within {late:.2}, all within {most:.2}");
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let quick = args.iter().any(|a| a == "--quick");
    let dir = args.iter().position(|a| a == "--dir").map(|i| PathBuf::from(&args[i + 1]));
    let dir =
        dir.unwrap_or_else(std::env::temp_dir).join(format!("takeover-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    if let Some(at) = args.iter().position(|a| a == "--busy") {
        let busy = args.get(at + 1).and_then(|n| n.parse().ok()).expect("--busy needs a number");
        compare_niceness(&dir, busy, if quick { 1 } else { 5 });
        std::fs::remove_dir_all(&dir).expect("removed");
        return;
    }
    let has = |name: &str| args.iter().any(|a| a == name);
    let number = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        Some(args.get(at + 1).and_then(|n| n.parse().ok()).expect("a number"))
    };
    let (rounds, pending) = if quick { (1, 1_000) } else { (20, 100_000) };
    let rounds = number("--rounds").unwrap_or(rounds);
    let case = Case {
        pending: number("--pending").unwrap_or(pending),
        block: number("--block").unwrap_or(BLOCK),
        told: has("--told"),
        slow: has("--slow"),
        after: number("--after").map(Duration::from_millis),
    };
    let pending = case.pending;
    let sizes = [(16u64 << 30, "16 GiB"), (64 << 40, "64 TiB")];
    let mut ready = [Vec::new(), Vec::new()];
    let mut work = [Vec::new(), Vec::new()];
    let mut reads = [Vec::new(), Vec::new()];
    // The caller of a takeover that returns earlier begins to read earlier.
    let mut both = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (k, (bytes, _)) in sizes.iter().enumerate() {
            let [r, w, f] = once(&dir, *bytes, case);
            ready[k].push(r);
            work[k].push(w);
            reads[k].push(f);
            both[k].push(r + f);
        }
    }
    std::fs::remove_dir_all(&dir).expect("removed");
    println!("{pending} pending blocks, {rounds} rounds; milliseconds: median (min-max)");
    let (mut medians, mut figures) = (Vec::new(), Figures::default());
    for (k, (_, name)) in sizes.iter().enumerate() {
        let show = |all: &mut Vec<f64>| {
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], all[0], all[all.len() - 1])
        };
        let (m, lo, hi) = show(&mut ready[k]);
        medians.push(m);
        figures.add(&format!("ready, {name}"), m, "ms", Better::Less);
        println!("{name:>7} volume: ready after {m:6.2} ({lo:.2}-{hi:.2})");
        let (m, lo, hi) = show(&mut work[k]);
        figures.add(&format!("computed meanwhile, {name}"), m, "ms", Better::Less);
        println!("{name:>7} volume: computed   {m:6.2} ({lo:.2}-{hi:.2})");
        let (m, lo, hi) = show(&mut reads[k]);
        figures.add(&format!("first remote read, {name}"), m, "ms", Better::Less);
        println!("{name:>7} volume: first remote read {m:6.3} ({lo:.3}-{hi:.3})");
        let (m, lo, hi) = show(&mut both[k]);
        figures.add(&format!("first byte, {name}"), m, "ms", Better::Less);
        println!("{name:>7} volume: first byte after {m:6.3} ({lo:.3}-{hi:.3}), from the call on");
    }
    let (ratio, apart) = (medians[1] / medians[0], medians[1] - medians[0]);
    println!("64 TiB / 16 GiB: {ratio:.2}, {apart:+.2} ms   bound < 1.2 or 1 ms");
    figures.write();
}
