//! SYSTOR '17: `Timestamp,Response,IOType,LUN,Offset,Size`, with that header line.
//!
//! Times are seconds since 1970 with nine decimals. Rows stand in the order of completion, so that
//! issue times go back in a quarter of them. Response may be empty, and so may IOType: such a row
//! is no request that could be replayed. The header comes again where files were joined. Files are
//! called `<hour>-LUN<n>.csv.gz`, and the published ones say 0 in the column whatever their LUN:
//! then the name counts.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{is_decimal, is_header, is_number, number, plain, seconds, split, wrong_count};
use super::input::{Line, LineFormat};

const HEADER: &[u8] = b"Timestamp,Response,IOType,LUN,Offset,Size";

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let ([time, response, kind, lun, offset, size], count) = split::<6>(line, b',');
    line.eq_ignore_ascii_case(HEADER)
        || (count == 6
            && [time, response].into_iter().all(|t| is_decimal(t) || t.is_empty())
            && [lun, offset, size].into_iter().all(is_number)
            && op(kind).is_ok())
}

/// Reads the lines; holds the volume's name between them.
pub(super) struct Lines {
    /// The LUN that the file's name has.
    named: Option<Vec<u8>>,
    volume: Vec<u8>,
}

impl Lines {
    /// For the file of this name.
    pub(super) fn of_file(name: &str) -> Lines {
        let base = name.rsplit('/').next().unwrap_or_default().as_bytes();
        let lun = base.windows(4).position(|word| word == b"-LUN").map(|at| &base[at + 4..]);
        let digits = lun.map(|rest| rest.split(|b| !b.is_ascii_digit()).next().unwrap_or_default());
        let named = digits.and_then(|digits| plain("LUN", digits).ok());
        Lines { named: named.map(<[u8]>::to_vec), volume: Vec::new() }
    }
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], at: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if is_header(line, at, "Timestamp") {
            return Ok(Line::Text);
        }
        let ([time, response, kind, lun, offset, size], count) = split::<6>(line, b',');
        if count != 6 {
            return Err(wrong_count(line, count, "6"));
        }
        let time_ns = seconds("Timestamp", time)?;
        if !response.is_empty() {
            seconds("Response", response)?;
        }
        self.volume.clear();
        self.volume.extend_from_slice(b"LUN");
        match (plain("LUN", lun)?, &self.named) {
            (b"0", Some(named)) => self.volume.extend_from_slice(named),
            (lun, _) => self.volume.extend_from_slice(lun),
        }
        let (offset, size) = (number("Offset", offset)?, number("Size", size)?);
        if let Some(op) = op(kind)? {
            rows.request(time_ns, &self.volume, op, offset, size)?;
        }
        Ok(Line::Record)
    }
}

fn op(kind: &[u8]) -> Result<Option<Op>, Fault> {
    match kind {
        b"" => Ok(None),
        _ => super::field::op("IOType", kind).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::Format;
    use crate::trace::tests::{bad_field, good, names, read, write};

    #[test]
    fn completion_order_is_undone() {
        let trace = good(
            Format::Systor,
            b"Timestamp,Response,IOType,LUN,Offset,Size\n\
              1456095145.133076000,0.000806000,R,0,512,1024\n\
              1456095145.126285001,,W,3,0,512\n\
              Timestamp,Response,IOType,LUN,Offset,Size\n\
              1456095145.2,0.1,,0,0,512\n",
        );
        assert_eq!(names(&trace), ["LUN0", "LUN3"]);
        let rows: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
        assert_eq!(rows, [(0, write(0, 512)), (6_790_999, read(512, 1024))]);
        assert_eq!(trace.start_unix_ns, Some(1_456_095_145_126_285_001));
        assert_eq!((trace.rows_read, trace.other_rows), (3, 1));
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("1456095145.1,0.1,R,0,512", "row"),
            ("1456095145.1.1,0.1,R,0,512,512", "Timestamp"),
            ("x1456095145.1,0.1,R,0,512,512", "Timestamp"),
            (",0.1,R,0,512,512", "Timestamp"),
            ("1456095145.1,-0.1,R,0,512,512", "Response"),
            ("1456095145.1,0.1,X,0,512,512", "IOType"),
            ("1456095145.1,0.1,R,,512,512", "LUN"),
            ("1456095145.1,0.1,R,0,0x200,512", "Offset"),
            ("1456095145.1,0.1,R,0,512,99999999999999999999", "Size"),
        ] {
            bad_field(Format::Systor, row.as_bytes(), field);
        }
    }
}
