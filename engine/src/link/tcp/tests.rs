//! The link over TCP, with real sockets on loopback.

mod keys;
mod negative;
mod pairing;

use super::*;
use crate::error::Kind;
use crate::format::frame::FRAME_BYTES_MAX;
use crate::link::{Connector, Lane, Link};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LANES: [Lane; 2] = [Lane::Data, Lane::Control];

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_NS: u64 = 20_000_000_000;

/// Two ends that know each other.
struct Pair {
    dialler: Dialler,
    acceptor: Acceptor,
    accepts: DeviceKey,
    dials: DeviceKey,
    /// Of the accepting end.
    pins: Pins,
}

fn pair(settings: TcpSettings) -> Pair {
    let [accepts, dials] = [(); 2].map(|()| DeviceKey::generate().unwrap());
    let pins = Pins::new(dials.public());
    let acceptor = Acceptor::bind("127.0.0.1:0", &accepts, &pins, settings.clone()).unwrap();
    let address = acceptor.address().to_string();
    let dialler = Dialler::new(&address, &dials, &Pins::new(accepts.public()), settings);
    Pair { dialler, acceptor, accepts, dials, pins }
}

impl Pair {
    /// A new link: the dialling end, then the accepting one.
    fn link(&mut self) -> [Arc<dyn Link>; 2] {
        let dialled = self.dialler.connect(PATIENCE).unwrap().expect("dialled");
        let accepted = self.acceptor.connect(PATIENCE).unwrap().expect("accepted");
        [dialled, accepted]
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next frame; `None` once the lane is down.
fn next(link: &Arc<dyn Link>, lane: Lane) -> Option<Vec<u8>> {
    assert!(link.wait(lane, PATIENCE_NS), "nothing comes");
    link.receive(lane).ok().map(|frame| frame.expect("waited for"))
}

/// The error of a link that is down, and of which everything was received.
fn why(link: &Arc<dyn Link>, lane: Lane) -> String {
    while next(link, lane).is_some() {}
    let error = link.receive(lane).expect_err("it is down");
    assert_eq!(error.kind(), Kind::NoPeer);
    error.to_string()
}

#[test]
fn frames_arrive_whole_once_and_in_order_in_each_lane() {
    let mut pair = pair(TcpSettings::default());
    let ends = pair.link();
    let lengths = [0, 1, 5, 16_384, 65_536, 70_000, FRAME_BYTES_MAX, 3];
    let frame =
        |from: usize, lane: Lane, at: usize| vec![(7 * from + at) as u8 ^ lane as u8; lengths[at]];
    for (from, end) in ends.iter().enumerate() {
        for (at, lane) in (0..lengths.len()).flat_map(|at| LANES.map(|lane| (at, lane))) {
            end.send(lane, frame(from, lane, at)).unwrap();
        }
    }
    for (from, end) in ends.iter().rev().enumerate() {
        for (at, lane) in (0..lengths.len()).flat_map(|at| LANES.map(|lane| (at, lane))) {
            assert!(next(end, lane).unwrap() == frame(from, lane, at), "frame {at}");
        }
        assert!(LANES.iter().all(|lane| end.receive(*lane).unwrap().is_none()));
        until("everything has left", || LANES.iter().all(|lane| end.queued(*lane) == 0));
    }
    assert_eq!(pair.acceptor.counters().sessions, 1);
    assert_eq!(pair.acceptor.peer().unwrap().1, Some(pair.dials.public()));
    assert_eq!(pair.dialler.peer().unwrap().0, pair.acceptor.address());
}

/// Data that nobody takes stays in its lane: `queued` says so, control goes on, and nothing is lost.
#[test]
fn data_that_nobody_takes_holds_up_nothing_else() {
    let [here, there] = pair(TcpSettings::default()).link();
    let mut sent = 0;
    until("the lane fills", || {
        here.send(Lane::Data, vec![sent as u8; 1 << 20]).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(2));
        here.queued(Lane::Data) >= 4 << 20
    });
    here.send(Lane::Control, vec![1, 2, 3]).unwrap();
    assert_eq!(next(&there, Lane::Control), Some(vec![1, 2, 3]));
    assert!(here.queued(Lane::Data) >= 2 << 20, "the data has left");
    for at in 0..sent {
        assert_eq!(next(&there, Lane::Data).unwrap(), vec![at as u8; 1 << 20]);
    }
}

#[test]
fn a_close_ends_every_wait_and_the_peer_hears_of_it() {
    let [here, there] = pair(TcpSettings::default()).link();
    there.send(Lane::Control, vec![4]).unwrap();
    here.send(Lane::Control, vec![5]).unwrap();
    assert!(here.wait(Lane::Control, PATIENCE_NS) && there.wait(Lane::Control, PATIENCE_NS));
    let waits = LANES.map(|lane| (lane, here.clone(), there.clone()));
    let waits = waits.map(|(lane, here, there)| {
        std::thread::spawn(move || (here.wait(lane, PATIENCE_NS), there.wait(lane, PATIENCE_NS)))
    });
    here.close();
    for wait in waits {
        assert_eq!(wait.join().unwrap(), (true, true));
    }
    assert!(here.receive(Lane::Control).is_err(), "what had arrived is forgotten");
    assert_eq!(next(&there, Lane::Control), Some(vec![5]), "what had arrived is handed over");
    for lane in LANES {
        assert!(why(&here, lane).contains("it was closed here"));
        assert!(why(&there, lane).contains("hung up"), "{}", why(&there, lane));
        assert_eq!(here.send(lane, vec![1]).unwrap_err().kind(), Kind::NoPeer);
        assert_eq!(here.queued(lane), 0);
    }
}

#[test]
fn a_link_that_is_dropped_is_down_at_both_ends() {
    let [here, there] = pair(TcpSettings::default()).link();
    drop(here);
    assert!(why(&there, Lane::Data).contains("hung up"));
}

/// A peer that asks and does not read costs so much memory, and no more.
#[test]
fn control_frames_for_a_peer_that_does_not_read_are_bounded() {
    let [here, there] = pair(TcpSettings::default()).link();
    let mut sent = 0;
    let error = loop {
        match here.send(Lane::Control, vec![0; 1 << 20]) {
            Ok(()) => sent += 1,
            Err(e) => break e,
        }
        assert!(sent < 64, "it has no bound");
    };
    assert!(sent >= 8 && error.to_string().contains("8388608 bytes"), "{sent}: {error}");
    assert!(there.wait(Lane::Data, PATIENCE_NS) && there.receive(Lane::Data).is_err());
}

/// Heartbeats keep an idle link, and are handed to nobody.
#[test]
fn an_idle_link_stands() {
    let silence = Duration::from_millis(500);
    let ends = pair(TcpSettings { silence, ..TcpSettings::default() }).link();
    let since = Instant::now();
    while since.elapsed() < 2 * silence {
        for (end, lane) in ends.iter().flat_map(|end| LANES.map(|lane| (end, lane))) {
            assert!(!end.wait(lane, 10_000_000), "{:?}", end.receive(lane));
        }
    }
    ends[0].send(Lane::Data, vec![1]).unwrap();
    assert_eq!(next(&ends[1], Lane::Data), Some(vec![1]));
}

/// 200 KiB at 400 KiB/s take half a second but for the first piece; then the limit is taken away.
#[test]
fn a_rate_is_kept_and_changes_under_way() {
    let settings = TcpSettings::default();
    let rate = settings.rate.clone();
    let [here, there] = pair(settings).link();
    rate.set(Some(400 << 10)).unwrap();
    assert_eq!(rate.set(Some(RATE_MIN - 1)).unwrap_err().kind(), Kind::Config);
    assert_eq!(rate.get(), Some(400 << 10));
    let since = Instant::now();
    here.send(Lane::Data, vec![1; 200 << 10]).unwrap();
    assert!(next(&there, Lane::Data).is_some());
    let data = since.elapsed();
    assert!(data > Duration::from_millis(400), "{data:?}");
    here.send(Lane::Data, vec![1; 2 << 20]).unwrap(); // 5 s of it
    rate.set(None).unwrap();
    assert!(next(&there, Lane::Data).is_some());
    assert!(since.elapsed() - data < Duration::from_secs(3), "{:?}", since.elapsed());
}

/// A peer whose process has died dials anew; the accepting end hands the new session over.
#[test]
fn a_new_session_follows_an_old_one() {
    let mut pair = pair(TcpSettings::default());
    let first = pair.link();
    let second = pair.link();
    second[0].send(Lane::Data, vec![2]).unwrap();
    first[0].send(Lane::Data, vec![1]).unwrap();
    assert_eq!(next(&second[1], Lane::Data), Some(vec![2]));
    assert_eq!(next(&first[1], Lane::Data), Some(vec![1]), "the engine ends it, not the link");
    // Of sessions that nobody takes, the last stands.
    let dialled = [(); 2].map(|()| pair.dialler.connect(PATIENCE).unwrap().expect("dialled"));
    assert!(why(&dialled[0], Lane::Control).contains("hung up"));
    dialled[1].send(Lane::Data, vec![3]).unwrap();
    let accepted = pair.acceptor.connect(PATIENCE).unwrap().expect("accepted");
    assert_eq!(next(&accepted, Lane::Data), Some(vec![3]));
}

/// The port is free again once the last clone is dropped, though a link of it still stands.
#[test]
fn an_accepting_end_that_is_dropped_listens_no_more() {
    let mut pair = pair(TcpSettings::default());
    let ends = pair.link();
    let address = pair.acceptor.address();
    let clone = pair.acceptor.clone();
    drop(pair.acceptor);
    assert!(std::net::TcpStream::connect(address).is_ok());
    drop(clone);
    assert!(std::net::TcpStream::connect(address).is_err());
    let error = pair.dialler.connect(PATIENCE).expect_err("nobody listens");
    assert_eq!(error.kind(), Kind::NoPeer);
    assert_eq!(pair.dialler.trouble().unwrap().to_string(), error.to_string());
    ends[0].send(Lane::Data, vec![3]).unwrap();
    assert_eq!(next(&ends[1], Lane::Data), Some(vec![3]));
}

#[test]
fn nothing_goes_in_the_clear_but_on_loopback_and_without_keys() {
    let none = Pins::default();
    let settings = TcpSettings::default;
    let mut acceptor = Acceptor::insecure("127.0.0.1:0", &none, settings()).unwrap();
    let address = acceptor.address().to_string();
    let mut dialler = Dialler::insecure(&address, &none, settings()).unwrap();
    let here = dialler.connect(PATIENCE).unwrap().expect("dialled");
    let there = acceptor.connect(PATIENCE).unwrap().expect("accepted");
    here.send(Lane::Data, vec![1; 1 << 20]).unwrap();
    assert_eq!(next(&there, Lane::Data), Some(vec![1; 1 << 20]));
    assert_eq!(dialler.peer().unwrap().1, None);

    let pinned = Pins::new(DeviceKey::generate().unwrap().public());
    let refused = [
        Acceptor::insecure("0.0.0.0:0", &none, settings()).err(),
        Acceptor::insecure("127.0.0.1:0", &pinned, settings()).err(),
        Dialler::insecure("192.0.2.1:7000", &none, settings()).err(),
        Dialler::insecure(&address, &pinned, settings()).err(),
    ];
    for error in refused {
        assert_eq!(error.expect("refused").kind(), Kind::Config);
    }
    // An end that knows keys takes nothing from one that does not, nor the other way round.
    let key = DeviceKey::generate().unwrap();
    let mut secure = Dialler::new(&address, &key, &none, settings());
    assert!(secure.connect(PATIENCE).is_err());
    let secure = Acceptor::bind("127.0.0.1:0", &key, &pinned, settings()).unwrap();
    let address = secure.address().to_string();
    let mut dialler = Dialler::insecure(&address, &none, settings()).unwrap();
    assert!(dialler.connect(PATIENCE).is_err());
    until("it is counted", || secure.counters().malformed > 0);
}
