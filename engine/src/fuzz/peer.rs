//! A connected device, and a peer whose frames are well formed and whose fields are lies.

use super::Input;
use crate::Device;
use crate::clock::Clock;
use crate::event::Status;
use crate::format::Row;
use crate::format::frame::{Copied, Frame, Hello, Ladder, Seen, Shipped, Sum, TablePiece};
use crate::format::superblock::VolumeSpec;
use crate::format::{content_checksum, data_checksum};
use crate::limits::{Durability, Geometry, Settings};
use crate::link::{Lane, Line, Link, MemoryLink, memory_link};
use crate::request::{Request, Ticket};
use crate::storage::Memory;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::unit::{Block, Blocks, Extent, Mode, Round, Stamp};
use std::io::IoSlice;
use std::sync::Arc;

const BLOCK: usize = 512;
const BLOCKS: u64 = 24;

/// A clock that moves when told to.
struct Told(AtomicU64);

impl Clock for Told {
    fn wall(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn monotonic(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The liar: its end of the line, and what it has heard.
struct Liar {
    end: MemoryLink,
    nonce: u64,
    /// The device's last hello.
    hello: Option<Hello>,
    /// Names the device's open takeover request.
    asked: u64,
    /// The device's newest question.
    question: (u64, Block),
}

/// A device, serving or not, and a peer that says what `bytes` choose in both lanes: it does not
/// panic, it answers or ends the connection, and it halts only for what the rules call a loss.
pub fn peer(bytes: &[u8]) {
    drop(talk(bytes));
}

/// Where the device stands in the end.
fn talk(bytes: &[u8]) -> Status {
    let mut input = Input(bytes);
    let clock = Arc::new(Told(AtomicU64::new(1000)));
    let storage = Arc::new(Memory::new());
    let mut geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 0, bytes: BLOCKS * 512 }]);
    geometry.block_size = BLOCK as u32;
    geometry.segment_bytes = 65_536;
    geometry.journal_bytes = (4 * geometry.batch_bytes_max()).next_multiple_of(4096);
    let serves = input.byte().is_multiple_of(2);
    Device::create(&*storage, &geometry, serves).expect("created");
    let settings = Settings { durability: Durability::Never, ..Settings::default() };
    let device = Device::open(storage, clock.clone(), settings).expect("opened");
    let mut tickets = Vec::new();
    let mut liar = connect(&device, &mut input, clock.clone());
    while !input.is_spent() {
        clock.0.fetch_add(input.below(1 << 20), Relaxed);
        act(&device, &mut liar, &mut input, &mut tickets, &clock);
        tickets.retain_mut(|ticket: &mut Ticket| ticket.poll().is_none());
        if let Some(halted) = device.status().halted {
            let story = halted.to_string();
            let lost = ["lost durable records", "both devices of the pair are unfenced"];
            assert!(lost.iter().any(|words| story.contains(words)), "{halted:?}");
            break;
        }
    }
    device.status()
}

/// A new line, and a hello that is true, but for what the bytes change.
fn connect(device: &Device, input: &mut Input<'_>, clock: Arc<Told>) -> Liar {
    let (end, other) = memory_link(Line::default(), clock);
    let _ = device.connect(Arc::new(end));
    let nonce = 1 + u64::from(input.byte());
    let question = (0, Block { volume: 0, number: 0 });
    let mut liar = Liar { end: other, nonce, hello: None, asked: 0, question };
    liar.listen();
    liar.say_hello(input);
    let _ = device.step_control();
    liar
}

