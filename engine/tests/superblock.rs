//! The superblock's two copies when a device is opened: rotten, old, or impossible (R13).
#![cfg(not(loom))]

mod common;
mod reseal;

use afterimage::Device;
use afterimage::internal::error::Kind;
use afterimage::internal::format::superblock::{COPY_OFFSETS, VolumeSpec};
use afterimage::internal::limits::{Geometry, SEGMENTS_MAX};
use afterimage::internal::storage::{FileName, Memory};
use afterimage::internal::superblock;
use afterimage::internal::unit::Mode;
use common::crash::{CrashDisk, Cut, damage, open};
use common::world::Act::*;
use common::world::World;
use common::{A, B};
use reseal::reseal;
use std::sync::Arc;

#[test]
fn either_copy_of_the_superblock_will_do() {
    let mut world = World::new();
    world.acts(&[
        Write(A, 0, 1),
        Flush(A),
        Carry,
        Reflect(A),
        Checkpoint(A),
        Write(A, 1, 2),
        Flush(A),
    ]);
    world.crash(A, Cut::Synced);
    for copy in [0, 1] {
        let disk = world.disks[A].copy();
        disk.rot(FileName::Superblock, COPY_OFFSETS[copy] as usize + 99, &[0x55; 9]);
        let device = open(&disk).unwrap();
        let said = device.recovery().superblock_repaired.clone().expect("said");
        assert!(said.contains(&format!("copy {copy}: checksum")), "{said}");
        assert_eq!(device.recovery().own.live_records, 1);
        let bytes = disk.bytes(FileName::Superblock);
        let [first, second] = COPY_OFFSETS.map(|at| bytes[at as usize..][..512].to_vec());
        assert!(first == second, "repaired");
        drop(device);
        assert_eq!(open(&disk).unwrap().recovery().superblock_repaired, None);
    }
    let disk = world.disks[A].copy();
    for offset in COPY_OFFSETS {
        disk.rot(FileName::Superblock, offset as usize + 99, &[0x55; 9]);
    }
    damage(&disk, &["superblock", "both copies", "first: checksum", "second: checksum"]);
}

#[test]
fn a_superblock_cut_short_is_damage_and_not_a_device_never_made() {
    let mut world = World::new();
    world.crash(A, Cut::Synced);
    for length in [0, 4096, 8191] {
        let disk = world.disks[A].copy();
        disk.shorten(FileName::Superblock, length);
        damage(&disk, &["superblock", "both copies are unusable"]);
    }
}

#[test]
fn the_newer_copy_of_the_superblock_counts() {
    for copy in [0, 1] {
        let mut world = World::new();
        let at = COPY_OFFSETS[copy] as usize;
        let old = world.disks[A].bytes(FileName::Superblock)[at..at + 512].to_vec();
        world.acts(&[Write(A, 0, 1), Carry, Takeover(B)]);
        world.crash(A, Cut::Synced);
        world.disks[A].rot(FileName::Superblock, at, &old);
        let device = open(&world.disks[A]).unwrap();
        let said = device.recovery().superblock_repaired.clone().expect("said");
        assert!(said.contains(&format!("copy {copy} is of generation 4, not 5")), "{said}");
        assert_eq!(device.resume_alone().unwrap_err().kind(), Kind::Fenced);
    }
}

