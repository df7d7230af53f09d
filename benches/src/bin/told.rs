//! A takeover by table: how long it takes, and how much its grant hands over, with the bits announced before
//! (LADDER 6).
//!
//! Logs and superblocks on disk; normal volumes nowhere, for a takeover does not touch them. A differential
//! group, whose data lane is held: every block that is written keeps its bit. The blocks are scattered over
//! 64 TiB, no two neighbours. With `--untold` the other device keeps no announcement; `--delay MS` is a line with
//! so much delay each way.
//!
//!     cargo run --release -p afterimage-benches --bin told [-- --dir DIR] [--bits N] [--rounds N]
//!         [--untold] [--delay MS] [--json FILE]

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::storage::FileName;
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
const VOLUME_BYTES: u64 = 64 << 40;

/// A line that counts the bytes of grants.
struct Counted {
    line: MemoryLink,
    granted: AtomicU64,
}

/// The kind of a grant with a table, as `docs/format.md` has it.
const GRANT: [u8; 2] = [13, 0];

impl Link for Counted {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> afterimage::Result<()> {
        if lane == Lane::Control && frame[6..8] == GRANT {
            self.granted.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        self.line.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> afterimage::Result<Option<Vec<u8>>> {
        self.line.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.line.queued(lane)
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.line.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.line.close();
    }
}

/// Milliseconds of a takeover, and the bytes of its grant.
fn once(dir: &Path, bits: u64, is_told: bool, delay_ns: u64) -> (f64, u64) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let durable = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog];
        let path = dir.join(id.to_string());
        let storage =
            Arc::new(Split::create(path, &durable).expect("a directory").without_volumes());
        let volumes = vec![VolumeSpec { id: 0, bytes: VOLUME_BYTES }];
        let geometry = Geometry {
            journal_bytes: 1 << 30,
            differential: true,
            ..Geometry::new(1, id, volumes)
        };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        let most = if is_told { Settings::default().told_records_max } else { 0 };
        let settings = Settings { told_records_max: most, ..Settings::default() };
        Device::open(storage, clock.clone(), settings).expect("a device")
    };
    let (a, b) = (open(1), open(2));
    let (end_a, end_b) = memory_link(Line { delay_ns, ..Line::default() }, clock.clone());
    end_a.hold(Lane::Data, true);
    let end_a = Arc::new(Counted { line: end_a, granted: AtomicU64::new(0) });
    let threads = [Threads::start(&a).expect("threads"), Threads::start(&b).expect("threads")];
    a.connect(end_a.clone()).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    let host = a.session().expect("A serves");
    let stride = VOLUME_BYTES / BLOCK / bits;
    let data = vec![5; BLOCK as usize];
    for n in 0..bits {
        host.write(0, n * stride * BLOCK, &data).expect("written");
    }
    host.flush().expect("flushed");
    let told = || b.told_and_missing().0.len() as u64;
    // Blocks that were sent before they were told of are granted.
    let window = Settings::default().copy_bytes_max / BLOCK;
    while is_told && told() + window < bits {
        std::thread::sleep(Duration::from_millis(100));
    }
    while a.status().unreflected_records > 0 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let t = Instant::now();
    let takeover = b.takeover().expect("B serves");
    let ready = t.elapsed().as_secs_f64() * 1e3;
    assert_eq!(takeover.owed_blocks, bits);
    let granted = end_a.granted.load(Ordering::Relaxed);
    drop(threads);
    drop((a, b));
    for id in ["1", "2"] {
        std::fs::remove_dir_all(dir.join(id)).expect("removed");
    }
    (ready, granted)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|a| a == name);
    let value = |name: &str| Some(&args[args.iter().position(|a| a == name)? + 1]);
    let number =
        |name: &str, usual: u64| value(name).map_or(usual, |n| n.parse().expect("a number"));
    let (bits, rounds) = (number("--bits", 1_000_000), number("--rounds", 5).max(1));
    let dir = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("told-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let delay_ns = number("--delay", 0) * 1_000_000;
    let mut all: Vec<_> =
        (0..rounds).map(|_| once(&dir, bits, !has("--untold"), delay_ns)).collect();
    std::fs::remove_dir_all(&dir).expect("removed");
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (median, granted) = all[all.len() / 2];
    let (least, most) = (all[0].0, all[all.len() - 1].0);
    println!(
        "{bits} bits over 64 TiB, {rounds} rounds: ready after {median:.1} ms ({least:.1}-{most:.1})"
    );
    println!("the grant has {granted} bytes");
    let mut figures = Figures::default();
    figures.add("ready", median, "ms", Better::Less);
    figures.add("granted", granted as f64, "bytes", Better::Less);
    figures.write();
}
