//! Peers that are somebody else, lie, dawdle or die: each is refused, counted, and costs nothing that stays.

use super::super::frames::HEARTBEAT;
use super::super::greeting::{ANSWER, Answer, Greeting, Purpose, Word};
use super::super::wire::{Broken, Wire};
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Short enough to wait for, long enough for a handshake on a busy machine.
fn hurried() -> TcpSettings {
    TcpSettings { handshake: Duration::from_millis(1500), ..TcpSettings::default() }
}

/// A connection to the accepting end by a device with `key`, TLS done.
fn dial(pair: &Pair, key: &DeviceKey) -> Result<Wire, Broken> {
    let stream = TcpStream::connect(pair.acceptor.address()).unwrap();
    let config = tls::client(key, Box::new(|_| true));
    Wire::dial(stream, Some(&config), Instant::now() + PATIENCE)
}

fn greet(wire: &mut Wire, lane: Lane, nonce: u8) {
    wire.send(&Greeting::new(Purpose::Lane(lane), [nonce; 16]).encode()).unwrap();
}

fn answer(wire: &mut Wire) -> Word {
    Answer::decode(&wire.receive_array::<ANSWER>().expect("an answer")).unwrap().word
}

/// Nothing more comes: the accepting end has hung up.
fn is_over(wire: &mut Wire) -> bool {
    matches!(wire.receive_array::<1>(), Err(Broken::Malformed(_)))
}

#[test]
fn a_wrong_key_gets_nothing_at_either_end() {
    let mut pair = pair(TcpSettings::default());
    let stranger = DeviceKey::generate().unwrap();
    let address = pair.acceptor.address().to_string();
    // The accepting end does not know the key that dials.
    let right = Pins::new(pair.accepts.public());
    let mut other = Dialler::new(&address, &stranger, &right, TcpSettings::default());
    let refused = other.connect(PATIENCE).expect_err("its key is not pinned");
    assert!(refused.to_string().contains("not pinned this device's key"), "{refused}");
    until("it is counted", || pair.acceptor.counters().wrong_key > 0);
    // The dialling end does not know the key that answers, and says no more than its first word.
    let wrong = Pins::new(stranger.public());
    let mut other = Dialler::new(&address, &pair.dials, &wrong, TcpSettings::default());
    let refused = other.connect(PATIENCE).expect_err("the key there is not pinned");
    let shown = pair.accepts.public().fingerprint().to_string();
    assert_eq!(refused.kind(), Kind::Protocol);
    assert!(refused.to_string().contains(&shown), "{refused}");
    assert!(pair.acceptor.connect(Duration::ZERO).unwrap().is_none());
    assert_eq!(pair.acceptor.counters().sessions, 0);
}

/// While somebody is invited a key without a pin comes in to pair, and gets no session.
#[test]
fn a_key_without_a_pin_gets_no_session_while_somebody_is_invited() {
    let pair = pair(TcpSettings::default());
    let stranger = DeviceKey::generate().unwrap();
    let invitation = Invitation::new(stranger.public(), None).unwrap();
    pair.acceptor.invite(invitation.record(0), super::pairing::Owner::default());
    let mut wire = dial(&pair, &stranger).unwrap();
    greet(&mut wire, Lane::Data, 1);
    assert_eq!((answer(&mut wire), is_over(&mut wire)), (Word::NotPinned, true));
    until("it is counted", || pair.acceptor.counters().wrong_key == 1);
    pair.acceptor.withdraw();
    let refused = dial(&pair, &stranger).and_then(|mut wire| wire.receive_array::<1>());
    assert!(refused.is_err());
    until("it is counted", || pair.acceptor.counters().wrong_key == 2);
}

/// A pin that is taken back gets no further session.
#[test]
fn a_key_can_be_changed() {
    let mut pair = pair(TcpSettings::default());
    let [_old, _] = pair.link();
    pair.pins.remove(pair.dials.public());
    assert!(pair.dialler.connect(PATIENCE).is_err());
    let new = DeviceKey::generate().unwrap();
    pair.pins.add(new.public());
    let mut wire = dial(&pair, &new).unwrap();
    greet(&mut wire, Lane::Data, 1);
    greet(&mut dial(&pair, &new).unwrap(), Lane::Control, 1);
    assert_eq!(answer(&mut wire), Word::Welcome);
}

