//! Every structure on disk and on the wire, as any values may have it: it survives its bytes, and no input makes a
//! decoder panic, not even one whose checksums are right. The golden bytes are in `formats.rs`.
#![cfg(not(loom))]

#[allow(dead_code)]
mod golden;
mod reseal;

use afterimage::internal::format::batch::{Header, Identity, Log, ROWS_MAX};
use afterimage::internal::format::frame::{Copied, Frame, Ladder, Requester, Shipped, TablePiece};
use afterimage::internal::format::superblock::{
    Annex, Features, History, LogState, Lost, REST, SEQUENCE_MAX, Superblock, TableRef, VolumeSpec,
};
use afterimage::internal::format::{Row, image, salvage};
use afterimage::internal::unit::{Block, Blocks, Extent, Mode, Round, Stamp};
use golden::values::*;
use golden::{golden, reseal_frame, version_of};
use proptest::prelude::*;
use reseal::reseal;

fn any_stamp() -> impl Strategy<Value = Stamp> {
    any::<(u64, u64, u32)>().prop_map(|(epoch, time, sequence)| Stamp { epoch, time, sequence })
}

fn any_block() -> impl Strategy<Value = Block> {
    any::<(u32, u64)>().prop_map(|(volume, number)| Block { volume, number })
}

/// Most of one block.
fn any_extent() -> impl Strategy<Value = Extent> {
    let level = prop_oneof![3 => Just(0), 1 => 0..=Extent::LEVEL_MAX];
    (any_block(), level).prop_map(|(block, level)| Extent::around(block, level))
}

fn any_row() -> impl Strategy<Value = Row> {
    (any_stamp(), any_extent(), any::<(u64, u32, u32, bool)>()).prop_map(
        |(stamp, extent, (checksum, index, count, has_data))| Row {
            stamp: Stamp { epoch: stamp.epoch.max(1), ..stamp },
            block: extent.first,
            level: extent.level,
            checksum,
            index: index % Row::COUNT_MAX,
            count: (count % Row::COUNT_MAX + 1).max(index % Row::COUNT_MAX + 1),
            has_data: has_data && extent.level == 0,
        },
    )
}

fn any_log() -> impl Strategy<Value = LogState> {
    any::<[u64; 6]>().prop_map(
        |[bytes, incarnation, tail_offset, tail_sequence, durable, opened]| LogState {
            bytes,
            incarnation,
            tail_offset,
            tail_sequence,
            durable,
            opened,
        },
    )
}

/// An unknown incompat feature is refused.
fn any_features() -> impl Strategy<Value = Features> {
    any::<(u64, u64)>().prop_map(|(compat, ro_compat)| Features { compat, ro_compat, incompat: 0 })
}

fn any_lost() -> impl Strategy<Value = Lost> {
    (any_stamp(), any::<(u64, u64)>()).prop_map(|(first, (since, found))| Lost {
        first,
        since,
        found,
    })
}

fn any_annex() -> impl Strategy<Value = Annex> {
    any::<(u8, u32, u64)>().prop_map(|(slot, bytes, checksum)| Annex { slot, bytes, checksum })
}

prop_compose! {
    fn any_superblock()(
        (generation, group, device, epoch, lineage) in any::<(u64, u128, u64, u64, (u64, u64))>(),
        mode in any_mode(),
        [fenced, clean, prefer, resume_alone, usable] in any::<[bool; 5]>(),
        (block_size, segment_bytes) in any::<(u32, u64)>(),
        [hi, acked, need, fl, consat] in prop::array::uniform5(any_stamp()),
        (own, recv) in (any_log(), any_log()),
        (features, annex) in (any_features(), any_annex()),
        [whole, cut] in prop::array::uniform2(any_stamp()),
        lost in prop::option::of(any_lost()),
        (generation_of_round, counter, last_active, peer) in any::<(u64, u64, u64, u64)>(),
        table in any::<(u8, u64, u64)>(),
        (owed, image, fenced_here) in any::<(bool, bool, bool)>(),
        (cache_identity, weakest, rest) in any::<([u8; 32], u8, [u8; REST])>(),
        volumes in prop::collection::vec(any::<(u32, u64)>(), 0..9),
    ) -> Superblock {
        let volumes = volumes.into_iter().map(|(id, bytes)| VolumeSpec { id, bytes }).collect();
        let round = Round { generation: generation_of_round, counter };
        let (slot, bytes, checksum) = table;
        let table = TableRef { slot, bytes, checksum };
        Superblock {
            generation, group, device, mode, fenced, clean, prefer, resume_alone, usable,
            block_size, segment_bytes, epoch, lineage, hi, acked, need, fl, consat, features, whole,
            lost, round, last_active, peer, cut, owed, image, cache_identity, weakest, annex, table,
            rest, fenced_here, history: History::default(), own, recv, volumes,
        }
    }
}

