//! The queues beside a normal volume: what a reader finds while records are reflected, freed, written
//! over and received.

use super::*;
use afterimage::internal::flow::differential::Machine;
use afterimage::internal::table::alike::Alike;
use afterimage::internal::table::bits::Bits;
use afterimage::internal::table::differential::{Differential, Durable, Side};
use afterimage::internal::unit::{Blocks, Mode, Round};

/// A block of a normal volume: two halves, written and read without any order of their own.
struct Volume([Word; 2]);

impl Volume {
    fn new(value: u64) -> Volume {
        Volume([Word::new(value), Word::new(value)])
    }

    fn write(&self, value: u64) {
        // As `storage::Volumes` does.
        ordered(Ordering::Release);
        self.0.iter().for_each(|half| half.store(value, Ordering::Relaxed));
    }

    fn read(&self) -> [u64; 2] {
        self.0.each_ref().map(|half| half.load(Ordering::Relaxed))
    }
}

/// The data that a reader of block 1 gets, as `Device::fetch` looks for it: of its record in a
/// queue, or of the volume, if that can be believed.
fn fetch(queue: &Queue, volume: &Volume, owed: impl Fn() -> Option<Stamp>) -> Option<u64> {
    let owed = owed();
    let (newest, token) = queue.newest(block(1));
    match locate(None, newest, owed) {
        Location::Remote => None,
        Location::Own(record) | Location::Received(record) => Some(record.checksum),
        Location::Normal => {
            let [first, second] = volume.read();
            if !queue.unchanged(block(1), token) {
                return None; // it would look again
            }
            assert_eq!(first, second, "a torn block was believed");
            Some(first)
        }
    }
}

/// A block is reflected and its places are freed while its host writes it again and another reads:
/// what is read was there, whole, and is never older than what was complete before.
#[test]
fn reflection_and_write() {
    check(|| {
        let device = Device::new(2);
        let volume = Arc::new(Volume::new(0));
        device.write_one(1, 1);
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        let writer = {
            let device = device.clone();
            thread::spawn(move || device.write_one(1, 2))
        };
        let reader = {
            let (device, volume) = (device.clone(), volume.clone());
            thread::spawn(move || fetch(&device.queue, &volume, || None))
        };
        volume.write(checksum(1, 1));
        device.queue.release(taker.done(&device.queue), 100);
        let known = [None, Some(checksum(1, 1)), Some(checksum(2, 1))];
        assert!(known.contains(&reader.join().unwrap()), "older than what was complete");
        writer.join().unwrap();
    });
}

/// A reflected block is written and reflected again under a reader's eyes.
#[test]
fn second_reflection() {
    static BELIEVED: AtomicBool = AtomicBool::new(false);
    check(|| {
        let device = Device::new(1);
        let volume = Arc::new(Volume::new(checksum(1, 1)));
        let reader = {
            let (device, volume) = (device.clone(), volume.clone());
            thread::spawn(move || fetch(&device.queue, &volume, || None))
        };
        let stamp = device.write_one(1, 2);
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        assert_eq!(out, [(stamp, 1)]);
        volume.write(checksum(2, 1));
        device.queue.release(taker.done(&device.queue), 100);
        let read = reader.join().unwrap();
        BELIEVED.fetch_or(read == Some(checksum(1, 1)), Relaxed);
        assert!([None, Some(checksum(1, 1)), Some(checksum(2, 1))].contains(&read));
    });
    assert!(BELIEVED.load(Relaxed), "the volume was never believed");
}

/// A record of block 1 from the peer, for position 1.
fn received(epoch: u64, time: u64) -> Record {
    Record {
        position: 1,
        stamp: Stamp { epoch, time, sequence: 0 },
        block: block(1),
        level: 0,
        content: Content::Data,
        checksum: checksum(time, 1),
        index: 0,
        count: 1,
        written_at: 0,
        place: 0,
        was_reflected: false,
    }
}

/// An owed record arrives, and goes on to the volume, while it is read: the reader asks the
/// peer, finds the record, or finds it in the volume; it never takes what the volume held before.
#[test]
fn receiving_and_read() {
    static SEEN: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
    check(|| {
        let device = Device::new(1);
        let record = received(1, 7);
        let stamp = record.stamp;
        let mut debt = Debt::default();
        debt.extend(Stamp::ZERO, &[(block(1).into(), stamp)], Stamp::ZERO, 1).unwrap();
        let debt = Arc::new(debt);
        let volume = Arc::new(Volume::new(0));
        let reader = {
            let (device, volume, debt) = (device.clone(), volume.clone(), debt.clone());
            thread::spawn(move || {
                let read = fetch(&device.queue, &volume, || debt.owed(block(1)));
                SEEN[0].fetch_or(read.is_none(), Relaxed);
                SEEN[1].fetch_or(read.is_some() && device.queue.freed() == 1, Relaxed);
                SEEN[2].fetch_or(read.is_some() && device.queue.freed() == 2, Relaxed);
                assert!(read.is_none_or(|value| value == checksum(7, 1)), "stale: {read:?}");
            })
        };
        assert_eq!(device.queue.receive(&record), Some(1));
        debt.pay(stamp);
        volume.write(record.checksum);
        device.queue.release(2, 100);
        reader.join().unwrap();
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed)), "{SEEN:?}");
}

