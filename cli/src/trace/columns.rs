//! The formats that are columns: MSR Cambridge, Alibaba, Tencent, SYSTOR '17 and SPC, each a map of
//! its columns.
//!
//! A line is cut by the `csv` crate, so that fields may stand in double quotes. Fields may be
//! separated by commas, semicolons or tabs: the file's beginning tells. Lines are read one by one,
//! so that a quote that does not end spoils no other line.
//!
//! | format | peculiar to it |
//! |---|---|
//! | MSR | time in ticks of 100 ns since 1601; disk numbers repeat across hosts, so that a volume is a host and a disk, `hm_0` |
//! | Alibaba | bytes, and microseconds since 1970; the volume first and the time last |
//! | Tencent | sectors, and whole seconds since 1970: thousands of rows share a time, and a few go back by one second; 0 reads and 1 writes |
//! | SPC, as UMass publishes | LBA in sectors, size in bytes, decimal seconds since the trace's start; more fields may follow, varying by line |
//! | SYSTOR '17 | decimal seconds since 1970, in the order of completion: a quarter of the rows go back; Response may be empty, and so may IOType: such a row is no request that could be replayed |
//!
//! A header line is tolerated in all of them: SYSTOR '17 has one, again where files were joined.
//! SYSTOR's files are called `<hour>-LUN<n>.csv.gz`, and the published ones say 0 in the column
//! whatever their LUN: then the name counts.

use std::io::{self, Read};

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator, Trim};

use super::Format;
use super::collect::{Collector, Op};
use super::error::Fault;
use super::field::{is_decimal, is_number, number, plain, seconds, sectors, ticks, wrong_count};
use super::input::{Line, LineFormat};

#[cfg(test)]
mod tests;

/// From the zero of Windows filetimes, MSR's clock, to 1970.
pub(super) const MSR_EPOCH_BEFORE_UNIX_NS: u64 = 11_644_473_600 * 1_000_000_000;

/// The bytes that may stand between fields, the likeliest first.
pub(super) const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The place of everything in the rows of a format.
pub(super) struct Columns {
    pub(super) format: Format,
    /// The names of the columns, as in messages and header lines.
    names: &'static [&'static str],
    /// Whether more fields may follow.
    more: bool,
    time: usize,
    /// The unit of a whole time, in nanoseconds; `None` if times are decimal seconds.
    tick_ns: Option<u64>,
    volume: usize,
    /// The beginning of every volume's name.
    prefix: &'static str,
    /// A column whose text belongs to the name of the volume.
    host: Option<usize>,
    kind: usize,
    /// The kinds of a read and a write, in either case.
    kinds: [&'static str; 2],
    /// A column of decimal seconds that may be empty; if there is one, the kind may be too.
    response: Option<usize>,
    offset: (usize, Number),
    size: (usize, Number),
}

