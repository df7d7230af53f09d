//! A request, cut into pieces that the engine takes, and what comes of it.
//!
//! The reader submits the pieces one after the other, as room allows, and goes on with the next request;
//! each piece is answered where it ends, in whatever order that is.

use super::Export;
use super::connection::{Connection, Room};
use super::negotiate::Agreed;
use super::reply::REPLY;
use super::request::{Reader, fill};
use super::wire::{RequestHead, command, flag};
use super::{reply, status};
use afterimage::{Completion, Kind, Request, Result, Session};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of data in one piece: a copy of it takes a moment, and those under way fill no memory.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// A piece that the engine has no room for is offered again after so long, or once another is done.
const AGAIN: Duration = Duration::from_millis(5);

/// For so long at most, as a write waits for a place in the journal by default.
const PATIENCE: Duration = Duration::from_secs(30);

/// The requests of one connection.
pub(super) struct Desk<'a> {
    pub connection: &'a Arc<Connection>,
    pub session: &'a Session,
    pub export: &'a Export,
    pub agreed: Agreed,
    /// Most bytes of a piece with data, and of one without.
    most: [u64; 2],
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Once all is done, without data.
    Done,
    /// Once all is there, by all of the data.
    Whole,
    /// By chunks, as they come.
    Chunks,
}

/// A request under way.
struct Command {
    connection: Arc<Connection>,
    head: RequestHead,
    begun: Instant,
    agreed: Agreed,
    style: Style,
    /// Comes free with the reply.
    room: Room,
    progress: Mutex<Progress>,
}

struct Progress {
    /// How many pieces are not done.
    left: usize,
    failed: Option<reply::Refused>,
    /// The pieces of a request that is answered as a whole.
    data: Vec<Vec<u8>>,
}

impl<'a> Desk<'a> {
    pub fn new(
        connection: &'a Arc<Connection>,
        session: &'a Session,
        export: &'a Export,
        agreed: Agreed,
    ) -> Desk<'a> {
        let limits = session.device().limits();
        // Powers of two: but for the first and the last, pieces have whole blocks.
        let power = |most: u64| 1 << most.ilog2();
        let most =
            [PIECE_BYTES_MAX.min(power(limits.request_bytes_max)), power(limits.zero_bytes_max)];
        Desk { connection, session, export, agreed, most }
    }

    /// Submits a request that was found good. Returns once the engine has all of it; `false` once the connection is
    /// over, with the request's data left where they are.
    ///
    /// # Errors
    /// The socket's, of a write's data.
    pub fn serve(&self, head: &RequestHead, input: &mut Reader<'_>) -> io::Result<bool> {
        let is_open = match head.command {
            command::FLUSH => {
                let command = self.command(head, Style::Done, 1);
                self.submit(&command, (0, 0), Room::default(), |done| {
                    self.session.submit_with(Request::flush(), done)
                });
                true
            }
            command::BLOCK_STATUS => {
                status::answer(self, head);
                true
            }
            _ if head.length == 0 => {
                self.connection.reply([reply::empty(head, self.agreed)]);
                true
            }
            command::WRITE => self.write(head, input)?,
            command::READ | command::CACHE => self.read(head),
            _ => self.zeroes(head),
        };
        if !is_open {
            self.connection.wait_until_over();
        }
        Ok(is_open)
    }

    fn command(&self, head: &RequestHead, style: Style, pieces: usize) -> Arc<Command> {
        let (data, bytes) = match style {
            Style::Whole => (vec![Vec::new(); pieces], head.length.into()),
            Style::Done | Style::Chunks => (Vec::new(), 0),
        };
        Arc::new(Command {
            connection: self.connection.clone(),
            head: *head,
            begun: Instant::now(),
            agreed: self.agreed,
            style,
            room: REPLY + Room { pieces: 0, bytes },
            progress: Mutex::new(Progress { left: pieces, failed: None, data }),
        })
    }

    fn write(&self, head: &RequestHead, input: &mut Reader<'_>) -> io::Result<bool> {
        let pieces = Pieces::of(head, self.most[0]);
        let command = self.command(head, Style::Done, pieces.number());
        for (index, (at, length)) in pieces.enumerate() {
            let room = Room { pieces: 1, bytes: length };
            if !self.connection.take_room(room) {
                return Ok(false);
            }
            let mut buffer = self.session.buffer(length as usize);
            fill(input, &mut buffer, length as usize)?;
            self.submit(&command, (index, at), room, |done| {
                let request = Request::write_buffer(self.export.volume, at, &mut buffer);
                self.session.submit_with(with_fua(head, request), done)
            });
        }
        Ok(true)
    }

    /// Data that is read ahead is dropped: it is in the memory of this machine then.
    fn read(&self, head: &RequestHead) -> bool {
        let pieces = Pieces::of(head, self.most[0]);
        let style = match head.command {
            command::CACHE => Style::Done,
            _ if self.agreed.structured && head.flags & flag::DF == 0 => Style::Chunks,
            _ => Style::Whole,
        };
        let whole = Room { pieces: 0, bytes: head.length.into() };
        if style == Style::Whole && !self.connection.take_room(whole) {
            return false;
        }
        let command = self.command(head, style, pieces.number());
        for (index, (at, length)) in pieces.enumerate() {
            let room = match style {
                Style::Whole => Room::default(),
                _ => Room { pieces: 1, bytes: length },
            };
            if !self.connection.take_room(room) {
                return false;
            }
            self.submit(&command, (index, at), room, |done| {
                let buffer = vec![0; length as usize];
                self.session.submit_with(Request::read(self.export.volume, at, buffer), done)
            });
        }
        true
    }

    fn zeroes(&self, head: &RequestHead) -> bool {
        let pieces = Pieces::of(head, self.most[1]);
        let command = self.command(head, Style::Done, pieces.number());
        let volume = self.export.volume;
        for (index, (at, length)) in pieces.enumerate() {
            if !self.connection.take_room(REPLY) {
                return false;
            }
            self.submit(&command, (index, at), REPLY, |done| {
                let request = match head.command {
                    command::TRIM => Request::discard(volume, at, length),
                    _ => Request::write_zeroes(volume, at, length),
                };
                self.session.submit_with(with_fua(head, request), done)
            });
        }
        true
    }

    /// Submits a piece, again and again while the engine has no room for it.
    fn submit(
        &self,
        command: &Arc<Command>,
        (index, at): (usize, u64),
        room: Room,
        mut attempt: impl FnMut(Done) -> Result<()>,
    ) {
        let begun = Instant::now();
        loop {
            let done = {
                let command = command.clone();
                Box::new(move |outcome| command.piece((index, at), room, outcome))
            };
            match attempt(done) {
                Err(busy) if busy.kind() == Kind::Busy && begun.elapsed() < PATIENCE => {
                    if !self.connection.wait_a_moment(AGAIN) {
                        return;
                    }
                }
                Err(error) => return command.piece((index, at), room, Err(error)),
                Ok(()) => return,
            }
        }
    }
}

