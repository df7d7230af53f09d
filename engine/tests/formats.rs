//! Every structure on disk and on the wire, held to its golden bytes (`docs/format.md`).
//!
//! The files under `golden/` were made from the byte tables by another program than the one they
//! test. They must decode to the values written here, which must encode to the same bytes;
//! and every single changed byte must be refused. Other values and other inputs: `formats_random.rs`.
#![cfg(not(loom))]

#[allow(dead_code)]
mod golden;
mod reseal;

use afterimage::internal::format::batch::{Header, Log, ROWS_MAX};
use afterimage::internal::format::frame::{
    COPIES_MAX, FRAME_BYTES_MAX, Frame, Ladder, RUNS_MAX, ShipBuilder, TablePiece, WIRE,
};
use afterimage::internal::format::planned::Planned;
use afterimage::internal::format::superblock::{History, Superblock};
use afterimage::internal::format::{data_checksum, segments, superblock, table};
use afterimage::internal::format::{image, salvage};
use afterimage::internal::unit::{Blocks, Stamp};
use golden::values::*;
use golden::{golden, reseal_frame, version_of};
use reseal::reseal;

/// Each byte of `bytes` changed in three ways: one bit at either end, and all of them.
fn single_changes(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    let step = if cfg!(miri) { 97 } else { 1 };
    (0..bytes.len()).step_by(step).flat_map(move |at| {
        [0x01, 0x80, 0xff].map(|change| {
            let mut changed = bytes.to_vec();
            changed[at] ^= change;
            (at, changed)
        })
    })
}

#[test]
fn golden_superblock() {
    let (bytes, volumes) = (golden("superblock"), golden("volumes"));
    assert_eq!(Superblock::decode(&bytes, &volumes), Ok(golden::values::superblock()));
    assert_eq!(golden::values::superblock().encode()[..], bytes);
}

#[test]
fn golden_annex() {
    let bytes = golden("annex");
    assert_eq!(History::decode(&bytes), Ok(golden::values::history()));
    assert_eq!(golden::values::history().encode(), bytes);
}

#[test]
fn golden_table() {
    let bytes = golden("table");
    let owner = table::Owner { group: GROUP, device: 2 };
    let (encoded, sum) = owner.encode(golden::values::table().into_iter());
    assert_eq!(encoded, bytes);
    assert_eq!(owner.decode(&bytes, sum), Ok(golden::values::table().to_vec()));
    for (at, changed) in single_changes(&bytes) {
        assert!(owner.decode(&changed, sum).is_err(), "byte {at}");
    }
}

/// A superblock of version 2 is read, and the next update writes version 3.
#[test]
fn golden_superblock_of_version_2() {
    let (bytes, volumes) = (golden("superblock_2"), golden("volumes"));
    assert_eq!(Superblock::decode(&bytes, &volumes), Ok(superblock_2()));
    let rewritten = superblock_2().encode();
    assert_eq!(rewritten[8..10], superblock::VERSION.to_le_bytes());
    assert_eq!(Superblock::decode(&rewritten, &volumes), Ok(superblock_2()));
    // The flags of version 3 mean nothing there.
    let mut flagged = bytes.clone();
    flagged[56] |= 32;
    reseal(&mut flagged);
    let refused = Superblock::decode(&flagged, &volumes).expect_err("version 2 has no such flag");
    assert!(refused.contains("0x20 mean nothing"), "{refused}");
}

