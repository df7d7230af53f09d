//! A device that was killed, lost its power, or whose files have rotted is opened again (R13).
#![cfg(not(loom))]

mod common;
mod reseal;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::event::Recovery;
use afterimage::internal::failover::Policy;
use afterimage::internal::format::batch::Log;
use afterimage::internal::format::superblock::COPY_OFFSETS;
use afterimage::internal::journal::scan::{Verify, scan};
use afterimage::internal::limits::Settings;
use afterimage::internal::request::Request;
use afterimage::internal::storage::FileName;
use afterimage::internal::superblock;
use common::crash::{Cut, damage, open};
use common::random::Random;
use common::world::Act::*;
use common::world::{BLOCK, BLOCKS, World};
use common::{A, B, ManualClock};
use reseal::reseal;
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

/// Three batches in a log; each one's header says that those before it were synced.
fn three_batches(at: usize) -> World {
    let mut world = World::new();
    for block in 0..3 {
        world.acts(&[Write(A, block, 1 + block as u8), Flush(A)]);
        if at == B {
            world.acts(&[Carry]);
        }
    }
    world
}

#[test]
fn rot_below_synced_is_refused_by_name() {
    for (at, file, name) in [(A, FileName::OwnLog, "own"), (B, FileName::RecvLog, "recv")] {
        for batch in 0..3u64 {
            for (within, header) in [(200, true), (4096 + 100, false)] {
                let world = three_batches(at);
                let disk = world.disks[at].after(Cut::Synced);
                let place = batch * 8192;
                disk.rot(file, (place + within) as usize, &[0xff]);
                if batch == 2 {
                    // Nothing on this disk says that it had been synced.
                    let recovery = open(&disk).unwrap().recovery().clone();
                    let log = if at == A { recovery.own } else { recovery.recv };
                    let cut = u64::from(!header);
                    assert_eq!((log.live_records, log.cut_records), (2, cut), "{name}");
                    continue;
                }
                let record = format!("{name}:{}", batch + 1);
                let gone = format!("records {} to 2 were durable and are gone", batch + 1);
                let offset = (place + 4096).to_string();
                let place = format!("at {place}: checksum");
                match header {
                    true => damage(&disk, &[&file.to_string(), &gone, &place]),
                    false => damage(&disk, &[&file.to_string(), &record, &offset, "checksum"]),
                }
            }
        }
    }
}

#[test]
fn nothing_may_be_missing_after_a_close_or_a_fence() {
    // The last batch of a closed device is named by its superblock.
    for within in [200, 4096 + 100] {
        let mut world = World::new();
        world.crash(B, Cut::Kill);
        world.acts(&[Write(A, 0, 1), Flush(A), Write(A, 1, 2), Close(A)]);
        world.disks[A].rot(FileName::OwnLog, 8192 + within, &[0xff]);
        damage(
            &world.disks[A],
            &["own.log", if within < 4096 { "records 2 to 2" } else { "own:2" }],
        );
    }
    // So is the last one of a device that has sent a prototype.
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 1), Flush(A), Write(A, 1, 2)]);
    world.device(B).begin_takeover().unwrap();
    world.carry().unwrap();
    world.crash(A, Cut::Synced);
    world.disks[A].rot(FileName::OwnLog, 8192 + 200, &[0xff]);
    damage(&world.disks[A], &["own.log", "records 2 to 2"]);
}

#[test]
fn a_received_record_that_was_acknowledged_and_checkpointed_is_missed() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Checkpoint(B)]);
    world.crash(B, Cut::Synced);
    // As if the log had never been written.
    world.disks[B].rot(FileName::RecvLog, 0, &[0; 8192]);
    damage(&world.disks[B], &["recv.log", "records 1 to 1 were durable and are gone"]);
}

/// The superblock remembers what was acknowledged: its absence is found also where no number says
/// so, and by whoever reads the log, not by an opening only.
#[test]
fn what_was_acknowledged_is_missed_whatever_the_numbers_say() {
    let disk = World::new().disks[B].after(Cut::Synced);
    for offset in COPY_OFFSETS.map(|at| at as usize) {
        let mut bytes = disk.bytes(FileName::Superblock)[offset..offset + 512].to_vec();
        bytes[112..120].copy_from_slice(&1u64.to_le_bytes()); // hi's epoch
        reseal(&mut bytes);
        disk.rot(FileName::Superblock, offset, &bytes);
    }
    damage(&disk, &["recv.log", "the log ends with stamp 0.0.0, but 1.0.0 was received"]);
    let superblock = superblock::load(&*disk).unwrap();
    let damages = |log| scan(&*disk, &superblock, log, Verify::Live, &mut |_| {}).unwrap().damages;
    assert_eq!((damages(Log::Own).len(), damages(Log::Recv).len()), (0, 1));
}