#[test]
fn a_greeting_without_meaning_is_answered_and_counted() {
    let pair = pair(TcpSettings::default());
    let mut unlike = Greeting::new(Purpose::Pairing, [1; 16]).encode();
    unlike[0] ^= 1;
    let mut later = Greeting::new(Purpose::Lane(Lane::Data), [1; 16]).encode();
    later[8] = 2;
    for (count, (bytes, word)) in
        [(unlike, Word::Refused), (later, Word::OtherVersion)].into_iter().enumerate()
    {
        let mut wire = dial(&pair, &pair.dials).unwrap();
        wire.send(&bytes).unwrap();
        assert_eq!((answer(&mut wire), is_over(&mut wire)), (word, true));
        until("it is counted", || pair.acceptor.counters().malformed == count as u64 + 1);
    }
    // A pairing without an invitation.
    let mut wire = dial(&pair, &pair.dials).unwrap();
    let greeting = Greeting::new(Purpose::Pairing, [1; 16]).encode();
    wire.send(&[&greeting[..], &[0; 32]].concat()).unwrap();
    assert_eq!((answer(&mut wire), is_over(&mut wire)), (Word::NotInvited, true));
    // No TLS at all.
    let mut stream = TcpStream::connect(pair.acceptor.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    until("it is counted", || pair.acceptor.counters().malformed == 3);
}

/// A nonce that has named a session names no other, and a lane that a session has it gets no second time.
#[test]
fn a_session_is_joined_once() {
    let mut pair = pair(TcpSettings::default());
    let mut wires = [(); 2].map(|()| dial(&pair, &pair.dials).unwrap());
    greet(&mut wires[0], Lane::Control, 7);
    let mut twice = dial(&pair, &pair.dials).unwrap();
    until("the first is kept", || pair.acceptor.is_waiting(&[7; 16]));
    greet(&mut twice, Lane::Control, 7);
    assert_eq!((answer(&mut twice), is_over(&mut twice)), (Word::Refused, true));
    greet(&mut wires[1], Lane::Data, 7);
    for wire in &mut wires {
        assert_eq!(answer(wire), Word::Welcome);
    }
    for lane in LANES {
        let mut replayed = dial(&pair, &pair.dials).unwrap();
        greet(&mut replayed, lane, 7);
        assert_eq!((answer(&mut replayed), is_over(&mut replayed)), (Word::Refused, true));
    }
    let standing = pair.acceptor.connect(PATIENCE).unwrap().expect("joined");
    standing.send(Lane::Data, vec![1]).unwrap();
    assert_eq!(wires[1].receive_array().unwrap(), [1, 0, 0, 0, 1]);
    assert_eq!(pair.acceptor.counters().sessions, 1);
}

/// Two pinned keys that say the same nonce have two sessions, not one.
#[test]
fn connections_with_different_keys_are_not_joined() {
    let mut pair = pair(hurried());
    let other = DeviceKey::generate().unwrap();
    pair.pins.add(other.public());
    let mut wires = [dial(&pair, &pair.dials).unwrap(), dial(&pair, &other).unwrap()];
    greet(&mut wires[0], Lane::Data, 3);
    greet(&mut wires[1], Lane::Control, 3);
    assert!(wires.iter_mut().all(is_over), "each has waited for its other one");
    until("they are counted", || pair.acceptor.counters().timed_out == 2);
    assert!(pair.acceptor.connect(Duration::ZERO).unwrap().is_none());
}

/// Silent and slow clients are given up, whatever they have said before; meanwhile there are only so many, and
/// a session that stands does not notice.
#[test]
fn clients_that_dawdle_are_given_up() {
    let mut pair = pair(TcpSettings { handshakes_max: 3, ..hurried() });
    let [here, there] = pair.link();
    let mut silent = TcpStream::connect(pair.acceptor.address()).unwrap();
    let mut greeted = dial(&pair, &pair.dials).unwrap(); // TLS, and then nothing
    let slow = TcpStream::connect(pair.acceptor.address()).unwrap();
    let dribbles = std::thread::spawn(move || {
        // A record of 256 bytes, one at a time: never silent, never done.
        let record = [&[22, 3, 1, 1, 0][..], &[1; 256]].concat();
        record.iter().all(|byte| {
            std::thread::sleep(Duration::from_millis(20));
            (&slow).write_all(&[*byte]).is_ok()
        })
    });
    until("they are all in", || {
        let mut more = TcpStream::connect(pair.acceptor.address()).unwrap();
        more.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        matches!(more.read(&mut [0]), Ok(0)) && pair.acceptor.counters().too_many > 0
    });
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(is_over(&mut greeted) && !dribbles.join().unwrap());
    until("they are counted", || pair.acceptor.counters().timed_out >= 3);
    here.send(Lane::Data, vec![1]).unwrap();
    assert_eq!(next(&there, Lane::Data), Some(vec![1]));
    pair.link();
}

/// A session by hand: the accepting end, and the connections of its peer.
fn by_hand(pair: &mut Pair) -> (Arc<dyn Link>, [Wire; 2]) {
    let mut wires = LANES.map(|lane| {
        let mut wire = dial(pair, &pair.dials).unwrap();
        greet(&mut wire, lane, 1);
        wire
    });
    for wire in &mut wires {
        assert_eq!(answer(wire), Word::Welcome);
    }
    (pair.acceptor.connect(PATIENCE).unwrap().expect("joined"), wires)
}

#[test]
fn a_frame_too_long_or_cut_short_ends_the_link() {
    let mut oversized = pair(TcpSettings::default());
    let (link, mut wires) = by_hand(&mut oversized);
    wires[0]
        .send(&[&[1, 0, 0, 0, 9][..], &(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()].concat())
        .unwrap();
    assert_eq!(next(&link, Lane::Data), Some(vec![9]), "what came before is handed over");
    assert!(why(&link, Lane::Data).contains("a frame of 2097153 bytes"));
    assert!(why(&link, Lane::Control).contains("a frame of 2097153 bytes"), "both lanes are down");

    let mut killed = pair(TcpSettings::default());
    let (link, mut wires) = by_hand(&mut killed);
    wires[1].send(&[9, 0, 0, 0, 1, 2]).unwrap();
    drop(wires);
    assert!(why(&link, Lane::Control).contains("hung up"));
}

/// A byte changed on its way, or anything that is not TLS, is noticed.
#[test]
fn bytes_that_are_not_the_peers_end_the_link() {
    let mut pair = pair(TcpSettings::default());
    let (link, wires) = by_hand(&mut pair);
    (&wires[0].stream).write_all(&[23, 3, 3, 0, 40]).unwrap();
    (&wires[0].stream).write_all(&[7; 40]).unwrap();
    assert!(why(&link, Lane::Data).contains("decrypt"), "{}", why(&link, Lane::Data));
}

/// A machine without power ends no connection: the lane is silent, in the middle of a frame or between two.
#[test]
fn a_peer_that_is_silent_is_gone() {
    let silence = Duration::from_millis(300);
    for lane in LANES {
        let mut pair = pair(TcpSettings { silence, ..TcpSettings::default() });
        let (link, mut wires) = by_hand(&mut pair);
        let since = Instant::now();
        // Only one lane is silent.
        wires[lane as usize].send(&[9, 0, 0, 0, 1]).unwrap();
        while !link.wait(lane, 20_000_000) {
            assert!(since.elapsed() < PATIENCE);
            let _ = wires[1 - lane as usize].send(&HEARTBEAT); // it may be down by now
        }
        assert!(why(&link, lane).contains("nothing has arrived for 300ms"), "{}", why(&link, lane));
        assert!(since.elapsed() >= silence);
    }
}