fn act(
    device: &Arc<Device>,
    liar: &mut Liar,
    input: &mut Input<'_>,
    tickets: &mut Vec<Ticket>,
    clock: &Arc<Told>,
) {
    liar.listen();
    let byte = input.byte();
    match byte % 20 {
        _ if byte >= 208 => {
            if byte.is_multiple_of(16) {
                let _ = device.suspend();
            }
            liar.say_ladder(input);
        }
        0 => *liar = connect(device, input, clock.clone()),
        1 => liar.say_hello(input),
        2 => {
            let (epoch, nonce) = (liar.epoch(input), input.number());
            let told = liar.stamp(input);
            liar.say(
                Lane::Control,
                &Frame::Takeover { epoch, device: 2, nonce, told, ladder: None },
            );
        }
        3 => {
            let count = input.below(6);
            let entries = (0..count).map(|_| (extent(input), liar.stamp(input))).collect();
            let nonce = if input.byte().is_multiple_of(8) { input.number() } else { liar.asked };
            let left = if input.byte().is_multiple_of(8) { input.number() } else { count };
            let is_last = !input.byte().is_multiple_of(8);
            let (grant, previous) = (liar.epoch(input), liar.stamp(input));
            let piece = Frame::Prototype { nonce, grant, left, is_last, previous, entries };
            liar.say(Lane::Control, &piece);
        }
        4 => {
            let nonce = if input.byte().is_multiple_of(2) { liar.asked } else { input.number() };
            liar.say(Lane::Control, &Frame::Busy { nonce });
            if nonce != liar.asked {
                liar.say(Lane::Control, &checksums(input));
            }
        }
        5 | 6 => {
            let (epoch, id, block) = (liar.epoch(input), input.number(), block(input));
            let count = if input.byte().is_multiple_of(2) { 1 } else { input.number() as u32 };
            liar.say(Lane::Control, &Frame::ReadRequest { epoch, id, block, count });
        }
        7 | 8 => liar.answer(input),
        9 => {
            let (hi, credit) = (liar.stamp(input), input.number());
            match input.byte().is_multiple_of(4) {
                false => liar.say(Lane::Control, &Frame::Ack { hi, credit }),
                true => {
                    let epoch = liar.epoch(input);
                    let reachable = credit.is_multiple_of(2);
                    liar.say(Lane::Control, &Frame::Serving { epoch, reachable });
                    if credit.is_multiple_of(8) {
                        liar.say(Lane::Control, &Frame::Offer { epoch });
                    }
                }
            }
        }
        10..13 => liar.ship(input),
        13 => {
            // Many entries in rising order: more are said to follow, as many as it likes.
            let (nonce, grant) = (liar.asked, liar.epoch(input));
            let (previous, epoch) = (liar.stamp(input), liar.epoch(input));
            let entry = |n| {
                let stamp = Stamp { epoch, time: 1 + n, sequence: 0 };
                (Block { volume: 0, number: n % BLOCKS }.into(), stamp)
            };
            let (entries, left) = ((0..4096).map(entry).collect(), input.number());
            let piece = Frame::Prototype { nonce, grant, left, is_last: false, previous, entries };
            liar.say(Lane::Control, &piece);
        }
        14 => drop(device.begin_takeover()),
        15 => drop(device.resume_alone()),
        16 | 17 => host(device, input, tickets),
        _ => {
            let _ = device.step_commit();
            let _ = device.step_ladder();
            let _ = device.step_ship();
            let _ = device.step_reflect();
            let _ = device.checkpoint_now();
        }
    }
    // An error is a halt, which is looked at next; what ends a connection is none.
    while device.step_control().is_ok_and(|moved| moved) {}
    let _ = device.step_receive();
    drop(device.poll_takeover());
}

/// A read, or a write of a part of a block, by a device that may ask.
fn host(device: &Arc<Device>, input: &mut Input<'_>, tickets: &mut Vec<Ticket>) {
    let Ok(host) = device.session() else { return };
    let at = input.below(BLOCKS - 4) * BLOCK as u64;
    let data = [input.byte(); 512];
    let slices = [IoSlice::new(&data)];
    let request = match input.byte() % 2 {
        0 => Request::read(0, at, vec![0; BLOCK * 4]),
        _ => Request::write(0, at, &slices),
    };
    tickets.extend(host.submit(request));
}

