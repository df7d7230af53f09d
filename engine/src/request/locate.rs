//! Where the content of a range is, told in runs (figure 14), for a host that asks.
//!
//! The answer is as old as the call, and covers as much of the range as a bounded number of looks
//! tells: a volume of any size costs no more. Blocks of which nothing is live and nothing is owed are
//! looked at by the regions that a discard looks at (R17), and then by the runs of the storage; only
//! those of other regions are looked at one by one.

use super::Session;
use crate::device::Device;
use crate::error::Result;
use crate::moment::{Moment, moment};
use crate::queue::Content;
use crate::table::location::Location;
use crate::unit::{Block, Blocks, region_end};

/// Most looks of one call, at a block, a region or a run of the storage: some milliseconds.
const LOOKS_MAX: u64 = 16_384;

/// Neighbouring bytes whose content is at one place ([`Session::locate`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// How many bytes, not 0.
    pub bytes: u64,
    /// The place.
    pub place: Place,
    /// Whether they are known to read as zeros, without having been read.
    pub zeros: bool,
}

/// A place of content, seen from a device that serves (500/600).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the normal volume here.
    Here,
    /// In a journal here.
    Journal,
    /// At the other device.
    Peer,
}

impl Session {
    /// Where the content of `length` bytes from `offset` on is: the first bytes first, in at most `most`
    /// runs, of which no two neighbours are alike. They may end before the range does; only an empty
    /// range, or a `most` of 0, has none. Waits for nothing but the storage.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind::Invalid) beyond the volume; as [`Session::submit`] says of tickets
    /// once the tenure or the session is over.
    pub fn locate(
        &self,
        volume: u32,
        offset: u64,
        length: u64,
        most: usize,
    ) -> Result<Vec<Located>> {
        self.check_range(volume, offset, length)?;
        let size = u64::from(self.device.geometry.block_size);
        let end = offset + length;
        let blocks = Blocks { volume, numbers: offset / size..end.div_ceil(size) };
        let mut walk = Walk { device: &self.device, most, looks: 0, found: Vec::new() };
        if length > 0 {
            walk.run(&blocks);
        }
        // A fence drops the debt: what was found without it may be old (R3).
        self.device.check_pass(&self.pass)?;
        let mut at = blocks.numbers.start * size;
        let within = |run: &mut Located| {
            let from = at.max(offset);
            at += run.bytes * size;
            run.bytes = at.min(end) - from;
        };
        walk.found.iter_mut().for_each(within);
        Ok(walk.found)
    }
}

struct Walk<'a> {
    device: &'a Device,
    most: usize,
    looks: u64,
    /// In blocks.
    found: Vec<Located>,
}

