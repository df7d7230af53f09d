//! A host's write in ordered mode and in differential mode, in turns: in a burst that the journal takes, with a
//! flush each, and what the whole process computes for one, its peer's part included.
//!
//! Both pairs are in memory, with all threads at work; with `--disk` their own logs are on disk.

use super::{BLOCK, Options, computed, wait};
use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::request::Session;
use afterimage::internal::storage::FileName;
use afterimage::internal::threads::Threads;
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::split::Split;
use afterimage_benches::{Column, Random, median, sign_interval};
use std::sync::Arc;
use std::time::Instant;

const SPAN: u64 = 256 << 20;
/// Writes of a burst: they fit into the journal.
const WRITES: usize = 40_000;

struct Pair {
    host: Session,
    devices: [Arc<Device>; 2],
    _threads: [Threads; 2],
}

fn pair(options: &Options, differential: bool) -> Pair {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let devices = [1, 2].map(|id| {
        let path = options.dir.join(format!("{id}-{differential}"));
        let on_disk: &[FileName] = if options.disk { &[FileName::OwnLog] } else { &[] };
        let storage = Arc::new(Split::create(path, on_disk).expect("a directory"));
        let volumes = vec![VolumeSpec { id: 0, bytes: SPAN }];
        let geometry =
            Geometry { journal_bytes: 256 << 20, differential, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).expect("a device");
        Device::open(storage, clock.clone(), Settings::default()).expect("a device")
    });
    let threads = devices.each_ref().map(|device| Threads::start(device).expect("threads"));
    let (end_a, end_b) = memory_link(Line::default(), clock);
    devices[0].connect(Arc::new(end_a)).expect("connected");
    devices[1].connect(Arc::new(end_b)).expect("connected");
    devices[0].resume_alone().expect("A serves");
    let host = devices[0].session().expect("A serves");
    let data = vec![1; 1 << 20];
    for offset in (0..SPAN).step_by(data.len()) {
        host.write(0, offset, &data).expect("written"); // memory is touched before it is timed
    }
    let pair = Pair { host, devices, _threads: threads };
    pair.settle();
    pair
}

impl Pair {
    fn settle(&self) {
        wait("nothing is left to do", || {
            self.devices.iter().all(|device| {
                let status = device.status();
                let bits = status.differential.table_blocks;
                status.backlog_records + status.unreflected_records + bits == 0
            })
        });
        self.devices.iter().for_each(|device| device.checkpoint_now().expect("a checkpoint"));
    }

    /// Nanoseconds of a write in a burst, and of a write with a flush, and all that is computed for a write.
    fn round(&self, random: &mut Random, writes: usize) -> [f64; 3] {
        let data = vec![2; BLOCK as usize];
        let mut offset = || random.draw() % (SPAN / BLOCK) * BLOCK;
        let was_computed = computed();
        let began = Instant::now();
        for _ in 0..writes {
            self.host.write(0, offset(), &data).expect("written");
        }
        let burst = began.elapsed().as_nanos() as f64 / writes as f64;
        self.settle();
        let flushed = (0..writes / 40).map(|_| {
            let since = Instant::now();
            self.host.write(0, offset(), &data).expect("written");
            self.host.flush().expect("flushed");
            since.elapsed().as_nanos() as f64
        });
        let flushed = median(&flushed.collect::<Vec<_>>());
        self.settle();
        [burst, flushed, (computed() - was_computed) as f64 / (writes + writes / 40) as f64]
    }
}

pub fn main(options: &Options, figures: &mut Figures) {
    let (rounds, writes) = if options.quick { (6, 400) } else { (25, WRITES) };
    let pairs = [false, true].map(|differential| pair(options, differential));
    let mut random = Random::new(3);
    let mut columns = ["ordered", "differential"].map(|name| [(); 3].map(|()| Column::new(name)));
    for round in 0..=rounds {
        for turn in 0..2 {
            // A B, B A, …
            let which = (round + turn) % 2;
            let found = pairs[which].round(&mut random, writes);
            if round > 0 {
                columns[which].iter_mut().zip(found).for_each(|(c, f)| c.figures.push(f));
            }
        }
    }
    println!("{rounds} rounds in turns; nanoseconds for a write of 4 KiB");
    let bounded = ", bound 1.03";
    let rows = [
        ("a write in a burst", bounded),
        ("a write with a flush", bounded),
        ("computed for a write", ""),
    ];
    for (k, (what, bound)) in rows.into_iter().enumerate() {
        let [ordered, differential] = columns.each_ref().map(|of| &of[k]);
        let ratios: Vec<f64> =
            differential.figures.iter().zip(&ordered.figures).map(|(d, o)| d / o).collect();
        let (low, high) = sign_interval(&ratios);
        let ratio = median(&ratios);
        println!(
            "{what}: ordered {:.0}, differential {:.0}",
            ordered.median(),
            differential.median()
        );
        println!("  differential / ordered: {ratio:.3} ({low:.3}-{high:.3}){bound}");
        figures.add(&format!("{what}, differential to ordered"), ratio, "ratio", Better::Less);
    }
}