/// How a number is read, in bytes.
type Number = fn(&'static str, &[u8]) -> Result<u64, Fault>;

/// The map that the others name their differences from: MSR's, without its host and kinds.
const PLAIN: Columns = Columns {
    format: Format::Msr,
    names: &["Timestamp", "Hostname", "DiskNumber", "Type", "Offset", "Size", "ResponseTime"],
    more: false,
    time: 0,
    tick_ns: Some(100),
    volume: 2,
    prefix: "",
    host: None,
    kind: 3,
    kinds: ["R", "W"],
    response: None,
    offset: (4, number),
    size: (5, number),
};

/// The maps, in the order in which a line is tried.
pub(super) static FORMATS: [Columns; 5] = [
    Columns { host: Some(1), kinds: ["Read", "Write"], ..PLAIN },
    Columns {
        format: Format::Systor,
        names: &["Timestamp", "Response", "IOType", "LUN", "Offset", "Size"],
        time: 0,
        tick_ns: None,
        volume: 3,
        prefix: LUN,
        kind: 2,
        response: Some(1),
        offset: (4, number),
        size: (5, number),
        ..PLAIN
    },
    Columns {
        format: Format::Alibaba,
        names: &["device_id", "opcode", "offset", "length", "timestamp"],
        time: 4,
        tick_ns: Some(1_000),
        volume: 0,
        kind: 1,
        offset: (2, number),
        size: (3, number),
        ..PLAIN
    },
    Columns {
        format: Format::Tencent,
        names: &["Timestamp", "Offset", "Size", "IOType", "VolumeID"],
        time: 0,
        tick_ns: Some(1_000_000_000),
        volume: 4,
        kind: 3,
        kinds: ["0", "1"],
        offset: (1, sectors),
        size: (2, sectors),
        ..PLAIN
    },
    Columns {
        format: Format::Spc,
        names: &["ASU", "LBA", "Size", "Opcode", "Timestamp"],
        more: true,
        time: 4,
        tick_ns: None,
        volume: 0,
        kind: 3,
        offset: (1, sectors),
        size: (2, number),
        ..PLAIN
    },
];

/// The beginning of the names of SYSTOR's volumes.
const LUN: &str = "LUN";

impl Columns {
    /// The map of a format that is one of columns.
    pub(super) fn of(format: Format) -> &'static Columns {
        FORMATS.iter().find(|columns| columns.format == format).expect("a format of columns")
    }

    /// Whether a line cut into fields is a row or the header of this format.
    pub(super) fn fits(&self, fields: &ByteRecord) -> bool {
        let names = || self.names.iter().map(|name| name.as_bytes());
        let is_time =
            |text| if self.tick_ns.is_some() { is_number(text) } else { is_decimal(text) };
        let is_response = |at: usize| fields[at].is_empty() || is_decimal(&fields[at]);
        self.has_count(fields)
            && (fields.iter().zip(names()).all(|(field, name)| field.eq_ignore_ascii_case(name))
                || (is_time(&fields[self.time])
                    && [self.volume, self.offset.0, self.size.0]
                        .iter()
                        .all(|&at| is_number(&fields[at]))
                    && self.response.is_none_or(is_response)
                    && self.op(fields).is_ok()))
    }

    fn has_count(&self, fields: &ByteRecord) -> bool {
        fields.len() == self.names.len() || (self.more && fields.len() > self.names.len())
    }

    /// The operation; `None` if the capture did not know it.
    fn op(&self, fields: &ByteRecord) -> Result<Option<Op>, Fault> {
        let (text, [read, write]) = (&fields[self.kind], self.kinds);
        match text {
            b"" if self.response.is_some() => Ok(None),
            _ if text.eq_ignore_ascii_case(read.as_bytes()) => Ok(Some(Op::Read)),
            _ if text.eq_ignore_ascii_case(write.as_bytes()) => Ok(Some(Op::Write)),
            _ => {
                let problem = format!("is neither {read} (read) nor {write} (write)");
                Err(Fault::new(self.names[self.kind], text, problem))
            }
        }
    }
}

/// Reads the rows of a file; holds the volume's name between them.
pub(super) struct Lines {
    columns: &'static Columns,
    cutter: Cutter,
    /// The LUN that the file's name has, where such names count.
    lun: Option<Vec<u8>>,
    volume: Vec<u8>,
}

impl Lines {
    /// For the file of this name that begins with `head`.
    pub(super) fn new(columns: &'static Columns, name: &str, head: &[u8]) -> Lines {
        let found = |separator: &u8| head.iter().filter(|byte| *byte == separator).count();
        // Of equals the last is taken, which must be the likeliest.
        let separator = SEPARATORS.into_iter().rev().max_by_key(found).expect("there are some");
        let lun = if columns.prefix == LUN { lun(name) } else { None };
        Lines { columns, cutter: Cutter::new(separator), lun, volume: Vec::new() }
    }
}

/// The LUN in the name of a file.
fn lun(name: &str) -> Option<Vec<u8>> {
    let base = name.rsplit('/').next()?;
    let (_, rest) = base.split_once("-LUN")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    plain(LUN, digits.as_bytes()).ok().map(<[u8]>::to_vec)
}

