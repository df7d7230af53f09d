//! The literal holes of the specification's first embodiment, one scenario each, on a pair that is always in
//! differential mode: what the specification's letter loses holds. Where a clause of the rules is what holds
//! it, the scenario misses that clause (feature `weaken`).
#![cfg(not(loom))]

mod common;

use afterimage::internal::limits::Settings;
use afterimage::internal::link::Lane;
use afterimage::internal::request::{Op, Request};
use afterimage::internal::unit::Mode;
use common::crash::Cut;
use common::world::Act::*;
use common::world::{BLOCK, BLOCKS, World};
use common::{A, B};

/// Everything is copied: both volumes are the newest, and both devices say so.
fn rests(world: &mut World) {
    for _ in 0..4 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
    for at in [A, B] {
        let (status, newest) = (world.device(at).status(), world.images().last().copied());
        assert_eq!(Some(world.volume(at)), newest, "{at}");
        assert_eq!(status.mode, Mode::Sending, "{at}");
        let left = status.differential.table_blocks + status.differential.owed_blocks;
        assert_eq!((left, status.differential.is_consistent), (0, true), "{at}: {status:?}");
    }
}

/// Whether `world` has the newest of `block` where host `at` reads it. The other device reflects nothing
/// meanwhile.
fn reads(world: &World, at: usize, block: u64) {
    let read = Request::new(0, block * BLOCK, Op::Read(vec![0; BLOCK as usize]));
    let mut ticket = world.device(at).session().unwrap().submit(read).unwrap();
    for _ in 0..100 {
        if let Some(done) = ticket.poll() {
            let found = done.unwrap().buffer.unwrap()[0];
            assert_eq!(found, world.images().last().unwrap()[block as usize], "block {block}");
            return;
        }
        world.climb(world.device(at)).unwrap();
        world.device(1 - at).step_ladder().unwrap();
        for at in [A, B] {
            world.device(at).step_control().unwrap();
        }
    }
    panic!("the read waits for ever");
}

fn hold(world: &World, at: usize, lane: Lane, on: bool) {
    world.links[at].hold(lane, on);
}

/// E1: a block is written while its copy is under way; the acknowledgement of the copy clears no bit of the
/// newer write.
fn an_acknowledgement_clears_no_newer_bit() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    hold(&world, B, Lane::Control, true);
    world.acts(&[Carry]);
    assert_eq!((world.volume(B)[0], world.device(A).status().differential.flying_blocks), (1, 1));
    world.acts(&[Write(A, 0, 2), Flush(A)]);
    // Its bit is set before the acknowledgement comes.
    world.device(A).step_sequence();
    hold(&world, B, Lane::Control, false);
    rests(&mut world);
}

/// The table that is handed over has the block that is under way.
fn a_table_has_the_block_under_way() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    hold(&world, A, Lane::Data, true);
    world.acts(&[Carry]);
    assert_eq!(world.device(A).status().differential.flying_blocks, 1);
    world.acts(&[Takeover(B)]);
    reads(&world, B, 0);
    rests(&mut world);
}

/// E2: there is no data for a last data mark to ride on. The direction turns all the same.
fn the_direction_turns_though_nothing_is_owed() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1)]);
    rests(&mut world);
    world.acts(&[Takeover(B)]);
    assert!(world.device(B).status().differential.is_consistent);
    world.acts(&[Write(B, 1, 2)]);
    rests(&mut world);
}

/// E6: the last data, as it was when it was sent, arrives behind the table, which has the block once more.
fn the_last_data_passes_no_table() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    hold(&world, A, Lane::Data, true);
    world.acts(&[Carry, Write(A, 0, 2), Flush(A)]);
    world.device(B).begin_takeover().unwrap();
    while world.device(B).poll_takeover().is_none() {
        for at in [A, B] {
            world.device(at).step_control().unwrap();
        }
    }
    hold(&world, A, Lane::Data, false);
    world.device(B).step_receive().unwrap();
    assert_eq!(world.device(B).status().differential.owed_blocks, 1);
    reads(&world, B, 0);
    rests(&mut world);
}

/// E3: after a failback during the first processing the newest data lies where the other device has not
/// reflected it yet.
fn a_remote_read_finds_what_is_not_reflected() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A), Takeover(B), Write(B, 0, 2), Flush(B), Takeover(A)]);
    assert_eq!(world.volume(B)[0], 0);
    reads(&world, A, 0);
    rests(&mut world);
}

/// S904: an own write goes to N alone, and the running copy of the block does not go over it.
fn a_copy_goes_over_no_own_write() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A), Takeover(B), Write(B, 0, 2), Flush(B)]);
    reads(&world, B, 0);
    rests(&mut world);
}

/// E4: the newest of a block is here though its bit is cleared, because the other device has it, too.
fn a_block_without_a_bit_is_read_where_it_is() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Flush(A), Takeover(B), Write(B, 1, 2), Flush(B), Takeover(A)]);
    world.acts(&[Carry]);
    assert_eq!(world.device(B).status().differential.table_blocks, 0);
    world.acts(&[Write(A, 0, 3), Flush(A), Takeover(B)]);
    (0..2).for_each(|block| reads(&world, B, block));
    rests(&mut world);
}

