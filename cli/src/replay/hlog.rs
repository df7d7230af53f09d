//! The HdrHistogram interval log (`--hlog`): a text file that other HdrHistogram tools open.
//!
//! One line a second and metric: `Tag=write,start,length,max,payload`, times in seconds from the
//! beginning of the replay, values in nanoseconds (the `max` column in milliseconds), payload in
//! the compressed V2 encoding. A thread of its own encodes and writes, so that the host's thread
//! does not wait for it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use crate::results::Target;

/// Nanoseconds in a unit of the `max` column.
const MAX_UNIT_NS: f64 = 1e6;

/// One metric in one interval.
pub struct Interval {
    /// The metric.
    pub tag: &'static str,
    /// When the interval began, from the beginning of the log.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Its values.
    pub values: Histogram<u64>,
}

/// An interval log being written.
pub struct Hlog {
    sender: Sender<Interval>,
    writer: JoinHandle<io::Result<()>>,
}

impl Hlog {
    /// Begins a log at `target`, in place of what was there.
    ///
    /// # Errors
    /// Those of the file, or of a thread that the system refuses.
    pub fn create(target: &Target) -> io::Result<Hlog> {
        let file = BufWriter::new(target.create()?);
        let (sender, receiver) = channel();
        let writer = std::thread::Builder::new()
            .name("hlog".into())
            .spawn(move || write(file, &receiver))?;
        Ok(Hlog { sender, writer })
    }

    /// Adds an interval; intervals come in the order of time.
    pub fn add(&self, interval: Interval) {
        // A writer that has failed says so at the end.
        let _ = self.sender.send(interval);
    }

    /// Ends the log.
    ///
    /// # Errors
    /// The error while it was written: the log ends there.
    pub fn finish(self) -> io::Result<()> {
        drop(self.sender);
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("its writer panicked")))
    }
}

fn write(mut file: BufWriter<File>, intervals: &Receiver<Interval>) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let now = SystemTime::now();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(concat!("afterimage ", env!("CARGO_PKG_VERSION"), ", values in nanoseconds"))
        .with_start_time(now)
        .with_base_time(now)
        .with_max_value_divisor(MAX_UNIT_NS)
        .begin_log_with(&mut file, &mut serializer)?;
    for Interval { tag, start, length, values } in intervals {
        let tag = Tag::new(tag).expect("tags hold no comma, space or line break");
        log.write_histogram(&values, start, length, Some(tag)).map_err(|error| match error {
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
            IntervalLogWriterError::IoError(error) => error,
        })?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_can_be_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.hlog");
        let log = Hlog::create(&Target::Path(path.clone())).unwrap();
        for (tag, start) in [("write", 0), ("lag", 0), ("write", 1)] {
            let mut values = Histogram::new(3).unwrap();
            values.record(2_000_000).unwrap();
            let start = Duration::from_secs(start);
            log.add(Interval { tag, start, length: Duration::from_secs(1), values });
        }
        log.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let payload = interval.encoded_histogram();
                let values: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &base64_of_payload(payload)[..]).unwrap();
                assert_eq!(values.len(), 1);
                assert!((1_999_000..2_001_000).contains(&values.max()));
                assert!((1.999..2.002).contains(&interval.max()));
                let tag = interval.tag().unwrap().as_str().to_string();
                seen.push((tag, interval.start_timestamp().as_secs()));
            }
        }
        let expected = [("write", 0), ("lag", 0), ("write", 1)];
        assert_eq!(seen, expected.map(|(tag, start)| (tag.to_string(), start)));
    }

    /// Decodes standard base64.
    fn base64_of_payload(text: &str) -> Vec<u8> {
        let value = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let mut bytes = Vec::new();
        let (mut bits, mut held) = (0u32, 0);
        for c in text.bytes().filter(|&c| c != b'=') {
            bits = bits << 6 | u32::from(value(c));
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
