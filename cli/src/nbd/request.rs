//! The second phase of a connection: the host's requests, read one after the other and held against what
//! the export offers.
//!
//! # Rules
//! - A request that is well formed and cannot be served gets an error, and the next one follows; the data
//!   of a write that is refused is read and dropped, up to [`DROPPED_BYTES_MAX`].
//! - At a wrong magic, at unknown flags and beyond that bound the connection ends.
//! - Once the connection is silent nothing more is read.

use super::Export;
use super::connection::{Connection, Input};
use super::negotiate::{Agreed, PAYLOAD_MAX, broken, drop_bytes, take};
use super::reply::{self, REPLY, Refused};
use super::submit::Desk;
use super::wire::{Errno, RequestHead, command, flag};
use afterimage::Session;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

/// Most bytes of a refused write that are read and dropped.
const DROPPED_BYTES_MAX: u32 = 64 << 20;

/// Bytes that are read ahead: sixteen writes of 4 KiB come with one call.
const READ_AHEAD: usize = 64 << 10;

/// The reader of a connection: everything that it reads comes by this.
pub(super) type Reader<'a> = BufReader<Input<'a>>;

pub(super) fn reader(input: Input<'_>) -> Reader<'_> {
    BufReader::with_capacity(READ_AHEAD, input)
}

/// Takes requests until the host leaves, or is hung up on; `before` were read already.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] with what was wrong; the socket's.
pub(super) fn transmit(
    connection: &Arc<Connection>,
    session: &Session,
    export: &Export,
    agreed: Agreed,
    (input, before): (&mut Reader<'_>, Vec<RequestHead>),
) -> io::Result<()> {
    let desk = Desk::new(connection, session, export, agreed);
    for head in &before {
        if !desk.serve(head, input)? {
            return Ok(());
        }
    }
    loop {
        let head = RequestHead::decode(&take(input)?).map_err(broken)?;
        // Of the reply: a host that does not take its replies makes no more of them.
        if !connection.take_room(REPLY) {
            connection.wait_until_over();
            return Ok(());
        }
        match check(&head, export, agreed) {
            Err(refused) => {
                refuse(connection, (&head, agreed), &refused, input)?;
            }
            Ok(()) if head.command == command::DISC => {
                connection.give_room(REPLY);
                connection.drain();
                return Ok(());
            }
            // The rest of its data is no request.
            Ok(()) if !desk.serve(&head, input)? => return Ok(()),
            Ok(()) => {}
        }
    }
}

/// Answers a request that cannot be served, and drops its data.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if there is too much of that; the socket's.
pub(super) fn refuse(
    connection: &Connection,
    (head, agreed): (&RequestHead, Agreed),
    refused: &Refused,
    input: &mut Reader<'_>,
) -> io::Result<()> {
    if head.command == command::WRITE {
        if head.length > DROPPED_BYTES_MAX {
            return Err(broken(format!("a write of {} bytes", head.length)));
        }
        drop_bytes(input, head.length.into())?;
    }
    connection.reply([reply::refusal(head, agreed, refused)]);
    Ok(())
}

/// Whether the request can be served as far as its head tells.
pub(super) fn check(head: &RequestHead, export: &Export, agreed: Agreed) -> Result<(), Refused> {
    let (length, offset) = (head.length, head.offset);
    let invalid = |why: String| Err((Errno::Invalid, why));
    let flags = match head.command {
        command::READ if agreed.structured => flag::DF,
        command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
        command::BLOCK_STATUS => flag::REQ_ONE,
        command::READ | command::WRITE | command::TRIM | command::CACHE => 0,
        command::FLUSH | command::DISC => 0,
        unknown => return invalid(format!("command {unknown} is not known here")),
    };
    if head.flags & !(flags | flag::FUA) != 0 {
        return invalid(format!("command {} has flags {:#x}", head.command, head.flags));
    }
    if matches!(head.command, command::FLUSH | command::DISC) {
        return match (offset, length) {
            (0, 0) => Ok(()),
            _ => invalid(format!("a flush of {length} bytes at {offset}: it has no range")),
        };
    }
    let changes = matches!(head.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
    if changes && export.read_only {
        return Err((Errno::Perm, "the export is read-only".into()));
    }
    if offset.checked_add(length.into()).is_none_or(|end| end > export.bytes) {
        let why = format!("{length} bytes at {offset} run past the end of {} bytes", export.bytes);
        let writes = matches!(head.command, command::WRITE | command::WRITE_ZEROES);
        return Err((if writes { Errno::NoSpace } else { Errno::Invalid }, why));
    }
    if matches!(head.command, command::READ | command::WRITE) && length > PAYLOAD_MAX {
        return invalid(format!("{length} bytes of data: {PAYLOAD_MAX} at most at a time"));
    }
    if head.command == command::BLOCK_STATUS && (agreed.contexts == 0 || length == 0) {
        return invalid(format!("block status of {length} bytes in no agreed context"));
    }
    Ok(())
}

/// Fills `buffer` with a write's data.
pub(super) fn fill(input: &mut Reader<'_>, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    buffer.resize(length, 0);
    input.read_exact(buffer)
}
