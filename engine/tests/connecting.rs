//! Connections: one begins in both lanes at once, and while steps are under way that belong to the
//! last one: whatever is shipped arrives; what is left of one that has ended is nobody's.
#![cfg(not(loom))]

mod common;

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::error::Result;
use afterimage::internal::event::Event;
use afterimage::internal::format::Row;
use afterimage::internal::format::frame::{Frame, Hello, Shipped};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Lane, Line, Link, MemoryLink, memory_link};
use afterimage::internal::storage::{FileName, Memory, Storage};
use afterimage::internal::unit::{Block, Extent, Round, Stamp};
use common::hooked::{Call, Hooked};
use common::{A, B, ManualClock, Pair, Spec, Step::*, X, Y};
use std::sync::{Arc, Mutex, mpsc};

#[test]
fn what_is_shipped_before_the_hello_is_read_is_not_lost() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let storage = Arc::new(Memory::new());
        let geometry = Geometry::new(1, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        Device::create(&*storage, &geometry, id == 1).unwrap();
        Device::open(storage, clock.clone(), Settings::default()).unwrap()
    };
    let (a, b) = (open(1), open(2));
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    assert!(a.step_control().unwrap(), "A reads B's hello");
    for block in 0..2 {
        a.session().unwrap().write(0, block * 4096, &[7; 4096]).unwrap();
        assert!(a.step_commit().unwrap());
        assert_eq!(a.step_ship().unwrap(), 1);
        assert_eq!(b.step_receive().unwrap(), 0, "B's control lane is slow");
    }
    while b.step_control().unwrap() || a.step_control().unwrap() {}
    assert_eq!(b.step_receive().unwrap(), 2);
    while a.step_control().unwrap() {}
    assert_eq!(a.status().backlog_records, 0);
}

/// Frames sent over an earlier connection belong to it (R5, R10): a request never fences, and
/// records are not taken.
#[test]
fn what_is_left_of_an_earlier_connection_is_ignored() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let disks = [1, 2].map(|id| {
        let disk = Arc::new(Memory::new());
        let geometry = Geometry::new(1, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        Device::create(&*disk, &geometry, id == 1).unwrap();
        disk
    });
    let open =
        |at: usize| Device::open(disks[at].clone(), clock.clone(), Settings::default()).unwrap();
    let connect = |a: &Device, b: &Device| {
        let (end_a, end_b) = memory_link(Line::default(), clock.clone());
        let ends = [Arc::new(end_a), Arc::new(end_b)];
        a.connect(ends[0].clone()).unwrap();
        b.connect(ends[1].clone()).unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
        assert!(a.status().connected && b.status().connected);
        ends
    };
    let (a, b) = (open(0), open(1));
    let first = connect(&a, &b);
    a.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
    assert!(a.step_commit().unwrap());
    assert_eq!(a.step_ship().unwrap(), 1);
    b.begin_takeover().unwrap();
    let [to_a, to_b] = [(0, Lane::Control), (1, Lane::Data)]
        .map(|(at, lane): (usize, _)| first[at].receive(lane).unwrap().expect("a frame"));
    drop(b);
    let b = open(1);
    let [end_a, end_b] = connect(&a, &b);
    end_b.send(Lane::Control, to_a).unwrap();
    assert!(a.step_control().unwrap(), "it is taken from the line");
    assert!(a.status().serving, "and does not fence");
    end_a.send(Lane::Data, to_b).unwrap();
    assert_eq!(b.step_receive().unwrap(), 0);
    assert_eq!(a.step_ship().unwrap(), 1, "nothing was acknowledged");
    assert_eq!(b.step_receive().unwrap(), 1);
}

type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// An end of a line that does something, once, when it is asked how much data it has not sent.
struct Asked {
    end: MemoryLink,
    once: Once,
}

impl Link for Asked {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        self.end.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.end.receive(lane)
    }

    fn queued(&self, lane: Lane) -> u64 {
        let once = if lane == Lane::Data { self.once.lock().unwrap().take() } else { None };
        once.into_iter().for_each(|once| once());
        self.end.queued(lane)
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.end.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.end.close();
    }
}

/// A new line is taken into use while a batch is on its way to the old one: it counted as shipped
/// in the new connection, left by the old line, and nobody ever shipped it again.
#[test]
fn a_batch_leaves_by_the_line_of_its_connection() {
    let mut pair = Pair::new();
    pair.write(A, X, 1);
    pair.step(A, Commit);
    let line = |pair: &Pair| memory_link(Line::default(), pair.clocks[A].clone());
    let (old, new) = (line(&pair), line(&pair));
    let [a, b] = pair.devices.clone();
    let connect = {
        let (a, b) = (a.clone(), b.clone());
        move || {
            a.connect(Arc::new(new.0)).unwrap();
            b.connect(Arc::new(new.1)).unwrap();
            while a.step_control().unwrap() || b.step_control().unwrap() {}
        }
    };
    let asked = Asked { end: old.0, once: Mutex::new(Some(Box::new(connect))) };
    a.connect(Arc::new(asked)).unwrap();
    b.connect(Arc::new(old.1)).unwrap();
    while a.step_control().unwrap() || b.step_control().unwrap() {}
    assert_eq!(a.step_ship().unwrap(), 1);
    pair.drain();
}

