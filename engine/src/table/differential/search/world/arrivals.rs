//! Messages that arrive, and their effect.

use super::*;

impl World {
    pub(super) fn fence(&mut self, d: usize, request: Request, m: &Bits, nonce: u8) {
        let dev = &mut self.dev[d];
        dev.fenced = true;
        let mut prototype = [0; 3];
        dev.r.iter().for_each(|&(w, block)| prototype[block] = w);
        let ordered = dev.ordered();
        let work = dev.m.grant(request, m, ordered);
        self.answer(d, work, (prototype, nonce));
        if self.active == Some(d) {
            // Its request was withdrawn; it asks before the next write.
            (self.active, self.asks, self.reading) = (None, Some(d), None);
            self.ask();
        }
    }

    pub(super) fn granted(
        &mut self,
        y: usize,
        grant: Grant,
        table: Bits,
        prototype: Image,
    ) -> Held {
        let epoch = self.next_epoch();
        let dev = &mut self.dev[y];
        let (mode, ordered) = (dev.m.mode(), dev.ordered());
        let taken = dev.m.take(grant, table, epoch, ordered);
        if taken == Taken::AskAgain {
            self.ask();
            return Ok(());
        }
        dev.fenced = false;
        (self.active, self.asks) = (Some(y), None);
        match taken {
            Taken::Table(work) => self.work(y, work),
            _ if mode != Mode::Ordered => return Err("P7 a prototype, not in ordered mode".into()),
            _ => {
                dev.pend = prototype.map(|w| if w > dev.hi { w } else { 0 });
                let still = if dev.hi < dev.need { dev.need } else { 0 };
                dev.need = dev.pend.into_iter().fold(still, u8::max);
                dev.store(); // the tenure, by the rules of ordered mode
            }
        }
        Ok(())
    }

    pub(super) fn next_epoch(&self) -> u64 {
        1 + self.dev.iter().map(|dev| dev.m.last_active).max().expect("there are two")
    }

    pub(super) fn shipped(&mut self, y: usize, w: u8, block: usize) {
        let dev = &mut self.dev[y];
        if w > dev.hi {
            dev.hi = w;
            if dev.m.mode() == Mode::Ordered {
                let (older, newer) = dev.l.iter().partition(|&&(own, _)| own <= w);
                dev.l = older;
                dev.reflect_all();
                dev.l = newer;
                dev.pend = dev.pend.map(|pend| if pend <= w { 0 } else { pend });
            }
            dev.n[block] = w;
            if dev.own[block] < w {
                dev.own[block] = 0; // the logs are replayed in stamp order
            }
        }
        let ack = Sent::Ack(dev.m.round(), dev.hi);
        self.send(1 - y, ack);
    }

    pub(super) fn copied(
        &mut self,
        y: usize,
        (round, said): (Round, u64),
        blocks: Blocks,
        contents: Vec<u8>,
    ) {
        let dev = &mut self.dev[y];
        let Some(wanted) = dev.m.wants(dev.side(), round, &blocks) else { return };
        let first = numbers(&blocks).next().expect("not empty");
        let writes = wanted.iter().flat_map(numbers).map(|b| (contents[b - first], b)).collect();
        if !wanted.is_empty() {
            let work = dev.m.marks_before(dev.side(), round);
            self.work(y, work);
        }
        self.dev[y].landing = Some(Landing { round, said, blocks, writes });
        if !self.options.slow {
            self.landed(y);
        }
    }

    /// Checksums have come: each block that N has is a copy that arrives, and the others are asked for.
    pub(super) fn summed(
        &mut self,
        y: usize,
        (mut round, said): (Round, u64),
        blocks: Blocks,
        contents: Vec<u8>,
    ) {
        let dev = &mut self.dev[y];
        if !holds(Clause::SumsOfRound) {
            round = dev.m.round();
        }
        let Some(wanted) = dev.m.wants(dev.side(), round, &blocks) else { return };
        let first = numbers(&blocks).next().expect("not empty");
        let differ = wanted.iter().flat_map(numbers).filter(|&b| dev.n[b] != contents[b - first]);
        let differing: Bits = differ.map(one).collect();
        for equal in differing.missing(&blocks).runs() {
            self.dev[y].landing = Some(Landing { round, said, blocks: equal, writes: Vec::new() });
            self.landed(y);
        }
        if !differing.is_empty() {
            self.send(1 - y, Sent::Differs(round, differing));
        }
    }

