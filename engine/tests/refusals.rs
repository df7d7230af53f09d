//! Refusals: requests that no volume can take, settings and geometries out of
//! range, answers that do not come, a peer of another pair, records out of order. Each time
//! nothing may be half done: the pair goes on as if it had not been asked.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::event::Event;
use afterimage::internal::format::frame::{Frame, Hello, WIRE, WireRange};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::request::{Op, Request, Session, Ticket};
use afterimage::internal::storage::{Memory, Storage};
use afterimage::internal::table::location::Location;
use afterimage::internal::unit::{Block, Mode, Stamp};
use common::world::Act::{Carry, Flush, Write2};
use common::world::World;
use common::{A, Action, B, ManualClock, Pair, Spec, Step::*, X, Y, Z};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

const SECTOR: u64 = 512;
const VOLUME: u64 = 64 * 4096;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Read,
    Write,
    WriteZeroes,
    Discard,
}
use What::*;

fn submit(session: &Session, what: What, volume: u32, offset: u64, length: u64) -> Result<Ticket> {
    let bytes = if matches!(what, Read | Write) { vec![1; length as usize] } else { Vec::new() };
    let slices = [IoSlice::new(&bytes)];
    let op = match what {
        Read => Op::Read(bytes.clone()),
        Write => Op::Write(&slices),
        WriteZeroes => Op::WriteZeroes(length),
        Discard => Op::Discard(length),
    };
    session.submit(Request::new(volume, offset, op))
}

fn pair_of_volumes(settings: Settings) -> Pair {
    let sectors = VOLUME / SECTOR;
    Pair::with(Spec { volumes: vec![sectors, sectors], settings, ..Spec::default() })
}

/// R17: beyond the end, and outside every volume.
#[test]
fn what_no_volume_holds_is_refused_before_admission() {
    let mut pair = pair_of_volumes(Settings::default());
    let session = pair.session(A).unwrap();
    let free = pair.devices[A].status().own_free_places;
    let cases = [
        (2, 0, SECTOR, "there is no volume 2"),
        (0, VOLUME - 1, 2, "2 bytes at 262143 run past the end of volume 0"),
        (0, VOLUME, SECTOR, "the end of volume 0 (262144 bytes)"),
        (1, VOLUME - SECTOR, 2 * SECTOR, "1024 bytes at 261632 run past the end of volume 1"),
        (1, VOLUME + SECTOR, 0, "0 bytes at 262656 run past the end"),
        (0, u64::MAX - 511, SECTOR, "run past the end"),
    ];
    for (volume, offset, length, story) in cases {
        for what in [Read, Write, WriteZeroes, Discard] {
            let refused = submit(&session, what, volume, offset, length).unwrap_err();
            assert_eq!(refused.kind(), Kind::Invalid, "{what:?}: {refused}");
            assert!(!refused.kind().is_retryable());
            assert!(refused.to_string().contains(story), "{what:?}: {refused}");
        }
    }
    let refused = submit(&session, WriteZeroes, 0, SECTOR, u64::MAX - 511).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert_eq!(pair.devices[A].status().own_free_places, free);
    // A flush is of the group, whatever volume it names.
    session.submit(Request::new(2, 0, Op::Flush)).unwrap().wait().unwrap();
    let last = VOLUME / SECTOR - 1;
    let name = pair.submit(A, 1, Action::Write(last..last + 1, 1));
    pair.outcome(name).unwrap().unwrap();
    pair.drain();
}

