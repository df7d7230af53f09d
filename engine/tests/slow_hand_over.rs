//! A takeover that owes much over a slow line whose control lane is bounded (S35): in one thread, by a
//! clock that moves a millisecond a round, so that a busy machine does not change what is in time.
#![cfg(not(loom))]

mod common;

use afterimage::internal::clock::Clock;
use afterimage::internal::device::Device;
use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::event::Event;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::request::Request;
use afterimage::internal::storage::Memory;
use common::ManualClock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const MIB: u64 = 1 << 20;
const MS: u64 = 1_000_000;

/// A link that is down once its control lane holds more than 1 MiB.
struct Bounded(MemoryLink);

impl Link for Bounded {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        if lane == Lane::Control && self.0.queued(lane) + frame.len() as u64 > MIB {
            self.0.cut();
            return Err(Error::new(Kind::NoPeer, "the control lane is full"));
        }
        self.0.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.0.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.0.queued(lane)
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.0.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.0.close();
    }
}

/// A prototype takes seconds to be handed over, several times as long as a takeover waits for a
/// sign of its peer. It is asked for twice, and once more over a new connection; one fence is all
/// that takes.
#[test]
fn s35_slow_hand_over() {
    let blocks = 100_000;
    let clock = Arc::new(ManualClock::default());
    let open = |id: u64| {
        let storage = Arc::new(Memory::default());
        let volumes = vec![VolumeSpec { id: 0, bytes: blocks * 512 }];
        let journal_bytes = 512 * MIB;
        let geometry = Geometry { block_size: 512, journal_bytes, ..Geometry::new(1, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).unwrap();
        let settings = Settings {
            takeover_timeout_ns: 500 * MS,
            // The bytes that the line carries in an eighth of a second.
            control_queue_bytes_max: MIB / 64,
            ..Settings::default()
        };
        Device::open(storage, clock.clone(), settings).unwrap()
    };
    let (a, b) = (open(1), open(2));
    let fences = Arc::new(AtomicU64::new(0));
    let count = fences.clone();
    a.on_event(move |event| {
        if matches!(event, Event::Fenced { .. }) {
            count.fetch_add(1, SeqCst);
        }
    });
    let line = Line { rate: Some(MIB / 8), delay_ns: 20 * MS };
    let connect = || {
        let ends = memory_link(line, clock.clone() as Arc<dyn Clock>);
        ends.0.hold(Lane::Data, true);
        a.connect(Arc::new(Bounded(ends.0))).unwrap();
        b.connect(Arc::new(Bounded(ends.1.clone()))).unwrap();
        ends.1
    };
    let round = || {
        for device in [&a, &b] {
            while device.step_control().unwrap() {}
            device.step_ship().unwrap();
            device.step_receive().unwrap();
        }
        clock.pass(MS);
    };
    a.resume_alone().unwrap();
    let host = a.session().unwrap();
    // No two neighbours together: each is told of by itself.
    for n in 0..blocks {
        host.write(0, n * 101 % blocks * 512, &[5; 512]).unwrap();
        if n % 1000 == 0 {
            host.flush().unwrap();
        }
    }
    host.flush().unwrap();
    let end = connect();
    let told = |least: u64| {
        while b.status().told_blocks < least {
            let outcome = b.poll_takeover();
            assert!(outcome.is_none(), "it is not over before all has been told: {outcome:?}");
            round();
        }
    };
    while !b.status().connected {
        round();
    }
    b.begin_takeover().unwrap();
    told(5_000);
    b.begin_takeover().unwrap();
    told(20_000);
    end.cut();
    connect();
    told(blocks);
    let takeover = loop {
        match b.poll_takeover() {
            Some(outcome) => break outcome.unwrap(),
            None => round(),
        }
    };
    assert_eq!((takeover.owed_blocks, takeover.epoch), (blocks, 2));
    let took = takeover.ready_at - takeover.requested_at;
    assert!(took > 2000 * MS, "four times the time-out: {took}");
    assert_eq!(fences.load(SeqCst), 1);
    let host = b.session().unwrap();
    let mut read = host.submit(Request::read(0, (blocks - 1) * 512, vec![0; 512])).unwrap();
    let read = loop {
        match read.poll() {
            Some(done) => break done.unwrap(),
            None => round(),
        }
    };
    assert_eq!(read.buffer.unwrap(), [5; 512]);
}
