//! The service's log, on the standard error: a line an event, with the time for a person, and for systemd's journal,
//! which has the time, with the level as it wants it.
//!
//! # Rules
//! - **A log that nobody reads delays nothing**: lines go through a bounded queue, and are dropped when that is full.
//! - **One line**: control characters, which a peer or a host may have sent, are escaped.
//! - **No secret** is in an event, and none in an order.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use afterimage::{Clock, SystemClock};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::words::{plural, timestamp};

/// Lines that wait for the standard error to take them.
const WAITING_MAX: usize = 4096;

/// A log that nobody reads is not waited for any longer at the end.
const PATIENCE: Duration = Duration::from_secs(1);

enum Next {
    Line(Vec<u8>),
    /// All lines before are written.
    Flush(SyncSender<()>),
}

/// The log of this process. Dropped, it waits until its lines are written.
pub struct Log(Option<SyncSender<Next>>);

/// The levels that `words` name: `info`, or `warn,afterimage::order=debug`.
///
/// # Errors
/// The part that is none.
pub fn levels(words: &str) -> Result<Targets, String> {
    words.parse().map_err(|e| {
        format!(
            "`{words}` names no levels, such as \"info\" or \"warn,afterimage::order=debug\": {e}"
        )
    })
}

/// Begins to log what `levels` let through; once per process.
pub fn start(levels: Targets) -> Log {
    let (next, come) = sync_channel(WAITING_MAX);
    let Ok(_) = std::thread::Builder::new().name("log".into()).spawn(move || write_all(&come))
    else {
        return Log(None);
    };
    let to = next.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Lines { for_journal: is_journal() })
        .with_writer(move || Queued(to.clone()));
    let all = tracing_subscriber::registry().with(lines).with(levels);
    // A process that logs already goes on as it does.
    let _ = tracing::subscriber::set_global_default(all);
    Log(Some(next))
}

impl Drop for Log {
    fn drop(&mut self) {
        let Some(next) = &self.0 else { return };
        let (done, is_done) = sync_channel(1);
        // A full queue is one that nobody reads.
        if next.try_send(Next::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Queued(SyncSender<Next>);

impl Write for Queued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Next::Line(line.into())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(come: &Receiver<Next>) {
    for next in come {
        match next {
            Next::Line(line) => {
                // Without a standard error there is no log.
                let _ = io::stderr().write_all(&line);
            }
            Next::Flush(done) => drop(done),
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let what = plural(dropped, "line");
            let _ = writeln!(io::stderr(), "afterimage: the log was not read: {what} dropped");
        }
    }
}

/// Whether the standard error is the journal's socket, which systemd names by its numbers.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let found = rustix::fs::fstat(io::stderr());
    found.is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}

/// The form of a line.
struct Lines {
    for_journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = String::new();
        context.format_fields(Writer::new(&mut said), event)?;
        let level = *event.metadata().level();
        match self.for_journal {
            true => write!(to, "<{}>", priority(level))?,
            false => write!(to, "{} {level:>5} ", timestamp(SystemClock::default().wall()))?,
        }
        for char in said.chars() {
            match char.is_control() {
                true => write!(to, "{}", char.escape_default())?,
                false => to.write_char(char)?,
            }
        }
        writeln!(to)
    }
}

/// As in syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(for_journal: bool, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines { for_journal })
            .with_writer(move || to.clone());
        let levels = levels("info,afterimage::order=debug").unwrap();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(lines).with(levels),
            log,
        );
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_a_level_and_no_control_characters() {
        let log = || {
            tracing::warn!(target: "afterimage", why = "a\nb\u{1b}[31m", "it is gone");
            tracing::debug!(target: "afterimage", "too quiet");
            tracing::debug!(target: "afterimage::order", user = 7, "asked");
        };
        let lines = logged(true, log);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.starts_with("<4>it is gone why=\"a\\nb"), "{lines}");
        assert!(lines.ends_with("\n<7>asked user=7\n") && !lines.contains('\u{1b}'), "{lines}");
        let lines = logged(false, log);
        assert!(lines.contains("Z  WARN it is gone") && lines.contains("Z DEBUG asked"), "{lines}");
    }

    #[test]
    fn a_log_that_is_not_read_delays_nothing() {
        let (next, _come) = sync_channel(1);
        let mut queued = Queued(next.clone());
        for _ in 0..3 {
            queued.write_all(b"x").unwrap();
        }
        assert!(DROPPED.load(Ordering::Relaxed) >= 2);
        drop(Log(Some(next)));
    }

    #[test]
    fn levels_are_words() {
        levels("warn").unwrap();
        assert!(levels("afterimage=loud").unwrap_err().contains("loud"));
    }
}
