//! fio's iolog, versions 2 and 3. Bytes; the names of files are the volumes.
//!
//! Version 2: `file action [offset length]`. It has no times but `wait` lines, whose offset is
//! microseconds. fio's manual says that they count from the `wait` before, its maintainer that they
//! count from the start of the log; here the manual holds, and waits below 100 are dropped as fio
//! drops them. A log without waits has no time.
//!
//! Version 3: `timestamp file action [offset length]`, in microseconds from the start of the run;
//! `wait` is not allowed, and left out as fio leaves it out.
//!
//! A line with a version begins a new section, and so does a time of version 3 that is earlier than
//! the one before it: logs were written or joined one after the other, and each has its own clock.
//!
//! `sync`, `datasync` and `syncfs` are flushes, `trim` a discard. `sync_file_range`, which fio writes
//! and does not read, makes nothing durable and is left out; `add`, `open` and `close` are no
//! requests.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{number, ticks, words, wrong_count};
use super::input::{Line, LineFormat};

/// Shorter waits mean nothing, in microseconds.
const WAIT_US_MIN: u64 = 100;

/// The version a header line announces; `None` if the line is no such line.
pub(super) fn version(line: &[u8]) -> Option<Version> {
    match line {
        b"fio version 2 iolog" => Some(Version::Waits),
        b"fio version 3 iolog" => Some(Version::Stamps),
        _ => None,
    }
}

/// The versions, by what they know of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Version 2.
    Waits,
    /// Version 3.
    Stamps,
}

/// Reads the lines; holds the section's version and the time so far.
#[derive(Default)]
pub(super) struct Lines {
    version: Option<Version>,
    now_ns: u64,
    waited: bool,
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], _: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if let Some(version) = version(line) {
            self.end_section(rows);
            self.version = Some(version);
            return Ok(Line::Text);
        }
        let Some(version) = self.version else {
            let problem = "stands where \"fio version 2 iolog\" or \"fio version 3 iolog\" must";
            return Err(Fault::new("header", line, problem));
        };
        let mut words = words(line);
        let time_ns = match version {
            Version::Waits => self.now_ns,
            Version::Stamps => ticks("timestamp", words.next().unwrap_or_default(), 1_000)?,
        };
        let (Some(file), Some(action)) = (words.next(), words.next()) else {
            return Err(wrong_count(line, line_words(line), version.wanted()));
        };
        let (offset, length, rest) = (words.next(), words.next(), words.next());
        if rest.is_some() {
            return Err(wrong_count(line, line_words(line), version.wanted()));
        }
        let (offset, length) = (offset.unwrap_or_default(), length.unwrap_or_default());
        let op = match action {
            b"add" | b"open" | b"close" | b"sync_file_range" => None,
            b"wait" => {
                self.wait(version, offset)?;
                return Ok(Line::Text);
            }
            b"sync" | b"datasync" | b"syncfs" => None,
            b"read" => Some(Op::Read),
            b"write" => Some(Op::Write),
            b"trim" => Some(Op::Discard),
            _ => return Err(Fault::new("action", action, "is no action of an iolog")),
        };
        let range = match op {
            Some(op) => Some((op, number("offset", offset)?, number("length", length)?)),
            None => None,
        };
        if time_ns < self.now_ns {
            self.end_section(rows);
        }
        if version == Version::Stamps {
            self.now_ns = time_ns;
        }
        match (range, action) {
            (Some((op, offset, length)), _) => rows.request(time_ns, file, op, offset, length)?,
            (None, b"sync" | b"datasync" | b"syncfs") => rows.flush(time_ns, file),
            (None, b"sync_file_range") => {}
            (None, _) => return Ok(Line::Text),
        }
        Ok(Line::Record)
    }

    fn end(mut self, rows: &mut Collector) {
        self.end_section(rows);
    }
}

impl Lines {
    fn end_section(&mut self, rows: &mut Collector) {
        if self.version == Some(Version::Waits) && !self.waited && rows.has_section() {
            rows.has_time = false;
        }
        rows.end_section();
        (self.now_ns, self.waited) = (0, false);
    }

    fn wait(&mut self, version: Version, text: &[u8]) -> Result<(), Fault> {
        let wait_ns = ticks("offset", text, 1_000)?;
        if version == Version::Waits && wait_ns >= WAIT_US_MIN * 1_000 {
            let too_late = || Fault::new("offset", text, "waits beyond 64 bits of nanoseconds");
            self.now_ns = self.now_ns.checked_add(wait_ns).ok_or_else(too_late)?;
            self.waited = true;
        }
        Ok(())
    }
}

impl Version {
    fn wanted(self) -> &'static str {
        match self {
            Version::Waits => "2 to 4",
            Version::Stamps => "3 to 5",
        }
    }
}

fn line_words(line: &[u8]) -> usize {
    words(line).count()
}

#[cfg(test)]
mod tests {
    use crate::trace::tests::{bad_field, good, names, read, write};
    use crate::trace::{Action, Format, Trace};

    fn rows(trace: &Trace) -> Vec<(u64, u32, Action)> {
        trace.rows.iter().map(|r| (r.time_ns, r.volume, r.action)).collect()
    }

