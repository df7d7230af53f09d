//! Requests, and how the host learns the answer: `submit(request) → ticket`, completed by poll,
//! by callback, or by waiting.
//!
//! The caller's thread does what it can: most requests are complete when `submit` returns. A
//! ticket that is not may wait for a place in the journal, for the peer, or for a commit.
//!
//! A write is gathered from its slices once, into what is logged; a buffer of its own
//! ([`Session::buffer`]) is logged as it is. A read's buffer goes with its
//! request and comes back with the completion, because the answer may come from the peer while the
//! caller does something else. The calls that wait, above all that, read into a buffer of their own
//! and copy it to the caller's one or several.

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::flow::admission::Pass;
use crate::flow::read::ReadState;
use crate::flow::write::WriteState;
use crate::limits::Durability;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

mod future;
mod locate;
mod room;
#[cfg(all(test, not(loom)))]
mod tests;

use future::Stand;
pub(crate) use future::{Awaited, Call, Calls};
pub use locate::{Located, Place};
pub(crate) use room::Room;

/// The operation. Offsets and lengths are in bytes, and any will do: a block given in part costs a read of
/// the rest of it (R15).
#[derive(Debug)]
#[non_exhaustive]
pub enum Op<'a> {
    /// Fills the buffer, which comes back with the completion.
    Read(Vec<u8>),
    /// Writes the slices one after the other. They are copied before `submit` returns.
    Write(&'a [IoSlice<'a>]),
    /// Writes a buffer, which the engine keeps: it is not copied if the offset is a multiple of the
    /// block size. An empty one is left in its place, unless the request is refused before it begins:
    /// `submit` returns an error, or the session or its tenure is over already. Best from [`Session::buffer`], as
    /// others are not used again.
    WriteBuffer(&'a mut Vec<u8>),
    /// Makes a range read as zeros.
    WriteZeroes(u64),
    /// Gives a range up: whole blocks in it read as zeros, parts of blocks stay as they are.
    Discard(u64),
    /// Makes every write that completed before durable, in the whole group.
    Flush,
}

/// A host's request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The volume; any for a flush.
    pub volume: u32,
    /// The first byte.
    pub offset: u64,
    /// The operation.
    pub op: Op<'a>,
    /// Force unit access: complete only once durable.
    pub fua: bool,
    /// When the host created or sent the request, in nanoseconds since 1970, by its clock (R1).
    /// Without one, or above [`Stamp::HOST_TIME_MAX`], the time of receipt counts.
    pub host_time: Option<u64>,
}

impl<'a> Request<'a> {
    /// A read of `buffer.len()` bytes.
    pub fn read(volume: u32, offset: u64, buffer: Vec<u8>) -> Request<'static> {
        Request::new(volume, offset, Op::Read(buffer))
    }

    /// A write of `data`.
    pub fn write(volume: u32, offset: u64, data: &'a [IoSlice<'a>]) -> Request<'a> {
        Request::new(volume, offset, Op::Write(data))
    }

    /// A write of `buffer`, which is taken ([`Op::WriteBuffer`]).
    pub fn write_buffer(volume: u32, offset: u64, buffer: &'a mut Vec<u8>) -> Request<'a> {
        Request::new(volume, offset, Op::WriteBuffer(buffer))
    }

    /// Makes `length` bytes read as zeros ([`Op::WriteZeroes`]).
    pub fn write_zeroes(volume: u32, offset: u64, length: u64) -> Request<'static> {
        Request::new(volume, offset, Op::WriteZeroes(length))
    }

    /// Gives `length` bytes up ([`Op::Discard`]).
    pub fn discard(volume: u32, offset: u64, length: u64) -> Request<'static> {
        Request::new(volume, offset, Op::Discard(length))
    }

    /// `op` at `offset` of `volume`.
    pub fn new(volume: u32, offset: u64, op: Op<'a>) -> Request<'a> {
        Request { volume, offset, op, fua: false, host_time: None }
    }

    /// The same with force unit access: complete only when it is durable itself.
    pub fn fua(mut self) -> Self {
        self.fua = true;
        self
    }

    /// A flush of the group.
    pub fn flush() -> Request<'static> {
        Request::new(0, 0, Op::Flush)
    }

    /// The same with the host's time, in nanoseconds since 1970; one above
    /// [`Stamp::HOST_TIME_MAX`] (2^62) is ignored (R1).
    pub fn at(mut self, host_time: u64) -> Self {
        self.host_time = Some(host_time);
        self
    }
}

