//! The storages keep their contract: the same answers as a plain map, durable and exclusive
//! directories, and bounds that hold whatever the number and size of the volumes.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use afterimage::internal::storage::{Directory, FileName, Fill, Memory, SideKind, Storage};
use proptest::prelude::*;

fn segment(volume: u32, index: u32) -> FileName {
    FileName::Segment { volume, index }
}

/// The slow and obvious storage: a map of plain bytes.
#[derive(Default)]
struct Oracle(HashMap<FileName, Vec<u8>>);

impl Oracle {
    fn range(&mut self, file: FileName, offset: u64, length: u64) -> Result<&mut [u8], Failure> {
        let bytes = self.0.get_mut(&file).ok_or(Failure::NotFound)?;
        let end = offset.checked_add(length).ok_or(Failure::Beyond)?;
        if end > bytes.len() as u64 {
            return Err(Failure::Beyond);
        }
        Ok(&mut bytes[offset as usize..end as usize])
    }
}

/// Why an operation failed, as far as the contract goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    NotFound,
    Exists,
    Beyond,
}

fn failure(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::NotFound,
        ErrorKind::AlreadyExists => Failure::Exists,
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => Failure::Beyond,
        other => panic!("not a failure of the contract: {other:?}: {error}"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create(FileName, u64, Fill),
    Length(FileName),
    Read(FileName, u64, usize),
    Write(FileName, u64, Vec<Vec<u8>>),
    Zero(FileName, u64, u64),
    Sync(FileName),
    Grow(FileName, u64),
    Remove(FileName),
    Files,
    AllData(FileName),
}

fn file() -> impl Strategy<Value = FileName> {
    prop_oneof![
        1 => Just(FileName::Superblock),
        1 => Just(FileName::OwnLog),
        1 => Just(FileName::RecvLog),
        1 => (0u32..3, 0u32..2).prop_map(|(volume, index)| segment(volume, index)),
        3 => (0usize..2, 0u32..2).prop_map(|(kind, number)| side(["told", "salvage"][kind], number)),
    ]
}

fn side(kind: &str, number: u32) -> FileName {
    FileName::Side { kind: SideKind::new(kind).unwrap(), number }
}

fn op() -> impl Strategy<Value = Op> {
    let fill = prop_oneof![Just(Fill::Sparse), Just(Fill::Written)];
    let offset = || prop_oneof![20 => 0u64..70_000, 1 => Just(u64::MAX)];
    let length = || prop_oneof![0usize..5000, (0usize..4).prop_map(|pages| pages * 4096)];
    let piece = (any::<u8>(), length()).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![
        3 => (file(), 0u64..70_000, fill).prop_map(|(f, l, fill)| Op::Create(f, l, fill)),
        1 => file().prop_map(Op::Length),
        5 => (file(), offset(), length()).prop_map(|(f, o, l)| Op::Read(f, o, l)),
        8 => (file(), offset(), prop::collection::vec(piece, 0..4))
            .prop_map(|(f, o, pieces)| Op::Write(f, o, pieces)),
        2 => (file(), offset(), length()).prop_map(|(f, o, l)| Op::Zero(f, o, l as u64)),
        2 => file().prop_map(Op::Sync),
        3 => (file(), 0u64..140_000).prop_map(|(f, l)| Op::Grow(f, l)),
        1 => file().prop_map(Op::Remove),
        1 => Just(Op::Files),
        2 => file().prop_map(Op::AllData),
    ]
}

/// All of a file's data ranges, checked to be in order, inside the file and not empty.
fn all_data(storage: &dyn Storage, file: FileName) -> Result<Vec<std::ops::Range<u64>>, Failure> {
    let length = storage.length(file).map_err(failure)?.unwrap_or(0);
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(range) = storage.next_data(file, at).map_err(failure)? {
        assert!(at <= range.start && range.start < range.end && range.end <= length);
        assert!(!storage.reads_as_zeros(file, at..range.end).unwrap());
        assert!(at == range.start || storage.reads_as_zeros(file, at..range.start).unwrap());
        at = range.end;
        ranges.push(range);
    }
    Ok(ranges)
}

/// Does `op` to both and compares what they say.
fn step(storage: &dyn Storage, oracle: &mut Oracle, op: &Op) {
    match op {
        Op::Create(file, length, fill) => {
            let expected = match oracle.0.contains_key(file) {
                true => Err(Failure::Exists),
                false => {
                    oracle.0.insert(*file, vec![0; *length as usize]);
                    Ok(())
                }
            };
            let got = storage.create(*file, *length, *fill).map_err(failure);
            assert_eq!(got, expected);
        }
        Op::Length(file) => {
            let expected = oracle.0.get(file).map(|bytes| bytes.len() as u64);
            assert_eq!(storage.length(*file).unwrap(), expected);
        }
        Op::Read(file, offset, length) => {
            let expected = oracle.range(*file, *offset, *length as u64).map(|b| b.to_vec());
            let mut buf = vec![0xAA; *length];
            let got = storage.read(*file, *offset, &mut buf).map(|()| buf).map_err(failure);
            assert_eq!(got, expected);
        }
        Op::Write(file, offset, pieces) => {
            let flat = pieces.concat();
            let expected = oracle
                .range(*file, *offset, flat.len() as u64)
                .map(|bytes| bytes.copy_from_slice(&flat));
            let bufs: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            assert_eq!(storage.write(*file, *offset, &bufs).map_err(failure), expected);
        }
        Op::Zero(file, offset, length) => {
            let expected = oracle.range(*file, *offset, *length).map(|bytes| bytes.fill(0));
            assert_eq!(storage.zero(*file, *offset, *length).map_err(failure), expected);
        }
        Op::Sync(file) => {
            let expected = oracle.range(*file, 0, 0).map(|_| ());
            assert_eq!(storage.sync(*file).map_err(failure), expected);
        }
        Op::Grow(file, length) => {
            let is_side = matches!(file, FileName::Side { .. });
            let expected = match oracle.0.get_mut(file).filter(|_| is_side) {
                None if is_side => Err(Failure::NotFound),
                Some(bytes) if bytes.len() as u64 <= *length => {
                    bytes.resize(*length as usize, 0);
                    Ok(())
                }
                _ => Err(Failure::Beyond),
            };
            assert_eq!(storage.grow(*file, *length).map_err(failure), expected);
        }
        Op::Remove(file) => {
            let expected = match (matches!(file, FileName::Side { .. }), oracle.0.get(file)) {
                (false, _) => Err(Failure::Beyond),
                (true, None) => Err(Failure::NotFound),
                (true, Some(_)) => {
                    oracle.0.remove(file);
                    Ok(())
                }
            };
            assert_eq!(storage.remove(*file).map_err(failure), expected);
        }
        Op::Files => {
            let mut got = storage.files().unwrap();
            let mut expected: Vec<_> = oracle.0.keys().copied().collect();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected);
        }
        Op::AllData(file) => match oracle.0.get(file) {
            None => assert_eq!(all_data(storage, *file), Err(Failure::NotFound)),
            Some(bytes) => {
                // Everything outside the ranges is zeros.
                let mut rest = bytes.clone();
                for range in all_data(storage, *file).unwrap() {
                    rest[range.start as usize..range.end as usize].fill(0);
                }
                assert!(rest.iter().all(|&byte| byte == 0));
            }
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_what_a_map_does(ops in prop::collection::vec(op(), 1..80)) {
        let memory = Memory::new();
        let mut oracle = Oracle::default();
        for op in &ops {
            step(&memory, &mut oracle, op);
        }
    }

    /// With room for four descriptors and two windows, and opened afresh in the middle.
    #[test]
    fn a_directory_does_what_a_map_does(
        ops in prop::collection::vec(op(), 1..60),
        reopen in 0usize..60,
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("device");
        let mut directory = Directory::create(&path).unwrap().with_bounds(4, 2);
        let mut oracle = Oracle::default();
        for (at, op) in ops.iter().enumerate() {
            if at == reopen {
                drop(directory);
                directory = Directory::open(&path).unwrap().with_bounds(4, 2);
            }
            step(&directory, &mut oracle, op);
            assert!(directory.open_descriptors() <= 4 && directory.mapped_windows() <= 2);
        }
        let reader = Directory::open_read_only(&path).unwrap();
        for (&file, bytes) in &oracle.0 {
            let mut buf = vec![1; bytes.len()];
            reader.read(file, 0, &mut buf).unwrap();
            prop_assert_eq!(&buf, bytes);
        }
    }
}

/// The names in the directory at `path`, sorted.
fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Side files of kinds that this program has never heard of are listed, grow and go like others; what
/// is not written as a side file is none.
#[test]
fn side_files_of_any_kind() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("device");
    let directory = Directory::create(&path).unwrap();
    assert_eq!(directory.files().unwrap(), []);
    let file = side("whatever", 7);
    directory.create(file, 0, Fill::Sparse).unwrap();
    directory.grow(file, 5000).unwrap();
    directory.write(file, 4000, &[IoSlice::new(&[1; 1000])]).unwrap();
    directory.sync(file).unwrap();
    std::fs::write(path.join("side/Whatever.7"), "not ours").unwrap();
    std::fs::write(path.join("side/whatever.07"), "not ours").unwrap();
    drop(directory);
    let directory = Directory::open(&path).unwrap();
    assert_eq!(directory.files().unwrap(), [file]);
    assert_eq!(file.to_string(), "side/whatever.7");
    directory.grow(file, 9000).unwrap();
    let mut buf = [9; 9000];
    directory.read(file, 0, &mut buf).unwrap();
    assert!(buf[..4000] == [0; 4000] && buf[4000..5000] == [1; 1000] && buf[5000..] == [0; 4000]);
    directory.sync(file).unwrap();
    directory.remove(file).unwrap();
    assert_eq!(directory.files().unwrap(), []);
    // Another file of that name, not the one that was open.
    directory.create(file, 10, Fill::Written).unwrap();
    directory.read(file, 0, &mut buf[..10]).unwrap();
    assert_eq!(buf[..10], [0; 10]);
    for name in ["", "two words", "ninechars", "Upper"] {
        assert_eq!(SideKind::new(name), None, "{name}");
    }
    drop(directory);
    let reader = Directory::open_read_only(&path).unwrap();
    for refused in [reader.grow(file, 20), reader.remove(file)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_second_opener_is_told_where_it_is_open() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("device");
    let first = Directory::create(&path).unwrap();
    assert_eq!(first.path(), path);
    for second in [Directory::open(&path), Directory::create(&path)] {
        let error = second.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    Directory::open_read_only(&path).unwrap();
    drop(first);
    Directory::open(&path).unwrap();
}

#[test]
fn creates_only_where_there_is_no_device_and_opens_only_what_exists() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("device");
    assert_eq!(Directory::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Directory::open_read_only(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!path.exists());
    // Made before, but without a device: as after a crash in between.
    std::fs::create_dir(&path).unwrap();
    let directory = Directory::create(&path).unwrap();
    directory.create(FileName::Superblock, 8192, Fill::Written).unwrap();
    drop(directory);
    assert_eq!(Directory::create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(Directory::open(&path).unwrap().files().unwrap(), [FileName::Superblock]);
}

#[test]
fn reading_only_changes_nothing_and_bears_damage() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    std::fs::create_dir(path.join("volumes")).unwrap();
    std::fs::write(path.join("superblock"), [7; 100]).unwrap();
    std::fs::write(path.join("own.log.new"), [7; 100]).unwrap();
    for odd in ["volumes/1.0", "volumes/01.0", "volumes/1", "volumes/1.x", "volumes/2.0.new"] {
        std::fs::write(path.join(odd), "").unwrap();
    }
    let before = (names(path), names(&path.join("volumes")));
    let reader = Directory::open_read_only(path).unwrap();
    let mut files = reader.files().unwrap();
    files.sort_unstable();
    assert_eq!(files, [FileName::Superblock, segment(1, 0)]);
    let mut buf = [0; 100];
    reader.read(FileName::Superblock, 0, &mut buf).unwrap();
    assert_eq!(buf, [7; 100]);
    let short = reader.read(FileName::Superblock, 50, &mut buf).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
    reader.sync(FileName::Superblock).unwrap();
    for refused in [
        reader.create(FileName::OwnLog, 10, Fill::Sparse),
        reader.write(FileName::Superblock, 0, &[IoSlice::new(&[1])]),
        reader.zero(FileName::Superblock, 0, 1),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!((names(path), names(&path.join("volumes"))), before);
}

#[test]
fn half_made_files_are_never_seen() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    std::fs::create_dir(path.join("volumes")).unwrap();
    for half in ["own.log.new", "volumes/1.0.new", "stranger.new"] {
        std::fs::write(path.join(half), [1; 10]).unwrap();
    }
    let directory = Directory::open(path).unwrap();
    assert_eq!(names(path), ["lock", "stranger.new", "volumes"]);
    assert_eq!(names(&path.join("volumes")), [""; 0]);
    // More than a file can have: refused, and nothing left of it.
    directory.create(segment(1, 0), u64::MAX, Fill::Sparse).unwrap_err();
    directory.create(FileName::OwnLog, u64::MAX, Fill::Written).unwrap_err();
    assert_eq!(directory.files().unwrap(), []);
    assert_eq!(names(&path.join("volumes")), [""; 0]);
    assert_eq!(names(path), ["lock", "stranger.new", "volumes"]);
}

#[test]
fn written_files_take_their_space_and_sparse_ones_none() {
    use std::os::unix::fs::MetadataExt;
    let scratch = tempfile::tempdir().unwrap();
    let directory = Directory::create(scratch.path().join("device")).unwrap();
    let bytes = (3 << 20) + 512;
    directory.create(FileName::OwnLog, bytes, Fill::Written).unwrap();
    directory.create(segment(0, 0), 1 << 40, Fill::Sparse).unwrap();
    let taken = |file: FileName| {
        std::fs::metadata(directory.path().join(file.to_string())).unwrap().blocks() * 512
    };
    assert!(taken(FileName::OwnLog) >= bytes);
    assert!(taken(segment(0, 0)) < 1 << 20);
    assert_eq!(directory.next_data(FileName::OwnLog, 0).unwrap(), Some(0..bytes));
    assert_eq!(directory.next_data(segment(0, 0), 0).unwrap(), None);
    assert!(!directory.reads_as_zeros(FileName::OwnLog, 0..512).unwrap());
    assert!(directory.reads_as_zeros(segment(0, 0), 0..1 << 40).unwrap());
    assert!(!directory.reads_as_zeros(segment(0, 0), 0..1 + (1 << 40)).unwrap());
    let far = 700 << 30;
    directory.write(segment(0, 0), far, &[IoSlice::new(&[1; 65536])]).unwrap();
    let data = directory.next_data(segment(0, 0), 1 << 30).unwrap().unwrap();
    assert!(data.start <= far && far + 65536 <= data.end && data.end - data.start <= 2 << 20);
    directory.zero(segment(0, 0), far, 65536).unwrap();
    directory.sync(segment(0, 0)).unwrap();
    let mut buf = [1; 4096];
    directory.read(segment(0, 0), far, &mut buf).unwrap();
    assert_eq!(buf, [0; 4096]);
}

#[test]
fn more_pieces_than_one_call_takes_are_all_written() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = Directory::create(scratch.path().join("device")).unwrap();
    directory.create(FileName::OwnLog, 100_000, Fill::Written).unwrap();
    let bytes: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
    let pieces: Vec<_> = bytes.chunks(7).map(IoSlice::new).collect();
    assert!(pieces.len() > 2048);
    directory.write(FileName::OwnLog, 11, &pieces).unwrap();
    let mut buf = vec![0; bytes.len()];
    directory.read(FileName::OwnLog, 11, &mut buf).unwrap();
    assert_eq!(buf, bytes);
}

#[test]
fn threads_share_a_directory_within_its_bounds() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = Directory::create(scratch.path().join("device")).unwrap().with_bounds(6, 3);
    let directory = Arc::new(directory);
    for index in 0..24 {
        directory.create(segment(0, index), 1 << 20, Fill::Sparse).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let directory = directory.clone();
            scope.spawn(move || {
                for round in 0..300u32 {
                    let file = segment(0, (round * 7 + thread * 5) % 24);
                    let offset = u64::from(thread) * 4096;
                    let bytes = [round as u8; 4096];
                    directory.write(file, offset, &[IoSlice::new(&bytes)]).unwrap();
                    let mut buf = [0; 4096];
                    directory.read(file, offset, &mut buf).unwrap();
                    assert_eq!(buf, bytes);
                    if round % 16 == 0 {
                        directory.sync(file).unwrap();
                    }
                    assert!(directory.open_descriptors() <= 6 + 4);
                    assert!(directory.mapped_windows() <= 3 + 4);
                }
            });
        }
    });
    directory.length(segment(0, 0)).unwrap();
}

