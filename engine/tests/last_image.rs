//! The last consistent image (LADDER 6): what a resync or a takeover overwrites in the normal volumes is kept
//! until they are a state of the hosts' data again, and a forced takeover can put it back.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::Settings;
use afterimage::{
    Clock, Device, FileName, Forced, Geometry, Image, ImageStatus, Lane, Line, Memory, Mode,
    SideKind, Storage, VolumeSpec, memory_link,
};
use common::crash::Cut;
use common::world::Act::*;
use common::world::{World, background_step};
use common::{A, B, ManualClock};
use std::sync::Arc;

/// Block by block.
fn settings() -> Settings {
    Settings { resume_order_after_ns: 0, copy_bytes_max: 1, ..Settings::default() }
}

fn saved(world: &World, at: usize) -> u64 {
    match world.device(at).status().image {
        ImageStatus::Kept { blocks, .. } => blocks,
        _ => 0,
    }
}

/// B has what A had written first, and some of the blocks that A has written while it was suspended.
fn amid_a_resync(settings: Settings, copies: u64) -> World {
    let mut world = World::with(4, settings);
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry, Reflect(B)]);
    world.acts(&[Suspend(A), Write(A, 0, 3), Write(A, 2, 4), Write(A, 5, 5), Write(A, 1, 6)]);
    world.acts(&[Flush(A)]);
    for _ in 0..100 {
        for at in [A, B] {
            for step in 0..6 {
                let device = world.device(at).clone();
                background_step(&device, step);
                if at == B && saved(&world, B) == copies {
                    return world;
                }
            }
        }
    }
    panic!("{:?}", world.device(B).status());
}

fn force(world: &mut World, image: Image) -> afterimage::LossSheet {
    world.crash(A, Cut::Kill);
    let sheet = world.try_force(B, image).unwrap();
    world.device(B).accept_loss().unwrap();
    sheet
}

fn comes_back(world: &mut World) {
    world.open(A).unwrap();
    world.meet();
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
    for at in [A, B] {
        assert_eq!(Some(&world.volume(at)), world.images().last(), "{at}");
        assert_eq!(world.device(at).status().image, ImageStatus::NotNeeded, "{at}");
    }
    assert!(!world.disks[B].files().unwrap().iter().any(|f| f.to_string().contains("image")));
}

#[test]
fn what_a_resync_has_overwritten_is_put_back() {
    for image in [Image::Last, Image::Consistent] {
        for copies in [1, 2] {
            let mut world = amid_a_resync(settings(), copies);
            assert!(!world.device(B).status().differential.is_consistent);
            world.device(B).close().unwrap();
            let sheet = force(&mut world, image);
            assert_eq!(sheet.image, Image::Last);
            assert_eq!(sheet.put_back.iter().map(|run| run.count()).sum::<u64>(), copies);
            world.history.truncate(2);
            world.promised = 2;
            world.reads(B);
            world.acts(&[Write(B, 2, 8), Flush(B)]);
            world.reads(B);
            world.acts(&[Reflect(B), Checkpoint(B)]);
            world.reads(B);
            comes_back(&mut world);
        }
    }
}

/// The device says so as soon as it knows of the resync.
#[test]
fn without_room_it_is_said_before_the_first_copy() {
    let settings = Settings { image_bytes_max: 0, ..settings() };
    let mut world = World::with(4, settings);
    world.acts(&[Write(A, 0, 1), Flush(A), Carry, Suspend(A), Write(A, 0, 3), Flush(A)]);
    world.links.iter().for_each(|link| link.hold(Lane::Data, true));
    world.carry().unwrap();
    let status = world.device(B).status();
    assert!(!status.differential.is_consistent, "{status:?}");
    let ImageStatus::Missing { why } = status.image else { panic!("{:?}", status.image) };
    assert!(why.contains("image_bytes_max"), "{why}");
    world.device(B).close().unwrap();
    world.crash(A, Cut::Kill);
    for image in [Image::Consistent, Image::Last] {
        let refused = world.try_force(B, image).unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().contains("--newest"), "{refused}");
    }
    world.try_force(B, Image::Newest).unwrap();
    assert_eq!(world.device(B).status().image, ImageStatus::NotNeeded);
}

