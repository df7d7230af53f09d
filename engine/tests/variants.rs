//! The variants of the first embodiment around a takeover: the first request of the host begins it, or the word of
//! the device that held the host; a table is fetched after it.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::Lane;
use afterimage::internal::unit::Mode;
use common::crash::Cut;
use common::world::Act::*;
use common::world::{BLOCKS, World};
use common::{A, B};

fn world(takeover_at_first_request: bool) -> World {
    World::with(
        4,
        Settings { takeover_at_first_request, resume_order_after_ns: 0, ..Settings::default() },
    )
}

fn refused(world: &World, at: usize) -> Option<Kind> {
    world.device(at).session().err().map(|error| error.kind())
}

/// In ordered mode and out of it: the host asks again until it is served, and reads what was written there.
#[test]
fn the_first_request_takes_the_host_over() {
    for is_suspended in [false, true] {
        let mut world = world(true);
        world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Carry]);
        if is_suspended {
            world.acts(&[Suspend(A), Write(A, 2, 3), Flush(A)]);
        }
        assert_eq!(refused(&world, B), Some(Kind::NotReady));
        assert_eq!(refused(&world, B), Some(Kind::NotReady), "the request is under way");
        world.carry().unwrap();
        assert_eq!(refused(&world, B), None);
        world.reads(B);
        assert!(!world.device(A).status().serving);
        // The host comes back.
        assert_eq!(refused(&world, A), Some(Kind::NotReady));
        world.carry().unwrap();
        world.reads(A);
        for _ in 0..3 {
            world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
        }
        assert_eq!(world.device(A).status().mode, Mode::Ordered);
        assert!(world.device(A).status().serving, "nobody asks for the host any more");
    }
}

/// A host that came while the line was down, and went to the other device, is not followed there.
#[test]
fn a_request_is_forgotten_when_the_host_is_elsewhere() {
    let mut world = world(true);
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    world.links[A].cut();
    world.carry().unwrap();
    assert_eq!(refused(&world, B), Some(Kind::NotReady));
    world.carry().unwrap();
    assert!(world.device(A).status().serving);
    world.meet();
    world.acts(&[Carry, Write(A, 1, 2), Flush(A)]);
    assert!(world.device(A).status().serving);
}

#[test]
fn without_the_setting_a_host_is_sent_to_the_other_device() {
    let world = world(false);
    assert_eq!(refused(&world, B), Some(Kind::Fenced));
    world.carry().unwrap();
    assert!(world.device(A).status().serving);
}

/// A device whose host is gone offers it: the other serves before its host has come.
#[test]
fn a_host_that_is_gone_is_offered_to_the_other_device() {
    for is_suspended in [false, true] {
        let mut world = world(false);
        world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Carry]);
        if is_suspended {
            world.acts(&[Suspend(A), Write(A, 2, 3), Flush(A)]);
        }
        assert_eq!(world.device(B).offer_host().unwrap_err().kind(), Kind::Fenced);
        world.device(A).offer_host().unwrap();
        world.carry().unwrap();
        assert_eq!(refused(&world, A), Some(Kind::Fenced));
        world.reads(B);
        world.device(B).offer_host().unwrap();
        world.carry().unwrap();
        world.reads(A);
    }
}

/// An offer is a word, and no grant: one that nobody hears, or that is of a tenure that is over, moves nothing.
#[test]
fn an_offer_that_is_lost_or_late_moves_nothing() {
    let mut world = world(false);
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    world.links[A].hold(Lane::Control, true);
    world.device(A).offer_host().unwrap();
    world.links[A].cut();
    world.carry().unwrap();
    assert_eq!(world.device(A).offer_host().unwrap_err().kind(), Kind::NoPeer);
    world.meet();
    assert!(world.device(A).status().serving);
    world.acts(&[Write(A, 1, 2), Flush(A)]);

    // Two offers are one takeover.
    world.device(A).offer_host().unwrap();
    world.device(A).offer_host().unwrap();
    world.carry().unwrap();
    world.reads(B);
    let epoch = world.device(B).status().epoch;
    world.act(Takeover(A)).unwrap();
    world.carry().unwrap();
    assert!(world.device(A).status().serving);
    assert_eq!(world.device(A).status().epoch, epoch + 1);
}

/// A device that serves and has lost what it is owed fetches the other's table: until that is here every block
/// without a bit of its own is owed.
#[test]
fn a_table_is_fetched_by_a_device_that_serves() {
    let mut world = world(false);
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Suspend(A), Write(A, 2, 3)]);
    world.acts(&[Takeover(B), Write(B, 1, 4), Flush(B)]);
    world.crash(B, Cut::Kill);
    world.open(B).unwrap();
    let owed = |world: &World| world.device(B).status().differential.owed_blocks;
    assert_eq!(owed(&world), BLOCKS - 1);
    world.meet_briefly(4);
    assert!(world.device(B).status().serving);
    assert_eq!(owed(&world), BLOCKS - 1, "it serves before the table is here");
    world.reads(B);
    assert_eq!(owed(&world), 2);
}
