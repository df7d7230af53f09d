//! S19: a device dies at any step that makes something durable – of host writes, flush, receive,
//! reflect, checkpoint, fence, takeover, close, opening – by a kill, or by a power cut that keeps
//! any part of what was not synced. Afterwards the pair goes on: everything flushed is there, at
//! most an unflushed tail of the history is gone, the volumes are prefixes of it, and at rest both
//! are the same.
#![cfg(not(loom))]

mod common;

use common::crash::Cut;
use common::random::Random;
use common::world::Act::{self, *};
use common::world::{BLOCKS, World};
use common::{A, B};

/// Both directions, with records pending at every takeover.
const SCRIPT: [Act; 35] = [
    Write(A, 0, 1),
    Write(A, 1, 2),
    Flush(A),
    Carry,
    Write2(A, 0, 3),
    Reflect(B),
    Write(A, 2, 4),
    Carry,
    Reflect(A),
    Checkpoint(A),
    Reflect(B),
    Checkpoint(B),
    Zero(A, 1),
    Write(A, 3, 5),
    Takeover(B),
    Write(B, 0, 6),
    Write2(B, 3, 7),
    Flush(B),
    Reflect(B),
    Carry,
    Write(B, 5, 8),
    Carry,
    Reflect(A),
    Reflect(B),
    Checkpoint(B),
    Checkpoint(A),
    Write(B, 6, 9),
    Takeover(A),
    Write(A, 6, 10),
    Carry,
    Write(A, 0, 11),
    Flush(A),
    Reflect(A),
    Close(A),
    Close(B),
];

/// Runs the script with a disk that dies in its `call`th call; `None`: it does not come so far.
fn die_in_script(prelude: u64, victim: usize, call: u64) -> Option<World> {
    let mut world = World::new();
    // So that logs wrap somewhere in the script.
    for n in 0..prelude {
        world.acts(&[Write(A, n % BLOCKS, 200 + n as u8), Flush(A), Carry, Reflect(A), Reflect(B)]);
        world.acts(&[Checkpoint(A), Checkpoint(B)]);
    }
    let begun = world.disks[victim].calls();
    world.disks[victim].die_at(begun + call);
    for act in SCRIPT {
        let outcome = world.act(act);
        if world.disks[victim].is_dead() {
            // Whatever completed before the end counts, and what the act did not report does not.
            return Some(world);
        }
        outcome.unwrap_or_else(|e| panic!("{act:?}: {e}"));
    }
    None
}

#[test]
fn a_death_at_every_step_loses_nothing_that_was_promised() {
    let mut deaths = 0;
    for victim in [A, B] {
        for call in 0.. {
            let seed = call * 31 + victim as u64;
            let cuts =
                [Cut::Kill, Cut::Synced, Cut::All, Cut::Sectors(seed), Cut::Writes(seed + 1)];
            let mut ended = false;
            for (k, cut) in cuts.into_iter().enumerate() {
                let Some(mut world) = die_in_script(call % 19, victim, call) else {
                    ended = true;
                    break;
                };
                world.vouch = k % 2 == 1;
                world.crash(victim, cut);
                let outcome = world.finale();
                outcome.unwrap_or_else(|e| panic!("{victim} in call {call}, {cut:?}: {e}"));
                deaths += 1;
            }
            if ended {
                break;
            }
        }
    }
    assert!(deaths > 300, "only {deaths} deaths");
}

#[test]
fn both_devices_die_again_and_again() {
    let mut deaths = 0;
    for seed in 0..250u64 {
        let mut random = Random::new(seed);
        let victim = random.within(0..2) as usize;
        let call = random.within(0..60);
        let Some(mut world) = die_in_script(random.within(0..19), victim, call) else { continue };
        let any = |random: &mut Random| match random.within(0..5) {
            0 => Cut::Kill,
            1 => Cut::Synced,
            2 => Cut::All,
            3 => Cut::Sectors(random.next()),
            _ => Cut::Writes(random.next()),
        };
        world.crash(victim, any(&mut random));
        if random.once_in(2) {
            // A power cut at both sites.
            world.crash(1 - victim, any(&mut random));
        }
        for round in 0.. {
            world.vouch = random.once_in(3);
            let next = random.within(0..2) as usize;
            if round < 4 {
                world.disks[next].die_at(world.disks[next].calls() + random.within(0..25));
            } else {
                world.disks.iter().for_each(|disk| disk.die_at(u64::MAX));
            }
            let outcome = world.finale();
            deaths += 1;
            match outcome {
                Ok(()) => break,
                Err(_) if world.disks[next].is_dead() => world.crash(next, any(&mut random)),
                Err(error) => panic!("seed {seed}, round {round}: {error}"),
            }
        }
    }
    assert!(deaths > 500, "only {deaths} deaths");
}
