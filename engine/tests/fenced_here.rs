//! An operator fences a device: hosts are served nowhere, the tenure is kept, and resuming undoes it as long as nobody
//! has taken the host (R3, R13).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::event::Event;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::Lane;
use afterimage::{Device, Forced, Policy};
use common::crash::Cut;
use common::world::Act::*;
use common::world::World;
use common::{A, B};
use std::sync::{Arc, Mutex};

fn refused(world: &World, at: usize) -> Option<Kind> {
    world.device(at).session().err().map(|error| error.kind())
}

fn fenced(takeover_at_first_request: bool) -> World {
    let settings =
        Settings { takeover_at_first_request, resume_order_after_ns: 0, ..Settings::default() };
    let mut world = World::with(4, settings);
    world.acts(&[Write(A, 0, 1), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 1, 2), Write(A, 2, 3)]);
    world.device(A).fence_here().unwrap();
    // All that hosts were told is durable.
    world.promised = world.history.len();
    world.hold_ships(false);
    world
}

fn epochs(world: &World) -> [u64; 2] {
    [A, B].map(|at| world.device(at).status().epoch)
}

#[test]
fn hosts_are_served_nowhere_and_records_go_on() {
    let world = fenced(true);
    let session = world.device(A).session();
    assert_eq!(
        session.unwrap_err().kind(),
        Kind::Fenced,
        "and it does not ask for the host by that"
    );
    world.carry().unwrap();
    let [a, b] = [A, B].map(|at| world.device(at).status());
    assert_eq!((a.serving, a.fenced_here, b.serving, b.fenced_here), (false, true, false, false));
    assert_eq!((a.backlog_records, a.epoch, a.last_active), (0, 1, 1));
    assert!(world.device(A).offer_host().is_err());
    world.device(A).fence_here().unwrap();
    assert_eq!(world.device(B).fence_here().unwrap_err().kind(), Kind::Fenced);
    assert_eq!(world.device(B).unfence().unwrap_err().kind(), Kind::Fenced);
}

#[test]
fn a_session_of_before_writes_nothing_until_the_device_is_resumed() {
    let mut world = World::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    world.device(A).on_event(move |event| match event {
        Event::FencedHere { epoch, served } => tell.lock().unwrap().push((*epoch, *served)),
        Event::Ready { epoch, .. } => tell.lock().unwrap().push((*epoch, false)),
        _ => {}
    });
    let session = world.device(A).session().unwrap();
    session.write(0, 0, &[1; 512]).unwrap();
    world.device(A).fence_here().unwrap();
    assert_eq!(session.write(0, 0, &[2; 512]).unwrap_err().kind(), Kind::Fenced);
    assert_eq!(session.read(0, 0, &mut [0; 512]).unwrap_err().kind(), Kind::Fenced);
    world.device(A).unfence().unwrap();
    assert!(
        session.write(0, 0, &[2; 512]).is_err(),
        "the peer has yet to show that it was not forced"
    );
    world.meet();
    session.write(0, 0, &[3; 512]).unwrap();
    assert_eq!(*told.lock().unwrap(), [(1, true), (1, false)]);
}

/// Whatever the settings and the peer's hello say.
#[test]
fn a_fence_outlives_a_restart() {
    for cut in [Cut::Kill, Cut::Synced] {
        let mut world = fenced(true);
        for at in [A, B] {
            world.device(at).set_policy(Policy { prefer: true, resume_alone: true }).unwrap();
        }
        world.crash(A, cut);
        world.open(A).unwrap();
        let recovery = world.device(A).recovery();
        assert!(!recovery.lost_writes, "all was synced before");
        assert_eq!(refused(&world, A), Some(Kind::Fenced));
        world.meet();
        assert_eq!((refused(&world, A), epochs(&world)), (Some(Kind::Fenced), [1, 1]));
        assert!(world.device(A).status().fenced_here);
        world.device(A).unfence().unwrap();
        world.meet();
        assert_eq!((refused(&world, A), epochs(&world)), (None, [1, 1]));
        world.reads(A);
        world.acts(&[Write(A, 3, 4), Takeover(B)]);
        world.reads(B);
    }
}

