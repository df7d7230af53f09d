//! Remote read (S1004–S1007, R7): a question to the peer for each run of neighbouring blocks, and
//! its answers, in pieces.
//!
//! Both wait until the control lane takes them ([`Settings::control_queue_bytes_max`]), and both
//! ends bound what is asked and not answered ([`Geometry::read_blocks_max`]): the one that answers
//! keeps no more than that on its peer's word, and the other asks for no more.
//!
//! [`Geometry::read_blocks_max`]: crate::limits::Geometry::read_blocks_max
//! [`Settings::control_queue_bytes_max`]: crate::limits::Settings::control_queue_bytes_max

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::format::frame::Frame;
use crate::format::{Row, data_checksum};
use crate::link::{Lane, Link};
use crate::queue::{Content, Token};
use crate::request::Awaited;
use crate::sync::lock;
use crate::unit::{Block, Stamp};
use crate::wake::Key;
use crate::weaken::{Clause, holds};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The peer's answer for a block.
pub(crate) enum Reply {
    /// Its newest data there.
    Data(Vec<u8>),
    /// The block is not pending there, or no longer: the reader looks again.
    NotPending,
}

/// A block whose data the peer is asked for.
#[derive(Debug)]
pub(crate) struct RemoteRead {
    id: u64,
    /// When it was asked first, on the monotonic clock.
    asked_at: u64,
    pub block: Block,
    /// The block's newest record in the own queue when the question was made.
    pub base: Token,
}

impl RemoteRead {
    pub fn number(&self) -> u64 {
        self.id
    }

    pub fn asked_at(&self) -> u64 {
        self.asked_at
    }
}

/// The blocks asked for and not answered in one connection and under one tenure. Each end has its
/// own; what belongs to an earlier connection or tenure is answered no more and counts no more.
#[derive(Default)]
struct Window {
    session: u64,
    epoch: u64,
    blocks: u64,
}

/// Remote reads under way.
#[derive(Default)]
pub(crate) struct Questions {
    /// The newest id; each block has one.
    last: u64,
    /// Ids up to this one are in a question that was sent, or need none.
    asked: u64,
    /// The newest tenure in which a block was wanted: those before are over.
    tenure: u64,
    waiting: BTreeMap<u64, Waiting>,
    window: Window,
    /// The unanswered blocks of each question of the window: first id, and how many.
    open: BTreeMap<u64, u64>,
}

/// A block that a reader waits for.
struct Waiting {
    block: Block,
    epoch: u64,
    reply: Option<Reply>,
}

/// The peer's questions that are not answered, oldest first.
#[derive(Default)]
pub(crate) struct Answers {
    window: Window,
    cursors: VecDeque<Cursor>,
}

/// The part of a question that is not answered yet.
struct Cursor {
    id: u64,
    block: Block,
    left: u64,
}

impl Answers {
    pub fn is_owed(&self) -> bool {
        !self.cursors.is_empty()
    }
}

