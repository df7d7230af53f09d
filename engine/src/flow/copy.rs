//! Copies (S900–S906): blocks with a bit go to the other device, behind the shipped records in the data
//! lane, and come back as acknowledgements (D2, D5, D6).
//!
//! A copy is written to N at once, and no reflection goes on meanwhile: an own write that takes a block out
//! of what the peer owes goes over the copy, never the other way round.

use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{Copied, FRAME_DATA_MAX, Frame, Ladder, RUNS_MAX, TablePiece};
use crate::format::{content_checksum, data_checksum};
use crate::link::{Lane, Link};
use crate::salvage::Incoming;
use crate::storage::Storage;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::table::bits::Bits;
use crate::unit::{Block, Blocks, Extent, Round};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

/// The acknowledgements of one step.
#[derive(Default)]
pub(crate) struct Arrived {
    round: Round,
    blocks: Bits,
    /// Blocks whose checksums came, and whose content is another here.
    differing: Bits,
}

impl Arrived {
    /// How many blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.blocks() as usize
    }

    fn is_of(&mut self, round: Round) {
        if self.round != round {
            *self = Arrived { round, ..Arrived::default() };
        }
    }

    /// These blocks are to be copied in `round`.
    pub fn ask_for(&mut self, round: Round, differing: &Bits) {
        self.is_of(round);
        self.differing.add(differing);
    }
}

/// The content of one step's frames.
#[derive(Default)]
struct Load {
    copies: Vec<Copied>,
    data: Vec<u8>,
    sums: BTreeMap<Block, u128>,
    /// All of it is durable here.
    is_durable: bool,
}

impl Load {
    fn frames(&self, round: Round, said: u64) -> impl Iterator<Item = Ladder<'_>> {
        let copies = (!self.copies.is_empty()).then(|| {
            let copies = self.copies.clone();
            Ladder::Copy { round, said, copies, data: &self.data }
        });
        let sums = (!self.sums.is_empty()).then(|| {
            let blocks: Bits = self.sums.keys().map(|&block| Extent::from(block).into()).collect();
            let (blocks, sums) = (blocks.runs().collect(), self.sums.values().copied().collect());
            Ladder::Sums { round, said, blocks, sums }
        });
        copies.into_iter().chain(sums)
    }
}

/// How fast copies are sent.
#[derive(Debug)]
pub(crate) struct CopyRate {
    /// Bytes of data a second; 0: as fast as the line takes them. Relaxed.
    bytes_per_second: AtomicU64,
    /// When the next may be sent, on the monotonic clock, in nanoseconds. Relaxed.
    next_at: AtomicU64,
    /// Bytes of data that were sent. Relaxed.
    sent: AtomicU64,
}

impl CopyRate {
    pub fn new(bytes_per_second: u64) -> CopyRate {
        let bytes_per_second = AtomicU64::new(bytes_per_second);
        CopyRate { bytes_per_second, next_at: AtomicU64::new(0), sent: AtomicU64::new(0) }
    }

    /// Bytes of data that were sent in copies.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Most bytes of data to be sent at once, so that a slow rate is an even one.
    fn at_once(&self) -> u64 {
        match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => u64::MAX,
            rate => rate / 10,
        }
    }

    fn sent(&self, bytes: usize, now: u64) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate > 0 {
            let takes = bytes as u128 * 1_000_000_000 / u128::from(rate);
            let takes = u64::try_from(takes).unwrap_or(u64::MAX);
            // A time without copies is not made up for.
            let from = self.next_at.load(Ordering::Relaxed).max(now.saturating_sub(takes));
            self.next_at.store(from.saturating_add(takes), Ordering::Relaxed);
        }
    }
}

/// The content that comes with `copies`, of blocks of `size` bytes; `data` has a block for each with data.
fn incoming<'a>(
    copies: &'a [Copied],
    data: &'a [u8],
    size: usize,
) -> impl Iterator<Item = (Blocks, Incoming<'a>)> {
    let mut data = data.chunks_exact(size);
    copies.iter().map(move |copied| {
        let content = copied.has_data.then(|| data.next()).flatten();
        (copied.blocks(), content.map_or(Incoming::Zeros, Incoming::Data))
    })
}

