//! The directories of every version, for ever: each opens in this version, alone and as a pair, and
//! what its hosts wrote is there.
//!
//! The archives under `golden/dirs/` were made by the version that they are named after, with
//! `golden/dirs/make.rs`; `make_directories` makes this version's.
#![cfg(not(any(loom, miri)))]

#[path = "golden/dirs/make.rs"]
mod make;

use afterimage::internal::clock::Clock;
use afterimage::internal::format::superblock::{self, COPY_OFFSETS};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::Directory;
use afterimage::{Device, Forced, Image, ImageStatus};
use flate2::read::GzDecoder;
use make::{BLOCK, Still, run_steps};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every version that ever wrote a format of its own.
const VERSIONS: [&str; 2] = ["1a7c1ec", "v3"];

fn archive(version: &str, state: &str) -> PathBuf {
    let dirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dirs");
    dirs.join(format!("{version}-{state}.tar.gz"))
}

/// The archive of that name, unpacked in a place of its own.
fn unpack(version: &str, state: &str) -> (String, tempfile::TempDir) {
    let file = std::fs::File::open(archive(version, state)).expect("an archive");
    let dir = tempfile::tempdir().expect("a directory");
    tar::Archive::new(GzDecoder::new(file)).unpack(dir.path()).expect("unpacked");
    (format!("{version}-{state}"), dir)
}

/// Every archive of a pair.
fn unpacked() -> impl Iterator<Item = (String, tempfile::TempDir)> {
    let names = VERSIONS.iter().flat_map(|version| ["clean", "killed"].map(|k| (*version, k)));
    names.map(|(version, state)| unpack(version, state))
}

fn open(dir: &Path) -> Arc<Device> {
    let storage = Directory::open(dir).expect("a directory");
    let clock: Arc<dyn Clock> = Arc::new(Still);
    let device = Device::open(Arc::new(storage), clock, Settings::default())
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    // Version 2 did not say how durable its completed writes were; everything here was flushed.
    let _ = device.accept_loss();
    device
}

/// Lines of volume, block, value.
fn expected(dir: &Path) -> Vec<(u32, u64, u8)> {
    let text = std::fs::read_to_string(dir.join("expected.txt")).expect("expected contents");
    let number = |word: Option<&str>| word.and_then(|w| w.parse::<u64>().ok()).expect("a number");
    let line = |line: &str| {
        let mut words = line.split(' ');
        let [volume, block, value] = [(); 3].map(|()| number(words.next()));
        (volume as u32, block, value as u8)
    };
    text.lines().map(line).collect()
}

#[test]
fn every_directory_opens_and_has_what_was_written() {
    for (name, dir) in unpacked() {
        let devices = [open(&dir.path().join("a")), open(&dir.path().join("b"))];
        for device in &devices {
            let status = device.status();
            assert_eq!(device.recovery().clean, name.ends_with("clean"), "{name}");
            assert!(status.backlog_records > 0, "{name}: {status:?}");
            assert!(device.recovery().recv.live_records > 0 || device.recovery().clean, "{name}");
        }
        let (a, b) = memory_link(Line::default(), devices[0].clock().clone());
        devices[0].connect(Arc::new(a)).expect("connected");
        devices[1].connect(Arc::new(b)).expect("connected");
        // B asks again: it was catching up.
        (0..4).for_each(|_| run_steps(&devices));
        assert!(devices[1].status().serving, "{name}");
        for device in &devices {
            while device.step_reflect().expect("reflected") > 0 {}
            let status = device.status();
            assert_eq!((status.backlog_records, status.unreflected_records), (0, 0), "{name}");
            device.checkpoint_now().expect("checkpoint");
        }
        let host = devices[1].session().expect("serves");
        let expected = expected(dir.path());
        assert_eq!(expected.len(), 32, "{name}");
        for &(volume, block, value) in &expected {
            let mut buffer = [0; BLOCK];
            host.read(volume, block * BLOCK as u64, &mut buffer).expect("read");
            assert_eq!(buffer, [value; BLOCK], "{name}: block {block} of volume {volume}");
        }
        devices.iter().for_each(|device| device.close().expect("closed"));
        for device in ["a", "b"] {
            for &(volume, block, value) in &expected {
                let path = dir.path().join(device).join(format!("volumes/{volume}.0"));
                let bytes = std::fs::read(path).expect("a segment");
                let at = block as usize * BLOCK;
                assert_eq!(
                    bytes[at..at + BLOCK],
                    [value; BLOCK],
                    "{name}: {device}, block {block}"
                );
            }
        }
    }
}