/// The line drops while the peer makes what came durable, so that its hello does not know of it; it
/// is acknowledged and freed just when it is about to be shipped again.
#[test]
fn what_is_acknowledged_behind_a_hello_is_not_shipped_again() {
    let disks = [Arc::new(Hooked::default()), Arc::new(Hooked::default())];
    let storages = disks.clone().map(|disk| disk as Arc<dyn Storage>);
    let mut pair = Pair::with(Spec { storages, ..Spec::default() });
    pair.write(A, X, 1);
    pair.write(A, Y, 2);
    pair.steps(A, &[Commit, Ship]);
    let [a, b] = pair.devices.clone();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    disks[B].when(Call::Sync, FileName::RecvLog, move || {
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
    });
    let appends = std::thread::spawn(move || b.step_receive().unwrap());
    has_begun.recv().unwrap();
    let (end_a, end_b) = memory_link(Line::default(), pair.clocks[A].clone());
    let b = pair.devices[B].clone();
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    while a.step_control().unwrap() || b.step_control().unwrap() {}
    assert_eq!(a.status().backlog_records, 2, "the hello did not know of them");
    let a_too = a.clone();
    disks[A].when(Call::Read, FileName::OwnLog, move || {
        go_on.send(()).unwrap();
        assert_eq!(appends.join().unwrap(), 2);
        assert!(a_too.step_control().unwrap());
        assert_eq!(a_too.step_reflect().unwrap(), 2);
        a_too.checkpoint_now().unwrap();
    });
    assert_eq!(a.step_ship().unwrap(), 0, "there is nothing left to ship");
    assert!(disks[A].has_happened() && a.status().halted.is_none());
    assert_eq!(a.status().backlog_records, 0);
    pair.write(A, X, 3);
    pair.drain();
}

/// A device, the other end of its line, and why it gave the connection up.
fn with_stranger(active: bool) -> (Arc<Device>, MemoryLink, Hello, Arc<Mutex<Vec<String>>>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let storage = Arc::new(Memory::new());
    let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    Device::create(&*storage, &geometry, active).unwrap();
    let device = Device::open(storage, clock.clone(), Settings::default()).unwrap();
    let why = Arc::new(Mutex::new(Vec::new()));
    let tell = why.clone();
    device.on_event(move |event| {
        if let Event::Disconnected { why: error, .. } = event {
            tell.lock().unwrap().push(error.to_string());
        }
    });
    let (end, stranger) = memory_link(Line::default(), clock);
    device.connect(Arc::new(end)).unwrap();
    let frame = stranger.receive(Lane::Control).unwrap().unwrap();
    let Ok((_, Frame::Hello(hello))) = Frame::decode(&frame) else { panic!("not a hello") };
    (device, stranger, Hello { device: 2, nonce: 9, ..hello }, why)
}

/// A clock at its end, taken from a peer that cannot know of one, would have let no write in any
/// more.
#[test]
fn a_fenced_peer_with_a_clock_of_this_tenure_is_refused() {
    let (device, stranger, hello, why) = with_stranger(true);
    device.resume_alone().unwrap();
    let clk = Stamp { epoch: 1, time: u64::MAX, sequence: 0 };
    let hello = Frame::Hello(Hello { fenced: true, clk, ..hello });
    stranger.send(Lane::Control, hello.encode(9)).unwrap();
    assert!(device.step_control().unwrap());
    let why = why.lock().unwrap();
    assert!(
        why.len() == 1
            && why[0].contains("was told of 1.18446744073709551615.0")
            && why[0].contains("knows that this is untrue"),
        "{why:?}"
    );
    device.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
}

/// The last stamp of a prototype stands in the peer's `need`, and so in its clock, when everything else
/// that it was told is forgotten.
#[test]
fn a_clock_of_this_tenure_above_its_newest_record_shows_a_loss() {
    let (device, stranger, hello, why) = with_stranger(true);
    let clk = Stamp { epoch: 1, time: 5, sequence: 1 };
    let hello = Frame::Hello(Hello { fenced: true, epoch: 3, clk, ..hello });
    stranger.send(Lane::Control, hello.encode(9)).unwrap();
    assert!(device.step_control().unwrap());
    let why = why.lock().unwrap();
    assert!(why.len() == 1 && why[0].contains("has lost durable records"), "{why:?}");
    assert!(device.resume_alone().is_err());
}

