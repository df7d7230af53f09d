//! Differential mode between two devices (the first embodiment; D1–D11): by name, and in random walks over
//! disks that die.

mod common;

use afterimage::internal::limits::Settings;
use afterimage::internal::storage::{FileName, Fill, Storage};
use afterimage::internal::unit::Mode;
use afterimage::{Event, ImageStatus};
use common::crash::Cut;
use common::random::Random;
use common::world::Act::*;
use common::world::{BLOCKS, World, background_step};
use common::{A, B};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

#[test]
fn a_suspended_pair_comes_back_by_itself() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Carry, Write(A, 0, 3), Flush(A)]);
    world.hold_ships(true);
    world.acts(&[Suspend(A), Write(A, 2, 4), Zero(A, 1), Flush(A)]);
    let status = world.device(A).status();
    assert_eq!((status.mode, status.differential.table_blocks), (Mode::Collecting, 3));
    assert_eq!(status.backlog_records, 0);
    world.hold_ships(false);
    world.rests();
    world.acts(&[Write(A, 5, 6), Takeover(B)]);
    world.reads(B);
    world.rests();
}

/// Section 6, D11: the target dies in the middle of a copy, which its cache still has, and finds it equal; then
/// its power fails.
#[test]
fn what_is_found_equal_is_durable() {
    for call in 1.. {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1), Flush(A), Carry, Suspend(A)]);
        world.acts(&[Write(A, 3, 2), Write(A, 4, 3), Flush(A)]);
        world.disks[B].die_at(world.disks[B].calls() + call);
        let survived = world.carry().is_ok();
        world.crash(B, Cut::Kill);
        world.open(B).unwrap();
        world.meet();
        rests_through_a_power_cut(&mut world);
        if survived {
            break;
        }
    }
}

/// The copies are equal, and still are when the power of B has failed.
fn rests_through_a_power_cut(world: &mut World) {
    world.rests();
    world.crash(B, Cut::Synced);
    world.open(B).unwrap();
    world.meet();
    world.rests();
}

/// The same of a copy whose sync failed, behind an opening that was closed cleanly.
#[test]
fn what_a_failed_sync_left_is_written_anew() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Reflect(B), Checkpoint(B), Suspend(A)]);
    world.acts(&[Write(A, 3, 2), Write(A, 4, 3), Flush(A)]);
    world.disks[B].fail_sync_of(FileName::Segment { volume: 0, index: 0 });
    assert!(world.carry().is_err(), "the sync of the copies fails");
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    world.acts(&[Close(B)]);
    world.open(B).unwrap();
    world.meet();
    rests_through_a_power_cut(&mut world);
}

/// The same of a copy that was carried by hand, and not synced.
#[test]
fn a_carried_copy_is_durable() {
    let mut world = World::new();
    // No block is zeros: those would be written.
    (0..BLOCKS).for_each(|block| world.act(Write(A, block, 9 - block as u8)).unwrap());
    world.acts(&[Flush(A), Carry, Reflect(A), Checkpoint(A)]);
    world.acts(&[Close(A), Close(B)]);
    let (disk, clock) = (world.disks[A].clone(), world.clock.clone());
    afterimage::Closed::forget_peer(disk, clock, world.settings.clone()).unwrap();
    world.make_anew(B, 3);
    let file = FileName::Segment { volume: 0, index: 0 };
    let bytes = world.disks[A].bytes(file);
    world.disks[B].create(file, bytes.len() as u64, Fill::Sparse).unwrap();
    world.disks[B].write(file, 0, &[IoSlice::new(&bytes)]).unwrap();
    world.open(A).unwrap();
    world.open(B).unwrap();
    world.meet();
    rests_through_a_power_cut(&mut world);
}

/// D1: the peer owes what it wrote and A has not overwritten; A's own bits are of the others.
#[test]
fn a_device_that_is_catching_up_suspends() {
    let mut world = World::new();
    world.hold_ships(true);
    world.acts(&[
        Write(A, 0, 1),
        Write(A, 1, 2),
        Takeover(B),
        Write(B, 0, 3),
        Flush(B),
        Suspend(B),
    ]);
    let status = world.device(B).status();
    assert_eq!(status.mode, Mode::Collecting);
    assert_eq!((status.differential.table_blocks, status.differential.owed_blocks), (1, 1));
    world.reads(B);
    world.hold_ships(false);
    world.rests();
}

/// D4: a takeover out of a suspension, and back, waits for no copy.
#[test]
fn takeovers_out_of_every_round() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Suspend(A), Write(A, 2, 3)]);
    world.acts(&[Takeover(B)]);
    assert_eq!(world.device(B).status().differential.owed_blocks, 3);
    world.acts(&[Write(B, 1, 4), Flush(B)]);
    world.reads(B);
    world.acts(&[Takeover(A), Write(A, 3, 5), Flush(A)]);
    world.reads(A);
    world.rests();
}

