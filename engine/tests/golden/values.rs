//! The values of the golden bytes.

use afterimage::internal::format::batch::{Header, Identity, Log};
use afterimage::internal::format::frame::{
    Copied, Frame, Hello, Ladder, Requester, Seen, Shipped, Sum, TablePiece, WireRange,
};
use afterimage::internal::format::salvage::{Origin, Saved};
use afterimage::internal::format::superblock::{
    Annex, Branch, Features, History, LogState, Lost, REST, Superblock, TableRef, VolumeSpec,
};
use afterimage::internal::format::{Row, data_checksum};
use afterimage::internal::unit::{Block, Blocks, Mode, Round, Stamp};

pub const SESSION: u64 = 0x1122_3344_5566_7788;
pub const GROUP: u128 = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
pub const LINEAGE: (u64, u64) = (3, 0xa1a2_a3a4_a5a6_a7a8);
pub const HI: Stamp = Stamp { epoch: 7, time: 1_700_000_000_000_000_001, sequence: 2 };
pub const ACKED: Stamp = Stamp { epoch: 6, time: 1_700_000_000_000_000_003, sequence: 4 };
pub const NEED: Stamp = Stamp { epoch: 8, time: 1_700_000_000_000_000_005, sequence: 6 };
pub const WHOLE: Stamp = Stamp { epoch: 7, time: 1_700_000_000_000_000_011, sequence: 12 };
pub const FL: Stamp = Stamp { epoch: 5, time: 1_700_000_000_000_000_007, sequence: 8 };
pub const CONSAT: Stamp = Stamp { epoch: 9, time: 1_700_000_000_000_000_009, sequence: 10 };
pub const CUT: Stamp = Stamp { epoch: 6, time: 1_700_000_000_000_000_013, sequence: 14 };
pub const LOST: Lost = Lost {
    first: Stamp { epoch: 8, time: 1_700_000_000_000_000_015, sequence: 16 },
    since: 1_700_000_000_000_000_017,
    found: 1_700_000_000_000_000_018,
};
pub const TOLD: u64 = 1_700_000_000_000_000_005;
pub const ROUND: Round = Round { generation: 3, counter: 19 };
/// A bit at either end.
pub const FEATURES: u64 = 1 << 63 | 1;
/// The golden structures of a page.
pub const PAGES: [&str; 4] = ["superblock", "superblock_2", "batch_own", "batch_recv"];
/// The golden frames.
pub const FRAMES: [&str; 29] = [
    "frame_announce",
    "frame_hello",
    "frame_takeover",
    "frame_prototype",
    "frame_busy",
    "frame_serving",
    "frame_offer",
    "frame_read_request",
    "frame_read_reply",
    "frame_read_reply_none",
    "frame_ack",
    "frame_ship",
    "frame_checksum_request",
    "frame_checksum_reply",
    "frame_checksum_reply_absent",
    "frame_takeover_4",
    "frame_ship_4",
    "frame_open",
    "frame_opened",
    "frame_grant_table",
    "frame_copy",
    "frame_copy_ack",
    "frame_end",
    "frame_end_ack",
    "frame_level",
    "frame_told",
    "frame_returned",
    "frame_sums",
    "frame_differs",
];

/// `image`: of when it is, and its blocks, one with data and five of zeros.
pub fn image() -> (Origin, afterimage::ImagePoint, Vec<Saved>, Vec<u8>) {
    let origin = Origin { group: GROUP, device: 2, lineage: LINEAGE, block_size: 512 };
    let mut point = afterimage::ImagePoint::default();
    (point.upto, point.at, point.lineage) = (HI, LOST.found, LINEAGE);
    let data = vec![0x5a; 512];
    let block = Block { volume: 9, number: 0x1122_3344 };
    let stamp = Stamp::ZERO;
    let with_data =
        Saved { block, count: 1, stamp, has_data: true, checksum: data_checksum(&data) };
    let block = Block { volume: 9, number: 0x1122_3350 };
    let zeros = Saved { block, count: 5, stamp, has_data: false, checksum: 0 };
    (origin, point, vec![with_data, zeros], data)
}

/// `superblock` and `volumes`.
pub fn superblock() -> Superblock {
    Superblock {
        generation: 41,
        group: GROUP,
        device: 2,
        mode: Mode::Sending,
        fenced: true,
        clean: true,
        prefer: true,
        resume_alone: true,
        usable: false,
        block_size: 4096,
        segment_bytes: 1 << 40,
        epoch: 9,
        lineage: LINEAGE,
        hi: HI,
        acked: ACKED,
        need: NEED,
        whole: WHOLE,
        fl: FL,
        consat: CONSAT,
        features: Features { compat: FEATURES, ro_compat: 1 << 40, incompat: 2 },
        lost: Some(LOST),
        round: Round { generation: 3, counter: 19 },
        last_active: 8,
        peer: 1,
        cut: CUT,
        owed: true,
        fenced_here: false,
        image: false,
        cache_identity: std::array::from_fn(|k| 0x20 + k as u8),
        weakest: 2,
        annex: Annex { slot: 1, bytes: 48, checksum: 0xb1b2_b3b4_b5b6_b7b8 },
        history: History::default(),
        table: TableRef { slot: 1, bytes: 4096, checksum: 0xc1c2_c3c4_c5c6_c7c8 },
        rest: std::array::from_fn(|k| 0x51 + k as u8),
        own: LogState {
            bytes: 64 << 20,
            incarnation: 3,
            tail_offset: 8192,
            tail_sequence: 100,
            durable: 99,
            opened: 40,
        },
        recv: LogState {
            bytes: 64 << 20,
            incarnation: 4,
            tail_offset: 12_288,
            tail_sequence: 200,
            durable: 200,
            opened: 38,
        },
        volumes: vec![
            VolumeSpec { id: 0, bytes: 1 << 40 },
            VolumeSpec { id: 7, bytes: 512 },
            VolumeSpec { id: 0xffff_fffe, bytes: (1 << 62) - 512 },
        ],
    }
}

