//! A device whose files have rotted, or hold another's bytes, is opened again (R13).
#![cfg(not(loom))]

mod common;
mod reseal;

use afterimage::internal::format::batch::Log;
use afterimage::internal::format::superblock::COPY_OFFSETS;
use afterimage::internal::journal::scan::{Verify, scan};
use afterimage::internal::storage::FileName;
use afterimage::internal::superblock;
use common::crash::{CrashDisk, Cut, damage, open};
use common::random::Random;
use common::world::Act::*;
use common::world::World;
use common::{A, B};
use reseal::reseal;

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

/// Changes a byte in the header of each of three batches, whose checksum fits.
fn change_headers(disk: &CrashDisk, log: &[u8], field: usize, bits: u8) {
    for batch in 0..3 {
        let mut header = log[batch * 8192..][..4096].to_vec();
        header[field] ^= bits;
        reseal(&mut header);
        disk.rot(FileName::OwnLog, batch * 8192, &header);
    }
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
    damage(&disk, &["recv.log", "the log ends with stamp 0.0.0, but records up to 1.0.0 were"]);
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
        change_headers(&disk, &log, field, if field == 10 { 3 } else { 1 });
        damage(&disk, &["own.log", said, "the file is another device's log"]);
    }
    // A batch of an earlier incarnation of this log is free space.
    let disk = world.disks[A].copy();
    change_headers(&disk, &log, 32, 1);
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