/// The next one exists, too.
fn any_round() -> impl Strategy<Value = Round> {
    let number = || prop_oneof![0..9u64, 0..1u64 << 63];
    (number(), number()).prop_map(|(generation, counter)| Round { generation, counter })
}

fn any_mode() -> impl Strategy<Value = Mode> {
    use Mode::*;
    prop::sample::select(vec![Ordered, Collecting, Sending, Copying])
}

fn any_requester() -> impl Strategy<Value = Requester> {
    let counts = (any::<u64>(), 0..1u64 << 63, 0..1u64 << 63);
    (any_mode(), any_round(), counts).prop_map(|(mode, round, counts)| {
        let (last_active, generation, told) = counts;
        Requester { mode, round, last_active, generation, told }
    })
}

/// In rising order, none next to another.
fn any_runs() -> impl Strategy<Value = Vec<Blocks>> {
    let start = prop_oneof![0..60u64, 0..(1u64 << 53) - 99];
    let run = (prop_oneof![0..3u32, any::<u32>()], start, 1..9u64);
    let run =
        run.prop_map(|(volume, start, count)| Blocks { volume, numbers: start..start + count });
    prop::collection::vec(run, 0..30).prop_map(|mut runs| {
        runs.sort_by_key(Blocks::first);
        runs.dedup_by(|next, run| {
            next.volume == run.volume && next.numbers.start <= run.numbers.end
        });
        runs
    })
}

/// As close around its runs as may be, or of all addresses.
fn any_piece() -> impl Strategy<Value = TablePiece> {
    (any_runs(), any::<[bool; 3]>()).prop_map(|(runs, [begins, ends, is_last])| TablePiece {
        from: runs.first().filter(|_| begins).map_or(TablePiece::FIRST, Blocks::first),
        to: runs.last().filter(|_| ends).map_or(TablePiece::END, |run| run.range().end),
        runs,
        is_last,
    })
}

fn any_copied() -> impl Strategy<Value = Copied> {
    let block = (any::<u32>(), 0..1u64 << 52);
    (block, 1..1u64 << 52, any::<(bool, u64)>()).prop_map(
        |((volume, number), count, (has_data, checksum))| Copied {
            block: Block { volume, number },
            count: if has_data { 1 } else { count },
            has_data,
            checksum: if has_data { checksum } else { 0 },
        },
    )
}

