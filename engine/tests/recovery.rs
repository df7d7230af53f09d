//! A device that was killed or lost its power is opened again (R13).
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::event::Recovery;
use afterimage::internal::failover::Policy;
use afterimage::internal::format::batch::Log;
use afterimage::internal::journal::scan::{Verify, scan};
use afterimage::internal::limits::Settings;
use afterimage::internal::request::Request;
use afterimage::internal::storage::FileName;
use afterimage::internal::superblock;
use common::crash::Cut;
use common::world::Act::*;
use common::world::{BLOCK, BLOCKS, World};
use common::{A, B, ManualClock};
use std::sync::Arc;

/// Records of one batch.
const FULL: u64 = 62;

const X: usize = 0;
const Y: usize = 1;

fn recovery(world: &World, at: usize) -> Recovery {
    world.device(at).recovery().clone()
}

fn hi(world: &World, at: usize) -> afterimage::internal::unit::Stamp {
    world.device(at).status().hi
}

/// Writes `count` records, value by value.
fn write_many(world: &mut World, at: usize, count: u64, first: u8) {
    for n in 0..count {
        world.acts(&[Write(at, n % BLOCKS, first.wrapping_add(n as u8))]);
    }
}

/// A pair whose journals take several full batches.
fn roomy() -> World {
    World::with(64, Settings::default())
}

/// Lets the disk die in the `n`th call from now.
fn die_in(world: &World, at: usize, n: u64) {
    world.disks[at].die_at(world.disks[at].calls() + n);
}

#[test]
fn s17_dup_after_reconnect() {
    // One record a frame; the line is cut after every one of them, with and without a death.
    let settings = Settings { ship_bytes_max: BLOCK, ..Settings::default() };
    for arrived in 0..=16 {
        for dies in [None, Some((A, Cut::Kill)), Some((B, Cut::Synced)), Some((A, Cut::Synced))] {
            let mut world = World::with(16, settings.clone());
            write_many(&mut world, A, 16, 1);
            world.acts(&[Flush(A)]);
            for n in 0..16 {
                assert_eq!(world.device(A).step_ship().unwrap(), 1);
                if n < arrived {
                    assert_eq!(world.device(B).step_receive().unwrap(), 1);
                }
            }
            // The acknowledgements are lost with the line.
            if let Some((victim, cut)) = dies {
                world.crash(victim, cut);
                world.open(victim).unwrap();
            }
            world.meet();
            world.acts(&[Takeover(B), Write(B, 0, 99)]);
            // Reflecting checks that the volumes are prefixes of the history.
            world.acts(&[Carry, Reflect(A), Reflect(B), Carry, Reflect(A), Reflect(B)]);
            assert_eq!(world.volume(A)[0], 99, "{arrived} arrived, {dies:?}");
            world.finale().unwrap_or_else(|e| panic!("{arrived} arrived, {dies:?}: {e}"));
        }
    }
}

/// R16: a record that is shipped after a restart says which of its request's records it is, as its
/// row in the log does; and so does the receiver's log.
#[test]
fn a_restart_leaves_a_record_in_its_request() {
    for cut in [None, Some(Cut::Kill), Some(Cut::Synced)] {
        let mut world = World::new();
        world.hold_ships(true);
        world.acts(&[Write(A, 5, 4), Write2(A, 0, 5), Flush(A)]);
        match cut {
            None => world.acts(&[Close(A)]),
            Some(cut) => world.crash(A, cut),
        }
        world.rise().unwrap();
        let disk = &world.disks[B];
        let superblock = superblock::load(&**disk).unwrap();
        let found = scan(&**disk, &superblock, Log::Recv, Verify::Live, &mut |_| {}).unwrap();
        let rows = found.batches.iter().flat_map(|found| &found.header.rows);
        let shapes: Vec<_> = rows.map(|row| (row.block.number, row.index, row.count)).collect();
        assert_eq!(shapes, [(5, 0, 1), (0, 0, 2), (1, 1, 2)], "{cut:?}");
        // Places are still freed by record.
        world.acts(&[Reflect(A), Reflect(B), Carry, Checkpoint(A), Checkpoint(B)]);
        let status = [A, B].map(|at| world.device(at).status());
        assert!(status.iter().all(|s| s.own_used_bytes + s.recv_used_bytes == 0), "{status:?}");
        world.finale().unwrap();
    }
}