type Done = Box<dyn FnOnce(Result<Completion>) + Send>;

fn with_fua<'a>(head: &RequestHead, request: Request<'a>) -> Request<'a> {
    if head.flags & flag::FUA != 0 { request.fua() } else { request }
}

/// The pieces of a range: they end where its multiples of `most` do.
#[derive(Clone)]
pub(super) struct Pieces {
    at: u64,
    end: u64,
    most: u64,
}

impl Pieces {
    pub fn of(head: &RequestHead, most: u64) -> Pieces {
        Pieces { at: head.offset, end: head.offset + u64::from(head.length), most }
    }

    pub fn number(&self) -> usize {
        (self.end.div_ceil(self.most) - self.at / self.most) as usize
    }
}

impl Iterator for Pieces {
    type Item = (u64, u64);

    /// The next piece: its first byte, and how many it has.
    fn next(&mut self) -> Option<(u64, u64)> {
        let at = self.at;
        self.at = self.end.min((at / self.most + 1) * self.most);
        (at < self.end).then(|| (at, self.at - at))
    }
}

impl Command {
    /// A piece has ended. The last one answers the request, or the rest of it.
    fn piece(&self, (index, at): (usize, u64), room: Room, outcome: Result<Completion>) {
        let outcome = match outcome {
            Ok(done) => Ok(done.buffer),
            Err(error) => match reply::refused(&error) {
                Some(refused) => Err(refused),
                None => return self.connection.unanswered(&error),
            },
        };
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.left -= 1;
        let is_last = progress.left == 0;
        if is_last {
            self.connection.latencies.add(self.head.command, self.begun.elapsed());
        }
        match self.style {
            Style::Chunks => {
                let mut parts = match outcome {
                    Ok(buffer) => {
                        reply::chunks(&self.head, at, buffer.unwrap_or_default(), is_last)
                    }
                    Err(refused) => vec![reply::failed_chunk(&self.head, at, &refused, is_last)],
                };
                if let Some(last) = parts.last_mut() {
                    last.room = room + if is_last { self.room } else { Room::default() };
                }
                // Under the lock: the chunk that says that it is the last one is.
                self.connection.reply(parts);
            }
            Style::Done | Style::Whole => {
                match outcome {
                    Ok(buffer) => {
                        if let Some(data) = progress.data.get_mut(index) {
                            *data = buffer.unwrap_or_default();
                        }
                    }
                    Err(refused) => progress.failed = Some(refused),
                }
                match is_last {
                    true => self.answer(&mut progress, room),
                    false => self.connection.give_room(room),
                }
            }
        }
    }

    fn answer(&self, progress: &mut Progress, room: Room) {
        let (head, agreed) = (&self.head, self.agreed);
        let mut parts = match (progress.failed.take(), self.style) {
            (Some(refused), _) => vec![reply::refusal(head, agreed, &refused)],
            (None, Style::Whole) => reply::whole(head, agreed, std::mem::take(&mut progress.data)),
            (None, _) => vec![reply::empty(head, agreed)],
        };
        if let Some(last) = parts.last_mut() {
            last.room = self.room + room;
        }
        self.connection.reply(parts);
    }
}
