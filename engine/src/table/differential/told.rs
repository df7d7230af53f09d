//! Section 6, told: each device announces its bits as they come, from the start of each round. A takeover
//! then hands over little, and a forced one knows what has not arrived.
//!
//! Announcements have rising numbers: the time of each, or one more than the last. A copy carries the last
//! number of when its bits were cleared.

use super::takeover::Request;
use super::{Differential, Mode, Round, Stage};
use crate::format::frame::TablePiece;
use crate::format::told_bits::ToldBits;
use crate::table::announced::Announced;
use crate::table::bits::{Bits, Blocks};
use crate::unit::Block;
use crate::weaken::{Clause, holds};

/// Most copies that are remembered until the announcements that they overtook are here: a device that
/// remembers no more is told of blocks that it has, until the round ends.
const AHEAD_MAX: usize = 1 << 16;

/// The announcements made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Telling {
    /// No announcement has told of the blocks of T from here on.
    next: Block,
    /// Those before it that none has told of, as they got their bits later.
    behind: Bits,
    /// The last announcement of the round; 0 if none.
    pub said: u64,
}

impl Telling {
    /// `blocks` get bits.
    pub fn add(&mut self, blocks: &Blocks) {
        let Block { volume, number } = self.next;
        if blocks.first() < self.next {
            let end = if blocks.volume == volume { number } else { u64::MAX };
            let numbers = blocks.numbers.start..blocks.numbers.end.min(end);
            self.behind.insert(Blocks { numbers, ..*blocks });
        }
    }

    /// `blocks` have no bits any more.
    pub fn remove(&mut self, blocks: &Blocks) {
        self.behind.remove(blocks);
    }
}

impl Default for Telling {
    /// Nothing was announced.
    fn default() -> Telling {
        Telling { next: TablePiece::FIRST, behind: Bits::default(), said: 0 }
    }
}

/// The announcements heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Told {
    /// The last announcement of the round; 0 if none, or if not all up to it are kept.
    pub heard: u64,
    /// The round's, less what has arrived since.
    pub runs: Announced,
    /// The blocks of `runs`: a takeover is owed them, and does not wait until they are gathered.
    pub blocks: Bits,
    /// Copies that overtook the announcements of their blocks, and the last of these.
    ahead: (Announced, u64),
    /// The same of earlier rounds, and of grants.
    pub earlier: Announced,
    /// Announcements of this round are not kept any more: they take too much room.
    is_full: bool,
}

impl Told {
    /// Copies of `blocks` are here, which carry `said`.
    pub fn arrived(&mut self, blocks: &Blocks, said: u64) {
        let upto = if holds(Clause::CopyNumber) { said } else { u64::MAX };
        self.remove(blocks, upto);
        if said > self.heard && !self.is_full && self.ahead.0.len() < AHEAD_MAX {
            self.ahead.0.insert(blocks, said);
            self.ahead.1 = self.ahead.1.max(said);
        }
        let _ = self.earlier.remove(blocks, u64::MAX);
    }

    fn insert(&mut self, blocks: &Blocks, number: u64) {
        self.runs.insert(blocks, number);
        self.blocks.insert(blocks.clone());
    }

    fn remove(&mut self, blocks: &Blocks, upto: u64) {
        for gone in self.runs.remove(blocks, upto) {
            self.blocks.remove(&gone);
        }
    }

    /// The connection has ended: announcements that copies overtook do not come any more. A peer that was
    /// opened again may tell something else by the same numbers.
    pub fn hung_up(&mut self) {
        self.ahead = Default::default();
    }

    /// A level is here: what was told of before it has arrived. Entries of the round that are left came by
    /// announcements that overtook it.
    pub fn covered(&mut self) {
        self.earlier = Announced::default();
        if !holds(Clause::LevelCovers) {
            (self.runs, self.blocks) = Default::default();
        }
    }

    /// The round ends: what it told of is for the loss sheet only.
    fn end_round(&mut self) {
        let Told { runs, earlier, .. } = std::mem::take(self);
        self.earlier = earlier;
        self.earlier.add(runs);
    }

