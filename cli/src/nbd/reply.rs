//! Replies to requests: bytes, each with the room that comes free once they have been sent.
//!
//! | outcome | reply |
//! |---|---|
//! | beyond the end of the export | `EINVAL`; `ENOSPC` for writes and zeroes |
//! | a write to a read-only export | `EPERM` |
//! | anything else that the export does not offer | `EINVAL` |
//! | the journal has had no room for the longest time allowed | `ENOSPC`: qemu can stop the guest then instead of failing |
//! | writes that wait fill the memory that they may take | `ENOMEM` |
//! | the peer did not answer in time, damage, a failing disk | `EIO` |
//! | the tenure or the session is over, or the device stops | none: see [`refused`] |

use super::connection::{Part, Room};
use super::negotiate::Agreed;
use super::wire::{Errno, RequestHead, chunk, chunk_head, command, simple_reply};
use afterimage::{Error, Kind};
use std::ops::Range;

/// The room of a request: of its reply.
pub(super) const REPLY: Room = Room { pieces: 1, bytes: 0 };

/// Zeros are looked for in pieces of this size, aligned in the export.
const HOLE: usize = 4096;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// A refused request: the error, and its words for a person.
pub(super) type Refused = (Errno, String);

/// The error to answer; `None` where an error would be final for the host, but another connection, here or at
/// the other device, serves it: the request stays unanswered.
pub(super) fn refused(error: &Error) -> Option<Refused> {
    let errno = match error.kind() {
        Kind::Fenced
        | Kind::NotReady
        | Kind::NotProven
        | Kind::Superseded
        | Kind::LostWrites
        | Kind::Halted => return None,
        Kind::Invalid | Kind::TooLarge => Errno::Invalid,
        Kind::JournalFull => Errno::NoSpace,
        Kind::Busy => Errno::NoMemory,
        _ => Errno::Io,
    };
    Some((errno, error.to_string()))
}

fn is_structured(head: &RequestHead, agreed: Agreed) -> bool {
    agreed.structured && matches!(head.command, command::READ | command::BLOCK_STATUS)
}

/// Refuses a request.
pub(super) fn refusal(head: &RequestHead, agreed: Agreed, (errno, why): &Refused) -> Part {
    let bytes = match is_structured(head, agreed) {
        true => error_chunk(head, chunk::DONE, chunk::ERROR, *errno, why, None),
        false => simple_reply(head.cookie, *errno as u32),
    };
    Part { bytes, room: REPLY }
}

/// A request is done, and has no data.
pub(super) fn empty(head: &RequestHead, agreed: Agreed) -> Part {
    let bytes = match is_structured(head, agreed) {
        true => {
            let mut bytes = Vec::with_capacity(20);
            chunk_head(&mut bytes, chunk::DONE, chunk::NONE, head.cookie, 0);
            bytes
        }
        false => simple_reply(head.cookie, 0),
    };
    Part { bytes, room: REPLY }
}

/// All the data of a read, in one; the caller adds the room.
pub(super) fn whole(head: &RequestHead, agreed: Agreed, data: Vec<Vec<u8>>) -> Vec<Part> {
    let begins = match agreed.structured {
        true => data_head(head, head.offset, head.length as usize, chunk::DONE),
        false => simple_reply(head.cookie, 0),
    };
    let bytes = std::iter::once(begins).chain(data);
    bytes.map(Part::from).collect()
}

