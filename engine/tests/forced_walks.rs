//! Random walks of a pair over disks that die, with sites that are lost, forced takeovers out of every round, and
//! returns (D10): what was promised is there, and the consistent image is an earlier state.

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::limits::Settings;
use afterimage::internal::unit::Mode;
use afterimage::{Closed, Image, Storage, salvage};
use common::A;
use common::crash::Cut;
use common::random::Random;
use common::world::Act::*;
use common::world::{World, background_step};

/// Every act at any time, with sites that are lost, forced takeovers out of every round, and returns.
#[test]
fn random_walks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse().ok());
    let (first, seeds) =
        (number("FORCED_FIRST").unwrap_or(0), number("FORCED_SEEDS").unwrap_or(200));
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(|| walk(seed));
        outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

/// The images of each lineage that ends with a forced takeover.
type Pasts = Vec<((u64, u64), Vec<common::world::Image>)>;

fn lineage(world: &World, at: usize) -> (u64, u64) {
    afterimage::internal::superblock::load(&*world.disks[at]).unwrap().lineage
}

/// One device is lost, and the other goes on by what an operator says; returns whether it was forced.
fn lose(world: &mut World, at: usize, random: &mut Random, pasts: &mut Pasts) -> bool {
    let kept = 1 - at;
    let lineages = [at, kept].map(|at| lineage(world, at));
    for device in world.devices.iter().flatten().filter(|device| device.status().serving) {
        device.session().unwrap().flush().unwrap();
    }
    let cut = random.pick(&[Cut::Kill, Cut::Synced, Cut::All]);
    world.crash(at, cut);
    match random.once_in(2) {
        true => world.crash(kept, random.pick(&[Cut::Kill, Cut::Synced, Cut::All])),
        false => {
            world.device(kept).close().unwrap();
            world.devices[kept] = None;
        }
    }
    world.open(kept).unwrap();
    if world.device(kept).resume_alone().is_ok() {
        return false;
    }
    let image = random.pick(&[Image::Consistent, Image::Newest]);
    let mut before = world.images();
    let forced = world.try_force(kept, image).or_else(|refused| {
        assert_eq!((refused.kind(), image), (Kind::Invalid, Image::Consistent), "{refused}");
        world.try_force(kept, Image::Newest)
    });
    let sheet = forced.unwrap();
    let image = sheet.image;
    if image == Image::Last && lineages[1] != lineages[0] {
        // It had returned, and kept the image of the history that was given up.
        let of_old = pasts.iter().filter(|past| past.0 == lineages[1]);
        before = of_old.flat_map(|past| past.1.clone()).collect();
    }
    lineages.iter().for_each(|&of| pasts.push((of, world.images())));
    world.device(kept).accept_loss().unwrap();
    let found = world.read_all(&world.device(kept).session().unwrap()).unwrap();
    // The newest image of a target that had not everything has content of an older lineage, too.
    let is_known = image == Image::Newest || before.contains(&found);
    assert!(is_known, "{image:?}: {found:?} is none of {before:?}, {sheet:?}");
    let counted = random.within(0..2);
    if counted == 0 {
        // Blocks that were put back are so after any end of the process.
        world.crash(kept, random.pick(&[Cut::Kill, Cut::Synced, Cut::All]));
        world.open(kept).unwrap();
        world.device(kept).resume_alone().unwrap();
        let again = world.read_all(&world.device(kept).session().unwrap()).unwrap();
        assert_eq!(again, found, "{image:?} after a crash");
    }
    world.history = (0..).zip(found).collect();
    world.promised = world.history.len();
    true
}

/// Histories have parted if a device was forced that had not heard of the peer's lineage: the one that
/// serves is kept.
fn come_together(world: &mut World, serving: usize, pasts: &mut Pasts) {
    world.meet_briefly(1);
    let superblock = afterimage::internal::superblock::load(&*world.disks[serving]).unwrap();
    if superblock.history.other.is_none() {
        return;
    }
    pasts.push((lineage(world, 1 - serving), world.images()));
    world.device(serving).close().unwrap();
    world.devices[serving] = None;
    let (disk, clock) = (world.disks[serving].clone(), world.clock.clone());
    Closed::resolve(disk, clock, world.settings.clone()).unwrap();
    world.open(serving).unwrap();
    // The other one hears of it.
    world.meet_briefly(4);
}

