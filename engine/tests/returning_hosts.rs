//! Hosts that come back on new connections (R20): sessions are numbered, and what an old one has not
//! had admitted is never admitted. The rest of S37 is on the simulated world
//! (`engine/src/simulate/scenarios/late_write.rs`).
#![cfg(not(loom))]

mod common;

use afterimage::internal::error::Kind;
use afterimage::internal::request::{Request, Session};
use common::{A, Pair, Spec};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, mpsc};

fn pair(shared_sessions: bool) -> Pair {
    Pair::with(Spec { exclusive: !shared_sessions, ..Spec::default() })
}

fn session(pair: &Pair) -> Session {
    pair.devices[A].session().unwrap()
}

/// The errors told to the owner of `session` when it is to hang up.
fn told(session: &Session) -> Arc<Mutex<Vec<Kind>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    session.on_hang_up(move |error| tell.lock().unwrap().push(error.kind()));
    told
}

#[test]
fn a_later_session_that_writes_supersedes() {
    let pair = pair(false);
    let (old, new, idle) = (session(&pair), session(&pair), session(&pair));
    let (of_old, of_idle) = (told(&old), told(&idle));
    old.write(0, 0, &[1; 4096]).unwrap();
    new.read(0, 0, &mut [0; 4096]).unwrap();
    old.write(0, 0, &[2; 4096]).unwrap();
    assert!(of_old.lock().unwrap().is_empty(), "reading ends nobody's session");
    new.discard(0, 4096, 4096).unwrap();
    assert_eq!(*of_old.lock().unwrap(), [Kind::Superseded], "told by the later one's write");
    let refused = [
        old.write(0, 0, &[3; 4096]).map(drop),
        old.read(0, 0, &mut [0; 4096]),
        old.flush(),
        old.clone().write_zeroes(0, 0, 512),
    ];
    assert!(refused.iter().all(|e| e.as_ref().is_err_and(|e| e.kind() == Kind::Superseded)));
    // A handler that comes too late is called at once.
    assert_eq!(*told(&old).lock().unwrap(), [Kind::Superseded]);
    assert_eq!(of_old.lock().unwrap().len(), 1);
    // The last one has only read: it goes on, until it writes and is the writer.
    idle.read(0, 0, &mut [0; 4096]).unwrap();
    new.write(0, 0, &[4; 4096]).unwrap();
    idle.write(0, 0, &[5; 4096]).unwrap();
    assert_eq!(new.write(0, 0, &[6; 4096]).unwrap_err().kind(), Kind::Superseded);
    let mut found = [0; 4096];
    idle.read(0, 0, &mut found).unwrap();
    assert_eq!((found, of_idle.lock().unwrap().len()), ([5; 4096], 0));
}

/// It had not written yet, and the later one has: its owner learns of it by its first write.
#[test]
fn a_lower_session_that_writes_late_is_over() {
    let pair = pair(false);
    let (old, new) = (session(&pair), session(&pair));
    let of_old = told(&old);
    new.write(0, 0, &[1; 4096]).unwrap();
    old.read(0, 0, &mut [0; 4096]).unwrap();
    assert!(of_old.lock().unwrap().is_empty());
    assert_eq!(old.write(0, 0, &[2; 4096]).unwrap_err().kind(), Kind::Superseded);
    assert_eq!(*of_old.lock().unwrap(), [Kind::Superseded]);
    new.write(0, 0, &[3; 4096]).unwrap();
}

/// Fills the journal of A, whose peer takes nothing; returns the data that did not fit.
fn fill(pair: &mut Pair, host: &Session) -> u8 {
    pair.hold_ships(true);
    for value in 0.. {
        let data = [value; 4096];
        let slices = [IoSlice::new(&data)];
        let mut ticket = host.submit(Request::write(0, 0, &slices)).unwrap();
        if ticket.poll().is_none() {
            return value;
        }
        pair.devices[A].step_commit().unwrap();
        assert!(value < 250, "the journal never fills");
    }
    unreachable!()
}

#[test]
fn revoking_drops_what_waits() {
    let mut pair = pair(false);
    let host = session(&pair);
    let of_host = told(&host);
    fill(&mut pair, &host);
    let data = [255; 4096];
    let slices = [IoSlice::new(&data)];
    let mut waits = host.submit(Request::write(0, 0, &slices)).unwrap();
    let (say, hear) = mpsc::channel();
    host.submit_with(Request::write(0, 0, &slices), move |outcome| {
        say.send(outcome.map(drop)).unwrap();
    })
    .unwrap();
    assert!(waits.poll().is_none() && hear.try_recv().is_err());
    let waiting = std::thread::spawn({
        let host = host.clone();
        move || host.write(0, 0, &[255; 4096])
    });
    host.revoke();
    host.revoke();
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), Kind::Superseded);
    assert_eq!(waits.poll().unwrap().unwrap_err().kind(), Kind::Superseded);
    assert_eq!(pair.devices[A].step_calls(), 1);
    assert_eq!(hear.try_recv().unwrap().unwrap_err().kind(), Kind::Superseded);
    assert_eq!(host.read(0, 0, &mut [0; 512]).unwrap_err().kind(), Kind::Superseded);
    assert!(of_host.lock().unwrap().is_empty(), "its owner knows");
    session(&pair).read(0, 0, &mut [0; 512]).unwrap();
}

#[test]
fn shared_sessions_write_side_by_side() {
    let pair = pair(true);
    assert!(pair.devices[A].status().shared_sessions);
    let (one, other) = (session(&pair), session(&pair));
    for host in [&one, &other, &one] {
        host.write(0, 0, &[1; 4096]).unwrap();
    }
    one.revoke();
    assert_eq!(one.write(0, 0, &[1; 4096]).unwrap_err().kind(), Kind::Superseded);
    other.write(0, 0, &[1; 4096]).unwrap();
}