const ANCESTORS: [(u64, u64); 2] = [(1, 0xd1d2_d3d4_d5d6_d7d8), (2, 0xe1e2_e3e4_e5e6_e7e8)];

/// `annex`.
pub fn history() -> History {
    let stamp = |epoch, time, sequence| Stamp { epoch, time, sequence };
    History {
        ancestors: ANCESTORS.to_vec(),
        forced: true,
        alone: Some(stamp(6, 0x1111, 1)),
        void: [stamp(7, 0x2222, 2), stamp(8, 0x3333, 3)],
        forgotten: 5,
        other: Some(Branch {
            device: 1,
            lineage: (4, 0xf1f2_f3f4_f5f6_f7f8),
            epoch: 11,
            newest: stamp(11, 0x4444, 4),
        }),
        met: Round { generation: 3, counter: 9 },
        image_bytes: 0x15000,
    }
}

/// `superblock_2`: the same without what version 3 added.
pub fn superblock_2() -> Superblock {
    Superblock {
        features: Features::default(),
        whole: Stamp::ZERO,
        lost: None,
        mode: Mode::Ordered,
        round: Round::default(),
        last_active: 0,
        peer: 0,
        cut: Stamp::ZERO,
        owed: false,
        cache_identity: [0; 32],
        weakest: 0,
        annex: Annex::default(),
        table: TableRef::default(),
        rest: [0; REST],
        ..superblock()
    }
}

/// The runs of `table`, of three volumes.
pub fn table() -> [Blocks; 4] {
    let run = |volume, numbers| Blocks { volume, numbers };
    [run(0, 3..4), run(0, 900..970), run(7, 0..1), run(0xffff_fffe, 1 << 40..(1 << 40) + 300)]
}

/// The block that travels in the golden frames.
pub fn data() -> Vec<u8> {
    (0..512).map(|i| (i * 7 % 251) as u8).collect()
}

pub fn rows() -> [Row; 2] {
    let stamp = |sequence| Stamp { epoch: 5, time: 1_700_000_000_123_456_789, sequence };
    let block = |number| Block { volume: 7, number };
    [
        Row {
            stamp: stamp(1),
            block: block(1 << 40),
            level: 0,
            checksum: data_checksum(&data()),
            index: 0,
            count: 2,
            has_data: true,
        },
        Row {
            stamp: stamp(2),
            block: block((1 << 40) + 1),
            level: 0,
            checksum: 0,
            index: 1,
            count: 2,
            has_data: false,
        },
    ]
}

pub fn batch(log: Log) -> Header {
    let own = log == Log::Own;
    Header {
        identity: Identity { group: GROUP, log, device: 2, incarnation: if own { 3 } else { 4 } },
        sequence: if own { 100 } else { 200 },
        synced: if own { 99 } else { 150 },
        offset: if own { 12_288 } else { 16_384 },
        opened: 40,
        previous: if own { Stamp::ZERO } else { HI },
        rows: rows().to_vec(),
    }
}

pub fn shipped() -> [Shipped; 2] {
    let [first, second] = rows();
    [
        Shipped { row: first, remaining: Some(HI), total_remaining: true },
        Shipped { row: second, remaining: None, total_remaining: false },
    ]
}