impl Walk<'_> {
    fn run(&mut self, blocks: &Blocks) {
        let mut next = blocks.first();
        while next.number < blocks.numbers.end && self.goes_on() {
            let end = region_end(next.number).min(blocks.numbers.end);
            self.looks += 1;
            next.number = match self.device.is_quiet(next, end - next.number) {
                true => self.volume(next, end),
                false => self.each(next, end),
            };
        }
    }

    fn goes_on(&self) -> bool {
        self.looks < LOOKS_MAX && self.found.len() <= self.most
    }

    /// Blocks up to `end` that are in the normal volume; returns the number behind those that were noted.
    fn volume(&mut self, mut next: Block, end: u64) -> u64 {
        moment(Moment::Looking);
        while next.number < end && self.goes_on() {
            let run = Blocks { volume: next.volume, numbers: next.number..end };
            let (behind, zeros) = self.device.volumes.first_part(&run);
            self.looks += 1;
            self.note(behind - next.number, Place::Here, zeros);
            next.number = behind;
        }
        next.number
    }

    /// The first blocks up to `end` that are alike, looked at one by one.
    fn each(&mut self, first: Block, end: u64) -> u64 {
        let found = self.look(first);
        let end = match found {
            // No further than the storage will tell of: it is asked again behind the looks.
            None => {
                let run = Blocks { volume: first.volume, numbers: first.number..end };
                self.device.volumes.first_part(&run).0
            }
            Some(_) => end,
        };
        let mut next = Block { number: first.number + 1, ..first };
        while next.number < end && self.goes_on() && self.look(next) == found {
            self.looks += 1;
            next.number += 1;
        }
        match found {
            None => return self.volume(first, next.number),
            Some((place, zeros)) => self.note(next.number - first.number, place, zeros),
        }
        next.number
    }

    /// Where `block` is; `None` in the normal volume.
    fn look(&self, block: Block) -> Option<(Place, bool)> {
        match self.device.find(block).0 {
            Location::Normal => None,
            Location::Remote => Some((Place::Peer, false)),
            Location::Own(record) | Location::Received(record) => {
                Some((Place::Journal, record.content == Content::Zero))
            }
        }
    }

    /// A run that is one too many tells only that the one before it has ended.
    fn note(&mut self, blocks: u64, place: Place, zeros: bool) {
        let has_room = self.found.len() < self.most;
        match self.found.last_mut() {
            Some(run) if (run.place, run.zeros) == (place, zeros) => run.bytes += blocks,
            _ if has_room => self.found.push(Located { bytes: blocks, place, zeros }),
            _ => self.looks = LOOKS_MAX,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::storage::Memory;
    use std::sync::Arc;

    const BLOCK: u64 = 4096;
    const TIB: u64 = 1 << 40;

    fn device() -> (Arc<Device>, Session) {
        let storage = Arc::new(Memory::new());
        let geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 3, bytes: 4 * TIB }]);
        Device::create(&*storage, &geometry, true).unwrap();
        let clock = Arc::new(SystemClock::default());
        let device = Device::open(storage, clock, Settings::default()).unwrap();
        device.resume_alone().unwrap();
        let session = device.session().unwrap();
        (device, session)
    }

    fn run(blocks: u64, place: Place, zeros: bool) -> Located {
        Located { bytes: blocks * BLOCK, place, zeros }
    }

    #[test]
    fn records_are_in_the_journal_until_they_are_reflected() {
        let (device, session) = device();
        let at = |number: u64| number * BLOCK;
        session.write(3, at(10), &[1; 2 * BLOCK as usize]).unwrap();
        session.write_zeroes(3, at(12), at(4)).unwrap();
        let all = |most| session.locate(3, at(8), at(1000), most).unwrap();
        let journal =
            [run(2, Place::Here, true), run(2, Place::Journal, false), run(994, Place::Here, true)];
        // Zeros of blocks that had none have no record (R17).
        assert_eq!(all(9)[..2], journal[..2]);
        assert!(all(9)[2..].iter().all(|run| run.zeros), "{:?}", all(9));
        // Within blocks the answer begins and ends with the range.
        let odd = session.locate(3, at(10) - 100, 300, 9).unwrap();
        let [first, second] = odd[..] else { panic!("{odd:?}") };
        assert_eq!((first.bytes, second.bytes), (100, 200));
        session.flush().unwrap();
        device.step_reflect().unwrap();
        device.checkpoint_now().unwrap();
        let volume =
            [run(2, Place::Here, true), run(2, Place::Here, false), run(996, Place::Here, true)];
        let found = all(9);
        assert_eq!(found.iter().map(|run| run.bytes).sum::<u64>(), at(1000));
        assert_eq!(found, volume);
        assert_eq!(all(1), volume[..1]);
        assert_eq!(all(0), []);
        assert_eq!(session.locate(3, 0, 0, 9).unwrap(), []);
        assert!(session.locate(3, 4 * TIB, 1, 9).is_err());
    }

    /// A range of any size costs a bounded number of looks.
    #[test]
    fn a_long_range_is_answered_in_part() {
        let (_device, session) = device();
        let found = session.locate(3, 0, 4 * TIB, 9).unwrap();
        let [only] = found[..] else { panic!("{found:?}") };
        assert!(only.zeros && only.bytes >= TIB / 8 && only.bytes < 4 * TIB, "{only:?}");
        // Far apart, so that each region has a record of its own.
        for number in 0..64 {
            session.write(3, number << 36, &[1; BLOCK as usize]).unwrap();
        }
        let found = session.locate(3, 0, 4 * TIB, 9).unwrap();
        assert!(found[0] == run(1, Place::Journal, false), "{found:?}");
        assert!(found.iter().map(|run| run.bytes).sum::<u64>() > 1 << 24, "{found:?}");
    }
}