#[test]
fn an_impossible_superblock_is_refused_by_name() {
    let world = World::new();
    let disk = world.disks[A].after(Cut::Synced);
    let change = |at: usize, value: u64, words: &str| {
        let disk = disk.copy();
        for offset in COPY_OFFSETS.map(|at| at as usize) {
            let mut bytes = disk.bytes(FileName::Superblock)[offset..offset + 512].to_vec();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            reseal(&mut bytes);
            disk.rot(FileName::Superblock, offset, &bytes);
        }
        damage(&disk, &["superblock", words]);
    };
    change(24, 0, "generation is 0");
    change(88, 0, "epoch is 0");
    change(112, 1 << 40, "hi is");
    change(336, 1 << 40, "whole is");
    change(64, 1, "segment size");
    change(216, 1 << 62, "logs have");
    change(232, 1 << 62, "tail offset");
    change(232, 513, "tail offset");
    change(240, 0, "tail sequence is 0");
    change(240, u64::MAX, "tail sequence");
    change(248, u64::MAX, "durable is");
    change(256, u64::MAX, "opened is");
    // Both logs are as long as no journal may be.
    let longest = disk.copy();
    for offset in COPY_OFFSETS.map(|at| at as usize) {
        let mut bytes = longest.bytes(FileName::Superblock)[offset..offset + 512].to_vec();
        for at in [216, 264] {
            bytes[at..at + 8].copy_from_slice(&(1u64 << 48).to_le_bytes());
        }
        reseal(&mut bytes);
        longest.rot(FileName::Superblock, offset, &bytes);
    }
    damage(&longest, &["superblock", "journal size is 281474976710656", "it must be at most"]);
    // Values of differential mode, which contradict each other: in a device that never met a peer that knows
    // it, and in one that did.
    COPY_OFFSETS.iter().for_each(|offset| self::change(&disk, *offset, INCOMPAT, &[1]));
    let word = |at: usize| {
        let bytes = disk.bytes(FileName::Superblock);
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    change(8, word(8) | 1 << 16, "mode is 1, detached of an earlier program");
    // All but the mode lies above the feature words: the feature is not set, or it is.
    let unset = "incompat feature 0x2, which says so, is not set";
    change(8, word(8) | 2 << 16, unset);
    change(392, 1, unset);
    change(400, 1, unset);
    change(424, 1, unset);
    change(56, word(56) | 64, unset);
    change(491, 4096, unset);
    change(192, 1 << 40, "consat is");
    change(408, 1 << 40, "last active is");
    let change = |at: usize, bytes: &[u8], words: &str| {
        let disk = disk.copy();
        for offset in COPY_OFFSETS {
            self::change(&disk, offset, INCOMPAT, &[2]);
            self::change(&disk, offset, at, bytes);
        }
        damage(&disk, &["superblock", words]);
    };
    change(490, &[2], "in slot 2, and no file of a table is so");
    change(491, &[1], "the table is said to have 1 bytes");
    change(492, &[16], "mode is ordered, but the table has 4096 bytes");
    change(499, &[9], "the table is said to have 0 bytes of checksum 0000000000000009");
    // The last generation there is: it opens no more, and says so.
    let disk = disk.copy();
    for offset in COPY_OFFSETS.map(|at| at as usize) {
        let mut bytes = disk.bytes(FileName::Superblock)[offset..offset + 512].to_vec();
        bytes[24..32].fill(0xff);
        reseal(&mut bytes);
        disk.rot(FileName::Superblock, offset, &bytes);
    }
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("no generation follows 2^64 - 1"), "{error}");
}

/// The disk of a device that served, with `bytes` at `at` in both copies, and their checksums right.
fn changed(at: usize, new: &[u8]) -> Arc<CrashDisk> {
    let mut world = World::new();
    world.acts(&[Write(A, 0, 1), Flush(A)]);
    world.crash(A, Cut::Synced);
    let disk = world.disks[A].copy();
    COPY_OFFSETS.iter().for_each(|offset| change(&disk, *offset, at, new));
    disk
}

fn change(disk: &CrashDisk, offset: u64, at: usize, new: &[u8]) {
    let offset = offset as usize;
    let mut bytes = disk.bytes(FileName::Superblock)[offset..offset + 512].to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    reseal(&mut bytes);
    disk.rot(FileName::Superblock, offset, &bytes);
}

/// Refuses to open `disk`, changes nothing, and says `words`.
fn refused(disk: &Arc<CrashDisk>, words: &str) {
    let before = disk.bytes(FileName::Superblock);
    let error = open(disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Config, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().contains("superblock"), "{error}");
    assert!(disk.bytes(FileName::Superblock) == before, "changed");
}

const COMPAT: usize = 312;
const RO_COMPAT: usize = 320;
const INCOMPAT: usize = 328;

#[test]
fn an_unknown_incompat_feature_is_refused_by_its_bits() {
    let disk = changed(INCOMPAT, &[0b1001]);
    refused(&disk, "incompat features 0x8 are of a later version");
    assert_eq!(superblock::load(&*disk).unwrap_err().kind(), Kind::Config);
}

#[test]
fn an_unknown_ro_compat_feature_may_be_looked_at_and_not_served() {
    let disk = changed(RO_COMPAT, &[0, 1]);
    refused(&disk, "ro_compat features 0x100 are of a later version");
    let superblock = superblock::load(&*disk).unwrap();
    assert_eq!(superblock.features.ro_compat, 0x100);
}

