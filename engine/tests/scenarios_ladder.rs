//! The acceptance scenarios of a lost site and of a suspension, S22 to S25, and the faults that other
//! products had there, each by name (LADDER, the list at its end).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::Settings;
use afterimage::internal::unit::Mode;
use afterimage::{Device, Forced, Image};
use common::crash::Cut;
use common::world::Act::*;
use common::world::{World, background_step};
use common::{A, B};

/// An accident of a pair between two steps.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LineCut,
    Killed(usize),
    PowerCut(usize),
}

const FAULTS: [Fault; 5] =
    [Fault::LineCut, Fault::Killed(A), Fault::Killed(B), Fault::PowerCut(A), Fault::PowerCut(B)];

/// The `number`th step of the two devices' threads.
fn step(world: &World, number: u64) {
    let which = [3, 2, 4, 5, 0, 1][(number / 2 % 6) as usize];
    background_step(world.device((number % 2) as usize), which);
}

fn steps(world: &World, count: u64) {
    (0..count).for_each(|number| step(world, number));
}

/// The device that serves after the fault.
fn suffer(world: &mut World, fault: Fault) -> usize {
    match fault {
        Fault::LineCut => {}
        Fault::Killed(at) => world.crash(at, Cut::Kill),
        Fault::PowerCut(at) => world.crash(at, Cut::Synced),
    }
    world.rise().unwrap()
}

/// S22 up to A's return: x is block 0, y block 1, z block 2.
fn forced() -> World {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 2), Write(A, 1, 2), Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    world.history.truncate(1);
    let sheet = world.try_force(B, Image::Consistent).unwrap();
    let told: Vec<u64> = sheet.told.iter().map(|told| told.0.first.number).collect();
    assert_eq!(told, [0, 1]);
    world.device(B).accept_loss().unwrap();
    world.reads(B);
    world.acts(&[Write(B, 2, 5), Flush(B)]);
    world.open(A).unwrap();
    world.meet_briefly(0);
    world
}

/// The end of S22: x1, z5, y initial on both; A's salvage has x2, y2.
fn is_resynced(world: &mut World) {
    world.rests();
    assert_eq!(&world.volume(A)[..3], &[1, 0, 5]);
    let mut saved = world.saved(A);
    saved.dedup();
    assert_eq!(saved, [(0, 2), (1, 2)]);
}

#[test]
fn s22_forced_and_return() {
    let mut world = forced();
    while world.device(A).status().differential.is_consistent {
        assert!(!world.device(A).status().serving);
        (0..24).for_each(|number| step(&world, number));
    }
    world.reads(B);
    is_resynced(&mut world);
    world.acts(&[Takeover(A)]);
    world.reads(A);
}

/// The link is cut, or either side dies, after any number of steps.
#[test]
fn s23_resync_interrupted() {
    for fault in FAULTS {
        for count in (0..90).step_by(3) {
            let mut world = forced();
            steps(&world, count);
            assert_eq!(suffer(&mut world, fault), B, "{fault:?} after {count}");
            world.reads(B);
            is_resynced(&mut world);
        }
    }
}

#[test]
fn s24_forced_both_pending() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Takeover(B)]);
    world.links[A].hold(afterimage::internal::link::Lane::Data, true);
    world.acts(&[Write(B, 1, 2), Flush(B), Carry]);
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    world.history.clear();
    let sheet = world.try_force(B, Image::Consistent).unwrap();
    assert_eq!((sheet.told.len(), sheet.given_up.len()), (1, 1));
    world.device(B).accept_loss().unwrap();
    world.reads(B);
    world.acts(&[Write(B, 3, 4)]);
    world.open(A).unwrap();
    world.meet();
    world.rests();
    assert_eq!(&world.volume(A)[..4], &[0, 0, 0, 4]);
}

