//! A forced takeover to the last consistent image: what the force takes beyond an opening, and how long the next
//! opening needs to write the image back, while a host writes as fast as it may.

use super::{BLOCK, Options, wait};
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::{Directory, Storage};
use afterimage::internal::threads::Threads;
use afterimage::{Device, Forced, Image, ImageStatus};
use afterimage_benches::Random;
use afterimage_benches::figures::{Better, Figures};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const REQUEST: u64 = 256 << 10;

/// Room for all that is saved and for all that is kept of what it replaces; the first writes all go in order.
fn settings() -> Settings {
    Settings {
        image_bytes_max: 4 << 30,
        salvage_bytes_max: 4 << 30,
        suspend_from_percent: 0,
        ..Settings::default()
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A closed device in `dir/2`, each of whose `bytes` its hosts have overwritten since the volumes were a state of
/// the hosts' data.
fn make(dir: &Path, bytes: u64, clock: &Arc<dyn Clock>) {
    let devices = [1, 2].map(|id| {
        let storage = Arc::new(Directory::create(dir.join(id.to_string())).expect("a directory"));
        let volumes = vec![VolumeSpec { id: 0, bytes: bytes + BLOCK }];
        Device::create(&*storage, &Geometry::new(1, id, volumes), id == 1).expect("a device");
        Device::open(storage, clock.clone(), settings()).expect("a device")
    });
    let threads = devices.each_ref().map(|device| Threads::start(device).expect("threads"));
    let [a, b] = &devices;
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    a.connect(Arc::new(end_a.clone())).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    wait("the peer is there", || a.status().connected && a.status().serving);
    let fill = |device: &Arc<Device>, byte: u8| {
        let (host, data) = (device.session().expect("it serves"), vec![byte; REQUEST as usize]);
        for n in 0..bytes / REQUEST {
            host.write(0, n * REQUEST, &data).expect("written");
        }
        host.flush().expect("flushed");
    };
    fill(a, 1);
    wait("all is at both", || {
        a.status().backlog_records == 0 && b.status().unreflected_records == 0
    });
    end_a.hold(Lane::Data, true);
    a.suspend().expect("suspended");
    a.session().expect("it serves").write(0, bytes, &[2; BLOCK as usize]).expect("written");
    b.takeover().expect("B serves");
    fill(b, 3);
    wait("all is in N", || b.status().unreflected_records == 0);
    let image = b.status().image;
    let is_whole = matches!(image, ImageStatus::Kept { bytes: found, .. } if found > bytes);
    assert!(is_whole, "{image:?}");
    drop(threads);
    b.close().expect("closed");
}

fn once(options: &Options, mib: u64, figures: &mut Figures) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let bytes = mib << 20;
    make(&options.dir, bytes, &clock);
    let storage = || -> Arc<dyn Storage> {
        Arc::new(Directory::open(options.dir.join("2")).expect("a directory"))
    };
    let open = || Device::open(storage(), clock.clone(), settings()).expect("a device");
    let began = Instant::now();
    open().close().expect("closed");
    let opened = milliseconds(began);
    let began = Instant::now();
    let forced = Forced { image: Image::Last, accept_loss: true };
    Device::force(storage(), clock.clone(), settings(), forced).expect("forced");
    let took = milliseconds(began);

    let began = Instant::now();
    let device = open();
    let host = device.session().expect("it serves");
    let mut data = vec![0; BLOCK as usize];
    host.read(0, 0, &mut data).expect("read");
    assert!(data[0] == 1, "{}", data[0]);
    let first = milliseconds(began);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let threads = Threads::start(&device).expect("threads");
    let (longest, written, back) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (data, mut random) = (vec![9; BLOCK as usize], Random::new(7));
            let (mut longest, mut written) = (Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                let since = Instant::now();
                let offset = random.draw() % (bytes / BLOCK) * BLOCK;
                host.write(0, offset, &data).expect("written");
                longest = longest.max(since.elapsed());
                written += 1;
            }
            (longest, written)
        });
        wait("the image is back", || device.status().image == ImageStatus::NotNeeded);
        let back = milliseconds(began);
        // The journal has come free.
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        let (longest, written) = writer.join().expect("no panic");
        (longest.as_secs_f64() * 1e3, written, back)
    });
    drop(threads);
    device.close().expect("closed");
    println!("an image of {mib} MiB");
    println!("  opened and closed in {opened:.0} ms, forced in {took:.0} ms");
    println!("  the next opening serves its first read after {first:.0} ms");
    println!(
        "  back in the volumes after {back:.0} ms; a host's longest write {longest:.0} ms, of {written}"
    );
    for (name, value) in
        [("force", took), ("first read", first), ("back", back), ("longest write", longest)]
    {
        figures.add(&format!("{name}, {mib} MiB"), value, "ms", Better::Less);
    }
    for id in ["1", "2"] {
        std::fs::remove_dir_all(options.dir.join(id)).expect("removed");
    }
}

pub fn main(options: &Options, figures: &mut Figures) {
    let all: &[u64] = if options.quick { &[16] } else { &[256, 1024] };
    all.iter().for_each(|&mib| once(options, mib, figures));
}
