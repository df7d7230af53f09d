//! Requests of the hosts and their answers, as they happen: [`Event`]s, the [`Listener`]
//! that hears them, and the request log (`--request-log`), which keeps them in a file.
//!
//! Every event is one line, appended by one write to the file before the replay goes on: whoever
//! kills the process at any moment finds every event that had happened. `docs/request-log.md` has
//! the lines.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use afterimage::internal::unit::Stamp;

use super::oracle::Number;
use crate::results::Target;

/// Names of the devices, in the order of their numbers.
pub const NAMES: [&str; 2] = ["a", "b"];

/// Something that a host did, or was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The replay begins.
    Begun {
        /// The name of the run, in every sector.
        run: u64,
        /// Bytes of a block.
        block_size: u32,
    },
    /// A write is about to be issued.
    Issued {
        /// Its number in the run.
        write: Number,
        /// The volume.
        volume: u32,
        /// Its sectors.
        sectors: Range<u64>,
        /// A discard: these sectors will be zeros.
        zero: bool,
        /// When it completes, it and all that completed before this moment are durable.
        durable: bool,
    },
    /// A write has completed; its first block has this stamp, the others those that follow.
    /// A discard of no whole block has none.
    Completed {
        /// Its number.
        write: Number,
        /// Its stamp.
        stamp: Option<Stamp>,
    },
    /// A write was refused: nothing of it may ever be seen.
    Refused {
        /// Its number.
        write: Number,
    },
    /// A flush is about to be issued.
    FlushIssued {
        /// Flushes are counted, too.
        flush: u64,
    },
    /// A flush has completed: what had completed before it was issued is durable.
    Flushed {
        /// Its number.
        flush: u64,
    },
    /// The host has moved: what had completed at the old device is durable.
    Moved {
        /// The device it is at now.
        to: usize,
        /// The tenure.
        epoch: u64,
    },
    /// The site of the other device is lost, and this one was forced to take over, with what it has of it.
    Forced {
        /// The device that was forced; the host is there now.
        to: usize,
        /// The tenure.
        epoch: u64,
    },
    /// The writes at a device are durable at the other one, up to this stamp.
    Acknowledged {
        /// The device it was written at.
        at: usize,
        /// The newest of it.
        stamp: Stamp,
    },
}

/// The listener to events.
pub trait Listener: Send + Sync {
    /// `event` happens. Quickly: it is called on the devices' threads, too.
    fn note(&self, event: &Event);
}

/// Nobody.
pub struct Nobody;

impl Listener for Nobody {
    fn note(&self, _: &Event) {}
}

const FORMAT: &str = "afterimage-requests 1";

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Begun { run, block_size } => write!(f, "{FORMAT} {run:016x} {block_size}"),
            Event::Issued { write, volume, sectors, zero, durable } => {
                let kind = if *zero { "zero" } else { "write" };
                let Range { start, end } = sectors;
                write!(f, "issued {write} {kind} {volume} {start} {}", end - start)?;
                if *durable { f.write_str(" durable") } else { Ok(()) }
            }
            Event::Completed { write, stamp: Some(stamp) } => {
                write!(f, "completed {write} {stamp}")
            }
            Event::Completed { write, stamp: None } => write!(f, "completed {write} -"),
            Event::Refused { write } => write!(f, "refused {write}"),
            Event::FlushIssued { flush } => write!(f, "flush {flush}"),
            Event::Flushed { flush } => write!(f, "flushed {flush}"),
            Event::Moved { to, epoch } => write!(f, "moved {} {epoch}", NAMES[*to]),
            Event::Forced { to, epoch } => write!(f, "forced {} {epoch}", NAMES[*to]),
            Event::Acknowledged { at, stamp } => write!(f, "acknowledged {} {stamp}", NAMES[*at]),
        }
    }
}

impl Event {
    /// The event that `line` tells of.
    fn parse(line: &str) -> Option<Event> {
        let words: Vec<&str> = line.split(' ').collect();
        let event = match words[..] {
            ["afterimage-requests", "1", run, block_size] => Event::Begun {
                run: u64::from_str_radix(run, 16).ok()?,
                block_size: block_size.parse().ok()?,
            },
            [
                "issued",
                write,
                kind @ ("write" | "zero"),
                volume,
                first,
                count,
                ref durable @ ..,
            ] => {
                let first: u64 = first.parse().ok()?;
                Event::Issued {
                    write: write.parse().ok()?,
                    volume: volume.parse().ok()?,
                    sectors: first..first.checked_add(count.parse().ok()?)?,
                    zero: kind == "zero",
                    durable: match durable {
                        [] => false,
                        ["durable"] => true,
                        _ => return None,
                    },
                }
            }
            ["completed", write, "-"] => {
                Event::Completed { write: write.parse().ok()?, stamp: None }
            }
            ["completed", write, stamp] => {
                Event::Completed { write: write.parse().ok()?, stamp: Some(parse_stamp(stamp)?) }
            }
            ["refused", write] => Event::Refused { write: write.parse().ok()? },
            ["flush", flush] => Event::FlushIssued { flush: flush.parse().ok()? },
            ["flushed", flush] => Event::Flushed { flush: flush.parse().ok()? },
            ["moved", to, epoch] => Event::Moved { to: device(to)?, epoch: epoch.parse().ok()? },
            ["forced", to, epoch] => Event::Forced { to: device(to)?, epoch: epoch.parse().ok()? },
            ["acknowledged", at, stamp] => {
                Event::Acknowledged { at: device(at)?, stamp: parse_stamp(stamp)? }
            }
            _ => return None,
        };
        Some(event)
    }
}

fn device(name: &str) -> Option<usize> {
    NAMES.iter().position(|&known| known == name)
}

