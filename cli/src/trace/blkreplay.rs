//! blkreplay's `.load`: free text, then `sec.nsec ; sector ; nsectors ; op ; delay ; duration`.
//!
//! The licence and the instructions before the rows have no four fields, and the line that names
//! the columns begins with `start`; any other line of four fields is a row, and so is one that
//! begins with a decimal time or, once a row was seen, with a digit: a damaged row is no text.
//! Names no volume: the file's name stands in. A second line that names the columns begins another
//! log, with its own clock: a new section.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{is_decimal, seconds, sectors, split, wrong_count};
use super::input::{Line, LineFormat};

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let ([time], count) = split::<1>(line, b';');
    count > 1 && time.contains(&b'.') && is_decimal(time)
}

/// Reads the lines.
#[derive(Default)]
pub(super) struct Lines {
    volume: Option<Vec<u8>>,
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], _: u64, rows: &mut Collector) -> Result<Line, Fault> {
        let ([time, sector, length, kind], count) = split::<4>(line, b';');
        let names_columns = time.eq_ignore_ascii_case(b"start");
        if names_columns {
            rows.end_section();
        }
        let has_fields = count >= 4 && !names_columns;
        let is_cut = self.volume.is_some() && line[0].is_ascii_digit();
        if !(fits(line) || has_fields || is_cut) {
            return Ok(Line::Text);
        }
        let volume = self.volume.get_or_insert_with(|| rows.file_volume());
        if count < 4 {
            return Err(wrong_count(line, count, "at least 4"));
        }
        let time_ns = seconds("start", time)?;
        let (offset, length) = (sectors("sector", sector)?, sectors("length", length)?);
        let op = match kind.first() {
            Some(b'R') => Op::Read,
            Some(b'W') => Op::Write,
            _ => return Err(Fault::new("op", kind, "is neither R nor W")),
        };
        rows.request(time_ns, volume, op, offset, length)?;
        Ok(Line::Record)
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::Format;
    use crate::trace::tests::{bad_field, good, names, read, write};

    const HEAD: &str = "Copyright ; nobody\n\n####\n\
                        start ; sector; length ; op ;  replay_delay=0 ; replay_duration=0\n";

    #[test]
    fn text_around_the_rows_is_no_record() {
        let text = format!(
            "2012 was the year\n{HEAD}      0.300422537 ;  8 ;    3 ; RA ; 0.0 ; 0.0\n\
             {HEAD}0.0 ; 0 ; 1 ; W ; 0.0 ; 0.0"
        );
        let trace = good(Format::Blkreplay, text.as_bytes());
        assert_eq!(names(&trace), ["hand-made"]);
        let rows: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
        assert_eq!(rows, [(0, read(4096, 1536)), (0, write(0, 512))]);
        assert_eq!((trace.rows_read, trace.sections), (2, 2));
    }

    #[test]
    fn rows_out_of_order_are_sorted_and_counted() {
        let rows = "0.5 ; 8 ; 8 ; W\n0.2 ; 16 ; 8 ; W\n0.4 ; 24 ; 8 ; W\n0.6 ; 32 ; 8 ; W\n";
        let trace = good(Format::Blkreplay, rows.as_bytes());
        assert_eq!(trace.rows[0].action, write(16 * 512, 4096));
        let order = (trace.sections, trace.out_of_order_rows, trace.largest_step_back_ns);
        assert_eq!(order, (1, 2, 300_000_000));
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("1.5 ; 8 ; 8", "row"),
            ("99999999999.0 ; 8 ; 8 ; W", "start"),
            ("1.5 ; -8 ; 8 ; W", "sector"),
            ("1.5 ; 8 ; eight ; W", "length"),
            ("1.5 ; 8 ; 8 ; D", "op"),
            ("x.5 ; 8 ; 8 ; W ; 0.0 ; 0.0", "start"),
            ("; 8 ; 8 ; D", "start"),
        ] {
            bad_field(Format::Blkreplay, row.as_bytes(), field);
        }
        bad_field(Format::Blkreplay, b"1.5 ; 8 ; 8 ; W\n3062.3", "row");
        bad_field(Format::Blkreplay, b"1.5 ; 8 ; 8 ; W\nx.5 ; 8 ; 8 ; R", "start");
    }
}
