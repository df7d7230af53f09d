//! blkparse's default text: `maj,min cpu seq sec.nsec pid action rwbs`, then by action.
//!
//! Every request appears several times on its way down; one action is chosen for the file, or it
//! would count up to seven times: Q (what the submitter asked) if any Q line has sectors, else D
//! (after merging), else C (completions). A, X, P, U, UT, m, merges and the rest are left out, as
//! are packet commands, which have bytes and a dump where others have `sector + n`.
//!
//! rwbs is an optional F (preflush), the operation, and flags:
//!
//! | letters | operation |
//! |---|---|
//! | W, ZA | write; a zone append is one (where it is queued, its sector is that of its zone) |
//! | WZ | write zeroes |
//! | R | read |
//! | D, DE | discard; a secure erase is one |
//! | N, ZR, ZO, ZC, ZF | none, and zone reset, open, close, finish: no requests to replay |
//! | F, A, S, M, U, B | flags: FUA, read ahead, sync, metadata, untorn, and the barrier of old kernels |
//!
//! A request with preflush and without sectors is a bare flush, whatever its operation. A letter
//! that stands for nothing makes a bad row.
//!
//! Output may lack the process names that end a line, if all lines of an action do. The last line
//! of a file must then end in a newline, or it could be half a line.
//!
//! Header lines begin with `#`, the summary at the end with letters: neither are records. A line
//! that begins with a digit must be an event, and so must one with an action and rwbs in their
//! places, whatever stands before them. Each device is a volume, also when devices stack. Events
//! behind a summary that go back in time are of another output: a new section.

use super::collect::{Collector, Op, whole_sectors};
use super::error::Fault;
use super::field::{is_decimal, is_number, number, seconds, sectors, words, wrong_count};
use super::input::{Line, LineFormat};
use super::{Action, Row};

/// The actions that can stand for a request, best first.
const ACTIONS: [&[u8]; 3] = [b"Q", b"D", b"C"];

/// Bits of the minor in a device's number, as Linux has it.
const MINOR_BITS: u32 = 20;

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    Event::cut(line).is_ok_and(|event| {
        event.time.contains(&b'.')
            && is_decimal(event.time)
            && event.action.iter().all(u8::is_ascii_alphabetic)
            && device(event.device).is_ok()
    })
}

/// Reads the lines; holds the rows of every action that may yet be the one chosen.
pub(super) struct Lines {
    rows: [Vec<Row>; ACTIONS.len()],
    /// Whether lines of the action end in the name of a process, or in an error.
    named: [bool; ACTIONS.len()],
    /// The best action seen on a line with sectors; the number of actions if none was.
    chosen: usize,
    /// The latest time of an event.
    latest: u64,
    /// Whether a line of text follows the events.
    is_summed: bool,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            rows: Default::default(),
            named: Default::default(),
            chosen: ACTIONS.len(),
            latest: 0,
            is_summed: false,
        }
    }
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], _: u64, rows: &mut Collector) -> Result<Line, Fault> {
        let event = match (Event::cut(line), line[0].is_ascii_digit()) {
            (event, true) => event?,
            (Ok(event), false) if event.names_an_action() => event,
            _ => {
                self.is_summed = true;
                return Ok(Line::Text);
            }
        };
        let volume = device(event.device)?;
        let time_ns = seconds("time", event.time)?;
        if self.is_summed && time_ns < self.latest {
            std::mem::take(self).end(rows);
            rows.end_section();
        }
        self.is_summed = false;
        self.latest = self.latest.max(time_ns);
        let Some(rank) = ACTIONS.iter().position(|action| *action == event.action) else {
            return Ok(Line::Record);
        };
        if rank > self.chosen {
            return Ok(Line::Record);
        }
        let kind = Kind::of(event.rwbs)?;
        let may_lack_name = !self.named[rank] && !rows.is_cut;
        let range = event.range(line, may_lack_name)?;
        self.named[rank] |= event.rest.into_iter().any(opens);
        let (action, has_sectors) = match (range, kind.op) {
            (Some((offset, length)), Some(op)) => match whole_sectors(offset, length)? {
                Some(extent) => (extent.action(op), true),
                None if kind.preflush => (Action::Flush, false),
                None => return Ok(Line::Record),
            },
            (_, _) if kind.preflush => (Action::Flush, false),
            (_, _) => return Ok(Line::Record),
        };
        if has_sectors && rank < self.chosen {
            self.chosen = rank;
            self.rows[rank + 1..].fill(Vec::new());
        }
        let kept = &mut self.rows[rank];
        let room = usize::try_from(rows.room()).unwrap_or(usize::MAX);
        if kept.len() < room {
            let fua = kind.fua && matches!(action, Action::Write { .. } | Action::Zero { .. });
            kept.push(Row { time_ns, volume, fua, preflush: kind.preflush, action });
        }
        Ok(if self.chosen == 0 && kept.len() == room { Line::Last } else { Line::Record })
    }

    fn end(self, rows: &mut Collector) {
        let only_flushes = || self.rows.iter().position(|kept| !kept.is_empty()).unwrap_or(0);
        let chosen = if self.chosen < ACTIONS.len() { self.chosen } else { only_flushes() };
        let (mut device, mut name) = (None, String::new());
        for row in &self.rows[chosen] {
            if device != Some(row.volume) {
                device = Some(row.volume);
                let minor = row.volume & ((1 << MINOR_BITS) - 1);
                name = format!("{},{minor}", row.volume >> MINOR_BITS);
            }
            rows.push(name.as_bytes(), *row);
        }
    }
}

