//! Forced takeover, the loss sheet, the return of the other device, and what is saved of the content that
//! was given up (D10).

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::unit::Mode;
use afterimage::{Closed, Device, FileName, Image, LossSheet, Storage};
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
    world.reads(B);
    world.acts(&[Write(B, 1, 6), Write(B, 6, 7), Flush(B)]);
    world.open(A).unwrap();
    world.meet_apart();
    let returned = world.device(A).status();
    assert!(!returned.serving && !returned.differential.is_consistent);
    world.reads(B);
    world.rests();
    assert_eq!(world.device(A).session().unwrap_err().kind(), Kind::Fenced);
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
    assert_eq!(world.saved(B), []);
    world.acts(&[Write(B, 0, 9), Takeover(A)]);
    world.reads(A);
    world.rests();
}

/// Nothing has come of the tenure that is lost: no time says which of its writes are.
#[test]
fn of_a_tenure_that_nothing_came_of_nothing_is_said() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Takeover(B)]);
    world.hold_ships(true);
    world.acts(&[Write(B, 0, 2), Flush(B)]);
    world.device(A).close().unwrap();
    world.crash(B, Cut::Kill);
    let sheet = force(&mut world, A, Image::Consistent);
    assert_eq!((sheet.told.len(), sheet.others_after), (0, None));
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
    world.reads(A);
    world.acts(&[Write(A, 2, 8), Flush(A)]);
    world.reads(A);
    world.rests();
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
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
        world.reads(B);
        let kept = world.saved(B);
        assert_eq!(kept, if gives_up { vec![(3, 3), (3, 4)] } else { vec![] });
        world.acts(&[Write(B, 4, 5), Flush(B)]);
        world.crash(B, Cut::Synced);
        world.open(B).unwrap();
        world.device(B).resume_alone().unwrap();
        world.reads(B);
        world.open(A).unwrap();
        world.meet();
        world.rests();
        assert_eq!(world.saved(A), [(1, 2)]);
        world.acts(&[Takeover(A)]);
        world.reads(A);
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
        world.reads(kept);
        world.meet();
        world.rests();
        assert_eq!(world.saved(1 - kept), [lost]);
        world.acts(&[Takeover(1 - kept)]);
        world.reads(1 - kept);
    }
}

/// Each of two branches says which blocks it has that the other may not have, and, in order, since when.
#[test]
fn a_branch_says_what_it_has() {
    let mut world = World::new();
    world.clock.set_wall(1_000);
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    let at_rest = world.device(B).branch().unwrap();
    assert_eq!((at_rest.blocks, at_rest.bytes, at_rest.oldest), (vec![], 0, None));
    world.acts(&[Close(A), Close(B)]);
    world.open(A).unwrap();
    world.device(A).resume_alone().unwrap();
    for (wall, block) in [(5_000, 1), (6_000, 2), (7_000, 5)] {
        world.clock.set_wall(wall);
        world.acts(&[Write(A, block, 2), Flush(A)]);
    }
    world.acts(&[Reflect(A), Checkpoint(A)]);
    let branch = world.device(A).branch().unwrap();
    let runs: Vec<_> = branch.blocks.iter().map(|run| run.numbers.clone()).collect();
    assert_eq!((branch.device, runs, branch.bytes), (1, vec![1..3, 5..6], 1536));
    assert_eq!((branch.first_at(), branch.last_at()), (Some(5_000), Some(7_000)));
    // Bits tell of these.
    world.history.truncate(1);
    force(&mut world, B, Image::Consistent);
    world.device(B).accept_loss().unwrap();
    world.clock.set_wall(9_000);
    world.acts(&[Write(B, 6, 3), Flush(B)]);
    let branch = world.device(B).branch().unwrap();
    assert_eq!((branch.bytes, branch.oldest.unwrap().time), (512, 9_000));
    assert_eq!((branch.first_at(), branch.last_at()), (None, Some(9_000)));
    world.acts(&[Reflect(B), Checkpoint(B)]);
    let branch = world.device(B).branch().unwrap();
    assert_eq!((branch.bytes, branch.oldest, branch.last_at()), (512, None, Some(9_000)));
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
    world.rests();
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
    world.rests();
    world.acts(&[Write(A, 2, 4), Takeover(B)]);
    world.reads(B);
    world.rests();
    world.acts(&[Takeover(A), Close(B)]);
    world.disks[B] = old;
    world.open(B).unwrap();
    world.meet_apart();
    assert!(!world.device(A).status().connected, "the forgotten device is refused");
    world.reads(A);
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
    world.rests();
    world.acts(&[Write(A, 2, 4), Takeover(B)]);
    world.reads(B);
}

