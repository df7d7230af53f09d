//! Host write: admission (S1600–S1607; R1, R2, R9, R15, R16, R17).
//!
//! A write is put together as whole blocks first, holding nothing; then it takes its places, is
//! stamped and published in one step ([`crate::queue::Queue::insert`]).

use super::admission::{Pass, Writer};
use super::read::Fetched;
use super::remote::{RemoteRead, Reply};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::data_checksum;
use crate::moment::{Moment, moment};
use crate::queue::{Content, Insert, NewRecord, NewWrite, Token};
use crate::request::{Awaited, Completion, Request};
use crate::sync::{AtomicU64, Ordering, lock};
use crate::unit::{Block, Extent, Stamp};
use crate::wake::{Key, Waiters};
use crate::weaken::{Clause, holds, instead};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A host's write on its way to admission.
#[derive(Debug)]
pub(crate) struct WriteState {
    first: Block,
    /// The blocks' data, one after the other; empty for zeros.
    data: Vec<u8>,
    records: Vec<NewRecord>,
    /// Blocks that the host gave only in part: at most the first and the last.
    edges: [Option<Edge>; 2],
    host_time: Option<u64>,
    /// Since when it waits for a place, or for another write's turn to be over.
    waiting_since: Option<u64>,
    /// The blocks whose turn it has, with the tenure.
    turn: Vec<(u64, Block)>,
    /// Why an attempt did not succeed.
    pub awaited: Awaited,
    /// The session that has it.
    session: u64,
}

/// It waits for nothing but others' turns.
const SOON: Awaited = Awaited { key: None, until: None, places: 0 };

/// A block given in part (R15).
#[derive(Debug)]
struct Edge {
    index: u32,
    /// The host's part of the block.
    given: Range<usize>,
    /// The block's chain in the own queue when the rest was read.
    base: Option<Token>,
    remote: Option<RemoteRead>,
}

