//! A host's connection: the requests under way, the replies on their way out, and how it ends.
//!
//! # Rules
//! - **Bounded**: what a connection has under way ([`PIECES_MAX`], [`BYTES_MAX`]) counts until its reply
//!   has been sent; the reader waits for room before it takes the next piece.
//! - **Whole replies**: replies are sent in the order in which they are made, without waiting, by whoever
//!   makes them; what the socket does not take is sent by the watch once it does. While the reader has
//!   requests to take, it keeps them back for a moment, and sends them together.
//! - **R20**: once the connection is known to be dead, or is hung up on, its session is revoked. A
//!   request that has not been admitted by then never is.
//! - **Silent, then hung up**: what must not be answered with an error (`reply::is_silent`) is not
//!   answered at all. After a fence the connection stays, so that its host does not come back here before
//!   the other device serves, and ends later ([`Settings::silence`](super::Settings)).

use super::latencies::Latencies;
use super::stream::Stream;
use super::watch::Watch;
use afterimage::{Error, Kind, Session};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Most pieces of requests that a connection has under way.
const PIECES_MAX: u64 = 256;

/// Most bytes of data of these, in buffers for reads and writes: the largest read, which is answered as a
/// whole where there are no structured replies.
const BYTES_MAX: u64 = super::negotiate::PAYLOAD_MAX as u64;

/// So many replies are sent though the reader has more to do.
const KEPT_MAX: usize = 32;

/// Most parts of replies that one call gives to the socket.
const SLICES_MAX: usize = 64;

/// A client that takes nothing of its replies for so long is hung up on.
const STALLED: Duration = Duration::from_secs(60);

/// For so long replies that are under way may still leave once the connection is hung up on.
const LEAVING: Duration = Duration::from_secs(1);

/// A part of what a connection may have under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub pieces: u64,
    pub bytes: u64,
}

impl std::ops::Add for Room {
    type Output = Room;

    fn add(self, other: Room) -> Room {
        Room { pieces: self.pieces + other.pieces, bytes: self.bytes + other.bytes }
    }
}

/// A part of a reply, with the room that comes free once it has been sent.
pub(super) struct Part {
    pub bytes: Vec<u8>,
    pub room: Room,
}

impl From<Vec<u8>> for Part {
    fn from(bytes: Vec<u8>) -> Part {
        Part { bytes, room: Room::default() }
    }
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It is not served any more, and ends later.
    Silent,
    /// It ends once what has been replied is sent.
    Closing,
    Over,
}

struct State {
    phase: Phase,
    /// Under way.
    taken: Room,
    replies: VecDeque<Part>,
    /// Bytes of the first part that were sent.
    sent: usize,
    /// Replies wait until the reader has nothing to take.
    is_kept: bool,
    /// The socket takes no more: the watch looks when it does.
    is_full: bool,
    /// When the present phase, or the client's patience with replies, is over.
    deadline: Option<Instant>,
}