pub fn frame<'a>(name: &str, data: &'a [u8]) -> Frame<'a> {
    let block = Block { volume: 7, number: 1 << 40 };
    match name {
        "frame_hello" => Frame::Hello(Hello {
            wire: WireRange { min: 2, max: 5 },
            features: FEATURES,
            group: GROUP,
            device: 2,
            nonce: 77,
            lineage: LINEAGE,
            mode: Mode::Copying,
            usable: true,
            fenced: true,
            asking: true,
            epoch: 9,
            hi: HI,
            clk: NEED,
            newest: ACKED,
            round: Round { generation: 3, counter: 19 },
            lost: Some(LOST),
            told: CUT,
            told_max: 4096,
            credit: 1000,
            block_size: 4096,
            volumes: superblock().volumes[..2].to_vec(),
            alone: true,
            ancestors: ANCESTORS.to_vec(),
        }),
        "frame_takeover" => {
            Frame::Takeover { epoch: 10, device: 2, nonce: 78, told: ACKED, ladder: None }
        }
        "frame_takeover_4" => {
            let mode = Mode::Sending;
            let ladder =
                Requester { mode, round: ROUND, last_active: 8, generation: 3, told: TOLD };
            Frame::Takeover { epoch: 10, device: 2, nonce: 78, told: ACKED, ladder: Some(ladder) }
        }
        "frame_prototype" => Frame::Prototype {
            nonce: 78,
            grant: 10,
            left: 5000,
            is_last: true,
            previous: FL,
            entries: vec![(Block { volume: 0, number: 12 }.into(), ACKED), (block.into(), HI)],
        },
        "frame_announce" => Frame::Announce { previous: FL, entries: vec![(block.into(), HI)] },
        "frame_busy" => Frame::Busy { nonce: 78 },
        "frame_serving" => Frame::Serving { epoch: 10, reachable: true },
        "frame_offer" => Frame::Offer { epoch: 10 },
        "frame_read_request" => Frame::ReadRequest { epoch: 10, id: 79, block, count: 3 },
        "frame_read_reply" => Frame::ReadReply { id: 79, rows: vec![None, Some(rows()[0])], data },
        "frame_read_reply_none" => Frame::ReadReply { id: 79, rows: vec![None], data: &[] },
        "frame_ack" => Frame::Ack { hi: HI, credit: 1000 },
        "frame_ship" | "frame_ship_4" => {
            let round = if name == "frame_ship" { Round::default() } else { ROUND };
            Frame::Ship { round, previous: FL, granted: 10, records: shipped().to_vec(), data }
        }
        "frame_checksum_request" => {
            Frame::ChecksumRequest { id: 80, block, count: 1024, absent: 1 << 18 }
        }
        "frame_checksum_reply" => {
            let checksum = Seen::Checksum(0xb1b2_b3b4_b5b6_b7b8);
            let runs = [(1022, checksum), (1, Seen::Moving), (1, Seen::Unreadable)];
            let sums = runs.map(|(blocks, seen)| Sum { blocks, seen }).to_vec();
            Frame::ChecksumReply { id: 80, sums }
        }
        "frame_checksum_reply_absent" => {
            let sums = vec![Sum { blocks: 1 << 18, seen: Seen::Absent }];
            Frame::ChecksumReply { id: 80, sums }
        }
        other => Frame::Ladder(ladder(other, data)),
    }
}

/// A block with data and a run of zeros behind it.
pub fn copies() -> Vec<Copied> {
    let [first, second] = rows();
    let copied = |row: Row, count| Copied {
        block: row.block,
        count,
        has_data: row.has_data,
        checksum: row.checksum,
    };
    vec![copied(first, 1), copied(second, 5000)]
}

/// Neighbours and single blocks, in two volumes.
pub fn runs() -> Vec<Blocks> {
    let (run, first) = (|volume, numbers| Blocks { volume, numbers }, 1 << 40);
    vec![run(7, first..first + 3), run(7, first + 10..first + 11), run(9, 0..5)]
}

fn ladder<'a>(name: &str, data: &'a [u8]) -> Ladder<'a> {
    let (round, generation, block) = (ROUND, 3, |volume, number| Block { volume, number });
    match name {
        "frame_open" => {
            let mode = Mode::Copying;
            Ladder::Open { round, mode, generation, cut: CUT, clk: NEED, told: TOLD }
        }
        "frame_opened" => {
            let (from, to) = (block(7, 5), block(9, 1000));
            let piece = TablePiece { from, to, runs: runs(), is_last: false };
            Ladder::Opened { round, cut: CUT, told: TOLD, is_consistent: true, piece }
        }
        "frame_grant_table" => {
            let (from, to) = (block(0, 12), TablePiece::END);
            let piece = TablePiece { from, to, runs: runs(), is_last: true };
            let (nonce, grant, later, told) = (78, 10, true, TOLD);
            Ladder::GrantTable { nonce, grant, round, generation, later, told, piece }
        }
        "frame_copy" => Ladder::Copy { round, said: TOLD, copies: copies(), data },
        "frame_copy_ack" => Ladder::CopyAck { round, blocks: runs() },
        "frame_end" => Ladder::End { round, generation, consistent_at: CONSAT },
        "frame_returned" => {
            let (from, to) = (block(7, 5), block(9, 1000));
            let piece = TablePiece { from, to, runs: runs(), is_last: false };
            Ladder::Returned { nonce: 78, piece }
        }
        "frame_end_ack" => Ladder::EndAck { round },
        "frame_level" => Ladder::Level { round },
        "frame_sums" => {
            let sums = (0..9).map(|n| 0xa0a1_a2a3_a4a5_a6a7_b0b1_b2b3_b4b5_b600 + n).collect();
            Ladder::Sums { round, said: TOLD, blocks: runs(), sums }
        }
        "frame_differs" => Ladder::Differs { round, blocks: runs() },
        "frame_told" => Ladder::Told { round, number: TOLD, blocks: runs() },
        other => panic!("no frame is called {other}"),
    }
}