/// The page and one chunk: there is no room for a second block.
#[test]
fn at_the_bound_the_image_is_given_up() {
    let settings = Settings { image_bytes_max: 8192, ..settings() };
    let mut world = amid_a_resync(settings, 1);
    world.acts(&[Carry]);
    for _ in 0..3 {
        world.acts(&[Carry, Reflect(A), Reflect(B), Checkpoint(A), Checkpoint(B)]);
    }
    assert_eq!(Some(&world.volume(B)), world.images().last(), "the resync went on");
    // And in the middle.
    let settings = Settings { image_bytes_max: 8192, ..self::settings() };
    let mut world = amid_a_resync(settings, 1);
    for _ in 0..100 {
        (0..6).for_each(|step| background_step(world.device(A), step));
        if matches!(world.device(B).status().image, ImageStatus::Missing { .. }) {
            break;
        }
        background_step(world.device(B), 2);
    }
    let ImageStatus::Missing { why } = world.device(B).status().image else { panic!() };
    assert!(why.contains("given up"), "{why}");
    assert!(!afterimage::internal::superblock::load(&*world.disks[B]).unwrap().image);
    world.crash(A, Cut::Kill);
    world.crash(B, Cut::All);
    assert_eq!(world.try_force(B, Image::Last).unwrap_err().kind(), Kind::Invalid);
}

/// Own writes of the device that took over go over blocks that it is owed: before the first it was what
/// it had received.
#[test]
fn what_a_host_has_written_after_a_takeover_is_put_back() {
    let mut world = World::with(4, settings());
    world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry]);
    world.hold_ships(true);
    world.acts(&[Suspend(A), Write(A, 0, 3), Write(A, 2, 4), Flush(A)]);
    world.links.iter().for_each(|link| link.hold(Lane::Data, true));
    world.device(B).begin_takeover().unwrap();
    for _ in 0..20 {
        world.device(A).step_control().unwrap();
        world.device(B).step_control().unwrap();
    }
    world.device(B).poll_takeover().unwrap().unwrap();
    world.acts(&[Write(B, 1, 7), Write(B, 5, 8), Flush(B)]);
    while world.device(B).step_reflect().unwrap() > 0 {}
    world.device(B).checkpoint_now().unwrap();
    assert_eq!(saved(&world, B), 2);
    world.acts(&[Write(B, 6, 9), Flush(B)]);
    world.crash(B, Cut::Synced);
    let sheet = force(&mut world, Image::Consistent);
    assert_eq!((sheet.image, sheet.given_up.len()), (Image::Last, 1), "{sheet:?}");
    world.history.truncate(2);
    world.promised = 2;
    world.reads(B);
    comes_back(&mut world);
}

/// The disk of the target dies in any of its calls, from the beginning of the resync on: the image is as it
/// was, or it is said that there is none, or the resync had not begun or has ended.
#[test]
fn a_crash_at_any_step_leaves_the_image_or_none() {
    let mut found = [0; 3];
    for call in 0.. {
        let mut ended = false;
        for cut in [Cut::Kill, Cut::Synced, Cut::All, Cut::Sectors(call), Cut::Writes(call)] {
            let mut world = World::with(4, settings());
            world.acts(&[Write(A, 0, 1), Write(A, 1, 2), Flush(A), Carry, Reflect(B)]);
            world.acts(&[Suspend(A), Write(A, 0, 3), Write(A, 2, 4), Write(A, 1, 6), Flush(A)]);
            world.disks[B].die_at(world.disks[B].calls() + call);
            let died = (0..60).any(|_| {
                for device in world.devices.iter().flatten() {
                    let _ = device.step_control();
                    let _ = device.step_commit();
                    let _ = device.step_ship();
                    let _ = device.step_receive();
                    let _ = world.climb(device);
                }
                world.disks[B].is_dead()
            });
            if !died {
                ended = true;
                break;
            }
            world.crash(B, cut);
            world.crash(A, Cut::Kill);
            let before = world.images();
            match world.try_force(B, Image::Consistent) {
                Ok(sheet) => {
                    world.device(B).accept_loss().unwrap();
                    let session = world.device(B).session().unwrap();
                    let served = world.read_all(&session).unwrap();
                    let is_last = sheet.image == Image::Last;
                    found[usize::from(is_last)] += 1;
                    let is_first = served == before[2];
                    assert!(is_first || !is_last && before.contains(&served), "{call} {cut:?}");
                }
                Err(refused) => {
                    assert_eq!(refused.kind(), Kind::Invalid, "{call} {cut:?}: {refused}");
                    found[2] += 1;
                }
            }
        }
        if ended {
            break;
        }
    }
    // Once the round was heard of there is an image.
    assert!(found[0] > 10 && found[1] > 40 && found[2] == 0, "{found:?}");
}

