//! MSR Cambridge: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`.
//!
//! Time is a Windows filetime: ticks of 100 ns since 1601. Disk numbers repeat across hosts, so a
//! volume is a host and a disk, `hm_0`. Some redistributions add a header line.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{is_header, is_number, number, plain, split, ticks, wrong_count};
use super::input::{Line, LineFormat};

/// From the zero of Windows filetimes to 1970.
pub(super) const EPOCH_BEFORE_UNIX_NS: u64 = 11_644_473_600 * 1_000_000_000;

const TICK_NS: u64 = 100;

/// Whether a line has this shape.
pub(super) fn fits(line: &[u8]) -> bool {
    let ([time, _, disk, kind, offset, size, _], count) = split::<7>(line, b',');
    count == 7 && [time, disk, offset, size].into_iter().all(is_number) && op(kind).is_ok()
}

/// Reads the lines; holds the volume's name between them.
#[derive(Default)]
pub(super) struct Lines {
    volume: Vec<u8>,
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], at: u64, rows: &mut Collector) -> Result<Line, Fault> {
        if is_header(line, at, "Timestamp") {
            return Ok(Line::Text);
        }
        let ([time, host, disk, kind, offset, size, _], count) = split::<7>(line, b',');
        if count != 7 {
            return Err(wrong_count(line, count, "7"));
        }
        let time_ns = ticks("Timestamp", time, TICK_NS)?;
        if host.is_empty() {
            return Err(Fault::new("Hostname", host, "is empty"));
        }
        self.volume.clear();
        self.volume.extend_from_slice(host);
        self.volume.push(b'_');
        self.volume.extend_from_slice(plain("DiskNumber", disk)?);
        let (offset, size) = (number("Offset", offset)?, number("Size", size)?);
        rows.request(time_ns, &self.volume, op(kind)?, offset, size)?;
        Ok(Line::Record)
    }
}

fn op(kind: &[u8]) -> Result<Op, Fault> {
    if kind.eq_ignore_ascii_case(b"Read") {
        Ok(Op::Read)
    } else if kind.eq_ignore_ascii_case(b"Write") {
        Ok(Op::Write)
    } else {
        Err(Fault::new("Type", kind, "is neither Read nor Write"))
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::tests::{bad_field, good, names, read, write};
    use crate::trace::{Action, Format};

    #[test]
    fn ticks_of_1601_and_volumes_by_host_and_disk() {
        let trace = good(
            Format::Msr,
            b"Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime\r\n\
              128166385295515175,hm,0,Write,4096,512,2617\r\n\
              128166385295514663,web,0,Read,0,1024,2833\r\n\
              128166385295515175,hm,1,write,0,0,1",
        );
        assert_eq!(names(&trace), ["hm_0", "web_0"]);
        assert_eq!(trace.rows.iter().map(|r| r.time_ns).collect::<Vec<_>>(), [0, 51_200]);
        assert_eq!(
            trace.rows.iter().map(|r| r.action).collect::<Vec<Action>>(),
            [read(0, 1024), write(4096, 512)]
        );
        assert_eq!(trace.start_unix_ns, Some(1_172_164_929_551_466_300));
        assert_eq!((trace.rows_read, trace.empty_rows), (3, 1));
    }

    #[test]
    fn times_before_1970_have_no_unix_time() {
        assert_eq!(good(Format::Msr, b"1,h,0,Read,0,512,1\n").start_unix_ns, None);
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("128166385295514663,hm,0,Write,4096", "row"),
            ("128166385295514663,hm,0,Write,4096,512,1,9", "row"),
            ("99999999999999999999,hm,0,Write,4096,512,1", "Timestamp"),
            ("18446744073709551615,hm,0,Write,4096,512,1", "Timestamp"),
            ("x28166385295514663,hm,0,Write,4096,512,1", "Timestamp"),
            ("128166385295514663,,0,Write,4096,512,1", "Hostname"),
            ("128166385295514663,hm,x,Write,4096,512,1", "DiskNumber"),
            ("128166385295514663,hm,0,Trim,4096,512,1", "Type"),
            ("128166385295514663,hm,0,Write,-1,512,1", "Offset"),
            ("128166385295514663,hm,0,Write,1,5.5,1", "Size"),
            ("1,hm,0,Write,18446744073709551615,1,1", "offset + length"),
        ] {
            bad_field(Format::Msr, row.as_bytes(), field);
        }
    }
}
