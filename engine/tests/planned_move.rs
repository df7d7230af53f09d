//! A planned move while the line is down: a request and a grant as two files, by way of the hosts.

mod common;

use afterimage::internal::error::{Kind, Result};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, memory_link};
use afterimage::internal::unit::Mode;
use common::crash::Cut;
use common::random::Random;
use common::world::Act::*;
use common::world::{BLOCK, World};
use common::{A, B};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn part(world: &World) {
    world.links[A].cut();
    world.carry().unwrap();
    assert!([A, B].iter().all(|&at| !world.device(at).status().connected));
}

fn move_host(world: &World, from: usize, to: usize) -> u64 {
    let request = world.device(to).request_by_file().unwrap();
    let grant = world.device(from).grant_by_file(&request).unwrap();
    assert_eq!(kind(world.device(from).session()), Some(Kind::Fenced), "before the grant is taken");
    world.device(to).take_grant(&grant).unwrap().owed_blocks
}

fn kind<T>(outcome: Result<T>) -> Option<Kind> {
    outcome.err().map(|error| error.kind())
}

/// Both hold the same once they have met, in the mode that they began in.
fn rest(world: &mut World, serving: usize) {
    world.meet();
    world.reads(serving);
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
    for at in [A, B] {
        assert_eq!(world.device(at).status().mode, Mode::Ordered);
        assert_eq!(Some(&world.volume(at)), world.images().last(), "{at}");
    }
}

/// Out of ordered mode by a prototype, out of a suspension by a table; and back before the two have met.
#[test]
fn a_host_moves_while_the_line_is_down() {
    for is_suspended in [false, true] {
        for is_back in [false, true] {
            let mut world = World::new();
            world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Carry]);
            part(&world);
            world.acts(&[Write(A, 2, 3), Write(A, 3, 4), Flush(A)]);
            if is_suspended {
                world.acts(&[Suspend(A), Write(A, 3, 5), Flush(A)]);
            }
            assert_eq!(move_host(&world, A, B), 2);
            world.acts(&[Write(B, 3, 6), Write(B, 4, 7), Flush(B)]);
            let session = world.device(B).session().unwrap();
            let mut found = [0; BLOCK as usize];
            session.read(0, BLOCK, &mut found).unwrap();
            assert_eq!(found[0], 2);
            let mut serving = B;
            if is_back {
                move_host(&world, B, A);
                world.acts(&[Write(A, 4, 8), Flush(A)]);
                serving = A;
            }
            rest(&mut world, serving);
            world.acts(&[Takeover(1 - serving)]);
            world.reads(1 - serving);
        }
    }
}

/// Bits whose announcement went down with the line are granted.
#[test]
fn a_grant_counts_on_no_announcement_that_was_lost() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Suspend(A), Takeover(B)]);
    world.hold_ships(true);
    world.acts(&[Write(B, 1, 2), Flush(B), Carry]);
    world.links[B].hold(Lane::Control, true);
    world.acts(&[Write(B, 2, 3), Flush(B), Carry]);
    part(&world);
    assert_eq!(world.device(A).told_and_missing().0.len(), 1);
    assert_eq!(move_host(&world, B, A), 2);
    rest(&mut world, A);
}

/// The device that gave the host up is fenced durably before anybody has the grant; one that is lost with the
/// device that asked is made once more.
#[test]
fn a_grant_outlives_either_device() {
    for is_taken in [false, true] {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1), Carry]);
        part(&world);
        world.acts(&[Suspend(A), Write(A, 1, 2), Flush(A)]);
        let request = world.device(B).request_by_file().unwrap();
        let grant = world.device(A).grant_by_file(&request).unwrap();
        world.crash(A, Cut::Synced);
        world.open(A).unwrap();
        assert_eq!(kind(world.device(A).session()), Some(Kind::Fenced));
        if !is_taken {
            world.crash(B, Cut::Synced);
            world.open(B).unwrap();
            assert_eq!(kind(world.device(B).take_grant(&grant)), Some(Kind::Invalid));
            move_host(&world, A, B);
        } else {
            world.device(B).take_grant(&grant).unwrap();
        }
        world.acts(&[Write(B, 2, 3), Flush(B)]);
        rest(&mut world, B);
    }
}

