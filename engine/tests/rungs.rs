//! When a device takes the rungs of the ladder by itself, both ways, by a clock that moves when told to.
#![cfg(not(loom))]

mod common;

use afterimage::internal::limits::Settings;
use afterimage::internal::link::Link;
use afterimage::{Event, Mode};
use common::world::Act::*;
use common::world::{BLOCK, World};
use common::{A, B};
use std::sync::{Arc, Mutex};

const SECOND: u64 = 1_000_000_000;

/// The modes that the first device goes through from now on.
fn modes(world: &World) -> Arc<Mutex<Vec<Mode>>> {
    let modes: Arc<Mutex<Vec<Mode>>> = Arc::default();
    let told = modes.clone();
    world.device(A).on_event(move |event| {
        if let Event::ModeChanged { mode } = event {
            told.lock().unwrap().push(*mode);
        }
    });
    modes
}

fn cut(world: &World) {
    world.links.iter().for_each(|link| link.close());
    for at in [A, B] {
        while world.device(at).step_control().unwrap() {}
    }
    assert!(!world.device(A).status().connected);
}

fn rest(world: &mut World) {
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
}

#[test]
fn an_outage_that_lasts_suspends() {
    let settings = Settings { suspend_after_ns: 60 * SECOND, ..Settings::default() };
    let mut world = World::with(4, settings);
    let modes = modes(&world);
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    cut(&world);
    // The peer has everything: no outage is too long.
    world.clock.pass(90 * SECOND);
    let a = world.device(A).clone();
    assert!(!a.step_ladder().unwrap());
    world.meet();
    cut(&world);
    world.clock.pass(59 * SECOND);
    world.acts(&[Write(A, 1, 2), Flush(A)]);
    assert!(!a.step_ladder().unwrap());
    a.step_reflect().unwrap();
    a.checkpoint_now().unwrap();
    assert_eq!(a.next_deadline(), Some(a.clock().monotonic() + SECOND));
    world.clock.pass(SECOND);
    assert!(a.step_ladder().unwrap());
    assert_eq!(*modes.lock().unwrap(), [Mode::Collecting]);
    world.clock.pass(SECOND);
    world.meet();
    rest(&mut world);
    assert_eq!(*modes.lock().unwrap(), [Mode::Collecting, Mode::Copying, Mode::Ordered]);
    assert_eq!(world.volume(B), world.volume(A));
}

/// Without the setting an outage alone changes nothing.
#[test]
fn an_outage_suspends_only_if_that_is_set() {
    let mut world = World::new();
    cut(&world);
    world.acts(&[Write(A, 1, 2), Flush(A)]);
    world.clock.pass(u64::MAX / 2);
    assert!(!world.device(A).step_ladder().unwrap());
    assert_eq!(world.device(A).status().mode, Mode::Ordered);
}

