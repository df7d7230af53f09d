//! Real block traces, read into one list of requests.
//!
//! A trace is one or more files of one format, plain or gzipped. Whatever the format, what comes
//! out is the same: requests in bytes and nanoseconds, in the order in which they were issued.
//!
//! Rules that hold for every format:
//! - Rows are sorted by time; rows of the same time keep the order of the file (and files the order
//!   in which they were named). Times are counted from the earliest row, wherever it stood. Rows that
//!   stood behind a later one are counted, and so is the largest step back.
//! - A file that is several logs one after the other, each with a clock of its own, has as many
//!   sections. They keep the file's order: a section begins when the one before it ended. fio's logs
//!   have sections, and blkparse's and blkreplay's text where a summary or a header shows them;
//!   other formats show none, and what goes back there is sorted and counted.
//! - All files of a trace belong to one consistency group and share one clock. A volume that
//!   carries the same name in two files is the same volume; where the format names none, a file
//!   is a volume.
//! - A request that does not begin and end on a sector is widened to whole sectors and counted. A
//!   request of zero bytes is left out and counted.
//! - A row that cannot be understood is an error that names it, unless the caller chose to have
//!   such rows counted and left out. No input, however broken, makes the reader panic.
//! - Files are read as a stream; what stays in memory is a [`Row`] a request.
//!
//! One file a format holds what is peculiar to it, `columns` the maps of the five formats that are
//! columns; `field` reads numbers and times, `collect` keeps the rows, `input` opens and unpacks,
//! `detect` recognises.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;

mod ascii;
mod blkparse;
mod blkreplay;
mod collect;
mod columns;
mod detect;
mod error;
mod field;
mod fio;
mod input;
mod vscsi;

#[cfg(test)]
mod tests;

pub use error::{Kind, Place, TraceError};

use collect::Collector;
use columns::Columns;
use input::{Source, each_line};

use crate::words::plural;

/// Reads the files of one trace, merged.
///
/// # Errors
/// No file at all; a file that cannot be opened or read, is of no known format or of another than the first, or
/// holds a row that cannot be understood: by name, with the place.
pub fn read(inputs: &[Input], options: &Options) -> Result<Trace, TraceError> {
    let mut reading = Reading::new(options);
    reading.rows.files = inputs.iter().map(Input::name).collect();
    for input in inputs {
        let name = input.name();
        match input {
            Input::Stdin => reading.file(&name, Box::new(io::stdin().lock()))?,
            Input::Path(path) => {
                let file = File::open(path).map_err(|e| TraceError::open(&name, e))?;
                reading.file(&name, Box::new(file))?;
            }
        }
        if reading.rows.is_full() {
            break;
        }
    }
    reading.finish()
}

/// Reads a trace that is one file and in memory; `name` stands for the file's name.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(name: &str, bytes: &[u8], options: &Options) -> Result<Trace, TraceError> {
    let mut reading = Reading::new(options);
    reading.file(name, Box::new(bytes))?;
    reading.finish()
}

/// The body of the fuzz target `trace`: any bytes are an error or rows in order, never a panic.
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub fn fuzz_trace(bytes: &[u8]) {
    for skip_bad_rows in [false, true] {
        let options = Options { skip_bad_rows, ..Options::default() };
        if let Ok(trace) = read_bytes("fuzz", bytes, &options) {
            assert!(trace.rows.is_sorted_by_key(|row| row.time_ns));
            let rows = trace.rows.len() as u64;
            assert!(trace.sections <= rows && trace.out_of_order_rows + trace.sections <= rows);
            assert_eq!(trace.out_of_order_rows == 0, trace.largest_step_back_ns == 0);
        }
    }
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it was issued, in nanoseconds since the earliest row of the trace.
    pub time_ns: u64,
    /// Which volume it goes to, as an index into [`Trace::volumes`].
    pub volume: u32,
    /// It must be durable before it is answered (writes only).
    pub fua: bool,
    /// Everything answered before must be durable before it starts; always set with a flush.
    pub preflush: bool,
    /// The request's action.
    pub action: Action,
}

// A trace of a hundred million rows should fit into memory.
const _: () = assert!(size_of::<Row>() == 40);

/// The action of a request; offsets and lengths are in bytes, whole sectors, and never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read a range.
    Read {
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Write a range. Traces carry no payload: the bytes are the replayer's own.
    Write {
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Tell the volume that a range holds nothing of value.
    Discard {
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Make a range read as zeros: a write without data.
    Zero {
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Make durable what was answered before.
    Flush,
}

/// A trace as read.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The requests, sorted by time, file order among equals.
    pub rows: Vec<Row>,
    /// The volumes, numbered in the order in which the files first mention them.
    pub volumes: Vec<VolumeInfo>,
    /// The format of the files.
    pub format: Format,
    /// Records looked at: those in `rows`, the bad, the empty and the others. Header, comment and
    /// summary lines are no records.
    pub rows_read: u64,
    /// Records that could not be understood and were left out; a file cut or damaged inside its
    /// compressed stream counts as one more.
    pub bad_rows: u64,
    /// Requests of zero bytes, left out.
    pub empty_rows: u64,
    /// Sound records that are no requests to replay, left out: other events of the same request,
    /// commands without data, rows whose kind the capture did not know.
    pub other_rows: u64,
    /// Requests in `rows` that were widened to whole sectors.
    pub rounded_rows: u64,
    /// Logs with rows, each with a clock of its own: one a file, or several one after the other.
    pub sections: u64,
    /// Requests in `rows` that stood behind a later one in their section, and were sorted.
    pub out_of_order_rows: u64,
    /// The most by which such a request was earlier than one that stood before it, in nanoseconds.
    pub largest_step_back_ns: u64,
    /// Oddities of the files that do not keep them from being read, one sentence each.
    pub warnings: Vec<String>,
    /// Whether the trace says when its requests were issued: in every section. If not, all times are
    /// 0, and rows have the order of the files.
    pub has_time: bool,
    /// When the earliest row was issued, in nanoseconds since 1970, where the format knows.
    pub start_unix_ns: Option<u64>,
}

/// A volume of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name in the trace: host and disk, device number, LUN, or, where the format names no
    /// volume, the file's name: without directory and extension if no other file is then called
    /// the same.
    pub name: String,
    /// The smallest size that holds all its rows, rounded up to a whole, non-zero number of MiB.
    pub bytes: u64,
}

/// How to read a trace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Insist on this format instead of recognising it.
    pub format: Option<Format>,
    /// Count rows that cannot be understood and leave them out, instead of stopping at the first.
    pub skip_bad_rows: bool,
    /// Stop after so many usable rows, counted over all files in the order given, before sorting.
    pub limit_rows: Option<u64>,
}

