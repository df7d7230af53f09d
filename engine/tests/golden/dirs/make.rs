//! Makes golden directories: a pair as the engine of this version leaves it, closed cleanly or
//! killed, with records in both logs of both devices that are in no volume yet.
//!
//! Blocks are 512 bytes. In the order of the stamps, to volume 0: 1 to blocks 0 to 7 (reflected and
//! checkpointed on both devices); 2 to 4 to 11 (received by B); 3 to 8 to 15 (never shipped);
//! a takeover by B; 4 to 14 to 19 (received by A); 5 to 18 to 23, and zeros to block 1 (never
//! shipped). Volume 1: 9 to block 3, with the first.
//!
//! And device B of a pair with its last consistent image: 1 was in blocks 0 to 7, when A was suspended and wrote 2 to
//! blocks 4 to 11, and five of these had come. It was closed cleanly; or was forced to serve the image, and killed
//! while that went back: a host had written 7 to block 5, and the image's file says so.

use afterimage::internal::clock::Clock;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::storage::{Directory, Storage};
use afterimage::{Device, Forced, Image, ImageStatus};
use flate2::{Compression, write::GzEncoder};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

pub const BLOCK: usize = 512;

/// A clock that stands still, so that the same version makes the same stamps.
pub struct Still;

impl Clock for Still {
    fn wall(&self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn monotonic(&self) -> u64 {
        1000
    }
}

/// Some steps of both devices, reflection aside.
pub fn run_steps(devices: &[Arc<Device>; 2]) {
    for device in devices.iter().cycle().take(8) {
        while device.step_control().expect("control") {}
        device.step_commit().expect("committed");
        device.step_ship().expect("shipped");
        device.step_receive().expect("received");
    }
}

/// Devices 1, which is active, and 2, in `dir/a` and `dir/b`.
fn pair(dir: &Path, settings: Settings) -> [Arc<Device>; 2] {
    let clock: Arc<dyn Clock> = Arc::new(Still);
    [("a", 1), ("b", 2)].map(|(name, at)| {
        let volumes = [(0, 24), (1, 8)];
        let volumes = volumes.map(|(id, blocks)| VolumeSpec { id, bytes: blocks * BLOCK as u64 });
        let mut geometry = Geometry::new(7, at, volumes.to_vec());
        geometry.block_size = BLOCK as u32;
        geometry.segment_bytes = 65_536;
        geometry.journal_bytes = (4 * geometry.batch_bytes_max()).next_multiple_of(4096);
        let storage: Arc<dyn Storage> = Arc::new(Directory::create(dir.join(name)).expect("new"));
        Device::create(&*storage, &geometry, at == 1).expect("created");
        Device::open(storage, clock.clone(), settings.clone()).expect("opened")
    })
}

fn write(device: &Arc<Device>, volume: u32, blocks: std::ops::Range<u64>, value: u8) {
    let host = device.session().expect("serves");
    for block in blocks {
        host.write(volume, block * BLOCK as u64, &[value; BLOCK]).expect("written");
    }
}

/// The content of the volumes: lines of volume, block, value.
fn lines(first: &[u8], second: &[u8]) -> String {
    let mut lines = String::new();
    for (volume, values) in [(0, first), (1, second)] {
        for (block, value) in values.iter().enumerate() {
            writeln!(lines, "{volume} {block} {value}").expect("a string");
        }
    }
    lines
}

/// Makes a device with its last consistent image in `dir/b`, which was chosen or is kept, and returns what is served
/// once it is.
fn make_image_in(dir: &Path, chosen: bool) -> String {
    let settings = Settings { resume_order_after_ns: 0, copy_bytes_max: 1, ..Settings::default() };
    let devices = pair(dir, settings.clone());
    let clock = devices[0].clock().clone();
    let (a, b) = memory_link(Line::default(), clock.clone());
    devices[0].connect(Arc::new(a)).expect("connected");
    devices[1].connect(Arc::new(b)).expect("connected");
    let reflect = |device: &Device| {
        while device.step_reflect().expect("reflected") > 0 {}
        device.checkpoint_now().expect("checkpoint");
    };
    run_steps(&devices);
    write(&devices[0], 0, 0..8, 1);
    run_steps(&devices);
    devices.iter().for_each(|device| reflect(device));
    devices[0].suspend().expect("suspended");
    write(&devices[0], 0, 4..12, 2);
    let has_five = || {
        let image = devices[1].status().image;
        matches!(image, ImageStatus::Kept { blocks: 5, .. })
    };
    'copies: loop {
        for device in &devices {
            while device.step_control().expect("control") {}
            device.step_commit().expect("committed");
            reflect(device);
            device.step_ladder().expect("a step");
            device.step_ship().expect("shipped");
            device.step_receive().expect("received");
            if has_five() {
                break 'copies;
            }
        }
    }
    devices[1].close().expect("closed");
    drop(devices);
    let mut values = [0; 24];
    values[..8].fill(1);
    if chosen {
        let storage = || Arc::new(Directory::open(dir.join("b")).expect("a directory"));
        let forced = Forced { image: Image::Last, accept_loss: true };
        Device::force(storage(), clock.clone(), settings.clone(), forced).expect("forced");
        let device = Device::open(storage(), clock, settings).expect("opened");
        write(&device, 0, 5..6, 7);
        device.session().expect("serves").flush().expect("flushed");
        device.step_reflect_some(1).expect("reflected");
        device.checkpoint_now().expect("checkpoint");
        assert!(matches!(device.status().image, ImageStatus::PutBack { .. }));
        values[5] = 7;
    }
    lines(&values, &[0; 8])
}

