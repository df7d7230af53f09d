//! The cells that hold data on its way to the log: a reader, the commit that takes data away, and
//! the host of a later lap meet in one cell, and none of them waits.

use crate::{Device, block, check, checksum};
use afterimage::internal::journal::payload::Payloads;
use afterimage::internal::queue::{Content, Insert, NO_PLACE, NewRecord, NewWrite, Record};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PLACE: u64 = 4096;

/// As `OwnLog::insert`: a write of one block whose data is its host's time.
fn write(device: &Device, payloads: &Payloads, number: u64, time: u8) -> (Insert, Vec<u8>) {
    let record =
        NewRecord { checksum: checksum(time.into(), number), content: Content::Data, level: 0 };
    let (block, time_) = (block(number), u64::from(time));
    let write =
        NewWrite { block, records: &[record], time: time_, written_at: 0, bases: [None; 2] };
    let mut data = vec![time; 2];
    let ready = |next| payloads.make(next);
    let board = |first, _| payloads.board(first, &mut data);
    let insert = device.queue.insert_with(&device.clk, 1, &write, ready, || true, board);
    (insert, data)
}

/// As `OwnLog::read`: the data, the place in the log, or neither when it must be looked for again.
fn read(device: &Device, payloads: &Payloads, record: Record) -> Option<(Option<Vec<u8>>, u64)> {
    if record.place == NO_PLACE
        && let Some(data) = payloads.get(record.first())
    {
        let copy = data.clone();
        return device.queue.live(record.position).map(|_| (Some(copy), NO_PLACE));
    }
    let now = device.queue.live(record.position)?;
    (now.place != NO_PLACE).then_some((None, now.place))
}

/// A record that can be found has its data in the cell.
#[test]
fn published_with_its_data() {
    static SEEN: AtomicBool = AtomicBool::new(false);
    check(|| {
        let device = Device::new(2);
        let payloads = Arc::new(Payloads::new(2));
        let reader = {
            let (device, payloads) = (device.clone(), payloads.clone());
            thread::spawn(move || {
                if let Some(record) = device.newest(1) {
                    let found = read(&device, &payloads, record);
                    assert_eq!(found, Some((Some(vec![10; 2]), NO_PLACE)));
                    SEEN.store(true, Relaxed);
                }
            })
        };
        write(&device, &payloads, 1, 10);
        reader.join().unwrap();
    });
    assert!(SEEN.load(Relaxed), "the model never came to the point");
}

/// The only cell is read while it is released and taken by the next lap: a reader gets the data of the record
/// that it has found, or its place, or finds it gone, and every buffer is somewhere once.
#[test]
fn a_cell_through_two_laps() {
    const CASES: [&str; 7] = [
        "the reader copies the data",
        "the reader finds the place",
        "the reader looks again",
        "the commit takes the data away",
        "the commit finds a reader in the cell",
        "the host of the next lap takes the cell",
        "the host of the next lap finds a reader in the cell",
    ];
    static SEEN: [AtomicBool; 7] = [const { AtomicBool::new(false) }; 7];
    let saw = |case: &str, is: bool| {
        let at = CASES.iter().position(|&c| c == case).expect("a case");
        SEEN[at].fetch_or(is, Relaxed);
    };
    check(move || {
        let device = Device::new(1);
        let payloads = Arc::new(Payloads::new(1));
        let (before, left) = write(&device, &payloads, 1, 10);
        assert!(matches!(before, Insert::Published { first: 1, .. }) && left.is_empty());
        let record = device.newest(1).expect("published");
        let reader = {
            let (device, payloads) = (device.clone(), payloads.clone());
            thread::spawn(move || {
                let found = read(&device, &payloads, record);
                saw("the reader looks again", found.is_none());
                match found {
                    Some((Some(data), _)) => {
                        assert_eq!(data, [10; 2], "another record's data");
                        saw("the reader copies the data", true);
                    }
                    Some((None, place)) => {
                        assert_eq!(place, PLACE);
                        saw("the reader finds the place", true);
                    }
                    None => {}
                }
            })
        };
        // As `OwnLog::commit_as`, then a checkpoint.
        device.queue.set_place(1, PLACE);
        let released = payloads.release(1);
        saw("the commit takes the data away", released);
        saw("the commit finds a reader in the cell", !released);
        device.queue.release(2, 100);
        let next = write(&device, &payloads, 2, 90);
        reader.join().unwrap();
        match next {
            (Insert::Published { first, .. }, left) => {
                assert_eq!(left.is_empty(), released, "a buffer is lost, or there twice");
                assert!(left.is_empty() || left == [10; 2]);
                assert_eq!(*payloads.get(first).expect("aboard"), [90; 2]);
                saw("the host of the next lap takes the cell", true);
            }
            (Insert::Full, left) => {
                assert_eq!(left, [90; 2], "what is not admitted keeps its data");
                assert_eq!(payloads.get(1).is_none(), released);
                saw("the host of the next lap finds a reader in the cell", true);
            }
            (other, _) => panic!("{other:?}"),
        }
    });
    for (case, seen) in CASES.iter().zip(&SEEN) {
        assert!(seen.load(Relaxed), "the model never came to where {case}");
    }
}

/// Two places share the only cell: the second position takes it once the log has the first's data,
/// whose record is not freed. A reader of the first gets its data or its place, and never the second's.
#[test]
fn a_cell_through_two_places() {
    static SEEN: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
    check(|| {
        let device = Device::full(2);
        let payloads = Arc::new(Payloads::new(1));
        // As `OwnLog::refresh_limit`: no further than the cells above what is in the log.
        device.queue.raise_limit(1 + payloads.cells());
        write(&device, &payloads, 1, 10);
        let record = device.newest(1).expect("published");
        let reader = {
            let (device, payloads) = (device.clone(), payloads.clone());
            thread::spawn(move || match read(&device, &payloads, record) {
                Some((Some(data), _)) => {
                    assert_eq!(data, [10; 2], "another record's data");
                    SEEN[0].store(true, Relaxed);
                }
                Some((None, place)) => assert_eq!(place, PLACE),
                // A commit or another request was in the cell: the reader looks again.
                None => {}
            })
        };
        let host = {
            let (device, payloads) = (device.clone(), payloads.clone());
            thread::spawn(move || write(&device, &payloads, 2, 90))
        };
        // As `OwnLog::write_published`.
        device.queue.set_place(1, PLACE);
        device.queue.raise_limit(2 + payloads.cells());
        let released = payloads.release(1);
        reader.join().unwrap();
        match host.join().unwrap() {
            (Insert::Published { first, .. }, _) => {
                assert_eq!(*payloads.get(first).expect("aboard"), [90; 2], "released by mistake");
                SEEN[1].store(true, Relaxed);
                SEEN[2].fetch_or(!released, Relaxed);
            }
            (full, left) => {
                assert_eq!(full, Insert::Full);
                assert_eq!(left, [90; 2], "what is not admitted keeps its data");
            }
        }
        assert!(payloads.get(1).is_none_or(|data| *data == [10; 2]));
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed)), "the model never came to a point");
}
