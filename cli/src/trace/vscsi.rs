//! CloudPhysics vscsi: binary records, little-endian, without a header. Names no volume: the file's
//! name stands in.
//!
//! | version | record |
//! |---|---|
//! | 1, 32 bytes | `u32 sn; u32 len; u32 nSG; u16 cmd; u16 ver; u64 lbn; u64 ts` |
//! | 2, 40 bytes | `u16 cmd; u16 ver; u32 sn; u32 len; u32 nSG; u64 lbn; u64 ts; u64 rt` |
//!
//! `len` is bytes, `lbn` sectors, `ts` microseconds, `cmd` the SCSI operation code; `ver >> 8` is
//! the version. Serial numbers do not rise: times are the order. Commands that neither read nor
//! write data are left out, but for the two that flush.

use std::io::{ErrorKind, Read};

use super::collect::{Collector, Op};
use super::error::{Fault, Place, TraceError};
use super::input::Source;
use afterimage::internal::unit::SECTOR;

/// How many of the first records are looked at to tell the version.
const TESTED: usize = 16;

/// The layouts of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Version 1.
    One,
    /// Version 2.
    Two,
}

/// The layout that most of the first records have; a damaged one among them does not matter.
pub(super) fn layout(head: &[u8]) -> Option<Layout> {
    [Layout::One, Layout::Two].into_iter().find(|&layout| {
        let records = || head.chunks_exact(layout.size()).take(TESTED);
        let sound = records().filter(|record| layout.cut(record).is_sound(layout)).count();
        sound * 2 > records().count()
    })
}

/// Reads the records of a file.
pub(super) fn read(mut source: Source<'_>, rows: &mut Collector) -> Result<(), TraceError> {
    let volume = rows.file_volume();
    let gzip = source.is_gzip();
    let head = &source.head()[..source.head().len().min(16)];
    let Some(layout) = layout(source.head()) else {
        if head.is_empty() {
            return Ok(());
        }
        let problem = "begins no record of version 1 or 2: the file is no vscsi trace, or damaged";
        let fault = Fault::new("ver", head, problem);
        rows.count_record();
        return rows.bad_row(Place::Record { number: 0, offset: 0 }, fault, false);
    };

    let mut block = vec![0; layout.size() * 1024];
    let mut place = Place::Record { number: 0, offset: 0 };
    let mut number = 0;
    loop {
        let (filled, outcome) = fill(&mut source, &mut block);
        for bytes in block[..filled].chunks(layout.size()) {
            if rows.is_full() {
                return Ok(());
            }
            place = Place::Record { number, offset: number * layout.size() as u64 };
            number += 1;
            if bytes.len() < layout.size() {
                // Of a damaged stream only the damage is told.
                if outcome.is_ok() {
                    let fault = Fault::new("record", bytes, "is shorter than a record");
                    rows.count_record();
                    rows.bad_row(place, fault, true)?;
                }
                continue;
            }
            rows.count_record();
            if let Err(fault) = request(layout, &layout.cut(bytes), &volume, rows) {
                rows.bad_row(place, fault, false)?;
            }
        }
        match outcome {
            Err(error) => return rows.stopped(place, error, gzip),
            Ok(()) if filled < block.len() => return Ok(()),
            Ok(()) => {}
        }
    }
}