    /// The device gives up the host: what it is owed was told of, and has not arrived.
    pub fn give_up(&mut self, owed: &Bits) {
        if owed.is_empty() {
            return;
        }
        let known = std::mem::take(&mut self.earlier);
        for run in owed.runs() {
            // A grant says no time.
            self.earlier.insert(&run, 0);
            self.earlier.add_within(&run, &known);
        }
    }
}

/// Blocks of T that the peer is told of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// The round whose it is.
    pub round: Round,
    /// Its number.
    pub number: u64,
    /// The blocks, in rising order, no run touching another.
    pub blocks: Vec<Blocks>,
}

impl Differential {
    /// The blocks of T that no announcement has told of; after [`Differential::grant`] those that are
    /// granted. Their runs that begin at `from` or behind it, rising, none next to another.
    pub fn untold_from(&self, from: Block) -> impl Iterator<Item = Blocks> + '_ {
        let Telling { next, behind, .. } = &self.telling;
        let first =
            behind.runs_from(from).chain(self.table.within((*next).max(from)..TablePiece::END));
        let mut runs = first.peekable();
        std::iter::from_fn(move || {
            let mut run = runs.next()?;
            while runs.next_if(|next| run.absorb(next)).is_some() {}
            Some(run)
        })
    }

    /// All of [`Differential::untold_from`].
    pub fn untold(&self) -> Bits {
        self.untold_from(TablePiece::FIRST).collect()
    }

    /// Whether there is anything to announce: both devices are in the round, and T has blocks that no
    /// announcement has told of.
    pub fn may_tell(&self) -> bool {
        let is_open = self.mode != Mode::Ordered && self.stage >= Stage::Open;
        is_open && self.untold_from(TablePiece::FIRST).next().is_some()
    }

    /// The next announcement, at the time `now`, of at most `most` runs. The caller sends it in the control
    /// lane, before anything that a later step says. Nothing if [`Differential::may_tell`] says no.
    pub fn tell(&mut self, now: u64, most: usize) -> Option<Announcement> {
        if !self.may_tell() {
            return None;
        }
        let blocks: Vec<Blocks> = self.untold_from(TablePiece::FIRST).take(most).collect();
        blocks.iter().for_each(|run| self.telling.remove(run));
        let last = blocks.last().map_or(TablePiece::FIRST, |run| run.range().end);
        self.telling.next = self.telling.next.max(last);
        self.telling.said = now.max(self.telling.said + 1);
        Some(Announcement { round: self.round, number: self.telling.said, blocks })
    }

    /// An announcement of the peer's, if it is of this round and new; at most `most` runs are kept, and
    /// beyond that none of the round any more: then a takeover is told all that it is owed.
    pub fn hear_told(&mut self, announcement: &Announcement, most: u64) {
        let Announcement { round, number, ref blocks } = *announcement;
        let told = &mut self.told;
        if round != self.round || self.mode == Mode::Ordered || told.is_full || number <= told.heard
        {
            return;
        }
        let kept = told.runs.len() + told.earlier.len() + blocks.len();
        if kept as u64 > most {
            told.end_round();
            told.is_full = true;
            return;
        }
        for run in blocks {
            told.insert(run, number);
            // Of each copy that is ahead what announcements up to its number told of.
            for (part, upto) in told.ahead.0.within(run) {
                told.remove(&part, upto);
            }
        }
        told.heard = number;
        if told.ahead.1 <= number {
            told.ahead = Default::default();
        }
    }

    /// Blocks that this device was told of, or granted, and whose data has not arrived, each with the time
    /// of its announcement in nanoseconds since 1970; 0 if that is not known.
    pub fn told(&self) -> Announced {
        let mut earlier = self.told_earlier();
        earlier.add(self.told.runs.clone());
        earlier
    }

    fn told_earlier(&self) -> Announced {
        let mut told = Told { earlier: self.told.earlier.clone(), ..Told::default() };
        told.give_up(&self.owed);
        told.earlier
    }

    /// The announcements heard, for a side file.
    pub(crate) fn keep_told(&self) -> ToldBits {
        let Told { heard, ref runs, .. } = self.told;
        let (told, earlier) = (runs.runs().collect(), self.told_earlier().runs().collect());
        ToldBits { round: self.round, heard, told, earlier }
    }

    /// The announcements of a side file, at a device that is opened again.
    pub(crate) fn recall_told(&mut self, kept: ToldBits) {
        let gather = |runs: Vec<(Blocks, u64)>| {
            let mut gathered = Announced::default();
            runs.iter().for_each(|(run, number)| gathered.insert(run, *number));
            gathered
        };
        let ToldBits { round, heard, told, earlier } = kept;
        let blocks = told.iter().map(|(run, _)| run.clone()).collect();
        let (runs, earlier) = (gather(told), gather(earlier));
        self.told = Told { heard, runs, blocks, earlier, ..Told::default() };
        if round != self.round {
            self.told.end_round();
        }
    }

    /// Whether announcements came that were not kept: [`Differential::told`] does not have all.
    pub fn is_told_in_part(&self) -> bool {
        self.told.is_full
    }

    /// `blocks` were told of at `time` by the ordered mode's announcements, and have not arrived: from now on
    /// bits tell of them.
    pub fn was_told(&mut self, blocks: &Blocks, time: u64) {
        self.told.earlier.insert(blocks, time);
    }

    /// Whether the requester has all announcements, or will have them before a grant (D4): in its round, of
    /// its lineage.
    pub(super) fn has_told(&self, request: &Request) -> bool {
        let is_of_round = request.round == self.round || !holds(Clause::ToldOfRound);
        // On a connection in which the round is not open yet nothing is on its way.
        let hears_all = request.told == self.telling.said || self.stage >= Stage::Open;
        let has_heard = request.told > 0 && hears_all;
        is_of_round && request.generation == self.generation && has_heard
    }

    /// Nothing of this round has been said.
    pub(super) fn tell_all(&mut self) {
        self.telling = Telling::default();
    }

    /// A round begins: everything is told anew, or what `is_told` is left out, as the peer knows of it.
    pub(super) fn tell_anew(&mut self, is_told: bool) {
        if holds(Clause::ToldOfRound) {
            match is_told {
                true => self.telling.said = 0,
                false => self.tell_all(),
            }
            self.told.end_round();
        }
    }

    /// The peer has heard announcements up to `told` on earlier connections: unless these are all, everything
    /// is told once more.
    pub(super) fn tell_after(&mut self, told: u64) {
        let said = self.telling.said;
        if told == 0 || told != said {
            self.tell_all();
            self.telling.said = told.max(said);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Grant, Message, Ordered, Piece, Side, Taken};
    use super::*;
    use crate::unit::Stamp;

    const EVERY: std::ops::Range<Block> =
        Block { volume: 0, number: 0 }..Block { volume: u32::MAX, number: u64::MAX };

    fn run(numbers: std::ops::Range<u64>) -> Blocks {
        Blocks { volume: 0, numbers }
    }

    fn runs(told: &Announced) -> Vec<(std::ops::Range<u64>, u64)> {
        told.runs().map(|(run, number)| (run.numbers, number)).collect()
    }

    /// Two devices in a round of mode s, the first of which is active.
    fn pair() -> [Differential; 2] {
        let mut pair = [Differential::default(), Differential::default()];
        let ordered = || Ordered { owed: Some(Bits::default()), ..Ordered::default() };
        assert!(pair[0].suspend(ordered()).is_some());
        open(&mut pair, Mode::Sending);
        pair
    }

    fn open([a, b]: &mut [Differential; 2], mode: Mode) {
        let work = a.open(mode, Stamp::ZERO).expect("it may");
        let Some(Message::Open { round, cut, told, .. }) = work.send else { panic!("{work:?}") };
        let heard = b.hear_open(Side::Fenced, (round, mode), 0, (cut, told), Ordered::default());
        let Some(Message::Opened(opened)) = heard.expect("it hears").send else {
            panic!("it answers")
        };
        b.said_opened();
        let piece = Piece { range: EVERY, blocks: b.table().clone(), is_last: true };
        assert!(a.hear_opened(Side::Active, opened, &piece).is_some());
    }

    fn tell([a, b]: &mut [Differential; 2], now: u64) {
        while let Some(told) = a.tell(now, 2) {
            b.hear_told(&told, 100);
        }
    }

    /// The blocks that `a` grants, and those that `b` is owed then.
    fn take_over([mut a, mut b]: [Differential; 2]) -> (Bits, Bits) {
        let work = a.grant(b.request(), &Bits::default(), Ordered::default());
        let Some(Message::Grant(grant @ Grant::Table { .. })) = work.send else {
            panic!("{work:?}")
        };
        let granted = a.untold().clone();
        let taken = b.take(grant, granted.clone(), 2, Ordered::default());
        assert!(matches!(taken, Taken::Table(_)), "{taken:?}");
        (granted, b.owed().clone())
    }

    #[test]
    fn a_takeover_is_granted_what_was_not_told() {
        let mut pair = pair();
        for number in 0..9 {
            let _ = pair[0].wrote(&run(3 * number..3 * number + 1));
        }
        tell(&mut pair, 70);
        let _ = pair[0].wrote(&run(3..5));
        let (granted, owed) = take_over(pair.clone());
        assert_eq!(granted, Bits::from_iter([run(3..5)]));
        assert_eq!(owed.blocks(), 10);
        assert_eq!(runs(&pair[1].told()).len(), 9);

        // A block in flight has perhaps arrived: it is granted.
        let said = pair[0].send(&run(0..1));
        assert!(pair[1].arrive(Side::Fenced, pair[0].round(), said, &run(0..1)).is_some());
        assert_eq!(take_over(pair.clone()).1, owed);
        let round = pair[0].round();
        assert_eq!(pair[0].copied(round, &run(0..1)), Bits::from_iter([run(0..1)]));
        assert_eq!(take_over(pair).1.blocks(), 9);
    }

    /// A copy that was sent before a block was written again does not take out what was told of that.
    #[test]
    fn a_copy_removes_what_was_told_before_it() {
        let mut pair = pair();
        let _ = pair[0].wrote(&run(4..5));
        tell(&mut pair, 70);
        let said = pair[0].send(&run(4..5));
        let _ = pair[0].wrote(&run(4..5));
        tell(&mut pair, 70);
        assert!(pair[1].arrive(Side::Fenced, pair[0].round(), said, &run(4..5)).is_some());
        let round = pair[0].round();
        let _ = pair[0].copied(round, &run(4..5));
        assert_eq!(runs(&pair[1].told()), [(4..5, 71)]);
        let (granted, owed) = take_over(pair);
        assert!(granted.is_empty());
        assert_eq!(owed.blocks(), 1);
    }

    #[test]
    fn a_copy_that_overtakes_its_announcement_is_no_loss() {
        let mut pair = pair();
        let _ = pair[0].wrote(&run(4..9));
        let told = pair[0].tell(70, 9).unwrap();
        let said = pair[0].send(&run(5..7));
        assert!(pair[1].arrive(Side::Fenced, told.round, said, &run(5..7)).is_some());
        pair[1].hear_told(&told, 100);
        assert_eq!(runs(&pair[1].told()), [(4..5, 70), (7..9, 70)]);
        pair[1].hear_told(&told, 100);
        assert_eq!(runs(&pair[1].told()), [(4..5, 70), (7..9, 70)], "one already told is ignored");
    }

    /// A level says nothing of what was told behind it.
    #[test]
    fn a_level_that_was_overtaken_covers_nothing_newer() {
        let mut pair = pair();
        let (round, block) = (pair[0].round(), run(4..5));
        let _ = pair[0].wrote(&block);
        let said = pair[0].send(&block);
        assert!(pair[1].arrive(Side::Fenced, round, said, &block).is_some());
        let _ = pair[0].copied(round, &block);
        assert!(pair[0].level().is_some());
        let _ = pair[0].wrote(&block);
        tell(&mut pair, 70);
        assert!(pair[1].hear_level(Side::Fenced, round).is_some());
        assert_eq!(runs(&pair[1].told()), [(4..5, 70)]);
        let (granted, owed) = take_over(pair);
        assert!(granted.is_empty());
        assert_eq!(owed.blocks(), 1);
    }

    #[test]
    fn a_new_connection_goes_on_or_tells_all_once_more() {
        let mut pair = pair();
        let _ = pair[0].wrote(&run(4..9));
        tell(&mut pair, 70);
        for is_lost in [false, true] {
            if is_lost {
                let _ = pair[0].wrote(&run(20..21));
                assert!(pair[0].tell(0, 9).is_some());
            }
            pair.iter_mut().for_each(Differential::hung_up);
            // Before the round is open again the answerer sees by the number whether anything was lost.
            let granted = take_over(pair.clone()).0.blocks();
            assert_eq!(granted, if is_lost { 6 } else { 0 });
            open(&mut pair, Mode::Sending);
            let told: Vec<_> = std::iter::from_fn(|| pair[0].tell(0, 9)).collect();
            assert_eq!(told.len(), usize::from(is_lost));
            told.iter().for_each(|told| pair[1].hear_told(told, 100));
            assert!(take_over(pair.clone()).0.is_empty());
        }
    }

    /// An entry stays for the loss sheet until its block arrives, or an end says that it has; a grant of
    /// another round leaves none of it out.
    #[test]
    fn an_announcement_belongs_to_its_round() {
        let mut pair = pair();
        let _ = pair[0].wrote(&run(4..9));
        tell(&mut pair, 70);
        let (round, next) = (pair[0].round(), Mode::Copying);
        open(&mut pair, next);
        assert!(pair[0].round() > round);
        assert_eq!(runs(&pair[1].told()), [(4..9, 70)]);
        let (granted, owed) = take_over(pair.clone());
        assert_eq!((granted.blocks(), owed.blocks()), (5, 5));
        let said = pair[0].send(&run(4..6));
        assert!(pair[1].arrive(Side::Fenced, pair[0].round(), said, &run(4..6)).is_some());
        assert_eq!(runs(&pair[1].told()), [(6..9, 70)]);
        let round = pair[0].round();
        assert!(pair[1].hear_end(Side::Fenced, round, 0, Stamp::ZERO, Stamp::ZERO).is_some());
        assert!(pair[1].told().is_empty());
    }

    /// A device that gives up the host knows what it was owed.
    #[test]
    fn a_debt_that_is_given_up_has_not_arrived() {
        let [mut a, mut b] = pair();
        let _ = a.wrote(&run(4..9));
        let told = a.tell(70, 9).unwrap();
        b.hear_told(&told, 100);
        let _ = a.wrote(&run(20..22));
        let work = a.grant(b.request(), &Bits::default(), Ordered::default());
        let Some(Message::Grant(grant)) = work.send else { panic!("{work:?}") };
        let _ = b.take(grant, a.untold().clone(), 2, Ordered::default());
        let _ = b.wrote(&run(5..6));
        let owed = [(4..5, 70), (6..9, 70), (20..22, 0)];
        assert_eq!(runs(&b.told()), owed);
        let _ = b.grant(a.request(), &Bits::default(), Ordered::default());
        assert_eq!(runs(&b.told()), owed);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut pair = pair();
        for number in 0..9 {
            let _ = pair[0].wrote(&run(3 * number..3 * number + 1));
        }
        while let Some(told) = pair[0].tell(70, 2) {
            pair[1].hear_told(&told, 5);
        }
        assert!(pair[1].is_told_in_part());
        assert_eq!(runs(&pair[1].told()).len(), 4);
        let (granted, owed) = take_over(pair);
        assert_eq!((granted.blocks(), owed.blocks()), (9, 9));
    }
}