/// LADDER 4: a second takeover before the first has caught up, and a write: N of neither device is what the
/// hosts' data was once. The device that serves says so, once, and that it is over.
#[test]
fn no_consistent_copy_at_either_site_is_said() {
    let mut world = World::new();
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let events = told.clone();
    world.device(A).on_event(move |event| {
        if matches!(event, Event::NoConsistentCopy | Event::CaughtUp) {
            events.lock().unwrap().push(event.clone());
        }
    });
    let says = |world: &World, at| world.device(at).status().differential.no_consistent_copy;
    // The round of the takeover is opened, and no copy comes.
    let take_over = |world: &mut World, at| {
        world.acts(&[Takeover(at)]);
        world.hold_ships(true);
        world.acts(&[Carry]);
    };
    let is_consistent =
        |world: &World| [A, B].map(|at| world.device(at).status().differential.is_consistent);
    world.acts(&[Write(A, 0, 1), Flush(A), Suspend(A)]);
    take_over(&mut world, B);
    world.acts(&[Write(B, 1, 2), Flush(B), Reflect(B)]);
    // One takeover: the device that was left has the image of its fence.
    assert_eq!((is_consistent(&world), says(&world, B)), ([true, false], false));
    take_over(&mut world, A);
    assert_eq!((is_consistent(&world), says(&world, A)), ([true, false], false));
    for block in 2..4 {
        world.acts(&[Write(A, block, 3), Flush(A), Reflect(A)]);
        assert_eq!((is_consistent(&world), says(&world, A)), ([false; 2], true));
    }
    assert_eq!(told.lock().unwrap().len(), 1);
    // The last consistent image is kept at each site, for a force.
    for at in [A, B] {
        let image = world.device(at).status().image;
        assert!(matches!(image, ImageStatus::Kept { .. }), "{at}: {image:?}");
    }
    world.hold_ships(false);
    world.rests();
    let told = told.lock().unwrap();
    assert!(matches!(told[..], [Event::NoConsistentCopy, Event::CaughtUp]), "{told:?}");
    assert!(!says(&world, A));
}

/// Every act at any time, with crashes: what was promised is there, and no read is stale.
#[test]
fn random_walks() {
    let seeds = std::env::var("LADDER_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let first = std::env::var("LADDER_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        if std::env::var("LADDER_SAY").is_ok() {
            println!("seed {seed}");
        }
        let outcome = std::panic::catch_unwind(|| walk(seed));
        outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

fn walk(seed: u64) {
    let is_loud = std::env::var("LADDER_LOUD").is_ok();
    let mut random = Random::new(seed);
    let mut world = World::with(
        4,
        Settings { suspend_from_percent: 60, resume_order_after_ns: 0, ..Settings::default() },
    );
    let mut serving = A;
    for step in 0..120u64 {
        let block = random.within(0..7);
        let value = (step % 250 + 1) as u8;
        let at = random.within(0..2) as usize;
        let act = match random.within(0..40) {
            0..=9 => Write(serving, block, value),
            10 | 11 => Write2(serving, block, value),
            12 => Zero(serving, block),
            13..=15 => Flush(serving),
            16 | 17 => Carry,
            18 | 19 => Reflect(at),
            20 => Checkpoint(at),
            21..=23 => Takeover(1 - serving),
            24 | 25 => Suspend(serving),
            26 => {
                world.meet();
                Flush(serving)
            }
            27 => {
                let cut = random.pick(&[
                    Cut::Kill,
                    Cut::Synced,
                    Cut::All,
                    Cut::Sectors(step),
                    Cut::Writes(step),
                ]);
                let session = world.device(serving).session().unwrap();
                session.flush().unwrap();
                world.promised = world.history.len();
                drop(session);
                if is_loud {
                    println!("{step} crash {at} {cut:?}");
                }
                world.crash(at, cut);
                serving = world.rise().unwrap();
                Flush(serving)
            }
            28..=37 => {
                let device = world.device(at).clone();
                let what = random.within(0..6);
                if is_loud {
                    println!("{step} step {what} of {at}");
                }
                background_step(&device, what);
                continue;
            }
            _ => {
                world.reads(serving);
                continue;
            }
        };
        if is_loud {
            println!("{step} {act:?}");
        }
        // A write that finds no place would wait, and nobody else would go on.
        for _ in 0..3 {
            if world.device(serving).status().own_free_places < 3 {
                world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
            }
        }
        match act {
            Suspend(at) if world.device(at).status().mode != Mode::Ordered => {}
            act => world.act(act).unwrap_or_else(|e| panic!("{step} {act:?}: {e}")),
        }
        if let Takeover(at) = act {
            serving = at;
        }
        world.alive().unwrap();
    }
    world.reads(serving);
    world.rests();
    world.reads(serving);
}