/// A golden structure with some of its bytes replaced.
fn mutated(names: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9);
    (prop::sample::select(names), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(name, changes, length, cut)| {
            let mut bytes = golden(name);
            for (at, value) in changes {
                // Most of a page is zeros: half of the changes go where the fields are.
                let fields = bytes.len().min(if value & 1 == 0 { 300 } else { usize::MAX });
                bytes[at.index(fields)] = value;
            }
            if cut {
                bytes.truncate(length.index(bytes.len() + 1));
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_superblock_survives_its_bytes(superblock in any_superblock()) {
        let volumes = Superblock::encode_volumes(&superblock.volumes);
        prop_assert_eq!(Superblock::decode(&superblock.encode()[..], &volumes), Ok(superblock));
    }

    #[test]
    fn any_batch_survives_its_bytes(
        rows in prop::collection::vec(any_row(), 1..=ROWS_MAX),
        own in any::<bool>(),
        (group, device, incarnation) in any::<(u128, u64, u64)>(),
        [synced, offset, opened] in any::<[u64; 3]>(),
        sequence in 1..=SEQUENCE_MAX,
        previous in any_stamp(),
        shift in 9..17u32,
    ) {
        let log = if own { Log::Own } else { Log::Recv };
        let identity = Identity { group, log, device, incarnation };
        let header = Header { identity, sequence, synced, offset, opened, previous, rows };
        let page = header.encode(1 << shift);
        prop_assert_eq!(Header::decode(&page[..], 1 << shift), Ok(Some(header)));
    }

    #[test]
    fn any_ship_survives_its_bytes(
        records in prop::collection::vec((any_row(), any_stamp(), any::<bool>()), 0..70),
        previous in any_stamp(),
        [session, granted] in any::<[u64; 2]>(),
        (version, round) in (3..=4u16, any_round()),
        data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let records = records.into_iter().map(|(row, left, total_remaining)| {
            Shipped { row, remaining: (left != Stamp::ZERO).then_some(left), total_remaining }
        });
        let round = if version == 3 { Round::default() } else { round };
        let records = records.collect();
        let ship = Frame::Ship { round, previous, granted, records, data: &data };
        let bytes = ship.encode_in(version, session);
        prop_assert_eq!(Frame::decode(&bytes).expect("just encoded"), (session, ship));
    }

    #[test]
    fn any_takeover_survives_its_bytes(
        ([epoch, device, nonce, session], told) in (any::<[u64; 4]>(), any_stamp()),
        (version, requester) in (3..=4u16, any_requester()),
    ) {
        let ladder = (version == 4).then_some(requester);
        let takeover = Frame::Takeover { epoch, device, nonce, told, ladder };
        let bytes = takeover.encode_in(version, session);
        prop_assert_eq!(Frame::decode(&bytes).expect("just encoded"), (session, takeover));
    }

    #[test]
    fn any_frame_of_the_ladder_survives_its_bytes(
        (kind, round, mode, later) in (0..12, any_round(), any_mode(), any::<bool>()),
        ((generation, told), [nonce, grant, session]) in
            ((0..1u64 << 63, 0..1u64 << 63), any::<[u64; 3]>()),
        [cut, clk] in prop::array::uniform2(any_stamp()),
        (piece, copies) in (any_piece(), prop::collection::vec(any_copied(), 0..70)),
        data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (consistent_at, blocks) = (cut, piece.runs.clone());
        let ladder = Frame::Ladder(match kind {
            0 => Ladder::Open { round, mode, generation, cut, clk, told },
            1 => Ladder::Opened { round, cut, told, is_consistent: later, piece },
            2 => Ladder::GrantTable { nonce, grant, round, generation, later, told, piece },
            3 => Ladder::Copy { round, said: told, copies, data: &data },
            4 => Ladder::CopyAck { round, blocks },
            5 => Ladder::End { round, generation, consistent_at },
            6 => Ladder::EndAck { round },
            7 => Ladder::Level { round },
            8 => Ladder::Returned { nonce, piece },
            9 => Ladder::Differs { round, blocks },
            10 => {
                let count = blocks.iter().map(Blocks::count).sum::<u64>();
                let sums = (0..u128::from(count)).map(|n| n << 64 | u128::from(nonce)).collect();
                Ladder::Sums { round, said: told, blocks, sums }
            }
            _ => Ladder::Told { round, number: told, blocks },
        });
        let mut bytes = ladder.encode_in(4, session);
        prop_assert_eq!(Frame::decode(&bytes).expect("just encoded"), (session, ladder));
        bytes[4] = 3;
        reseal_frame(&mut bytes);
        let refused = Frame::decode(&bytes).expect_err("version 3 has none").to_string();
        prop_assert!(refused.contains("which wire version 3 does not have"), "{}", refused);
    }

    #[test]
    fn any_prototype_survives_its_bytes(
        entries in prop::collection::vec((any_extent(), any_stamp()), 0..100),
        ([nonce, grant, left, session], is_last) in any::<([u64; 4], bool)>(),
        previous in any_stamp(),
    ) {
        let piece = Frame::Prototype { nonce, grant, left, is_last, previous, entries };
        let bytes = piece.encode(session);
        prop_assert_eq!(Frame::decode(&bytes).expect("just encoded"), (session, piece));
    }

    #[test]
    fn no_input_makes_a_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 600 } else { 5000 }),
        size in any::<u32>(),
    ) {
        let _ = Superblock::decode(&bytes, &bytes);
        let _ = History::decode(&bytes);
        let _ = salvage::decode(&bytes);
        let _ = image::decode(&bytes);
        let _ = Header::decode(&bytes, size.into());
        let _ = Frame::decode(&bytes);
    }

    #[test]
    fn no_page_makes_a_decoder_panic(
        mut bytes in mutated(&PAGES),
        sealed in any::<bool>(),
        size in any::<u32>(),
    ) {
        if sealed {
            reseal(&mut bytes);
        }
        let volumes = golden("volumes");
        let same = PAGES.iter().any(|name| golden(name) == bytes);
        if let Ok(read) = Superblock::decode(&bytes, &volumes) {
            prop_assert!(sealed || same);
            prop_assert_eq!(Superblock::decode(&read.encode()[..], &volumes), Ok(read));
        }
        let _ = Header::decode(&bytes, size.into());
        if let Ok(Some(read)) = Header::decode(&bytes, 512) {
            prop_assert!(sealed || same);
            prop_assert_eq!(Header::decode(&read.encode(512)[..], 512), Ok(Some(read)));
        }
    }

    #[test]
    fn no_frame_makes_the_decoder_panic(mut bytes in mutated(&FRAMES), sealed in any::<bool>()) {
        if sealed {
            reseal_frame(&mut bytes);
        }
        if let Ok((session, read)) = Frame::decode(&bytes) {
            let again = read.encode_in(version_of(&bytes), session);
            prop_assert_eq!(Frame::decode(&again).expect("just encoded"), (session, read));
        }
    }
}