/// Fills the block as far as the bytes reach; says how far, and what stopped it.
fn fill(source: &mut Source<'_>, block: &mut [u8]) -> (usize, std::io::Result<()>) {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

fn request(
    layout: Layout,
    record: &Record,
    volume: &[u8],
    rows: &mut Collector,
) -> Result<(), Fault> {
    if !record.is_sound(layout) {
        let text = format!("{:#06x}", record.version);
        return Err(Fault::new(
            "ver",
            text.as_bytes(),
            "is not the version of the other records, or cmd no SCSI command",
        ));
    }
    let too_large = |name, value: u64| {
        Fault::new(name, value.to_string().as_bytes(), "is too large for 64 bits")
    };
    let time_ns = record.time_us.checked_mul(1_000);
    let time_ns = time_ns.ok_or_else(|| too_large("ts", record.time_us))?;
    let op = match record.command {
        0x08 | 0x28 | 0x88 | 0xa8 => Op::Read,
        0x0a | 0x2a | 0x8a | 0xaa => Op::Write,
        // SYNCHRONIZE CACHE, with 10 and with 16 bytes.
        0x35 | 0x91 => {
            rows.flush(time_ns, volume);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let offset = record.sector.checked_mul(SECTOR);
    let offset = offset.ok_or_else(|| too_large("lbn", record.sector))?;
    rows.request(time_ns, volume, op, offset, u64::from(record.length))
}

/// The fields of a record that matter here.
struct Record {
    command: u16,
    version: u16,
    length: u32,
    sector: u64,
    time_us: u64,
}

impl Record {
    fn is_sound(&self, layout: Layout) -> bool {
        self.version >> 8 == layout.version() && self.command <= 0xff
    }
}

impl Layout {
    fn size(self) -> usize {
        match self {
            Layout::One => 32,
            Layout::Two => 40,
        }
    }

    fn version(self) -> u16 {
        match self {
            Layout::One => 1,
            Layout::Two => 2,
        }
    }

    /// Takes a record apart; `bytes` is as long as the layout says.
    fn cut(self, bytes: &[u8]) -> Record {
        let (command, version, length, sector, time) = match self {
            Layout::One => (12, 14, 4, 16, 24),
            Layout::Two => (0, 2, 8, 16, 24),
        };
        Record {
            command: u16::from_le_bytes(at(bytes, command)),
            version: u16::from_le_bytes(at(bytes, version)),
            length: u32::from_le_bytes(at(bytes, length)),
            sector: u64::from_le_bytes(at(bytes, sector)),
            time_us: u64::from_le_bytes(at(bytes, time)),
        }
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("a record holds its fields")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::{forced, good, names, read, skipping, write};
    use crate::trace::{Action, Format};

    fn one(sn: u32, len: u32, cmd: u16, ver: u16, lbn: u64, ts: u64) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend([sn, len, 1].iter().flat_map(|v| v.to_le_bytes()));
        record.extend([cmd, ver].iter().flat_map(|v| v.to_le_bytes()));
        record.extend([lbn, ts].iter().flat_map(|v| v.to_le_bytes()));
        record
    }

    fn two(sn: u32, len: u32, cmd: u16, ver: u16, lbn: u64, ts: u64) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend([cmd, ver].iter().flat_map(|v| v.to_le_bytes()));
        record.extend([sn, len, 1].iter().flat_map(|v| v.to_le_bytes()));
        record.extend([lbn, ts, 77].iter().flat_map(|v| v.to_le_bytes()));
        record
    }

    #[test]
    fn both_versions_say_the_same() {
        for (make, version) in [(one as fn(_, _, _, _, _, _) -> _, 0x100), (two, 0x200)] {
            let bytes = [
                make(9, 4096, 0x2a, version, 7, 5_633_898_368_802),
                make(3, 512, 0x88, version, 0, 5_633_898_368_900),
                make(4, 0, 0x35, version, 0, 5_633_898_368_901),
                make(5, 36, 0x12, version, 0, 5_633_898_368_902),
                make(6, 0, 0x28, version, 0, 5_633_898_368_903),
            ];
            let trace = good(Format::Vscsi, &bytes.concat());
            assert_eq!(names(&trace), ["hand-made"]);
            let rows: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
            let expected =
                [(0, write(7 * 512, 4096)), (98_000, read(0, 512)), (99_000, Action::Flush)];
            assert_eq!(rows, expected);
            assert_eq!((trace.rows_read, trace.other_rows, trace.empty_rows), (5, 1, 1));
        }
    }

    #[test]
    fn bad_records_are_named_by_number_and_byte() {
        let mut bytes: Vec<u8> = (0..9).flat_map(|n| one(n, 512, 0x2a, 0x100, 0, 1)).collect();
        bytes.extend(one(9, 512, 0x2a, 0x300, 0, 1));
        let error = forced(Format::Vscsi, &bytes).unwrap_err();
        assert_eq!(error.place(), Some(Place::Record { number: 9, offset: 288 }));
        assert_eq!(error.field(), Some("ver"));

        bytes.extend(one(9, 512, 0x2a, 0x100, u64::MAX, 1));
        bytes.extend(one(9, 512, 0x2a, 0x100, 0, u64::MAX));
        bytes.extend(&one(9, 512, 0x2a, 0x100, 0, 1)[..31]);
        let trace = skipping(Format::Vscsi, &bytes);
        assert_eq!((trace.rows.len(), trace.bad_rows, trace.rows_read), (9, 4, 13));

        bytes[14..16].fill(0xff);
        let error = forced(Format::Vscsi, &bytes).unwrap_err();
        assert_eq!(error.place(), Some(Place::Record { number: 0, offset: 0 }));
        assert_eq!(skipping(Format::Vscsi, &bytes).bad_rows, 5);
    }

    #[test]
    fn text_is_no_vscsi() {
        let error = forced(Format::Vscsi, &[b'1'; 100]).unwrap_err();
        assert_eq!(error.field(), Some("ver"));
    }
}