/// A request done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Completion {
    /// The stamp of a write's first record; a write-zeroes or discard has the last of its parts'.
    /// `None` if nothing was written.
    pub stamp: Option<Stamp>,
    /// The buffer of a read, filled.
    pub buffer: Option<Vec<u8>>,
    /// How many blocks came from the other device.
    pub remote_blocks: u32,
    /// Nanoseconds that the request waited for a place in the journal, or for another write of its
    /// blocks.
    pub waited_ns: u64,
    /// Nanoseconds that the request was delayed for because the journal was filling
    /// ([`crate::Settings::pacing_max_ns`]).
    pub paced_ns: u64,
    /// Until when, on the monotonic clock, once it is known.
    pub(crate) paced_until: Option<u64>,
}

/// A host's way in, bound to the tenure under which it was opened: after a takeover elsewhere its
/// requests are refused for ever, also when the device is active again (R14). Sessions are numbered
/// as they are opened, and the first write of a later one to a volume supersedes the one that wrote
/// there before ([`Kind::Superseded`], R20): a host that comes back on a new connection gets a new
/// session. Clones are one session.
#[derive(Clone, Debug)]
pub struct Session {
    device: Arc<Device>,
    pass: Arc<Pass>,
}

/// A request under way.
#[derive(Debug)]
pub struct Ticket {
    device: Arc<Device>,
    pending: Pending,
}

/// A request under way, without its device: the device keeps those that have callbacks, and must
/// not keep itself alive by them.
#[derive(Debug)]
pub(crate) struct Pending {
    pass: Arc<Pass>,
    state: State,
    completion: Completion,
    /// Its place in the lists of waiters, once it has been polled with a waker.
    stand: Option<Stand>,
    /// Bytes of the room for those that wait to be admitted.
    room: u64,
}

#[derive(Debug)]
enum State {
    /// Parts that are still to be done, in order.
    Write {
        parts: VecDeque<WriteState>,
        fua: bool,
    },
    Read(ReadState),
    /// Waits until the log file has it, while another thread has the log's writer.
    Written,
    /// Waits for a commit.
    Round(u64),
    Done(Option<Error>),
    /// The outcome has been handed over.
    Taken,
}

impl Session {
    pub(crate) fn new(device: Arc<Device>, epoch: u64) -> Session {
        let pass = device.host.writers.pass(epoch);
        Session { device, pass }
    }

    /// The tenure it belongs to.
    pub fn epoch(&self) -> u64 {
        self.pass.epoch
    }

    #[cfg(feature = "simulate")]
    pub(crate) fn number(&self) -> u64 {
        self.pass.number
    }

    /// Calls `hang_up` once if this session is superseded, or has been: a later session writes to a
    /// volume that this one has written to, or writes to now (R20). The program that speaks for the
    /// host then hangs up on it. It is called as a callback is ([`Session::submit_with`]): by the thread that
    /// calls [`Device::step_calls`], under no lock of the engine, and a panic there ends it and no
    /// more; callbacks wait until it returns. A second handler takes the place of the first.
    ///
    /// Its captures live until it is called, the session is revoked or, once the session has written,
    /// the device has halted or been closed: of a connection that holds the session it should capture a
    /// [`std::sync::Weak`], or the connection keeps itself and the device alive.
    pub fn on_hang_up(&self, hang_up: impl FnOnce(Error) + Send + 'static) {
        self.device.on_hang_up(&self.pass, Box::new(hang_up));
    }