/// A device hears that its peer was forced while it was away, and its disk dies in any of its calls: its volumes
/// are what they were, or the image of that is kept.
#[test]
fn a_crash_at_a_return_leaves_the_image() {
    let mut kept = 0;
    for call in 0.. {
        let mut ended = false;
        for cut in [Cut::Synced, Cut::All] {
            let mut world = World::with(4, settings());
            world.acts(&[Write(A, 0, 1), Flush(A), Carry, Write(A, 1, 2), Flush(A), Reflect(A)]);
            world.crash(A, Cut::Synced);
            world.device(B).close().unwrap();
            world.try_force(B, Image::Consistent).unwrap();
            world.device(B).accept_loss().unwrap();
            world.open(A).unwrap();
            // No copy comes.
            world.device(B).set_copy_rate(1);
            world.disks[A].die_at(world.disks[A].calls() + call);
            world.meet();
            ended = !world.disks[A].is_dead();
            world.crash(A, cut);
            let superblock = afterimage::internal::superblock::load(&*world.disks[A]).unwrap();
            world.open(A).unwrap();
            let status = world.device(A).status().image;
            let is_kept = matches!(status, ImageStatus::Kept { .. });
            kept += u64::from(is_kept);
            assert!(superblock.usable || is_kept, "{call} {cut:?}: {status:?}");
        }
        if ended {
            break;
        }
    }
    assert!(kept > 2, "{kept}");
}

/// Received records that a force gave up are in no log behind its next opening, and nobody misses them.
#[test]
fn records_that_an_image_gave_up_are_not_missed() {
    let mut world = amid_a_resync(settings(), 2);
    let hi = world.device(B).status().hi;
    world.acts(&[Write(A, 6, 9), Flush(A)]);
    for step in (0..4).cycle().take(400) {
        [A, B].iter().for_each(|&at| background_step(world.device(at), step));
        if world.device(B).status().hi > hi {
            break;
        }
    }
    assert!(world.device(B).status().hi > hi, "{:?}", world.device(B).status());
    world.crash(A, Cut::Kill);
    world.crash(B, Cut::All);
    world.try_force(B, Image::Last).unwrap();
    for _ in 0..2 {
        world.crash(B, Cut::Synced);
        world.open(B).unwrap();
    }
}

/// A force ends anywhere, and so does what follows it.
#[test]
fn a_force_that_dies_is_made_again() {
    for call in 0.. {
        let mut ended = false;
        for cut in [Cut::Kill, Cut::Synced, Cut::All, Cut::Sectors(call), Cut::Writes(call)] {
            let mut world = amid_a_resync(settings(), 2);
            world.crash(A, Cut::Kill);
            world.crash(B, Cut::Synced);
            world.history.truncate(2);
            world.promised = 2;
            world.disks[B].die_at(world.disks[B].calls() + call);
            let wrote = |world: &mut World| {
                let device = world.device(B).clone();
                device.accept_loss()?;
                world.act(Write(B, 0, 8))?;
                world.act(Write(B, 7, 9))?;
                world.act(Flush(B))?;
                while device.step_reflect()? > 0 {}
                device.checkpoint_now()
            };
            let outcome = world.try_force(B, Image::Last).and_then(|_| wrote(&mut world));
            ended = outcome.is_ok();
            world.crash(B, cut);
            let forced = world.try_force(B, Image::Last);
            if forced.is_err() {
                world.open(B).unwrap();
                let _ = world.device(B).resume_alone();
            }
            world.device(B).accept_loss().unwrap();
            let session = world.device(B).session().unwrap();
            let served = world.read_all(&session).unwrap();
            let images = &world.images()[2..];
            assert!(images.contains(&served), "{call} {cut:?}: {served:?} of {images:?}");
        }
        if ended {
            assert!(call > 20, "{call}");
            break;
        }
    }
}