/// A piece of a read, as data and holes; with `is_last` nothing of the request follows.
pub(super) fn chunks(head: &RequestHead, at: u64, data: Vec<u8>, is_last: bool) -> Vec<Part> {
    let runs = runs(at, &data);
    let done = |run: usize| if is_last && run + 1 == runs.len() { chunk::DONE } else { 0 };
    if let [(_, false)] = runs[..] {
        let begins = data_head(head, at, data.len(), done(0));
        return vec![Part::from(begins), Part::from(data)];
    }
    let mut bytes = Vec::new();
    for (number, (run, is_hole)) in runs.iter().enumerate() {
        let begins = at + run.start as u64;
        match is_hole {
            true => {
                chunk_head(&mut bytes, done(number), chunk::OFFSET_HOLE, head.cookie, 12);
                bytes.extend(begins.to_be_bytes());
                bytes.extend((run.len() as u32).to_be_bytes());
            }
            false => {
                bytes.extend(data_head(head, begins, run.len(), done(number)));
                bytes.extend(&data[run.clone()]);
            }
        }
    }
    vec![Part::from(bytes)]
}

/// A piece of a read that failed.
pub(super) fn failed_chunk(
    head: &RequestHead,
    at: u64,
    (errno, why): &Refused,
    is_last: bool,
) -> Part {
    let done = if is_last { chunk::DONE } else { 0 };
    Part::from(error_chunk(head, done, chunk::ERROR_OFFSET, *errno, why, Some(at)))
}

/// The status of a range in one context: lengths and flags.
pub(super) fn status_chunk(
    bytes: &mut Vec<u8>,
    head: &RequestHead,
    flags: u16,
    context: u32,
    extents: &[(u32, u32)],
) {
    let length = 4 + 8 * extents.len() as u32;
    chunk_head(bytes, flags, chunk::BLOCK_STATUS, head.cookie, length);
    bytes.extend(context.to_be_bytes());
    for (length, flags) in extents {
        bytes.extend(length.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
    }
}

fn data_head(head: &RequestHead, at: u64, length: usize, flags: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28 + length.min(HOLE));
    chunk_head(&mut bytes, flags, chunk::OFFSET_DATA, head.cookie, 8 + length as u32);
    bytes.extend(at.to_be_bytes());
    bytes
}

fn error_chunk(
    head: &RequestHead,
    flags: u16,
    kind: u16,
    errno: Errno,
    why: &str,
    at: Option<u64>,
) -> Vec<u8> {
    // A message has 4,096 bytes at most.
    let why = &why.as_bytes()[..why.len().min(4096)];
    let mut bytes = Vec::with_capacity(34 + why.len());
    let length = 6 + why.len() + if at.is_some() { 8 } else { 0 };
    chunk_head(&mut bytes, flags, kind, head.cookie, length as u32);
    bytes.extend((errno as u32).to_be_bytes());
    bytes.extend((why.len() as u16).to_be_bytes());
    bytes.extend(why);
    bytes.extend(at.iter().flat_map(|at| at.to_be_bytes()));
    bytes
}

/// The runs of `data`, which begins at byte `at` of the export, each with whether it is all zeros. Parts of
/// blocks at either end are runs of their own or belong to their neighbour.
fn runs(at: u64, data: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let mut begin = 0;
    while begin < data.len() {
        let to_boundary = HOLE - (at as usize + begin) % HOLE;
        let end = data.len().min(begin + to_boundary);
        let is_zero = data[begin..end] == ZEROS[..end - begin];
        match runs.last_mut() {
            Some((run, was_zero)) if *was_zero == is_zero => run.end = end,
            _ => runs.push((begin..end, is_zero)),
        }
        begin = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zeros_are_found_by_blocks() {
        let mut data = vec![0; 3 * HOLE];
        assert_eq!(runs(0, &data), [(0..3 * HOLE, true)]);
        data[HOLE] = 1;
        assert_eq!(
            runs(0, &data),
            [(0..HOLE, true), (HOLE..2 * HOLE, false), (2 * HOLE..3 * HOLE, true)]
        );
        // The byte lies in the second block of the export that the range touches.
        assert_eq!(
            runs(1, &data),
            [(0..HOLE - 1, true), (HOLE - 1..2 * HOLE - 1, false), (2 * HOLE - 1..3 * HOLE, true)]
        );
        assert_eq!(runs(7, &[]), []);
    }
}
