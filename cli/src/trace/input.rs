//! Opens a trace: unpacks gzip where its magic stands, keeps the head for detection, and hands out
//! lines.
//!
//! Nothing is held but the head and one line. A line longer than [`LINE_MAX`] is a bad row, so that
//! a binary file read as text by mistake does not end up in memory whole.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;

use super::collect::{Collector, is_damage};
use super::error::{Fault, Place, TraceError};

/// How much of the beginning is looked at to recognise the format, in bytes. The licence and
/// instructions before the first row of a blkreplay file take several KiB.
const HEAD: usize = 64 << 10;

/// The longest line that is read, in bytes.
const LINE_MAX: usize = 64 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The unpacked bytes of one file.
pub(super) struct Source<'a> {
    reader: Replay<Box<dyn Read + 'a>>,
    gzip: bool,
    trailing: Rc<Cell<u64>>,
}

impl<'a> Source<'a> {
    pub(super) fn open(name: &str, reader: Box<dyn Read + 'a>) -> Result<Source<'a>, TraceError> {
        let packed = Replay::new(reader, GZIP_MAGIC.len());
        let gzip = packed.head == GZIP_MAGIC;
        let trailing = Rc::new(Cell::new(0));
        let unpacked: Box<dyn Read + 'a> = if gzip {
            let packed = BufReader::with_capacity(64 << 10, packed);
            Box::new(Members::new(packed, trailing.clone()))
        } else {
            Box::new(packed)
        };
        let mut reader = Replay::new(unpacked, HEAD);
        match reader.error.take_if(|_| reader.head.is_empty()) {
            Some(e) if gzip && is_damage(&e) => Err(TraceError::damaged(name, None, e)),
            Some(e) => Err(TraceError::read(name, None, e)),
            None => Ok(Source { reader, gzip, trailing }),
        }
    }

    /// The beginning of the unpacked bytes.
    pub(super) fn head(&self) -> &[u8] {
        &self.reader.head
    }

    /// Whether the file is packed, so that reading can fail because of what it holds.
    pub(super) fn is_gzip(&self) -> bool {
        self.gzip
    }

    /// How many bytes that are no gzip follow the gzip stream; filled in at the end of the file.
    pub(super) fn trailing(&self) -> Rc<Cell<u64>> {
        self.trailing.clone()
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// The members of a gzip file, one after the other. Zeros between and behind them are nothing, as
/// to gzip(1): tapes and block devices pad with them. Other bytes that begin no member end the
/// stream, and are counted.
struct Members<R> {
    /// `None` at the end.
    member: Option<GzDecoder<Begun<R>>>,
    trailing: Rc<Cell<u64>>,
}

/// The rest of a file, of which the first bytes were looked at already.
type Begun<R> = Chain<Cursor<Vec<u8>>, R>;

impl<R: BufRead> Members<R> {
    fn new(packed: R, trailing: Rc<Cell<u64>>) -> Members<R> {
        let begun = Cursor::new(Vec::new()).chain(packed);
        Members { member: Some(GzDecoder::new(begun)), trailing }
    }

    /// The next member; `None` behind the last one.
    fn next(&self, mut packed: R) -> io::Result<Option<GzDecoder<Begun<R>>>> {
        skip_zeros(&mut packed)?;
        let mut magic = Vec::new();
        packed.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic == GZIP_MAGIC {
            return Ok(Some(GzDecoder::new(Cursor::new(magic).chain(packed))));
        }
        let rest = io::copy(&mut packed, &mut io::sink())?;
        self.trailing.set(magic.len() as u64 + rest);
        Ok(None)
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let filled = member.read(buffer)?;
            if filled > 0 || buffer.is_empty() {
                return Ok(filled);
            }
            let (_, packed) = self.member.take().expect("just read from").into_inner().into_inner();
            self.member = self.next(packed)?;
        }
        Ok(0)
    }
}

fn skip_zeros(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let ahead = reader.fill_buf()?;
        let (length, zeros) = (ahead.len(), ahead.iter().take_while(|&&byte| byte == 0).count());
        reader.consume(zeros);
        if length == 0 || zeros < length {
            return Ok(());
        }
    }
}

/// A reader whose head was read ahead; it comes again, then the error met behind it, if any.
struct Replay<R> {
    head: Vec<u8>,
    taken: usize,
    error: Option<io::Error>,
    rest: R,
}

impl<R: Read> Replay<R> {
    fn new(mut rest: R, length: usize) -> Replay<R> {
        let mut head = Vec::new();
        let error = rest.by_ref().take(length as u64).read_to_end(&mut head).err();
        Replay { head, taken: 0, error, rest }
    }
}

impl<R: Read> Read for Replay<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ahead = &self.head[self.taken..];
        if !ahead.is_empty() {
            let n = ahead.len().min(buffer.len());
            buffer[..n].copy_from_slice(&ahead[..n]);
            self.taken += n;
            return Ok(n);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => self.rest.read(buffer),
        }
    }
}

/// The kind of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A record, whether or not it is a request.
    Record,
    /// A header, a summary, a remark: no record.
    Text,
    /// A record, and no more are wanted.
    Last,
}

/// Reads the rows of a text format, line by line.
pub(super) trait LineFormat {
    /// Takes one line, trimmed, neither blank nor beginning with `#`. Lines count from 1.
    fn line(&mut self, line: &[u8], number: u64, rows: &mut Collector) -> Result<Line, Fault>;

    /// Takes notice that the file is at its end.
    fn end(self, _rows: &mut Collector)
    where
        Self: Sized,
    {
    }
}

/// Hands the lines of a file to its format.
pub(super) fn each_line(
    source: Source<'_>,
    rows: &mut Collector,
    mut format: impl LineFormat,
) -> Result<(), TraceError> {
    let gzip = source.is_gzip();
    let mut reader = BufReader::with_capacity(64 << 10, source);
    let mut buffer = Vec::new();
    let mut number = 0;
    while !rows.is_full() {
        buffer.clear();
        number += 1;
        let place = Place::Line(number);
        let outcome = match next_line(&mut reader, &mut buffer) {
            Err(error) => {
                rows.stopped(place, error, gzip)?;
                break;
            }
            Ok(Ending::File) if buffer.is_empty() => break,
            Ok(Ending::TooLong) => {
                Err(Fault::new("row", &buffer, "is longer than any row of a trace"))
            }
            Ok(ending) => {
                rows.is_cut = matches!(ending, Ending::File);
                let bare = match number {
                    1 => buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&buffer),
                    _ => &buffer,
                };
                match bare.trim_ascii() {
                    [] | [b'#', ..] => Ok(Line::Text),
                    line => format.line(line, number, rows),
                }
            }
        };
        match outcome {
            Ok(Line::Text) => {}
            Ok(Line::Record) => rows.count_record(),
            Ok(Line::Last) => {
                rows.count_record();
                break;
            }
            Err(fault) => {
                let cut = !buffer.ends_with(b"\n") && buffer.len() < LINE_MAX;
                rows.count_record();
                rows.bad_row(place, fault, cut)?;
            }
        }
    }
    format.end(rows);
    Ok(())
}

/// How a line ended.
enum Ending {
    Newline,
    File,
    TooLong,
}

fn next_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Ending> {
    reader.by_ref().take(LINE_MAX as u64).read_until(b'\n', buffer)?;
    if buffer.ends_with(b"\n") {
        return Ok(Ending::Newline);
    }
    if buffer.len() < LINE_MAX {
        return Ok(Ending::File);
    }
    reader.skip_until(b'\n')?;
    Ok(Ending::TooLong)
}