/// The largest configuration: 1,349 volumes of 2 TiB in two segments each.
const VOLUMES: u32 = 1349;
const SEGMENT_BYTES: u64 = 1 << 40;

/// Writes and reads a block at both ends of every segment, and checks the bounds at each step.
fn visit_all(directory: &Directory, descriptors: usize, windows: usize) {
    for volume in 0..VOLUMES {
        for index in 0..2 {
            let file = segment(volume, index);
            if directory.length(file).unwrap().is_none() {
                directory.create(file, SEGMENT_BYTES, Fill::Sparse).unwrap();
            }
            let block = [volume as u8 ^ index as u8; 512];
            // A write to each would sync each at eviction; some are enough to see that it is done.
            if volume % 16 == 0 {
                directory.write(file, SEGMENT_BYTES - 512, &[IoSlice::new(&block)]).unwrap();
            }
            let mut buf = [1; 512];
            directory.read(file, u64::from(volume) << 29, &mut buf).unwrap();
            assert_eq!(buf, [0; 512]);
            assert!(directory.open_descriptors() <= descriptors);
            assert!(directory.mapped_windows() <= windows);
        }
    }
    for volume in (0..VOLUMES).step_by(16) {
        for index in 0..2 {
            let mut buf = [0; 512];
            directory.read(segment(volume, index), SEGMENT_BYTES - 512, &mut buf).unwrap();
            assert_eq!(buf, [volume as u8 ^ index as u8; 512]);
        }
    }
    assert_eq!(directory.mapped_windows(), windows);
}

#[test]
fn the_largest_configuration_needs_few_descriptors_and_windows() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("device");
    let directory = Directory::create(&path).unwrap().with_bounds(64, 32);
    visit_all(&directory, 64, 32);
    assert_eq!(directory.open_descriptors(), 64);
    assert_eq!(directory.files().unwrap().len(), 2 * VOLUMES as usize);
    drop(directory);

    // The same under a limit of 1,024 open files, with the bound that is derived from it.
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: before.maximum }).unwrap();
    let directory = Directory::open(&path).unwrap();
    visit_all(&directory, 256, 512);
    assert_eq!(directory.open_descriptors(), 256);
    for volume in (0..VOLUMES).step_by(16) {
        directory.sync(segment(volume, 0)).unwrap();
    }
    setrlimit(Resource::Nofile, before).unwrap();
}
