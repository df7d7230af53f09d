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
use std::time::Duration;

fn pair(shared_sessions: bool) -> Pair {
    Pair::with(Spec { exclusive: !shared_sessions, ..Spec::default() })
}

fn session(pair: &Pair) -> Session {
    pair.devices[A].session().unwrap()
}

/// Calls the handlers that are due.
fn step(pair: &Pair) -> usize {
    pair.devices[A].step_calls()
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
    assert_eq!(step(&pair), 1);
    assert_eq!(*of_old.lock().unwrap(), [Kind::Superseded], "told by the later one's write");
    let refused = [
        old.write(0, 0, &[3; 4096]).map(drop),
        old.read(0, 0, &mut [0; 4096]),
        old.flush(),
        old.clone().write_zeroes(0, 0, 512),
    ];
    assert!(refused.iter().all(|e| e.as_ref().is_err_and(|e| e.kind() == Kind::Superseded)));
    // A handler that comes too late is called all the same.
    let late = told(&old);
    assert_eq!(step(&pair), 1);
    assert_eq!(*late.lock().unwrap(), [Kind::Superseded]);
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
    assert_eq!(step(&pair), 1);
    assert_eq!(*of_old.lock().unwrap(), [Kind::Superseded]);
    new.write(0, 0, &[3; 4096]).unwrap();
}

/// A host's connection keeps its table locked across its calls, and its handler looks there: no call of
/// a host waits for a handler, or ends because one panics.
#[test]
fn a_handler_is_called_within_no_call_of_a_host() {
    let pair = pair(false);
    let (old, late, new) = (session(&pair), session(&pair), session(&pair));
    let table = Arc::new(Mutex::new(()));
    let found = Arc::new(Mutex::new(Vec::new()));
    old.on_hang_up(|_| std::panic::resume_unwind(Box::new("a handler's own")));
    late.on_hang_up({
        let (table, found) = (table.clone(), found.clone());
        let device = Arc::downgrade(&pair.devices[A]);
        move |_| {
            let calls = device.upgrade().unwrap().step_calls();
            found.lock().unwrap().push((table.try_lock().is_ok(), calls));
        }
    });
    {
        let _locked = table.lock().unwrap();
        old.write(0, 0, &[1; 4096]).unwrap();
        new.write(0, 0, &[2; 4096]).unwrap();
        assert_eq!(late.write(0, 0, &[3; 4096]).unwrap_err().kind(), Kind::Superseded);
    }
    assert_eq!(step(&pair), 2);
    assert_eq!(*found.lock().unwrap(), [(true, 0)]);
}

/// Revokes its session when it is dropped, as a connection that is over does.
struct Connection(Session);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

#[test]
fn a_handler_is_dropped_under_no_lock() {
    let pair = pair(false);
    let sessions = [session(&pair), session(&pair)];
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for session in &sessions {
            let connection = Connection(session.clone());
            session.on_hang_up(move |_| drop(connection));
        }
        let [replaced, revoked] = &sessions;
        replaced.on_hang_up(|_| {});
        revoked.revoke();
        say.send(()).unwrap();
    });
    hear.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
}

/// A handler holds the connection that holds the session: a device that is closed lets them go.
#[test]
fn a_closed_device_keeps_no_handler_of_a_writer() {
    let pair = pair(false);
    let connection = Arc::new(session(&pair));
    connection.write(0, 0, &[1; 4096]).unwrap();
    let weak = Arc::downgrade(&connection);
    let own = connection.clone();
    connection.on_hang_up(move |_| drop(own));
    drop(connection);
    assert!(weak.upgrade().is_some(), "it keeps itself alive");
    pair.devices[A].close().unwrap();
    assert!(weak.upgrade().is_none());
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
fn sessions_write_side_by_side_to_a_shared_volume() {
    let pair = pair(true);
    assert!(pair.devices[A].status().shared_volumes.contains(&0));
    let (one, other) = (session(&pair), session(&pair));
    for host in [&one, &other, &one] {
        host.write(0, 0, &[1; 4096]).unwrap();
    }
    one.revoke();
    assert_eq!(one.write(0, 0, &[1; 4096]).unwrap_err().kind(), Kind::Superseded);
    other.write(0, 0, &[1; 4096]).unwrap();
}
