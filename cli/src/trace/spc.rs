//! SPC trace files, as UMass publishes: `ASU,LBA,Size,Opcode,Timestamp[,optional...]`.
//!
//! LBA counts blocks of 512 bytes, Size bytes; a size that is no multiple of a sector is rounded
//! up, one of 0 is legal and left out. The opcode is one character of either case, the time decimal
//! seconds since the trace's start. Spaces may precede fields, and optional fields follow, varying
//! by line.

use super::collect::Collector;
use super::error::Fault;
use super::field::{
    is_decimal, is_header, is_number, number, op, plain, seconds, sectors, split, wrong_count,
};
use super::input::{Line, LineFormat};

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let ([asu, lba, size, opcode, time], count) = split::<5>(line, b',');
    count >= 5
        && [asu, lba, size].into_iter().all(is_number)
        && is_decimal(time)
        && op("Opcode", opcode).is_ok()
}

/// Reads the lines.
pub(super) struct Lines;

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], at: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if is_header(line, at, "ASU") {
            return Ok(Line::Text);
        }
        let ([asu, lba, size, opcode, time], count) = split::<5>(line, b',');
        if count < 5 {
            return Err(wrong_count(line, count, "at least 5"));
        }
        let volume = plain("ASU", asu)?;
        let (offset, length) = (sectors("LBA", lba)?, number("Size", size)?);
        rows.request(seconds("Timestamp", time)?, volume, op("Opcode", opcode)?, offset, length)?;
        Ok(Line::Record)
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::Format;
    use crate::trace::tests::{bad_field, good, names, read, write};

    #[test]
    fn head_of_financial1() {
        let trace = good(
            Format::Spc,
            b"0,303567,3584,w,0.000000\n1,55590,3072,w,0.000000\n0,303574,3584,w,0.026214\n",
        );
        assert_eq!(names(&trace), ["0", "1"]);
        assert_eq!(trace.rows[0].action, write(303_567 * 512, 3584));
        assert_eq!(trace.rows[2].time_ns, 26_214_000);
        assert_eq!(trace.rows[2].action, write((303_567 + 7) * 512, 3584));
        assert_eq!(trace.start_unix_ns, None);
    }

    #[test]
    fn spaces_optional_fields_and_odd_sizes() {
        let trace = good(Format::Spc, b" 2, 4, 700, R, 1.5, x, \"y\"\n 2, 4, 0, W, 1.5\n");
        assert_eq!(trace.rows[0].action, read(2048, 1024));
        assert_eq!((trace.rows.len(), trace.rounded_rows, trace.empty_rows), (1, 1, 1));
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("0,2,512,w", "row"),
            ("-1,2,512,w,1", "ASU"),
            ("x,2,512,w,1", "ASU"),
            ("0,2 448003,512,w,1", "LBA"),
            ("0,2,,w,1", "Size"),
            ("0,2,512,ww,1", "Opcode"),
            ("0,2,512,w,1e3", "Timestamp"),
        ] {
            bad_field(Format::Spc, row.as_bytes(), field);
        }
    }
}