/// A grant answers the last request, once, and while no connection has come in between (D4).
#[test]
fn a_grant_answers_one_request() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry]);
    for at in [A, B] {
        assert_eq!(kind(world.device(at).request_by_file()), Some(Kind::Invalid), "the line is up");
    }
    part(&world);
    let first = world.device(B).request_by_file().unwrap();
    let second = world.device(B).request_by_file().unwrap();
    let of_first = world.device(A).grant_by_file(&first).unwrap();
    assert_eq!(kind(world.device(B).take_grant(&of_first)), Some(Kind::Invalid));
    assert!(!world.device(B).status().serving);
    let of_second = world.device(A).grant_by_file(&second).unwrap();
    world.device(B).take_grant(&of_second).unwrap();
    assert_eq!(kind(world.device(B).take_grant(&of_second)), Some(Kind::Invalid));
    world.acts(&[Write(B, 1, 2), Flush(B)]);

    rest(&mut world, B);
    world.acts(&[Takeover(A), Carry]);

    // Both are fenced when they meet, and A, which prefers to, takes the host by the line.
    part(&world);
    let request = world.device(B).request_by_file().unwrap();
    let grant = world.device(A).grant_by_file(&request).unwrap();
    world.meet();
    assert!(world.device(A).status().serving);
    world.acts(&[Write(A, 2, 3), Flush(A)]);
    part(&world);
    assert_eq!(kind(world.device(B).take_grant(&grant)), Some(Kind::Invalid), "they have met");
    assert!(!world.device(B).status().serving);
    rest(&mut world, A);
}

/// A takeover that finds no connection leaves a request in a file as it is; one that the line is to carry ends as
/// the grant in the file is taken; and nothing is taken while a line comes up.
#[test]
fn a_takeover_without_a_line_leaves_the_file_as_it_is() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry]);
    part(&world);
    let request = world.device(B).request_by_file().unwrap();
    assert_eq!(kind(world.device(B).begin_takeover()), Some(Kind::NoPeer));
    let grant = world.device(A).grant_by_file(&request).unwrap();
    assert_eq!(kind(world.device(B).takeover()), Some(Kind::NoPeer));

    // The line comes up, nobody answers, and a takeover waits for the hello.
    let (end, other) = memory_link(Line::default(), world.clock.clone());
    world.device(B).connect(Arc::new(end)).unwrap();
    world.device(B).begin_takeover().unwrap();
    assert_eq!(kind(world.device(B).take_grant(&grant)), Some(Kind::Invalid), "the line comes up");
    assert_eq!(kind(world.device(B).request_by_file()), Some(Kind::Invalid), "the line comes up");
    other.cut();
    world.carry().unwrap();
    assert_eq!(kind(world.device(B).request_by_file()), Some(Kind::NotReady), "a takeover is open");
    let taken = world.device(B).take_grant(&grant).unwrap();
    assert_eq!(world.device(B).status().epoch, taken.epoch);
    assert!(world.device(B).poll_takeover().is_none(), "the outcome was told once");
    assert_eq!(kind(world.device(B).begin_takeover()), Some(Kind::Invalid), "it serves");
    world.acts(&[Write(B, 1, 2), Flush(B)]);
    rest(&mut world, B);

    // They have met: the request is void, and says so.
    part(&world);
    let request = world.device(A).request_by_file().unwrap();
    let grant = world.device(B).grant_by_file(&request).unwrap();
    world.meet_briefly(4);
    part(&world);
    let refused = world.device(A).take_grant(&grant).unwrap_err().to_string();
    assert!(refused.contains("have been connected since"), "{refused}");
}

/// Another caller that asks, finds no line and withdraws does not take the file's request away.
#[test]
fn a_grant_is_taken_beside_a_takeover_that_finds_no_line() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry]);
    part(&world);
    for round in 0..200 {
        let (from, to) = [(A, B), (B, A)][round % 2];
        let request = world.device(to).request_by_file().unwrap();
        let grant = world.device(from).grant_by_file(&request).unwrap();
        let (device, is_taken) = (world.device(to).clone(), AtomicBool::new(false));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !is_taken.load(Relaxed) {
                    let _ = device.begin_takeover();
                    let _ = device.poll_takeover();
                }
            });
            let taken = device.take_grant(&grant);
            is_taken.store(true, Relaxed);
            taken.unwrap();
        });
    }
    rest(&mut world, A);
}

/// A request that is granted twice is granted two tenures, and the pair goes on whichever of them is taken.
#[test]
fn a_request_that_is_granted_twice() {
    for is_suspended in [false, true] {
        for taken in [0, 1] {
            let mut world = World::new();
            world.acts(&[Write(A, 0, 1), Carry]);
            part(&world);
            world.acts(&[Write(A, 1, 2), Flush(A)]);
            if is_suspended {
                world.acts(&[Suspend(A), Write(A, 2, 3), Flush(A)]);
            }
            let request = world.device(B).request_by_file().unwrap();
            let grants = [(); 2].map(|()| world.device(A).grant_by_file(&request).unwrap());
            let epoch = world.device(B).take_grant(&grants[taken]).unwrap().epoch;
            assert_eq!(world.device(A).status().epoch - epoch, 1 - taken as u64);
            world.acts(&[Write(B, 3, 4), Flush(B)]);
            rest(&mut world, B);
        }
    }
}