#[test]
fn s25_suspend_resume() {
    for taken_over_after in (0..80).step_by(4).map(Some).chain([None]) {
        let mut world = busy();
        let mut serving = A;
        for number in 0..120 {
            let differential = world.device(B).status().differential;
            let is_sent_to = matches!(
                (world.device(A).status().mode, world.device(B).status().mode),
                (Mode::Sending | Mode::Copying, Mode::Sending | Mode::Copying)
            );
            // A level is the exception: all that was written is there.
            if serving == A && is_sent_to && differential.is_consistent {
                assert_eq!(world.device(A).status().differential.table_blocks, 0, "{number}");
            }
            if taken_over_after == Some(number) {
                world.acts(&[Takeover(B)]);
                serving = B;
                world.reads(B);
            }
            if number % 30 == 7 {
                world.acts(&[Write(serving, number % 7, number as u8 + 10)]);
            }
            step(&world, number);
        }
        world.meet();
        world.reads(serving);
        world.rests();
    }
}

/// A's journal is full while the link takes nothing, and A goes on: five blocks have bits.
fn busy() -> World {
    busy_with(Settings::default().image_bytes_max)
}

/// The same; the last consistent image has at most so many bytes.
fn busy_with(image_bytes_max: u64) -> World {
    let settings = Settings {
        image_bytes_max,
        suspend_from_percent: 60,
        resume_order_after_ns: 0,
        ..Settings::default()
    };
    let mut world = World::with(4, settings);
    world.hold_ships(true);
    let mut value = 0;
    while world.device(A).status().mode == Mode::Ordered {
        value += 1;
        world.acts(&[Write(A, u64::from(value % 5), value), Flush(A)]);
        world.device(A).step_ladder().unwrap();
        assert!(value < 200, "it never suspends");
    }
    world.acts(&[Write(A, 6, 7), Flush(A)]);
    world.hold_ships(false);
    world
}

/// Elsewhere bits were cleared, or never drained, around a reconnect; and a line that dropped at every step
/// of a resync kept it from ever ending.
#[test]
fn bits_survive_a_line_that_drops_again_and_again() {
    for fault in FAULTS {
        let mut world = busy();
        let mut between = 1;
        let mut serving = A;
        while world.device(serving).status().mode != Mode::Ordered {
            steps(&world, between);
            serving = suffer(&mut world, fault);
            world.reads(serving);
            between += 1;
            assert!(between < 200, "{fault:?}: it never ends");
        }
        world.rests();
        world.reads(serving);
    }
}

/// Elsewhere two interruptions made copies that differed be called equal.
#[test]
fn after_two_interruptions_the_copies_are_equal() {
    for first in (0..60).step_by(7) {
        for second in (0..60).step_by(7) {
            let mut world = busy();
            steps(&world, first);
            world.meet();
            world.acts(&[Write(A, first % 7, 201), Flush(A)]);
            steps(&world, second);
            world.meet();
            world.acts(&[Write(A, second % 7, 202), Flush(A)]);
            world.rests();
        }
    }
}

/// Elsewhere roles that were turned within moments of a resync's end lost what was written meanwhile.
#[test]
fn roles_turn_at_any_moment_of_a_resync() {
    for count in 0..120 {
        let mut world = busy();
        steps(&world, count);
        world.acts(&[Takeover(B), Write(B, 3, 211), Takeover(A), Write(A, 4, 212)]);
        world.reads(A);
        world.acts(&[Takeover(B)]);
        world.reads(B);
        world.rests();
    }
}

/// Elsewhere a set bit that nobody copied stayed for ever, unseen.
#[test]
fn no_bit_is_left_behind_a_copy() {
    for count in 0..60 {
        let mut world = busy();
        steps(&world, count);
        // It is written as its copy is on the way.
        world.acts(&[Write(A, 0, 221), Write(A, 6, 222)]);
        steps(&world, count);
        world.acts(&[Write(A, 0, 223), Flush(A)]);
        world.rests();
    }
}

/// The journal is full once more while blocks are copied.
#[test]
fn a_journal_that_overflows_in_a_resync_suspends_again() {
    let mut suspensions = 0;
    for count in (0..80).step_by(4) {
        let mut world = busy();
        steps(&world, count);
        world.hold_ships(true);
        for value in 0..150u8 {
            world.acts(&[Write(A, u64::from(value % 7), value), Flush(A)]);
            let before = world.device(A).status().mode;
            world.climb(world.device(A)).unwrap();
            let after = world.device(A).status().mode;
            suspensions += u32::from(before != after && after == Mode::Collecting);
        }
        world.hold_ships(false);
        world.meet();
        world.reads(A);
        world.rests();
    }
    assert!(suspensions > 0, "no round of copies was left");
}