/// Where the bytes of a trace come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    Path(PathBuf),
    /// Standard input, written `-`.
    Stdin,
}

impl Input {
    /// Its name in messages.
    fn name(&self) -> String {
        match self {
            Input::Stdin => "stdin".into(),
            Input::Path(path) => path.display().to_string(),
        }
    }
}

impl From<&OsStr> for Input {
    fn from(word: &OsStr) -> Input {
        if word == "-" { Input::Stdin } else { Input::Path(PathBuf::from(word)) }
    }
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Input {
        Input::from(path.as_os_str())
    }
}

impl FromStr for Input {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Input, Self::Err> {
        Ok(Input::from(OsStr::new(word)))
    }
}

/// The formats of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Format {
    /// MSR Cambridge CSV (SNIA IOTTA 388)
    Msr,
    /// Alibaba block traces of 2020, CSV
    Alibaba,
    /// Tencent CBS traces of 2018, CSV
    Tencent,
    /// SPC trace file, as UMass publishes (Financial1, WebSearch1)
    Spc,
    /// SYSTOR '17 CSV
    Systor,
    /// CloudPhysics vscsi, binary, versions 1 and 2
    Vscsi,
    /// blkparse's default text
    Blkparse,
    /// blkreplay's .load files
    Blkreplay,
    /// fio iolog, versions 2 and 3
    Fio,
    /// SSDsim ASCII, arrival in nanoseconds
    Ssdsim,
    /// MQSim ASCII, arrival in nanoseconds
    Mqsim,
    /// DiskSim ASCII, arrival in decimal milliseconds
    Disksim,
}

impl Format {
    /// Nanoseconds from the zero of the format's clock to 1970, where the zero is known.
    fn epoch_before_unix_ns(self) -> Option<u64> {
        match self {
            Format::Msr => Some(columns::MSR_EPOCH_BEFORE_UNIX_NS),
            Format::Alibaba | Format::Tencent | Format::Systor => Some(0),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("no format is hidden").get_name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        <Format as ValueEnum>::from_str(name, true).map_err(|_| {
            let names: Vec<String> =
                Format::value_variants().iter().map(Format::to_string).collect();
            format!("unknown format '{name}'; the formats are {}", names.join(", "))
        })
    }
}

/// A trace while its files are being read.
struct Reading {
    forced: Option<Format>,
    format: Option<Format>,
    rows: Collector,
}

impl Reading {
    fn new(options: &Options) -> Reading {
        let rows = Collector::new(options.skip_bad_rows, options.limit_rows);
        Reading { forced: options.format, format: options.format, rows }
    }

    fn file(&mut self, name: &str, reader: Box<dyn Read + '_>) -> Result<(), TraceError> {
        let source = Source::open(name, reader)?;
        if self.forced != Some(Format::Vscsi) {
            detect::refuse_unread(name, source.head())?;
        }
        let format = match self.forced {
            Some(format) => format,
            None => detect::detect(name, source.head())?,
        };
        if let Some(first) = self.format
            && first != format
        {
            return Err(TraceError::mixed(name, first, format));
        }
        self.format = Some(format);

        let rows = &mut self.rows;
        rows.begin_file(name);
        let trailing = source.trailing();
        match format {
            Format::Msr | Format::Alibaba | Format::Tencent | Format::Spc | Format::Systor => {
                let lines = columns::Lines::new(Columns::of(format), name, source.head());
                each_line(source, rows, lines)
            }
            Format::Vscsi => vscsi::read(source, rows),
            Format::Blkparse => each_line(source, rows, blkparse::Lines::default()),
            Format::Blkreplay => each_line(source, rows, blkreplay::Lines::default()),
            Format::Fio => each_line(source, rows, fio::Lines::default()),
            Format::Ssdsim | Format::Mqsim => each_line(source, rows, ascii::Lines::integer()),
            Format::Disksim => each_line(source, rows, ascii::Lines::decimal()),
        }?;
        if trailing.get() > 0 {
            let bytes = plural(trailing.get(), "byte");
            rows.warnings.push(format!(
                "{name}: the gzip stream is whole; {bytes} of something that is no gzip follow, and \
                 were left out"
            ));
        }
        Ok(())
    }

    fn finish(self) -> Result<Trace, TraceError> {
        match self.format {
            Some(format) => Ok(self.rows.finish(format)),
            None => Err(TraceError::no_input()),
        }
    }
}
