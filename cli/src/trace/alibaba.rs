//! Alibaba block traces of 2020: `device_id,opcode,offset,length,timestamp`.
//!
//! Bytes, and microseconds since 1970 when the server received the request. Unlike Tencent's, the
//! volume comes first and the time last. Whether the file has a header line is not stated; one is
//! tolerated.

use super::collect::Collector;
use super::error::Fault;
use super::field::{is_header, is_number, number, op, plain, split, ticks, wrong_count};
use super::input::{Line, LineFormat};

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let ([id, opcode, offset, length, time], count) = split::<5>(line, b',');
    count == 5
        && [id, offset, length, time].into_iter().all(is_number)
        && op("opcode", opcode).is_ok()
}

/// Reads the lines.
pub(super) struct Lines;

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], at: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if is_header(line, at, "device_id") {
            return Ok(Line::Text);
        }
        let ([id, opcode, offset, length, time], count) = split::<5>(line, b',');
        if count != 5 {
            return Err(wrong_count(line, count, "5"));
        }
        let volume = plain("device_id", id)?;
        let time_ns = ticks("timestamp", time, 1_000)?;
        let (offset, length) = (number("offset", offset)?, number("length", length)?);
        rows.request(time_ns, volume, op("opcode", opcode)?, offset, length)?;
        Ok(Line::Record)
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::Format;
    use crate::trace::tests::{bad_field, good, names, read, write};

    #[test]
    fn published_rows() {
        let trace = good(
            Format::Alibaba,
            b"0,R,126703661056,4096,1577808000000046\n1,W,19496058880,77824,1577808000000426\n",
        );
        assert_eq!(names(&trace), ["0", "1"]);
        assert_eq!(trace.rows[0].action, read(126_703_661_056, 4096));
        assert_eq!(trace.rows[1].action, write(19_496_058_880, 77_824));
        assert_eq!(trace.rows[1].time_ns, 380_000);
        assert_eq!(trace.start_unix_ns, Some(1_577_808_000_000_046_000));
    }

    #[test]
    fn header_is_tolerated() {
        let text = b"device_id,opcode,offset,length,timestamp\n7,W,0,512,1\n";
        assert_eq!(good(Format::Alibaba, text).rows_read, 1);
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("0,R,1,2", "row"),
            ("-9,R,1,2,3", "device_id"),
            ("x,R,1,2,3", "device_id"),
            ("0,T,1,2,3", "opcode"),
            ("0,R,,2,3", "offset"),
            ("0,R,1,two,3", "length"),
            ("0,R,1,2,18446744073709551615", "timestamp"),
        ] {
            bad_field(Format::Alibaba, row.as_bytes(), field);
        }
    }
}