/// R10 of a pair that is always in differential mode, level: no mark of a record tells.
#[test]
fn a_device_that_lost_its_round_is_a_target() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Write(A, 5, 2), Flush(A)]);
    world.goes_on();
    assert_eq!(world.volume(B), world.volume(A));
    world.acts(&[Close(B)]);
    world.make_anew(B, 2);
    world.open(B).unwrap();
    for _ in 0..3 {
        world.meet();
    }
    world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    assert_eq!(world.volume(B), world.volume(A));
    world.acts(&[Takeover(B)]);
    world.reads(B);
}

/// R10: the device that held the host is restored from a backup of before the rounds that the other is in. No
/// stamp tells: copies have none. It serves nobody; the other is forced, and every block is copied to it.
#[test]
fn a_device_that_lost_rounds_of_its_tenure_serves_nobody() {
    let mut world = World::differential();
    world.acts(&[Write(A, 0, 1), Takeover(B)]);
    world.hold_ships(true);
    world.acts(&[Write(B, 1, 2), Flush(B), Takeover(A)]);
    assert_eq!(world.device(A).status().mode, Mode::Collecting);
    world.acts(&[Close(A)]);
    let backup = world.disks[A].copy();
    world.open(A).unwrap();
    world.meet();
    world.acts(&[Write(A, 3, 3), Flush(A)]);
    world.goes_on();
    assert_eq!(world.device(A).status().mode, Mode::Sending);
    assert_eq!(world.volume(B), world.volume(A));
    world.acts(&[Close(A)]);
    world.disks[A] = backup;
    world.open(A).unwrap();
    world.meet_apart();
    assert_eq!(world.device(A).session().unwrap_err().kind(), Kind::Damaged);
    assert!(!world.device(A).status().serving && world.device(A).status().lost.is_some());

    world.device(B).close().unwrap();
    force(&mut world, B, Image::Consistent);
    world.device(B).accept_loss().unwrap();
    world.open(A).unwrap();
    world.meet();
    world.goes_on();
    assert_eq!(world.volume(A), world.volume(B));
    world.acts(&[Takeover(A)]);
    world.reads(A);
}

/// Histories have parted, and A's was kept.
fn resolved() -> World {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(A), Close(B)]);
    world.open(A).unwrap();
    world.device(A).resume_alone().unwrap();
    world.acts(&[Write(A, 1, 2), Flush(A)]);
    let of_a = world.history.clone();
    world.history.truncate(1);
    let alone = world.devices[A].take();
    world.try_force(B, Image::Consistent).unwrap();
    world.devices[A] = alone;
    world.device(B).accept_loss().unwrap();
    world.acts(&[Write(B, 2, 3), Flush(B)]);
    world.meet_apart();
    world.meet_apart();
    world.history = of_a;
    world.device(A).close().unwrap();
    world.devices[A] = None;
    let (disk, clock) = (world.disks[A].clone(), world.clock.clone());
    Closed::resolve(disk, clock, world.settings.clone()).unwrap();
    world.open(A).unwrap();
    world.meet();
    world
}

/// A has returned, and has taken the host over before anything was copied; nothing is shipped.
fn returned_and_active() -> World {
    let (mut world, _) = parted();
    world.device(B).accept_loss().unwrap();
    world.open(A).unwrap();
    world.hold_ships(true);
    takes_over_at_once(&mut world);
    world
}

/// A meets B, and asks for the host before anything was copied.
fn takes_over_at_once(world: &mut World) {
    world.meet_briefly(4);
    world.device(A).begin_takeover().unwrap();
    for _ in 0..20 {
        world.device(A).step_control().unwrap();
        world.device(B).step_control().unwrap();
    }
    world.device(A).poll_takeover().unwrap().unwrap();
}

/// A record of the old history and one of the new, of one block, are both to be reflected, before the peer's
/// checksums of what differs come, or after them.
#[test]
fn what_a_returned_device_had_not_reflected_is_saved() {
    [true, false].into_iter().for_each(saves_what_it_had);
}

fn saves_what_it_had(reflects_first: bool) {
    let mut world = returned_and_active();
    world.hold_ships(true);
    world.carry().unwrap();
    world.acts(&[Write(A, 2, 8), Write(A, 0, 9), Flush(A)]);
    world.device(A).step_sequence();
    while reflects_first && world.device(A).step_reflect().unwrap() > 0 {}
    world.hold_ships(false);
    assert!(world.device(A).step_receive().unwrap() > 0);
    world.carry().unwrap();
    world.goes_on();
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
}