/// Each way has its own threshold: order comes back once the table is small enough, and not before.
#[test]
fn order_comes_back_when_little_is_left() {
    let settings = Settings {
        resume_order_below_percent: 1,
        resume_order_after_ns: 0,
        copy_bytes_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(4, settings);
    let modes = modes(&world);
    let places = world.device(A).geometry().places();
    world.acts(&[Write2(A, 0, 1), Write2(A, 2, 1), Write2(A, 4, 1), Write2(A, 6, 1), Flush(A)]);
    world.hold_ships(true);
    world.acts(&[Suspend(A), Carry]);
    let blocks = world.device(A).status().differential.table_blocks;
    assert!(blocks * 100 >= places, "the table is more than a hundredth of {places}");
    rest(&mut world);
    assert_eq!(*modes.lock().unwrap(), [Mode::Collecting, Mode::Sending]);
    world.hold_ships(false);
    rest(&mut world);
    let all = [Mode::Collecting, Mode::Sending, Mode::Copying, Mode::Ordered];
    assert_eq!(*modes.lock().unwrap(), all);
}

/// The device stays in differential mode for a time, which doubles each time that order fails, up to a bound,
/// and begins anew once the line has kept up with order.
#[test]
fn order_that_fails_is_tried_ever_more_rarely() {
    let settings = Settings {
        suspend_after_ns: SECOND,
        resume_order_after_ns: 10 * SECOND,
        resume_order_after_max_ns: 40 * SECOND,
        ..Settings::default()
    };
    let mut world = World::with(4, settings);
    let a = world.device(A).clone();
    let fails = |world: &mut World, stays: u64| {
        world.acts(&[Write(A, 0, 1), Flush(A)]);
        cut(world);
        world.clock.pass(SECOND);
        assert!(a.step_ladder().unwrap());
        world.meet();
        rest(world);
        assert_eq!(a.status().mode, Mode::Sending);
        assert_eq!(a.next_deadline(), Some(a.clock().monotonic() + stays));
        world.clock.pass(stays - 1);
        rest(world);
        assert_eq!(a.status().mode, Mode::Sending);
        world.clock.pass(1);
        rest(world);
        assert_eq!(a.status().mode, Mode::Ordered);
    };
    for stays in [10, 20, 40, 40] {
        fails(&mut world, stays * SECOND);
        // Ordered mode has not lasted as long.
        world.clock.pass((stays - 1) * SECOND);
        world.acts(&[Write(A, 0, 2), Flush(A), Carry]);
    }
    world.clock.pass(SECOND);
    world.acts(&[Write(A, 0, 2), Flush(A), Carry]);
    fails(&mut world, 10 * SECOND);
}

/// By the journal's fill, by the time that is set for an outage, and by the blocks that are left.
#[test]
fn the_next_rung_is_predicted() {
    let settings = Settings {
        suspend_after_ns: 60 * SECOND,
        resume_order_after_ns: 5 * SECOND,
        copy_bytes_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(16, settings);
    let a = world.device(A).clone();
    let next = || a.status().next_rung_in_ns;
    assert_eq!(next(), None);
    world.hold_ships(true);
    for _ in 0..8 {
        world.acts(&[Write(A, 0, 1), Flush(A)]);
        world.clock.pass(SECOND / 2);
    }
    let fill = a.status().own_fill_percent;
    let expected = SECOND * 4 * (90 - fill) / fill;
    let predicted = next().expect("it fills");
    assert!(predicted.abs_diff(expected) < expected / 2, "{predicted}, at {fill} % in 4 s");
    world.clock.pass(3 * SECOND);
    assert_eq!(next(), None);
    cut(&world);
    world.clock.pass(10 * SECOND);
    assert_eq!(next(), Some(50 * SECOND));
    for block in 1..8 {
        world.acts(&[Write(A, block, 1)]);
    }
    world.acts(&[Flush(A)]);
    world.clock.pass(50 * SECOND);
    assert!(a.step_ladder().unwrap());
    assert_eq!(next(), None, "the line is down");
    a.set_copy_rate(BLOCK);
    world.meet();
    world.acts(&[Reflect(A), Checkpoint(A), Carry]);
    assert_eq!((a.status().mode, next()), (Mode::Sending, Some(5 * SECOND)));
    world.clock.pass(5 * SECOND);
    world.acts(&[Carry]);
    let left = a.status().differential.table_blocks;
    for left in (1..left).rev() {
        world.clock.pass(SECOND);
        world.acts(&[Carry]);
        let status = a.status();
        assert_eq!((status.mode, status.differential.table_blocks), (Mode::Copying, left));
        // A sample is of before the copies of its moment.
        let predicted = status.next_rung_in_ns.expect("they are sent");
        let least = left * SECOND / 2;
        assert!((least..=left * SECOND).contains(&predicted), "{predicted}, {left}");
    }
    world.clock.pass(SECOND);
    rest(&mut world);
    assert_eq!(a.status().mode, Mode::Ordered);
}

/// The rate of copies holds whatever the line takes, and is changed while they are sent.
#[test]
fn copies_keep_to_their_rate_which_may_change() {
    let settings = Settings { copy_bytes_per_second: BLOCK, ..Settings::default() };
    let mut world = World::with(4, settings);
    let a = world.device(A).clone();
    let left = || a.status().differential.table_blocks;
    world.acts(&[Write2(A, 0, 1), Write2(A, 2, 1), Write2(A, 4, 1), Write2(A, 6, 1), Flush(A)]);
    world.hold_ships(true);
    world.acts(&[Suspend(A)]);
    world.hold_ships(false);
    for left_then in [7, 6] {
        world.acts(&[Carry]);
        assert_eq!(left(), left_then);
        world.clock.pass(SECOND - 1);
        world.acts(&[Carry]);
        assert_eq!(left(), left_then);
        world.clock.pass(1);
    }
    // A time without copies is not made up for.
    world.clock.pass(100 * SECOND);
    world.acts(&[Carry]);
    assert_eq!(left(), 4);
    a.set_copy_rate(0);
    rest(&mut world);
    assert_eq!((a.status().mode, left()), (Mode::Ordered, 0));
}
