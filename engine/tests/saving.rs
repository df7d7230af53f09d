//! Content is saved before a copy or a record overwrites it, in the last consistent image and as salvage (D10,
//! LADDER 6): each block once, none that is of the history that is served, and while nobody waits.

mod common;

use afterimage::{Device, FileName, Image, Kind, Settings, Storage, salvage};
use common::crash::{CrashDisk, Cut};
use common::world::Act::*;
use common::world::{World, background_step};
use common::{A, B};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A has written `alone`, in this order, and has returned to B, which has none of it.
fn returned_with(alone: &[(u64, u8)], settings: Settings) -> World {
    let mut world = World::with(4, settings);
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry]);
    world.hold_ships(true);
    alone.iter().for_each(|&(block, value)| world.acts(&[Write(A, block, value)]));
    world.acts(&[Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    world.history.truncate(2);
    world.try_force(B, Image::Consistent).unwrap();
    world.device(B).accept_loss().unwrap();
    world.open(A).unwrap();
    world.meet_briefly(4);
    world.hold_ships(true);
    world
}

fn settings() -> Settings {
    Settings { resume_order_after_ns: 0, ..Settings::default() }
}

fn returned() -> World {
    returned_with(&[(0, 3), (2, 4), (5, 5)], settings())
}

/// A has taken the host over before anything was copied.
fn returned_and_active() -> World {
    let world = returned();
    world.takeover(A).unwrap();
    world
}

/// How often `disk` syncs files of this kind from now on.
fn syncs(disk: &CrashDisk, kind: &'static str) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    disk.before_sync(move |file: FileName| {
        counted.fetch_add(file.to_string().contains(kind).into(), SeqCst);
    });
    count
}

/// As a file of this kind is synced there, the device takes the host over in another thread, and the sync
/// goes on only then.
fn takes_over_amid_a_sync(world: &World, at: usize, kind: &'static str) -> mpsc::Receiver<bool> {
    let pair = [A, B].map(|at| world.device(at).clone());
    let device = pair[at].clone();
    let (say, heard) = mpsc::channel();
    let is_first = AtomicU64::new(0);
    world.disks[at].before_sync(move |file| {
        if !file.to_string().contains(kind) || is_first.fetch_add(1, SeqCst) > 0 {
            return;
        }
        let (pair, device) = (pair.clone(), device.clone());
        let (done, end) = mpsc::channel();
        std::thread::spawn(move || done.send(takes_over(&pair, &device)));
        say.send(end.recv_timeout(Duration::from_secs(20)).unwrap_or(false)).unwrap();
    });
    heard
}

fn takes_over(pair: &[Arc<Device>; 2], device: &Device) -> bool {
    device.begin_takeover().unwrap();
    loop {
        match device.poll_takeover() {
            Some(outcome) => return outcome.is_ok(),
            None => pair.iter().for_each(|device| assert!(device.step_control().is_ok())),
        }
    }
}

/// Copies have come, whose blocks go to the last consistent image first.
#[test]
fn no_takeover_waits_until_the_image_is_durable() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry, Reflect(B), Suspend(A)]);
    world.acts(&[Write(A, 0, 3), Write(A, 5, 5), Flush(A)]);
    world.hold_ships(true);
    world.carry().unwrap();
    world.hold_ships(false);
    let heard = takes_over_amid_a_sync(&world, B, "image");
    world.device(B).step_receive().unwrap();
    assert_eq!(heard.try_recv(), Ok(true), "the takeover waited for the sync");
    world.reads(B);
    world.rests();
}

/// The same of salvage, at a device that has returned.
#[test]
fn no_takeover_waits_until_salvage_is_durable() {
    let mut world = returned();
    world.carry().unwrap();
    world.hold_ships(false);
    let heard = takes_over_amid_a_sync(&world, A, "salvage");
    // Checksums come first, and then the copies.
    world.carry().unwrap();
    assert_eq!(heard.try_recv(), Ok(true), "the takeover waited for the sync");
    world.reads(A);
    world.rests();
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
}

#[test]
fn a_batch_of_records_is_saved_with_one_sync() {
    let mut world = returned_and_active();
    world.acts(&[Write(A, 0, 6), Write(A, 2, 7), Write(A, 5, 8), Flush(A)]);
    world.device(A).step_sequence();
    while world.saved(A).is_empty() {
        let count = syncs(&world.disks[A], "salvage");
        assert!(world.device(A).step_reflect().unwrap() > 0);
        assert!(world.saved(A).is_empty() || count.load(SeqCst) == 1);
    }
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
}