/// Adds a copy of blocks of zeros to `copies`.
fn add_zeros(copies: &mut Vec<Copied>, blocks: &Blocks) {
    let (block, count) = (blocks.first(), blocks.count());
    match copies.last_mut() {
        Some(last) if !last.has_data && last.blocks().range().end == block => last.count += count,
        _ => copies.push(Copied { block, count, has_data: false, checksum: 0 }),
    }
}

impl Device {
    /// Sends copies of blocks no faster than `bytes_per_second` from now on, in place of
    /// [`crate::Settings::copy_bytes_per_second`]; 0: as fast as the line takes them. It is the rate of the
    /// device that sends. Hosts' reads of blocks that the peer owes are answered first, and do not count.
    pub fn set_copy_rate(&self, bytes_per_second: u64) {
        let rate = &self.peer.copy_rate;
        rate.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
        rate.next_at.store(self.clock.monotonic(), Ordering::Relaxed);
        self.wakes.ship.ring();
    }

    /// Sends the next copies (S900), if there are any to send now and the window has room; returns how many
    /// blocks. They go round all addresses, `next` being the first that comes now: so blocks that hosts write
    /// all the time do not keep others waiting.
    pub(crate) fn send_copies(&self, next: &mut Block) -> Result<usize> {
        let size = u64::from(self.geometry.block_size);
        let Some((wire, session, link)) = self.ladder_line() else { return Ok(0) };
        let (rate, now) = (&self.peer.copy_rate, self.clock.monotonic());
        let is_due = self.copy_deadline().is_some_and(|at| at <= now);
        if link.queued(Lane::Data) > self.settings.link_queue_bytes_max || !is_due {
            return Ok(0);
        }
        let shared = &self.peer.machine;
        let window = (self.settings.copy_bytes_max / size).max(1);
        if shared.read().flying().blocks() >= window {
            return Ok(0);
        }
        // Bits of writes that a copy will have are set first, and cleared with it: else it is sent twice.
        self.sync_own()?;
        self.sequence(&mut lock(&self.tables));
        let side = self.side();
        let most = self.settings.ship_bytes_max.min(FRAME_DATA_MAX).min(rate.at_once());
        let most = (most / size).max(1);
        let has_sums = self.agrees_on_sums();
        let mut by_sum = Bits::default();
        let (round, said, runs) = {
            let mut machine = shared.write();
            if shared.is_draining(&machine) {
                return Ok(0);
            }
            let mut left = most.min(window.saturating_sub(machine.flying().blocks()));
            let (mut runs, mut said) = (Vec::new(), 0);
            let mut is_again = false;
            while left > 0 {
                let Some(run) = machine.next_to_send(side, *next, left) else {
                    if std::mem::replace(&mut is_again, true) {
                        break;
                    }
                    *next = TablePiece::FIRST;
                    continue;
                };
                // Before the blocks are read: a write that comes in between sets its bit again.
                said = machine.send(&run);
                if has_sums {
                    by_sum.add(&shared.alike().take(&run).into_iter().collect());
                }
                left -= run.count();
                *next = run.range().end;
                runs.push(run);
            }
            (machine.round(), said, runs)
        };
        if runs.is_empty() {
            return Ok(0);
        }
        let load = self.load(&runs, &by_sum)?;
        rate.sent(load.data.len() + load.sums.len() * size_of::<u128>(), now);
        // Only content that is durable here is copied (D11).
        if !load.is_durable {
            self.sync_own()?;
        }
        for frame in load.frames(round, said) {
            let frame = Frame::Ladder(frame).encode_in(wire, session);
            if let Err(error) = link.send(Lane::Data, frame) {
                self.disconnected(&error, &link);
                break;
            }
        }
        Ok(runs.iter().map(Blocks::count).sum::<u64>() as usize)
    }