#[test]
fn the_other_device_takes_over_as_ever_and_resuming_is_refused_then() {
    let mut world = fenced(false);
    world.act(Takeover(B)).unwrap();
    world.reads(B);
    assert_eq!(world.device(A).unfence().unwrap_err().kind(), Kind::Fenced);
    assert_eq!(world.device(A).resume_alone().unwrap_err().kind(), Kind::Fenced);
    assert!(!world.device(A).status().fenced_here, "it is fenced by its grant");
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    world.meet();
    assert_eq!(world.device(A).unfence().unwrap_err().kind(), Kind::Fenced);
    world.acts(&[Write(B, 4, 5), Takeover(A), Write(A, 5, 6)]);
    world.reads(A);
}

/// A grant that nobody has taken yet has gone out all the same.
#[test]
fn a_grant_that_is_lost_refuses_resuming() {
    let world = fenced(false);
    world.links[A].hold(Lane::Control, true);
    world.device(B).begin_takeover().unwrap();
    world.device(A).step_control().unwrap();
    assert!(world.device(A).status().awaits_taker);
    world.links[A].cut();
    world.carry().unwrap();
    assert!(!world.device(B).status().serving);
    assert_eq!(world.device(A).unfence().unwrap_err().kind(), Kind::Fenced);
}

#[test]
fn the_device_itself_takes_over_by_a_command_only() {
    let mut world = fenced(true);
    world.act(Takeover(A)).unwrap();
    assert!(!world.device(A).status().fenced_here);
    world.reads(A);
    // A command that a fence follows is over.
    world.device(A).fence_here().unwrap();
    world.device(A).begin_takeover().unwrap();
    world.device(A).fence_here().unwrap();
    world.carry().unwrap();
    world.meet();
    assert_eq!(refused(&world, A), Some(Kind::Fenced));
}

/// The line is silent, the other device is forced to take over, and this one does not know it.
#[test]
fn resuming_takes_a_hello_of_its_own() {
    let mut world = fenced(false);
    world.carry().unwrap();
    world.crash(B, Cut::Kill);
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    Device::force(disk, clock, world.settings.clone(), Forced::default()).unwrap();
    world.open(B).unwrap();
    world.reads(B);
    assert!(world.device(A).status().connected);
    world.device(A).unfence().unwrap();
    assert!(world.device(A).session().is_err(), "nothing has shown that the other does not serve");
    world.meet();
    assert_eq!(refused(&world, A), Some(Kind::Fenced));
    world.reads(B);
}

#[test]
fn without_the_other_device_an_operator_vouches() {
    let mut world = fenced(false);
    world.links[A].cut();
    world.carry().unwrap();
    assert_eq!(world.device(A).unfence().unwrap_err().kind(), Kind::NoPeer);
    assert!(world.device(A).status().fenced_here);
    world.device(A).resume_alone().unwrap();
    world.reads(A);
    world.acts(&[Write(A, 7, 8), Flush(A)]);
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    world.meet();
    world.reads(A);
}

/// Blocks that the other device owes are asked for anew.
#[test]
fn a_device_that_is_owed_something_asks_again() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 1, 2), Flush(A)]);
    world.takeover(B).unwrap();
    world.device(B).fence_here().unwrap();
    assert!(world.device(B).status().owed_blocks > 0);
    world.device(B).unfence().unwrap();
    let before = epochs(&world);
    world.meet();
    assert!(world.device(B).status().serving && epochs(&world)[B] == before[B] + 1);
    world.hold_ships(false);
    world.promised = world.history.len();
    world.reads(B);
}

/// In a round of differential mode, too.
#[test]
fn bits_go_on_behind_a_fence() {
    for takes in [A, B] {
        let mut world = World::new();
        world.acts(&[
            Write(A, 0, 1),
            Write(A, 1, 2),
            Flush(A),
            Carry,
            Suspend(A),
            Write(A, 2, 3),
            Flush(A),
        ]);
        world.device(A).fence_here().unwrap();
        world.crash(A, Cut::Kill);
        world.open(A).unwrap();
        world.meet();
        assert_eq!(refused(&world, A), Some(Kind::Fenced));
        match takes {
            A => {
                world.device(A).unfence().unwrap();
                world.meet();
            }
            _ => world.act(Takeover(B)).unwrap(),
        }
        world.reads(takes);
        world.acts(&[Write(takes, 3, 4), Flush(takes)]);
        world.rests();
    }
}
