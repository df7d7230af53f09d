//! The hosts: one thread issues the trace's requests to whichever device the host is on, keeps so
//! many of them in flight, checks every answer, and moves to the other device when it is time.
//!
//! - A request is issued as pieces that a device takes; it is done when all of them are. Pieces of
//!   at most `depth` are in flight.
//! - Most are complete when `submit` returns. The others are polled; when nothing moves, the
//!   thread sleeps until the device says that something may have.
//! - At a takeover no new piece is issued until the other device serves and every piece at the old
//!   one has ended. Those refused are issued again there, in their order, as new writes.
//! - An outage of the line stops no host; `outages` has when it begins and ends.
//! - A site is lost in `site`: hosts go on at the device that is forced.
//! - Latency counts from the issue, or, against the trace's clock, from the moment at which the
//!   trace would have issued the request: what waits for its turn has been waiting since then.

mod moves;
mod outages;
mod site;

pub use moves::{Move, Refused};
pub use outages::{Back, Down};
pub use site::LostSite;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::IoSlice;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::limits::Limits;
use afterimage::internal::request::{Completion, Request, Session, Ticket};
use afterimage::internal::unit::Mode;

use super::meter::{Meter, Metric};
use super::oracle::{Number, Oracle, PendingRead};
use super::pair::Pair;
use super::pattern::{self, Origin, SECTOR};
use super::plan::{Outage, Piece, Plan, discarded, sectors};
use super::progress::Progress;
use super::requests::{Event, NAMES};
use super::stall::Stall;
use crate::args::Speed;
use crate::exit::Failure;
use crate::trace::Action;

/// How long the host sleeps at most when nothing moves.
const NAP_NS: u64 = 20_000_000;

/// Waking takes this long: nearer to its time the next request is waited for awake.
const WAKE_NS: u64 = 80_000;

/// Pieces issued before those in flight are looked at.
const BURST: usize = 8;

/// How the hosts behave.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Most pieces in flight.
    pub depth: usize,
    /// The pace.
    pub speed: Speed,
    /// The hosts' time of the trace's beginning, in nanoseconds since 1970; `None` leaves the
    /// time of writes to the devices.
    pub starts_at: Option<u64>,
    /// How far the clock of the host at B is off.
    pub skew_ns: i64,
    /// Whether every write is durable when it completes.
    pub strict: bool,
}

/// Losses that come between the hosts' requests.
#[derive(Default)]
pub struct Interruptions {
    /// When the line is down.
    pub outages: VecDeque<Outage>,
    /// Before which requests a site is lost and returns; none if none is.
    pub absence: VecDeque<u64>,
    /// The mode in which it is to be lost.
    pub lose_in: Option<Mode>,
}

/// A request of which pieces are in flight or still to come.
struct Job {
    /// From when its latency counts.
    since: Option<u64>,
    left: usize,
    remote: bool,
}

/// A piece in flight.
struct Flight {
    piece: Piece,
    ticket: Ticket,
    asked: Asked,
    read: Option<PendingRead>,
}

/// A piece's part in the history of changes.
#[derive(Clone, Copy)]
enum Asked {
    /// Nothing.
    Read,
    Write(Number),
    /// A flush, and its number.
    Flush(u64),
}