/// R17: `zero_max`, and the largest read and write.
#[test]
fn what_is_larger_than_the_limits_is_refused() {
    for zero_bytes_max in [VOLUME / 2, 8192] {
        let settings = Settings { zero_bytes_max, ..Settings::default() };
        let mut pair = pair_of_volumes(settings);
        let limits = pair.devices[A].limits();
        assert_eq!(limits.zero_bytes_max, zero_bytes_max);
        assert!(limits.request_bytes_max < VOLUME / 2);
        let free = pair.devices[A].status().own_free_places;
        for (what, most) in [
            (Read, limits.request_bytes_max),
            (Write, limits.request_bytes_max),
            (WriteZeroes, limits.zero_bytes_max),
            (Discard, limits.zero_bytes_max),
        ] {
            let session = pair.session(A).unwrap();
            let refused = submit(&session, what, 0, SECTOR, most + SECTOR).unwrap_err();
            assert_eq!(refused.kind(), Kind::TooLarge, "{what:?}: {refused}");
            let story = format!("{} bytes: at most {most} at a time", most + SECTOR);
            assert!(refused.to_string().contains(&story), "{what:?}: {refused}");
        }
        assert_eq!(pair.devices[A].status().own_free_places, free);
        // As large as it may be, over one block more than it would need.
        let sectors = |bytes: u64| 1..1 + bytes / SECTOR;
        for action in [
            Action::Write(sectors(limits.request_bytes_max), 1),
            Action::Zeroes(sectors(limits.zero_bytes_max)),
            Action::Discard(sectors(limits.zero_bytes_max)),
            Action::Read(sectors(limits.request_bytes_max)),
        ] {
            let name = pair.submit(A, 0, action.clone());
            pair.outcome(name).unwrap_or_else(|| panic!("{action:?} waits")).unwrap();
        }
        pair.drain();
    }
}

/// R17: not even a block that is still at the peer keeps a request of length 0 waiting.
#[test]
fn requests_of_length_zero_complete_at_once() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.takeover(B).unwrap();
    let session = pair.session(B).unwrap();
    for what in [Read, Write, WriteZeroes, Discard] {
        let done = submit(&session, what, 0, SECTOR, 0).unwrap().poll().expect("at once").unwrap();
        assert_eq!((done.stamp, done.remote_blocks), (None, 0), "{what:?}");
        assert_eq!(done.buffer, (what == Read).then(Vec::new));
    }
    assert_eq!(session.write(0, SECTOR, &[]).unwrap(), Stamp::ZERO);
    assert_eq!(pair.devices[B].status().unreflected_records, 0);
    pair.drain();
}

#[test]
fn settings_out_of_range_are_refused() {
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 15] = [
        (|s| s.zero_bytes_max = 0, "zero_bytes_max is 0"),
        (|s| s.zero_bytes_max = 1000, "zero_bytes_max is 1000; it must be a multiple of 512"),
        (|s| s.ship_bytes_max = 0, "ship_bytes_max is 0; it must be at least 1"),
        (
            |s| s.ship_bytes_max = (1 << 20) + 1,
            "ship_bytes_max is 1048577; it must be at most 1048576, which a frame holds",
        ),
        (
            |s| s.piece_entries_max = 32_769,
            "piece_entries_max is 32769; it must be at most 32768, which a frame holds",
        ),
        (|s| s.reflect_records_max = 0, "reflect_records_max is 0"),
        (|s| s.checkpoint_records = 0, "checkpoint_records is 0"),
        (|s| s.commit_bytes = 0, "commit_bytes is 0"),
        (|s| s.batch_records_max = 0, "batch_records_max is 0"),
        (
            |s| s.resume_order_below_percent = 0,
            "resume_order_below_percent is 0; it must be 1 to 100",
        ),
        (
            |s| s.resume_order_below_percent = 91,
            "resume_order_below_percent is 91; it must be 1 to 90, which is suspend_from_percent",
        ),
        (|s| s.pacing_from_percent = 0, "pacing_from_percent is 0; it must be 1 to 99"),
        (|s| s.pacing_from_percent = 100, "pacing_from_percent is 100; it must be 1 to 99"),
        (|s| s.pacing_until_percent = 0, "pacing_until_percent is 0; it must be 1 to 80"),
        (
            |s| s.pacing_until_percent = 81,
            "pacing_until_percent is 81; it must be 1 to 80, which is pacing_from_percent",
        ),
    ];
    for (change, story) in cases {
        let mut settings = Settings::default();
        change(&mut settings);
        // There is no device, and nobody has looked.
        let storage = Arc::new(Memory::new());
        let clock = Arc::new(ManualClock::default());
        let refused = Device::open(storage, clock, settings).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config, "{refused}");
        assert!(refused.to_string().contains(story), "{refused}");
    }
    let settings = Settings {
        commit_interval_ns: 0,
        zero_bytes_max: SECTOR,
        ship_bytes_max: 1,
        link_queue_bytes_max: 0,
        reflect_records_max: 1,
        reflect_interval_ns: 0,
        checkpoint_records: 1,
        checkpoint_interval_ns: 0,
        commit_bytes: 1,
        batch_records_max: 1,
        ..Settings::default()
    };
    let mut pair = Pair::with(Spec { settings, ..Spec::default() });
    for value in 1..4 {
        pair.write(A, X, value);
        pair.write(A, value, value);
    }
    pair.drain();
}

