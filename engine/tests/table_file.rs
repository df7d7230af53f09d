//! The side files of the differential administration table: replaced whole, by one write of the
//! superblock, whatever crashes (D8, D11).
#![cfg(not(any(loom, miri)))]

mod common;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::{Features, Superblock, VolumeSpec};
use afterimage::internal::limits::Geometry;
use afterimage::internal::storage::{FileName, Memory, SideKind, Storage};
use afterimage::internal::superblock::{self, SuperblockFile};
use afterimage::internal::table_file;
use afterimage::internal::unit::{Blocks, Mode, Round};
use common::crash::{CrashDisk, Cut};
use std::sync::Arc;

const BLOCKS: u64 = 1 << 20;

fn disk() -> Arc<CrashDisk> {
    let disk = CrashDisk::new();
    let volumes = [3, 9].map(|id| VolumeSpec { id, bytes: BLOCKS * 4096 - 512 });
    let geometry = Geometry::new(7, 1, volumes.to_vec());
    let geometry = Geometry { journal_bytes: 2 << 20, ..geometry };
    Device::create(&*disk, &geometry, true).unwrap();
    disk
}

fn file(number: u32) -> FileName {
    FileName::Side { kind: SideKind::new("table").unwrap(), number }
}

/// Runs of one block each, every `step` blocks.
fn table(step: u64, runs: u64) -> Vec<Blocks> {
    let run = |k: u64| Blocks { volume: 9, numbers: k * step..k * step + 1 };
    (1..=runs).map(run).collect()
}

fn store(superblock: &SuperblockFile, counter: u64, runs: &[Blocks]) -> Result<(), String> {
    let change = |s: &mut Superblock| {
        s.mode = if runs.is_empty() { Mode::Ordered } else { Mode::Collecting };
        s.round = Round { generation: 1, counter };
        s.clean = false;
    };
    superblock.update_with_table(runs.iter().cloned(), change).map_err(|e| e.to_string())
}

/// A superblock's words of it, and its table.
fn stored(disk: &CrashDisk) -> (u64, Vec<Blocks>) {
    let superblock = superblock::load(disk).unwrap();
    (superblock.round.counter, table_file::read(disk, &superblock).unwrap())
}

/// Tables that grow, shrink, vanish and come back, in the order in which they are stored.
fn tables() -> Vec<(u64, Vec<Blocks>)> {
    let lengths = [0, 1, 3000, 40, 0, 9000, 9000, 2, 5000];
    (1..).zip(lengths.map(|runs| table(3, runs))).collect()
}

/// A crash in any call: the round and the table are both the old ones, or both the new ones.
#[test]
fn a_crash_leaves_the_table_that_the_superblock_names() {
    let made = disk();
    let whole = made.copy();
    let superblock = SuperblockFile::open(whole.clone()).unwrap();
    for (counter, runs) in tables() {
        store(&superblock, counter, &runs).unwrap();
        assert_eq!(stored(&whole), (counter, runs));
    }
    let (mut kept, mut came) = (0, 0);
    for call in 0..whole.calls() {
        for cut in [Cut::Kill, Cut::Synced, Cut::All, Cut::Sectors(call), Cut::Writes(call)] {
            let disk = made.copy();
            disk.die_at(call);
            let superblock = SuperblockFile::open(disk.clone()).unwrap();
            let mut last = (0, Vec::new());
            let fails = |(counter, runs): &(u64, Vec<Blocks>)| {
                store(&superblock, *counter, runs)
                    .inspect(|()| last = (*counter, runs.clone()))
                    .is_err()
            };
            let torn = tables().into_iter().find(fails).expect("the disk died");
            let disk = disk.after(cut);
            let found = stored(&disk);
            assert!(found == last || found == torn, "call {call}, {cut:?}: round {}", found.0);
            *(if found == last { &mut kept } else { &mut came }) += 1;
            // Whatever is there is replaced.
            let superblock = SuperblockFile::open(disk.clone()).unwrap();
            store(&superblock, 99, &table(7, 100)).unwrap();
            assert_eq!(stored(&disk), (99, table(7, 100)));
        }
    }
    assert!(kept > 0 && came > 0, "{kept} kept, {came} came");
}

