//! Block status: where the content of a range is, and what of it is known to be zeros.
//!
//! | context | flags |
//! |---|---|
//! | `base:allocation` | 3 (a hole, reads as zeros); 0 anything else |
//! | `afterimage:location` | 0 in the normal volume here; 1 in a journal here; 2 at the peer |
//!
//! A reply covers as much of the range as the engine tells with bounded work, in at most
//! [`EXTENTS_MAX`] extents; the client asks for the rest.

use super::connection::Part;
use super::negotiate::CONTEXTS;
use super::reply::{self, REPLY};
use super::submit::Desk;
use super::wire::{RequestHead, chunk, flag};
use afterimage::{Located, Place};

/// Most extents in one reply: 8 KiB of it.
const EXTENTS_MAX: usize = 1024;

const HOLE_AND_ZERO: u32 = 3;

/// Answers a request for block status.
pub(super) fn answer(desk: &Desk<'_>, head: &RequestHead) {
    let most = if head.flags & flag::REQ_ONE != 0 { 1 } else { EXTENTS_MAX };
    let located = desk.session.locate(desk.export.volume, head.offset, head.length.into(), most);
    let located = match located {
        Ok(located) => located,
        Err(error) => {
            return match reply::refused(&error) {
                Some(refused) => {
                    desk.connection.reply([reply::refusal(head, desk.agreed, &refused)]);
                }
                None => desk.connection.unanswered(&error),
            };
        }
    };
    let contexts = (0..CONTEXTS.len()).filter(|bit| desk.agreed.contexts >> bit & 1 != 0);
    let last = contexts.clone().next_back();
    let mut bytes = Vec::new();
    for context in contexts {
        let flags = if Some(context) == last { chunk::DONE } else { 0 };
        let extents = extents(&located, context);
        reply::status_chunk(&mut bytes, head, flags, context as u32 + 1, &extents);
    }
    desk.connection.reply([Part { bytes, room: REPLY }]);
}

/// Lengths and flags in a context, neighbours different.
fn extents(located: &[Located], context: usize) -> Vec<(u32, u32)> {
    let mut extents: Vec<(u32, u32)> = Vec::new();
    for run in located {
        let flags = match (CONTEXTS[context], run.place) {
            ("base:allocation", _) if run.zeros => HOLE_AND_ZERO,
            ("base:allocation", _) | (_, Place::Here) => 0,
            (_, Place::Journal) => 1,
            (_, Place::Peer) => 2,
        };
        // No longer than the range that was asked for.
        let bytes = run.bytes as u32;
        match extents.last_mut() {
            Some((length, before)) if *before == flags => *length += bytes,
            _ => extents.push((bytes, flags)),
        }
    }
    extents
}