impl WriteState {
    /// A write of `length` bytes.
    pub fn data(
        device: &Device,
        request: &Request<'_>,
        slices: &[IoSlice<'_>],
        length: u64,
    ) -> WriteState {
        let size = u64::from(device.geometry.block_size);
        let before = request.offset % size;
        let total = (before + length).next_multiple_of(size);
        let mut data = device.own.buffer(total as usize);
        data.resize(before as usize, 0);
        slices.iter().for_each(|slice| data.extend_from_slice(slice));
        WriteState::of(device, request, data)
    }

    /// A write of `buffer`, which stays where it is unless it begins within a block.
    pub fn taken(device: &Device, request: &Request<'_>, buffer: &mut Vec<u8>) -> WriteState {
        if request.offset.is_multiple_of(device.geometry.block_size.into()) {
            return WriteState::of(device, request, std::mem::take(buffer));
        }
        let length = buffer.len() as u64;
        let state = WriteState::data(device, request, &[IoSlice::new(buffer)], length);
        device.own.give(std::mem::take(buffer));
        state
    }

    /// Bytes of memory that it takes while it waits.
    pub fn bytes(&self) -> u64 {
        (self.data.capacity() + self.records.len() * size_of::<NewRecord>()) as u64
    }

    /// Gives the `length` bytes back that the host wrote from `offset` on; the write is given up.
    pub fn give_back(&mut self, device: &Device, offset: u64, length: u64) -> Vec<u8> {
        let before = (offset % u64::from(device.geometry.block_size)) as usize;
        let mut data = std::mem::take(&mut self.data);
        data.truncate(before + length as usize);
        data.drain(..before);
        data
    }

    /// A write of `data`, in which its first block begins.
    fn of(device: &Device, request: &Request<'_>, mut data: Vec<u8>) -> WriteState {
        let size = u64::from(device.geometry.block_size);
        let before = (request.offset % size) as usize;
        let number = request.offset / size;
        let end = data.len();
        let total = end.next_multiple_of(size as usize);
        data.resize(total, 0);
        let blocks = total as u64 / size;
        let size = size as usize;
        let mut edges = [None, None];
        if before > 0 {
            let given = before..end.min(size);
            edges[0] = Some(Edge { index: 0, given, base: None, remote: None });
        }
        let last = blocks as u32 - 1;
        if end < total && !(before > 0 && last == 0) {
            let given = 0..end - last as usize * size;
            edges[1] = Some(Edge { index: last, given, base: None, remote: None });
        }
        let is_edge = |k: usize| edges.iter().flatten().any(|e: &Edge| e.index as usize == k);
        let whole = |(k, block)| match is_edge(k) {
            true => 0,
            false => data_checksum(block),
        };
        let checksums = data.chunks_exact(size).enumerate().map(whole);
        let records = checksums
            .map(|checksum| NewRecord { checksum, content: Content::Data, level: 0 })
            .collect();
        WriteState {
            first: Block { volume: request.volume, number },
            records,
            data,
            edges,
            host_time: request.host_time,
            waiting_since: None,
            turn: Vec::new(),
            awaited: SOON,
            session: 0,
        }
    }

    /// Write-zeroes or discard (R17): records without data for the whole blocks; `parts`: zeros
    /// written into the blocks at the edges, which a discard leaves alone.
    pub fn zeroes(
        device: &Device,
        request: &Request<'_>,
        length: u64,
        parts: bool,
    ) -> VecDeque<WriteState> {
        let size = u64::from(device.geometry.block_size);
        let (begin, end) = (request.offset, request.offset + length);
        let (first, last) = (begin.next_multiple_of(size), end / size * size);
        let zeros = [0; 4096];
        let edge = |from: u64, to: u64| {
            let slices: Vec<_> = (from..to)
                .step_by(zeros.len())
                .map(|at| IoSlice::new(&zeros[..zeros.len().min((to - at) as usize)]))
                .collect();
            let part = Request { offset: from, ..Request::read(request.volume, from, Vec::new()) };
            let mut state = WriteState::data(device, &part, &slices, to - from);
            state.host_time = request.host_time;
            state
        };
        let mut states = VecDeque::new();
        if parts && (first > last || first > begin) {
            states.push_back(edge(begin, end.min(first)));
        }
        if first < last {
            let (number, count) = (first / size, (last - first) / size);
            let first = Block { volume: request.volume, number };
            let most = if device.has_extents() { Extent::LEVEL_MAX } else { 0 };
            let zero = |extent: Extent| NewRecord {
                checksum: 0,
                content: Content::Zero,
                level: extent.level,
            };
            states.push_back(WriteState {
                first,
                data: Vec::new(),
                records: Extent::split(first, count, most).map(zero).collect(),
                edges: [None, None],
                host_time: request.host_time,
                waiting_since: None,
                turn: Vec::new(),
                awaited: SOON,
                session: 0,
            });
        }
        if parts && first <= last && last < end {
            states.push_back(edge(last.max(begin), end));
        }
        states
    }

    /// Goes as far as it can; `true` once it is published.
    pub fn advance(
        &mut self,
        device: &Device,
        pass: &Arc<Pass>,
        completion: &mut Completion,
    ) -> Result<bool> {
        let outcome = self.try_publish(device, pass, completion);
        if !matches!(outcome, Ok(false)) {
            self.abandon(device);
        }
        outcome
    }

    /// Gives up the answers that it still waits for, and its turn.
    pub fn abandon(&mut self, device: &Device) {
        let asked = self.edges.iter_mut().flatten().filter_map(|e| e.remote.take());
        asked.for_each(|read| device.forget(&read));
        if !self.turn.is_empty() {
            device.host.turns.end(&self.turn, self.session, &device.wakes.waiters);
            self.turn.clear();
        }
    }

    fn try_publish(
        &mut self,
        device: &Device,
        pass: &Arc<Pass>,
        completion: &mut Completion,
    ) -> Result<bool> {
        let epoch = pass.epoch;
        // After this many attempts the caller's other requests get their turn.
        for _ in 0..ATTEMPTS {
            device.check_pass(pass)?;
            let writer = device.claim(self.first.volume, pass)?;
            if device.host.turns.are_taken()
                && let Some(turn) =
                    device.host.turns.hold_up(epoch, self.first, self.blocks(), &self.turn)
            {
                return self.wait(device, Kind::Timeout, Key::Turn(turn));
            }
            // One that waits is woken for what a record needs.
            let is_delayed = self.awaited.key == Some(Key::Paced);
            let waits = self.waiting_since.is_some() || is_delayed;
            if self.data.is_empty()
                && !waits
                && device.takes_no_record(self.first, self.blocks(), pass, writer)
            {
                return Ok(true);
            }
            if self.is_delayed(device, completion) {
                return Ok(false);
            }
            if !self.complete_edges(device, epoch, completion)? {
                return Ok(false);
            }
            let inserted = self.insert(device, pass, writer);
            if !matches!(inserted, Insert::Full) {
                // A commit sleeper may have seen the log clean.
                device.own.notice();
            }
            match inserted {
                Insert::Published { stamp, .. } => {
                    moment(Moment::Published);
                    completion.stamp = Some(stamp);
                    if let Some(since) = self.waiting_since {
                        completion.waited_ns += device.clock.monotonic().saturating_sub(since);
                    }
                    return Ok(true);
                }
                Insert::Stale => {
                    self.edges.iter_mut().flatten().for_each(|edge| edge.base = None);
                }
                Insert::Full => return self.wait(device, Kind::JournalFull, Key::Places),
                // The next look says why.
                Insert::Closed => {}
                Insert::Exhausted => {
                    let what = "time has run out of numbers: no later stamp exists";
                    return Err(device.halt(Error::new(Kind::Halted, what)));
                }
            }
        }
        // Others keep writing the block: after this they wait until it has had its turn.
        if self.turn.is_empty() && holds(Clause::Turn) {
            let edges = self.edges.iter().flatten();
            let turn: Vec<_> = edges.map(|edge| (epoch, self.block(edge))).collect();
            if device.host.turns.begin(&turn, pass) {
                (self.turn, self.session) = (turn, pass.number);
            }
        }
        self.awaited = SOON;
        Ok(false)
    }

    /// How many blocks it writes.
    fn blocks(&self) -> u64 {
        self.records.iter().map(|record| 1 << record.level).sum()
    }

    fn block(&self, edge: &Edge) -> Block {
        Block { number: self.first.number + u64::from(edge.index), ..self.first }
    }

    fn insert(&mut self, device: &Device, pass: &Pass, writer: &Writer) -> Insert {
        let epoch = instead::tenure(pass.epoch, || device.clk.epoch());
        let base = |e: &Edge| (e.index, e.base.expect("the edges are complete"));
        let given = self
            .host_time
            .filter(|&time| time <= Stamp::HOST_TIME_MAX || !holds(Clause::HostTimeBound));
        let write = NewWrite {
            block: self.first,
            records: &self.records,
            time: given.unwrap_or_else(|| device.clock.wall().min(Stamp::HOST_TIME_MAX)),
            written_at: device.clock.monotonic(),
            bases: self.edges.each_ref().map(|edge| edge.as_ref().map(base)),
        };
        device.own.insert(&device.clk, epoch, &write, || writer.admits(pass), &mut self.data)
    }

    /// The write is not admitted (R9), or waits for its turn (R15), within bounds; then the host
    /// gets an error of `kind`.
    fn wait(&mut self, device: &Device, kind: Kind, key: Key) -> Result<bool> {
        let now = device.clock.monotonic();
        let since = *self.waiting_since.get_or_insert_with(|| {
            // Places come free by a commit, which may not be due yet, a checkpoint, or a suspension.
            device.own.want(device.own.round_wanted());
            device.wakes.reflect.ring();
            now
        });
        if key == Key::Places {
            // Behind its entry, too: the next look comes then.
            device.wakes.ship.ring();
        }
        let waited = now.saturating_sub(since);
        let most = device.settings.admit_timeout_ns;
        if waited <= most {
            let until = Some(since.saturating_add(most).saturating_add(1));
            self.awaited = Awaited { key: Some(key), until, places: self.records.len() as u64 };
            return Ok(false);
        }
        let (records, blocks, ms) = (self.records.len(), self.blocks(), waited / 1_000_000);
        let what = match kind {
            Kind::JournalFull => format!(
                "the journal has had no room for {records} records for {ms} ms: the other device takes records too slowly, or not at all"
            ),
            _ => format!(
                "the request has waited {ms} ms behind a write of a part of one of its {blocks} blocks from {} on: that one's ticket must be polled or dropped",
                self.first
            ),
        };
        Err(Error::new(kind, what))
    }

    /// Whether the write waits because the journal is filling. How long is settled when it first comes
    /// here, and holds nothing; of a request in several parts the first waits for all.
    fn is_delayed(&mut self, device: &Device, completion: &mut Completion) -> bool {
        if !device.host.pace.is_on() {
            completion.paced_until.get_or_insert(0);
            return false;
        }
        let now = device.clock.monotonic();
        let until = *completion.paced_until.get_or_insert_with(|| {
            completion.paced_ns = device.survey();
            now.saturating_add(completion.paced_ns)
        });
        if now >= until && holds(Clause::PacingBound) {
            return false;
        }
        self.awaited = Awaited { key: Some(Key::Paced), until: Some(until), places: 0 };
        true
    }

    /// Reads the rest of the blocks given in part; `false` while one is awaited from the peer.
    fn complete_edges(
        &mut self,
        device: &Device,
        epoch: u64,
        completion: &mut Completion,
    ) -> Result<bool> {
        let size = device.geometry.block_size as usize;
        let mut awaited = None;
        for edge in self.edges.iter_mut().flatten() {
            if edge.base.is_some() {
                continue;
            }
            let block = Block { number: self.first.number + u64::from(edge.index), ..self.first };
            let mut rest = vec![0; size];
            let asked = match &edge.remote {
                Some(read) => device.answer(read)?,
                None => Some(Reply::NotPending),
            };
            let base = match asked {
                None => None,
                Some(Reply::Data(data)) => {
                    completion.remote_blocks += 1;
                    rest = data;
                    edge.remote.take().map(|read| read.base)
                }
                Some(Reply::NotPending) => edge.fetch(device, block, epoch, &mut rest)?,
            };
            let Some(base) = base else {
                awaited = edge.remote.as_ref().map(|read| device.awaited(read)).or(awaited);
                continue;
            };
            edge.base = Some(base);
            let at = edge.index as usize * size;
            let whole = &mut self.data[at..at + size];
            whole[..edge.given.start].copy_from_slice(&rest[..edge.given.start]);
            whole[edge.given.end..].copy_from_slice(&rest[edge.given.end..]);
            self.records[edge.index as usize].checksum = data_checksum(whole);
        }
        let Some(awaited) = awaited else { return Ok(true) };
        device.ask_now();
        self.awaited = awaited;
        Ok(false)
    }
}

impl Edge {
    /// Reads the block if its newest data is here, else asks the peer, perhaps again.
    fn fetch(
        &mut self,
        device: &Device,
        block: Block,
        epoch: u64,
        rest: &mut [u8],
    ) -> Result<Option<Token>> {
        let asked = self.remote.take();
        match device.fetch(block, rest)? {
            Fetched::Here(base) => Ok(Some(base)),
            Fetched::Away(base) => {
                self.remote = Some(device.ask(block, base, epoch, asked.as_ref()));
                Ok(None)
            }
        }
    }
}

/// The turns of partial writes: blocks that such a write could not get hold of in bounded retries
/// (R15). Every other write of such a block waits until the turn has ended.
#[derive(Debug)]
pub(crate) struct Turns {
    count: AtomicU64,
    /// Tenure and block of each turn → its session. A turn of another tenure delays no write.
    blocks: Mutex<HashMap<(u64, Block), u64>>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { count: AtomicU64::new(0), blocks: Mutex::default() }
    }
}