/// The blocks of a batch take more than the room there is.
#[test]
fn records_are_saved_as_far_as_there_is_room() {
    let alone: Vec<_> = (0..8).map(|block| (block, block as u8 + 10)).collect();
    let world_settings = Settings { salvage_bytes_max: 4096, ..settings() };
    let mut world = returned_with(&alone, world_settings);
    world.takeover(A).unwrap();
    (0..8).for_each(|block| world.acts(&[Write(A, block, 9)]));
    world.acts(&[Flush(A)]);
    world.device(A).step_sequence();
    while world.device(A).step_reflect().unwrap() > 0 {}
    assert_eq!(world.saved(A), alone[..7]);
}

fn is_noted(world: &World, at: usize) -> bool {
    let files = world.disks[at].files().unwrap();
    files.iter().any(|file| file.to_string().contains("unsaved"))
}

/// A host writes block 0 anew, over content that is in salvage by then; A is killed before a checkpoint, and
/// the salvage is removed by an operator, or by its age.
#[test]
fn salvage_that_was_removed_is_not_owed_again() {
    for expires in [true, false] {
        let mut world = returned_and_active();
        world.acts(&[Write(A, 0, 6), Flush(A)]);
        world.device(A).step_sequence();
        while world.device(A).step_reflect().unwrap() > 0 {}
        assert_eq!(world.saved(A), [(0, 3)]);
        world.crash(A, Cut::Kill);
        if expires {
            world.settings.salvage_keep_ns = 1;
            world.clock.set_wall(1_000_000);
        } else {
            salvage::remove(&*world.disks[A], 0).unwrap();
        }
        world.open(A).unwrap();
        assert_eq!(world.saved(A), []);
        world.hold_ships(false);
        world.meet();
        world.acts(&[Write(A, 0, 7), Flush(A)]);
        world.goes_on();
        assert_eq!(world.saved(A), [(2, 4), (5, 5)], "removed by its age: {expires}");
    }
}

/// The same of a target, whose peer names the blocks again when they meet.
#[test]
fn a_target_does_not_save_again_either() {
    let mut world = returned();
    world.carry().unwrap();
    world.hold_ships(false);
    world.acts(&[Write(B, 5, 8), Flush(B)]);
    while world.saved(A).is_empty() {
        (0..4)
            .for_each(|step| [B, A].iter().for_each(|&at| background_step(world.device(at), step)));
    }
    let was_saved = world.saved(A);
    world.crash(A, Cut::Kill);
    salvage::remove(&*world.disks[A], 0).unwrap();
    world.acts(&[Write(B, 0, 7), Write(B, 2, 8), Write(B, 5, 9), Flush(B)]);
    world.open(A).unwrap();
    world.meet();
    world.rests();
    let mut saved = [was_saved, world.saved(A)].concat();
    saved.sort_unstable();
    assert_eq!(saved, [(0, 3), (2, 4), (5, 5)]);
    assert!(!is_noted(&world, A));
}

