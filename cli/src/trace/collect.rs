//! Keeps the rows of a trace while its files are read: volumes, counts, limits, the final order.
//!
//! Rows are checked before they are kept: whole sectors, not empty, and within the largest volume
//! that a device can have.

use std::collections::HashMap;
use std::io;

use super::error::{Fault, Place, TraceError};
use super::{Action, Format, Row, Trace, VolumeInfo};
use afterimage::internal::unit::SECTOR;

/// The unit that volume sizes are rounded up to, in bytes.
const SIZE_UNIT: u64 = 1 << 20;

/// Where the largest volume ends, in bytes: devices take volumes below 4 EiB.
const END_MAX: u64 = (1 << 62) - SIZE_UNIT;

/// Kinds of requests that have a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Discard,
    Zero,
}

/// The rows of a trace so far, times as in the files.
pub(super) struct Collector {
    skip_bad_rows: bool,
    room: u64,
    /// The names of all files of the trace, if there are several.
    pub(super) files: Vec<String>,
    file: String,
    /// The line in hand ends its file without a newline, and may be half a line.
    pub(super) is_cut: bool,
    rows: Vec<Row>,
    order: Order,
    volumes: Volumes,
    rows_read: u64,
    bad_rows: u64,
    empty_rows: u64,
    rounded_rows: u64,
    pub(super) warnings: Vec<String>,
    pub(super) has_time: bool,
}

impl Collector {
    pub(super) fn new(skip_bad_rows: bool, limit_rows: Option<u64>) -> Collector {
        Collector {
            skip_bad_rows,
            room: limit_rows.unwrap_or(u64::MAX),
            files: Vec::new(),
            file: String::new(),
            is_cut: false,
            rows: Vec::new(),
            order: Order::default(),
            volumes: Volumes::default(),
            rows_read: 0,
            bad_rows: 0,
            empty_rows: 0,
            rounded_rows: 0,
            warnings: Vec::new(),
            has_time: true,
        }
    }

    pub(super) fn begin_file(&mut self, name: &str) {
        self.end_section();
        self.order.ended_at = None;
        self.file = name.to_string();
    }

    /// Ends a section of the file: its clock starts again behind. The next section begins when this
    /// one ended, so that no row of it comes between the rows of this one. Without rows there is no
    /// section.
    ///
    /// Sections that are longer together than 64 bits of nanoseconds end at the largest time.
    pub(super) fn end_section(&mut self) {
        let rows = &mut self.rows[self.order.section_at..];
        let times = rows.iter().map(|row| row.time_ns);
        let (Some(first), Some(mut last)) = (times.clone().min(), times.max()) else { return };
        if let Some(begins_at) = self.order.ended_at {
            let moved = |time_ns: u64| (time_ns - first).saturating_add(begins_at);
            rows.iter_mut().for_each(|row| row.time_ns = moved(row.time_ns));
            last = moved(last);
        }
        self.order.ended_at = Some(last);
        self.order.section_at = self.rows.len();
        self.order.sections += 1;
        self.order.latest = 0;
    }

    /// Whether the section in hand has rows.
    pub(super) fn has_section(&self) -> bool {
        self.order.section_at < self.rows.len()
    }

    /// How many more rows may come.
    pub(super) fn room(&self) -> u64 {
        self.room
    }

    pub(super) fn is_full(&self) -> bool {
        self.room == 0
    }

    /// The name of the volume of a file whose format names none: the file's, without directory
    /// and extension unless another file would be called the same.
    pub(super) fn file_volume(&self) -> Vec<u8> {
        let short = stem(&self.file);
        let is_shared = |other: &String| *other != self.file && stem(other) == short;
        let name = if self.files.iter().any(is_shared) { &self.file } else { short };
        name.as_bytes().to_vec()
    }

    /// Keeps a read, write or discard.
    pub(super) fn request(
        &mut self,
        time_ns: u64,
        volume: &[u8],
        op: Op,
        offset: u64,
        length: u64,
    ) -> Result<(), Fault> {
        let Some(extent) = whole_sectors(offset, length)? else {
            self.empty_rows += 1;
            return Ok(());
        };
        if (extent.offset, extent.length) != (offset, length) {
            self.rounded_rows += 1;
        }
        self.push(
            volume,
            Row { time_ns, volume: 0, fua: false, preflush: false, action: extent.action(op) },
        );
        Ok(())
    }