#[test]
fn a_peer_whose_clock_is_behind_what_it_knows_is_refused() {
    let (device, stranger, hello, why) = with_stranger(false);
    let newest = Stamp { epoch: 1, time: 5, sequence: 0 };
    let clk = Stamp { time: 4, ..newest };
    let hello = Frame::Hello(Hello { fenced: false, newest, clk, ..hello });
    stranger.send(Lane::Control, hello.encode(9)).unwrap();
    assert!(device.step_control().unwrap());
    let why = why.lock().unwrap();
    let story = "contradicts itself: its highest stamp is 1.4.0, but it has 1.5.0";
    assert!(why.len() == 1 && why[0].contains(story), "{why:?}");
}

/// Neither a clock that stands still nor an earlier life's state gives a name away.
#[test]
fn no_two_openings_name_their_connections_alike() {
    let clock = Arc::new(ManualClock::default());
    let nonce = || {
        let storage = Arc::new(Memory::new());
        let geometry = Geometry::new(1, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        Device::create(&*storage, &geometry, true).unwrap();
        let device = Device::open(storage, clock.clone(), Settings::default()).unwrap();
        let (end, other) = memory_link(Line::default(), clock.clone());
        device.connect(Arc::new(end)).unwrap();
        let frame = other.receive(Lane::Control).unwrap().unwrap();
        Frame::decode(&frame).unwrap().0
    };
    assert_ne!(nonce(), nonce());
}

/// The stranger says `hello`, and hands `entries` over to the device, which takes over.
fn hand_over(device: &Device, stranger: &MemoryLink, hello: Hello, entries: Vec<(Extent, Stamp)>) {
    stranger.send(Lane::Control, Frame::Hello(hello).encode(9)).unwrap();
    assert!(device.step_control().unwrap());
    device.begin_takeover().unwrap();
    let nonce = std::iter::from_fn(|| stranger.receive(Lane::Control).unwrap())
        .find_map(|frame| match Frame::decode(&frame).unwrap().1 {
            Frame::Takeover { nonce, .. } => Some(nonce),
            _ => None,
        })
        .unwrap();
    let (previous, is_last) = (Stamp::ZERO, true);
    let prototype = Frame::Prototype { nonce, grant: 2, left: 1, is_last, previous, entries };
    stranger.send(Lane::Control, prototype.encode(9)).unwrap();
    assert!(device.step_control().unwrap());
}

/// A fenced peer ships records that its prototype named: nothing newer of the block, and nothing
/// newer at all, behind what the prototype ends with.
#[test]
fn a_ship_that_contradicts_its_prototype_is_refused() {
    let block = Block { volume: 0, number: 3 };
    let [first, last] = [1, 2].map(|time| Stamp { epoch: 1, time, sequence: 0 });
    let zeros = |stamp, remaining, total_remaining| Shipped {
        row: Row { stamp, block, level: 0, checksum: 0, index: 0, count: 1, has_data: false },
        remaining,
        total_remaining,
    };
    let cases = [
        (zeros(first, Some(last), true), None),
        (zeros(first, Some(last), false), Some("says that it is the last")),
        (zeros(last, None, true), Some("says that more follow")),
        (zeros(first, None, true), Some("newest record of extent 0:3 is 1.1.0")),
    ];
    for (shipped, story) in cases {
        let (device, stranger, hello, why) = with_stranger(false);
        let hello = Hello { fenced: false, newest: last, clk: last, ..hello };
        hand_over(&device, &stranger, hello, vec![(block.into(), last)]);
        assert!(device.status().serving);
        let records = vec![shipped];
        let ship = Frame::Ship {
            round: Round::default(),
            previous: Stamp::ZERO,
            granted: 2,
            records,
            data: &[],
        };
        stranger.send(Lane::Data, ship.encode(9)).unwrap();
        assert_eq!(device.step_receive().unwrap(), usize::from(story.is_none()));
        let why = why.lock().unwrap();
        match story {
            None => assert!(why.is_empty(), "{why:?}"),
            Some(story) => assert!(why.len() == 1 && why[0].contains(story), "{why:?}"),
        }
    }
}

/// A record that a prototype names must be able to arrive.
#[test]
fn a_prototype_of_blocks_that_no_volume_has_is_refused() {
    let (device, stranger, hello, why) = with_stranger(false);
    let block = Block { volume: 0, number: 256 };
    let entries = vec![(block.into(), Stamp { epoch: 1, time: 1, sequence: 0 })];
    hand_over(&device, &stranger, Hello { fenced: false, ..hello }, entries);
    let why = why.lock().unwrap();
    assert!(why.len() == 1 && why[0].contains("block 0:256, which no volume has"), "{why:?}");
    assert!(!device.status().serving);
}

/// REVIEW 5.7: a device that serves has 0 where a fenced one has the tenure that it granted, and
/// answered a question of tenure 0, perhaps from a record that was not durable (R7, R10).
#[test]
fn a_device_that_serves_answers_no_question() {
    let (device, stranger, hello, why) = with_stranger(true);
    stranger
        .send(
            Lane::Control,
            Frame::Hello(Hello { fenced: true, clk: Stamp::ZERO, ..hello }).encode(9),
        )
        .unwrap();
    assert!(device.step_control().unwrap());
    device.resume_alone().unwrap();
    device.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
    while stranger.receive(Lane::Control).unwrap().is_some() {}
    let block = Block { volume: 0, number: 0 };
    for epoch in [0, 1, 2] {
        let question = Frame::ReadRequest { epoch, id: 1, block, count: 1 };
        stranger.send(Lane::Control, question.encode(9)).unwrap();
        assert!(device.step_control().unwrap());
        let said = stranger.receive(Lane::Control).unwrap();
        assert_eq!(said, None, "tenure {epoch} is answered");
    }
    let status = device.status();
    assert!(status.connected && status.serving && status.halted.is_none(), "{status:?}");
    assert!(why.lock().unwrap().is_empty());
}

/// A fenced device keeps no more on its peer's word than a window of blocks.
#[test]
fn more_questions_than_the_window_has_room_for_end_the_connection() {
    let block = Block { volume: 0, number: 0 };
    let last = Block { number: u64::MAX, ..block };
    for (block, count) in [(block, 0), (block, 257), (block, u32::MAX), (last, 1)] {
        let (device, stranger, hello, why) = with_stranger(true);
        let hello = Frame::Hello(Hello { fenced: true, clk: Stamp::ZERO, ..hello });
        stranger.send(Lane::Control, hello.encode(9)).unwrap();
        let takeover =
            Frame::Takeover { epoch: 2, device: 2, nonce: 5, told: Stamp::ZERO, ladder: None };
        stranger.send(Lane::Control, takeover.encode(9)).unwrap();
        let question = Frame::ReadRequest { epoch: 2, id: 1, block, count };
        stranger.send(Lane::Control, question.encode(9)).unwrap();
        while device.step_control().unwrap() {}
        let why = why.lock().unwrap();
        assert!(why.len() == 1 && why[0].contains("the peer asks for"), "{why:?}");
        assert!(device.status().halted.is_none());
    }
}

/// An owner that reconnects is told which of its links ended: the end of the old one, noticed
/// late, was not told apart from the end of the new one.
#[test]
fn an_event_names_the_link_it_is_about() {
    type Told = (&'static str, Arc<dyn Link>);
    let pair = Pair::new();
    let told = Arc::new(Mutex::new(Vec::<Told>::new()));
    let tell = told.clone();
    pair.devices[A].on_event(move |event| match event {
        Event::Connected { link } => tell.lock().unwrap().push(("stands", (*link).clone())),
        Event::Disconnected { link, .. } => tell.lock().unwrap().push(("ended", (*link).clone())),
        _ => {}
    });
    let is = |told: Vec<Told>, expected: &[(&str, &Arc<dyn Link>)]| {
        let same = |((what, link), (wanted, of)): (&Told, &(&str, &Arc<dyn Link>))| {
            what == wanted && Arc::ptr_eq(link, of)
        };
        assert!(told.len() == expected.len() && told.iter().zip(expected).all(same), "{told:?}");
    };
    let told = || std::mem::take(&mut *told.lock().unwrap());
    let line = || memory_link(Line::default(), pair.clocks[A].clone());
    let steps = || (0..4).for_each(|_| pair.devices.iter().for_each(|d| drop(d.step_control())));
    let old: Arc<dyn Link> = pair.gates[A].clone();
    // The old line is cut, and replaced before the device has noticed.
    pair.ends[A].cut();
    let (end, other) = line();
    let new: Arc<dyn Link> = Arc::new(end);
    pair.devices[A].connect(new.clone()).unwrap();
    pair.devices[B].connect(Arc::new(other.clone())).unwrap();
    is(told(), &[("ended", &old)]);
    steps();
    is(told(), &[("stands", &new)]);
    // The new one ends, noticed by a step: once, in whichever lane.
    other.cut();
    steps();
    assert_eq!(pair.devices[A].step_receive().unwrap(), 0);
    is(told(), &[("ended", &new)]);
    // One that never stood.
    let (end, _) = line();
    let last: Arc<dyn Link> = Arc::new(end.clone());
    pair.devices[A].connect(last.clone()).unwrap();
    end.cut();
    steps();
    is(told(), &[("ended", &last)]);
}