/// Fields that a later version puts behind those of this one are passed over in a hello; what an
/// earlier one left out reads as zero.
#[test]
fn a_hello_may_be_longer_or_shorter() {
    let bytes = golden("frame_hello");
    let (fixed_at, volumes_at) = (32 + 16, 32 + 16 + 224);
    let resized = |fixed: usize, behind: usize| {
        let mut frame = bytes[..fixed_at].to_vec();
        frame[36..40].copy_from_slice(&(fixed as u32).to_le_bytes());
        frame.extend(bytes[fixed_at..volumes_at].iter().chain(&[0xee; 99]).take(fixed));
        frame.extend(&bytes[volumes_at..]);
        frame.extend(vec![0xdd; behind]);
        let body = (frame.len() - 32) as u64;
        frame[8..16].copy_from_slice(&body.to_le_bytes());
        reseal_frame(&mut frame);
        match Frame::decode(&frame).expect("a hello") {
            (SESSION, Frame::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    };
    let Frame::Hello(whole) = frame("frame_hello", &[]) else { panic!("not a hello") };
    assert_eq!(resized(224, 0), whole);
    assert_eq!(resized(224 + 99, 1000), whole);
    let shorter = resized(224 - 32, 0);
    assert!(shorter.ancestors.is_empty());
    assert_eq!((shorter.told, shorter.told_max, shorter.lost), (Stamp::ZERO, 0, whole.lost));
    assert_eq!(shorter.volumes, whole.volumes);
}

/// The frozen prefix: of a hello in wire versions that this program does not speak, everything
/// behind it may mean anything, and the refusal names both ranges.
#[test]
fn a_hello_of_other_wire_versions_names_both_ranges() {
    for (min, max) in [(WIRE.max + 1, WIRE.max + 4), (1, WIRE.min - 1)] {
        let mut bytes = golden("frame_hello");
        bytes[32..34].copy_from_slice(&u16::to_le_bytes(min));
        bytes[34..36].copy_from_slice(&u16::to_le_bytes(max));
        bytes.truncate(32 + 16 + 3);
        bytes[8..16].copy_from_slice(&19u64.to_le_bytes());
        reseal_frame(&mut bytes);
        let refused = Frame::decode(&bytes).expect_err("no version in common").to_string();
        let story = format!("the peer speaks wire versions {min} to {max}, this device {WIRE}");
        assert!(refused.contains(&story), "{refused}");
    }
}

#[test]
fn golden_volumes() {
    assert_eq!(
        Superblock::encode_volumes(&golden::values::superblock().volumes),
        golden("volumes")
    );
}

#[test]
fn golden_segments() {
    let made = [3968, 3977, 7935];
    let bytes: [u8; 512] = golden("segments").try_into().expect("a sector");
    assert_eq!(segments::encode(1, made), bytes);
    assert_eq!(segments::decode(1, &bytes), Ok(made.to_vec()));
    assert!(segments::decode(0, &bytes).is_err_and(|e| e.contains("sector 1")));
    for bit in 0..4096 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(segments::decode(1, &changed).is_err(), "bit {bit}");
    }
}

/// The last consistent image: its page, and a chunk of saved blocks.
#[test]
fn golden_image() {
    let (origin, point, entries, data) = golden::values::image();
    let mut bytes = image::encode(&origin, point);
    assert_eq!(image::decode(&bytes), Ok((origin, point)));
    bytes.extend(salvage::encode(&origin, point.at, &entries, &data));
    let golden = golden("image");
    assert_eq!(bytes, golden);
    let chunk = salvage::decode(&golden[4096..]).expect("a chunk");
    assert_eq!((chunk.origin, chunk.saved_at, chunk.bytes), (origin, point.at, 4096));
    assert_eq!(chunk.entries.iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), entries);
    assert_eq!(chunk.entries[0].1, 80 + 2 * 52);
}

#[test]
fn golden_batches() {
    for (name, log) in [("batch_own", Log::Own), ("batch_recv", Log::Recv)] {
        let bytes = golden(name);
        assert_eq!(Header::decode(&bytes, 512), Ok(Some(batch(log))), "{name}");
        assert_eq!(batch(log).encode(512)[..], bytes, "{name}");
    }
}

#[test]
fn golden_frames() {
    let data = data();
    for name in FRAMES {
        let bytes = golden(name);
        let (session, decoded) = Frame::decode(&bytes).expect(name);
        assert_eq!((session, &decoded), (SESSION, &frame(name, &data)), "{name}");
        assert_eq!(frame(name, &data).encode_in(version_of(&bytes), SESSION), bytes, "{name}");
    }
}

/// The two files of a planned move, with golden frames in them.
#[test]
fn golden_planned_move() {
    for (name, file, frames) in [
        ("planned_request", Planned::Request, &["frame_hello", "frame_takeover"][..]),
        ("planned_grant", Planned::Grant, &["frame_hello", "frame_prototype", "frame_grant_table"]),
    ] {
        let bytes = golden(name);
        let frames: Vec<Vec<u8>> = frames.iter().map(|name| golden(name)).collect();
        assert_eq!(file.decode(&bytes).unwrap(), frames, "{name}");
        assert_eq!(file.encode(&frames), bytes, "{name}");
        for (at, changed) in single_changes(&bytes) {
            assert!(file.decode(&changed).is_err(), "{name}, byte {at}");
        }
    }
}