#[test]
fn s20_restart_while_catching_up() {
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2)]);
    world.device(B).begin_takeover().unwrap();
    world.carry().unwrap();
    world.device(B).poll_takeover().unwrap().unwrap();
    world.acts(&[Write(B, 0, 9), Flush(B)]);
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    let device = world.device(B).clone();
    assert_eq!(device.session().unwrap_err().kind(), Kind::NotProven);
    assert_eq!(device.resume_alone().unwrap_err().kind(), Kind::NotProven);
    device.set_policy(Policy { prefer: false, resume_alone: true }).unwrap();
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    let device = world.device(B).clone();
    assert!(!device.status().serving, "behind, it never serves alone");
    let epoch = device.status().epoch;
    world.meet();
    let status = device.status();
    assert!(status.serving && status.epoch > epoch, "it asked for a new prototype: {status:?}");
    let image = world.read_all(&device.session().unwrap()).unwrap();
    assert_eq!((image[X], image[Y]), (9, 2));
    world.finale().unwrap();
}

#[test]
fn s21_old_record_replay() {
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1), Flush(A), Reflect(A)]);
    world.links[B].hold(afterimage::internal::link::Lane::Data, false);
    world.device(B).begin_takeover().unwrap();
    world.carry().unwrap();
    world.acts(&[Write(B, 0, 2), Flush(B), Carry, Reflect(A), Checkpoint(A)]);
    assert_eq!(world.volume(A)[X], 2);
    assert_eq!(world.device(A).status().backlog_records, 1, "x=1 is still in R");
    world.crash(A, Cut::Synced);
    world.open(A).unwrap();
    world.acts(&[Reflect(A)]);
    assert_eq!(world.volume(A)[X], 2);
    world.promised = world.history.len();
    world.meet();
    world.finale().unwrap();
}

#[test]
fn s27_batch_receive_cut() {
    let mut world = roomy();
    write_many(&mut world, A, FULL + 8, 1);
    world.acts(&[Flush(A)]);
    while world.device(A).step_ship().unwrap() > 0 {}
    // Two batches with one sync, and the first of them is lost.
    die_in(&world, B, 2);
    assert!(world.device(B).step_receive().is_err());
    world.crash(B, Cut::Without(0));
    world.open(B).unwrap();
    assert_eq!(hi(&world, B), afterimage::internal::unit::Stamp::ZERO);
    assert_eq!(recovery(&world, B).recv.cut_records, FULL + 8);
    assert_eq!(recovery(&world, B).recv.live_records, 0);
    world.meet();
    world.acts(&[Reflect(B)]);
    assert_eq!(hi(&world, B), world.device(A).status().acked, "A ships all of it again");
    assert_eq!(Some(&world.volume(B)), world.images().last());
    world.finale().unwrap();
}

#[test]
fn s32_restart_low_clock() {
    let mut world = World::new();
    world.clock.set_wall(3_600_000_000_000);
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry, Reflect(A), Checkpoint(A)]);
    assert_eq!(world.device(A).status().own_used_bytes, 0, "all is acknowledged and freed");
    for alone in [false, true] {
        world.crash(A, Cut::Synced);
        world.clock.set_wall(0);
        world.open(A).unwrap();
        if alone {
            world.device(A).resume_alone().unwrap();
        } else {
            world.meet();
        }
        world.acts(&[Write(A, 0, 3 + u8::from(alone)), Flush(A)]);
        world.meet();
        world.acts(&[Reflect(B)]);
        assert_eq!(world.volume(B)[X], 3 + u8::from(alone), "it has reached B");
        world.acts(&[Reflect(A), Checkpoint(A)]);
    }
    world.finale().unwrap();
}