    /// Gives the session and its clones up, as when its host's connection is known to be dead (R20):
    /// requests that wait end with [`Kind::Superseded`], and no write that has not been admitted by
    /// now is. One that was admitted comes to its end. The handler of
    /// [`Session::on_hang_up`] is dropped.
    pub fn revoke(&self) {
        self.device.revoke(&self.pass);
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// An empty buffer with room for `length` bytes, for a write ([`Request::write_buffer`]): what is
    /// received into it is not copied again before it is in the log. No more than the largest
    /// request ([`Device::limits`]). Buffers come back from the log and are used again, so that this
    /// costs no memory as a rule.
    pub fn buffer(&self, length: usize) -> Vec<u8> {
        let most = self.device.limits().request_bytes_max;
        let size = self.device.geometry.block_size as usize;
        self.device.own.buffer(length.min(most as usize).next_multiple_of(size))
    }

    /// Begins a request: a read (S1000), a write (S1600) or a flush. Waits for nothing
    /// but the storage.
    ///
    /// # Errors
    /// At once: [`Kind::Invalid`] (beyond the volume, no such volume; R17),
    /// [`Kind::TooLarge`] (see [`Device::limits`]), [`Kind::Busy`] (a write that would have to wait,
    /// with [`crate::Settings::waiting_bytes_max`] of others waiting). From the ticket: [`Kind::Fenced`],
    /// [`Kind::NotReady`] and [`Kind::NotProven`] once its tenure is over (R14),
    /// [`Kind::Superseded`] once the session is (R20),
    /// [`Kind::JournalFull`] (R9), [`Kind::Timeout`] (R7, R15), [`Kind::Halted`], [`Kind::Damaged`],
    /// [`Kind::Storage`].
    pub fn submit(&self, mut request: Request<'_>) -> Result<Ticket> {
        let device = &self.device;
        let limits = device.limits();
        let length = match &request.op {
            Op::Read(buffer) => buffer.len() as u64,
            Op::Write(slices) => slices.iter().map(|s| s.len() as u64).sum(),
            Op::WriteBuffer(buffer) => buffer.len() as u64,
            Op::WriteZeroes(length) | Op::Discard(length) => *length,
            Op::Flush => 0,
        };
        let most = match &request.op {
            Op::WriteZeroes(_) | Op::Discard(_) => limits.zero_bytes_max,
            _ => limits.request_bytes_max,
        };
        if !matches!(request.op, Op::Flush) {
            self.check_range(request.volume, request.offset, length)?;
        }
        if length > most {
            let what = format!("a request of {length} bytes: at most {most} at a time, split it");
            return Err(Error::new(Kind::TooLarge, what));
        }
        let pending = Pending {
            pass: self.pass.clone(),
            state: State::Done(None),
            completion: Completion::default(),
            stand: None,
            room: 0,
        };
        let mut ticket = Ticket { device: device.clone(), pending };
        let pending = &mut ticket.pending;
        if let Err(error) = device.check_pass(&self.pass) {
            pending.state = State::Done(Some(error));
            return Ok(ticket);
        }
        let mut taken = None;
        let parts = match std::mem::replace(&mut request.op, Op::Flush) {
            Op::Flush => {
                if device.own.is_clean() {
                    return Ok(ticket);
                }
                pending.state = State::Round(device.own.round_wanted());
                return Ok(ticket);
            }
            Op::Read(buffer) if length == 0 => {
                pending.completion.buffer = Some(buffer);
                return Ok(ticket);
            }
            Op::Read(buffer) => {
                pending.state =
                    State::Read(ReadState::new(device, request.volume, request.offset, buffer));
                pending.advance(device);
                return Ok(ticket);
            }
            _ if length == 0 => return Ok(ticket),
            Op::Write(slices) => {
                VecDeque::from([WriteState::data(device, &request, slices, length)])
            }
            Op::WriteBuffer(buffer) => {
                let write = WriteState::taken(device, &request, buffer);
                taken = Some(buffer);
                VecDeque::from([write])
            }
            Op::WriteZeroes(_) => WriteState::zeroes(device, &request, length, true),
            Op::Discard(_) => WriteState::zeroes(device, &request, length, false),
        };
        let is_one = parts.len() == 1;
        pending.state = State::Write { parts, fua: request.fua };
        if is_one {
            pending.advance(device);
        }
        if let State::Write { parts, .. } = &mut pending.state {
            let bytes = parts.iter().map(WriteState::bytes).sum();
            if let Err(busy) = device.host.room.take(bytes) {
                if let Some(buffer) = taken {
                    *buffer = parts[0].give_back(device, request.offset, length);
                }
                return Err(busy);
            }
            pending.room = bytes;
            if !is_one {
                pending.advance(device);
            }
        }
        Ok(ticket)
    }

    /// Begins a request; `done` is called with its outcome: at once by this thread, or later by the
    /// thread that calls [`Device::step_calls`] ([`crate::threads`] has one for nothing else),
    /// [`Device::close`] or the drop of the device's last `Arc`, which a request that waits does not
    /// hold. No lock of the engine is held meanwhile: `done` may submit the next request. Other
    /// callbacks of the device wait until it returns.
    ///
    /// # Errors
    /// As [`Session::submit`] at once; `done` is not called then.
    pub fn submit_with(
        &self,
        request: Request<'_>,
        done: impl FnOnce(Result<Completion>) + Send + 'static,
    ) -> Result<()> {
        let mut ticket = self.submit(request)?;
        ticket.pending.advance(&self.device);
        match ticket.pending.take() {
            Some(outcome) => done(outcome),
            None => {
                let pending = std::mem::replace(&mut ticket.pending, Pending::taken(&self.pass));
                Call::begin(&self.device, pending, Box::new(done));
            }
        }
        Ok(())
    }

    /// Reads, waiting for it.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn read(&self, volume: u32, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_vectored(volume, offset, &mut [IoSliceMut::new(buffer)])
    }