/// The host moves as the journal has just overflowed, and nobody has told the peer.
#[test]
fn a_takeover_in_the_window_of_an_overflow_lacks_nothing() {
    let mut world = busy();
    assert_eq!(world.device(B).status().mode, Mode::Ordered);
    world.acts(&[Takeover(B)]);
    world.reads(B);
    world.acts(&[Write(B, 0, 231), Takeover(A)]);
    world.reads(A);
    world.rests();
}

/// Zeros are written ahead of the copy of a block, and behind it.
#[test]
fn zeros_ahead_of_a_copy_and_behind_it_stay() {
    for count in 0..60 {
        let mut world = busy();
        steps(&world, count);
        world.acts(&[Zero(A, 0), Zero(A, 3), Flush(A)]);
        world.reads(A);
        world.rests();
        world.acts(&[Takeover(B)]);
        world.reads(B);
    }
}

/// The old side comes back as one that serves, as one that does not, or before the force is durable.
#[test]
fn the_old_side_comes_back_in_any_state() {
    for resumes in [false, true] {
        let mut world = forced();
        world.crash(A, Cut::Kill);
        world.open(A).unwrap();
        if resumes {
            // Nothing was admitted alone: it is no branch.
            world.device(A).resume_alone().unwrap();
            assert!(world.device(A).status().serving);
        }
        world.meet_apart();
        assert!(!world.device(A).status().serving, "resumed: {resumes}");
        world.reads(B);
        world.meet();
        is_resynced(&mut world);
    }
}

/// The disk dies in any call of a force: it is done or not, and may be done again.
#[test]
fn a_force_that_dies_is_done_or_not() {
    let mut undone = 0;
    for cut in [Cut::Kill, Cut::Synced, Cut::Sectors(3), Cut::Writes(5)] {
        for call in 1.. {
            let mut world = World::new();
            world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry]);
            world.device(B).close().unwrap();
            world.devices = [None, None];
            let disk = world.disks[B].clone();
            disk.die_at(disk.calls() + call);
            let forced = Forced { accept_loss: true, ..Default::default() };
            let clock = world.clock.clone();
            let outcome = Device::force(disk.clone(), clock, world.settings.clone(), forced);
            let is_over = !disk.is_dead();
            assert!(outcome.is_ok() || !is_over, "{outcome:?}");
            world.crash(B, cut);
            world.open(B).unwrap();
            if !world.device(B).status().serving {
                assert!(
                    outcome.is_err(),
                    "call {call}, {cut:?}: a force that was done is not there"
                );
                undone += 1;
                // The old side comes back in the middle of it, as if nothing had been.
                if call % 2 == 0 {
                    world.promised = world.history.len();
                    let serving = world.rise().unwrap();
                    world.reads(serving);
                    world.rests();
                    continue;
                }
                world.try_force(B, Image::Consistent).unwrap();
                world.device(B).accept_loss().unwrap();
            }
            world.reads(B);
            world.acts(&[Write(B, 3, 4), Flush(B)]);
            world.open(A).unwrap();
            world.meet_apart();
            world.meet();
            world.reads(B);
            world.rests();
            if is_over {
                break;
            }
        }
    }
    assert!(undone > 8, "{undone} forces were cut short");
}

/// The source of a resync is gone for good, and its target is no state that ever was: a word leads out, and
/// says so.
#[test]
fn both_sides_bad_and_a_word_leads_out() {
    let mut world = busy_with(0);
    while world.device(B).status().differential.is_consistent {
        steps(&world, 1);
        (0..12).for_each(|number| step(&world, number));
    }
    world.device(B).close().unwrap();
    let refused = world.try_force(B, Image::Consistent).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.to_string().contains("--newest"), "{refused}");
    let sheet = world.try_force(B, Image::Newest).unwrap();
    assert_eq!((sheet.image, sheet.others_after), (Image::Newest, None));
    let device = world.device(B);
    assert_eq!(device.session().unwrap_err().kind(), Kind::LostWrites);
    device.accept_loss().unwrap();
    let session = device.session().unwrap();
    world.read_all(&session).unwrap();
}