    #[test]
    fn version_2_has_only_waits() {
        let trace = good(
            Format::Fio,
            b"fio version 2 iolog\n/dev/sda add\n/dev/sda open\n/dev/sda write 4096 512\n\
              /dev/sda wait 99 0\n/dev/sda wait 1500 0\n/dev/sdb sync 0 0\n/dev/sda datasync\n\
              /dev/sda wait 500\n/dev/sda trim 0 2147483648\n/dev/sda close\n",
        );
        assert_eq!(names(&trace), ["/dev/sda", "/dev/sdb"]);
        let trim = Action::Discard { offset: 0, length: 2 << 30 };
        assert_eq!(
            rows(&trace),
            [
                (0, 0, write(4096, 512)),
                (1_500_000, 1, Action::Flush),
                (1_500_000, 0, Action::Flush),
                (2_000_000, 0, trim),
            ]
        );
        assert!(trace.has_time);
        assert!(trace.rows[1].preflush);
        assert_eq!(trace.rows_read, 4);
    }

    #[test]
    fn version_2_without_waits_has_no_time() {
        let trace = good(Format::Fio, b"fio version 2 iolog\nf read 0 4096\nf write 1 2\n");
        assert!(!trace.has_time);
        assert_eq!(rows(&trace), [(0, 0, read(0, 4096)), (0, 0, write(0, 512))]);
        assert_eq!(trace.rounded_rows, 1);
    }

    #[test]
    fn version_3_counts_microseconds() {
        let trace = good(
            Format::Fio,
            b"fio version 3 iolog\n0 f add\n10 f open\n1000 f write 0 512\n1500 f wait 5 0\n\
              1700 f sync_file_range 0 512\n2000 f read 0 512\n2500 f syncfs 0 0\n",
        );
        assert!(trace.has_time);
        assert_eq!(
            rows(&trace),
            [(0, 0, write(0, 512)), (1_000_000, 0, read(0, 512)), (1_500_000, 0, Action::Flush)]
        );
        assert_eq!((trace.rows_read, trace.other_rows), (4, 1));
    }

    #[test]
    fn a_clock_that_starts_again_begins_a_section() {
        let text = b"fio version 3 iolog\n20 f write 4096 4096\n1000001 f write 8192 4096\n\
                     2000002 f read 4096 4096\n1 f write 4096 4096\n1000000 f write 12288 4096\n";
        let trace = good(Format::Fio, text);
        let at = |us: u64| us * 1_000;
        assert_eq!(
            rows(&trace),
            [
                (0, 0, write(4096, 4096)),
                (at(999_981), 0, write(8192, 4096)),
                (at(1_999_982), 0, read(4096, 4096)),
                (at(1_999_982), 0, write(4096, 4096)),
                (at(2_999_981), 0, write(12_288, 4096)),
            ]
        );
        assert_eq!((trace.sections, trace.out_of_order_rows), (2, 0));
        // The lines without a request tell it as well.
        let opened =
            b"fio version 3 iolog\n5 f write 0 512\n9 f close\n0 f add\n7 f write 512 512\n";
        assert_eq!(good(Format::Fio, opened).sections, 2);
        let sorted =
            b"fio version 3 iolog\n5 f write 0 512\n5 f close\n5 f add\n7 f write 512 512\n";
        assert_eq!(good(Format::Fio, sorted).sections, 1);
    }

    #[test]
    fn logs_one_after_another_keep_their_order() {
        let joined = b"fio version 3 iolog\n1 f write 0 4096\n9 f write 4096 4096\n\
                       fio version 3 iolog\n0 f write 0 8192\n";
        let trace = good(Format::Fio, joined);
        let expected =
            [(0, 0, write(0, 4096)), (8_000, 0, write(4096, 4096)), (8_000, 0, write(0, 8192))];
        assert_eq!((rows(&trace), trace.sections), (expected.to_vec(), 2));

        let later = b"fio version 2 iolog\nf write 0 512\nf wait 200\nf write 512 512\n\
                      fio version 3 iolog\nfio version 3 iolog\n7000 f write 0 512\n7001 f sync\n\
                      fio version 2 iolog\nf wait 300 0\nf read 0 512\nf wait 100 0\nf sync\n";
        let trace = good(Format::Fio, later);
        let times: Vec<_> = trace.rows.iter().map(|row| row.time_ns / 1_000).collect();
        assert_eq!((times, trace.sections), (vec![0, 200, 200, 201, 201, 301], 3));
        assert!(trace.has_time);
    }

    #[test]
    fn a_section_without_time_takes_it_from_all() {
        let mixed = b"fio version 3 iolog\n1 f write 0 512\n9 f write 512 512\n\
                      fio version 2 iolog\nf read 0 512\n";
        let trace = good(Format::Fio, mixed);
        assert_eq!((trace.has_time, trace.sections), (false, 2));
        assert_eq!(
            rows(&trace),
            [(0, 0, write(0, 512)), (0, 0, write(512, 512)), (0, 0, read(0, 512))]
        );
        let empty = b"fio version 2 iolog\nfio version 3 iolog\n1 f write 0 512\n";
        assert!(good(Format::Fio, empty).has_time);
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("fio version 2 iolog\nf", "row"),
            ("fio version 2 iolog\nf write 0 512 9", "row"),
            ("fio version 2 iolog\nf scribble 0 512", "action"),
            ("fio version 2 iolog\nf write 0", "length"),
            ("fio version 2 iolog\nf wait soon 0", "offset"),
            (
                "fio version 2 iolog\nf wait 18446744073709551 0\nf wait 18446744073709551 0",
                "offset",
            ),
            ("fio version 3 iolog\nf write 0 512", "timestamp"),
            ("fio version 3 iolog\nx f write 0 512", "timestamp"),
            ("rw, 0, 512", "header"),
        ] {
            bad_field(Format::Fio, row.as_bytes(), field);
        }
    }
}