    /// The copy is in N, and then what was written meanwhile.
    pub(super) fn landed(&mut self, y: usize) {
        let dev = &mut self.dev[y];
        dev.put();
        let Landing { round, said, blocks, .. } =
            dev.landing.take().expect("a copy is on its way to N");
        if let Some(arrival) = dev.m.arrive(dev.side(), round, said, &blocks) {
            let stored = if dev.fenced { &arrival.written[..] } else { &[] };
            stored.iter().for_each(|run| drop(dev.stored.remove(run)));
            self.work(y, arrival.work);
            self.send(1 - y, Sent::CopyAck(round, blocks));
        }
        let dev = &mut self.dev[y];
        if dev.m.mode() != Mode::Ordered {
            dev.reflect_all();
        }
    }

    pub(super) fn receive(&mut self, y: usize, sent: Sent) -> Held {
        let dev = &mut self.dev[y];
        let (mode, side) = (dev.m.mode(), dev.side());
        match sent {
            Sent::Ship(round, w, block) => {
                if dev.m.is_of(round) && matches!(mode, Mode::Ordered | Mode::Copying) {
                    self.shipped(y, w, block);
                }
            }
            Sent::Ack(round, hi) if dev.m.is_of(round) || !holds(Clause::RoundCounts) => {
                let before = dev.r.len();
                dev.r.retain(|&(w, _)| w > hi);
                dev.sent = dev.sent.saturating_sub(before - dev.r.len());
                dev.acked = dev.acked.max(hi);
            }
            Sent::Ack(..) => {}
            Sent::Copy(round, said, blocks, contents) => {
                self.copied(y, (round, said), blocks, contents);
            }
            Sent::Sum(round, said, blocks, contents) => {
                self.summed(y, (round, said), blocks, contents);
            }
            Sent::Differs(round, blocks) => {
                blocks.runs().for_each(|run| dev.m.differ(round, &run));
            }
            Sent::Told(announcement) => dev.m.hear_told(&announcement, 9),
            Sent::CopyAck(round, blocks) => {
                for run in dev.m.copied(round, &blocks).runs() {
                    dev.stored.remove(&run);
                }
            }
            Sent::Ask(round, block) => {
                let of_r = || dev.r.iter().filter(|r| r.1 == block).map(|r| r.0).max();
                let newest = match mode {
                    _ if !dev.fenced || !dev.m.is_of(round) => None,
                    Mode::Ordered => of_r(),
                    _ => Some(dev.newest(block)),
                };
                self.send(1 - y, Sent::Answer(round, block, newest));
            }
            Sent::Answer(round, block, newest) => {
                let asked = |r: &&mut Reading| r.is_asked && r.block == block;
                let reading =
                    self.reading.as_mut().filter(|_| self.active == Some(y)).filter(asked);
                match (reading, newest) {
                    (None, _) => {}
                    (Some(_), Some(w)) if dev.m.is_of(round) => return self.got(w),
                    (Some(reading), _) => reading.is_asked = false,
                }
            }
            Sent::Request(request, m, nonce) => self.fence(y, request, &m, nonce),
            Sent::Opened(opened, piece) => {
                if let Some(work) = dev.m.hear_opened(side, opened, &piece) {
                    self.work(y, work);
                }
            }
            Sent::Said(Message::Grant(grant), table, (prototype, nonce)) => {
                if self.asks == Some(y) && nonce == self.left.withdrawals {
                    return self.granted(y, grant, table, prototype);
                }
            }
            Sent::Said(message, ..) => self.said(y, side, message),
        }
        Ok(())
    }

    pub(super) fn said(&mut self, y: usize, side: Side, message: Message) {
        let dev = &mut self.dev[y];
        let work = match message {
            Message::Open { round, mode, generation, cut, told } => {
                let (image, was_consistent) = (dev.n, dev.is_consistent());
                let ordered = dev.ordered();
                let work = dev.m.hear_open(side, (round, mode), generation, (cut, told), ordered);
                let ends = self.options.side && was_consistent && !dev.is_consistent();
                if ends && mode != Mode::Collecting {
                    dev.side = Some(image);
                }
                work
            }
            Message::End { round, generation, consistent_at } => {
                dev.m.hear_end(side, round, generation, consistent_at, stamp(dev.hi))
            }
            Message::EndAck { round } => dev.m.hear_end_ack(side, round),
            Message::Level { round } => dev.m.hear_level(side, round),
            Message::Opened(_) | Message::Grant(_) => None,
        };
        if let Some(work) = work {
            self.work(y, work);
            if matches!(message, Message::Open { .. }) {
                self.dev[y].m.said_opened();
            }
        }
    }
}
