//! Somebody else cuts files of an open device short, or deletes them. The story: reads go through
//! mappings, and the kernel answers an access beyond a file's end by a signal that ends the
//! process: every device in it, for one damaged file. Now it is an error of the one device.

use afterimage::Device;
use afterimage::internal::clock::SystemClock;
use afterimage::internal::error::{Error, Kind};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::storage::{Directory, FileName, Storage};
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

const BLOCK: u64 = 4096;

fn segment(index: u32) -> FileName {
    FileName::Segment { volume: 0, index }
}

fn cut(directory: &Path, file: FileName, length: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(directory.join(file.to_string()));
    file.unwrap().set_len(length).unwrap();
}

/// A device that serves, with blocks 0 to 31 written and in its normal volume, in two segments.
fn device(path: &Path, mapped: bool) -> Arc<Device> {
    let directory = Directory::create(path).unwrap();
    let directory = if mapped { directory } else { directory.without_mappings() };
    let volumes = vec![VolumeSpec { id: 0, bytes: 32 * BLOCK }];
    let mut geometry = Geometry::new(1, 1, volumes);
    geometry.journal_bytes = 8 << 20;
    geometry.segment_bytes = 16 * BLOCK;
    Device::create(&directory, &geometry, true).unwrap();
    let clock = Arc::new(SystemClock::default());
    let device = Device::open(Arc::new(directory), clock, Settings::default()).unwrap();
    device.resume_alone().unwrap();
    let host = device.session().unwrap();
    for block in 0..32 {
        host.write(0, block * BLOCK, &[block as u8 + 1; BLOCK as usize]).unwrap();
    }
    host.flush().unwrap();
    device.step_reflect().unwrap();
    device.checkpoint_now().unwrap();
    device
}

fn read(device: &Arc<Device>, block: u64) -> Result<u8, Error> {
    let mut buf = [0; BLOCK as usize];
    device.session()?.read(0, block * BLOCK, &mut buf).map(|_| buf[0])
}

#[test]
fn a_directory_names_the_file_and_goes_on() {
    for mapped in [true, false] {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::create(path.path().join("d")).unwrap();
        let directory = if mapped { directory } else { directory.without_mappings() };
        let files = [FileName::OwnLog, segment(0), segment(1)];
        let read = |file, at| {
            let mut buf = [0; 100];
            directory.read(file, at, &mut buf).map(|()| buf[0])
        };
        for (file, value) in files.into_iter().zip(1..) {
            directory
                .create(file, 16 * BLOCK, afterimage::internal::storage::Fill::Written)
                .unwrap();
            directory.write(file, 0, &[IoSlice::new(&[value; 16 * BLOCK as usize])]).unwrap();
            assert_eq!(read(file, 9 * BLOCK).unwrap(), value);
        }
        for file in &files[..2] {
            cut(directory.path(), *file, 4 * BLOCK);
            let error = read(*file, 9 * BLOCK).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            let story = format!("{file} has no byte {}", 9 * BLOCK);
            assert!(error.to_string().contains(&story), "{error}");
            assert_eq!(directory.sync(*file).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        assert_eq!(read(files[0], 3 * BLOCK).unwrap(), 1, "what is left is still there");
        assert_eq!(read(files[2], 9 * BLOCK).unwrap(), 3, "other files do not mind");
        assert_eq!(directory.mapped_windows() > 0, mapped);
        // Within a page, where a mapping shows zeros behind the end.
        cut(directory.path(), files[2], 4 * BLOCK + 512);
        assert_eq!(read(files[2], 4 * BLOCK).unwrap(), 3);
        let error = read(files[2], 4 * BLOCK + 1024).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_deleted_file_is_an_error_once_it_must_be_opened_or_synced() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::create(path.path().join("d")).unwrap();
    directory.create(segment(0), BLOCK, afterimage::internal::storage::Fill::Sparse).unwrap();
    directory.write(segment(0), 0, &[IoSlice::new(&[7; 512])]).unwrap();
    std::fs::remove_file(directory.path().join(segment(0).to_string())).unwrap();
    let error = directory.sync(segment(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("volumes/0.0 could not be synced"), "{error}");
    let path = directory.path().to_path_buf();
    drop(directory);
    let directory = Directory::open(path).unwrap();
    let error = directory.read(segment(0), 0, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("volumes/0.0: "), "{error}");
}

#[test]
fn a_cut_volume_fails_the_reads_of_what_is_gone() {
    for mapped in [true, false] {
        let path = tempfile::tempdir().unwrap();
        let device = device(&path.path().join("d"), mapped);
        assert_eq!(read(&device, 9).unwrap(), 10);
        cut(&path.path().join("d"), segment(0), 8 * BLOCK);
        for _ in 0..2 {
            let error = read(&device, 9).unwrap_err();
            assert_eq!(error.kind(), Kind::Storage);
            assert!(error.to_string().contains("volumes/0.0"), "{error}");
            assert!(error.to_string().contains("cut it short"), "{error}");
            assert_eq!(read(&device, 7).unwrap(), 8);
            assert_eq!(read(&device, 25).unwrap(), 26);
        }
        // It serves on; but nothing is called durable in that file any more.
        let host = device.session().unwrap();
        host.write(0, 0, &[99; BLOCK as usize]).unwrap();
        host.flush().unwrap();
        assert_eq!(read(&device, 0).unwrap(), 99);
        device.step_reflect().unwrap();
        let error = device.checkpoint_now().unwrap_err();
        assert_eq!(error.kind(), Kind::Halted);
        assert!(error.to_string().contains("volumes/0.0"), "{error}");
    }
}

#[test]
fn a_cut_log_halts_the_device() {
    for mapped in [true, false] {
        let path = tempfile::tempdir().unwrap();
        let device = device(&path.path().join("d"), mapped);
        let host = device.session().unwrap();
        host.write(0, 0, &[99; BLOCK as usize]).unwrap();
        host.flush().unwrap();
        assert_eq!(read(&device, 0).unwrap(), 99);
        cut(&path.path().join("d"), FileName::OwnLog, BLOCK);
        let error = read(&device, 0).unwrap_err();
        assert!(error.to_string().contains("own.log"), "{error}");
        let error = device.step_reflect().unwrap_err();
        assert_eq!(error.kind(), Kind::Halted);
        assert!(error.to_string().contains("own.log"), "{error}");
        assert!(device.status().halted.is_some());
    }
}

#[test]
fn a_deleted_log_halts_the_device_at_the_next_commit() {
    let path = tempfile::tempdir().unwrap();
    let device = device(&path.path().join("d"), true);
    std::fs::remove_file(path.path().join("d").join(FileName::OwnLog.to_string())).unwrap();
    let host = device.session().unwrap();
    host.write(0, 0, &[99; BLOCK as usize]).unwrap();
    let error = host.flush().unwrap_err();
    assert_eq!(error.kind(), Kind::Halted);
    assert!(
        error.to_string().contains("own.log") && error.to_string().contains("deleted"),
        "{error}"
    );
}