/// The parts of a line that matter here.
struct Event<'a> {
    device: &'a [u8],
    time: &'a [u8],
    action: &'a [u8],
    rwbs: &'a [u8],
    /// The rest behind rwbs: at most the first four words.
    rest: [&'a [u8]; 4],
}

impl Event<'_> {
    fn cut(line: &[u8]) -> Result<Event<'_>, Fault> {
        let mut words = words(line);
        let mut next = || words.next().unwrap_or_default();
        let (device, _cpu, _sequence, time, _pid) = (next(), next(), next(), next(), next());
        let event = Event {
            device,
            time,
            action: next(),
            rwbs: next(),
            rest: [next(), next(), next(), next()],
        };
        if event.rwbs.is_empty() {
            return Err(wrong_count(line, super::field::words(line).count(), "at least 7"));
        }
        Ok(event)
    }

    /// Whether action and rwbs can be such.
    fn names_an_action(&self) -> bool {
        self.action.len() <= 2
            && self.action.iter().all(u8::is_ascii_alphabetic)
            && self.rwbs.iter().all(u8::is_ascii_uppercase)
    }

    /// Offset and length in bytes, if the event has them.
    fn range(&self, line: &[u8], may_lack_name: bool) -> Result<Option<(u64, u64)>, Fault> {
        let [sector, plus, count, after] = self.rest;
        let is_bare = sector.is_empty() && may_lack_name;
        if is_bare || opens(sector) || (is_number(sector) && opens(plus)) {
            return Ok(None);
        }
        let offset = sectors("sector", sector)?;
        if plus != b"+" {
            return Err(Fault::new("sector + n", line, "has no \"+\" behind the sector"));
        }
        let length = sectors("sector + n", count)?;
        if !(opens(after) || after.is_empty() && may_lack_name) {
            return Err(Fault::new("process", line, "ends before the process or error"));
        }
        Ok(Some((offset, length)))
    }
}

/// Whether the word begins a process name, an error, or a time.
fn opens(word: &[u8]) -> bool {
    matches!(word.first(), Some(b'[' | b'('))
}

/// The meaning of rwbs.
struct Kind {
    op: Option<Op>,
    preflush: bool,
    fua: bool,
}

impl Kind {
    fn of(rwbs: &[u8]) -> Result<Kind, Fault> {
        let (preflush, rest) = match rwbs {
            [b'F', rest @ ..] => (true, rest),
            _ => (false, rwbs),
        };
        let (op, flags) = match rest {
            [b'W', b'Z', flags @ ..] => (Some(Op::Zero), flags),
            [b'W', flags @ ..] | [b'Z', b'A', flags @ ..] => (Some(Op::Write), flags),
            [b'R', flags @ ..] => (Some(Op::Read), flags),
            [b'D', b'E', flags @ ..] | [b'D', flags @ ..] => (Some(Op::Discard), flags),
            [b'N', flags @ ..] | [b'Z', b'R' | b'O' | b'C' | b'F', flags @ ..] => (None, flags),
            // The kernel's flush operation has no letter behind its F.
            flags if preflush => (None, flags),
            [b'Z', unknown @ ..] => return Err(unknown_letter(rwbs, unknown)),
            unknown => return Err(unknown_letter(rwbs, unknown)),
        };
        if let Some(at) = flags.iter().position(|flag| !b"FASMUB".contains(flag)) {
            return Err(unknown_letter(rwbs, &flags[at..]));
        }
        let barrier = flags.contains(&b'B');
        let fua = barrier || flags.contains(&b'F');
        Ok(Kind { op, preflush: preflush || barrier, fua })
    }
}

