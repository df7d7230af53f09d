//! Tencent CBS of 2018: `Timestamp,Offset,Size,IOType,VolumeID`.
//!
//! Sectors, and whole seconds since 1970: thousands of rows share a time, and a few go back by one
//! second. 0 reads and 1 writes, the opposite of SSDsim.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{is_header, is_number, plain, sectors, split, ticks, wrong_count};
use super::input::{Line, LineFormat};

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let (fields, count) = split::<5>(line, b',');
    count == 5 && fields.into_iter().all(is_number) && op(fields[3]).is_ok()
}

/// Reads the lines.
pub(super) struct Lines;

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], at: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if is_header(line, at, "Timestamp") {
            return Ok(Line::Text);
        }
        let ([time, offset, size, kind, id], count) = split::<5>(line, b',');
        if count != 5 {
            return Err(wrong_count(line, count, "5"));
        }
        let time_ns = ticks("Timestamp", time, 1_000_000_000)?;
        let (offset, size) = (sectors("Offset", offset)?, sectors("Size", size)?);
        let op = op(kind)?;
        rows.request(time_ns, plain("VolumeID", id)?, op, offset, size)?;
        Ok(Line::Record)
    }
}

fn op(kind: &[u8]) -> Result<Op, Fault> {
    match kind {
        b"0" => Ok(Op::Read),
        b"1" => Ok(Op::Write),
        _ => Err(Fault::new("IOType", kind, "is neither 0 (read) nor 1 (write)")),
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::Format;
    use crate::trace::tests::{bad_field, good, names, read, write};

    #[test]
    fn sectors_and_seconds_going_back() {
        let trace = good(
            Format::Tencent,
            b"1538323200,8,128,1,1058\n1538323199,16,8,0,1063\n1538323200,0,1,0,1058\n",
        );
        assert_eq!(names(&trace), ["1058", "1063"]);
        let actions: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
        assert_eq!(
            actions,
            [
                (0, read(8192, 4096)),
                (1_000_000_000, write(4096, 65_536)),
                (1_000_000_000, read(0, 512)),
            ]
        );
        assert_eq!(trace.start_unix_ns, Some(1_538_323_199_000_000_000));
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("1538323200,8,128,1", "row"),
            ("1.5,8,128,1,1", "Timestamp"),
            ("x,8,128,1,1", "Timestamp"),
            ("1538323200,-8,128,1,1", "Offset"),
            ("1538323200,36028797018963968,1,1,1", "Offset"),
            ("1538323200,36028797018963967,1,1,1", "offset + length"),
            ("1538323200,8,,1,1", "Size"),
            ("1538323200,8,128,2,1", "IOType"),
            ("1538323200,8,128,1,a", "VolumeID"),
        ] {
            bad_field(Format::Tencent, row.as_bytes(), field);
        }
    }
}