/// The same while the device is open, which goes on saving: what comes next is in another chunk.
#[test]
fn salvage_of_an_open_device_is_removed_and_not_owed_again() {
    let mut world = returned_and_active();
    let reflect = |world: &World| {
        world.device(A).step_sequence();
        while world.device(A).step_reflect().unwrap() > 0 {}
    };
    world.acts(&[Write(A, 0, 6), Flush(A)]);
    reflect(&world);
    assert_eq!(world.saved(A), [(0, 3)]);
    let remove = |world: &World| world.device(A).remove_salvage(0);
    remove(&world).unwrap();
    assert_eq!(remove(&world).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(world.saved(A), []);
    world.acts(&[Write(A, 0, 7), Write(A, 2, 8), Flush(A)]);
    reflect(&world);
    assert_eq!(world.saved(A), [(2, 4)]);
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    world.hold_ships(false);
    world.meet();
    world.goes_on();
    assert_eq!(world.saved(A), [(2, 4), (5, 5)]);
}

/// Salvage is full, so that the resync has stopped; an operator makes room, and it goes on.
#[test]
fn a_resync_goes_on_once_salvage_has_room() {
    let alone: Vec<_> = (0..8).map(|block| (block, block as u8 + 10)).collect();
    let world_settings = Settings { salvage_bytes_max: 4096, ..settings() };
    let mut world = returned_with(&alone, world_settings);
    let resync = |world: &mut World| {
        world.hold_ships(false);
        world.meet();
        for _ in 0..200 {
            for step in 0..4 {
                [B, A].iter().for_each(|&at| background_step(world.device(at), step));
            }
        }
    };
    resync(&mut world);
    assert!(world.device(A).status().salvage_full.is_some());
    let mut saved = world.saved(A);
    assert!(!saved.is_empty() && saved.len() < alone.len(), "{saved:?}");
    world.device(A).remove_salvage(0).unwrap();
    assert!(world.device(A).status().salvage_full.is_none());
    resync(&mut world);
    world.rests();
    saved.extend(world.saved(A));
    saved.sort_unstable();
    assert_eq!(saved, alone);
}

/// B has the same content of block 5 as A alone had, and A has heard its checksum; the copies of the others are not
/// there yet.
fn found_equal() -> World {
    let mut world = returned();
    world.acts(&[Write(B, 5, 5), Flush(B)]);
    world.carry().unwrap();
    world.hold_ships(false);
    world.device(B).step_ship().unwrap();
    world.device(A).step_receive().unwrap();
    world
}

/// Nothing is saved of a block that was equal, and the device is killed, after a checkpoint, or after a new round
/// has stored the table, or neither.
#[test]
fn content_of_the_served_history_is_not_saved() {
    for stores in [vec![Checkpoint(A)], vec![Suspend(B)], vec![]] {
        let mut world = found_equal();
        let left = world.device(A).status().differential.table_blocks;
        assert_eq!((left, world.saved(A)), (1, vec![(2, 4)]));
        // B knows that A has it.
        background_step(world.device(B), 3);
        world.acts(&stores);
        for (at, step) in [(B, 0), (A, 3), (B, 0), (A, 3)] {
            background_step(world.device(at), step);
        }
        world.crash(A, Cut::Kill);
        world.open(A).unwrap();
        world.meet();
        world.rests();
        assert!(!is_noted(&world, A), "nothing is owed to salvage");
        world.acts(&[Write(B, 5, 9), Flush(B)]);
        world.rests();
        assert_eq!(world.saved(A), [(0, 3), (2, 4)]);
    }
}

/// The block that was equal is overwritten, and the device is killed before a checkpoint: its content is B's then.
#[test]
fn a_block_that_was_equal_is_not_saved_after_an_opening() {
    let mut world = found_equal();
    world.acts(&[Write(B, 5, 9), Flush(B)]);
    for (at, step) in [(B, 1), (A, 2), (A, 4)] {
        background_step(world.device(at), step);
    }
    assert_eq!(world.volume(A)[5], 9);
    world.crash(A, Cut::Kill);
    world.acts(&[Write(B, 5, 11), Flush(B)]);
    world.open(A).unwrap();
    world.meet();
    world.rests();
    assert_eq!(world.saved(A), [(0, 3), (2, 4)]);
}

/// A device that has returned is itself forced before everything came: it serves what it had not saved.
#[test]
fn a_forced_device_owes_nothing_to_salvage() {
    let mut world = returned();
    world.carry().unwrap();
    assert!(is_noted(&world, A));
    world.device(A).close().unwrap();
    world.crash(B, Cut::Kill);
    world.try_force(A, Image::Newest).unwrap();
    assert!(!is_noted(&world, A));
    world.device(A).accept_loss().unwrap();
    (0..8).for_each(|block| world.acts(&[Write(A, block, 9)]));
    world.acts(&[Flush(A), Reflect(A)]);
    assert_eq!(world.saved(A), []);
}

/// A hello does nothing that takes the longer the more there is to save: that is left to the first round.
#[test]
fn no_hello_waits_until_it_is_noted_what_is_given_up() {
    let world = returned();
    assert!(world.device(A).status().connected && !is_noted(&world, A));
    for at in [B, A, B, A] {
        background_step(world.device(at), 0);
        background_step(world.device(1 - at), 3);
    }
    assert!(is_noted(&world, A));
}

/// A pair in which nothing differed, and a device that is opened with the word that nothing is to be saved.
#[test]
fn nothing_is_noted_where_nothing_is_owed() {
    let mut world = returned_with(&[], settings());
    world.hold_ships(false);
    world.rests();
    assert!(!is_noted(&world, A));
    let mut world = returned_and_active();
    world.crash(A, Cut::Kill);
    world.settings.salvage_bytes_max = 0;
    world.open(A).unwrap();
    assert!(!is_noted(&world, A));
}