/// An image goes back block by block, while a host writes over blocks of it, some of which are back already, and
/// checkpoints come in between; each of these calls may be the last.
#[test]
fn hosts_write_while_an_image_goes_back() {
    for call in 0.. {
        let mut ended = false;
        for cut in [Cut::Kill, Cut::Synced, Cut::Sectors(call)] {
            let mut world = image_of(false, true, 4);
            world.settings.reflect_records_max = 1;
            world.history.truncate(2);
            world.try_force(B, Image::Last).unwrap();
            world.device(B).accept_loss().unwrap();
            world.disks[B].die_at(world.disks[B].calls() + call);
            let device = world.device(B).clone();
            let goes_on = |world: &mut World| {
                let is_back = || device.status().image == ImageStatus::NotNeeded;
                for (block, value) in [(1, 8), (2, 9), (7, 10), (0, 11)] {
                    world.act(Write(B, block, value))?;
                    world.act(Flush(B))?;
                    let before = afterimage::internal::superblock::load(&*world.disks[B])?.fl;
                    device.step_reflect_some(1)?;
                    let is_under = !is_back();
                    device.checkpoint_now()?;
                    let after = afterimage::internal::superblock::load(&*world.disks[B])?.fl;
                    assert!(after > before || !is_under, "no place comes free");
                    if block == 2 {
                        assert!(is_under, "the image is back too early for this test");
                    }
                }
                while device.step_reflect_some(1)? > 0 {}
                assert!(is_back());
                device.checkpoint_now()
            };
            let outcome = goes_on(&mut world);
            ended = outcome.is_ok();
            drop(device);
            world.crash(B, cut);
            for _ in 0..2 {
                world.open(B).unwrap();
                let _ = world.device(B).resume_alone();
                let session = world.device(B).session().unwrap();
                let served = world.read_all(&session).unwrap();
                let images = &world.images()[world.promised.max(2)..];
                assert!(images.contains(&served), "{call} {cut:?}: {served:?} of {images:?}");
                // It goes back from where it was, and nothing of it comes over what was written since.
                world.device(B).step_reflect_some(1).unwrap();
                world.device(B).checkpoint_now().unwrap();
                assert_eq!(world.read_all(&session).unwrap(), served, "{call} {cut:?}");
                drop(session);
                world.crash(B, Cut::Synced);
            }
        }
        if ended {
            assert!(call > 20, "{call}");
            break;
        }
    }
}

/// A device that was taken over to while all of `count` blocks were on their way to it, and whose hosts have
/// then written every second of these, in one step; it is closed nowhere.
fn written_over(storages: [Arc<dyn Storage>; 2], clock: &Arc<dyn Clock>, count: u64) -> Settings {
    for (storage, id) in storages.iter().zip(1..) {
        let mut geometry =
            Geometry::new(7, id, vec![VolumeSpec { id: 0, bytes: 2 * count * 4096 }]);
        geometry.journal_bytes = 256 << 20;
        Device::create(&**storage, &geometry, id == 1).unwrap();
    }
    let settings = settings();
    let pair =
        storages.map(|storage| Device::open(storage, clock.clone(), settings.clone()).unwrap());
    let (a, b) = memory_link(Line::default(), clock.clone());
    pair[0].connect(Arc::new(a.clone())).unwrap();
    pair[1].connect(Arc::new(b)).unwrap();
    let steps = |least: usize| {
        let mut idle = 0;
        while idle < least {
            let moved = pair.iter().any(|device| {
                (0..6).for_each(|step| background_step(device, step));
                while device.step_reflect().unwrap() > 0 {}
                device.status().backlog_records > 0 && device.status().mode == Mode::Ordered
            });
            idle = if moved { 0 } else { idle + 1 };
        }
    };
    let write = |at: usize, block: u64, byte: u8| {
        pair[at].session().unwrap().write(0, block * 4096, &[byte; 4096]).unwrap();
    };
    steps(9);
    pair[0].suspend().unwrap();
    a.hold(Lane::Data, true);
    write(0, 2 * count - 1, 3);
    pair[0].session().unwrap().flush().unwrap();
    pair[1].begin_takeover().unwrap();
    steps(9);
    pair[1].poll_takeover().unwrap().unwrap();
    (0..count).for_each(|k| write(1, 2 * k, 7));
    pair[1].session().unwrap().flush().unwrap();
    while pair[1].step_reflect().unwrap() > 0 {}
    let status = pair[1].status().image;
    assert!(matches!(status, ImageStatus::Kept { blocks, .. } if blocks == count), "{status:?}");
    settings
}