    /// Reads into several buffers, one after the other.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn read_vectored(
        &self,
        volume: u32,
        offset: u64,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Result<()> {
        let length = buffers.iter().map(|b| b.len()).sum();
        let done = self.submit(Request::read(volume, offset, vec![0; length]))?.wait()?;
        let filled = done.buffer.expect("a read brings its buffer back");
        let mut rest = &filled[..];
        for buffer in buffers {
            let (front, behind) = rest.split_at(buffer.len());
            buffer.copy_from_slice(front);
            rest = behind;
        }
        Ok(())
    }

    /// Writes, waiting for completion; not durable before a flush unless the device is strict.
    /// Returns the stamp of the first record (R16), [`Stamp::ZERO`] for an empty write.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn write(&self, volume: u32, offset: u64, data: &[u8]) -> Result<Stamp> {
        self.write_vectored(volume, offset, &[IoSlice::new(data)])
    }

    /// Writes several buffers, one after the other, as one request; like [`Session::write`].
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn write_vectored(&self, volume: u32, offset: u64, data: &[IoSlice<'_>]) -> Result<Stamp> {
        let done = self.submit_in_line(|| Request::write(volume, offset, data))?.wait()?;
        Ok(done.stamp.unwrap_or_default())
    }

    /// Writes with force unit access, waiting until it is durable.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn write_fua(&self, volume: u32, offset: u64, data: &[u8]) -> Result<Stamp> {
        let slices = [IoSlice::new(data)];
        Ok(self
            .submit_in_line(|| Request::write(volume, offset, &slices).fua())?
            .wait()?
            .stamp
            .unwrap_or_default())
    }

    /// Makes `length` bytes read as zeros, waiting for completion ([`Op::WriteZeroes`]).
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn write_zeroes(&self, volume: u32, offset: u64, length: u64) -> Result<()> {
        self.submit_in_line(|| Request::write_zeroes(volume, offset, length))?.wait().map(drop)
    }

    /// Gives `length` bytes up, waiting for completion ([`Op::Discard`]).
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn discard(&self, volume: u32, offset: u64, length: u64) -> Result<()> {
        self.submit_in_line(|| Request::discard(volume, offset, length))?.wait().map(drop)
    }

    /// Makes every completed write durable, waiting for it.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn flush(&self) -> Result<()> {
        self.submit(Request::flush())?.wait().map(drop)
    }

    fn check_range(&self, volume: u32, offset: u64, length: u64) -> Result<()> {
        let wrong = |what: String| Err(Error::new(Kind::Invalid, what));
        let Some(size) = self.device.volumes.size(volume) else {
            return wrong(format!("there is no volume {volume} in this group"));
        };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return wrong(format!(
                "{length} bytes at {offset} run past the end of volume {volume} ({size} bytes)"
            ));
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match &mut self.pending.state {
            State::Write { parts, .. } => {
                parts.iter_mut().for_each(|part| part.abandon(&self.device));
            }
            State::Read(read) => read.abandon(&self.device),
            _ => {}
        }
        self.pending.give_room(&self.device);
        self.pending.leave(&self.device);
    }
}