/// Salvage has no room: a resync stops before it overwrites anything; records go on. Both are said.
#[test]
fn that_salvage_has_no_room_is_said() {
    for of_records in [true, false] {
        let (mut world, _) = parted();
        world.device(B).accept_loss().unwrap();
        world.settings.salvage_bytes_max = 1;
        world.open(A).unwrap();
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = told.clone();
        world.device(A).on_event(move |event| {
            if let afterimage::Event::SalvageFull(why) = event {
                tell.lock().unwrap().push(why.to_string());
            }
        });
        world.hold_ships(of_records);
        if of_records {
            takes_over_at_once(&mut world);
            world.acts(&[Write(A, 2, 8), Write(A, 0, 9), Flush(A)]);
            while world.device(A).step_reflect().unwrap() > 0 {}
        } else {
            world.meet();
            let session = world.device(B).session().unwrap();
            session.write(0, 7 * 512, &[7; 512]).unwrap();
            session.flush().unwrap();
            let _ = world.carry();
            assert_eq!(world.volume(A)[5], 5, "it is overwritten");
        }
        let goes_on = if of_records { "replace what is not saved" } else { "the resync stops" };
        let why = world.device(A).status().salvage_full.expect("said").to_string();
        assert!(why.contains(goes_on) && why.contains("salvage_bytes_max"), "{why}");
        assert_eq!(*told.lock().unwrap(), [why]);
    }
}

/// A device takes the host over right after its return, and is killed before the other's content came over
/// its own.
#[test]
fn what_is_yet_to_be_saved_is_known_after_an_opening() {
    let mut world = returned_and_active();
    world.acts(&[Flush(A)]);
    world.crash(A, Cut::Kill);
    world.open(A).unwrap();
    world.hold_ships(false);
    world.meet();
    world.goes_on();
    assert_eq!(world.saved(A), [(0, 3), (2, 4), (5, 5)]);
    let is_left = |file: &FileName| file.to_string().contains("unsaved");
    assert!(!world.disks[A].files().unwrap().iter().any(is_left));
}

#[test]
fn a_device_that_was_forced_is_not_forced_again() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(B)]);
    world.crash(A, Cut::Kill);
    let forced = afterimage::Forced { accept_loss: true, ..Default::default() };
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    Device::force(disk, clock, world.settings.clone(), forced).unwrap();
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    let again = Device::force(disk, clock, world.settings.clone(), forced).unwrap_err();
    assert_eq!(again.kind(), Kind::Invalid);
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    let device = Device::open(disk, clock, world.settings.clone()).unwrap();
    let outcome = device.session().map(|_| ());
    outcome.unwrap();
}

#[test]
fn a_change_of_the_directory_marks_no_loss() {
    let mut world = World::new();
    world.device(A).set_policy(afterimage::Policy { prefer: true, resume_alone: true }).unwrap();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(A), Close(B)]);
    let (disk, clock) = (world.disks[A].clone(), world.clock.clone());
    Closed::forget_peer(disk.clone(), clock.clone(), world.settings.clone()).unwrap();
    let device = Device::open(disk, clock, world.settings.clone()).unwrap();
    let outcome = device.session().map(|_| ());
    outcome.unwrap();
}

#[test]
fn a_standby_resolves_nothing() {
    let mut world = resolved();
    world.goes_on();
    world.device(B).close().unwrap();
    world.devices[B] = None;
    world.acts(&[Write(A, 6, 9), Flush(A)]);
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    let again = Closed::resolve(disk, clock, world.settings.clone());
    let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
    world.devices[B] = Some(Device::open(disk, clock, world.settings.clone()).unwrap());
    world.meet_apart();
    assert!(again.is_err());
}