/// The image goes back all the same, and it is said that what it replaces is not saved.
#[test]
fn that_salvage_has_no_room_for_what_an_image_replaces_is_said() {
    let mut world = image_of_two(false, true);
    world.settings.salvage_bytes_max = 1;
    world.try_force(B, Image::Last).unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = told.clone();
    world.device(B).on_event(move |event| {
        if let afterimage::Event::SalvageFull(why) = event {
            tell.lock().unwrap().push(why.to_string());
        }
    });
    world.acts(&[Reflect(B)]);
    let why = world.device(B).status().salvage_full.expect("said").to_string();
    assert!(why.contains("on its way back") && why.contains("salvage_bytes_max"), "{why}");
    assert_eq!(*told.lock().unwrap(), [why]);
    assert_eq!(world.device(B).status().image, ImageStatus::NotNeeded);
    assert_eq!(world.saved(B), []);
}

const FILE: FileName = FileName::Side { kind: SideKind::new("image").expect("a word"), number: 0 };
const PAGE: usize = 4096;

/// An image of two blocks, of which a forced takeover has chosen to serve it, or not yet; the device is closed
/// cleanly, or has died.
fn image_of_two(chosen: bool, clean: bool) -> World {
    image_of(chosen, clean, 2)
}

/// The same of so many.
fn image_of(chosen: bool, clean: bool, blocks: u64) -> World {
    let mut world = amid_a_resync(settings(), blocks);
    if clean {
        world.device(B).close().unwrap();
    }
    world.crash(A, Cut::Kill);
    world.crash(B, Cut::Synced);
    if chosen {
        let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
        let forced = Forced { image: Image::Last, ..Forced::default() };
        Device::force(disk, clock, world.settings.clone(), forced).unwrap();
    }
    world
}

/// Of each chunk of the file, where it begins, and its bytes.
fn chunks(world: &World) -> Vec<(usize, usize)> {
    let bytes = world.disks[B].bytes(FILE);
    let begins: Vec<_> =
        (0..bytes.len()).step_by(PAGE).filter(|&at| bytes[at..].starts_with(b"AFTSALVG")).collect();
    let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
    begins.iter().copied().zip(ends).map(|(begin, end)| (begin, end - begin)).collect()
}

/// Ways in which a file comes to harm at its end: each with where it is to be found, and whether a power cut
/// may look so.
fn rotted(world: &World) -> Vec<(&'static str, Arc<common::crash::CrashDisk>, usize, bool)> {
    let chunks = chunks(world);
    let [.., (before, _), (last, length)] = chunks[..] else { panic!("{chunks:?}") };
    let bytes = world.disks[B].bytes(FILE);
    let data = |at: usize, length: usize| {
        (at..at + length).rev().find(|&at| bytes[at] != 0).expect("data that is not zeros")
    };
    let of = |how, at: usize, count: usize, place, may_be_torn| {
        let disk = world.disks[B].copy();
        let rot: Vec<_> = bytes[at..at + count].iter().map(|byte| byte ^ 0xff).collect();
        disk.rot(FILE, at, if how == "zeros" { &[0; PAGE][..count] } else { &rot });
        (how, disk, place, may_be_torn)
    };
    let entries = 80 + 52;
    let short = world.disks[B].copy();
    short.shorten(FILE, last);
    vec![
        of("the last block", data(last, length), 1, last + entries, true),
        of("the last header", last, 8, last, true),
        of("zeros", last, length, last, true),
        ("short", short, last, true),
        of("a block before", data(before, last - before), 1, before + entries, false),
    ]
}