#[test]
fn impossible_geometries_are_refused() {
    type Change = fn(&mut Geometry);
    let cases: [(Change, &str); 15] = [
        (|g| g.block_size = 256, "block size is 256"),
        (|g| g.block_size = 131_072, "block size is 131072"),
        (|g| g.block_size = 5000, "block size is 5000; it must be a power of two"),
        (|g| g.journal_bytes = 8192, "journal size is 8192 bytes"),
        (|g| g.journal_bytes += 512, "a multiple of 4096"),
        (
            |g| g.journal_bytes = (1 << 38) + 4096,
            "journal size is 274877911040 bytes; with blocks of 4096 it must be at most 274877906944",
        ),
        (
            |g| (g.block_size, g.journal_bytes) = (512, (1 << 35) + 4096),
            "with blocks of 512 it must be at most 34359738368",
        ),
        (|g| g.segment_bytes = 0, "segment size is 0"),
        (|g| g.segment_bytes = 4096, "segment size is 4096 bytes, not a multiple of 65536"),
        (|g| g.volumes.clear(), "1 to 65536 volumes, not 0"),
        (|g| g.volumes = vec![g.volumes[0]; 65_537], "not 65537"),
        (|g| g.volumes.push(g.volumes[0]), "volume 3 is named twice"),
        (|g| g.volumes[0].bytes = 0, "volume 3 has 0 bytes"),
        (|g| g.volumes[0].bytes = 1000, "volume 3 has 1000 bytes; it must be a multiple of 512"),
        (|g| g.volumes[0].bytes = 1 << 62, "below 4 EiB"),
    ];
    let geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 3, bytes: 4096 }]);
    let storage = Memory::new();
    for (change, story) in cases {
        let mut changed = geometry.clone();
        change(&mut changed);
        let refused = Device::create(&storage, &changed, true).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config, "{refused}");
        assert!(refused.to_string().contains(story), "{refused}");
        assert!(storage.files().unwrap().is_empty(), "{refused}");
    }
    Device::create(&storage, &geometry, true).unwrap();
}

/// A geometry that nobody has checked gives numbers, not a panic.
#[test]
fn an_unchecked_geometry_has_numbers() {
    for (block_size, journal_bytes) in
        [(4096, 0), (4096, 8192), (0, 0), (0, 1 << 30), (u32::MAX, 0)]
    {
        let volumes = vec![VolumeSpec { id: 3, bytes: 4096 }];
        let geometry = Geometry { block_size, journal_bytes, ..Geometry::new(7, 1, volumes) };
        assert!(geometry.check().is_err());
        assert!(geometry.request_blocks_max() > 0 && geometry.places() > 0);
        assert!(geometry.unsynced_bytes_max() > 0);
    }
}

/// Two devices on one storage would write over each other's logs.
#[test]
fn a_storage_is_opened_once_at_a_time() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 3, bytes: 4096 }]);
    Device::create(&*storage, &geometry, true).unwrap();
    let open = || {
        let clock = Arc::new(ManualClock::default());
        Device::open(storage.clone(), clock, Settings::default())
    };
    let first = open().unwrap();
    let refused = open().unwrap_err();
    assert_eq!(refused.kind(), Kind::Storage);
    assert!(refused.to_string().contains("a device of this process has it open"), "{refused}");
    first.resume_alone().unwrap();
    assert!(first.status().serving, "it goes on");
    first.close().unwrap();
    let second = open().unwrap();
    // A device that is dropped without a close gives its storage back, too.
    drop(second);
    open().unwrap();
}