fn parse_stamp(word: &str) -> Option<Stamp> {
    let mut parts = word.split('.');
    let epoch = parts.next()?.parse().ok()?;
    let time = parts.next()?.parse().ok()?;
    let sequence = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Stamp { epoch, time, sequence })
}

/// The request log of a replay. See the module.
pub struct RequestLog {
    file: File,
    /// The first failure: the log is incomplete from there on.
    failed: Mutex<Option<io::Error>>,
}

impl RequestLog {
    /// Begins a log at `target`, after what is there: on a line of its own, though a run that was
    /// killed may have left half a line.
    ///
    /// # Errors
    /// Those of the file.
    pub fn append(target: &Target) -> io::Result<RequestLog> {
        let mut file = target.append()?;
        if ends_within_a_line(target)? {
            file.write_all(b"\n")?;
        }
        Ok(RequestLog { file, failed: Mutex::default() })
    }

    /// Says whether all of it was written.
    ///
    /// # Errors
    /// The first failure: the log is incomplete from there on.
    pub fn finish(&self) -> io::Result<()> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Listener for RequestLog {
    fn note(&self, event: &Event) {
        let line = format!("{event}\n");
        // One write: lines of several threads do not mix, and what is written outlives us.
        if let Err(error) = (&self.file).write_all(line.as_bytes()) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
    }
}

/// Whether the last byte of a file is not the end of a line.
fn ends_within_a_line(target: &Target) -> io::Result<bool> {
    let Target::Path(path) = target else { return Ok(false) };
    let found = path.metadata()?;
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Reads the last run of a request log. A last line without its end was being written when the
/// process died: it did not happen.
///
/// # Errors
/// The line that is no event, by number; a log that does not begin as one.
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines: Vec<(u64, &str)> = (1..).zip(whole.split('\n')).collect();
    let begins = |(_, line): &(u64, &str)| line.starts_with(FORMAT);
    let run = &lines[lines.iter().rposition(begins).unwrap_or(0)..];
    let lines = run.iter().filter(|(_, line)| !line.is_empty());
    let parsed = lines.map(|(number, line)| {
        let unknown = || format!("line {number} of the request log is of no known form: '{line}'");
        Event::parse(line).ok_or_else(unknown)
    });
    let events = parsed.collect::<Result<Vec<_>, _>>()?;
    match events.first() {
        None | Some(Event::Begun { .. }) => Ok(events),
        Some(_) => Err("this is no request log: it does not begin as one".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { epoch: 2, time: 1_577_836_800_000_000_001, sequence: 7 };

    fn all() -> Vec<Event> {
        let issued = |zero, durable| Event::Issued {
            write: 17,
            volume: 3,
            sectors: 1024..1032,
            zero,
            durable,
        };
        vec![
            Event::Begun { run: 0xAB, block_size: 4096 },
            issued(false, false),
            issued(true, true),
            Event::Completed { write: 17, stamp: Some(STAMP) },
            Event::Completed { write: 18, stamp: None },
            Event::Refused { write: 19 },
            Event::FlushIssued { flush: 1 },
            Event::Flushed { flush: 1 },
            Event::Moved { to: 1, epoch: 2 },
            Event::Forced { to: 0, epoch: 3 },
            Event::Acknowledged { at: 0, stamp: STAMP },
        ]
    }

    /// The lines of docs/request-log.md: outside programs depend on them.
    const LINES: &str = "\
afterimage-requests 1 00000000000000ab 4096
issued 17 write 3 1024 8
issued 17 zero 3 1024 8 durable
completed 17 2.1577836800000000001.7
completed 18 -
refused 19
flush 1
flushed 1
moved b 2
forced a 3
acknowledged a 2.1577836800000000001.7
";

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = RequestLog::append(&Target::Path(path.clone())).unwrap();
        all().iter().for_each(|event| log.note(event));
        log.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, LINES);
        assert_eq!(parse(&text).unwrap(), all());
    }

    #[test]
    fn a_further_run_is_appended_on_a_line_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for earlier in ["", LINES, &LINES[..LINES.len() - 9], "no request log", "\n"] {
            std::fs::write(&path, earlier).unwrap();
            let log = RequestLog::append(&Target::Path(path.clone())).unwrap();
            all().iter().for_each(|event| log.note(event));
            log.finish().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let between = if earlier.is_empty() || earlier.ends_with('\n') { "" } else { "\n" };
            assert_eq!(text, format!("{earlier}{between}{LINES}"));
            assert_eq!(parse(&text).unwrap(), all());
        }
    }

    #[test]
    fn the_manual_shows_every_line() {
        let manual = include_str!("../../../docs/request-log.md");
        for line in LINES.lines() {
            let word = line.split(' ').next().unwrap();
            assert!(manual.contains(&format!("`{word} ")), "{word}");
        }
    }

    #[test]
    fn a_line_cut_short_did_not_happen() {
        for cut in 0..LINES.len() {
            let whole = LINES[..cut].matches('\n').count();
            assert_eq!(parse(&LINES[..cut]).unwrap(), all()[..whole], "{cut}");
        }
    }

    #[test]
    fn what_is_no_event_is_named() {
        for wrong in
            ["completed 1 2.3", "issued 1 write 0 8", "moved c 2", "flush", "issued 1 zero 0 1 1 x"]
        {
            let text = format!("{}{wrong}\n", &LINES[..44]);
            let error = parse(&text).unwrap_err();
            assert!(error.contains("line 2") && error.contains(wrong), "{error}");
        }
        assert!(parse("flush 1\n").is_err());
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so() {
        let log = RequestLog { file: File::open("/dev/null").unwrap(), failed: Mutex::default() };
        log.note(&Event::Flushed { flush: 1 });
        assert!(log.finish().is_err());
    }
}