/// The fault of an rwbs of which `rest` begins with the letter in question.
fn unknown_letter(rwbs: &[u8], rest: &[u8]) -> Fault {
    let letter = rest.get(..1).unwrap_or(b"Z").escape_ascii();
    let problem = format!("has the letter {letter} where it stands for no operation and no flag");
    Fault::new("rwbs", rwbs, problem)
}

/// `maj,min` as one number.
fn device(text: &[u8]) -> Result<u32, Fault> {
    let bad = || Fault::new("device", text, "is no device number maj,min");
    let comma = text.iter().position(|&b| b == b',').ok_or_else(bad)?;
    let major = number("device", &text[..comma])?;
    let minor = number("device", &text[comma + 1..])?;
    if major >> (u32::BITS - MINOR_BITS) != 0 || minor >> MINOR_BITS != 0 {
        return Err(bad());
    }
    Ok((major as u32) << MINOR_BITS | minor as u32)
}

#[cfg(test)]
mod tests {
    use crate::trace::tests::{bad_field, forced, good, limited, names, read, write};
    use crate::trace::{Action, Format, Trace};

    const HEAD: &str =
        "#Maj,Mn CPU   SeqNo     Seconds     PID  Evt Typ Sector   +Len Description\n";
    const FOOT: &str = "CPU0 (sdb):\n Reads Queued:           0,        0KiB\n\n\
                        Throughput (R/W): 0KiB/s / 46KiB/s\nEvents (sdb): 1,364 entries\n\
                        Skips: 0 forward (0 -   0.0%)\nInput file sdb.blktrace.0 added\n";

    fn text(lines: &[&str]) -> Vec<u8> {
        format!("{HEAD}{}\n{FOOT}", lines.join("\n")).into_bytes()
    }

    fn rows(trace: &Trace) -> Vec<(u64, Action)> {
        trace.rows.iter().map(|r| (r.time_ns, r.action)).collect()
    }

    #[test]
    fn queued_requests_are_preferred_and_devices_are_volumes() {
        let trace = good(
            Format::Blkparse,
            &text(&[
                "  8,16   0        1     0.000000100   697  D   W 8 + 16 [DataXceiver for]",
                "  8,16   0        2     0.000000200   697  A   W 8 + 8 <- (253,3) 0",
                "253,3    0        3     0.000000300   697  Q  WS 8 + 8 [DataXceiver for]",
                "  8,16  11        4     0.000000400   697  Q   R 16 + 8 [(null)]",
                "  8,16  11        5     0.000000500   697  G   R 16 + 8 [(null)]",
                "  8,16  11        6     0.000000600   697  P   N [(null)]",
                "  8,16  11        7     0.000000700   697 UT   N [(null)] 1",
                "  8,16  11        8     0.000000800   697  X   R 16 / 20 [x]",
                "  8,16  11        9     0.000000900   697  m   N cfq697 insert_request",
                "  8,16  11       10     0.000001000   697  C   R 16 + 8 [0]",
            ]),
        );
        assert_eq!(names(&trace), ["253,3", "8,16"]);
        assert_eq!(rows(&trace), [(0, write(4096, 4096)), (100, read(8192, 4096))]);
        assert_eq!((trace.rows_read, trace.other_rows, trace.bad_rows), (10, 8, 0));
    }

    #[test]
    fn letters_of_rwbs() {
        let trace = good(
            Format::Blkparse,
            &text(&[
                "8,0 0 1 0.000000001 9 Q WFS 8 + 8 [a]",
                "8,0 0 1 0.000000002 9 Q FWFSM 8 + 8 [a]",
                "8,0 0 1 0.000000003 9 Q FWFSM [a b]",
                "8,0 0 1 0.000000004 9 Q FN [a]",
                "8,0 0 1 0.000000005 9 Q DS 0 + 16 [a]",
                "8,0 0 1 0.000000006 9 Q RA 8 + 8 [a]",
                "8,0 0 1 0.000000007 9 Q R 36 (12 00 00 ..) [inquiry]",
                "8,0 0 1 0.000000008 9 Q W [a]",
                "8,0 0 1 0.000000009 9 Q N 0 + 8 [a]",
                "8,0 0 1 0.000000010 9 Q FWFS 8 + 0 [a]",
            ]),
        );
        let flags: Vec<_> = trace.rows.iter().map(|r| (r.action, r.preflush, r.fua)).collect();
        assert_eq!(
            flags,
            [
                (write(4096, 4096), false, true),
                (write(4096, 4096), true, true),
                (Action::Flush, true, false),
                (Action::Flush, true, false),
                (Action::Discard { offset: 0, length: 8192 }, false, false),
                (read(4096, 4096), false, false),
                (Action::Flush, true, false),
            ]
        );
        assert_eq!(trace.other_rows, 3);
    }