/// A is open again after a power cut: one record was durable; of two batches behind it that nobody
/// had synced the first is lost, the second on the disk.
fn cut_behind_the_first() -> World {
    let mut world = roomy();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    write_many(&mut world, A, FULL + 1, 100);
    die_in(&world, A, 2);
    assert!(world.device(A).step_commit().is_err());
    world.crash(A, Cut::Without(0));
    world.open(A).unwrap();
    world
}

#[test]
fn s33_volatile_tail() {
    let mut world = cut_behind_the_first();
    let recovery = recovery(&world, A);
    assert_eq!((recovery.own.live_records, recovery.own.cut_records), (1, FULL + 1));
    assert!(!recovery.clean);
    world.meet();
    let image = world.read_all(&world.device(A).session().unwrap()).unwrap();
    assert_eq!(image[..2], [1, 0]);
    world.finale().unwrap();
}

/// A failed sync leaves its pages readable and clean: the next process finds the batch, and its sync
/// succeeds without writing anything. Only what it writes again is durable.
#[test]
fn what_a_failed_sync_left_is_written_again() {
    for received in [false, true] {
        let mut world = roomy();
        world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
        write_many(&mut world, A, FULL + 8, 50);
        let (at, file) = if received { (B, FileName::RecvLog) } else { (A, FileName::OwnLog) };
        if received {
            world.acts(&[Flush(A)]);
            while world.device(A).step_ship().unwrap() > 0 {}
        }
        world.disks[at].fail_sync_of(file);
        match received {
            false => assert!(world.device(A).step_commit().is_err()),
            true => assert!(world.device(B).step_receive().is_err()),
        }
        assert!(world.device(at).status().halted.is_some());
        // No power cut: the next process finds all of it.
        world.crash(at, Cut::Kill);
        world.open(at).unwrap();
        let Recovery { own, recv, .. } = recovery(&world, at);
        assert_eq!(own.cut_records + recv.cut_records, 0);
        assert_eq!(own.live_records + recv.live_records, FULL + 9);

        world.meet();
        // All of it is taken for durable from here on.
        world.acts(&[Write(A, 1, 200), Flush(A), Carry]);
        let hi = hi(&world, at);
        world.crash(at, Cut::Synced);
        world.open(at).unwrap();
        assert_eq!(recovery(&world, at).own.live_records, if received { 0 } else { FULL + 10 });
        assert_eq!(self::hi(&world, at), hi);
        world.finale().unwrap();
    }
}

/// A batch is held as long as one record of it is live; the others do not come back.
#[test]
fn dead_records_of_a_batch_stay_dead() {
    let mut world = World::new();
    write_many(&mut world, A, 8, 1);
    world.acts(&[Flush(A), Carry]);
    for at in [A, B] {
        assert_eq!(world.device(at).step_reflect_some(5).unwrap(), 5);
        world.acts(&[Checkpoint(at)]);
        world.crash(at, Cut::Synced);
        world.open(at).unwrap();
        let Recovery { own, recv, .. } = recovery(&world, at);
        assert_eq!(own.live_records + recv.live_records, 3);
        assert!(world.device(at).status().unreflected_records == 3);
    }
    world.promised = world.history.len();
    world.meet();
    world.finale().unwrap();
}

/// A batch that a recovery cut off is still on the disk, whole. One of the same shape in the place of
/// the lost one must not bring it back, whether it is still held or already freed.
#[test]
fn what_was_cut_never_rises_again() {
    for freed in [false, true] {
        let mut world = cut_behind_the_first();
        world.history.truncate(1);
        world.meet();
        write_many(&mut world, A, FULL, 10);
        world.acts(&[Flush(A)]);
        let used = world.device(A).status().own_used_bytes;
        if freed {
            world.acts(&[Carry, Reflect(A), Checkpoint(A)]);
            assert_eq!(world.device(A).status().own_used_bytes, 0);
        }
        world.crash(A, Cut::Synced);
        world.open(A).unwrap();
        let recovery = recovery(&world, A);
        let live = if freed { 0 } else { FULL + 1 };
        assert_eq!((recovery.own.live_records, recovery.own.cut_records), (live, 0), "{freed}");
        let left = world.device(A).status().own_used_bytes;
        assert_eq!(left, if freed { 0 } else { used });
        world.meet();
        world.finale().unwrap();
    }
}

