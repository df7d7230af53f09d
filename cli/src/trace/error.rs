//! Faults of a trace: where, what was found there, and what to do about it.
//!
//! A caller branches on [`Kind`]; a person reads the message. Offending bytes are shown shortened
//! and escaped, so that a binary file given by mistake does no harm to the terminal.

use std::borrow::Cow;
use std::fmt;
use std::io;

use super::Format;

/// The kind of a fault, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No file was given.
    NoInput,
    /// The file cannot be opened.
    Open,
    /// Reading failed below us.
    Read,
    /// The compressed stream is cut or damaged.
    Damaged,
    /// The content is of no known format.
    UnknownFormat,
    /// The files of one trace are of different formats.
    MixedFormats,
    /// A row cannot be understood.
    BadRow,
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a text file, counted from 1.
    Line(u64),
    /// A record of a binary file.
    Record {
        /// Its number, from 0.
        number: u64,
        /// Where it begins in the unpacked file, in bytes.
        offset: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(number) => write!(f, "line {number}"),
            Place::Record { number, offset } => write!(f, "record {number} at byte {offset}"),
        }
    }
}

/// A trace cannot be read: what, where, why, and what to do.
#[derive(Debug)]
pub struct TraceError(Box<Story>);

#[derive(Debug)]
struct Story {
    kind: Kind,
    file: String,
    place: Option<Place>,
    field: Option<&'static str>,
    /// The text found there, shortened and escaped.
    text: Option<String>,
    /// Its fault, or what was tried.
    problem: Cow<'static, str>,
    advice: Option<Cow<'static, str>>,
    source: Option<io::Error>,
}

const SKIP: &str = "use --skip-bad-rows to count and leave out such rows";

impl TraceError {
    /// The kind, for programs.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// Where in the file.
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// Which field of the row.
    pub fn field(&self) -> Option<&'static str> {
        self.0.field
    }

    pub(super) fn no_input() -> TraceError {
        let advice = Some("name its files, or - for standard input".into());
        Story { advice, ..Story::new(Kind::NoInput, "trace", "no file was given") }.into()
    }

    pub(super) fn open(file: &str, source: io::Error) -> TraceError {
        Story { source: Some(source), ..Story::new(Kind::Open, file, "cannot open") }.into()
    }

    pub(super) fn read(file: &str, place: Option<Place>, source: io::Error) -> TraceError {
        let source = Some(source);
        Story { place, source, ..Story::new(Kind::Read, file, "reading failed") }.into()
    }

    pub(super) fn damaged(file: &str, place: Option<Place>, source: io::Error) -> TraceError {
        let problem = match source.kind() {
            io::ErrorKind::UnexpectedEof => "the gzip stream is cut short",
            _ => "the gzip stream is damaged",
        };
        let advice = Some("fetch it again, or use --skip-bad-rows to take what precedes".into());
        let source = Some(source);
        Story { place, advice, source, ..Story::new(Kind::Damaged, file, problem) }.into()
    }

    pub(super) fn unknown(file: &str, problem: String, head: &[u8], advice: String) -> TraceError {
        let text = (!head.is_empty()).then(|| shorten(head, 160));
        let advice = Some(advice.into());
        Story { text, advice, ..Story::new(Kind::UnknownFormat, file, problem) }.into()
    }

    pub(super) fn mixed(file: &str, first: Format, here: Format) -> TraceError {
        let problem = format!("is in the format {here}, the files before it in {first}");
        let advice = Some("read traces of different formats one by one".into());
        Story { advice, ..Story::new(Kind::MixedFormats, file, problem) }.into()
    }

    /// `cut` says that the file ends in this row, so that the row may be half.
    pub(super) fn bad_row(file: &str, place: Place, fault: Fault, cut: bool) -> TraceError {
        let advice = match cut {
            true => format!("the file ends there, perhaps a cut download; {SKIP}"),
            false => SKIP.to_string(),
        };
        Story {
            place: Some(place),
            field: Some(fault.field),
            text: Some(fault.text),
            advice: Some(advice.into()),
            ..Story::new(Kind::BadRow, file, fault.problem)
        }
        .into()
    }
}

impl Story {
    fn new(kind: Kind, file: &str, problem: impl Into<Cow<'static, str>>) -> Story {
        Story {
            kind,
            file: file.to_string(),
            place: None,
            field: None,
            text: None,
            problem: problem.into(),
            advice: None,
            source: None,
        }
    }
}

impl From<Story> for TraceError {
    fn from(story: Story) -> TraceError {
        TraceError(Box::new(story))
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Story { kind, file, place, field, text, problem, advice, source } = &*self.0;
        f.write_str(file)?;
        if let Some(place) = place {
            write!(f, ", {place}")?;
        }
        if let Some(field) = field {
            write!(f, ", {field}")?;
        }
        f.write_str(": ")?;
        match (text, kind) {
            (Some(text), Kind::UnknownFormat) => write!(f, "{problem}; begins with \"{text}\"")?,
            (Some(text), _) => write!(f, "\"{text}\" {problem}")?,
            (None, _) => f.write_str(problem)?,
        }
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        match advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// The fault of one row, before anybody knows in which file and line it stands.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: &'static str,
    pub(super) text: String,
    pub(super) problem: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(
        field: &'static str,
        text: &[u8],
        problem: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault { field, text: shorten(text, 60), problem: problem.into() }
    }
}

/// At most `limit` bytes of `text`, with everything but plain ASCII escaped.
pub(super) fn shorten(text: &[u8], limit: usize) -> String {
    let shown = &text[..text.len().min(limit)];
    let dots = if shown.len() < text.len() { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_tells_place_field_text_and_remedy() {
        let fault = Fault::new("Offset", b"12\x1bx", "is not a whole number");
        let error = TraceError::bad_row("a.csv", Place::Line(7), fault, false);
        let message = error.to_string();
        assert_eq!(
            message,
            "a.csv, line 7, Offset: \"12\\x1bx\" is not a whole number; \
             use --skip-bad-rows to count and leave out such rows"
        );
    }

    #[test]
    fn long_text_is_shortened() {
        assert_eq!(shorten(&[b'a'; 5], 3), "aaa...");
        assert_eq!(shorten(b"\xff\n", 9), "\\xff\\n");
    }
}