/// A question for checksums, or an answer that was not asked for.
fn checksums(input: &mut Input<'_>) -> Frame<'static> {
    let id = input.number();
    if input.byte().is_multiple_of(8) {
        let sums = vec![Sum { blocks: 1 + input.number() as u32 / 2, seen: Seen::Moving }];
        return Frame::ChecksumReply { id, sums };
    }
    let count = if input.byte().is_multiple_of(8) { input.number() } else { input.below(8) };
    let absent = if input.byte().is_multiple_of(8) { input.number() } else { input.below(24) };
    Frame::ChecksumRequest { id, block: block(input), count: count as u32, absent }
}

/// A block: mostly of the volume.
fn block(input: &mut Input<'_>) -> Block {
    match input.byte() % 16 {
        0 => Block { volume: input.number() as u32, number: input.number() },
        n => Block { volume: 0, number: u64::from(n) },
    }
}

/// Runs of blocks, mostly of the volume, in rising order.
fn runs(input: &mut Input<'_>) -> Vec<Blocks> {
    let (volume, mut end) = (if input.byte() == 0 { 1 } else { 0 }, input.below(8));
    let run = |_| {
        let start = end + 1 + input.below(4);
        end = start + 1 + if input.byte() == 0 { input.number() >> 12 } else { input.below(4) };
        Blocks { volume, numbers: start..end }
    };
    (0..3).map(run).collect()
}

/// A piece of a table, mostly a whole one.
fn piece(input: &mut Input<'_>) -> TablePiece {
    let runs = runs(input);
    match input.byte() % 4 {
        0 => {
            let from = Block { volume: 0, number: input.below(24) };
            TablePiece { from, to: Block { number: from.number + 1, ..from }, runs, is_last: false }
        }
        _ => TablePiece::next(TablePiece::FIRST, &mut runs.into_iter().peekable()),
    }
}

/// Copies of blocks, and their data.
fn copies(input: &mut Input<'_>, blocks: &[Blocks]) -> (Vec<Copied>, Vec<u8>) {
    let mut data = Vec::new();
    let copied = |run: &Blocks| {
        let content = [input.byte(); BLOCK];
        let has_data = content[0].is_multiple_of(2);
        data.extend_from_slice(if has_data { &content } else { &[] });
        let sum = if input.byte() == 0 { 1 } else { data_checksum(&content) };
        let (count, checksum) = if has_data { (1, sum) } else { (run.count(), 0) };
        Copied { block: run.first(), count, has_data, checksum }
    };
    (blocks.iter().map(copied).collect(), data)
}

/// An extent: mostly of one block, or within the volume.
fn extent(input: &mut Input<'_>) -> Extent {
    let block = block(input);
    match input.byte() {
        byte @ ..32 => Extent::around(block, byte % 5),
        _ => block.into(),
    }
}

impl Liar {
    fn say(&self, lane: Lane, frame: &Frame<'_>) {
        let _ = self.end.send(lane, frame.encode(self.nonce));
    }

    /// Takes what the device has said.
    fn listen(&mut self) {
        while let Ok(Some(bytes)) = self.end.receive(Lane::Control) {
            match Frame::decode(&bytes).expect("a device speaks well").1 {
                Frame::Hello(hello) => self.hello = Some(hello),
                Frame::Takeover { nonce, .. } => self.asked = nonce,
                Frame::ReadRequest { id, block, .. } => self.question = (id, block),
                _ => {}
            }
        }
        while let Ok(Some(_)) = self.end.receive(Lane::Data) {}
    }

    /// A tenure that may be the one in question.
    fn epoch(&self, input: &mut Input<'_>) -> u64 {
        match input.byte() {
            0..32 => input.number(),
            near => self.hello.as_ref().map_or(0, |h| h.epoch).saturating_add(u64::from(near % 4)),
        }
    }

    /// A stamp that may be near one that the device has.
    fn stamp(&self, input: &mut Input<'_>) -> Stamp {
        let own = self.hello.as_ref();
        match input.byte() % 8 {
            0 => Stamp {
                epoch: input.number(),
                time: input.number(),
                sequence: input.number() as u32,
            },
            1 => own.map_or(Stamp::ZERO, |h| h.hi),
            2 => own.map_or(Stamp::ZERO, |h| h.newest),
            3 => Stamp::ZERO,
            _ => Stamp { epoch: self.epoch(input), time: input.below(1 << 12), sequence: 0 },
        }
    }

    /// A round: mostly the one that the device was in at its hello, or one of the next.
    fn round(&self, input: &mut Input<'_>) -> Round {
        let own = self.hello.as_ref().map_or(Round::default(), |hello| hello.round);
        match input.byte() % 16 {
            0 => Round { generation: input.number() >> 1, counter: input.number() >> 1 },
            n => Round { counter: own.counter + u64::from(n % 4), ..own },
        }
    }

    /// A frame of the ladder.
    fn say_ladder(&self, input: &mut Input<'_>) {
        let own = self.hello.as_ref().map_or(0, |hello| hello.lineage.0);
        let generation = if input.byte() == 0 { input.number() >> 1 } else { own };
        let nonce = if input.byte().is_multiple_of(8) { input.number() } else { self.asked };
        let number = if input.byte().is_multiple_of(2) { 0 } else { input.number() >> 1 };
        let (round, told) = (self.round(input), number);
        let (cut, blocks) = (self.stamp(input), runs(input));
        let data;
        let (lane, frame) = match input.byte() % 13 {
            0 => {
                let modes = [Mode::Collecting, Mode::Sending, Mode::Copying, Mode::Ordered];
                let (mode, clk) = (modes[input.below(4) as usize], self.stamp(input));
                (Lane::Control, Ladder::Open { round, mode, generation, cut, clk, told })
            }
            1 => {
                let (is_consistent, piece) = (input.byte().is_multiple_of(2), piece(input));
                (Lane::Control, Ladder::Opened { round, cut, told, is_consistent, piece })
            }
            2 => {
                let (grant, later) = (self.epoch(input), input.byte().is_multiple_of(2));
                let piece = piece(input);
                let granted =
                    Ladder::GrantTable { nonce, grant, round, generation, later, told, piece };
                (Lane::Control, granted)
            }
            3 => (Lane::Control, Ladder::Returned { nonce, piece: piece(input) }),
            4 | 5 => {
                let (copies, mut bytes) = copies(input, &blocks);
                bytes.truncate(bytes.len() - input.below(2).min(bytes.len() as u64) as usize);
                data = bytes;
                (Lane::Data, Ladder::Copy { round, said: told, copies, data: &data })
            }
            6 => {
                let zeros = content_checksum(&[0; BLOCK]);
                let of = |run: &Blocks| run.numbers.clone().take(64);
                let sums = blocks.iter().flat_map(of).map(|n| zeros + u128::from(n % 2)).collect();
                (Lane::Data, Ladder::Sums { round, said: told, blocks, sums })
            }
            7 => (Lane::Control, Ladder::Differs { round, blocks }),
            8 => (Lane::Control, Ladder::CopyAck { round, blocks }),
            9 => (Lane::Data, Ladder::End { round, generation, consistent_at: cut }),
            10 => (Lane::Control, Ladder::EndAck { round }),
            11 => (Lane::Data, Ladder::Level { round }),
            _ => (Lane::Control, Ladder::Told { round, number, blocks }),
        };
        self.say(lane, &Frame::Ladder(frame));
    }

    /// A hello of a fenced peer that has what the device has, with some fields changed.
    fn say_hello(&mut self, input: &mut Input<'_>) {
        let Some(own) = self.hello.clone() else { return };
        let (hi, newest) = (own.newest, own.hi);
        let mut lie = Hello { device: 2, nonce: self.nonce, asking: false, hi, newest, ..own };
        lie.fenced = !lie.fenced;
        lie.clk = Stamp::ZERO;
        for _ in 0..input.below(4) {
            match input.byte() % 16 {
                0 => lie.group = u128::from(input.number()),
                1 => lie.device = input.number(),
                2 => lie.nonce = input.number(),
                3 => lie.lineage.0 = input.number(),
                4 => lie.mode = Mode::Collecting,
                5 => lie.usable = !lie.usable,
                6 => lie.fenced = !lie.fenced,
                7 => lie.asking = !lie.asking,
                8 => lie.epoch = self.epoch(input),
                9 => lie.hi = self.stamp(input),
                10 => lie.clk = self.stamp(input),
                11 => lie.newest = self.stamp(input),
                12 => lie.credit = input.number(),
                13 => lie.block_size = input.number() as u32,
                14 => drop(lie.volumes.pop()),
                _ => lie.nonce = lie.nonce.wrapping_add(1),
            }
        }
        self.nonce = lie.nonce;
        self.say(Lane::Control, &Frame::Hello(lie));
    }

    /// A row, mostly with the checksum of `data`.
    fn row(&self, input: &mut Input<'_>, data: &[u8]) -> Row {
        let has_data = !data.is_empty();
        let checksum = if input.byte() == 0 { input.number() } else { data_checksum(data) };
        let Extent { first, level } = if has_data { block(input).into() } else { extent(input) };
        Row {
            stamp: self.stamp(input),
            block: first,
            level,
            index: 0,
            count: 1,
            checksum: if has_data { checksum } else { 0 },
            has_data,
        }
    }

    fn answer(&self, input: &mut Input<'_>) {
        let mut data = Vec::new();
        let (id, asked) = self.question;
        let rows = (0..input.below(5)).map(|at| {
            let content = [input.byte(); BLOCK];
            let bytes = if content[0].is_multiple_of(2) { &content[..] } else { &[] };
            let mut row = self.row(input, bytes);
            if !input.byte().is_multiple_of(8) {
                row.block = Block { number: asked.number + at, ..asked };
            }
            let is_pending = !input.byte().is_multiple_of(4);
            data.extend_from_slice(if is_pending { bytes } else { &[] });
            is_pending.then_some(row)
        });
        let rows = rows.collect();
        let id = if input.byte().is_multiple_of(8) { input.number() } else { id };
        data.truncate(data.len() - input.below(2).min(data.len() as u64) as usize);
        self.say(Lane::Control, &Frame::ReadReply { id, rows, data: &data });
    }

    fn ship(&self, input: &mut Input<'_>) {
        let mut data = Vec::new();
        let records = (0..input.below(5)).map(|_| {
            let content = [input.byte(); BLOCK];
            let bytes = if content[0].is_multiple_of(2) { &content[..] } else { &[] };
            data.extend_from_slice(bytes);
            let row = self.row(input, bytes);
            let remaining = input.byte().is_multiple_of(2).then(|| self.stamp(input));
            Shipped { row, remaining, total_remaining: input.byte().is_multiple_of(2) }
        });
        let records = records.collect();
        let previous = self.stamp(input);
        let granted = if input.byte().is_multiple_of(2) { 0 } else { self.epoch(input) };
        let lane = if input.byte() == 0 { Lane::Control } else { Lane::Data };
        self.say(
            lane,
            &Frame::Ship { round: Round::default(), previous, granted, records, data: &data },
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        super::super::over_seeds("peer", super::peer);
    }

    /// The bytes that lie least: the device takes the peer for its own.
    #[test]
    fn a_true_hello_connects() {
        for (seed, serving) in [([0, 9, 0], true), ([1, 9, 0], false)] {
            let status = super::talk(&seed);
            assert!(status.connected && status.serving == serving, "{status:?}");
        }
    }

    /// The seeds and the seeded bytes lead a device out of order, too.
    #[test]
    fn a_true_open_is_followed() {
        // Fenced, a true hello, an open of the next round in the collecting mode.
        let mut open = vec![1, 9, 0, 0, 0, 0, 209, 1, 1, 0, 1, 3];
        open.extend([1; 11]);
        open.extend([0, 0, 3]);
        let status = super::talk(&open);
        assert!(status.connected && status.mode == crate::unit::Mode::Collecting, "{status:?}");
    }

    #[test]
    fn seeded() {
        super::super::over_seeded_bytes(1000, 400, super::peer);
    }
}