/// The last batch, torn or rotten, before anything says that it was synced.
#[test]
fn a_torn_batch_is_cut_and_counted() {
    for at in [100, 4096 + 700] {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1), Flush(A), Write(A, 1, 2), Write(A, 2, 3)]);
        die_in(&world, A, 1);
        assert!(world.device(A).step_commit().is_err());
        world.crash(A, Cut::All);
        world.disks[A].rot(FileName::OwnLog, 8192 + at, &[7]);
        world.open(A).unwrap();
        let recovery = recovery(&world, A);
        // Of a torn header nobody can say what it was.
        let cut = if at < 4096 { 0 } else { 2 };
        assert_eq!((recovery.own.live_records, recovery.own.cut_records), (1, cut));
        world.meet();
        world.finale().unwrap();
    }
}

#[test]
fn progress_goes_from_nothing_to_all() {
    let mut world = World::new();
    (0..3).for_each(|n| world.acts(&[Write(A, n, 1 + n as u8), Flush(A)]));
    world.crash(A, Cut::Kill);
    let mut seen = Vec::new();
    let clock = Arc::new(ManualClock::default());
    let disk = world.disks[A].clone();
    let settings = Settings::default();
    Device::open_with(disk, clock, settings, &mut |done, total| seen.push((done, total))).unwrap();
    let total = seen[0].1;
    assert!(seen.iter().all(|step| step.1 == total && step.0 <= total), "{seen:?}");
    assert!(seen.windows(2).all(|w| w[0].0 <= w[1].0), "{seen:?}");
    assert_eq!(seen.last(), Some(&(total, total)));
}

/// Both logs are filled to the last place, and again after each death: what is promised after an
/// opening is what the log has room for, whatever it was promised before.
#[test]
fn a_full_log_is_full_after_a_death() {
    // Records in batches of their own, which take most room, or together.
    for (cut, single) in [(Cut::Kill, true), (Cut::Synced, true), (Cut::Synced, false)] {
        let mut world = World::new();
        let mut value = 0;
        for round in 0..6 {
            // A's own log: nothing is shipped. B's received log: nothing is reflected.
            let admitted = fill(&mut world, &mut value, single);
            assert!(round > 0 || admitted > 8, "{admitted}");
            world.crash(A, cut);
            world.open(A).unwrap();
            world.device(A).resume_alone().unwrap();
            world.promised = world.history.len();
            assert!(fill(&mut world, &mut value, single) < 70, "what is held is held");
            world.device(A).step_commit().unwrap();
            world.promised = world.history.len();
            world.meet();
            world.crash(B, cut);
            world.open(B).unwrap();
            world.meet();
            if round % 2 == 1 {
                world.acts(&[Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B), Carry]);
            }
        }
        for _ in 0..4 {
            world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
        }
        world.finale().unwrap();
    }
}

/// Writes at A, whose link is down, until a write has to wait; how many did not.
fn fill(world: &mut World, value: &mut u8, single: bool) -> u64 {
    let session = world.device(A).session().unwrap();
    for admitted in 0.. {
        *value = value.wrapping_add(1);
        let block = u64::from(*value) % BLOCKS;
        let data = [*value; BLOCK as usize];
        let slices = [std::io::IoSlice::new(&data)];
        let mut ticket = session.submit(Request::write(0, block * BLOCK, &slices)).unwrap();
        if ticket.poll().is_none() {
            // Given up, and not admitted.
            world.device(A).step_commit().unwrap();
            if ticket.poll().is_none() {
                return admitted;
            }
        }
        if single {
            world.device(A).step_commit().unwrap();
        }
        world.history.push((block, *value));
    }
    unreachable!("it ends when the log is full")
}