/// See the module.
pub(super) struct Connection {
    pub id: u64,
    pub stream: Stream,
    /// The other end, for people.
    pub host: String,
    /// How long requests take.
    pub latencies: Arc<Latencies>,
    watch: Arc<Watch>,
    session: OnceLock<Session>,
    /// It has none yet, and requests that wait for one.
    keeps: AtomicBool,
    /// How long it is silent before it is hung up on.
    silence: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

impl Connection {
    pub fn new(
        id: u64,
        (stream, host): (Stream, String),
        watch: Arc<Watch>,
        silence: Duration,
        latencies: Arc<Latencies>,
    ) -> Connection {
        let state = State {
            phase: Phase::Open,
            taken: Room::default(),
            replies: VecDeque::new(),
            sent: 0,
            is_kept: false,
            is_full: false,
            deadline: None,
        };
        Connection {
            id,
            stream,
            host,
            latencies,
            watch,
            session: OnceLock::new(),
            keeps: AtomicBool::new(false),
            silence,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's session, once the export has been opened.
    pub fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    /// The export is open. A later session that writes to its volume ends this connection.
    pub fn open(self: &Arc<Self>, session: Session) {
        let connection = Arc::downgrade(self);
        session.on_hang_up(move |_| {
            if let Some(connection) = connection.upgrade() {
                connection.hang_up();
            }
        });
        // One export is opened, once.
        let _ = self.session.set(session);
    }

    /// Whether requests wait for a session, and nobody looks for one.
    pub fn keeps_requests(&self, keeps: bool) {
        self.keeps.store(keeps, Ordering::SeqCst);
    }

    /// Whether the host is to come back now that the device serves tenure `epoch`: it was silent, is of an earlier
    /// tenure, or waits for a device that serves, while nobody looks for one.
    pub fn is_left_behind(&self, epoch: u64) -> bool {
        match self.session() {
            None => self.keeps.load(Ordering::SeqCst),
            Some(session) => session.epoch() < epoch || self.state().phase == Phase::Silent,
        }
    }

    /// Takes room for what comes next, when there is; `false`: the connection is not served any more.
    pub fn take_room(&self, room: Room) -> bool {
        let mut state = self.state();
        loop {
            if state.phase != Phase::Open {
                return false;
            }
            let Room { pieces, bytes } = state.taken;
            if pieces + room.pieces <= PIECES_MAX && bytes + room.bytes <= BYTES_MAX {
                state.taken = state.taken + room;
                return true;
            }
            self.let_go(&mut state);
            if state.taken == (Room { pieces, bytes }) {
                state = self.wait(state);
            }
        }
    }

    /// Something that needs no reply of its own is done.
    pub fn give_room(&self, room: Room) {
        self.state().give(room);
        self.changed.notify_all();
    }

    /// Waits until something is under way no more, for a moment at most; whether requests are taken.
    pub fn wait_a_moment(&self, most: Duration) -> bool {
        let mut state = self.state();
        self.let_go(&mut state);
        if state.phase == Phase::Open {
            let waited = self.changed.wait_timeout(state, most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.phase == Phase::Open
    }

    /// Waits until all that is under way has been answered, or the connection is over.
    pub fn drain(&self) {
        let mut state = self.state();
        self.let_go(&mut state);
        while state.taken.pieces > 0 && matches!(state.phase, Phase::Open | Phase::Silent) {
            state = self.wait(state);
        }
    }

    /// Waits until the connection is over.
    pub fn wait_until_over(&self) {
        let mut state = self.state();
        self.let_go(&mut state);
        while state.phase != Phase::Over {
            state = self.wait(state);
        }
    }

    /// A reply, whole. Once the connection is hung up on there are no more.
    pub fn reply(&self, parts: impl IntoIterator<Item = Part>) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Open | Phase::Silent) {
            return;
        }
        state.replies.extend(parts);
        if !state.is_kept || state.replies.len() >= KEPT_MAX {
            self.send(&mut state);
        }
        let is_over = state.phase == Phase::Over;
        drop(state);
        if is_over {
            self.revoke();
        }
    }

    /// The reader is about to wait: replies leave as they come.
    fn let_go(&self, state: &mut State) {
        state.is_kept = false;
        self.send(state);
    }

    /// Sends what the socket takes.
    fn send(&self, state: &mut State) {
        while !state.replies.is_empty() && !state.is_full {
            let slices = state.replies.iter().take(SLICES_MAX).enumerate();
            let slices = slices.map(|(at, part)| {
                IoSlice::new(&part.bytes[if at == 0 { state.sent } else { 0 }..])
            });
            match self.stream.send(&slices.collect::<Vec<_>>()) {
                Ok(sent) => {
                    if state.sent(sent) {
                        self.changed.notify_all();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.is_full = true;
                    if state.phase == Phase::Open {
                        state.deadline = Some(Instant::now() + STALLED);
                    }
                    self.watch.await_room(&self.stream, self.id);
                }
                Err(_) => self.end(state),
            }
        }
        if state.replies.is_empty() {
            match state.phase {
                Phase::Open => state.deadline = None,
                Phase::Closing => self.end(state),
                Phase::Silent | Phase::Over => {}
            }
        }
    }

    fn end(&self, state: &mut State) {
        state.phase = Phase::Over;
        state.replies.clear();
        self.stream.shutdown();
        self.changed.notify_all();
    }

    fn revoke(&self) {
        if let Some(session) = self.session() {
            session.revoke();
        }
    }

    /// The socket takes more.
    pub fn has_room(&self) {
        let mut state = self.state();
        state.is_full = false;
        self.send(&mut state);
        let is_over = state.phase == Phase::Over;
        drop(state);
        if is_over {
            self.revoke();
        }
    }

    /// The host is gone, or has done what ends its connection at once.
    pub fn cut(&self) {
        self.end(&mut self.state());
        self.revoke();
    }

    /// The connection ends once what has been replied is sent; requests under way stay unanswered.
    pub fn hang_up(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open | Phase::Silent) {
            state.phase = Phase::Closing;
            state.deadline = Some(Instant::now() + LEAVING);
            self.send(&mut state);
            self.changed.notify_all();
            drop(state);
            self.revoke();
            self.watch.ring();
        }
    }

    /// Nothing more is served; the connection is hung up on later.
    pub fn fall_silent(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Silent;
            state.deadline = Some(Instant::now() + self.silence);
            self.changed.notify_all();
            drop(state);
            self.watch.ring();
        }
    }

    /// A request that stays unanswered: its tenure, its session or its device is over.
    pub fn unanswered(&self, error: &Error) {
        match error.kind() {
            Kind::Fenced | Kind::NotReady | Kind::NotProven => self.fall_silent(),
            _ => self.hang_up(),
        }
    }

    /// When [`Connection::expire`] is to be called; `None`: not now.
    pub fn deadline(&self) -> Option<Instant> {
        self.state().deadline
    }

    /// Ends what has lasted long enough.
    pub fn expire(&self, now: Instant) {
        let phase = {
            let mut state = self.state();
            if state.deadline.is_none_or(|deadline| deadline > now) {
                return;
            }
            state.deadline = None;
            state.phase
        };
        match phase {
            Phase::Silent => self.hang_up(),
            Phase::Open | Phase::Closing => self.cut(),
            Phase::Over => {}
        }
    }
}

impl State {
    fn give(&mut self, room: Room) {
        self.taken.pieces -= room.pieces;
        self.taken.bytes -= room.bytes;
    }