/// A question on its way: the session and link that it goes by.
type Question = (u64, Arc<dyn Link>, Frame<'static>);

impl Block {
    fn plus(self, count: u64) -> Block {
        Block { number: self.number + count, ..self }
    }
}

impl Questions {
    /// The next run of blocks that no question names, at most `room`: its first id, tenure and
    /// block, and how many.
    fn next_run(&mut self, room: u64) -> Option<(u64, u64, Block, u64)> {
        let mut rest = self.waiting.range(self.asked + 1..);
        let Some((&id, first)) = rest.next() else {
            self.asked = self.last; // their readers have gone
            return None;
        };
        let (epoch, block) = (first.epoch, first.block);
        let follows = |&(at, (&next, w)): &(u64, (&u64, &Waiting))| {
            next == id + at && w.block == block.plus(at) && w.epoch == epoch
        };
        let count = 1 + (1..room).zip(rest).take_while(follows).count() as u64;
        Some((id, epoch, block, count))
    }
}

impl Device {
    /// Wants the peer's newest data of `block` (S1005); [`Device::send_questions`] asks for it.
    /// `again`: the question to which there was no answer, whose time goes on.
    pub(crate) fn ask(
        &self,
        block: Block,
        base: Token,
        epoch: u64,
        again: Option<&RemoteRead>,
    ) -> RemoteRead {
        let asked_at = again.map_or_else(|| self.clock.monotonic(), |first| first.asked_at);
        let mut questions = lock(&self.peer.questions);
        questions.last += 1;
        questions.tenure = questions.tenure.max(epoch);
        let id = questions.last;
        questions.waiting.insert(id, Waiting { block, epoch, reply: None });
        RemoteRead { id, asked_at, block, base }
    }

    /// Sends what questions the lane and the window have room for (S1005). The rest follows as
    /// answers come, by [`Device::step_control`]; what is lost with its connection is asked again
    /// in the next (hello).
    pub(crate) fn send_questions(&self) {
        while let Some((session, link, question)) = self.next_question() {
            let question = question.encode_in(lock(&self.failover).connection.wire(), session);
            if let Err(error) = link.send(Lane::Control, question) {
                return self.disconnected(&error, &link);
            }
        }
    }

    /// As [`Device::send_questions`], for a reader that has just added some: the background sends
    /// them later if there is no room now.
    pub(crate) fn ask_now(&self) {
        self.send_questions();
        if self.has_to_ask() {
            self.wakes.ship.ring();
        }
    }

    fn next_question(&self) -> Option<Question> {
        let is_unasked = |q: &Questions| q.asked < q.last;
        // Of what bits tell, the peer is asked in a round that both are in (D3).
        let is_early = self.peer.machine.owes() && !self.peer.machine.read().is_open();
        if is_early
            || !is_unasked(&lock(&self.peer.questions))
            || self.peer_link().is_none_or(|l| self.is_full(&l))
        {
            return None;
        }
        let mut questions = lock(&self.peer.questions);
        // Under this lock, so that the window follows the connections in their order.
        let (session, link) = lock(&self.failover).connection.standing()?;
        loop {
            let room = self.geometry.read_blocks_max();
            let (id, epoch, block, most) = questions.next_run(room)?;
            // First: the window may be full of its tenure's, which the peer answers no more.
            if epoch < questions.tenure {
                questions.asked = id + most - 1; // their readers find that their tenure is over
                continue;
            }
            let window = &questions.window;
            if (window.session, window.epoch) != (session, epoch) {
                questions.window = Window { session, epoch, blocks: 0 };
                questions.open.clear();
            }
            let count = most.min(room - questions.window.blocks);
            if count == 0 {
                return None;
            }
            questions.asked = id + count - 1;
            questions.window.blocks += count;
            questions.open.insert(id, count);
            let count = count as u32; // at most `read_blocks_max`
            return Some((session, link, Frame::ReadRequest { epoch, id, block, count }));
        }
    }

    /// Whether the control lane holds so much that no question, answer or piece of a prototype is
    /// added.
    pub(crate) fn is_full(&self, link: &Arc<dyn Link>) -> bool {
        link.queued(Lane::Control) > self.settings.control_queue_bytes_max
            && holds(Clause::ReadPacing)
    }

    /// Whether there are questions that have not been sent.
    pub(crate) fn has_to_ask(&self) -> bool {
        let questions = lock(&self.peer.questions);
        questions.waiting.range(questions.asked + 1..).next().is_some()
    }

    /// How a request waits for the peer's answer.
    pub(crate) fn awaited(&self, read: &RemoteRead) -> Awaited {
        let most = self.settings.remote_read_timeout_ns;
        let until = Some(read.asked_at.saturating_add(most).saturating_add(1));
        Awaited { key: Some(Key::Reply(read.id)), until, places: 0 }
    }

    /// The peer's answer, if it is here.
    pub(crate) fn answer(&self, read: &RemoteRead) -> Result<Option<Reply>> {
        let waiting = &mut lock(&self.peer.questions).waiting;
        if let Some(reply) = waiting.get_mut(&read.id).and_then(|w| w.reply.take()) {
            waiting.remove(&read.id);
            return Ok(Some(reply));
        }
        let waited = self.clock.monotonic().saturating_sub(read.asked_at);
        if waited > self.settings.remote_read_timeout_ns {
            waiting.remove(&read.id);
            let block = read.block;
            return Err(Error::new(
                Kind::Timeout,
                format!(
                    "the newest data of block {block} is at the peer, which did not answer within {} \
                     ms: see that it runs and is connected, then read again",
                    waited / 1_000_000
                ),
            ));
        }
        Ok(None)
    }

    /// Forgets a question whose asker has gone.
    pub(crate) fn forget(&self, read: &RemoteRead) {
        lock(&self.peer.questions).waiting.remove(&read.id);
    }

    /// For how many blocks an answer is awaited, or here and not taken.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn blocks_awaited(&self) -> usize {
        lock(&self.peer.questions).waiting.len()
    }

    /// The answers for the blocks from `first` on have arrived.
    pub(crate) fn receive_replies(
        &self,
        first: u64,
        rows: &[Option<Row>],
        mut data: &[u8],
    ) -> Result<()> {
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let size = self.geometry.block_size as usize;
        let mut questions = lock(&self.peer.questions);
        let Some(left) = questions.open.remove(&first) else {
            return Ok(()); // of an earlier window
        };
        let count = rows.len() as u64;
        if count == 0 || count > left {
            return broken(format!("the peer answers {count} blocks where {left} were asked for"));
        }
        questions.window.blocks -= count;
        if count < left {
            questions.open.insert(first + count, left - count);
        }
        for (id, row) in (first..).zip(rows) {
            let length = if row.is_some_and(|row| row.has_data) { size } else { 0 };
            let Some((bytes, rest)) = data.split_at_checked(length) else {
                return broken(format!("the peer's answer lacks data: {} bytes left", data.len()));
            };
            data = rest;
            let Some(waiting) = questions.waiting.get_mut(&id) else {
                continue; // the reader has gone
            };
            waiting.reply = Some(match row {
                None => Reply::NotPending,
                Some(row) if row.block != waiting.block => {
                    let (asked, found) = (waiting.block, row.block);
                    return broken(format!(
                        "the peer was asked for block {asked} and sent {found}"
                    ));
                }
                Some(row) if !row.has_data => Reply::Data(vec![0; size]),
                Some(row) if data_checksum(bytes) != row.checksum => {
                    return broken(format!("the peer's answer for block {} is damaged", row.block));
                }
                Some(_) => Reply::Data(bytes.to_vec()),
            });
        }
        drop(questions);
        let last = first + (count - 1);
        self.wakes.waiters.wake(Key::Reply(first)..=Key::Reply(last));
        match data.len() {
            0 => Ok(()),
            left => broken(format!("the peer's answer has {left} bytes of data too many")),
        }
    }

    /// After a reconnect: each read that waits for an answer looks again.
    pub(crate) fn ask_again(&self) {
        let mut questions = lock(&self.peer.questions);
        for waiting in questions.waiting.values_mut() {
            waiting.reply.get_or_insert(Reply::NotPending);
        }
        questions.asked = questions.last;
        drop(questions);
        self.wakes.waiters.wake(Key::Reply(0)..=Key::Reply(u64::MAX));
    }

    /// Takes the peer's question (S1004): only while fenced, for the tenure granted last.
    pub(crate) fn receive_question(
        &self,
        answers: &mut Answers,
        session: u64,
        (epoch, id): (u64, u64),
        (block, count): (Block, u32),
    ) -> Result<()> {
        if !self.answers_tenure(epoch) {
            return Ok(());
        }
        self.taken(epoch);
        if (answers.window.session, answers.window.epoch) != (session, epoch) {
            let window = Window { session, epoch, blocks: 0 };
            *answers = Answers { window, cursors: VecDeque::new() };
        }
        let (left, open) = (u64::from(count), answers.window.blocks);
        let most = self.geometry.read_blocks_max();
        let ends = block.number.checked_add(left).and(id.checked_add(left));
        if left == 0 || left > most - open || ends.is_none() {
            let what = format!(
                "the peer asks for {count} blocks from {block} on, with {open} of {most} open"
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        answers.window.blocks += left;
        answers.cursors.push_back(Cursor { id, block, left });
        Ok(())
    }

    /// Whether questions of the tenure `epoch` are answered (R7): never of 0, which a device that
    /// serves has in the place of a grant.
    fn answers_tenure(&self, epoch: u64) -> bool {
        let granted = lock(&self.tables).out.granted();
        granted != 0 && granted == epoch || !holds(Clause::ReadTenure)
    }

    /// Sends what answers the lane has room for (S1006); whether there were any.
    pub(crate) fn send_answers(&self, answers: &mut Answers) -> Result<bool> {
        let size = self.geometry.block_size as usize;
        let piece = (self.settings.control_queue_bytes_max / size as u64).max(1);
        let mut sent = false;
        while let Some(cursor) = answers.cursors.front_mut() {
            let connection = {
                let failover = lock(&self.failover);
                let asker =
                    failover.connection.peer().filter(|peer| peer.nonce == answers.window.session);
                asker.and(failover.connection.standing())
            };
            let Some((session, link)) =
                connection.filter(|_| self.answers_tenure(answers.window.epoch))
            else {
                *answers = Answers::default();
                break;
            };
            if self.is_full(&link) {
                break;
            }
            let count = piece.min(cursor.left);
            let (floor, by_bits) = {
                let tables = lock(&self.tables);
                (tables.out.floor(), tables.out.is_by_bits())
            };
            let mut data = Vec::new();
            let numbers = 0..count;
            let rows = numbers.map(|at| match by_bits {
                true => self.newest_here(cursor.block.plus(at), &mut data).map(Some),
                false => self.pending(cursor.block.plus(at), floor, &mut data),
            });
            let rows = rows.collect::<Result<_>>()?;
            let reply = Frame::ReadReply { id: cursor.id, rows, data: &data };
            let reply = reply.encode_in(lock(&self.failover).connection.wire(), session);
            cursor.id += count;
            cursor.block = cursor.block.plus(count);
            cursor.left -= count;
            answers.window.blocks -= count;
            if cursor.left == 0 {
                answers.cursors.pop_front();
            }
            if let Err(error) = link.send(Lane::Control, reply) {
                self.disconnected(&error, &link);
                break;
            }
            sent = true;
        }
        Ok(sent)
    }

    /// Whether the answer for the block of this number is here.
    #[cfg(feature = "simulate")]
    pub(crate) fn is_answered(&self, number: u64) -> bool {
        lock(&self.peer.questions)
            .waiting
            .get(&number)
            .is_some_and(|waiting| waiting.reply.is_some())
    }

    /// Whether answers are owed: the simulator steps only devices that have something to do.
    #[cfg(feature = "simulate")]
    pub(crate) fn owes_answers(&self) -> bool {
        lock(&self.peer.controlling).is_owed()
    }

    /// Copies the newest content of `block` here, for the peer (D5, E3).
    pub(crate) fn fetch_newest(&self, block: Block, buf: &mut [u8]) -> Result<()> {
        match holds(Clause::NewestFirst) {
            true => self.fetch(block, buf).map(drop),
            false => self.volumes.read(block, buf),
        }
    }

    /// The newest content of `block` here, as the peer, which bits tell of it, has none that is newer (D5).
    fn newest_here(&self, block: Block, data: &mut Vec<u8>) -> Result<Row> {
        let at = data.len();
        data.resize(at + self.geometry.block_size as usize, 0);
        self.fetch_newest(block, &mut data[at..])?;
        let has_data = data[at..].iter().any(|&byte| byte != 0);
        let checksum = if has_data { data_checksum(&data[at..]) } else { 0 };
        if !has_data {
            data.truncate(at);
        }
        // Of no record in particular: the content is as old as the tenure at most.
        let stamp = Stamp { epoch: self.superblock.get().epoch, time: 0, sequence: 0 };
        Ok(Row { stamp, block, level: 0, has_data, checksum, index: 0, count: 1 })
    }

    /// The newest record of `block` in R, its data put behind `data`: never from N, which is stale
    /// when both directions are pending.
    fn pending(&self, block: Block, floor: Stamp, data: &mut Vec<u8>) -> Result<Option<Row>> {
        let at = data.len();
        let queue = &self.own.journal.queue;
        while let Some(record) = queue.newest(block).0.filter(|r| r.stamp > floor) {
            let is_durable = queue.is_durable(record.position);
            debug_assert!(is_durable || !holds(Clause::ReadTenure), "R10");
            data.resize(at + self.geometry.block_size as usize, 0);
            let is_there =
                self.own.read(&record, &mut data[at..]).map_err(|e| self.unreadable(e))?;
            if !is_there || record.content != Content::Data {
                data.truncate(at);
            }
            if is_there {
                // The block asked for, though the record may be of many (R19).
                return Ok(Some(Row { block, level: 0, ..Row::from(&record) }));
            }
        }
        Ok(None)
    }
}