/// Makes the devices in `dir/a` and `dir/b`, and returns what their volumes hold in the end: lines
/// of volume, block, value.
fn make_in(dir: &Path, clean: bool) -> String {
    let devices = pair(dir, Settings::default());
    let (a, b) = memory_link(Line::default(), devices[0].clock().clone());
    devices[0].connect(Arc::new(a.clone())).expect("connected");
    devices[1].connect(Arc::new(b.clone())).expect("connected");
    run_steps(&devices);
    let write = |at: usize, volume: u32, blocks: std::ops::Range<u64>, value: u8| {
        write(&devices[at], volume, blocks, value);
    };
    write(0, 1, 3..4, 9);
    write(0, 0, 0..8, 1);
    run_steps(&devices);
    for device in &devices {
        while device.step_reflect().expect("reflected") > 0 {}
        device.checkpoint_now().expect("checkpoint");
    }
    write(0, 0, 4..12, 2);
    run_steps(&devices);
    a.hold(Lane::Data, true);
    write(0, 0, 8..16, 3);
    run_steps(&devices);
    devices[1].begin_takeover().expect("asked");
    run_steps(&devices);
    devices[1].poll_takeover().expect("answered").expect("serves");
    write(1, 0, 14..20, 4);
    run_steps(&devices);
    b.hold(Lane::Data, true);
    write(1, 0, 18..24, 5);
    let host = devices[1].session().expect("serves");
    host.write_zeroes(0, BLOCK as u64, BLOCK as u64).expect("zeroed");
    devices.iter().for_each(|device| device.step_commit().map(|_| ()).expect("committed"));
    if clean {
        devices.iter().for_each(|device| device.close().expect("closed"));
    }
    let values = [1, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5];
    let second = [0, 0, 0, 9, 0, 0, 0, 0];
    lines(&values, &second)
}

/// Writes the archive `to`: the directories `a` and `b`, and `expected.txt`.
pub fn make(to: &Path, clean: bool) {
    archive(to, &["a", "b"], |dir| make_in(dir, clean));
}

/// The same of one device and its image: the directory `b`, and `expected.txt`.
pub fn make_image(to: &Path, chosen: bool) {
    archive(to, &["b"], |dir| make_image_in(dir, chosen));
}

fn archive(to: &Path, names: &[&str], make: impl FnOnce(&Path) -> String) {
    let dir = to.with_extension("making");
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = std::fs::File::create(to).expect("an archive");
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    archive.mode(tar::HeaderMode::Deterministic);
    // The devices are dropped with the call, which writes nothing: that is a death too.
    let expected = make(&dir);
    std::fs::write(dir.join("expected.txt"), expected).expect("written");
    for name in names {
        archive.append_dir_all(name, dir.join(name)).expect("archived");
    }
    archive.append_path_with_name(dir.join("expected.txt"), "expected.txt").expect("archived");
    archive.into_inner().expect("whole").finish().expect("written");
    std::fs::remove_dir_all(&dir).expect("removed");
}
