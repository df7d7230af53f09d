//! Forced takeover, the loss sheet, the return of the other device, and what is saved of the content that
//! was given up (D10).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::salvage;
use afterimage::internal::unit::Mode;
use afterimage::{Closed, Device, Image, LossSheet};
use common::crash::Cut;
use common::world::Act::*;
use common::world::World;
use common::{A, B};

/// The other device is gone, and this one is forced.
fn force(world: &mut World, at: usize, image: Image) -> LossSheet {
    world.try_force(at, image).unwrap()
}

fn numbers(lost: &[(afterimage::internal::unit::Extent, afterimage::Stamp)]) -> Vec<u64> {
    lost.iter().map(|(extent, _)| extent.first.number).collect()
}

/// Block and value of all that was saved at a device.
fn saved(world: &World, at: usize) -> Vec<(u64, u8)> {
    let disk = &*world.disks[at];
    let mut all = Vec::new();
    for file in salvage::list(disk).unwrap() {
        salvage::read(disk, file.number, |entry, data| {
            let value = data.first().copied().unwrap_or(0);
            all.extend((entry.block.number..).take(entry.count as usize).map(|n| (n, value)));
            Ok(())
        })
        .unwrap();
    }
    all
}

fn rests(world: &mut World) {
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
    for at in [A, B] {
        let status = world.device(at).status();
        assert_eq!(status.mode, Mode::Ordered, "{at}: {status:?}");
        assert!(status.differential.is_consistent, "{at}: {status:?}");
        assert_eq!(Some(&world.volume(at)), world.images().last(), "{at}");
    }
}

fn reads(world: &World, at: usize) {
    let session = world.device(at).session().unwrap();
    assert_eq!(Some(&world.read_all(&session).unwrap()), world.images().last());
}

/// A's records 3 and 4 were told, and never shipped; record 5 was not even told.
fn parted() -> (World, LossSheet) {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 3), Write(A, 2, 4), Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.acts(&[Write(A, 5, 5), Flush(A)]);
    world.crash(A, Cut::Kill);
    world.history.truncate(2);
    let sheet = force(&mut world, B, Image::Consistent);
    (world, sheet)
}

#[test]
fn what_was_told_and_not_received_is_on_the_sheet() {
    let (mut world, sheet) = parted();
    assert_eq!((numbers(&sheet.told), sheet.given_up.len()), (vec![0, 2], 0));
    assert_eq!(sheet.others_after, Some(sheet.told[1].1.time));
    let device = world.device(B);
    assert_eq!(device.status().lost_writes.unwrap().first, sheet.told[0].1);
    assert_eq!(device.session().unwrap_err().kind(), Kind::LostWrites);
    device.accept_loss().unwrap();
    reads(&world, B);
    world.acts(&[Write(B, 1, 6), Write(B, 6, 7), Flush(B)]);
    world.open(A).unwrap();
    world.meet_apart();
    let returned = world.device(A).status();
    assert!(!returned.serving && !returned.differential.is_consistent);
    reads(&world, B);
    rests(&mut world);
    assert_eq!(world.device(A).session().unwrap_err().kind(), Kind::Fenced);
    let mut lost = saved(&world, A);
    lost.sort_unstable();
    assert_eq!(lost, [(0, 3), (2, 4), (5, 5)]);
    assert_eq!(saved(&world, B), []);
    world.acts(&[Write(B, 0, 9), Takeover(A)]);
    reads(&world, A);
    rests(&mut world);
}

/// The returned device asks for the host before a block was copied.
#[test]
fn a_returned_device_may_take_over_at_once() {
    let (mut world, _) = parted();
    world.device(B).accept_loss().unwrap();
    world.acts(&[Write(B, 1, 6), Flush(B)]);
    world.open(A).unwrap();
    world.hold_ships(true);
    world.meet();
    world.acts(&[Takeover(A)]);
    reads(&world, A);
    world.acts(&[Write(A, 2, 8), Flush(A)]);
    reads(&world, A);
    rests(&mut world);
    let mut lost = saved(&world, A);
    lost.sort_unstable();
    assert_eq!(lost, [(0, 3), (2, 4), (5, 5)]);
}

