//! A batch that one recovery cut off must stay away from the next, also where the log wraps.
#![cfg(not(loom))]

mod common;

use afterimage::internal::limits::Settings;
use afterimage::internal::storage::FileName;
use common::A;
use common::B;
use common::crash::Cut;
use common::world::Act::*;
use common::world::World;

/// A batch torn off the log's end by a power cut is cut. When the next one did not fit behind and
/// went to the beginning, the next recovery found the old one first, of the same number.
#[test]
fn a_batch_cut_before_the_end_does_not_rise_beside_one_at_the_beginning() {
    let mut world = World::with(8, Settings::default());
    // Up to where a batch of one record fits and one of many does not.
    let bytes = 8 * 36_864;
    let room = 3 * 8192;
    for n in 0..(bytes - room) / 8192 {
        world.acts(&[Write(A, n % 8, n as u8 + 1), Flush(A), Carry, Reflect(A), Checkpoint(A)]);
        world.acts(&[Reflect(B), Checkpoint(B), Carry, Checkpoint(A)]);
    }
    world.acts(&[Write(A, 0, 100), Flush(A)]);
    // Of this batch a part survives: its header, perhaps.
    world.acts(&[Write(A, 1, 101)]);
    world.disks[A].die_at(world.disks[A].calls() + 1);
    assert!(world.device(A).step_commit().is_err());
    world.crash(A, Cut::All);
    world.disks[A].rot(FileName::OwnLog, (bytes - room + 8192 + 4096) as usize, &[7]);
    world.history.pop();
    world.open(A).unwrap();
    world.meet();
    for n in 0..28 {
        world.acts(&[Write(A, n % 8, 150 + n as u8)]);
    }
    world.acts(&[Flush(A)]);
    world.crash(A, Cut::Synced);
    world.open(A).unwrap();
    world.meet();
    world.finale().unwrap();
}
