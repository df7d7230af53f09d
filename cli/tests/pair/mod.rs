//! Two devices in directories, moved step by step.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::{Superblock, VolumeSpec};
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, MemoryLink, memory_link};
use afterimage::internal::storage::Directory;
use afterimage::internal::superblock;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const BLOCK: u64 = 4096;
pub const VOLUMES: [VolumeSpec; 2] =
    [VolumeSpec { id: 0, bytes: 1 << 20 }, VolumeSpec { id: 3, bytes: 8 << 40 }];
/// Blocks of both volumes together.
pub const BLOCKS: u64 = (1 << 20) / BLOCK + (8 << 40) / BLOCK;

/// The pair; device 0 serves first.
pub struct Pair {
    dir: tempfile::TempDir,
    pub devices: [Arc<Device>; 2],
    pub links: [MemoryLink; 2],
}

impl Pair {
    pub fn new() -> Pair {
        let dir = tempfile::tempdir().expect("a directory");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let devices = [1, 2].map(|id| {
            let storage = Directory::create(dir.path().join(format!("{id}"))).expect("created");
            let mut geometry = Geometry::new(0xabc, id, VOLUMES.to_vec());
            geometry.journal_bytes = 4 << 20;
            Device::create(&storage, &geometry, id == 1).expect("created");
            Device::open(Arc::new(storage), clock.clone(), Settings::default()).expect("opened")
        });
        let (a, b) = memory_link(Line::default(), clock);
        let links = [a, b];
        for (device, link) in devices.iter().zip(&links) {
            device.connect(Arc::new(link.clone())).expect("connected");
        }
        let pair = Pair { dir, devices, links };
        pair.settle();
        pair
    }

    /// The directory of device `k`.
    pub fn path(&self, k: usize) -> PathBuf {
        self.dir.path().join(format!("{}", k + 1))
    }

    /// The host writes a block at device `k`, durably.
    pub fn write(&self, k: usize, volume: u32, block: u64, byte: u8) {
        let session = self.devices[k].session().expect("serving");
        session.write(volume, block * BLOCK, &[byte; BLOCK as usize]).expect("written");
        session.flush().expect("flushed");
    }

    /// Everything but reflection, until nothing moves.
    pub fn carry(&self) {
        let mut idle = 0;
        while idle < 2 {
            let mut moved = false;
            for device in &self.devices {
                moved |= device.step_control().expect("control");
                device.step_commit().expect("commit");
                moved |= device.step_ship().expect("ship") > 0;
                moved |= device.step_receive().expect("receive") > 0;
            }
            idle = if moved { 0 } else { idle + 1 };
        }
    }

    /// Everything, until nothing moves.
    pub fn settle(&self) {
        self.carry();
        for device in &self.devices {
            while device.step_reflect().expect("reflect") > 0 {}
        }
        self.carry();
    }

    /// The host moves to device `k`.
    pub fn take_over(&self, k: usize) {
        self.devices[k].begin_takeover().expect("asked");
        self.carry();
        self.devices[k].poll_takeover().expect("answered").expect("granted");
    }

    /// Both devices are closed.
    pub fn close(&self) {
        self.devices.iter().for_each(|device| device.close().expect("closed"));
    }
}

/// Connects two devices, and steps them until `is_done`, or `most` times.
pub fn step(devices: [&Arc<Device>; 2], most: usize, mut is_done: impl FnMut() -> bool) {
    let (first, second) = memory_link(Line::default(), devices[0].clock().clone());
    for (device, end) in devices.iter().zip([first, second]) {
        let _ = device.connect(Arc::new(end));
    }
    for _ in 0..most {
        for device in devices {
            let _ = device.step_control();
            let _ = device.step_commit_due();
            let _ = device.step_ladder();
            let _ = device.step_ship();
            let _ = device.step_receive();
            let _ = device.step_reflect();
            let _ = device.checkpoint_now();
        }
        if is_done() {
            break;
        }
    }
}

/// The superblock of a device that no process has open.
pub fn superblock(dir: &Path) -> Superblock {
    superblock::load(&Directory::open_read_only(dir).unwrap()).unwrap()
}

/// Every file of a device but its lock, with its contents.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            // Segments of terabytes are holes.
            false if fs::metadata(&path).unwrap().len() > 1 << 30 || path.ends_with("lock") => {}
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}