/// See the module.
pub struct Host<'a> {
    /// The devices.
    pub pair: &'a mut Pair,
    plan: &'a Plan<'a>,
    manner: Manner,
    active: usize,
    session: Session,
    limits: Limits,
    /// The writes that must be seen.
    pub oracle: Oracle,
    /// The measurements.
    pub meter: Meter,
    /// The takeovers so far.
    pub moves: Vec<Move>,
    /// The takeovers that were refused, because the line was down.
    pub refused: Vec<Refused>,
    /// The outages so far.
    pub downs: Vec<Down>,
    /// When every tenth of every pass began, and when the last ended.
    pub tenths: Vec<u64>,
    points: VecDeque<u64>,
    /// The site that was lost.
    pub lost_site: Option<LostSite>,
    /// Before which requests a site is lost, and returns, if that is to come.
    absence: VecDeque<u64>,
    /// The mode in which it is to be lost, and since when the hosts wait for it.
    lose_in: Option<(Mode, Option<u64>)>,
    /// The outages that have not ended.
    outages: VecDeque<Outage>,
    /// When something of the hosts' last moved in an outage.
    moved_at: u64,
    /// Whether refused pieces are to be issued again elsewhere.
    moving: bool,
    next_row: u64,
    began_at: u64,
    jobs: HashMap<u64, Job>,
    /// Pieces to be issued, before any new request.
    ready: BTreeMap<(u64, u32), Piece>,
    in_flight: Vec<Flight>,
    /// Unparks this thread.
    waker: Waker,
    flushes: u64,
    payload: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    progress: Progress,
    stall: Stall,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<'a> Host<'a> {
    /// A host at device A, about to issue what `plan` has and to move before the requests
    /// `points`, with the line down in `outages` and a site lost in `absence`, in a mode if one is named.
    pub fn new(
        pair: &'a mut Pair,
        plan: &'a Plan<'a>,
        points: VecDeque<u64>,
        Interruptions { outages, absence, lose_in }: Interruptions,
        manner: Manner,
        oracle: Oracle,
        meter: Meter,
    ) -> Result<Host<'a>, Failure> {
        let now = pair.clock.monotonic();
        let (session, limits) = (pair.device(0).session(), pair.device(0).limits());
        Ok(Host {
            pair,
            plan,
            manner,
            active: 0,
            session: session.map_err(|e| Failure::device("opening a session at device a", &e))?,
            limits,
            oracle,
            meter,
            moves: Vec::new(),
            refused: Vec::new(),
            downs: Vec::new(),
            tenths: Vec::new(),
            points,
            lost_site: None,
            absence,
            lose_in: lose_in.map(|mode| (mode, None)),
            outages,
            moved_at: now,
            moving: false,
            next_row: 0,
            began_at: now,
            jobs: HashMap::new(),
            ready: BTreeMap::new(),
            in_flight: Vec::new(),
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
            flushes: 0,
            payload: Vec::new(),
            buffers: Vec::new(),
            progress: Progress::new(plan.len()),
            stall: Stall::new(now),
        })
    }

    /// Issues everything and waits for the answers.
    pub fn replay(&mut self) -> Result<(), Failure> {
        self.began_at = self.now();
        loop {
            if self.is_line_due() {
                self.change_line()?;
            }
            if self.is_site_due() && !self.awaits_mode()? {
                self.change_site()?;
                continue;
            }
            if self.is_takeover_due() {
                self.take_over()?;
                continue;
            }
            let issued = self.issue()?;
            let moved = self.poll()? + issued > 0;
            if self.is_done() {
                break;
            }
            self.look(moved)?;
            if !moved {
                self.sleep();
            }
        }
        self.tenths.push(self.now());
        Ok(())
    }

    fn now(&self) -> u64 {
        self.pair.clock.monotonic()
    }

    fn failed(&self, doing: &str, error: &Error) -> Failure {
        let name = NAMES[self.active];
        Failure::device(format_args!("{doing} at device {name}"), error)
    }

    fn is_done(&self) -> bool {
        self.next_row == self.plan.len()
            && self.points.is_empty()
            && self.outages.is_empty()
            && self.absence.is_empty()
            && self.ready.is_empty()
            && self.in_flight.is_empty()
    }

    /// When the trace's clock, as fast as it runs here, issues the request `row`.
    fn due_at(&self, row: u64) -> Option<u64> {
        match self.manner.speed {
            Speed::Times(times) if row < self.plan.len() => {
                Some(self.began_at + (self.plan.row(row).time_ns as f64 / times) as u64)
            }
            _ => None,
        }
    }

    fn is_takeover_due(&self) -> bool {
        self.is_due(self.points.front())
    }

    fn is_site_due(&self) -> bool {
        self.is_due(self.absence.front())
    }

    /// Whether it is time for what comes before this request.
    fn is_due(&self, point: Option<&u64>) -> bool {
        point.is_some_and(|&point| point <= self.next_row)
            && self.due_at(self.next_row).is_none_or(|due| due <= self.now())
    }

    /// The next piece whose time has come.
    fn next(&mut self) -> Option<Piece> {
        let may_begin = self.next_row < self.plan.len() && self.ready.is_empty();
        if may_begin && !self.is_takeover_due() && !self.is_site_due() && !self.is_line_due() {
            let due = self.due_at(self.next_row);
            if due.is_some_and(|due| due > self.now()) {
                return None;
            }
            let row = self.next_row;
            if row % self.plan.rows_per_pass() == self.tenth_begins(row) {
                self.tenths.push(self.now());
            }
            self.next_row += 1;
            self.begin(row, due);
        }
        self.ready.pop_first().map(|(_, piece)| piece)
    }

    /// The request at which the next tenth begins, in its pass.
    fn tenth_begins(&self, row: u64) -> u64 {
        let rows = self.plan.rows_per_pass();
        let tenth = (row % rows * 10).div_ceil(rows);
        tenth * rows / 10
    }

    fn begin(&mut self, row: u64, since: Option<u64>) {
        let pieces = self.plan.begin(row, &self.limits);
        self.jobs.insert(row, Job { since, left: pieces.len(), remote: false });
        self.ready.extend(pieces.into_iter().map(|piece| ((piece.row, piece.part), piece)));
    }

    /// Issues a few pieces if they are due and there is room in flight; how many.
    fn issue(&mut self) -> Result<usize, Failure> {
        for issued in 0..BURST {
            if self.in_flight.len() >= self.manner.depth {
                return Ok(issued);
            }
            let Some(piece) = self.next() else { return Ok(issued) };
            self.submit(piece)?;
        }
        Ok(BURST)
    }

    fn submit(&mut self, piece: Piece) -> Result<(), Failure> {
        let Piece { row, volume, fua, .. } = piece;
        let mut request = Request::flush();
        let mut asked = Asked::Read;
        match piece.action {
            Action::Flush => {
                self.flushes += 1;
                asked = Asked::Flush(self.flushes);
                self.note(&Event::FlushIssued { flush: self.flushes });
            }
            Action::Read { offset, length } => {
                let mut buffer = self.buffers.pop().unwrap_or_default();
                buffer.resize(length as usize, 0);
                pattern::spoil(&mut buffer);
                request = Request::read(volume, offset, buffer);
            }
            Action::Write { offset, length } => {
                let range = sectors(offset, length);
                let (sector, count) = (range.start, (range.end - range.start) as u32);
                let number = self.begin_write(volume, range, false, fua);
                let run = self.oracle.run();
                let first =
                    Origin { run, volume, sector, write: number.into(), row, index: 0, count };
                self.payload.resize(length as usize, 0);
                pattern::fill(&mut self.payload, first);
                asked = Asked::Write(number);
            }
            Action::Discard { offset, length } => {
                let range = discarded(offset, length, self.limits.block_size);
                asked = Asked::Write(self.begin_write(volume, range, true, fua));
                request = Request::discard(volume, offset, length);
            }
            Action::Zero { offset, length } => {
                let range = sectors(offset, length);
                asked = Asked::Write(self.begin_write(volume, range, true, fua));
                request = Request::write_zeroes(volume, offset, length);
            }
        }
        let slices = [IoSlice::new(&self.payload)];
        if let Action::Write { offset, .. } = piece.action {
            request = Request::write(volume, offset, &slices);
        }
        (request.fua, request.host_time) = (fua, self.host_time(row));
        let issued_at = self.pair.clock.monotonic();
        let ticket = self.session.submit(request);
        let ticket = ticket.map_err(|e| self.failed(&format!("request {row}"), &e))?;
        self.jobs.get_mut(&row).expect("it has begun").since.get_or_insert(issued_at);
        let mut flight = Flight { piece, ticket, asked, read: None };
        let durable = fua || piece.action == Action::Flush;
        if durable && self.manner.depth == 1 {
            // Nothing else to do: lead the commit instead of waking somebody for it.
            return self.complete(piece, asked, None, flight.ticket.wait());
        }
        match flight.ticket.poll() {
            Some(outcome) => self.complete(piece, asked, None, outcome),
            None => {
                if let Action::Read { offset, length } = piece.action {
                    let range = sectors(offset, length);
                    flight.read = Some(self.oracle.read_pending(volume, range));
                }
                self.in_flight.push(flight);
                Ok(())
            }
        }
    }

    /// Tells everybody of a write that is about to be issued; its number.
    fn begin_write(&mut self, volume: u32, sectors: Range<u64>, zero: bool, fua: bool) -> Number {
        let write = self.oracle.write(volume, sectors.clone(), zero, self.session.epoch());
        if !zero {
            self.note_resync_write(&sectors);
        }
        let durable = fua || self.manner.strict;
        self.note(&Event::Issued { write, volume, sectors, zero, durable });
        write
    }

    fn note(&self, event: &Event) {
        self.pair.listener.note(event);
    }

    fn host_time(&self, row: u64) -> Option<u64> {
        let time = self.manner.starts_at?.saturating_add(self.plan.row(row).time_ns);
        match self.active {
            0 => Some(time),
            _ => Some(time.saturating_add_signed(self.manner.skew_ns)),
        }
    }

    /// Looks at everything in flight; how many pieces ended.
    fn poll(&mut self) -> Result<usize, Failure> {
        let (mut at, mut ended) = (0, 0);
        while at < self.in_flight.len() {
            match Pin::new(&mut self.in_flight[at].ticket)
                .poll(&mut Context::from_waker(&self.waker))
            {
                Poll::Pending => at += 1,
                Poll::Ready(outcome) => {
                    let Flight { piece, asked, read, .. } = self.in_flight.remove(at);
                    self.complete(piece, asked, read, outcome)?;
                    ended += 1;
                }
            }
        }
        Ok(ended)
    }

    fn complete(
        &mut self,
        piece: Piece,
        asked: Asked,
        read: Option<PendingRead>,
        outcome: Result<Completion, Error>,
    ) -> Result<(), Failure> {
        let now = self.now();
        let done = match outcome {
            Ok(done) => done,
            Err(error) if self.moving && error.kind().is_retryable() => {
                return self.refused(piece, asked);
            }
            Err(error) if error.kind() == Kind::JournalFull => return self.refused(piece, asked),
            Err(error) => return Err(self.failed(&format!("request {}", piece.row), &error)),
        };
        self.add_wait(done.waited_ns, now);
        self.meter.pacing.add(done.paced_ns, now);
        match asked {
            Asked::Read => {}
            Asked::Write(write) => {
                self.oracle.write_done(write, done.stamp);
                self.note(&Event::Completed { write, stamp: done.stamp });
            }
            Asked::Flush(flush) => self.note(&Event::Flushed { flush }),
        }
        if let (Action::Read { offset, .. }, Some(buffer)) = (piece.action, done.buffer) {
            let sector = offset / SECTOR as u64;
            self.oracle.read_done(piece.volume, sector, &buffer, read.as_ref());
            self.buffers.push(buffer);
            if done.remote_blocks > 0
                && let Some(last) = self.moves.last_mut()
            {
                last.first_remote_read_at.get_or_insert(now);
            }
        }
        let job = self.jobs.get_mut(&piece.row).expect("its pieces are not all done");
        job.remote |= done.remote_blocks > 0;
        job.left -= 1;
        if piece.then {
            let rest = self.plan.rest(piece.row, &self.limits);
            job.left += rest.len();
            self.ready.extend(rest.into_iter().map(|piece| ((piece.row, piece.part), piece)));
        } else if job.left == 0 {
            let job = self.jobs.remove(&piece.row).expect("just looked at");
            let action = self.plan.row(piece.row).action;
            let metric = match action {
                Action::Read { .. } if job.remote => Metric::ReadRemote,
                Action::Read { .. } => Metric::ReadLocal,
                Action::Write { .. } | Action::Discard { .. } | Action::Zero { .. } => {
                    Metric::Write
                }
                Action::Flush => Metric::Flush,
            };
            self.meter.record(metric, now.saturating_sub(job.since.unwrap_or(now)));
            self.meter.counts.add(action);
        }
        Ok(())
    }

    /// The piece was not done: it is issued again, before anything newer.
    fn refused(&mut self, piece: Piece, asked: Asked) -> Result<(), Failure> {
        if let Asked::Write(write) = asked {
            self.oracle.write_refused(write);
            self.note(&Event::Refused { write });
        }
        self.ready.insert((piece.row, piece.part), piece);
        Ok(())
    }

    /// Sleeps until something may have moved, or the next request is due.
    fn sleep(&self) {
        let mut nap = NAP_NS;
        if self.in_flight.len() < self.manner.depth
            && let Some(due) = self.due_at(self.next_row)
        {
            nap = nap.min(due.saturating_sub(self.now()));
        }
        if let Some(due) = self.line_changes_at() {
            nap = nap.min(due.saturating_sub(self.now()));
        }
        if let Some(due) = self.mode_looked_at() {
            nap = nap.min(due.saturating_sub(self.now()));
        }
        match nap.checked_sub(WAKE_NS) {
            Some(nap) => std::thread::park_timeout(Duration::from_nanos(nap)),
            None => std::hint::spin_loop(),
        }
    }

    /// The work to be done from time to time.
    fn look(&mut self, moved: bool) -> Result<(), Failure> {
        let now = self.now();
        if self.meter.is_interval_over(now) {
            self.end_interval(now);
        }
        if self.progress.is_due(now) {
            self.progress.draw(now, self.next_row, &self.pair.status());
        }
        self.look_at_resync(now, false);
        self.look_at_line(now, moved)?;
        if moved {
            self.stall.moved(now);
            return Ok(());
        }
        self.stall.check(now, &*self.pair)
    }

    fn end_interval(&mut self, now: u64) {
        let mut lags = self.pair.watches.each_ref().map(|watch| watch.lag());
        self.meter.end_interval(now, lags.iter_mut().map(|lag| &mut **lag));
    }
}
