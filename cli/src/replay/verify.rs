//! The devices at rest against what was written, and against each other.
//!
//! Everything in the volume files that is not a hole is read. Every sector that is not zero must
//! be the one that the image has there, to the last byte; and the image's sectors must all have
//! been found. So a device that passes is equal to the image, sector for sector.

use std::io;
use std::sync::Arc;

use afterimage::Device;
use afterimage::internal::error::Error;
use afterimage::internal::storage::{FileName, Storage};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::oracle::{Finding, Findings, Oracle};
use super::pair::Pair;
use super::pattern::SECTOR;
use super::requests::NAMES;
use crate::exit::Failure;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// One device at rest.
#[derive(Debug, Default)]
pub struct AtRest {
    /// Sectors that hold data.
    pub sectors: u64,
    /// Sectors read: those that are not in holes.
    pub sectors_read: u64,
    /// Of all places and contents that are not zero, in no order: equal for equal volumes.
    pub digest: u64,
    findings: Findings,
}

/// Compares both closed devices with the image, and with each other. Faults are noted in
/// the oracle.
pub fn verify(pair: &Pair, oracle: &mut Oracle) -> Result<[AtRest; 2], Failure> {
    let expected = oracle.written().count() as u64;
    let shared: &Oracle = oracle;
    let read = |at: usize| {
        let (storage, device) = (&pair.storages[at], pair.device(at));
        let doing = format_args!("reading the volumes of device {}", NAMES[at]);
        read(storage, device, shared).map_err(|e| Failure::device(doing, &e))
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| read(1));
        (read(0), other.join().expect("reading does not panic"))
    });
    let both = [a?, b?];
    for at_rest in &both {
        oracle.find_all(&at_rest.findings);
        // The content found is part of the image and was found once, unless it is noted above.
        if at_rest.findings.count() == 0 && at_rest.sectors != expected {
            oracle.find(Finding::Missing { expected, found: at_rest.sectors });
        }
    }
    if (both[0].sectors, both[0].digest) != (both[1].sectors, both[1].digest) {
        oracle.find(Finding::DevicesDiffer);
    }
    Ok(both)
}

fn read(storage: &Arc<dyn Storage>, device: &Device, oracle: &Oracle) -> Result<AtRest, Error> {
    let mut at_rest = AtRest::default();
    let read = each_sector(&**storage, device.geometry().segment_bytes, |volume, sector, bytes| {
        at_rest.look(oracle, volume, sector, bytes);
    });
    read.map_err(|e| Error::storage("reading the volumes", e))?;
    Ok(at_rest)
}

/// Shows `look` every sector of the volumes in `storage` that is not in a hole.
pub(super) fn each_sector(
    storage: &dyn Storage,
    segment_bytes: u64,
    mut look: impl FnMut(u32, u64, &[u8]),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    for file in storage.files()? {
        let FileName::Segment { volume, index } = file else { continue };
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("{file}: {e}"));
        let first = u64::from(index) * (segment_bytes / SECTOR as u64);
        let mut at = 0;
        while let Some(range) = storage.next_data(file, at).map_err(failed)? {
            // The range may begin and end anywhere.
            at = range.start / SECTOR as u64 * SECTOR as u64;
            let end = range.end.next_multiple_of(SECTOR as u64);
            while at < end {
                let bytes = &mut chunk[..CHUNK.min((end - at) as usize)];
                storage.read(file, at, bytes).map_err(failed)?;
                let sectors = (first + at / SECTOR as u64..).zip(bytes.chunks_exact(SECTOR));
                sectors.for_each(|(sector, bytes)| look(volume, sector, bytes));
                at += bytes.len() as u64;
            }
        }
    }
    Ok(())
}

impl AtRest {
    fn look(&mut self, oracle: &Oracle, volume: u32, sector: u64, bytes: &[u8]) {
        self.sectors_read += 1;
        match oracle.at_rest(volume, sector, bytes) {
            Ok(false) => return,
            Ok(true) => (),
            Err(finding) => self.findings.add(finding),
        }
        if bytes.iter().any(|&byte| byte != 0) {
            self.sectors += 1;
            let place = sector ^ u64::from(volume).rotate_left(40);
            self.digest = self.digest.wrapping_add(xxh3_64_with_seed(bytes, place));
        }
    }
}