    #[test]
    fn operations_of_newer_kernels() {
        let trace = good(
            Format::Blkparse,
            &text(&[
                "8,0 0 1 0.000000001 9 Q ZAS 8 + 8 [a]",
                "8,0 0 1 0.000000002 9 Q ZAFS 8 + 8 [a]",
                "8,0 0 1 0.000000003 9 Q WZS 0 + 8 [a]",
                "8,0 0 1 0.000000004 9 Q WZF 8 + 8 [a]",
                "8,0 0 1 0.000000005 9 Q DE 0 + 8 [a]",
                "8,0 0 1 0.000000006 9 Q WSU 8 + 8 [a]",
                "8,0 0 1 0.000000007 9 Q FS [a]",
                "8,0 0 1 0.000000008 9 Q WB 8 + 8 [a]",
                "8,0 0 1 0.000000009 9 Q ZR 0 + 524288 [a]",
                "8,0 0 1 0.000000010 9 Q ZRA 0 + 0 [a]",
                "8,0 0 1 0.000000011 9 Q ZO 0 + 524288 [a]",
                "8,0 0 1 0.000000012 9 Q ZCS 0 + 524288 [a]",
                "8,0 0 1 0.000000013 9 Q ZF 0 + 524288 [a]",
            ]),
        );
        let flags: Vec<_> = trace.rows.iter().map(|r| (r.action, r.preflush, r.fua)).collect();
        let zero = |offset| Action::Zero { offset, length: 4096 };
        assert_eq!(
            flags,
            [
                (write(4096, 4096), false, false),
                (write(4096, 4096), false, true),
                (zero(0), false, false),
                (zero(4096), false, true),
                (Action::Discard { offset: 0, length: 4096 }, false, false),
                (write(4096, 4096), false, false),
                (Action::Flush, true, false),
                (write(4096, 4096), true, true),
            ]
        );
        assert_eq!((trace.other_rows, trace.bad_rows), (5, 0));
    }