/// R7: without an answer, and without a peer, a read ends with an error and never with old data;
/// so does a write that needs the rest of its block. An answer that comes too late is nobody's.
#[test]
fn a_remote_read_ends_in_time_and_never_with_old_data() {
    for cut in [false, true] {
        let settings = Settings { remote_read_timeout_ns: 1000, ..Settings::default() };
        let mut pair = Pair::with(Spec { settings, ..Spec::default() });
        pair.hold_ships(true);
        pair.write(A, X, 1);
        pair.takeover(B).unwrap();
        match cut {
            false => pair.hold(A, Lane::Control, true),
            true => {
                pair.ends[A].cut();
                for at in [A, B] {
                    pair.steps(at, &[Control, Control, Receive, Receive]);
                }
            }
        }
        let names = [pair.begin_read(B, X), pair.submit(B, 0, Action::Write(0..4, 2))];
        pair.step(A, Control);
        pair.step(A, Control);
        pair.clocks[B].pass(1000);
        for name in names {
            assert!(!pair.poll(name), "1000 ns are not over");
        }
        pair.clocks[B].pass(1);
        for name in names {
            assert!(pair.poll(name));
            let late = pair.outcome(name).unwrap().unwrap_err();
            assert_eq!(late.kind(), Kind::Timeout, "{late}");
            assert!(late.kind().is_retryable() && late.to_string().contains("at the peer"));
        }
        assert_eq!(pair.read(B, Y), (0, false), "what is not owed is there");
        match cut {
            false => pair.hold(A, Lane::Control, false),
            true => {
                pair.ends[A].restore();
                pair.connect();
            }
        }
        pair.settle();
        assert!(pair.devices.iter().all(|device| device.status().connected));
        assert_eq!(pair.read(B, X), (1, true));
        pair.drain();
        assert_eq!(pair.blocks(B), [(X, 1)]);
    }
}

/// Why a device gave connections up, for what the peer did.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Error>>>);

impl Told {
    fn by(device: &Device) -> Told {
        let told = Told::default();
        let tell = told.clone();
        device.on_event(move |event| {
            if let Event::Disconnected { why, .. } = event
                && why.kind() == Kind::Protocol
            {
                tell.0.lock().unwrap().push((*why).clone());
            }
        });
        told
    }

    /// The story of the one connection given up since the last call.
    fn once(&self) -> String {
        let told = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].to_string()
    }
}

/// Connects `device` to a line that nobody serves; what it says of itself, and the other end.
fn hello_of(device: &Device) -> (Hello, MemoryLink) {
    let (end, other) = memory_link(Line::default(), Arc::new(ManualClock::default()));
    device.connect(Arc::new(end)).unwrap();
    let bytes = other.receive(Lane::Control).unwrap().unwrap();
    match Frame::decode(&bytes).unwrap() {
        (_, Frame::Hello(hello)) => (hello, other),
        other => panic!("{other:?}"),
    }
}

/// `at` hears the hello of its peer, changed. Returns why it gives the connection up.
fn refuses(
    pair: &mut Pair,
    at: usize,
    told: &Told,
    change: impl Fn(&Hello, Hello) -> Vec<u8>,
) -> String {
    let (theirs, _) = hello_of(&pair.devices[1 - at]);
    let (own, line) = hello_of(&pair.devices[at]);
    let before = pair.devices[at].status();
    line.send(Lane::Control, change(&own, theirs)).unwrap();
    assert!(pair.devices[at].step_control().unwrap());
    let after = pair.devices[at].status();
    assert!(!after.connected && after.halted.is_none(), "{after:?}");
    assert_eq!((after.serving, after.epoch), (before.serving, before.epoch));
    assert!(line.receive(Lane::Control).is_err(), "nothing more is said");
    // The pair goes on when the two meet again.
    pair.connect();
    pair.settle();
    pair.write(A, Z, after.epoch + at as u64);
    told.once()
}

