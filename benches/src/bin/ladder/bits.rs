//! Resident memory for each bit that is set in a group with 64 TiB of volumes, no two next to each other: in a
//! device that collects them while its line is down, and in the one that takes over and is owed them.
//!
//! Each row is measured in a process of its own.

use super::{BLOCK, BYTE, Options, device, wait};
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::{Random, resident};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const VOLUME: u64 = 64 << 40;
/// Blocks that are set before.
const RUN: u64 = 16 << 10;

/// The largest resident memory while `step` runs, and what it returns.
fn largest<T>(step: impl FnOnce() -> T) -> (u64, T) {
    let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = step();
        stop.store(true, Ordering::Relaxed);
        (most.load(Ordering::Relaxed), result)
    })
}

/// A device with `bits` of a volume of `volume` bytes set; prints what they take.
fn row(options: &Options, bits: u64, volume: u64) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = Settings { told_records_max: 0, ..Settings::default() };
    let journal = 64 << 20;
    let (a, a_threads) = device(&options.dir, 1, [volume, journal], settings.clone(), &clock);
    let (b, b_threads) = device(&options.dir, 2, [volume, journal], settings, &clock);
    let connect = || {
        let (end_a, end_b) = memory_link(Line::default(), clock.clone());
        a.connect(Arc::new(end_a.clone())).expect("connected");
        b.connect(Arc::new(end_b)).expect("connected");
        end_a
    };
    let line = connect();
    wait("the peer is there", || a.status().connected && a.status().serving);
    let host = a.session().expect("A serves");
    let (data, mut random) = (vec![BYTE; BLOCK as usize], Random::new(7));
    let blocks = (volume / BLOCK - RUN) / 2;
    line.cut();
    wait("the line is down", || !a.status().connected);
    a.suspend().expect("suspended");
    let settle = || {
        host.flush().expect("flushed");
        wait("all is in N", || a.status().unreflected_records == 0);
        a.checkpoint_now().expect("a checkpoint");
    };
    // The memory that a device takes once is there before bits are counted: these are one run.
    for n in 0..4 * RUN {
        host.write(0, n % RUN * BLOCK, &data).expect("written");
    }
    settle();
    let before = resident();
    let (most, ()) = largest(|| {
        for _ in 0..bits {
            host.write(0, (RUN + random.draw() % blocks * 2) * BLOCK, &data).expect("written");
        }
        settle();
    });
    let set = a.status().differential.table_blocks;
    let runs = (set - RUN) as f64;
    let grown = |most: u64, before: u64| most.saturating_sub(before) as f64;
    println!("RESIDENT {before}");
    println!("{runs:.0} bits set: {:.1} bytes each", grown(most, before) / runs);
    let before = resident();
    connect().hold(Lane::Data, true);
    let (most, owed) = largest(|| {
        wait("the peer is there", || b.status().connected);
        b.takeover().expect("B serves").owed_blocks
    });
    assert_eq!(owed, set);
    println!("{runs:.0} blocks owed: {:.1} bytes each", grown(most, before) / runs);
    drop((a_threads, b_threads));
}

pub fn main(options: &Options, figures: &mut Figures) {
    if let Some((bits, volume)) = options.row {
        return row(options, bits, volume);
    }
    let program = std::env::current_exe().expect("this program");
    let bits = if options.quick { 10_000u64 } else { 1_000_000 };
    for volume in [1 << 40, VOLUME] {
        println!("volumes of {} TiB:", volume >> 40);
        let arguments = ["bits", "--bits", &bits.to_string(), "--volume", &volume.to_string()];
        let out = Command::new(&program).args(arguments).output().expect("this program again");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        for line in text.lines() {
            if let Some(bytes) = line.strip_prefix("RESIDENT ") {
                let mib = bytes.parse::<u64>().expect("bytes") >> 20;
                println!("  a pair without bits: {mib} MiB");
                continue;
            }
            println!("  {line}, bound 64");
            let each = line.rsplit(' ').nth(2).and_then(|n| n.parse().ok()).expect("bytes");
            let name = format!("{bits} bits of {} TiB: {}", volume >> 40, line.contains("owed"));
            figures.add(&name, each, "bytes", Better::Less);
        }
    }
}
