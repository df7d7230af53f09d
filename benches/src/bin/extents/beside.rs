//! Writes and reads of 4 KiB beside live extents of all levels, own and received, in turns with such
//! beside none. No thread of the devices runs meanwhile; volumes and logs are in memory.

use crate::{MIB, RATIO_BOUND, serve};
use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::request::Session;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use afterimage_benches::{Column, Random};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
/// Blocks of the largest extent.
const LEVELS: u64 = 13;
const LARGEST: u64 = 1 << LEVELS;
const VOLUME: u64 = 1 << 40;
/// Writes and reads go to pieces of 1 MiB, evenly spread, each at the end of its part.
const PIECES: u64 = 64;
const PART: u64 = VOLUME / PIECES;

struct Pair {
    host: Session,
    /// The one that serves, and the other.
    devices: [Arc<Device>; 2],
}

/// Discards `extents` extents, one a request, of every level, evenly spread from byte `first` on over a
/// half of the volume, but for the pieces.
fn discard(host: &Session, first: u64, extents: u64) -> u64 {
    let mut done = 0;
    let cells = extents.div_ceil(LEVELS);
    for cell in 0..cells {
        // The last two regions of a part have the piece.
        let cell = (first + VOLUME / 2 / cells * cell) / BLOCK / (2 * LARGEST) * (2 * LARGEST);
        let last = PART / BLOCK - 2 * LARGEST;
        let cell = if cell % (PART / BLOCK) == last { cell - 2 * LARGEST } else { cell };
        for level in 1..=LEVELS {
            if done == extents {
                return done;
            }
            let number = cell + (1 << level);
            // Nothing is discarded where nothing is.
            host.write(0, number * BLOCK, &[1; BLOCK as usize]).expect("written");
            host.discard(0, number * BLOCK, BLOCK << level).expect("discarded");
            done += 1;
        }
    }
    done
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A pair whose second device serves, with so many extents live there: one half own, one received.
fn pair(dir: &Path, extents: u64) -> Pair {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    // Reflects when it is told to.
    let settings = Settings {
        reflect_interval_ns: u64::MAX,
        reflect_records_max: 1 << 20,
        checkpoint_interval_ns: u64::MAX,
        ..Settings::default()
    };
    let devices = [1, 2].map(|id| {
        let path = dir.join(format!("beside-{extents}-{id}"));
        let storage = Arc::new(Split::create(path, &[]).expect("a directory"));
        let volumes = vec![VolumeSpec { id: 0, bytes: VOLUME }];
        let geometry = Geometry { journal_bytes: 1 << 30, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        Device::open(storage, clock.clone(), settings.clone()).expect("a device")
    });
    let (threads, host) = serve(&devices, clock);
    let [a, b] = &devices;
    for piece in 1..=PIECES {
        host.write(0, piece * PART - MIB, &vec![1; MIB as usize]).expect("written");
    }
    wait_until(|| a.status().backlog_records == 0);
    for device in &devices {
        while device.step_reflect().expect("reflected") > 0 {}
        device.checkpoint_now().expect("a checkpoint");
    }
    let received = discard(&host, 0, extents / 2);
    wait_until(|| a.status().backlog_records == 0);
    b.takeover().expect("B serves");
    let host = b.session().expect("B serves");
    let own = discard(&host, VOLUME / 2, extents / 2);
    host.write(0, VOLUME - MIB, &[1; BLOCK as usize]).expect("written");
    host.flush().expect("flushed");
    wait_until(|| b.status().backlog_records == 0);
    drop(threads);
    let live = b.status().unreflected_records;
    assert!(live >= own + received && own + received >= extents, "{live} records are live");
    let [a, b] = devices;
    Pair { host, devices: [b, a] }
}

/// Nanoseconds that `each` takes at blocks of the pieces, on the average.
fn timed(random: &mut Random, count: u64, mut each: impl FnMut(u64)) -> f64 {
    let mut offset = || {
        let (piece, block) = (random.draw() % PIECES, random.draw() % (MIB / BLOCK));
        (piece + 1) * PART - MIB + block * BLOCK
    };
    let offsets: Vec<_> = (0..count).map(|_| offset()).collect();
    let began = Instant::now();
    offsets.into_iter().for_each(&mut each);
    began.elapsed().as_nanos() as f64 / count as f64
}

/// Whether the bounds are kept.
pub fn compare(dir: &Path, quick: bool, figures: &mut Figures) -> bool {
    let (extents, rounds, count) = if quick { (260, 3, 100) } else { (30_000, 41, 1_000) };
    let pairs = [extents, 0].map(|extents| pair(dir, extents));
    let column = || ["with", "without"].map(Column::new);
    let (mut writes, mut reads) = (column(), column());
    let mut random = Random::new(1);
    let data = [2; BLOCK as usize];
    let mut read = [0; BLOCK as usize];
    for round in 0..=rounds {
        for turn in 0..2 {
            let k = (round + turn) % 2;
            let Pair { host, devices } = &pairs[k];
            let write_ns = timed(&mut random, count, |at| {
                host.write(0, at, &data).expect("written");
            });
            devices[0].step_commit().expect("committed");
            let read_ns = timed(&mut random, count, |at| {
                host.read(0, at, &mut read).expect("read");
            });
            // The first round meets memory that was never touched.
            if round > 0 {
                writes[k].figures.push(write_ns);
                reads[k].figures.push(read_ns);
            }
        }
    }
    println!("beside {extents} live extents: ns, median (min-max)");
    let mut good = true;
    for (name, columns) in [("write", &writes), ("read", &reads)] {
        for column in columns {
            let ((least, most), median) = (column.range(), column.median());
            println!("  4 KiB {name} {:>7}: {median:7.0} ({least:.0}-{most:.0})", column.name);
        }
        let ratio = columns[0].ratio(&columns[1]);
        println!("  4 KiB {name}, with / without: {ratio:.3}, bound {RATIO_BOUND}");
        figures.add(&format!("{name} beside extents"), ratio, "ratio", Better::Less);
        good &= ratio <= RATIO_BOUND;
    }
    good
}