#[test]
fn a_target_resolves_nothing() {
    let mut world = resolved();
    // B is a target now; more differs, and only a part has come
    world.hold_ships(true);
    world.acts(&[Suspend(A), Write(A, 3, 11), Write(A, 4, 12), Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.devices[B] = None;
    let again =
        Closed::resolve(world.disks[B].clone(), world.clock.clone(), world.settings.clone());
    assert!(again.is_err());
}

#[test]
fn a_force_accepts_no_loss_that_is_not_on_its_sheet() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 1, 2), Flush(A), Takeover(B)]);
    world.hold_ships(true);
    world.acts(&[Write(B, 3, 3)]);
    world.crash(B, Cut::Synced);
    world.devices = [None, None];
    let forced = afterimage::Forced { accept_loss: true, ..Default::default() };
    let sheet =
        Device::force(world.disks[B].clone(), world.clock.clone(), world.settings.clone(), forced)
            .unwrap();
    let b =
        Device::open(world.disks[B].clone(), world.clock.clone(), world.settings.clone()).unwrap();
    assert!(b.status().lost_writes.is_some() || !sheet.given_up.is_empty());
}

#[test]
fn a_refused_force_keeps_what_was_told() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Suspend(A), Write(A, 3, 2), Write(A, 4, 2), Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.devices = [None, None];
    for image in [Image::Consistent, Image::Newest] {
        let forced = afterimage::Forced { image, ..Default::default() };
        let real = Device::force(
            world.disks[B].clone(),
            world.clock.clone(),
            world.settings.clone(),
            forced,
        );
        if let Ok(sheet) = real {
            assert!(!sheet.told_blocks.is_empty());
            break;
        }
    }
}

/// Nothing is known of what is lost, but that it is no older than what has come.
#[test]
fn a_loss_of_which_nothing_was_told_has_a_time() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Close(B)]);
    world.crash(A, Cut::Kill);
    let sheet = force(&mut world, B, Image::Consistent);
    let lost = world.device(B).status().lost_writes.unwrap();
    assert!(sheet.told.is_empty() && sheet.others_after.is_some());
    assert_eq!(Some(lost.since), sheet.others_after);
}

/// Of a block that was told of twice the older record is lost as well, and no list has it.
#[test]
fn a_record_that_was_told_and_written_over_is_no_older_than_is_said() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 0, 2), Write(A, 0, 3), Flush(A)]);
    world.carry().unwrap();
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    world.history.truncate(1);
    let sheet = force(&mut world, B, Image::Consistent);
    let lost = world.device(B).status().lost_writes.unwrap();
    assert_eq!((numbers(&sheet.told), lost.since), (vec![0], sheet.received.time));
    assert!(lost.since < lost.first.time);
}

/// Records of two tenures were told: those of the later one may have earlier times.
#[test]
fn of_a_later_tenure_no_time_is_said() {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Write(A, 1, 2), Flush(A)]);
    world.takeover(B).unwrap();
    world.takeover(A).unwrap();
    world.acts(&[Write(A, 2, 3), Flush(A), Carry]);
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    world.history.truncate(1);
    let sheet = force(&mut world, B, Image::Consistent);
    let epochs: Vec<u64> = sheet.told.iter().map(|told| told.1.epoch).collect();
    assert_eq!((epochs, sheet.received.epoch), (vec![1, 3], 1));
    assert_eq!(world.device(B).status().lost_writes.unwrap().since, 0);
}

/// A record that arrived before a takeover and a suspension, and then rotted in the last batch, looks like a torn tail
/// (D1).
#[test]
fn received_records_are_missed_behind_a_suspension() {
    let mut world = World::new();
    world.acts(&[Takeover(B), Write(B, 0, 1), Takeover(A), Carry, Suspend(A)]);
    world.crash(A, Cut::Synced);
    world.disks[A].rot(FileName::RecvLog, 4096, &[9; 64]);
    let refused = world.open(A).unwrap_err();
    assert_eq!(refused.kind(), Kind::Damaged);
    assert!(refused.to_string().contains("recv.log: the log ends with stamp"), "{refused}");
}

#[cfg(feature = "weaken")]
#[test]
fn each_rule_is_missed_without_its_clause() {
    use afterimage::internal::weaken::{Clause, without};
    let rules: [(Clause, fn()); 5] = [
        (Clause::HiWithoutNeed, received_records_are_missed_behind_a_suspension),
        (Clause::RoundMet, a_device_that_lost_its_round_is_a_target),
        (Clause::RoundMet, a_device_that_lost_rounds_of_its_tenure_serves_nobody),
        (Clause::RoundBegun, a_device_that_lost_rounds_of_its_tenure_serves_nobody),
        (Clause::StillUnsaved, what_is_yet_to_be_saved_is_known_after_an_opening),
    ];
    for (clause, scenario) in rules {
        without(Some(clause));
        let outcome = std::panic::catch_unwind(scenario);
        without(None);
        assert!(outcome.is_err(), "`{}` is not missed", clause.name());
    }
}
