//! When a device takes the rungs of the ladder by itself, both ways, by a clock that moves when told to.
#![cfg(not(loom))]

mod common;

use afterimage::internal::limits::Settings;
use afterimage::internal::link::Link;
use afterimage::{Event, Mode};
use common::world::Act::*;
use common::world::World;
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
    assert_eq!(a.next_deadline(), None);
    world.meet();
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
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