/// Differential mode at an active device, whose peer owes block 1 by a bit.
fn owing() -> Arc<Machine> {
    let stored = Durable { mode: Mode::Collecting, owing: true, ..Durable::default() };
    let machine = Differential::restore(stored, Bits::default(), Side::Active, [], [blocks()]);
    Arc::new(Machine::new(machine, false, Alike::default()))
}

fn blocks() -> Blocks {
    Extent::from(block(1)).into()
}

/// The data that a reader gets, as of `fetch`; the peer is asked if it owes a block by a bit and no record is here.
fn fetch_owed(device: &Device, volume: &Volume, machine: &Machine) -> Option<u64> {
    let oldest = Stamp { epoch: 1, time: 0, sequence: 0 };
    fetch(&device.queue, volume, || machine.owes().then_some(oldest))
}

/// A block that the peer owes by a bit gets `value` by `change`, while another reads it: the reader asks the peer, or
/// finds the value; it never takes what the volume held before.
fn changes_under_a_reader(
    value: u64,
    change: impl Fn(&Device, &Volume, &Machine) + Send + Sync + 'static,
) {
    static SEEN: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
    SEEN.iter().for_each(|seen| seen.store(false, Relaxed));
    check(move || {
        let (device, machine) = (Device::new(2), owing());
        let volume = Arc::new(Volume::new(0));
        let reader = {
            let (device, volume, machine) = (device.clone(), volume.clone(), machine.clone());
            thread::spawn(move || {
                let read = fetch_owed(&device, &volume, &machine);
                SEEN[usize::from(read.is_some())].fetch_or(true, Relaxed);
                assert!(read.is_none_or(|read| read == value), "stale: {read:?}");
            })
        };
        change(&device, &volume, &machine);
        reader.join().unwrap();
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed)), "{SEEN:?}");
}

/// It is written here (D5) and reflected, or its copy comes, past the queues (S903).
#[test]
fn owed_by_a_bit() {
    changes_under_a_reader(checksum(1, 1), |device, volume, machine| {
        device.write_one(1, 1);
        let (mut taker, mut out) = (Sequencer::new(1), Vec::new());
        device.take(&mut taker, &mut out);
        assert!(machine.wrote([block(1).into()].into_iter()), "nothing is owed any more");
        volume.write(checksum(1, 1));
        device.queue.release(taker.done(&device.queue), 100);
    });
    changes_under_a_reader(7, |_, volume, machine| {
        volume.write(7);
        let mut state = machine.write();
        state.arrive(Side::Active, Round::default(), 0, &blocks()).expect("a copy of this round");
        machine.settle(&state);
    });
}

/// An own record and a newer received one are reflected, and the newer one is freed, while a reader
/// looks at one queue after the other: it takes the newer one, finds it in the volume, or looks
/// again.
#[test]
fn two_queues() {
    static SEEN: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
    check(|| {
        let (own, recv) = (Device::new(1), Device::new(1));
        let volume = Arc::new(Volume::new(0));
        own.write_one(1, 1);
        let newer = received(2, 7);
        assert_eq!(recv.queue.receive(&newer), Some(1));
        let reader = {
            let (own, recv, volume) = (own.clone(), recv.clone(), volume.clone());
            thread::spawn(move || {
                // As `Device::fetch`.
                let (newest_own, own_token) = own.queue.newest(block(1));
                let (newest_recv, recv_token) = recv.queue.newest(block(1));
                let read = match locate(newest_own, newest_recv, None) {
                    Location::Own(record)
                        if own.queue.live(record.position).is_none_or(|r| r.was_reflected) =>
                    {
                        None
                    }
                    Location::Own(record) | Location::Received(record) => Some(record.checksum),
                    Location::Normal => {
                        let [first, _] = volume.read();
                        let settled = own.queue.unchanged(block(1), own_token)
                            && recv.queue.unchanged(block(1), recv_token);
                        settled.then_some(first)
                    }
                    Location::Remote => unreachable!("nothing is owed"),
                };
                SEEN[0].fetch_or(read.is_none(), Relaxed);
                SEEN[1].fetch_or(read.is_some() && newest_recv.is_some(), Relaxed);
                SEEN[2].fetch_or(read.is_some() && newest_recv.is_none(), Relaxed);
                assert!(read.is_none_or(|value| value == newer.checksum), "stale: {read:?}");
            })
        };
        volume.write(newer.checksum);
        own.queue.set_reflected(1);
        recv.queue.set_reflected(1);
        recv.queue.release(2, 100);
        reader.join().unwrap();
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed)), "{SEEN:?}");
}
