//! Flushes and commits: whoever asks for durability is answered, whatever else is under way.

mod common;

use afterimage::internal::request::{Request, Ticket};
use afterimage::internal::storage::{FileName, Memory, Storage};
use common::hooked::{Call, Hooked};
use common::{A, Pair, Spec, X};
use std::sync::{Arc, Mutex};

/// A flush is asked for while a commit is under way that happens to cover all there is: it gets
/// its own round, though that round has nothing to do, and nobody writes any more.
#[test]
fn a_flush_during_the_last_commit_is_answered() {
    let hooked = Arc::new(Hooked::default());
    let storages: [Arc<dyn Storage>; 2] = [hooked.clone(), Arc::new(Memory::new())];
    let mut pair = Pair::with(Spec { storages, ..Spec::default() });
    pair.write(A, X, 1);
    let session = pair.session(A).unwrap();
    let flush: Arc<Mutex<Option<Ticket>>> = Arc::default();
    let asked = flush.clone();
    hooked.when(Call::Sync, FileName::OwnLog, move || {
        *asked.lock().unwrap() = Some(session.submit(Request::flush()).unwrap());
    });
    pair.devices[A].step_commit().unwrap();
    assert!(hooked.has_happened());
    let mut flush = flush.lock().unwrap().take().unwrap();
    assert!(flush.poll().is_none(), "it cannot know what the commit covers");
    assert!(pair.devices[A].step_commit_due().unwrap(), "somebody waits");
    assert!(flush.poll().unwrap().is_ok());
    assert!(!pair.devices[A].step_commit_due().unwrap(), "nobody waits, nothing is due");
    pair.drain();
}
