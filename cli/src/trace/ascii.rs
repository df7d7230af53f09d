//! The simulators' ASCII: `arrival device LBA size type`, between spaces or tabs.
//!
//! LBA and size count sectors. SSDsim and MQSim: whole arrival in nanoseconds, type 0 writes and 1
//! reads (the opposite of most CSV formats). DiskSim: decimal arrival in milliseconds, type is hex
//! flags whose bit 0 says read. The unit of MQSim's arrival stands outside the file; nanoseconds,
//! as in the traces it ships, is assumed.

use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{
    is_decimal, is_number, milliseconds, plain, sectors, ticks, words, wrong_count,
};
use super::input::{Line, LineFormat};

/// Whether a line has this shape, with a whole arrival.
pub(super) fn fits_integer(line: &[u8]) -> bool {
    let (fields, count) = fields(line);
    count == 5 && fields.into_iter().all(is_number) && binary(fields[4]).is_ok()
}

/// Whether a line has this shape, with a decimal arrival.
pub(super) fn fits_decimal(line: &[u8]) -> bool {
    let ([arrival, device, lba, size, kind], count) = fields(line);
    count == 5
        && arrival.contains(&b'.')
        && is_decimal(arrival)
        && [device, lba, size].into_iter().all(is_number)
        && flags(kind).is_ok()
}

/// Reads the lines of one of the two shapes.
pub(super) struct Lines {
    decimal: bool,
}

impl Lines {
    /// SSDsim and MQSim.
    pub(super) fn integer() -> Lines {
        Lines { decimal: false }
    }

    /// DiskSim.
    pub(super) fn decimal() -> Lines {
        Lines { decimal: true }
    }
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], _: u64, rows: &mut Collector) -> Result<Line, Fault> {
        let ([arrival, device, lba, size, kind], count) = fields(line);
        if count != 5 {
            return Err(wrong_count(line, count, "5"));
        }
        let (time_ns, op) = if self.decimal {
            (milliseconds("arrival", arrival)?, flags(kind)?)
        } else {
            (ticks("arrival", arrival, 1)?, binary(kind)?)
        };
        let volume = plain("device", device)?;
        rows.request(time_ns, volume, op, sectors("LBA", lba)?, sectors("size", size)?)?;
        Ok(Line::Record)
    }
}

fn fields(line: &[u8]) -> ([&[u8]; 5], usize) {
    let mut fields: [&[u8]; 5] = [b""; 5];
    let mut count = 0;
    for word in words(line) {
        if let Some(field) = fields.get_mut(count) {
            *field = word;
        }
        count += 1;
    }
    (fields, count)
}

fn binary(kind: &[u8]) -> Result<Op, Fault> {
    match kind {
        b"0" => Ok(Op::Write),
        b"1" => Ok(Op::Read),
        _ => Err(Fault::new("type", kind, "is neither 0 (write) nor 1 (read)")),
    }
}

fn flags(kind: &[u8]) -> Result<Op, Fault> {
    let digits = kind.strip_prefix(b"0x").unwrap_or(kind);
    let flags = str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'));
    match flags.and_then(|d| u32::from_str_radix(d, 16).ok()) {
        Some(flags) if flags & 1 == 1 => Ok(Op::Read),
        Some(_) => Ok(Op::Write),
        None => Err(Fault::new("type", kind, "is no hexadecimal number of 32 bits")),
    }
}

#[cfg(test)]
mod tests {
    use crate::trace::tests::{bad_field, forced, good, names, read, write};
    use crate::trace::{Action, Format, Trace};

    fn rows(trace: &Trace) -> Vec<(u64, Action)> {
        trace.rows.iter().map(|r| (r.time_ns, r.action)).collect()
    }

    #[test]
    fn zero_writes_in_ssdsim() {
        let trace = good(Format::Ssdsim, b"1000 0 8 8 0\n3500\t1\t16\t1\t1");
        assert_eq!(names(&trace), ["0", "1"]);
        assert_eq!(rows(&trace), [(0, write(4096, 4096)), (2500, read(8192, 512))]);
    }

    #[test]
    fn mqsim_is_the_same_by_request() {
        let trace = forced(Format::Mqsim, b"1000 0 8 8 0\n").unwrap();
        assert_eq!((trace.format, rows(&trace)), (Format::Mqsim, vec![(0, write(4096, 4096))]));
    }

    #[test]
    fn disksim_has_milliseconds_and_flags() {
        let trace = good(Format::Disksim, b"0.5 0 8 8 a\n 1.000001 0 8 8 0x41\n2 0 0 1 1\n");
        assert_eq!(
            rows(&trace),
            [(0, write(4096, 4096)), (500_001, read(4096, 4096)), (1_500_000, read(0, 512))]
        );
    }

    #[test]
    fn bad_rows_name_their_field() {
        for (row, field) in [
            ("1000 0 8 8", "row"),
            ("1000 0 8 8 0 0", "row"),
            ("1000.5 0 8 8 0", "arrival"),
            ("x 0 8 8 0", "arrival"),
            ("1000 a 8 8 0", "device"),
            ("1000 0 -8 8 0", "LBA"),
            ("1000 0 8 x 0", "size"),
            ("1000 0 8 8 2", "type"),
        ] {
            bad_field(Format::Ssdsim, row.as_bytes(), field);
        }
        bad_field(Format::Disksim, b"1.5 0 8 8 +1", "type");
        bad_field(Format::Disksim, b"1e5 0 8 8 1", "arrival");
    }
}