/// Only what was being written when the power went may have a torn end.
#[test]
fn an_image_that_was_whole_must_be_whole() {
    for (chosen, clean) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = image_of_two(chosen, clean);
        for (how, disk, place, may_be_torn) in rotted(&world) {
            let story = format!("chosen {chosen}, clean {clean}: {how}");
            world.disks[B] = disk.clone();
            if chosen {
                let refused = world.open(B).expect_err(&story);
                let text = refused.to_string();
                assert_eq!(refused.kind(), Kind::Damaged, "{story}: {text}");
                let is_named = text.contains("side/image.0") && text.contains(&place.to_string());
                assert!(is_named && text.contains("--newest"), "{story}: {place} in {text}");
                continue;
            }
            world.open(B).expect(&story);
            match world.device(B).status().image {
                ImageStatus::Kept { .. } => assert!(may_be_torn && !clean, "{story}"),
                ImageStatus::Missing { why } => {
                    assert!(clean || !may_be_torn, "{story}: {why}");
                    assert!(why.contains(&place.to_string()), "{story}: {place} in {why}");
                }
                other => panic!("{story}: {other:?}"),
            }
        }
    }
}

/// Neither the operator who wants each block as new as it is, nor one who recovers what there is, needs the image.
#[test]
fn a_damaged_image_is_given_up_by_a_word() {
    for chosen in [false, true] {
        let mut world = image_of_two(chosen, true);
        let (_, rotten, ..) = rotted(&world).swap_remove(0);
        for image in [Image::Consistent, Image::Last] {
            world.disks[B] = rotten.copy();
            let refused = world.try_force(B, image).unwrap_err().to_string();
            let is_named = refused.contains("side/image.0") && refused.contains("--newest");
            assert!(is_named, "{refused}");
        }
        // To look at what a force would give up changes nothing of that.
        world.disks[B] = rotten.copy();
        let (disk, clock) = (world.disks[B].clone(), world.clock.clone());
        let settings = world.settings.clone();
        let sheet = Device::sheet_of_force(disk, clock, settings, Image::Newest).unwrap();
        assert_eq!(sheet.image_given_up.is_some(), chosen);
        assert_eq!(world.open(B).is_err(), chosen);
        // The word: the other device gets every block.
        world.disks[B] = rotten.copy();
        let before = world.volume(B);
        let sheet = world.try_force(B, Image::Newest).unwrap();
        assert_eq!(sheet.image, Image::Newest);
        if chosen {
            assert_eq!(world.device(B).status().differential.table_blocks, 8);
            assert!(world.device(B).status().lost_writes.is_some());
        }
        world.device(B).accept_loss().unwrap();
        let session = world.device(B).session().unwrap();
        assert_eq!(world.read_all(&session).unwrap(), before);
        world.history = before.iter().copied().enumerate().map(|(k, v)| (k as u64, v)).collect();
        world.acts(&[Write(B, 6, 9), Flush(B)]);
        world.promised = world.history.len();
        comes_back(&mut world);
    }
}

/// More blocks in one step than a chunk has entries, none of them written before.
#[test]
fn a_step_over_many_blocks_is_saved_in_several_chunks() {
    const COUNT: u64 = 3000;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let disks: [Arc<dyn Storage>; 2] = [Arc::new(Memory::new()), Arc::new(Memory::new())];
    let settings = written_over(disks.clone(), &clock, COUNT);
    let forced = Forced { image: Image::Last, accept_loss: true };
    let sheet = Device::force(disks[1].clone(), clock.clone(), settings.clone(), forced).unwrap();
    assert_eq!(sheet.put_back.iter().map(|run| run.count()).sum::<u64>(), COUNT);
    let device = Device::open(disks[1].clone(), clock, settings).unwrap();
    device.accept_loss().unwrap();
    let are_zeros = || {
        let mut data = [1; 4096];
        (0..2 * COUNT).all(|block| {
            device.session().unwrap().read(0, block * 4096, &mut data).unwrap();
            data == [0; 4096]
        })
    };
    assert!(are_zeros());
    device.checkpoint_now().unwrap();
    assert!(are_zeros());
}

#[cfg(feature = "weaken")]
#[test]
fn each_rule_is_missed_without_its_clause() {
    use afterimage::internal::weaken::{Clause, without};
    without(Some(Clause::GivenUpFirst));
    let outcome = std::panic::catch_unwind(at_the_bound_the_image_is_given_up);
    without(None);
    assert!(outcome.is_err(), "`{}` is not missed", Clause::GivenUpFirst.name());
}