    /// So many bytes have left; whether a part has left wholly.
    fn sent(&mut self, bytes: usize) -> bool {
        self.sent += bytes;
        let mut has_left = false;
        while let Some(part) = self.replies.front()
            && self.sent >= part.bytes.len()
        {
            self.sent -= part.bytes.len();
            let room = part.room;
            self.replies.pop_front();
            self.give(room);
            has_left = true;
        }
        if has_left && self.phase == Phase::Open {
            self.deadline = None;
        }
        has_left
    }
}

/// The bytes that come from a host, and in negotiation those that go there. Before the reader waits for more,
/// replies that were kept leave.
pub(super) struct Input<'a> {
    pub connection: &'a Connection,
    /// Until when negotiation may last; `None` in the transmission phase.
    pub until: &'a Cell<Option<Instant>>,
}

impl Input<'_> {
    /// Reads and writes of the negotiation wait no longer than it may last.
    pub fn limit(&self) -> io::Result<()> {
        let Some(until) = self.until.get() else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        self.connection.stream.set_timeout(Some(left))
    }
}

fn late() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "the client was silent for longer than negotiation may last",
    )
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        if !self.connection.before_reading() {
            return Ok(0);
        }
        let read = (&self.connection.stream).read(buffer);
        self.connection.behind_reading();
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(late()),
            read => read,
        }
    }
}

impl Write for Input<'_> {
    /// For negotiation, which may write as well.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit()?;
        match (&self.connection.stream).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(late()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection {
    /// Whether the connection goes on: of one that is over nothing more is admitted (R20).
    fn before_reading(&self) -> bool {
        let is_over = {
            let mut state = self.state();
            self.let_go(&mut state);
            state.phase == Phase::Over
        };
        if is_over {
            self.revoke();
        }
        !is_over
    }

    fn behind_reading(&self) {
        self.state().is_kept = true;
    }
}
