//! The plan of a replay, in order: the trace's requests, pass after pass, the points at which the
//! host moves, and how a request is cut into pieces that a device takes.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use afterimage::internal::limits::Limits;

use super::pattern::SECTOR;
use crate::args::{LoseSiteAt, OutageAt, ReplayArgs, TakeoverAt};
use crate::trace::{Action, Row, Trace};

/// The gap between the end of one pass and the beginning of the next, on the trace's clock.
const PASS_GAP_NS: u64 = 1_000_000;

/// Bounds of a journal that follows the trace.
const JOURNAL_BYTES: RangeInclusive<u64> = 64 << 20..=1 << 30;

/// Bytes of each journal: as `args` say, or enough for all that a replay of `trace` writes on a
/// line that lags from the beginning to the end, within [`JOURNAL_BYTES`]. Discards and zeros take no
/// room for their blocks: a request is a few records without data, and data at its edges only.
pub fn journal_bytes(args: &ReplayArgs, trace: &Trace) -> u64 {
    if let Some(bytes) = args.journal_size {
        return bytes;
    }
    let (least, most) = JOURNAL_BYTES.into_inner();
    if args.link_rate.is_none() {
        return least;
    }
    let block = args.block_size.max(SECTOR as u64);
    let written = trace.rows.iter().map(|row| match row.action {
        Action::Write { offset, length } => {
            let end = offset.saturating_add(length).div_ceil(block);
            (end - offset / block).saturating_mul(block)
        }
        Action::Zero { .. } => 2 * block,
        Action::Discard { .. } | Action::Read { .. } | Action::Flush => 0,
    });
    let once = written.fold(0, u64::saturating_add);
    once.saturating_mul(args.passes.into()).clamp(least, most).next_power_of_two()
}

/// The requests of a replay. A request is named by its number in the replay, from 0.
pub struct Plan<'a> {
    trace: &'a Trace,
    passes: u32,
}

/// A point of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Before this request; a number beyond the last is the end.
    pub row: u64,
    /// The time of the trace, counted on through the passes, in nanoseconds.
    pub time_ns: u64,
}

/// A stretch of a replay in which the line between the devices is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// It goes down here.
    pub from: Moment,
    /// It comes back here.
    pub to: Moment,
}

/// A piece of a request, small enough for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The request.
    pub row: u64,
    /// Which piece of it; pieces are issued in this order.
    pub part: u32,
    /// The volume.
    pub volume: u32,
    /// The request.
    pub action: Action,
    /// Complete only once durable.
    pub fua: bool,
    /// More pieces of the request follow once this one, a flush, is done.
    pub then: bool,
}