/// R10: group, device id, block size, volumes; lineage (R13); and a mode that the peer's program does not know.
#[test]
fn a_hello_of_another_pair_is_refused_saying_both_values() {
    type Change = fn(&Hello, &mut Hello);
    let cases: [(Change, &str); 9] = [
        (|_, h| h.group = 0xab, "group is 7 here and ab there"),
        (|own, h| h.device = own.device, "here and the same there"),
        (|_, h| h.block_size = 512, "block size is 4096 here and 512 there"),
        (
            |_, h| h.volumes[1].bytes += 512,
            "entry 1 of the table of volumes is volume 1 of 262144 bytes here and volume 1 of 262656 bytes there",
        ),
        (|_, h| h.volumes[0].id = 9, "volume 0 of 262144 bytes here and volume 9 of 262144"),
        (
            |_, h| h.volumes.truncate(1),
            "entry 1 of the table of volumes is volume 1 of 262144 bytes here and missing there",
        ),
        (
            |_, h| h.volumes.push(VolumeSpec { id: 2, bytes: 512 }),
            "entry 2 of the table of volumes is missing here and volume 2 of 512 bytes there",
        ),
        (|_, h| h.lineage = (1, 0x99), "lineage 1.99, tenure"),
        (
            |_, h| (h.mode, h.wire) = (Mode::Copying, WireRange { min: 3, max: 3 }),
            "an older one that does not know differential mode (wire version 4), which this pair is in",
        ),
    ];
    let mut pair = pair_of_volumes(Settings::default());
    let told = [A, B].map(|at| Told::by(&pair.devices[at]));
    for (change, story) in cases {
        for at in [A, B] {
            let refused = refuses(&mut pair, at, &told[at], |own, mut hello| {
                change(own, &mut hello);
                let nonce = hello.nonce;
                Frame::Hello(hello).encode(nonce)
            });
            assert!(refused.contains(story), "{refused}");
        }
    }
    pair.drain();
}

/// R19: logs that may have records of many blocks are no program's that does not know them.
#[test]
fn a_program_that_does_not_know_records_of_many_blocks_is_refused() {
    let mut world = World::new();
    world.acts(&[Write2(A, 0, 1), Flush(A), Carry]);
    let told = Told::by(world.device(A));
    let (mut hello, _) = hello_of(world.device(B));
    let (_, line) = hello_of(world.device(A));
    hello.features &= !2;
    line.send(Lane::Control, Frame::Hello(hello.clone()).encode(hello.nonce)).unwrap();
    assert!(world.device(A).step_control().unwrap());
    assert!(told.once().contains("does not know records of many blocks"));
}

#[cfg(feature = "weaken")]
#[test]
fn each_rule_is_missed_without_its_clause() {
    use afterimage::internal::weaken::{Clause, without};
    without(Some(Clause::ExtentsRefused));
    let scenario = a_program_that_does_not_know_records_of_many_blocks_is_refused;
    let outcome = std::panic::catch_unwind(scenario);
    without(None);
    assert!(outcome.is_err(), "`{}` is not missed", Clause::ExtentsRefused.name());
}

/// R10: what follows the version may mean anything.
#[test]
fn a_hello_of_another_version_is_refused_saying_both() {
    let mut pair = Pair::new();
    let told = [A, B].map(|at| Told::by(&pair.devices[at]));
    for version in [WIRE.min - 1, WIRE.max + 1, u16::MAX] {
        for at in [A, B] {
            let refused = refuses(&mut pair, at, &told[at], |_, mut hello| {
                let nonce = hello.nonce;
                hello.wire = WireRange { min: version, max: version };
                Frame::Hello(hello).encode(nonce)
            });
            let story = format!("the peer speaks wire version {version}, this device {WIRE}");
            assert!(refused.contains(&story), "{refused}");
        }
    }
    pair.drain();
}