    /// Keeps a flush.
    pub(super) fn flush(&mut self, time_ns: u64, volume: &[u8]) {
        let row = Row { time_ns, volume: 0, fua: false, preflush: true, action: Action::Flush };
        self.push(volume, row);
    }

    /// Keeps a row whose range was already checked; the volume's number is filled in here.
    pub(super) fn push(&mut self, volume: &[u8], row: Row) {
        let volume = self.volumes.number(volume);
        if let Action::Read { offset, length }
        | Action::Write { offset, length }
        | Action::Discard { offset, length }
        | Action::Zero { offset, length } = row.action
        {
            self.volumes.holds(volume, offset + length);
        }
        self.order.row(row.time_ns);
        self.rows.push(Row { volume, ..row });
        self.room = self.room.saturating_sub(1);
    }

    /// Counts a record that was looked at.
    pub(super) fn count_record(&mut self) {
        self.rows_read += 1;
    }

    /// Counts a bad row, or makes it the error that ends the reading.
    pub(super) fn bad_row(&mut self, at: Place, fault: Fault, cut: bool) -> Result<(), TraceError> {
        if !self.skip_bad_rows {
            return Err(TraceError::bad_row(&self.file, at, fault, cut));
        }
        self.bad_rows += 1;
        Ok(())
    }

    /// Takes what precedes the damage in a gzip stream, if bad rows are to be left out; any other
    /// failure to read ends the reading.
    pub(super) fn stopped(
        &mut self,
        at: Place,
        error: io::Error,
        gzip: bool,
    ) -> Result<(), TraceError> {
        if !gzip || !is_damage(&error) {
            return Err(TraceError::read(&self.file, Some(at), error));
        }
        if !self.skip_bad_rows {
            return Err(TraceError::damaged(&self.file, Some(at), error));
        }
        self.rows_read += 1;
        self.bad_rows += 1;
        Ok(())
    }

    /// Sorts, rebases, and hands over.
    pub(super) fn finish(mut self, format: Format) -> Trace {
        self.end_section();
        let mut rows = self.rows;
        if self.has_time {
            rows.sort_by_key(|row| row.time_ns);
        } else {
            rows.iter_mut().for_each(|row| row.time_ns = 0);
        }
        let start = rows.first().map_or(0, |row| row.time_ns);
        rows.iter_mut().for_each(|row| row.time_ns -= start);
        let start_unix_ns = match format.epoch_before_unix_ns() {
            Some(before) if !rows.is_empty() => start.checked_sub(before),
            _ => None,
        };
        let kept = rows.len() as u64 + self.bad_rows + self.empty_rows;
        Trace {
            rows,
            volumes: self.volumes.finish(),
            format,
            rows_read: self.rows_read,
            bad_rows: self.bad_rows,
            empty_rows: self.empty_rows,
            other_rows: self.rows_read - kept,
            rounded_rows: self.rounded_rows,
            sections: self.order.sections,
            out_of_order_rows: self.order.rows,
            largest_step_back_ns: self.order.largest_step_ns,
            warnings: self.warnings,
            has_time: self.has_time,
            start_unix_ns,
        }
    }
}

/// The order in which rows stand in their files.
#[derive(Default)]
struct Order {
    /// The number of the first row of the section in hand.
    section_at: usize,
    /// When the section before it ended, on the file's clock; `None` in a file's first.
    ended_at: Option<u64>,
    /// Sections with rows.
    sections: u64,
    /// The latest time in the section in hand.
    latest: u64,
    /// Rows that stand behind a later one in their section.
    rows: u64,
    largest_step_ns: u64,
}

impl Order {
    fn row(&mut self, time_ns: u64) {
        self.rows += u64::from(time_ns < self.latest);
        self.largest_step_ns = self.largest_step_ns.max(self.latest.saturating_sub(time_ns));
        self.latest = self.latest.max(time_ns);
    }
}

/// The name of a file without directory and extension.
fn stem(file: &str) -> &str {
    let base = file.rsplit('/').next().unwrap_or_default();
    let base = base.strip_suffix(".gz").unwrap_or(base);
    match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => base,
    }
}

/// Whether the error means that the gzip stream itself is cut or damaged.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | InvalidInput | InvalidData)
}

/// A range of whole sectors, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    offset: u64,
    length: u64,
}

impl Extent {
    pub(super) fn action(self, op: Op) -> Action {
        let Extent { offset, length } = self;
        match op {
            Op::Read => Action::Read { offset, length },
            Op::Write => Action::Write { offset, length },
            Op::Discard => Action::Discard { offset, length },
            Op::Zero => Action::Zero { offset, length },
        }
    }
}