/// Salvage has nothing that hosts wrote in the history that is served, `since` its last forced takeover, and
/// nothing is owed to it. A chunk whose data a power cut has taken is read as far as it goes.
fn salvage_is_of_the_past(world: &World, since: usize) {
    for disk in &world.disks {
        for file in salvage::list(&**disk).unwrap() {
            let _ = salvage::read(&**disk, file.number, |entry, data| {
                let found = (entry.block.number, data.first().copied().unwrap_or(0));
                let is_served = found.1 != 0 && world.history[since..].contains(&found);
                assert!(!is_served, "{found:?} is in file {}", file.number);
                Ok(())
            });
        }
        let files = disk.files().unwrap();
        let owed = files.iter().find(|file| file.to_string().contains("unsaved"));
        assert_eq!(owed, None, "nothing is to be saved");
    }
}

fn walk(seed: u64) {
    let is_loud = std::env::var("LADDER_LOUD").is_ok();
    let mut random = Random::new(seed);
    let mut world = World::with(
        4,
        Settings { suspend_from_percent: 60, resume_order_after_ns: 0, ..Settings::default() },
    );
    let (mut serving, mut gone, mut pasts, mut since) = (A, None, Pasts::new(), 0);
    for step in 0..120u64 {
        let block = random.within(0..7);
        let value = (step % 250 + 1) as u8;
        let at = random.within(0..2) as usize;
        let at = if gone == Some(at) { serving } else { at };
        let act = match random.within(0..40) {
            0..=9 => Write(serving, block, value),
            10 | 11 => Write2(serving, block, value),
            12 => Zero(serving, block),
            13..=15 => Flush(serving),
            16 | 17 => Carry,
            18 | 19 => Reflect(at),
            20 => Checkpoint(at),
            21 | 22 if gone.is_none() => Takeover(1 - serving),
            23 => Suspend(serving),
            24 if gone.is_none() => {
                // The site that is lost is most often the active one.
                let lost = if random.once_in(4) { 1 - serving } else { serving };
                let was_forced = lose(&mut world, lost, &mut random, &mut pasts);
                (serving, gone) = (1 - lost, Some(lost));
                if was_forced {
                    since = world.history.len();
                }
                if is_loud {
                    println!("{step} {lost} is lost, forced: {was_forced}");
                }
                continue;
            }
            25..=27 => {
                let Some(back) = gone else { continue };
                if is_loud {
                    println!("{step} {back} returns");
                }
                world.open(back).unwrap();
                come_together(&mut world, serving, &mut pasts);
                world.meet_briefly(random.within(0..8));
                gone = None;
                continue;
            }
            28..=36 => {
                let device = world.device(at).clone();
                let what = random.within(0..6);
                if is_loud {
                    println!("{step} step {what} of {at}");
                }
                background_step(&device, what);
                continue;
            }
            37 if gone.is_none() => {
                let session = world.device(serving).session().unwrap();
                session.flush().unwrap();
                world.promised = world.history.len();
                drop(session);
                let cut = random.pick(&[Cut::Kill, Cut::Synced, Cut::Sectors(step)]);
                if is_loud {
                    println!("{step} crash {at} {cut:?}");
                }
                world.crash(at, cut);
                serving = world.rise().unwrap();
                Flush(serving)
            }
            _ if gone.is_none() => {
                world.reads(serving);
                continue;
            }
            _ => continue,
        };
        if is_loud {
            println!("{step} {act:?}");
        }
        for _ in 0..3 {
            if world.device(serving).status().own_free_places < 3 {
                world.acts(&[Carry, Reflect(serving), Checkpoint(serving)]);
                if gone.is_none() {
                    world.acts(&[Reflect(1 - serving), Checkpoint(1 - serving), Carry]);
                }
            }
        }
        match act {
            Suspend(at) if world.device(at).status().mode != Mode::Ordered => {}
            Suspend(at) if world.device(at).suspend().is_err() => {}
            Suspend(_) => {}
            act => world.act(act).unwrap_or_else(|e| panic!("{step} {act:?}: {e}")),
        }
        if let Takeover(at) = act {
            serving = at;
        }
        for device in world.devices.iter().flatten() {
            assert!(device.status().halted.is_none(), "{:?}", device.status().halted);
        }
    }
    if let Some(back) = gone {
        world.open(back).unwrap();
        come_together(&mut world, serving, &mut pasts);
        world.meet();
    }
    world.reads(serving);
    world.rests();
    world.reads(serving);
    salvage_is_of_the_past(&world, since);
}