/// R6: a record that does not follow what came last ends the connection, and none of what came
/// with it counts; after the next hello everything comes once more.
#[test]
fn a_gap_in_what_is_shipped_ends_the_connection() {
    for at_once in [false, true] {
        for lost in [0, 1] {
            let settings = Settings { ship_bytes_max: 1, ..Settings::default() };
            let mut pair = Pair::with(Spec { settings, ..Spec::default() });
            let told = Told::by(&pair.devices[B]);
            let stamps = [X, Y, Z].map(|block| pair.write(A, block, block + 1));
            pair.step(A, Commit);
            let frames: Vec<_> = (0..3)
                .map(|_| {
                    pair.step(A, Ship);
                    pair.ends[B].receive(Lane::Data).unwrap().unwrap()
                })
                .collect();
            for (number, frame) in frames.into_iter().enumerate().filter(|f| f.0 != lost) {
                pair.ends[A].send(Lane::Data, frame).unwrap();
                if !at_once && number < lost {
                    pair.step(B, Receive);
                }
            }
            pair.step(B, Receive);
            let came = if at_once { 0 } else { lost };
            let hi = stamps[..came].last().copied().unwrap_or_default();
            let status = pair.devices[B].status();
            assert_eq!((status.hi, status.connected), (hi, false), "{at_once} {lost}");
            assert_eq!(status.unreflected_records, came as u64);
            let newest = stamps[..lost].last().copied().unwrap_or_default();
            let story = format!(
                "ships record {} as the one after {}, but the last one received here is {newest}",
                stamps[lost + 1],
                stamps[lost]
            );
            let told = told.once();
            assert!(told.contains(&story), "{told}, not {story}");
            pair.connect();
            pair.drain();
            assert_eq!(pair.blocks(B), [(X, 1), (Y, 2), (Z, 3)]);
        }
    }
}

/// A record whose data changed on the line is not taken for one that arrived (R6).
#[test]
fn a_record_that_arrives_damaged_ends_the_connection() {
    let mut pair = Pair::new();
    let told = Told::by(&pair.devices[B]);
    pair.write(A, X, 1);
    pair.steps(A, &[Commit, Ship]);
    let mut frame = pair.ends[B].receive(Lane::Data).unwrap().unwrap();
    *frame.last_mut().unwrap() ^= 1;
    pair.ends[A].send(Lane::Data, frame).unwrap();
    pair.step(B, Receive);
    assert!(told.once().contains("was damaged on the line"));
    assert_eq!(pair.devices[B].status().hi, Stamp::ZERO);
    pair.connect();
    pair.drain();
    assert_eq!(pair.blocks(B), [(X, 1)]);
}

/// R13: what was owed before a restart, even after a clean close, is no answer after it: whoever
/// asks is refused until a new prototype says what is owed now.
#[test]
fn the_location_table_is_not_read_from_disk() {
    let mut pair = Pair::new();
    pair.hold_ships(true);
    pair.write(A, X, 1);
    pair.write(A, Y, 1);
    pair.takeover(B).unwrap();
    let at = |number| Block { volume: 0, number };
    let status = pair.devices[B].status();
    assert_eq!(status.owed_blocks, 2);
    assert_eq!([X, Y].map(|block| pair.devices[B].location(at(block))), [Location::Remote; 2]);
    pair.devices[B].close().unwrap();
    let (storage, clock) = (pair.spec.storages[B].clone(), pair.clocks[B].clone());
    pair.devices[B] = Device::open(storage, clock, Settings::default()).unwrap();
    let b = pair.devices[B].status();
    assert_eq!((b.serving, b.owed_blocks, b.need), (false, 0, status.need));
    assert_eq!([X, Y].map(|block| pair.devices[B].location(at(block))), [Location::Normal; 2]);
    assert_eq!(pair.refused(B, X), Kind::NotProven);
    // The rest of what it owes is in A's new prototype, and only that.
    pair.connect();
    pair.hold_ships(false);
    pair.settle();
    let b = pair.devices[B].status();
    assert!(b.serving && b.epoch > status.epoch, "{b:?}");
    assert_eq!(pair.read(B, X), (1, false));
    pair.drain();
}

/// A device that serves has nothing to take over.
#[test]
fn a_takeover_by_who_serves_is_refused() {
    let mut pair = Pair::new();
    assert_eq!(pair.devices[A].begin_takeover().unwrap_err().kind(), Kind::Invalid);
    pair.write(A, X, 1);
    pair.drain();
}
