//! Two devices of different versions: which wire version and features a connection has (R10).

use crate::device::Device;
use crate::format::frame::{Frame, Ladder, Seen, Sum, TablePiece, WIRE, WireRange};
use crate::sync::{Ordering, lock};

impl Device {
    /// Makes this device speak as another version of the program would.
    fn speak(&self, wire: WireRange, features: u64) {
        let mut failover = lock(&self.failover);
        failover.connection.speak(wire, features);
    }
}

mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::compare::CompareLimits;
    use crate::error::Kind;
    use crate::event::Event;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Lane, Line, memory_link};
    use crate::storage::Memory;
    use crate::unit::{Block, Blocks, Round, Stamp};
    use std::sync::{Arc, Mutex};

    const BLOCK: usize = 4096;

    struct Pair {
        devices: [Arc<Device>; 2],
        /// Why each gave its connection up.
        why: [Arc<Mutex<Vec<String>>>; 2],
    }

    /// A connected pair, if the two can talk.
    fn pair(wires: [WireRange; 2], features: [u64; 2]) -> Pair {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let open = |at: usize| {
            let storage = Arc::new(Memory::new());
            let volumes = vec![VolumeSpec { id: 0, bytes: 16 * BLOCK as u64 }];
            let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
            geometry.journal_bytes = (4 * geometry.batch_bytes_max()).next_multiple_of(4096);
            Device::create(&*storage, &geometry, at == 0).expect("created");
            let device = Device::open(storage, clock.clone(), Settings::default()).expect("opened");
            device.speak(wires[at], features[at]);
            device
        };
        let devices = [open(0), open(1)];
        let why = [Arc::default(), Arc::default()];
        for (device, why) in devices.iter().zip(&why) {
            let why: Arc<Mutex<Vec<String>>> = Arc::clone(why);
            device.on_event(move |event| {
                if let Event::Disconnected { why: error, .. } = event {
                    lock(&why).push(error.to_string());
                }
            });
        }
        let pair = Pair { devices, why };
        pair.connect();
        pair
    }

    impl Pair {
        fn connect(&self) {
            let (a, b) = memory_link(Line::default(), self.devices[0].clock().clone());
            self.devices[0].connect(Arc::new(a)).expect("connected");
            self.devices[1].connect(Arc::new(b)).expect("connected");
            self.run_steps();
        }

        /// Discards the eight blocks from block 8 on; how many records that takes.
        fn discard(&self) -> u64 {
            let host = self.devices[0].session().expect("serves");
            host.discard(0, 8 * BLOCK as u64, 8 * BLOCK as u64).expect("discarded");
            self.devices[0].step_commit().expect("committed");
            let records = self.devices[0].status().backlog_records;
            self.run_steps();
            records
        }

        fn run_steps(&self) {
            for device in self.devices.iter().cycle().take(8) {
                while device.step_control().expect("control") {}
                device.step_commit().expect("committed");
                device.step_ship().expect("shipped");
                device.step_receive().expect("received");
            }
        }

        /// The wire version and features of each end of the connection.
        fn agreed(&self) -> [Option<(u16, u64)>; 2] {
            let of = |device: &Arc<Device>| {
                lock(&device.failover).connection.peer().map(|peer| (peer.wire, peer.features))
            };
            self.devices.each_ref().map(of)
        }

        fn write(&self, at: usize, block: usize, value: u8) {
            let host = self.devices[at].session().expect("serves");
            host.write(0, (block * BLOCK) as u64, &[value; BLOCK]).expect("written");
        }

        fn read(&self, at: usize, block: usize) -> u8 {
            let mut buffer = vec![0; BLOCK];
            let host = self.devices[at].session().expect("serves");
            host.read(0, (block * BLOCK) as u64, &mut buffer).expect("read");
            buffer[0]
        }
    }

    fn range(min: u16, max: u16) -> WireRange {
        WireRange { min, max }
    }

    #[test]
    fn the_highest_version_of_both_ranges_is_spoken() {
        for (a, b, both) in [
            (range(3, 3), range(3, 3), Some(3)),
            (range(1, 3), range(3, 9), Some(3)),
            (range(2, 7), range(3, 5), Some(5)),
            (range(2, 7), range(4, 7), Some(7)),
            (range(1, 2), range(3, 9), None),
            (range(10, 12), range(3, 9), None),
        ] {
            assert_eq!(a.common(b).ok(), both, "{a}, {b}");
            assert_eq!(b.common(a).ok(), both, "{b}, {a}");
        }
    }

    /// One of the two is upgraded before the other: they have one version in common.
    #[test]
    fn a_pair_with_one_version_in_common_replicates_and_takes_over() {
        for (wires, both) in [
            ([range(1, 3), range(3, 9)], 3),
            ([range(3, 4), range(2, 3)], 3),
            ([range(3, 3), WIRE], 3),
            ([WIRE, range(3, 3)], 3),
            ([range(4, 5), WIRE], 4),
            ([WIRE; 2], 4),
        ] {
            let pair = pair(wires, [0b110, 0b011]);
            let agreed = [Some((both, 0b010)); 2];
            assert_eq!(pair.agreed(), agreed, "features that one knows are ignored");
            pair.write(0, 1, 7);
            pair.run_steps();
            assert_eq!(pair.devices[0].status().backlog_records, 0);
            pair.devices[1].begin_takeover().expect("asked");
            pair.run_steps();
            pair.devices[1].poll_takeover().expect("answered").expect("serves");
            assert_eq!(pair.read(1, 1), 7);
            pair.write(1, 2, 8);
            pair.run_steps();
            assert_eq!(pair.devices[1].status().backlog_records, 0);
            let why = pair.why.each_ref().map(|why| lock(why).clone());
            assert_eq!(why, [const { Vec::<String>::new() }; 2]);
        }
    }

    #[test]
    fn ranges_without_a_version_in_common_are_refused_on_both_sides() {
        let [a, b] = [range(3, 3), range(4, 5)];
        let pair = pair([a, b], [0; 2]);
        assert_eq!(pair.agreed(), [None; 2]);
        for (at, [mine, theirs]) in [[a, b], [b, a]].into_iter().enumerate() {
            let why = lock(&pair.why[at]).join("; ");
            assert!(
                why.contains(&format!("the peer speaks {theirs}, this device {mine}")),
                "{why}"
            );
        }
    }

    /// R19: with an older program each record is of one block; once both have known better, there is
    /// no way back.
    #[test]
    fn records_of_many_blocks_wait_for_a_peer_that_knows_them() {
        let pair = pair([range(3, 3); 2], [0b11, 0b01]);
        pair.write(0, 8, 7);
        pair.run_steps();
        assert_eq!((pair.discard(), pair.devices[0].has_extents()), (8, false));
        let limits = pair.devices[0].limits();
        assert_eq!(limits.zero_bytes_max, limits.request_bytes_max);
        pair.devices[1].speak(range(3, 3), 0b11);
        pair.connect();
        assert!(pair.devices.iter().all(|device| device.has_extents()));
        assert_eq!(pair.discard(), 1);
        assert_eq!(pair.devices[0].limits().zero_bytes_max, 32 << 20);
        pair.write(0, 9, 7);
        pair.run_steps();
        pair.devices[1].begin_takeover().expect("asked");
        pair.run_steps();
        pair.devices[1].poll_takeover().expect("answered").expect("serves");
        assert_eq!([8, 9, 10].map(|block| pair.read(1, block)), [0, 7, 0]);
        let before = lock(&pair.why[0]).len();
        pair.devices[1].speak(range(3, 3), 0b01);
        pair.connect();
        let why = lock(&pair.why[0])[before..].join("; ");
        assert!(why.contains("does not know records of many blocks"), "{why}");
        assert_eq!(pair.agreed()[0], None);
    }

    /// A peer that ships or tells of a record of many blocks without that is not believed.
    #[test]
    fn records_of_many_blocks_are_not_taken_unagreed() {
        for ships in [true, false] {
            let pair = pair([range(3, 3); 2], [0b11, 0b01]);
            pair.devices[0].extents.store(true, Ordering::Release);
            let host = pair.devices[0].session().expect("serves");
            host.write(0, 8 * BLOCK as u64, &[7; BLOCK]).expect("written");
            host.discard(0, 8 * BLOCK as u64, 8 * BLOCK as u64).expect("discarded");
            pair.devices[0].step_commit().expect("committed");
            if ships {
                pair.devices[0].step_ship().expect("shipped");
                pair.devices[1].step_receive().expect("received");
            } else {
                while pair.devices.iter().any(|device| device.step_control().expect("control")) {}
            }
            let why = lock(&pair.why[1]).join("; ");
            assert!(why.contains("(wire feature 2), which was not agreed"), "{why}");
        }
    }

    /// A peer that does not know of comparisons is asked for nothing; once it knows, it is.
    #[test]
    fn a_comparison_waits_for_a_peer_that_knows_it() {
        let pair = pair([range(3, 3); 2], [0b1011, 0b0011]);
        pair.write(0, 1, 7);
        pair.run_steps();
        for device in &pair.devices {
            let error = device.begin_compare(CompareLimits::default()).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains("wire feature 8"), "{error}");
        }
        pair.devices[1].speak(range(3, 3), 0b1011);
        pair.connect();
        let before = pair.why.each_ref().map(|why| lock(why).len());
        let comparison = pair.devices[0].begin_compare(CompareLimits::default()).expect("begins");
        // The peer's program is exchanged for the older one once more.
        pair.devices[1].speak(range(3, 3), 0b0011);
        pair.connect();
        let error = comparison.step().unwrap_err();
        assert!(error.to_string().contains("wire feature 8"), "{error}");
        let after = pair.why.each_ref().map(|why| lock(why).len());
        assert_eq!(after, before.map(|count| count + 1), "the new connection stands");
        assert_eq!(pair.devices[0].status().halted.map(|e| e.to_string()), None);
    }

    /// Nobody asks for checksums unagreed, nor for more than one may, nor answers what was not asked.
    #[test]
    fn a_frame_of_a_comparison_that_must_not_come_ends_the_connection() {
        let block = Block { volume: 0, number: 0 };
        let request = |block, count, absent| Frame::ChecksumRequest { id: 1, block, count, absent };
        let many = vec![Sum { blocks: 17, seen: Seen::Moving }];
        let far = Block { volume: 0, number: u64::MAX };
        for (features, asks, frame, says) in [
            (0b0011, false, request(block, 1, 0), "which was not agreed"),
            (0b1011, false, request(block, 0, 0), "asks for the checksums of 0 blocks"),
            (0b1011, false, request(block, 17, 0), "the volume has 16"),
            (0b1011, false, request(block, 1, 17), "the volume has 16"),
            (0b1011, false, request(block, 5000, 0), "4096 are the most"),
            (0b1011, false, request(far, 1, 0), "the volume has 16"),
            (0b1011, true, Frame::ChecksumReply { id: 1, sums: many }, "and answers 17"),
            (0b1011, true, Frame::ChecksumReply { id: 1, sums: vec![] }, "and answers 0"),
        ] {
            let pair = pair([range(3, 3); 2], [0b1011, features]);
            let comparison = asks.then(|| {
                let limits = CompareLimits::default();
                let comparison = pair.devices[1].begin_compare(limits).expect("begins");
                comparison.step().expect("asks");
                comparison
            });
            pair.devices[0].send(Lane::Control, &frame).expect("sent");
            while pair.devices[1].step_control().expect("control") {}
            let why = lock(&pair.why[1]).join("; ");
            assert!(why.contains(says), "{why}");
            drop(comparison);
        }
    }

    /// A version that has no frames of the ladder refuses them, and so does the wrong lane; each story says
    /// the frame.
    #[test]
    fn a_frame_of_the_ladder_that_must_not_come_ends_the_connection() {
        let round = Round { generation: 0, counter: 5 };
        let level = Frame::Ladder(Ladder::Level { round });
        let copy = Frame::Ladder(Ladder::Copy { round, said: 0, copies: vec![], data: &[] });
        let ack = Frame::Ladder(Ladder::EndAck { round });
        let (blocks, sums) = (vec![Blocks { volume: 0, numbers: 3..4 }], vec![5]);
        let sums = Frame::Ladder(Ladder::Sums { round, said: 0, blocks: blocks.clone(), sums });
        let differs = Frame::Ladder(Ladder::Differs { round, blocks });
        for (wire, lane, frame, says) in [
            (3, Lane::Data, &level, "kind 20, which wire version 3 does not have"),
            (3, Lane::Control, &ack, "kind 19, which wire version 3 does not have"),
            (4, Lane::Data, &ack, "a control frame came in the data lane"),
            (4, Lane::Control, &level, "a level came in the control lane"),
            (4, Lane::Control, &copy, "copies of blocks came in the control lane"),
            (4, Lane::Control, &sums, "checksums of blocks came in the control lane"),
            (4, Lane::Data, &sums, "(wire feature 16), which was not agreed"),
            (4, Lane::Control, &differs, "(wire feature 16), which was not agreed"),
        ] {
            let pair = pair([WIRE, range(3, wire)], [0; 2]);
            assert_eq!(pair.agreed(), [Some((wire, 0)); 2]);
            pair.devices[0].send(lane, frame).expect("sent");
            pair.devices[1].step_receive().expect("received");
            while pair.devices[1].step_control().expect("control") {}
            let why = lock(&pair.why[1]).join("; ");
            assert!(why.contains(says), "{why}");
        }
    }

    /// D3: a frame of another round, or for the other side, may be an old one: it is ignored, however many
    /// there are.
    #[test]
    fn a_frame_of_the_ladder_that_does_not_fit_is_ignored() {
        let round = Round { generation: 0, counter: 5 };
        let (generation, cut) = (1, Stamp::ZERO);
        let blocks = vec![Blocks { volume: 0, numbers: 0..16 }];
        let piece = TablePiece {
            from: TablePiece::FIRST,
            to: TablePiece::END,
            runs: blocks.clone(),
            is_last: true,
        };
        let pair = pair([WIRE; 2], [0; 2]);
        pair.write(0, 1, 7);
        pair.run_steps();
        let before = pair.devices.each_ref().map(|device| device.status().differential);
        for (from, to) in [(0, 1), (1, 0)] {
            let (told, is_consistent, piece) = (0, true, piece.clone());
            let opened = Ladder::Opened { round, cut, told, is_consistent, piece };
            for (lane, frame) in [
                (Lane::Control, opened.clone()),
                (Lane::Control, Ladder::CopyAck { round, blocks: blocks.clone() }),
                (Lane::Control, Ladder::EndAck { round }),
                (Lane::Data, Ladder::Copy { round, said: 0, copies: vec![], data: &[] }),
                (Lane::Data, Ladder::End { round, generation, consistent_at: cut }),
            ] {
                pair.devices[from].send(lane, &Frame::Ladder(frame)).expect("sent");
            }
            for _ in 0..50_000 {
                let level = Frame::Ladder(Ladder::Level { round });
                pair.devices[from].send(Lane::Data, &level).expect("sent");
            }
            pair.devices[to].step_receive().expect("received");
            while pair.devices[to].step_control().expect("control") {}
        }
        let after = pair.devices.each_ref().map(|device| device.status().differential);
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        pair.write(0, 2, 8);
        pair.run_steps();
        assert_eq!(pair.devices[0].status().backlog_records, 0, "the connection stands");
        let why = pair.why.each_ref().map(|why| lock(why).clone());
        assert_eq!(why, [const { Vec::<String>::new() }; 2]);
    }

    /// The sender speaks as was agreed; what does not is not believed.
    #[test]
    fn a_frame_of_another_version_than_agreed_ends_the_connection() {
        let pair = pair([range(3, 3); 2], [0; 2]);
        {
            let mut failover = lock(&pair.devices[1].failover);
            failover.connection.speak(range(2, 2), 0);
        }
        pair.write(0, 1, 7);
        pair.run_steps();
        let why = lock(&pair.why[1]).join("; ");
        assert!(why.contains("wire version 3 in a connection of wire version 2"), "{why}");
    }
}