impl Ticket {
    /// The outcome (S1010, S1607), once, when there is one. Never waits, and wakes no thread later: for
    /// that a ticket is a [`Future`].
    ///
    /// # Errors
    /// As [`Session::submit`] says of tickets.
    pub fn poll(&mut self) -> Option<Result<Completion>> {
        self.pending.poll(&self.device)
    }

    /// The bytes of memory of a write that waits to be admitted.
    #[cfg(feature = "simulate")]
    pub(crate) fn waiting_bytes(&self) -> u64 {
        match &self.pending.state {
            State::Write { parts, .. } => parts.iter().map(WriteState::bytes).sum(),
            _ => 0,
        }
    }

    /// Waits for the outcome (S1010, S1607), leading a commit if that is what it takes.
    ///
    /// # Errors
    /// As [`Session::submit`] says of tickets.
    pub fn wait(mut self) -> Result<Completion> {
        let Ticket { device, pending } = &mut self;
        pending.wait(device)
    }
}

impl Pending {
    /// The rest of a request once its outcome has gone to a callback.
    fn taken(pass: &Arc<Pass>) -> Pending {
        let completion = Completion::default();
        Pending { pass: pass.clone(), state: State::Taken, completion, stand: None, room: 0 }
    }

    /// As [`Ticket::poll`].
    pub fn poll(&mut self, device: &Device) -> Option<Result<Completion>> {
        self.advance(device);
        if let State::Round(round) = self.state {
            // A poll leads no commit: the background does.
            device.own.want(round);
        }
        let outcome = self.take();
        if outcome.is_some() {
            self.leave(device);
        }
        outcome
    }

    fn take(&mut self) -> Option<Result<Completion>> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Done(None) => Some(Ok(std::mem::take(&mut self.completion))),
            State::Done(Some(error)) => Some(Err(error)),
            State::Taken => None,
            busy => {
                self.state = busy;
                None
            }
        }
    }

    /// Goes as far as it can without waiting.
    fn advance(&mut self, device: &Device) {
        loop {
            let next = match &mut self.state {
                State::Write { parts, fua } => match parts.front_mut() {
                    // Nothing was written (R17), but FUA speaks of all that was published before, too.
                    None if self.completion.stamp.is_none() && (!*fua || device.own.is_clean()) => {
                        State::Done(None)
                    }
                    None => match device.settings.durability {
                        durability if durability == Durability::Strict || *fua => {
                            State::Round(device.own.round_wanted())
                        }
                        Durability::Written if holds(Clause::WrittenLog) => State::Written,
                        _ => State::Done(None),
                    },
                    Some(part) => match part.advance(device, &self.pass, &mut self.completion) {
                        Ok(false) => return,
                        Ok(true) => {
                            parts.pop_front();
                            continue;
                        }
                        Err(error) => State::Done(Some(error)),
                    },
                },
                State::Read(read) => match read.advance(device, &self.pass, &mut self.completion) {
                    Ok(false) => return,
                    Ok(true) => State::Done(None),
                    Err(error) => State::Done(Some(error)),
                },
                State::Written => match device.own.write_out(false) {
                    Ok(false) => return,
                    Ok(true) => State::Done(None),
                    Err(error) => State::Done(Some(device.halt(error))),
                },
                State::Round(round) => match device.own.round_done(*round) {
                    Ok(false) => match device.check_halted() {
                        Ok(()) => return,
                        Err(halted) => State::Done(Some(halted)),
                    },
                    Ok(true) => State::Done(None),
                    Err(error) => State::Done(Some(device.halt(error))),
                },
                State::Done(_) | State::Taken => return,
            };
            self.state = next;
            self.give_room(device);
        }
    }
}