    /// Reads `runs`; of the blocks `by_sum` the checksums go.
    fn load(&self, runs: &[Blocks], by_sum: &Bits) -> Result<Load> {
        let size = self.geometry.block_size as usize;
        let queue = &self.own.journal.queue;
        let mut load = Load { is_durable: true, ..Load::default() };
        let Load { copies, data, sums, is_durable } = &mut load;
        for run in runs {
            if self.is_never_written(run) {
                add_zeros(copies, run);
                continue;
            }
            for block in run.each() {
                let at = data.len();
                data.resize(at + size, 0);
                self.fetch_newest(block, &mut data[at..])?;
                let newest = queue.newest(block).0;
                *is_durable &= newest.is_none_or(|record| queue.is_durable(record.position));
                if data[at..].iter().all(|&byte| byte == 0) {
                    data.truncate(at);
                    add_zeros(copies, &Extent::from(block).into());
                } else if by_sum.contains(block) {
                    sums.insert(block, content_checksum(&data[at..]));
                    data.truncate(at);
                } else {
                    let checksum = data_checksum(&data[at..]);
                    copies.push(Copied { block, count: 1, has_data: true, checksum });
                }
            }
        }
        Ok(load)
    }

    /// Whether these blocks lie where nothing is stored, and no record of them is live: they read as zeros,
    /// and need not be read. A record is in N before it leaves its queue.
    fn is_never_written(&self, blocks: &Blocks) -> bool {
        let (first, count) = (blocks.first(), blocks.count());
        let queues = [&self.own.journal.queue, &self.peer.recv.journal.queue];
        !queues.iter().any(|queue| queue.may_have(first, count))
            && self.volumes.read_as_zeros(first, count)
    }

    /// Copies have come (S903): the blocks that are wanted are written to N. The caller holds `reflecting`, and sees
    /// to it that no mode comes or goes meanwhile.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if they cannot be, [`Kind::Halted`].
    pub(crate) fn receive_copies(
        &self,
        arrived: &mut Arrived,
        (round, said): (Round, u64),
        copies: &[Copied],
        data: &[u8],
    ) -> Result<()> {
        self.check_copies(copies, data)?;
        let size = self.geometry.block_size as usize;
        self.save_given_up(incoming(copies, data, size))?;
        let side = self.side();
        self.end_image()?;
        self.write_back_image()?;
        self.mark_first()?;
        let mut data = data.chunks_exact(size);
        let shared = &self.peer.machine;
        let mut buffer: Vec<&[u8]> = Vec::new();
        let mut runs = copies.iter().peekable();
        while let Some(copied) = runs.next() {
            let mut blocks = copied.blocks();
            buffer.clear();
            if copied.has_data {
                buffer.push(data.next().expect("it was checked"));
                while let Some(next) =
                    runs.next_if(|next| next.has_data && next.block == blocks.range().end)
                {
                    blocks.numbers.end += next.count;
                    buffer.push(data.next().expect("it was checked"));
                }
            }
            let Some(wanted) = shared.read().wants(side, round, &blocks) else { return Ok(()) };
            if !wanted.is_empty() && shared.write().marks_before(side, round).mark {
                self.begin_image()?;
                self.mark()?;
            }
            self.save_before(wanted.iter().cloned()).map_err(|e| self.halt(e))?;
            for run in &wanted {
                self.write_copy(run, blocks.numbers.start, &buffer).map_err(|e| self.halt(e))?;
            }
            self.copy_arrived(arrived, (round, said), &blocks)?;
        }
        Ok(())
    }

    /// A copy of `blocks` is in N, as far as it is wanted: what is done before the acknowledgement. The caller
    /// holds the locks under which it was written.
    pub(super) fn copy_arrived(
        &self,
        arrived: &mut Arrived,
        (round, said): (Round, u64),
        blocks: &Blocks,
    ) -> Result<()> {
        let (arrival, was_owed) = {
            let shared = &self.peer.machine;
            let mut machine = shared.write();
            let was_owed = !machine.owed().is_empty();
            let arrival = machine.arrive(self.side(), round, said, blocks);
            shared.settle(&machine);
            shared.change(&machine);
            (arrival, was_owed && machine.owed().is_empty())
        };
        if arrival.is_some_and(|arrival| arrival.work.sync) {
            self.sync_own()?;
        }
        arrived.is_of(round);
        arrived.blocks.insert(blocks.clone());
        self.note_left();
        if was_owed {
            // The next round may be opened.
            self.wakes.ship.ring();
            self.tell(Event::CaughtUp);
        }
        Ok(())
    }