/// A device whose last consistent image is kept is forced to serve it; one that was forced goes on with it.
#[test]
fn every_image_is_served_and_goes_back() {
    for state in ["image-kept", "image-chosen"] {
        let (name, dir) = unpack("v3", state);
        let b = dir.path().join("b");
        if state == "image-kept" {
            let status = open(&b).status().image;
            assert!(matches!(status, ImageStatus::Kept { blocks: 5, .. }), "{name}: {status:?}");
            let storage = Arc::new(Directory::open(&b).expect("a directory"));
            let forced = Forced { image: Image::Last, accept_loss: true };
            let sheet = Device::force(storage, Arc::new(Still), Settings::default(), forced);
            let put_back = sheet.unwrap_or_else(|e| panic!("{name}: {e}")).put_back;
            assert_eq!(put_back.iter().map(|run| run.count()).sum::<u64>(), 5, "{name}");
        }
        let device = open(&b);
        let _ = device.resume_alone();
        assert!(matches!(device.status().image, ImageStatus::PutBack { .. }), "{name}");
        let expected = expected(dir.path());
        for is_back in [false, true] {
            if is_back {
                while device.step_reflect().expect("reflected") > 0 {}
                device.checkpoint_now().expect("checkpoint");
                assert_eq!(device.status().image, ImageStatus::NotNeeded, "{name}");
            }
            let host = device.session().expect("serves");
            for &(volume, block, value) in &expected {
                let mut buffer = [0; BLOCK];
                host.read(volume, block * BLOCK as u64, &mut buffer).expect("read");
                assert_eq!(buffer, [value; BLOCK], "{name}: block {block}, back: {is_back}");
            }
        }
    }
}

/// A crash between the two copies of the first update, which writes the newer version, leaves a
/// device that opens, whichever of them was written.
#[test]
fn an_upgrade_is_never_half_written() {
    for (name, dir) in unpacked() {
        for device in ["a", "b"] {
            let dir = dir.path().join(device);
            let old = std::fs::read(dir.join("superblock")).expect("a superblock");
            drop(open(&dir));
            let new = std::fs::read(dir.join("superblock")).expect("a superblock");
            let version = superblock::VERSION.to_le_bytes();
            for at in COPY_OFFSETS.map(|at| at as usize) {
                assert_eq!(new[at + 8..at + 10], version, "{name}: upgraded at the opening");
            }
            let (first, second) = (0..4096, 4096..8192);
            for written in [first, second] {
                let mut torn = old.clone();
                torn[written.clone()].copy_from_slice(&new[written]);
                std::fs::write(dir.join("superblock"), &torn).expect("written");
                let opened = open(&dir);
                let repaired = opened.recovery().superblock_repaired.clone().expect("said");
                assert!(repaired.contains("is of generation"), "{name}: {repaired}");
            }
        }
    }
}

/// Makes the archives of this version: `VERSION=v4 cargo test -p afterimage --test
/// golden_directories -- --ignored`, once, when a format has changed and before it is released.
#[test]
#[ignore = "makes this version's archives"]
fn make_directories() {
    let version = std::env::var("VERSION").expect("VERSION");
    make::make(&archive(&version, "clean"), true);
    make::make(&archive(&version, "killed"), false);
}

/// The same of a device and its image.
#[test]
#[ignore = "makes this version's archives"]
fn make_images() {
    let version = std::env::var("VERSION").expect("VERSION");
    make::make_image(&archive(&version, "image-kept"), false);
    make::make_image(&archive(&version, "image-chosen"), true);
}