/// A copy of the superblock that was not reached by the update before names a table that is there.
#[test]
fn either_copy_of_a_torn_update_has_its_table() {
    let disk = disk();
    let superblock = SuperblockFile::open(disk.clone()).unwrap();
    store(&superblock, 1, &table(3, 100)).unwrap();
    let old = disk.bytes(FileName::Superblock)[..512].to_vec();
    store(&superblock, 2, &table(5, 200)).unwrap();
    disk.rot(FileName::Superblock, 0, &old);
    assert_eq!(stored(&disk), (2, table(5, 200)));
    disk.rot(FileName::Superblock, 4096 + 99, &[0x55; 9]);
    assert_eq!(stored(&disk), (1, table(3, 100)));
}

#[test]
fn an_empty_table_has_no_file_and_the_feature_stays() {
    let disk = disk();
    let superblock = SuperblockFile::open(disk.clone()).unwrap();
    superblock.update(|s| s.clean = false).unwrap();
    let feature = || superblock.get().features.incompat & Features::DIFFERENTIAL;
    assert_eq!(feature(), 0);
    store(&superblock, 1, &[]).unwrap();
    let sides =
        || disk.files().unwrap().iter().filter(|f| matches!(f, FileName::Side { .. })).count();
    assert_eq!((sides(), feature()), (0, Features::DIFFERENTIAL));
    store(&superblock, 2, &table(3, 5)).unwrap();
    assert_eq!((sides(), superblock.get().table.bytes), (1, 4096));
    store(&superblock, 0, &[]).unwrap();
    superblock.update(|s| s.round = Round::default()).unwrap();
    assert_eq!((superblock.get().table.bytes, feature()), (0, Features::DIFFERENTIAL));
}

/// Behind the mark of a close the storage may be another device's: no side file is written there either.
#[test]
fn a_closed_device_writes_no_table() {
    let disk = disk();
    let superblock = SuperblockFile::open(disk.clone()).unwrap();
    let (runs, before) = (table(3, 5), disk.calls());
    let error = superblock.update_with_table(runs.into_iter(), |_| ()).unwrap_err();
    assert_eq!((error.kind(), disk.calls()), (Kind::Halted, before), "{error}");
}

#[test]
fn what_is_wrong_with_a_table_is_said() {
    let disk = disk();
    let superblock = SuperblockFile::open(disk.clone()).unwrap();
    store(&superblock, 1, &table(3, 3000)).unwrap();
    let superblock = superblock.get();
    let refused = |disk: &dyn Storage, words: &str| {
        let error = table_file::read(disk, &superblock).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        let story = error.to_string();
        assert!(
            story.contains("side/table.1 ") && story.contains("make this device anew"),
            "{story}"
        );
        assert!(story.contains(words), "{story}");
    };
    refused(&Memory::new(), "is missing");
    let changed = |change: &dyn Fn(&CrashDisk)| {
        let disk = disk.copy();
        change(&disk);
        disk
    };
    let length = disk.bytes(file(1)).len();
    let short = changed(&|disk| disk.shorten(file(1), length - 4096));
    refused(&*short, &format!("has {} bytes, and the table {length}", length - 4096));
    refused(&*changed(&|disk| disk.rot(file(1), 1000, &[0xff])), "the bytes give");
    refused(&*changed(&|disk| disk.rot(file(1), 0, b"B")), "expected magic \"AFTB\"");
    let other = self::disk();
    let another = SuperblockFile::open(other.clone()).unwrap();
    store(&another, 1, &table(2, 3000)).unwrap();
    let bytes = other.bytes(file(1));
    assert_eq!(bytes.len(), length);
    refused(&*changed(&|disk| disk.rot(file(1), 0, &bytes)), "it is another table");
}

/// A volume ends with the block that has its last byte.
#[test]
fn blocks_beyond_a_volume_are_refused() {
    let found = |volume, numbers| {
        let disk = disk();
        let superblock = SuperblockFile::open(disk.clone()).unwrap();
        store(&superblock, 1, &[Blocks { volume, numbers }]).unwrap();
        table_file::read(&*disk, &superblock.get()).map_err(|e| e.to_string())
    };
    assert_eq!(found(3, BLOCKS - 1..BLOCKS).unwrap().len(), 1);
    let beyond = found(3, 7..BLOCKS + 1).unwrap_err();
    assert!(
        beyond.contains("side/table.1 has blocks 3:7 to 1048576, which no volume has"),
        "{beyond}"
    );
    assert!(found(4, 0..1).unwrap_err().contains("blocks 4:0 to 0, which no volume has"));
}