    /// The content of the blocks of every copy that has come is saved where it is to be, with one sync for all: in
    /// the last consistent image, and at a device that returned (D10).
    ///
    /// The caller does not hold `landing`, so that no takeover waits for the syncs. The round may change meanwhile:
    /// each copy is looked at again as it is taken in, and what was saved for one that is dropped then is the
    /// content that the block had.
    pub(crate) fn save_before_frames(&self, frames: &[Vec<u8>]) -> Result<()> {
        let (keeps_image, saves) = (self.image.is_kept(), self.peer.saving.is_due());
        if !keeps_image && !saves {
            return Ok(());
        }
        let (mut all, mut theirs) = (Vec::new(), Vec::new());
        for frame in frames {
            // A frame that must not come is found by who takes it in.
            let Ok((_, Frame::Ladder(Ladder::Copy { round, copies, data, .. }))) =
                Frame::decode(frame)
            else {
                continue;
            };
            let mut is_of_round = false;
            for blocks in copies.iter().map(Copied::blocks) {
                if blocks.numbers.end <= self.volumes.blocks(blocks.volume) {
                    let wanted = self.peer.machine.read().wants(self.side(), round, &blocks);
                    is_of_round |= wanted.is_some();
                    all.extend(wanted.unwrap_or_default());
                }
            }
            if saves && is_of_round && self.check_copies(&copies, data).is_ok() {
                theirs.push((copies, data));
            }
        }
        let size = self.geometry.block_size as usize;
        self.save_given_up(theirs.iter().flat_map(|(copies, data)| incoming(copies, data, size)))?;
        if !keeps_image || all.is_empty() {
            return Ok(());
        }
        let _still = self.begin_step(&self.reflecting)?;
        self.save_before(all.into_iter()).map_err(|e| self.halt(e))
    }

    /// At a device that returned, the content that differs from the one that comes is saved first (D10).
    fn save_given_up<'a>(
        &self,
        changes: impl Iterator<Item = (Blocks, Incoming<'a>)>,
    ) -> Result<()> {
        let with = (&*self.storage as &dyn Storage, &self.volumes, self.clock.wall());
        self.peer.saving.before(with, changes).map_err(|error| match error.kind() {
            Kind::Protocol => {
                let stops = "the resync stops before it overwrites what this device alone has";
                self.note_salvage_full(error, stops)
            }
            _ => error,
        })
    }

    /// Content that is, or was to be, overwritten has no room in salvage: `doing` says what comes of it.
    pub(super) fn note_salvage_full(&self, error: Error, doing: &str) -> Error {
        let kind = error.kind();
        let error = error.because(kind, doing);
        if self.peer.saving.note_full(&error) {
            self.tell(Event::SalvageFull(error.clone()));
        }
        error
    }

    /// Whether these are copies of blocks of this group, undamaged.
    fn check_copies(&self, copies: &[Copied], data: &[u8]) -> Result<()> {
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let size = self.geometry.block_size as usize;
        let with_data = copies.iter().filter(|copied| copied.has_data).count();
        if with_data * size != data.len() {
            return broken(format!(
                "the peer sends copies of {with_data} blocks with {} bytes of data, where blocks have {size}",
                data.len()
            ));
        }
        let mut data = data.chunks_exact(size);
        for copied in copies {
            let blocks = copied.blocks();
            if blocks.numbers.end > self.volumes.blocks(blocks.volume) {
                return broken(format!(
                    "the peer sends a copy of {} blocks from {} on, which no volume has",
                    copied.count, copied.block
                ));
            }
            let is_whole = !copied.has_data
                || data.next().is_some_and(|data| data_checksum(data) == copied.checksum);
            if !is_whole {
                return broken(format!(
                    "the copy of block {} was damaged on the line",
                    copied.block
                ));
            }
        }
        Ok(())
    }

