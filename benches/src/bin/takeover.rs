//! How long a takeover takes with a backlog, and whether the volume's size matters.
//!
//! Logs and superblocks on disk, so that every durable step of a takeover is; normal volumes
//! nowhere, for it does not touch them. The link is unlimited, its data lane held, so that exactly the
//! backlog is pending. Sizes take turns in one run.
//!
//!     cargo run --release -p afterimage-benches --bin takeover [-- --dir DIR] [--quick] [--json FILE]

use afterimage::Device;
use afterimage::clock::{Clock, SystemClock};
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Geometry, Settings};
use afterimage::link::{Lane, Line, memory_link};
use afterimage::storage::FileName;
use afterimage::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let quick = args.iter().any(|a| a == "--quick");
    let dir = args.iter().position(|a| a == "--dir").map(|i| PathBuf::from(&args[i + 1]));
    let dir =
        dir.unwrap_or_else(std::env::temp_dir).join(format!("takeover-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
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
