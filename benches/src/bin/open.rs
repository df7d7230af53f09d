//! How long a device takes to open again after its process was killed, with so many records live.
//!
//! `open [--quick] [RECORDS] [DIR]`: a million records of 4 KiB, in a directory. Every one of them
//! is read and held against its checksum. Beside it: reading the same log and computing the same
//! checksums, and nothing else; and a log of that size in which a thousandth of it is live.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::data_checksum;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::storage::{Directory, FileName, Storage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const BLOCK: u64 = 4096;
/// Blocks of one request.
const REQUEST: u64 = 31;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    arguments.retain(|a| a != "--quick");
    let usual = if quick { 10_000 } else { 1_000_000 };
    let records = arguments.first().map_or(usual, |a| a.parse().expect("a number of records"));
    let dir = arguments.get(1).map_or(std::env::temp_dir(), PathBuf::from);
    let dir = dir.join(format!("afterimage-open-{}", std::process::id()));
    let journal_bytes = (records * BLOCK * 17 / 16 + (64 << 20)).next_multiple_of(1 << 20);
    let full = measure(&dir, records, journal_bytes);
    let sparse = measure(&dir, records / 1000, journal_bytes);
    println!("opening with a thousandth of the records, the log as long: {:.4}", sparse / full);
}

/// How long opening takes, in seconds.
fn measure(dir: &Path, records: u64, journal_bytes: u64) -> f64 {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let volumes = vec![VolumeSpec { id: 0, bytes: records * BLOCK }];
    let geometry = Geometry { journal_bytes, ..Geometry::new(1, 1, volumes) };
    let storage = Arc::new(Directory::create(dir).expect("a directory"));
    Device::create(&*storage, &geometry, true).expect("a device");
    let open = |storage| {
        Device::open(storage, clock.clone(), Settings::default()).expect("a device opens")
    };
    let device = open(storage.clone());
    device.resume_alone().expect("it serves");
    let host = device.session().expect("it serves");
    let mut data = vec![0; (REQUEST * BLOCK) as usize];
    let mut written = 0;
    while written < records {
        let blocks = REQUEST.min(records - written);
        data.chunks_mut(8).for_each(|word| word.copy_from_slice(&written.to_le_bytes()));
        let bytes = &data[..(blocks * BLOCK) as usize];
        host.write(0, written * BLOCK, bytes).expect("written");
        written += blocks;
        device.step_commit_due().expect("committed");
    }
    host.flush().expect("flushed");
    drop((host, device));

    let t = Instant::now();
    let device = open(storage.clone());
    let opened = t.elapsed().as_secs_f64();
    let recovery = device.recovery();
    assert!(!recovery.clean && recovery.own.live_records == records, "{recovery:?}");
    assert_eq!(recovery.own.cut_records, 0);
    drop(device);

    let t = Instant::now();
    let mut chunk = vec![0; 1 << 20];
    let mut sum = 0u64;
    for offset in (0..journal_bytes).step_by(chunk.len()) {
        storage.read(FileName::OwnLog, offset, &mut chunk).expect("read");
        chunk.chunks(BLOCK as usize).for_each(|block| sum ^= data_checksum(block));
    }
    let bound = t.elapsed().as_secs_f64();
    std::hint::black_box(sum);
    println!("{records} live records, {} MiB of log", journal_bytes >> 20);
    println!("opened      {opened:8.3} s");
    println!("bound       {bound:8.3} s  (reads the own log and computes its checksums)");
    drop(storage);
    std::fs::remove_dir_all(dir).expect("removed");
    opened
}