/// E5: a fourth tenure, and more, of which none waits until anything is copied.
fn a_fourth_tenure_waits_for_nothing() {
    let mut world = World::differential();
    for tenure in 1..=6 {
        let at = usize::from(tenure % 2 == 0);
        if tenure > 1 {
            world.acts(&[Takeover(at)]);
        }
        (0..tenure).for_each(|block| world.acts(&[Write(at, block, 10 + tenure as u8)]));
        world.acts(&[Write(at, tenure, tenure as u8), Flush(at)]);
        (0..=tenure).for_each(|block| reads(&world, at, block));
    }
    rests(&mut world);
}

/// E7: a bit is durable when its record's place is free.
fn a_bit_is_durable_before_its_record_goes() {
    let mut world = World::differential();
    hold(&world, A, Lane::Data, true);
    world.acts(&[Write(A, 0, 1), Flush(A), Reflect(A), Checkpoint(A)]);
    assert_eq!(world.device(A).status().own_used_bytes, 0);
    world.vouch = true;
    world.crash(A, Cut::Synced);
    assert_eq!(world.rise().unwrap(), A);
    rests(&mut world);
}

/// Areas 413 and 414 would not keep one of two copies consistent. B keeps its own writes out of N here as with an
/// area, since it reflects nothing; N of each changes by copies only; and neither is a state of the history.
#[test]
fn an_area_would_keep_no_copy_consistent() {
    const X: u64 = 5;
    const Y: u64 = 0;
    const Z: u64 = 7;
    let one_at_a_time = Settings { copy_bytes_max: BLOCK, ..Settings::default() };
    let mut world = World::differential_with(one_at_a_time);
    hold(&world, A, Lane::Data, true);
    world.acts(&[Write(A, X, 1), Write(A, Y, 2), Flush(A), Carry, Reflect(A)]);
    // One copy arrives, and no acknowledgement until the takeover.
    hold(&world, B, Lane::Control, true);
    hold(&world, A, Lane::Data, false);
    world.acts(&[Carry]);
    hold(&world, B, Lane::Control, false);
    world.acts(&[Takeover(B), Write(B, Z, 3), Write(B, Y, 4), Flush(B), Takeover(A)]);
    hold(&world, A, Lane::Control, true);
    for _ in 0..3 {
        world.climb(world.device(A)).unwrap();
        world.device(B).step_ladder().unwrap();
        hold(&world, A, Lane::Control, false);
        for at in [A, B] {
            world.device(at).step_control().unwrap();
        }
        hold(&world, A, Lane::Control, true);
        world.device(B).step_ship().unwrap();
        world.device(A).step_receive().unwrap();
    }
    let has = |at: usize, blocks: &[(u64, u8)]| {
        let mut image = [0; BLOCKS as usize];
        blocks.iter().for_each(|&(block, value)| image[block as usize] = value);
        assert_eq!(world.volume(at), image, "{at}");
        assert!(!world.images().contains(&image), "{at} is a state of the history");
    };
    has(A, &[(X, 1), (Y, 4)]);
    has(B, &[(Y, 2)]);
    assert!(world.device(A).status().differential.no_consistent_copy);
    hold(&world, A, Lane::Control, false);
    rests(&mut world);
}

#[test]
fn every_literal_hole_is_closed() {
    an_acknowledgement_clears_no_newer_bit();
    a_table_has_the_block_under_way();
    the_direction_turns_though_nothing_is_owed();
    the_last_data_passes_no_table();
    a_remote_read_finds_what_is_not_reflected();
    a_copy_goes_over_no_own_write();
    a_block_without_a_bit_is_read_where_it_is();
    a_fourth_tenure_waits_for_nothing();
    a_bit_is_durable_before_its_record_goes();
}

/// The clause that closes a hole, switched off, opens it.
#[cfg(feature = "weaken")]
#[test]
fn each_hole_is_open_without_its_clause() {
    use afterimage::internal::weaken::{Clause, without};
    let holes: [(Clause, fn()); 6] = [
        (Clause::ClearAtSend, an_acknowledgement_clears_no_newer_bit),
        (Clause::Refly, a_table_has_the_block_under_way),
        (Clause::RoundCounts, the_last_data_passes_no_table),
        (Clause::NewestFirst, a_remote_read_finds_what_is_not_reflected),
        (Clause::OwnWriteOver, a_copy_goes_over_no_own_write),
        (Clause::BitsWithPlaces, a_bit_is_durable_before_its_record_goes),
    ];
    for (clause, scenario) in holes {
        without(Some(clause));
        let outcome = std::panic::catch_unwind(scenario);
        without(None);
        assert!(outcome.is_err(), "`{}` is not missed", clause.name());
    }
}