    /// Writes the blocks of `run`, whose data stands in `data` from block `first` on, or zeros.
    fn write_copy(&self, run: &Blocks, first: u64, data: &[&[u8]]) -> Result<()> {
        let size = u64::from(self.geometry.block_size);
        let mut block = run.first();
        while block.number < run.numbers.end {
            let room = (self.volumes.bytes_to_segment_end(block) / size).max(1);
            let count = room.min(run.numbers.end - block.number);
            if data.is_empty() {
                self.volumes.zero(block, count)?;
            } else {
                let at = (block.number - first) as usize;
                let slices: Vec<_> =
                    data[at..at + count as usize].iter().map(|data| IoSlice::new(data)).collect();
                self.volumes.write(block, &slices)?;
            }
            block.number += count;
        }
        Ok(())
    }

    /// The copies that have arrived are made durable in N, and then acknowledged (S904, D11).
    ///
    /// In the connection in which it came: in a later one it would be taken for a later copy's.
    pub(crate) fn acknowledge_copies(
        &self,
        arrived: Arrived,
        line: Option<(u16, u64, Arc<dyn Link>)>,
    ) -> Result<()> {
        let Arrived { round, blocks, differing } = arrived;
        if !blocks.is_empty() {
            self.volumes.sync().map_err(|e| self.halt(e))?;
        }
        let Some((wire, session, link)) = line else { return Ok(()) };
        let pieces = |of: &Bits| {
            let runs: Vec<Blocks> = of.runs().collect();
            runs.chunks(RUNS_MAX).map(<[Blocks]>::to_vec).collect::<Vec<_>>()
        };
        let acks = pieces(&blocks).into_iter().map(|blocks| Ladder::CopyAck { round, blocks });
        let asks = pieces(&differing).into_iter().map(|blocks| Ladder::Differs { round, blocks });
        for frame in acks.chain(asks) {
            let frame = Frame::Ladder(frame).encode_in(wire, session);
            if let Err(error) = link.send(Lane::Control, frame) {
                // They are sent again in the next connection.
                self.disconnected(&error, &link);
                break;
            }
        }
        Ok(())
    }

    /// The peer has these copies, durably (S905).
    pub(crate) fn receive_copy_ack(&self, round: Round, blocks: &[Blocks]) {
        {
            let mut machine = self.peer.machine.write();
            for blocks in blocks {
                machine.copied(round, blocks);
            }
            self.peer.machine.change(&machine);
        }
        self.wakes.ship.ring();
    }

    /// When the next copies can be sent, on the monotonic clock, if the line takes them; `None` if there are
    /// none.
    pub(crate) fn copy_deadline(&self) -> Option<u64> {
        let side = self.side();
        let has_copies =
            self.peer.machine.read().next_to_send(side, TablePiece::FIRST, 1).is_some();
        has_copies.then(|| self.peer.copy_rate.next_at.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::clock::{Clock, SystemClock};
    use crate::device::Device;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Line, memory_link};
    use crate::storage::Memory;
    use std::sync::Arc;

    /// A host that writes one block all the time does not keep the others from being copied.
    #[test]
    fn copies_go_round_all_addresses() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let [a, b] = [1, 2].map(|id| {
            let storage = Arc::new(Memory::new());
            let geometry = Geometry {
                journal_bytes: 16 << 20,
                differential: true,
                ..Geometry::new(7, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }])
            };
            Device::create(&*storage, &geometry, id == 1).unwrap();
            let settings = Settings { copy_bytes_max: 4096, ..Settings::default() };
            Device::open(storage, clock.clone(), settings).unwrap()
        });
        let (end_a, end_b) = memory_link(Line::default(), clock);
        a.connect(Arc::new(end_a)).unwrap();
        b.connect(Arc::new(end_b)).unwrap();
        let steps = || {
            for device in [&a, &b, &a, &b] {
                device.step_reflect().unwrap();
                device.step_checkpoint().unwrap();
                while device.step_ladder().unwrap() || device.step_control().unwrap() {}
            }
        };
        steps();
        let host = a.session().unwrap();
        let write = |block: u64| {
            host.write(0, block * 4096, &[7; 4096]).unwrap();
        };
        (0..8).for_each(write);
        for _ in 0..8 {
            write(0);
            a.step_commit().unwrap();
            a.step_sequence();
            assert_eq!(a.step_ship().unwrap(), 1);
            b.step_receive().unwrap();
            steps();
        }
        assert!(a.status().differential.table_blocks <= 1);
    }
}