/// A file that does not fit is refused, and the device that serves goes on.
#[test]
fn a_file_that_does_not_fit_changes_nothing() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Carry]);
    part(&world);
    let old = world.device(B).request_by_file().unwrap();
    world.meet();
    world.acts(&[Write(A, 1, 2), Carry]);
    assert_eq!(kind(world.device(A).grant_by_file(&old)), Some(Kind::Invalid), "the line is up");
    part(&world);
    let refused = world.device(A).grant_by_file(&old).unwrap_err();
    assert_eq!(refused.kind(), Kind::Protocol);
    assert!(refused.to_string().contains("it is an old one"), "{refused}");

    let mut other = World::new();
    other.make_anew(B, 9);
    other.devices = [None, None];
    other.open(B).unwrap();
    let of_another = other.device(B).request_by_file().unwrap();
    let refused = world.device(A).grant_by_file(&of_another).unwrap_err();
    assert!(refused.to_string().contains("device 9"), "{refused}");

    let request = world.device(B).request_by_file().unwrap();
    for at in 0..request.len() {
        let mut damaged = request.clone();
        damaged[at] ^= 0x10;
        assert!(world.device(A).grant_by_file(&damaged).is_err(), "byte {at}");
    }
    assert_eq!(kind(world.device(B).take_grant(&request)), Some(Kind::Invalid), "the other file");
    assert_eq!(kind(world.device(B).grant_by_file(&request)), Some(Kind::Protocol), "its own");
    assert_eq!(kind(world.device(A).request_by_file()), Some(Kind::Invalid), "it serves");
    world.acts(&[Write(A, 2, 3), Flush(A)]);
    let grant = world.device(A).grant_by_file(&request).unwrap();
    world.device(B).take_grant(&grant).unwrap();
    rest(&mut world, B);
}

/// Moves by file and by line, in any mode, with the death of the device that is fenced between any two of their
/// steps: nothing is lost, and no read is stale.
#[test]
fn random_moves() {
    let seeds = std::env::var("MOVE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| walk(seed));
        outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

fn walk(seed: u64) {
    let mut random = Random::new(seed);
    let settings = Settings { resume_order_after_ns: 0, ..Settings::default() };
    let mut world = World::with(8, settings);
    let (mut serving, mut is_up) = (A, true);
    for step in 0..60u64 {
        let (block, value) = (random.within(0..7), (step + 1) as u8);
        if world.device(serving).status().own_free_places < 4 {
            world.meet();
            for _ in 0..3 {
                world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
            }
            is_up = true;
        }
        match random.within(0..20) {
            0..=6 => world.acts(&[Write(serving, block, value)]),
            7 => world.acts(&[Flush(serving)]),
            8 | 9 if is_up => world.acts(&[Carry]),
            10 if world.device(serving).status().mode == Mode::Ordered => {
                world.acts(&[Suspend(serving)]);
            }
            11 => world.acts(&[Reflect(random.within(0..2) as usize)]),
            12 => world.acts(&[Checkpoint(random.within(0..2) as usize)]),
            13 if is_up => {
                part(&world);
                is_up = false;
            }
            14 => {
                world.meet();
                is_up = true;
                world.reads(serving);
            }
            15 if is_up => {
                serving = 1 - serving;
                world.acts(&[Takeover(serving)]);
            }
            16..=19 if !is_up => {
                move_by_file(&mut world, &mut random, serving);
                serving = 1 - serving;
            }
            _ => {}
        }
        world.alive().unwrap();
    }
    rest(&mut world, serving);
}

fn move_by_file(world: &mut World, random: &mut Random, from: usize) {
    let to = 1 - from;
    let cut = random.pick(&[Cut::Kill, Cut::Synced, Cut::All]);
    let dies = random.within(0..5);
    if dies == 0 {
        world.crash(to, cut);
        world.open(to).unwrap();
    }
    let request = world.device(to).request_by_file().unwrap();
    let grant = world.device(from).grant_by_file(&request).unwrap();
    world.promised = world.history.len();
    if dies == 1 {
        world.crash(from, cut);
        world.open(from).unwrap();
    }
    if dies == 2 {
        world.crash(to, cut);
        world.open(to).unwrap();
        assert_eq!(kind(world.device(to).take_grant(&grant)), Some(Kind::Invalid));
        move_host(world, from, to);
    } else {
        world.device(to).take_grant(&grant).unwrap();
    }
    if dies == 3 {
        world.crash(from, cut);
        world.open(from).unwrap();
    }
}