/// D8: a device is opened in the mode in which it ended, and what is said of its volumes stays.
#[test]
fn a_device_is_opened_in_every_mode_with_usable_volumes_or_not() {
    const FENCED: u8 = 1;
    const UNUSABLE: u8 = 16;
    const OWED: u8 = 64;
    for (number, mode, flags) in [
        (0, Mode::Ordered, 0),
        (2, Mode::Copying, FENCED | UNUSABLE),
        (3, Mode::Collecting, FENCED),
        (3, Mode::Collecting, 0),
        (3, Mode::Collecting, UNUSABLE | OWED),
        (4, Mode::Sending, FENCED | UNUSABLE),
        (4, Mode::Sending, 0),
    ] {
        let disk = changed(10, &[number]);
        COPY_OFFSETS.iter().for_each(|offset| change(&disk, *offset, 56, &[flags]));
        let device = open(&disk).unwrap();
        let is_usable = flags & UNUSABLE == 0;
        let status = device.status();
        assert_eq!((status.mode, status.differential.is_consistent), (mode, is_usable));
        let refused = device.resume_alone().map_err(|e| e.kind()).err();
        match flags {
            _ if flags & FENCED != 0 => assert_eq!(refused, Some(Kind::Fenced)),
            _ if flags & OWED != 0 => assert_eq!(refused, Some(Kind::NotProven)),
            _ => assert_eq!(refused, None),
        }
        device.close().unwrap();
        drop(device);
        let superblock = superblock::load(&*disk).unwrap();
        assert_eq!((superblock.mode, superblock.usable), (mode, is_usable));
        assert_eq!(superblock.owed, flags & OWED != 0);
    }
}

/// Every update writes back what it does not know, and what has no logic yet.
#[test]
fn unknown_compat_features_and_reserved_fields_are_kept() {
    let mut fields = [0; 512 - COMPAT];
    fields.iter_mut().zip(1..).for_each(|(byte, k)| *byte = k);
    fields[RO_COMPAT - COMPAT..][..16].fill(0);
    // Zero in a device that was never in differential mode, or forced: round, cut, flag 64, annex, table.
    for zero in [392..408, 424..456, 489..507] {
        fields[zero.start - COMPAT..zero.end - COMPAT].fill(0);
    }
    fields[408 - COMPAT..416 - COMPAT].copy_from_slice(&1u64.to_le_bytes());
    // `whole` of a tenure that was known.
    fields[24..32].copy_from_slice(&1u64.to_le_bytes());
    let disk = changed(COMPAT, &fields);
    COPY_OFFSETS.iter().for_each(|offset| change(&disk, *offset, 56, &[4 | 32]));
    let before = superblock::load(&*disk).unwrap();
    let device = open(&disk).unwrap();
    device.checkpoint_now().unwrap();
    device.close().unwrap();
    // Each opening says whose cache it found, and that no write has completed since.
    fields[456 - COMPAT..488 - COMPAT].fill(0);
    fields[488 - COMPAT] = 1;
    let bytes = disk.bytes(FileName::Superblock);
    for offset in COPY_OFFSETS.map(|offset| offset as usize) {
        assert!(bytes[offset + COMPAT..offset + 512] == fields, "copy at {offset}");
    }
    let after = superblock::load(&*disk).unwrap();
    assert!(after.generation > before.generation && after.clean);
    assert!(after.lost.is_some() && after.features.compat != 0, "{after:?}");
}

/// A later version wrote one copy and lost its power: only it knows what the other one is worth.
#[test]
fn a_copy_of_a_later_version_is_not_gone_on_from() {
    for offset in COPY_OFFSETS {
        let disk = changed(0, b"A");
        change(&disk, offset, 8, &[4]);
        refused(&disk, "version is 4, this program reads up to 3");
        let disk = changed(0, b"A");
        change(&disk, offset, INCOMPAT, &[8]);
        refused(&disk, "incompat features 0x8");
        // Rot is no version.
        let disk = changed(0, b"A");
        disk.rot(FileName::Superblock, offset as usize + 8, &[4]);
        open(&disk).unwrap();
    }
}

/// The index of a segment has 32 bits: one more segment would have been the first one again.
#[test]
fn a_group_has_no_more_segments_than_its_table_holds() {
    let create = |segments: u64| {
        let volumes = vec![VolumeSpec { id: 3, bytes: segments * 65_536 }];
        let geometry = Geometry { segment_bytes: 65_536, ..Geometry::new(7, 1, volumes) };
        Device::create(&Memory::new(), &geometry, true)
    };
    create(SEGMENTS_MAX).unwrap();
    let refused = create(SEGMENTS_MAX + 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Config);
    assert!(
        refused.to_string().contains("16777217 segments of 65536 bytes, 16777216 at most"),
        "{refused}"
    );
}