/// Of an own record that waits for one of the lost device, each image says what becomes of it.
#[test]
fn own_records_beyond_what_is_missing_are_given_up() {
    for image in [Image::Consistent, Image::Newest] {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
        world.hold_ships(true);
        world.acts(&[Write(A, 1, 2), Flush(A), Takeover(B)]);
        world.hold_ships(true);
        world.acts(&[Write(B, 3, 3), Write(B, 3, 4), Flush(B)]);
        world.device(B).close().unwrap();
        world.crash(A, Cut::Kill);
        let gives_up = image == Image::Consistent;
        match gives_up {
            true => world.history.truncate(1),
            false => drop(world.history.remove(1)),
        }
        let sheet = force(&mut world, B, image);
        assert_eq!(numbers(&sheet.told), [1]);
        assert_eq!(numbers(&sheet.given_up), if gives_up { vec![3, 3] } else { vec![] });
        world.device(B).accept_loss().unwrap();
        reads(&world, B);
        let kept = saved(&world, B);
        assert_eq!(kept, if gives_up { vec![(3, 3), (3, 4)] } else { vec![] });
        world.acts(&[Write(B, 4, 5), Flush(B)]);
        world.crash(B, Cut::Synced);
        world.open(B).unwrap();
        world.device(B).resume_alone().unwrap();
        reads(&world, B);
        world.open(A).unwrap();
        world.meet();
        rests(&mut world);
        assert_eq!(saved(&world, A), [(1, 2)]);
        world.acts(&[Takeover(A)]);
        reads(&world, A);
    }
}

/// An operator forces one device while the other goes on: neither discards anything until one is chosen.
#[test]
fn two_branches_wait_for_a_word() {
    for kept in [A, B] {
        let mut world = World::new();
        world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(A), Close(B)]);
        world.open(A).unwrap();
        world.device(A).resume_alone().unwrap();
        world.acts(&[Write(A, 1, 2), Flush(A)]);
        let of_a = world.history.clone();
        world.history.truncate(1);
        let alone = world.devices[A].take();
        force(&mut world, B, Image::Consistent);
        world.devices[A] = alone;
        world.device(B).accept_loss().unwrap();
        world.acts(&[Write(B, 2, 3), Flush(B)]);
        for _ in 0..2 {
            world.meet_apart();
            let connected = [A, B].map(|at| world.device(at).status().connected);
            assert_eq!(connected, [false; 2]);
        }
        let lost = if kept == A { (2, 3) } else { (1, 2) };
        if kept == A {
            world.history = of_a;
        }
        world.device(kept).close().unwrap();
        world.devices[kept] = None;
        let (disk, clock) = (world.disks[kept].clone(), world.clock.clone());
        let branch = Closed::resolve(disk, clock, world.settings.clone()).unwrap();
        assert_eq!(branch.device, 2 - kept as u64);
        world.open(kept).unwrap();
        reads(&world, kept);
        world.meet();
        rests(&mut world);
        assert_eq!(saved(&world, 1 - kept), [lost]);
        world.acts(&[Takeover(1 - kept)]);
        reads(&world, 1 - kept);
    }
}

/// A device that needs no force is not forced, and nothing is changed.
#[test]
fn a_device_that_lacks_nothing_is_resumed() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(A), Close(B)]);
    let refused = world.try_force(A, Image::Newest).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    world.open(A).unwrap();
    world.open(B).unwrap();
    world.meet();
    let met = Device::loss_sheet(world.device(B), Image::Consistent).unwrap_err();
    assert_eq!(met.kind(), Kind::Invalid);
    rests(&mut world);
}

/// A new device in the place of one that is lost: it has nothing, and gets every block.
#[test]
fn a_lost_device_is_replaced() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 5, 2), Flush(A), Carry, Close(A), Close(B)]);
    let (disk, clock) = (world.disks[A].clone(), world.clock.clone());
    let forgotten = Closed::forget_peer(disk, clock, world.settings.clone()).unwrap();
    assert_eq!(forgotten, 2);
    let old = world.disks[B].clone();
    world.make_anew(B, 3);
    world.open(A).unwrap();
    world.acts(&[Write(A, 1, 3), Flush(A)]);
    world.open(B).unwrap();
    world.meet();
    rests(&mut world);
    world.acts(&[Write(A, 2, 4), Takeover(B)]);
    reads(&world, B);
    rests(&mut world);
    world.acts(&[Takeover(A), Close(B)]);
    world.disks[B] = old;
    world.open(B).unwrap();
    world.meet_apart();
    assert!(!world.device(A).status().connected, "the forgotten device is refused");
    reads(&world, A);
}

/// R10: the device that lost durable records gets every block, and is not refused for ever.
#[test]
fn a_device_that_lost_its_records_is_a_target() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Write(A, 5, 2), Flush(A), Carry, Close(B)]);
    world.make_anew(B, 2);
    world.open(B).unwrap();
    for _ in 0..3 {
        world.meet();
    }
    rests(&mut world);
    world.acts(&[Write(A, 2, 4), Takeover(B)]);
    reads(&world, B);
}