/// Fields with any value in superblock and headers, under checksums that are right, and bytes
/// anywhere: opening ends, and what it opens works as far as a device does.
#[test]
fn no_bytes_make_opening_panic() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Write2(A, 1, 2), Flush(A), Carry, Takeover(B)]);
    world.acts(&[Write(B, 3, 4), Carry, Zero(B, 5), Flush(B), Carry]);
    let disks = [A, B].map(|at| world.disks[at].after(Cut::Kill));
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..1500u64 {
        let mut random = Random::new(seed);
        let disk = disks[random.within(0..2) as usize].copy();
        let log = random.pick(&[FileName::OwnLog, FileName::RecvLog]);
        for _ in 0..random.within(1..4) {
            let (file, offset, length) = match random.within(0..3) {
                0 => (FileName::Superblock, random.pick(&COPY_OFFSETS) as usize, 512),
                _ => (log, 8192 * random.within(0..3) as usize, 4096),
            };
            let mut bytes = disk.bytes(file)[offset..offset + length].to_vec();
            let at = 24 + random.within(0..(if length == 512 { 290 } else { 240 })) as usize;
            let any = random.next() as u8;
            let value = random.pick(&[0, 1, 2, 0x7f, 0x80, 0xff, any]);
            bytes[at..at + random.within(1..9) as usize].fill(value);
            reseal(&mut bytes);
            disk.rot(file, offset, &bytes);
            if file == FileName::Superblock {
                for copy in COPY_OFFSETS {
                    disk.rot(file, copy as usize, &bytes);
                }
            }
        }
        match open(&disk) {
            Err(_) => refused += 1,
            Ok(device) => {
                opened += 1;
                let _ = device.resume_alone();
                while device.step_reflect().is_ok_and(|count| count > 0) {}
                let _ = device.checkpoint_now();
                let _ = device.close();
            }
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}

#[test]
fn a_log_of_another_pair_or_place_is_not_taken_for_ours() {
    let mut world = three_batches(A);
    world.crash(A, Cut::Synced);
    let log = world.disks[A].bytes(FileName::OwnLog);
    // A copy of a batch elsewhere, as a misdirected write leaves it.
    let disk = world.disks[A].copy();
    disk.rot(FileName::OwnLog, 8192, &log[..8192]);
    damage(&disk, &["own.log", "records 2 to 2 were durable"]);
    // The last batch, elsewhere: it is not even counted.
    let disk = world.disks[A].copy();
    disk.rot(FileName::OwnLog, 16_384, &[0; 8192]);
    disk.rot(FileName::OwnLog, 40_960, &log[16_384..24_576]);
    let own = open(&disk).unwrap().recovery().own;
    assert_eq!((own.live_records, own.cut_records), (2, 0));
    // Another pair's log of the same shape, another device's, and this device's received log.
    for (field, said) in [(80, "in group "), (24, "of device "), (10, "is of the recv log")] {
        let disk = world.disks[A].copy();
        for batch in 0..3 {
            let mut header = log[batch * 8192..][..4096].to_vec();
            header[field] ^= if field == 10 { 3 } else { 1 };
            reseal(&mut header);
            disk.rot(FileName::OwnLog, batch * 8192, &header);
        }
        damage(&disk, &["own.log", said, "the file is another device's log"]);
    }
    // A batch of an earlier incarnation of this log is free space.
    let disk = world.disks[A].copy();
    for batch in 0..3 {
        let mut header = log[batch * 8192..][..4096].to_vec();
        header[32] ^= 1;
        reseal(&mut header);
        disk.rot(FileName::OwnLog, batch * 8192, &header);
    }
    let own = open(&disk).unwrap().recovery().own;
    assert_eq!((own.live_records, own.cut_records), (0, 0));
}

/// A host may keep copies of logs in its volumes: its data, left behind the end of the log by an
/// earlier lap or by a cut, is not taken for another device's log.
#[test]
fn a_copy_of_another_log_in_a_hosts_data_is_free_space() {
    let mut world = three_batches(A);
    world.crash(A, Cut::Synced);
    let log = world.disks[A].bytes(FileName::OwnLog);
    let disk = world.disks[A].copy();
    let mut header = log[16_384..][..4096].to_vec();
    header[80] ^= 1;
    header[96..104].copy_from_slice(&24_576u64.to_le_bytes());
    reseal(&mut header);
    disk.rot(FileName::OwnLog, 24_576, &header);
    let own = open(&disk).unwrap().recovery().own;
    assert_eq!((own.live_records, own.cut_records), (3, 0));
}

#[test]
fn progress_goes_from_nothing_to_all() {
    let mut world = three_batches(A);
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
