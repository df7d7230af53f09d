//! An export that is open at a fenced device: the host's first read or write takes the host over (S803), and waits
//! until the device serves.
//!
//! # Rules
//! - Only a command that reads or changes data begins a takeover. A flush, a block status and the like are kept, and
//!   answered behind it; if the device comes to serve without it, the host is hung up on, and comes back.
//! - An export begins one takeover in [`Settings::takeover_pause`](super::Settings), however many hosts ask.

use super::connection::Connection;
use super::negotiate::{Agreed, broken, take};
use super::reply::REPLY;
use super::request::{Reader, check, refuse};
use super::wire::{RequestHead, command};
use super::{Export, LOOK_AGAIN, Shared};
use afterimage::{Device, Kind, Session};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Most requests that are kept.
const KEPT_MAX: usize = 64;

/// A takeover that could not be begun, for want of a peer, is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A host's session, once the device serves, and the requests that came before: the last one may have data to be read.
/// `None`: the host has left.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] with what was wrong; the socket's.
pub(super) fn first_session(
    shared: &Shared,
    connection: &Arc<Connection>,
    (export, agreed): (&Export, Agreed),
    input: &mut Reader<'_>,
) -> io::Result<Option<(Session, Vec<RequestHead>)>> {
    let mut kept = Vec::new();
    loop {
        let head = RequestHead::decode(&take(input)?).map_err(broken)?;
        if !connection.take_room(REPLY) {
            connection.wait_until_over();
            return Ok(None);
        }
        match check(&head, export, agreed) {
            Err(refused) => {
                refuse(connection, (&head, agreed), &refused, input)?;
                continue;
            }
            Ok(()) if head.command == command::DISC => return Ok(None),
            Ok(()) => kept.push(head),
        }
        let begins = head.length > 0 && reads_or_changes(head.command);
        let found = match begins || kept.len() >= KEPT_MAX {
            true => {
                connection.keeps_requests(false);
                wait(shared, connection, begins.then_some(export))
            }
            false => {
                // First the mark, then the look: the device may come to serve just now.
                connection.keeps_requests(true);
                let device = shared.device().clone();
                let found = device.and_then(|device| Some((device.session().ok()?, device)));
                match found {
                    Some(found) => Some(found),
                    None => continue,
                }
            }
        };
        let Some((session, device)) = found else {
            connection.wait_until_over();
            return Ok(None);
        };
        shared.enter(connection, &device, &session);
        return Ok(Some((session, kept)));
    }
}

fn reads_or_changes(number: u16) -> bool {
    use command::{READ, TRIM, WRITE, WRITE_ZEROES};
    matches!(number, READ | WRITE | TRIM | WRITE_ZEROES)
}

/// Waits until the device serves, and begins a takeover if `export` is given; `None` once the connection is not
/// served any more.
fn wait(
    shared: &Shared,
    connection: &Connection,
    export: Option<&Export>,
) -> Option<(Session, Arc<Device>)> {
    loop {
        let present = shared.device().clone();
        match present.as_ref().map(|device| (device, device.session())) {
            // It is being opened.
            None => {}
            Some((device, Ok(session))) => return Some((session, device.clone())),
            Some((device, Err(error))) if error.kind() == Kind::Halted && shared.has(device) => {
                connection.hang_up();
                return None;
            }
            // An operator's fence stands.
            Some((device, Err(_))) if device.status().fenced_here => {}
            Some((device, Err(error))) if error.kind() == Kind::Fenced => {
                if let Some(export) = export {
                    shared.take_over_for(device, export);
                }
            }
            Some((_, Err(_))) => {}
        }
        if !connection.wait_a_moment(LOOK_AGAIN) {
            return None;
        }
    }
}

impl Shared {
    /// Begins a takeover for a host of `export`, if none was begun of late.
    fn take_over_for(&self, device: &Device, export: &Export) {
        let mut due = self.takeover_due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if due.get(&export.volume).is_some_and(|due| now < *due) {
            return;
        }
        let pause = match device.begin_takeover() {
            Ok(()) => self.settings.takeover_pause,
            Err(_) => AGAIN,
        };
        due.insert(export.volume, now + pause);
    }
}
