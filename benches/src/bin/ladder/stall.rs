//! A journal full of R, all of it scattered over 64 TiB, is suspended while hosts write and read: the longest
//! time that one of them waits, beside the same without a suspension.

use super::{BLOCK, BYTE, Options, device, wait};
use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage_benches::Random;
use afterimage_benches::figures::{Better, Figures};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const VOLUME: u64 = 64 << 40;

/// The longest of each host's requests since the last look, in nanoseconds.
#[derive(Default)]
struct Longest([AtomicU64; 2]);

impl Longest {
    fn note(&self, host: usize, since: Instant) {
        self.0[host].fetch_max(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Milliseconds, write and read.
    fn take(&self) -> [f64; 2] {
        self.0.each_ref().map(|longest| longest.swap(0, Ordering::Relaxed) as f64 / 1e6)
    }
}

fn fill(a: &Arc<Device>, records: u64) {
    let host = a.session().expect("A serves");
    let (data, mut random) = (vec![BYTE; BLOCK as usize], Random::new(7));
    for _ in 0..records {
        host.write(0, random.draw() % (VOLUME / BLOCK) * BLOCK, &data).expect("written");
    }
    host.flush().expect("flushed");
}

pub fn main(options: &Options, figures: &mut Figures) {
    let dir = &options.dir;
    let (records, journal) = if options.quick { (2_000, 64 << 20) } else { (1_000_000, 4 << 30) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    // The suspension is asked for.
    let settings = Settings { told_records_max: 0, suspend_from_percent: 0, ..Settings::default() };
    let (a, a_threads) = device(dir, 1, [VOLUME, journal], settings.clone(), &clock);
    let (b, b_threads) = device(dir, 2, [VOLUME, 64 << 20], settings, &clock);
    let (end_a, end_b) = memory_link(Line::default(), clock);
    end_a.hold(Lane::Data, true);
    a.connect(Arc::new(end_a)).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    a.resume_alone().expect("A serves");
    wait("the peer is there", || a.status().connected);
    fill(&a, records);
    wait("all is in N", || a.status().unreflected_records == 0);
    assert_eq!(a.status().backlog_records, records);

    let (stop, longest) = (AtomicBool::new(false), Longest::default());
    let mut seen = Vec::new();
    let (mut took, mut later) = (0.0, Vec::new());
    let hosts = [a.session(), a.session()].map(|host| host.expect("A serves"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (data, mut random) = (vec![BYTE; BLOCK as usize], Random::new(99));
            while !stop.load(Ordering::Relaxed) {
                let since = Instant::now();
                let offset = random.draw() % (VOLUME / BLOCK) * BLOCK;
                hosts[0].write(0, offset, &data).expect("written");
                hosts[0].flush().expect("flushed");
                longest.note(0, since);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        scope.spawn(|| {
            let (mut data, mut random) = (vec![0; BLOCK as usize], Random::new(5));
            while !stop.load(Ordering::Relaxed) {
                let since = Instant::now();
                let offset = random.draw() % (VOLUME / BLOCK) * BLOCK;
                hosts[1].read(0, offset, &mut data).expect("read");
                longest.note(1, since);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let second = Duration::from_secs(1);
        std::thread::sleep(second);
        longest.take();
        for _ in 0..if options.quick { 1 } else { 3 } {
            std::thread::sleep(second);
            seen.push(longest.take());
        }
        let began = Instant::now();
        a.suspend().expect("suspended");
        took = began.elapsed().as_secs_f64() * 1e3;
        // A request that waits ends.
        std::thread::sleep(second / 5);
        later.push(longest.take());
        // Checkpoints of the table come, too.
        for _ in 0..if options.quick { 1 } else { 10 } {
            std::thread::sleep(second);
            later.push(longest.take());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let table = a.status().differential.table_blocks;
    assert!(table >= records - records / 1000, "{table} bits of {records} records");
    drop((a_threads, b_threads));
    let most = |all: &[[f64; 2]], host: usize| all.iter().map(|m| m[host]).fold(0.0, f64::max);
    println!("{table} bits; longest wait of a host in milliseconds: write, read");
    println!("before: {:6.2} {:6.2}", most(&seen, 0), most(&seen, 1));
    println!("while it suspends ({took:.1} ms): {:6.2} {:6.2}", later[0][0], later[0][1]);
    println!("later, second by second: {:.2?}", &later[1..]);
    let stall = most(&later[..1], 0).max(most(&later[..1], 1));
    println!("stall at the suspension: {stall:.2} ms, bound 100");
    figures.add("stall at a suspension", stall, "ms", Better::Less);
    figures.add("suspension", took, "ms", Better::Less);
}