/// The range widened to whole sectors; `None` if it is empty.
pub(super) fn whole_sectors(offset: u64, length: u64) -> Result<Option<Extent>, Fault> {
    let end = offset.checked_add(length).filter(|&end| end <= END_MAX);
    let Some(end) = end else {
        let text = format!("{offset} + {length}");
        return Err(Fault::new(
            "offset + length",
            text.as_bytes(),
            "ends beyond any volume: they are below 4 EiB",
        ));
    };
    if length == 0 {
        return Ok(None);
    }
    let offset = offset / SECTOR * SECTOR;
    Ok(Some(Extent { offset, length: end.next_multiple_of(SECTOR) - offset }))
}

/// The volumes, by name and by number.
#[derive(Default)]
struct Volumes {
    numbers: HashMap<Box<[u8]>, u32>,
    infos: Vec<VolumeInfo>,
}

impl Volumes {
    fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.infos.len()).expect("fewer volumes than 2^32");
        let shown = String::from_utf8_lossy(name).into_owned();
        self.infos.push(VolumeInfo { name: shown, bytes: 0 });
        self.numbers.insert(name.into(), number);
        number
    }

    fn holds(&mut self, number: u32, end: u64) {
        let info = &mut self.infos[number as usize];
        info.bytes = info.bytes.max(end);
    }

    fn finish(mut self) -> Vec<VolumeInfo> {
        for info in &mut self.infos {
            info.bytes = info.bytes.max(1).next_multiple_of(SIZE_UNIT);
        }
        self.infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_outward_to_sectors() {
        let extent = |o, l| whole_sectors(o, l).unwrap().map(|e| (e.offset, e.length));
        assert_eq!(extent(0, 512), Some((0, 512)));
        assert_eq!(extent(511, 2), Some((0, 1024)));
        assert_eq!(extent(1024, 1), Some((1024, 512)));
        assert_eq!(extent(700, 0), None);
        assert!(whole_sectors(u64::MAX, 1).is_err());
        assert!(whole_sectors(END_MAX, 1).is_err());
        assert_eq!(extent(END_MAX - 512, 512), Some((END_MAX - 512, 512)));
    }

    #[test]
    fn volumes_are_numbered_as_they_appear_and_sized_in_mib() {
        let mut rows = Collector::new(false, None);
        rows.request(5, b"b", Op::Write, 0, 512).unwrap();
        rows.request(3, b"a", Op::Read, SIZE_UNIT, 512).unwrap();
        rows.flush(4, b"b");
        rows.flush(9, b"c");
        let trace = rows.finish_counted();
        let names: Vec<_> = trace.volumes.iter().map(|v| (v.name.as_str(), v.bytes)).collect();
        assert_eq!(names, [("b", SIZE_UNIT), ("a", 2 * SIZE_UNIT), ("c", SIZE_UNIT)]);
        let order: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.volume)).collect();
        assert_eq!(order, [(0, 1), (1, 0), (2, 0), (6, 2)]);
    }

    #[test]
    fn a_section_begins_when_the_one_before_ended() {
        let mut rows = Collector::new(false, None);
        for file in ["a", "b"] {
            rows.begin_file(file);
            for section in [&[7, 5, 9][..], &[], &[3, 1], &[u64::MAX]] {
                section.iter().for_each(|&time| rows.flush(time, b"a"));
                rows.end_section();
            }
        }
        let trace = rows.finish_counted();
        let order: Vec<_> = trace.rows.iter().map(|r| r.time_ns).collect();
        // 5, 7, 9; then 1 is 9 and 3 is 11; then the last is 11: of either file.
        assert_eq!(order, [0, 0, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6]);
        assert_eq!(
            (trace.sections, trace.out_of_order_rows, trace.largest_step_back_ns),
            (6, 4, 2)
        );
    }

    #[test]
    fn files_name_their_volume() {
        let mut rows = Collector::new(false, None);
        for (file, volume) in [
            ("a/b/w1.load.gz", "w1"),
            ("w2.vscsi", "w2"),
            ("stdin", "stdin"),
            (".hidden", ".hidden"),
        ] {
            rows.begin_file(file);
            assert_eq!(rows.file_volume(), volume.as_bytes());
        }
    }

    impl Collector {
        fn finish_counted(mut self) -> Trace {
            self.rows_read = self.rows.len() as u64;
            self.finish(Format::Spc)
        }
    }
}