impl<'a> Plan<'a> {
    /// `trace`, so many times in a row.
    pub fn new(trace: &'a Trace, passes: u32) -> Plan<'a> {
        Plan { trace, passes }
    }

    /// Bytes of a volume.
    pub fn volume_bytes(&self, volume: u32) -> u64 {
        self.trace.volumes[volume as usize].bytes
    }

    /// How many requests there are.
    pub fn len(&self) -> u64 {
        self.rows_per_pass() * u64::from(self.passes)
    }

    /// Requests of one pass.
    pub fn rows_per_pass(&self) -> u64 {
        self.trace.rows.len() as u64
    }

    /// The length of a whole pass on the trace's clock.
    pub fn pass_ns(&self) -> u64 {
        self.trace.rows.last().map_or(0, |row| row.time_ns + PASS_GAP_NS)
    }

    /// The request `number`, its time counted on through the passes.
    pub fn row(&self, number: u64) -> Row {
        let (pass, at) = (number / self.rows_per_pass(), number % self.rows_per_pass());
        let row = self.trace.rows[at as usize];
        Row { time_ns: row.time_ns + pass * self.pass_ns(), ..row }
    }

    /// Before which requests the host moves, in order; a number beyond the last is the end.
    pub fn takeovers(&self, points: &[TakeoverAt]) -> VecDeque<u64> {
        let mut rows: Vec<u64> = points.iter().map(|&point| self.point(point)).collect();
        rows.sort_unstable();
        rows.into()
    }

    /// When the line is down, in order.
    ///
    /// # Errors
    /// One that ends where it begins or earlier, or begins before another one has ended.
    pub fn outages(&self, outages: &[OutageAt]) -> Result<VecDeque<Outage>, String> {
        let mut all: Vec<&OutageAt> = outages.iter().collect();
        all.sort_unstable_by_key(|outage| self.order(outage.from));
        if let Some(OutageAt { from, to }) =
            all.iter().find(|outage| self.order(outage.from) >= self.order(outage.to))
        {
            return Err(format!("--outage {from}..{to}: it ends where it begins, or earlier"));
        }
        let mut pairs = all.windows(2);
        if let Some(two) = pairs.find(|two| self.order(two[1].from) < self.order(two[0].to)) {
            let (OutageAt { from, to }, other) = (two[0], two[1].from);
            return Err(format!(
                "--outage {from}..{to}: the line is down already when another outage begins at {other}"
            ));
        }
        let moment = |point| Moment { row: self.point(point), time_ns: self.time(point) };
        let outage = |at: &OutageAt| Outage { from: moment(at.from), to: moment(at.to) };
        Ok(all.into_iter().map(outage).collect())
    }

    /// Before which requests a site is lost and returns; a number beyond the last is the end.
    ///
    /// # Errors
    /// A return where it is lost or earlier.
    pub fn absence(&self, lose: LoseSiteAt) -> Result<[u64; 2], String> {
        let LoseSiteAt { at, back } = lose;
        if let Some(back) = back.filter(|&back| self.order(at) >= self.order(back)) {
            return Err(format!(
                "--lose-site {at}..{back}: it returns where it is lost, or earlier"
            ));
        }
        let from = self.point(at);
        let halfway = from + (self.len() - from) / 2;
        Ok([from, back.map_or(halfway, |back| self.point(back))])
    }

    /// By this, points compare as they come: by the requests before which they stand, and of one
    /// request times first, which are not after it.
    fn order(&self, point: TakeoverAt) -> (u64, u64) {
        let within = match point {
            TakeoverAt::Time(time) => time,
            // The bits of numbers that are not negative compare as the numbers do.
            TakeoverAt::Percent(percent) => (1 << 63) | percent.abs().to_bits(),
        };
        (self.point(point), within)
    }

    fn time(&self, point: TakeoverAt) -> u64 {
        match point {
            TakeoverAt::Time(time) => time,
            TakeoverAt::Percent(_) => self.row(self.point(point).min(self.len() - 1)).time_ns,
        }
    }

    fn point(&self, point: TakeoverAt) -> u64 {
        let len = self.len();
        match point {
            TakeoverAt::Percent(percent) => {
                ((len as f64 * percent / 100.0).round() as u64).min(len)
            }
            TakeoverAt::Time(time) => {
                let (mut low, mut high) = (0, len);
                while low < high {
                    let middle = low + (high - low) / 2;
                    match self.row(middle).time_ns < time {
                        true => low = middle + 1,
                        false => high = middle,
                    }
                }
                low
            }
        }
    }

    /// The pieces to begin the request `number` with: all of it, or the flush that it asks for
    /// before anything else.
    pub fn begin(&self, number: u64, limits: &Limits) -> Vec<Piece> {
        let row = self.row(number);
        if row.preflush && row.action != Action::Flush {
            let (volume, action) = (row.volume, Action::Flush);
            return vec![Piece { row: number, part: 0, volume, action, fua: false, then: true }];
        }
        self.rest(number, limits)
    }

    /// The pieces of the request `number` without a flush in front.
    pub fn rest(&self, number: u64, limits: &Limits) -> Vec<Piece> {
        let Row { volume, fua, action, .. } = self.row(number);
        let mut pieces = Vec::with_capacity(1);
        let mut add = |action| {
            // Part 0 is the flush in front, if there is one.
            let part = pieces.len() as u32 + 1;
            pieces.push(Piece { row: number, part, volume, action, fua, then: false });
        };
        let block = u64::from(limits.block_size);
        let most = limits.request_bytes_max;
        match action {
            Action::Flush => add(action),
            Action::Read { offset, length } => cut(offset, length, most, block)
                .for_each(|(offset, length)| add(Action::Read { offset, length })),
            Action::Write { offset, length } => cut(offset, length, most, block)
                .for_each(|(offset, length)| add(Action::Write { offset, length })),
            Action::Discard { offset, length } => cut(offset, length, limits.zero_bytes_max, block)
                .for_each(|(offset, length)| add(Action::Discard { offset, length })),
            Action::Zero { offset, length } => cut(offset, length, limits.zero_bytes_max, block)
                .for_each(|(offset, length)| add(Action::Zero { offset, length })),
        }
        pieces
    }
}

/// A range cut into pieces of at most `most` bytes, at the ends of blocks.
fn cut(offset: u64, length: u64, most: u64, block: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let begin = at;
            at = match end - begin <= most {
                true => end,
                false => (begin + most) / block * block,
            };
            debug_assert!(at > begin, "a piece holds a block at least");
            (begin, at - begin)
        })
    })
}