/// Fuzzing begins at the golden bytes of what it decodes.
#[test]
fn golden_bytes_are_seeds_of_the_fuzz_targets() {
    let headers = ["batch_own", "table", "planned_request", "planned_grant"];
    let all = FRAMES.iter().map(|name| ("frame", name));
    for (target, name) in all.chain(headers.iter().map(|name| ("headers", name))) {
        let seed = format!("{}/../fuzz/seeds/{target}/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&seed).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert!(bytes == golden(name), "{seed} is not the golden one");
    }
}

#[test]
fn golden_ship_from_its_builder() {
    for (version, name) in [(3, "frame_ship"), (4, "frame_ship_4")] {
        let mut ship = ShipBuilder::new(version, SESSION, ROUND, FL, 10, &shipped(), 512);
        ship.block(512).copy_from_slice(&data());
        assert_eq!(ship.finish(), golden(name));
    }
}

/// A table of any size goes out in pieces that follow each other and fit into frames.
#[test]
fn a_table_is_cut_into_pieces() {
    let apart =
        |at: u64| Blocks { volume: at as u32 * 9999, numbers: (1 << 52) - at..(1 << 52) + at };
    for count in [0, 1, RUNS_MAX, RUNS_MAX + 1, 2 * RUNS_MAX] {
        let table: Vec<_> = (1..=count as u64).map(apart).collect();
        let (mut runs, mut gathered, mut pieces) = (table.iter().cloned().peekable(), vec![], 0);
        let mut from = TablePiece::FIRST;
        loop {
            let piece = TablePiece::next(from, &mut runs);
            let (round, cut, told, is_consistent) = (ROUND, CUT, TOLD, false);
            let opened = Ladder::Opened { round, cut, told, is_consistent, piece };
            let opened = Frame::Ladder(opened);
            let bytes = opened.encode(SESSION);
            assert!(bytes.len() <= FRAME_BYTES_MAX);
            let decoded = Frame::decode(&bytes).expect("just encoded").1;
            assert_eq!(decoded, opened);
            let Frame::Ladder(Ladder::Opened { piece, .. }) = decoded else {
                panic!("{decoded:?}")
            };
            gathered.extend(piece.runs);
            (from, pieces) = (piece.to, pieces + 1);
            if piece.is_last {
                break;
            }
        }
        assert_eq!(pieces, count.div_ceil(RUNS_MAX).max(1));
        assert_eq!((from, gathered), (TablePiece::END, table));
    }
    let blocks = (1..=RUNS_MAX as u64 + 1).map(apart).collect();
    let many = Frame::Ladder(Ladder::CopyAck { round: ROUND, blocks }).encode(SESSION);
    assert!(Frame::decode(&many).expect_err("too many").to_string().contains("runs of blocks"));
}

#[test]
fn copies_fit_into_a_frame() {
    let copy = |copies: usize| {
        let (copies, data) =
            (vec![golden::values::copies()[1]; copies], &vec![1; 512 * COPIES_MAX][..]);
        Frame::Ladder(Ladder::Copy { round: ROUND, said: TOLD, copies, data }).encode(SESSION)
    };
    assert!(Frame::decode(&copy(COPIES_MAX)).is_ok());
    let refused = Frame::decode(&copy(COPIES_MAX + 1)).expect_err("too many").to_string();
    assert!(refused.contains("2049 copies, more than the 2048"), "{refused}");
}

#[test]
fn checksums_fit_into_a_frame() {
    let sums = |count: usize| {
        let blocks = vec![Blocks { volume: 1, numbers: 5..5 + count as u64 }];
        let (round, sums) = (ROUND, vec![7; count]);
        Frame::Ladder(Ladder::Sums { round, said: TOLD, blocks, sums }).encode(SESSION)
    };
    assert!(Frame::decode(&sums(COPIES_MAX)).is_ok());
    let refused = Frame::decode(&sums(COPIES_MAX + 1)).expect_err("too many").to_string();
    assert!(refused.contains("of 2049 blocks, more than the 2048"), "{refused}");
}

#[test]
fn a_changed_superblock_is_refused() {
    let (bytes, volumes) = (golden("superblock"), golden("volumes"));
    for (at, changed) in single_changes(&bytes) {
        assert!(Superblock::decode(&changed, &volumes).is_err(), "byte {at}");
    }
    for (at, changed) in single_changes(&volumes) {
        assert!(Superblock::decode(&bytes, &changed).is_err(), "byte {at} of the volumes");
    }
    for length in 0..bytes.len() {
        assert!(Superblock::decode(&bytes[..length], &volumes).is_err(), "{length} bytes");
    }
    for length in 0..volumes.len() {
        assert!(Superblock::decode(&bytes, &volumes[..length]).is_err(), "{length} of the volumes");
    }
}

#[test]
fn a_changed_batch_is_refused() {
    for name in ["batch_own", "batch_recv"] {
        let bytes = golden(name);
        for (at, changed) in single_changes(&bytes) {
            assert!(Header::decode(&changed, 512).is_err(), "{name}, byte {at}");
        }
        for length in (0..bytes.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
            assert!(Header::decode(&bytes[..length], 512).is_err(), "{name}, {length} bytes");
        }
        // A reader with another block size would look for the data elsewhere.
        assert!(Header::decode(&bytes, 4096).is_err(), "{name}");
    }
    assert_eq!(Header::decode(&[0; 4096], 512), Ok(None), "nothing was ever written here");
}

#[test]
fn a_changed_frame_is_refused_or_its_data_known_bad() {
    for name in FRAMES {
        let bytes = golden(name);
        let covered = match frame(name, &data()) {
            Frame::ReadReply { data, .. }
            | Frame::Ship { data, .. }
            | Frame::Ladder(Ladder::Copy { data, .. }) => bytes.len() - data.len(),
            _ => bytes.len(),
        };
        for (at, changed) in single_changes(&bytes) {
            match Frame::decode(&changed) {
                Err(_) => assert!(at < covered, "{name}: byte {at} is data, which rows protect"),
                Ok((_, Frame::Ship { data, records, .. })) if at >= covered => {
                    assert_ne!(data_checksum(data), records[0].row.checksum, "{name}, byte {at}");
                }
                Ok((_, Frame::Ladder(Ladder::Copy { data, copies, .. }))) if at >= covered => {
                    assert_ne!(data_checksum(data), copies[0].checksum, "{name}, byte {at}");
                }
                Ok((_, Frame::ReadReply { data, rows, .. })) if at >= covered => {
                    let row = rows.iter().flatten().next().expect("it has data");
                    assert_ne!(data_checksum(data), row.checksum, "{name}, byte {at}");
                }
                Ok(_) => panic!("{name}: byte {at} was changed and nobody noticed"),
            }
        }
        for length in 0..covered {
            assert!(Frame::decode(&bytes[..length]).is_err(), "{name}, {length} bytes");
        }
    }
}

/// Fields that no encoder writes, under a checksum that is right.
#[test]
fn impossible_fields_are_refused() {
    let volumes = golden("volumes");
    let superblock = |at: usize, new: &[u8]| {
        let mut bytes = golden("superblock");
        bytes[at..at + new.len()].copy_from_slice(new);
        reseal(&mut bytes);
        Superblock::decode(&bytes, &volumes).expect_err("impossible")
    };
    assert!(superblock(8, &[4]).contains("version is 4, this program reads 2 and 3"));
    assert!(superblock(0, b"AFTSUPES").contains("expected magic \"AFTSUPER\", found \"AFTSUPES\""));
    assert!(superblock(76, &[3]).contains("table of volumes has version 3"));
    assert!(superblock(328, &[0b1001]).contains("incompat features 0x8 "));
    assert!(superblock(10, &[1]).contains("mode is 1, detached of an earlier program, not 0"));
    assert!(
        superblock(10, &[5]).contains("mode is 5, not 0 (ordered), 2 (copying), 3 (collecting)")
    );
    assert!(superblock(72, &4u32.to_le_bytes()).contains("table of volumes"));
    assert!(superblock(72, &u32::MAX.to_le_bytes()).contains("table of volumes"));
    let batch = |at: usize, new: &[u8]| {
        let mut bytes = golden("batch_own");
        bytes[at..at + new.len()].copy_from_slice(new);
        reseal(&mut bytes);
        Header::decode(&bytes, 512).expect_err("impossible")
    };
    assert!(batch(8, &[3]).contains("version is 3, this program reads 2"));
    assert!(batch(0, b"\0").contains("expected magic \"AFTBATCH\", found \"\\x00FTBATCH\""));
    assert!(batch(10, &[3]).contains("log is 3"));
    assert!(batch(12, &[0]).contains("rows is 0"));
    assert!(batch(12, &[ROWS_MAX as u8 + 1]).contains("rows is 63"));
    assert!(batch(40, &u64::MAX.to_le_bytes()).contains("which no record has"));
    assert!(batch(76, &1024u32.to_le_bytes()).contains("data_bytes is 1024"));
    assert!(batch(128, &[0]).contains("row 0: epoch is 0"));
    assert!(batch(176, &2u32.to_le_bytes()).contains("row 0: index 2"));
    assert!(batch(180, &(1u32 << 31).to_le_bytes()).contains("row 0: count 2147483648"));
    assert!(batch(184, &[0]).contains("row 0: content is 0"));
    let frame = |name: &str, at: usize, new: &[u8]| {
        let mut bytes = golden(name);
        bytes[at..at + new.len()].copy_from_slice(new);
        reseal_frame(&mut bytes);
        Frame::decode(&bytes).expect_err("impossible").to_string()
    };
    assert!(
        frame("frame_busy", 4, &[9])
            .contains("speaks wire version 9, this device wire versions 3 to 4")
    );
    assert!(frame("frame_busy", 0, b"X").contains("expected magic \"AFTF\", found \"XFTF\""));
    assert!(frame("frame_busy", 6, &[21]).contains("kind 21, which wire version 3 does not have"));
    assert!(frame("frame_level", 6, &[22]).contains("kind 22, which wire version 4 does not have"));
    assert!(frame("frame_level", 4, &[3]).contains("kind 20, which wire version 3 does not have"));
    assert!(frame("frame_takeover_4", 4, &[3]).contains("too many"));
    assert!(frame("frame_takeover", 4, &[4]).contains("ends early"));
    let high = (1u64 << 63).to_le_bytes();
    for at in [80, 88, 104, 112] {
        assert!(frame("frame_takeover_4", at, &high).contains("of 2^63 or more"), "{at}");
    }
    assert!(frame("frame_takeover_4", 76, &[5]).contains("mode is 5"));
    assert!(frame("frame_hello", 188, &high).contains("of 2^63 or more"));
    assert!(frame("frame_open", 52, &high).contains("of 2^63 or more"));
    assert!(frame("frame_told", 48, &high).contains("of 2^63 or more"));
    assert!(frame("frame_ship_4", 60, &high).contains("of 2^63 or more"));
    assert!(frame("frame_end", 48, &high).contains("of 2^63 or more"));
    assert!(frame("frame_copy_ack", 48, &u32::MAX.to_le_bytes()).contains("claims 4294967295"));
    assert!(frame("frame_copy_ack", 48, &[4]).contains("the entries end early"));
    assert!(frame("frame_copy_ack", 48, &[2]).contains("too many"));
    assert!(frame("frame_sums", 48, &high).contains("of 2^63 or more"));
    assert!(frame("frame_sums", 67, &[3]).contains("ends early"));
    // The runs begin with 7:2^40, and end with 9:4.
    assert!(frame("frame_opened", 80, &[8]).contains("from 8:5 to before 9:1000"));
    assert!(frame("frame_opened", 96, &4u64.to_le_bytes()).contains("on to before 9:5"));
    assert!(frame("frame_opened", 92, &[7]).contains("from 7:5 to before 7:1000"));
    assert!(frame("frame_copy", 56, &[3]).contains("3 items of 32 bytes"));
    assert!(frame("frame_copy", 72, &[2]).contains("data and 2 blocks"));
    assert!(frame("frame_copy", 80, &[2]).contains("content 2"));
    assert!(frame("frame_copy", 84 + 20, &[0; 8]).contains("has no block"));
    assert!(frame("frame_copy", 84 + 20, &[0xff; 8]).contains("a volume at most"));
    assert!(frame("frame_copy", 84 + 32, &[1]).contains("zeros and checksum"));
    assert!(frame("frame_busy", 8, &[7]).contains("ends early"));
    assert!(frame("frame_takeover", 6, &[4]).contains("too many"));
    assert!(frame("frame_hello", 96, &[1]).contains("mode is 1, detached of an earlier program"));
    assert!(frame("frame_hello", 96, &[5]).contains("mode is 5, not 0 (ordered)"));
    assert!(frame("frame_prototype", 80, &u32::MAX.to_le_bytes()).contains("claims 4294967295"));
    assert!(frame("frame_ship", 60, &3u32.to_le_bytes()).contains("claims 3"));
}