    #[test]
    fn an_unknown_letter_is_named() {
        for (rwbs, letter) in [("X", "X"), ("WSX", "X"), ("ZQ", "Q"), ("Z", "Z"), ("FWq", "q")] {
            let row = format!("8,0 0 1 0.0 9 Q {rwbs} 8 + 8 [a]");
            bad_field(Format::Blkparse, row.as_bytes(), "rwbs");
            let error = forced(Format::Blkparse, row.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{rwbs}\" has the letter {letter} ")), "{error}");
        }
    }

    #[test]
    fn process_names_may_be_left_out_of_every_line() {
        let lines = [
            "8,0    1        1     0.000000000   697  Q  WS 8 + 8",
            "8,0    1        2     0.100000000   697  Q  WS 16 + 8",
            "8,0    1        3     0.200000000   697  Q FWS",
            "8,0    1        4     0.300000000     0  C  WS 8 + 8 [0]",
        ];
        let trace = good(Format::Blkparse, &text(&lines));
        let expected = [
            (0, write(4096, 4096)),
            (100_000_000, write(8192, 4096)),
            (200_000_000, Action::Flush),
        ];
        assert_eq!(rows(&trace), expected);
        // Of several actions, each may have its own manner.
        let issued = ["8,0 0 1 0.0 9 D W 8 + 8 (    1000)", "8,0 0 1 0.1 9 Q W 16 + 8"];
        assert_eq!(rows(&good(Format::Blkparse, &text(&issued))), [(0, write(8192, 4096))]);
        // Where the name was there before, its absence is damage.
        bad_field(
            Format::Blkparse,
            b"8,0 0 1 0.0 9 Q W 8 + 8 [a]\n8,0 0 1 0.1 9 Q W 16 + 8",
            "process",
        );
        let mixed = b"8,0 0 1 0.0 9 Q W 8 + 8 [a]\n8,0 0 1 0.1 9 Q W 16 + 8\n";
        assert_eq!(forced(Format::Blkparse, mixed).unwrap_err().field(), Some("process"));
        // A line that ends the file without a newline may be half.
        bad_field(
            Format::Blkparse,
            b"8,0 0 1 0.0 9 Q W 8 + 8\n8,0 0 1 0.1 9 Q W 16 + 1",
            "process",
        );
    }

    #[test]
    fn without_queued_requests_issues_then_completions_stand_in() {
        let flush = "8,0 0 1 0.000000001 9 Q FWS [a]";
        let issue = "8,0 0 1 0.000000002 9 D W 8 + 8 (    1000) [a]";
        let complete = "8,0 0 1 0.000000003 9 C W 16 + 8 (    1000) [0]";
        let done_flush = "8,0 0 1 0.000000004 9 C FWS 99 [0]";
        let all = good(Format::Blkparse, &text(&[flush, issue, complete]));
        assert_eq!(rows(&all), [(0, write(4096, 4096))]);
        let completions = good(Format::Blkparse, &text(&[flush, complete, done_flush]));
        assert_eq!(rows(&completions), [(0, write(8192, 4096)), (1, Action::Flush)]);
        let flushes = good(Format::Blkparse, &text(&[flush]));
        assert_eq!(rows(&flushes), [(0, Action::Flush)]);
    }

    #[test]
    fn outputs_one_after_another_are_sections() {
        let first = text(&["8,0 0 1 0.000000001 9 Q W 8 + 8 [a]", "8,0 0 1 0.5 9 Q W 16 + 8 [a]"]);
        let second =
            text(&["8,0 0 1 0.0 9 D W 24 + 8 [a]", "8,0 0 1 0.000000007 9 D W 32 + 8 [a]"]);
        let trace = good(Format::Blkparse, &[&first[..], &second].concat());
        let expected = [
            (0, write(8 * 512, 4096)),
            (499_999_999, write(16 * 512, 4096)),
            (499_999_999, write(24 * 512, 4096)),
            (500_000_006, write(32 * 512, 4096)),
        ];
        assert_eq!((rows(&trace), trace.sections), (expected.to_vec(), 2));
        assert_eq!(rows(&limited(&[first, second].concat(), 3)), expected[..3]);

        // Without a summary between them, rows are sorted and counted.
        let lines = ["8,0 0 1 0.5 9 Q W 8 + 8 [a]", "8,0 0 1 0.2 9 Q W 16 + 8 [a]"];
        let trace = good(Format::Blkparse, &text(&lines));
        let order = (trace.sections, trace.out_of_order_rows, trace.largest_step_back_ns);
        assert_eq!(order, (1, 1, 300_000_000));
    }

    #[test]
    fn a_limit_counts_the_chosen_action() {
        let lines = text(&[
            "8,0 0 1 0.000000001 9 D W 8 + 8 [a]",
            "8,0 0 1 0.000000002 9 D W 16 + 8 [a]",
            "8,0 0 1 0.000000003 9 Q W 24 + 8 [a]",
            "8,0 0 1 0.000000004 9 Q W 32 + 8 [a]",
        ]);
        assert_eq!(rows(&limited(&lines, 1)), [(0, write(24 * 512, 4096))]);
        assert_eq!(rows(&limited(&lines, 0)), []);
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("8,0 0 1 0.0 9 Q", "row"),
            ("8x0 0 1 0.0 9 Q W 8 + 8 [a]", "device"),
            ("8,9999999 0 1 0.0 9 Q W 8 + 8 [a]", "device"),
            ("x8,0 0 1 0.0 9 Q WS 8 + 8 [a]", "device"),
            ("8,0 0 1 -0.1 9 Q W 8 + 8 [a]", "time"),
            ("8,0 0 1 0.0 9 Q W eight + 8 [a]", "sector"),
            ("8,0 0 1 0.0 9 Q W", "sector"),
            ("8,0 0 1 0.0 9 Q W 8", "sector + n"),
            ("8,0 0 1 0.0 9 Q W 8 + -8 [a]", "sector + n"),
            ("8,0 0 1 0.0 9 Q W 36028797018963967 + 1 [a]", "offset + length"),
            ("8,0 0 1 0.0 9 Q W 8 + 1", "process"),
        ] {
            bad_field(Format::Blkparse, row.as_bytes(), field);
        }
    }
}