/// The sectors of a range of bytes.
pub fn sectors(offset: u64, length: u64) -> Range<u64> {
    offset / SECTOR as u64..(offset + length) / SECTOR as u64
}

/// The sectors that a discard makes zero: those of the whole blocks in it. Parts of blocks at the
/// edges stay as they are.
pub fn discarded(offset: u64, length: u64, block_size: u32) -> Range<u64> {
    let block = u64::from(block_size);
    let begin = offset.next_multiple_of(block);
    let end = (offset + length) / block * block;
    sectors(begin, end.saturating_sub(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Format, VolumeInfo};
    use proptest::prelude::*;

    fn trace(times: &[u64]) -> Trace {
        let action = Action::Write { offset: 512, length: 9 * 4096 };
        let row = |&time_ns| Row { time_ns, volume: 0, fua: true, preflush: true, action };
        Trace {
            rows: times.iter().map(row).collect(),
            volumes: vec![VolumeInfo { name: "v".into(), bytes: 1 << 20 }],
            format: Format::Fio,
            rows_read: times.len() as u64,
            bad_rows: 0,
            empty_rows: 0,
            other_rows: 0,
            rounded_rows: 0,
            sections: 1,
            out_of_order_rows: 0,
            largest_step_back_ns: 0,
            warnings: Vec::new(),
            has_time: true,
            start_unix_ns: None,
        }
    }

    const LIMITS: Limits =
        Limits { block_size: 4096, request_bytes_max: 4 * 4096, zero_bytes_max: 8 * 4096 };

    #[test]
    fn passes_follow_each_other() {
        let trace = trace(&[0, 10, 10]);
        let plan = Plan::new(&trace, 2);
        assert_eq!((plan.len(), plan.pass_ns()), (6, 1_000_010));
        let times: Vec<u64> = (0..6).map(|number| plan.row(number).time_ns).collect();
        assert_eq!(times, [0, 10, 10, 1_000_010, 1_000_020, 1_000_020]);
    }

    #[test]
    fn the_journal_follows_the_trace() {
        let bytes = |words: &str, requests: usize| {
            let all = ["afterimage", "replay", "t"].into_iter().chain(words.split_whitespace());
            let cli = <crate::args::Cli as clap::Parser>::parse_from(all);
            let crate::args::Command::Replay(args) = cli.command else { panic!("replay") };
            journal_bytes(&args, &trace(&vec![0; requests])) >> 20
        };
        let without_data = |action: Action| {
            let all = ["afterimage", "replay", "t", "--link-rate", "1MiB"];
            let cli = <crate::args::Cli as clap::Parser>::parse_from(all);
            let crate::args::Command::Replay(args) = cli.command else { panic!("replay") };
            let mut trace = trace(&vec![0; 1639]);
            trace.rows.iter_mut().for_each(|row| row.action = action);
            journal_bytes(&args, &trace) >> 20
        };
        let (offset, length) = (512, 8 << 30);
        assert_eq!(without_data(Action::Discard { offset, length }), 64);
        assert_eq!(without_data(Action::Zero { offset, length }), 64);
        // A request of nine blocks in length lies in ten.
        assert_eq!(bytes("--link-rate 1MiB", 1), 64);
        assert_eq!(bytes("--link-rate 1MiB", 1638), 64);
        assert_eq!(bytes("--link-rate 1MiB", 1639), 128);
        assert_eq!(bytes("--link-rate 1MiB --passes 2", 1639), 256);
        assert_eq!(bytes("--link-rate 1MiB --passes 1000", 1639), 1024);
        assert_eq!(bytes("", 1639), 64, "without a rate the line does not lag");
        assert_eq!(bytes("--link-rate 1MiB --journal-size 8MiB", 1639), 8);
    }

    #[test]
    fn the_help_says_how_large_a_journal_may_become() {
        let mut command = <crate::args::Cli as clap::CommandFactory>::command();
        let replay = command.find_subcommand_mut("replay").expect("the command");
        let help = replay.render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let (least, most) = JOURNAL_BYTES.into_inner();
        let bounds = format!("from {}MiB to {}GiB", least >> 20, most >> 30);
        assert!(help.contains(&bounds), "the help says nothing of {bounds}");
    }

    #[test]
    fn takeovers_come_in_order() {
        let trace = trace(&[0, 10, 10, 30]);
        let plan = Plan::new(&trace, 1);
        let points = [
            TakeoverAt::Percent(100.0),
            TakeoverAt::Time(10),
            TakeoverAt::Percent(50.0),
            TakeoverAt::Percent(0.0),
            TakeoverAt::Time(31),
        ];
        assert_eq!(plan.takeovers(&points), [0, 1, 2, 4, 4]);
    }

    #[test]
    fn outages_come_in_order_and_do_not_overlap() {
        let trace = trace(&[0, 10, 10, 30]);
        let plan = Plan::new(&trace, 1);
        let planned = |words: &[&str]| {
            let outages: Vec<_> =
                words.iter().map(|word| crate::args::outage(word).unwrap()).collect();
            plan.outages(&outages)
        };
        let moment = |row, time_ns| Moment { row, time_ns };
        let expected = [
            Outage { from: moment(0, 0), to: moment(1, 5) },
            // Between two requests, and of a trace too short for its percentages.
            Outage { from: moment(3, 12), to: moment(3, 20) },
            Outage { from: moment(4, 30), to: moment(4, 30) },
        ];
        let all = ["12ns..20ns", "99%..100%", "0%..5ns"];
        assert_eq!(planned(&all).unwrap(), expected);
        // One may begin where another ends.
        assert_eq!(planned(&["20ns..30ns", "12ns..20ns"]).unwrap().len(), 2);
        for wrong in ["20ns..20ns", "20ns..12ns", "50%..25%", "50%..50%", "50%..10ns", "100%..30ns"]
        {
            let why = planned(&[wrong]).unwrap_err();
            assert!(why.contains("ends where it begins"), "{wrong}: {why}");
        }
        for wrong in [["12ns..20ns", "19ns..30ns"], ["0%..75%", "10ns..30ns"], ["0%..1%", "0%..2%"]]
        {
            let why = planned(&wrong).unwrap_err();
            assert!(why.contains("is down already"), "{wrong:?}: {why}");
        }
    }

    #[test]
    fn a_site_returns_after_it_is_lost() {
        let trace = trace(&[0, 10, 10, 30]);
        let plan = Plan::new(&trace, 2);
        let absence = |word| plan.absence(crate::args::lose_site(word).unwrap());
        assert_eq!(absence("25%"), Ok([2, 5]));
        assert_eq!(absence("100%"), Ok([8, 8]));
        assert_eq!(absence("10ns..100%"), Ok([1, 8]));
        for wrong in ["50%..50%", "50%..10ns", "20ns..20ns"] {
            let why = absence(wrong).unwrap_err();
            assert!(why.contains("returns where it is lost"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_flush_comes_first_and_then_the_pieces() {
        let trace = trace(&[0]);
        let plan = Plan::new(&trace, 1);
        let first = plan.begin(0, &LIMITS);
        assert_eq!((first.len(), first[0].action, first[0].then), (1, Action::Flush, true));
        let rest = plan.rest(0, &LIMITS);
        let ranges: Vec<_> = rest
            .iter()
            .map(|piece| match piece.action {
                Action::Write { offset, length } => (piece.part, offset, length),
                _ => panic!("a write's pieces are writes"),
            })
            .collect();
        assert_eq!(
            ranges,
            [(1, 512, 4 * 4096 - 512), (2, 4 * 4096, 4 * 4096), (3, 8 * 4096, 4096 + 512)]
        );
        assert!(rest.iter().all(|piece| piece.fua && !piece.then));
    }

    #[test]
    fn discards_leave_the_edges_alone() {
        assert_eq!(discarded(0, 8192, 4096), 0..16);
        assert_eq!(discarded(512, 8192, 4096), 8..16);
        assert!(discarded(512, 4096, 4096).is_empty());
        assert!(discarded(512, 1024, 4096).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole(offset in 0u64..100, length in 1u64..400, blocks in 1u64..9) {
            let (offset, length, most) = (offset * 512, length * 512, blocks * 4096);
            let mut at = offset;
            for (begin, length) in cut(offset, length, most, 4096) {
                prop_assert_eq!(begin, at);
                prop_assert!(length > 0 && length <= most);
                at += length;
                prop_assert!(at == offset + length || at % 4096 == 0 || at > offset);
            }
            prop_assert_eq!(at, offset + length);
        }
    }
}
