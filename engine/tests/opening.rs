//! The reads of an opening: no more of the logs than it must to tell rot from a torn tail, and whether
//! every segment of a normal volume is there that held anything.

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Durability, Geometry, Settings};
use afterimage::internal::storage::{Directory, FileName, Storage};
use common::hooked::Hooked;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const BLOCK: u64 = 4096;

/// A device that serves, with journals of `journal_bytes`, and nothing that syncs them.
fn device(journal_bytes: u64) -> (Arc<Hooked>, Geometry, Arc<Device>) {
    let storage = Arc::new(Hooked::default());
    let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 30 }];
    let geometry = Geometry { journal_bytes, ..Geometry::new(1, 1, volumes) };
    Device::create(&*storage, &geometry, true).unwrap();
    let device = open(&storage).unwrap();
    device.resume_alone().unwrap();
    (storage, geometry, device)
}

fn open(storage: &Arc<Hooked>) -> afterimage::internal::error::Result<Arc<Device>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = Settings { durability: Durability::Never, ..Settings::default() };
    Device::open(storage.clone(), clock, settings)
}

/// Writes `count` blocks, in batches of 31.
fn write(device: &Arc<Device>, count: u64) {
    let host = device.session().unwrap();
    let data = vec![7; (31 * BLOCK) as usize];
    for k in 0..count.div_ceil(31) {
        let blocks = 31.min(count - k * 31);
        host.write(0, k * 31 * BLOCK, &data[..(blocks * BLOCK) as usize]).unwrap();
        device.step_commit().unwrap();
    }
}

#[test]
fn opening_reads_what_is_live_not_the_log() {
    let (storage, geometry, device) = device(512 << 20);
    write(&device, 1000);
    drop(device);
    storage.read.store(0, SeqCst);
    let device = open(&storage).unwrap();
    assert_eq!(device.recovery().own.live_records, 1000);
    let live = 1000 * BLOCK + 1000 / 31 * 4096 * 2;
    let searched = 2 * (geometry.unsynced_bytes_max() + geometry.batch_bytes_max());
    let read = storage.read.load(SeqCst);
    // Both logs are searched; a chunk more at the end of each.
    let most = 3 * live + 2 * (searched + (2 << 20));
    assert!(read <= most, "{read} bytes read, {most} at most");
    assert!(most < geometry.journal_bytes / 4, "the test tells nothing");
}

#[test]
fn what_was_not_synced_for_long_is_synced_and_its_loss_is_no_torn_tail() {
    let (storage, geometry, device) = device(64 << 20);
    // Nobody flushes, and `Never` would not hear it.
    write(&device, geometry.unsynced_bytes_max() / BLOCK + 100);
    drop(device);
    let mut header = vec![0; 4096];
    Storage::read(&*storage, FileName::OwnLog, 0, &mut header).unwrap();
    header[100] ^= 1;
    storage.write(FileName::OwnLog, 0, &[IoSlice::new(&header)]).unwrap();
    let error = open(&storage).expect_err("durable records are gone");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains("were durable and are gone"), "{error}");
}

/// A device in a directory that has written the first blocks of two volumes of two segments each,
/// and died; with a checkpoint behind the first. Which of the four segments are listed: 0 alone.
fn killed() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let volumes = [3, 9].map(|id| VolumeSpec { id, bytes: 100_352 }).to_vec();
    let mut geometry = Geometry { segment_bytes: 65_536, ..Geometry::new(1, 1, volumes) };
    geometry.journal_bytes = 8 << 20;
    let storage = Directory::create(dir.path()).unwrap();
    Device::create(&storage, &geometry, true).unwrap();
    let device = reopen(storage).unwrap();
    device.resume_alone().unwrap();
    let host = device.session().unwrap();
    host.write(3, 0, &[1; 512]).unwrap();
    reflect(&device);
    device.checkpoint_now().unwrap();
    host.write(9, 65_536, &[2; 512]).unwrap();
    reflect(&device);
    let paths = ["3.0", "9.1"].map(|name| dir.path().join("volumes").join(name));
    assert!(paths.iter().all(|path| path.exists()));
    (dir, paths.to_vec())
}

fn reflect(device: &Arc<Device>) {
    device.step_commit().unwrap();
    while device.step_reflect().unwrap() > 0 {}
}

fn reopen(storage: Directory) -> afterimage::internal::error::Result<Arc<Device>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Device::open(Arc::new(storage), clock, Settings::default())
}

#[test]
fn a_segment_that_vanished_is_refused_by_name() {
    let (dir, paths) = killed();
    let aside = dir.path().join("aside");
    let refused = |words: &[&str]| {
        let before = std::fs::read(dir.path().join("superblock")).unwrap();
        let error = reopen(Directory::open(dir.path()).unwrap()).expect_err("damaged");
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        let story = error.to_string();
        let words = words.iter().chain(&["afterimage inspect"]);
        words.for_each(|word| assert!(story.contains(word), "{word:?} is not in: {story}"));
        assert!(before == std::fs::read(dir.path().join("superblock")).unwrap());
    };
    // A checkpoint counts on the one; the records of the other are in the log still.
    std::fs::rename(&paths[0], &aside).unwrap();
    refused(&["volumes/3.0", "is missing, though the table of segments lists it"]);
    std::fs::write(&paths[0], [1; 512]).unwrap();
    refused(&["volumes/3.0", "has 512 bytes, should have 65536"]);
    std::fs::rename(&aside, &paths[0]).unwrap();
    std::fs::remove_file(&paths[1]).unwrap();
    let device = reopen(Directory::open(dir.path()).unwrap()).unwrap();
    reflect(&device);
    device.checkpoint_now().unwrap();
    assert!(paths[1].exists(), "made again from its record");
    drop(device);
    std::fs::remove_file(&paths[1]).unwrap();
    refused(&["volumes/9.1"]);
}

#[test]
fn a_table_of_segments_that_cannot_be_read_is_refused_by_name() {
    let (dir, _) = killed();
    let path = dir.path().join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = afterimage::internal::format::segments::offset(2) as usize;
    bytes[at + 100] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let error = reopen(Directory::open(dir.path()).unwrap()).expect_err("damaged");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains("superblock: table of segments at 12288"), "{error}");
}
