//! The costs of differential mode and of the ladder that leads there and back.
//!
//!     cargo run --release -p afterimage-benches --bin ladder -- COST [--quick] [--dir DIR] [--json FILE]
//!
//! | COST | measured |
//! |---|---|
//! | `cost [--disk]` | a host's write in differential mode beside one in ordered mode |
//! | `bits` | memory for each bit that is set |
//! | `stall` | how long hosts wait while a journal of 4 GiB full of R becomes bits |
//! | `load [--mib N] [--seconds N]` | 100 MB/s written on a line of 10 MB/s: waits, the way back, what is sent |
//! | `image` | a forced takeover to the last consistent image of 256 MiB and of 1 GiB, and its way back |
//! | `takeover` | a takeover while 1 GiB is still to be copied behind a line of 10 MiB/s |

mod bits;
mod cost;
mod image;
mod load;
mod stall;
mod takeover;

use afterimage::Device;
use afterimage::internal::clock::Clock;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::storage::{FileName, SideKind};
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::Figures;
use afterimage_benches::split::Split;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;

/// A device whose superblock and tables are on disk in `dir`, with its normal volumes nowhere and logs that hold
/// nothing but `BYTE`.
fn device(
    dir: &Path,
    id: u64,
    [volume_bytes, journal_bytes]: [u64; 2],
    settings: Settings,
    clock: &Arc<dyn Clock>,
) -> (Arc<Device>, Threads) {
    let table = SideKind::new("table").expect("a word");
    let side = |number| FileName::Side { kind: table, number };
    let on_disk = [FileName::Superblock, side(0), side(1)];
    let storage = Split::create(dir.join(id.to_string()), &on_disk).expect("a directory");
    let storage = Arc::new(storage.without_volumes());
    let volumes = vec![VolumeSpec { id: 0, bytes: volume_bytes }];
    let geometry = Geometry { journal_bytes, ..Geometry::new(1, id, volumes) };
    Device::create(&*storage, &geometry, id == 1).expect("a device");
    let device = Device::open(storage.clone(), clock.clone(), settings).expect("a device");
    storage.forget_logs(BYTE);
    let threads = Threads::start(&device).expect("threads");
    (device, threads)
}

/// All that is written.
const BYTE: u8 = 5;

/// Nanoseconds that the threads of this process have computed.
fn computed() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let of = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| of(task.path())).sum()
}

/// Waits until `is_so`, at most ten minutes.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(600);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The options.
struct Options {
    dir: PathBuf,
    quick: bool,
    disk: bool,
    mib: u64,
    seconds: u64,
    /// Bits that are set, and bytes of the volume: a row of `bits`.
    row: Option<(u64, u64)>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).map(|at| args[at + 1].as_str());
    let number = |name, usual| value(name).map_or(usual, |n| n.parse().expect("a number"));
    let dir = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let options = Options {
        dir: dir.join(format!("ladder-{}", std::process::id())),
        quick: args.iter().any(|a| a == "--quick"),
        disk: args.iter().any(|a| a == "--disk"),
        mib: number("--mib", 512),
        seconds: number("--seconds", 60),
        row: value("--bits").map(|_| (number("--bits", 0), number("--volume", 0))),
    };
    std::fs::create_dir_all(&options.dir).expect("a directory");
    let mut figures = Figures::default();
    match args.get(1).map(String::as_str) {
        Some("cost") => cost::main(&options, &mut figures),
        Some("bits") => bits::main(&options, &mut figures),
        Some("image") => image::main(&options, &mut figures),
        Some("takeover") => takeover::main(&options, &mut figures),
        Some("stall") => stall::main(&options, &mut figures),
        Some("load") => load::main(&options, &mut figures),
        _ => {
            eprintln!("ladder: name a cost: cost, bits, stall, load, image, takeover");
            std::process::exit(2);
        }
    }
    std::fs::remove_dir_all(&options.dir).expect("removed");
    figures.write();
}
