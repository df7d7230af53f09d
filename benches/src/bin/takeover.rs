//! How long a takeover takes with a backlog, and whether the volume's size matters.
//!
//! Logs and superblocks on disk, so that every durable step of a takeover is; normal volumes
//! nowhere, for it does not touch them. The link is unlimited, its data lane held, so that exactly the
//! backlog is pending. Sizes take turns in one run.
//!
//! With `--busy N` it measures something else: the takeover of a small backlog while N threads keep
//! the processors busy and a host writes, with the threads that reflect at the niceness they gave
//! themselves and at that of the others, in turns (raising it takes a privilege).
//!
//!     cargo run --release -p afterimage-benches --bin takeover [-- --dir DIR] [--quick] [--json FILE] [--busy N]

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

/// Milliseconds: a takeover, and the first read of a block that is still at the other device.
fn once(dir: &Path, volume_bytes: u64, pending: u64) -> (f64, f64) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let path = dir.join(id.to_string());
        let durable = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog];
        let storage =
            Arc::new(Split::create(path, &durable).expect("a directory").without_volumes());
        let volumes = vec![VolumeSpec { id: 0, bytes: volume_bytes }];
        let journal_bytes = (pending * BLOCK * 17 / 16 + (64 << 20)).next_multiple_of(1 << 20);
        let geometry = Geometry { journal_bytes, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        Device::open(storage, clock.clone(), Settings::default()).expect("a device")
    };
    let (a, b) = (open(1), open(2));
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    end_a.hold(Lane::Data, true);
    let threads = [Threads::start(&a).expect("threads"), Threads::start(&b).expect("threads")];
    a.connect(Arc::new(end_a)).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    let host = a.session().expect("A serves");
    // Scattered over the whole volume, every block once.
    let stride = volume_bytes / BLOCK / pending;
    let data = vec![5; BLOCK as usize];
    for n in 0..pending {
        host.write(0, n * stride * BLOCK, &data).expect("written");
    }
    host.flush().expect("flushed");
    while a.status().unreflected_records > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let t = Instant::now();
    let takeover = b.takeover().expect("B serves");
    let ready = t.elapsed().as_secs_f64() * 1e3;
    assert_eq!(takeover.owed_blocks, pending, "everything is pending");
    let host = b.session().expect("B serves");
    let mut read = vec![0; BLOCK as usize];
    let t = Instant::now();
    host.read(0, (pending - 1) * stride * BLOCK, &mut read).expect("read");
    let first_read = t.elapsed().as_secs_f64() * 1e3;
    assert_eq!(read, data);
    drop(threads);
    drop((a, b));
    std::fs::remove_dir_all(dir.join("1")).expect("removed");
    std::fs::remove_dir_all(dir.join("2")).expect("removed");
    (ready, first_read)
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
    let (rounds, pending) = if quick { (1, 1_000) } else { (20, 100_000) };
    let sizes = [(16u64 << 30, "16 GiB"), (64 << 40, "64 TiB")];
    let mut ready = [Vec::new(), Vec::new()];
    let mut reads = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (k, (bytes, _)) in sizes.iter().enumerate() {
            let (r, f) = once(&dir, *bytes, pending);
            ready[k].push(r);
            reads[k].push(f);
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
        println!("{name:>7} volume: ready after {m:6.2} ({lo:.2}-{hi:.2})   bound < 25");
        let (m, lo, hi) = show(&mut reads[k]);
        figures.add(&format!("first remote read, {name}"), m, "ms", Better::Less);
        println!("{name:>7} volume: first remote read {m:6.3} ({lo:.3}-{hi:.3})");
    }
    let (ratio, apart) = (medians[1] / medians[0], medians[1] - medians[0]);
    println!("64 TiB / 16 GiB: {ratio:.2}, {apart:+.2} ms   bound < 1.2 or 1 ms");
    figures.write();
}
