//! Hosts that come back (R20): new connections of theirs, and what must not come of the old ones.

use super::NAMES;
use super::Side;
use super::host::{Asked, What};
use super::tape::Sort;
use super::world::World;
use crate::error::Error;
use crate::request::Session;
use crate::sync::lock;
use crate::unit::Position;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The sessions of a device that runs.
#[derive(Default)]
pub(super) struct Returns {
    /// By volume and session: the positions that it has published, from the first to the last.
    published: BTreeMap<(u32, u64), Range<Position>>,
    /// Volume and session of every write that was asked for.
    asked: BTreeSet<(u32, u64)>,
    /// Sessions that were revoked, and the next position then.
    revoked: BTreeMap<u64, Position>,
    /// Sessions whose hosts were hung up on.
    hung_up: Arc<Mutex<BTreeSet<u64>>>,
}

impl World {
    /// A session with the device at `side`, whose owner hangs up when it is told to.
    pub(super) fn open_session(&self, side: Side) -> crate::error::Result<Session> {
        let session = self.device(side).expect("it runs").session()?;
        let (hung_up, number) =
            (self.machines[side].returns.borrow().hung_up.clone(), session.number());
        session.on_hang_up(move |_| {
            lock(&hung_up).insert(number);
        });
        Ok(session)
    }

    /// The host's connection to `side` dies, or seems to live on; and it comes back on a new one.
    pub(super) fn come_back(&self, side: Side, known: bool) {
        let machine = &self.machines[side];
        let Some(device) = self.device(side) else { return };
        let Ok(session) = self.open_session(side) else { return };
        let before = machine.sessions.borrow().last().cloned();
        if let Some(before) = before.filter(|_| known) {
            before.revoke();
            let next = device.own.journal.queue.tail();
            machine.returns.borrow_mut().revoked.entry(before.number()).or_insert(next);
        }
        let story = if known { "whose connection has died" } else { "unnoticed" };
        let number = session.number();
        let event = format_args!("a host comes back to {} as {number}, {story}", NAMES[side]);
        self.tape.event(Sort::Host, event);
        self.tape.count("hosts that came back");
        self.keep_session(side, session);
    }

    pub(super) fn keep_session(&self, side: Side, session: Session) {
        let mut sessions = self.machines[side].sessions.borrow_mut();
        if sessions.len() == 4 {
            sessions.remove(0);
        }
        sessions.push(session);
    }

    /// A write is asked for.
    pub(super) fn claims(&self, side: Side, asked: &Asked) {
        if !matches!(asked.what, What::Read | What::Flush) {
            let mut returns = self.machines[side].returns.borrow_mut();
            returns.asked.insert((asked.volume, asked.session));
        }
    }

    /// Nothing is admitted through a session that was revoked, and nothing through one behind which
    /// a later one had something admitted to the same volume.
    pub(super) fn check_session(&self, side: Side, asked: &Asked, position: Position) {
        let (name, number, session) = (NAMES[side], asked.number, asked.session);
        let mut returns = self.machines[side].returns.borrow_mut();
        if returns.revoked.get(&session).is_some_and(|&next| position >= next) {
            let story = format!("{name} #{number} of session {session} at position {position}");
            self.tape.broken("nothing is admitted through a session that was revoked", story);
        }
        let volume = asked.volume;
        let range = returns.published.entry((volume, session)).or_insert(position..position);
        *range = range.start.min(position)..range.end.max(position);
        if self.plan.settings[side].shared_volumes.contains(&volume) {
            return;
        }
        let of_volume = returns.published.range((volume, 0)..=(volume, u64::MAX));
        let mut last: Option<(u64, Position)> = None;
        for (&(_, session), range) in of_volume {
            if let Some((before, end)) = last.filter(|last| last.1 > range.start) {
                let story = format!(
                    "{name} admitted a write of session {before} at position {end}, and one of \
                     session {session} at {} before",
                    range.start
                );
                return self.tape.broken("a host that has come back is not overtaken", story);
            }
            last = Some((session, range.end));
        }
    }

    /// A session is over only if its owner revoked it, or if a later one writes to a volume that it
    /// writes to; then its owner is told to hang up.
    pub(super) fn check_superseded(&self, side: Side, asked: &Asked, error: &Error) {
        let session = asked.session;
        let returns = self.machines[side].returns.borrow();
        if returns.revoked.contains_key(&session) {
            return self.tape.count("requests of revoked sessions");
        }
        let later = |volume| returns.asked.range((volume, session + 1)..=(volume, u64::MAX)).next();
        let writes = returns.asked.iter().filter(|of| of.1 == session);
        let shared = &self.plan.settings[side].shared_volumes;
        let is_over = |volume| !shared.contains(&volume) && later(volume).is_some();
        let is_later = writes.into_iter().any(|&(volume, _)| is_over(volume));
        if !is_later || !lock(&returns.hung_up).contains(&session) {
            let story = format!("{} #{}: {error}", NAMES[side], asked.number);
            self.tape.broken("a session is over only if a later one writes", story);
        }
        self.tape.count("requests of superseded sessions");
    }
}