impl LineFormat for Lines {
    fn line(&mut self, line: &[u8], number: u64, rows: &mut Collector) -> Result<Line, Fault> {
        let columns = self.columns;
        let separator = self.cutter.separator;
        let fields = self.cutter.cut(line)?;
        if is_header(fields, number, columns.names[0]) {
            return Ok(Line::Text);
        }
        if !columns.has_count(fields) {
            let least = if columns.more { "at least " } else { "" };
            let separator = separator.escape_ascii();
            let wanted = format!("{least}{} between '{separator}'", columns.names.len());
            return Err(wrong_count(line, fields.len(), &wanted));
        }
        let field = |at: usize| (columns.names[at], &fields[at]);

        let (name, time) = field(columns.time);
        let time_ns = match columns.tick_ns {
            Some(tick_ns) => ticks(name, time, tick_ns)?,
            None => seconds(name, time)?,
        };
        if let Some((name, response)) = columns.response.map(field)
            && !response.is_empty()
        {
            seconds(name, response)?;
        }
        self.volume.clear();
        self.volume.extend_from_slice(columns.prefix.as_bytes());
        if let Some((name, host)) = columns.host.map(field) {
            if host.is_empty() {
                return Err(Fault::new(name, host, "is empty"));
            }
            self.volume.extend_from_slice(host);
            self.volume.push(b'_');
        }
        let (name, volume) = field(columns.volume);
        match (plain(name, volume)?, &self.lun) {
            (b"0", Some(lun)) => self.volume.extend_from_slice(lun),
            (volume, _) => self.volume.extend_from_slice(volume),
        }
        let bytes = |(at, number): (usize, Number)| {
            let (name, text) = field(at);
            number(name, text)
        };
        let (offset, size) = (bytes(columns.offset)?, bytes(columns.size)?);
        if let Some(op) = columns.op(fields)? {
            rows.request(time_ns, &self.volume, op, offset, size)?;
        }
        Ok(Line::Record)
    }
}

/// Whether a line names its columns: its first field is `name`, or it is the first line of the
/// file, begins with a letter, and no field is a number, as some of a damaged row would be.
fn is_header(fields: &ByteRecord, number: u64, name: &str) -> bool {
    let first = &fields[0];
    first.eq_ignore_ascii_case(name.as_bytes())
        || (number == 1
            && first.first().is_some_and(u8::is_ascii_alphabetic)
            && !fields.iter().any(is_decimal))
}

/// Cuts lines into fields.
pub(super) struct Cutter {
    separator: u8,
    reader: Reader<OneLine>,
    fields: ByteRecord,
}

impl Cutter {
    pub(super) fn new(separator: u8) -> Cutter {
        let reader = ReaderBuilder::new()
            .delimiter(separator)
            .has_headers(false)
            .flexible(true)
            .trim(Trim::Fields)
            .terminator(Terminator::Any(b'\n'))
            .from_reader(OneLine::default());
        Cutter { separator, reader, fields: ByteRecord::new() }
    }

    /// The fields of a line, trimmed; at least one.
    pub(super) fn cut(&mut self, line: &[u8]) -> Result<&ByteRecord, Fault> {
        self.reader.get_mut().begin(line);
        let found = self.reader.read_byte_record(&mut self.fields).unwrap_or(false);
        if !found {
            // The reader has seen the end, and reads no more.
            *self = Cutter::new(self.separator);
            return Err(Fault::new("row", line, "is empty"));
        }
        if self.reader.get_ref().is_over {
            return Err(Fault::new("row", line, "has a quote that does not end in its line"));
        }
        Ok(&self.fields)
    }
}

/// The line that is to be cut, and a newline.
#[derive(Default)]
struct OneLine {
    bytes: Vec<u8>,
    taken: usize,
    /// More was asked for than there is.
    is_over: bool,
}

impl OneLine {
    fn begin(&mut self, line: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        (self.taken, self.is_over) = (0, false);
    }
}

impl Read for OneLine {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.bytes[self.taken..]).read(buffer)?;
        self.taken += read;
        self.is_over = read == 0;
        Ok(read)
    }
}