impl Turns {
    /// Whether there are any, which is rare.
    pub fn are_taken(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// A block whose turn a write of `count` blocks from `first` on must wait for.
    fn hold_up(&self, epoch: u64, first: Block, count: u64, own: &[(u64, Block)]) -> Option<Block> {
        let numbers = first.number..first.number + count;
        let within = |&(tenure, block): &(u64, Block)| {
            tenure == epoch && block.volume == first.volume && numbers.contains(&block.number)
        };
        let taken = lock(&self.blocks);
        let turn = taken.keys().find(|turn| within(turn) && !own.contains(turn));
        turn.map(|&(_, block)| block)
    }

    /// All of `turns` or none, so that two writes never wait for each other; none for a session
    /// that is over.
    fn begin(&self, turns: &[(u64, Block)], pass: &Pass) -> bool {
        let mut taken = lock(&self.blocks);
        let free = |turn| !taken.contains_key(turn);
        if turns.is_empty() || !turns.iter().all(free) || !pass.is_open() {
            return false;
        }
        taken.extend(turns.iter().map(|&turn| (turn, pass.number)));
        self.count.store(taken.len() as u64, Ordering::Release);
        true
    }

    fn end(&self, turns: &[(u64, Block)], session: u64, waiters: &Waiters) {
        self.keep(|turn, of| of != session || !turns.contains(turn));
        for &(_, block) in turns {
            waiters.wake(Key::Turn(block)..=Key::Turn(block));
        }
    }

    /// Ends the turns of a session that is over. The caller wakes the requests that wait for them.
    pub fn leave(&self, session: u64) {
        self.keep(|_, of| of != session);
    }

    fn keep(&self, keeps: impl Fn(&(u64, Block), u64) -> bool) {
        let mut taken = lock(&self.blocks);
        taken.retain(|turn, session| keeps(turn, *session));
        self.count.store(taken.len() as u64, Ordering::Release);
    }
}

/// Attempts at one poll: a stale block is read again from memory, so a few cost nothing.
const ATTEMPTS: u32 = 16;
