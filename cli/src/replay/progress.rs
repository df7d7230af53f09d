//! The progress bar: on a terminal only, and never in the way.

use indicatif::ProgressBar;

use afterimage::internal::event::Status;

use crate::output;
use crate::words::{bytes, count, duration};

/// How often it is drawn.
const PERIOD_NS: u64 = 200_000_000;

/// A bar on the standard error.
pub struct Progress {
    bar: ProgressBar,
    next_at: u64,
    /// The work after the last request.
    epilogue: Option<&'static str>,
}

impl Progress {
    /// A bar for so many requests.
    pub fn new(requests: u64) -> Progress {
        Progress { bar: output::bar(requests, " {msg}"), next_at: 0, epilogue: None }
    }

    /// Whether it is time to draw.
    pub fn is_due(&self, now: u64) -> bool {
        !self.bar.is_hidden() && now >= self.next_at
    }

    /// Draws: `done` requests have been issued, and the devices stand at `status`.
    pub fn draw(&mut self, now: u64, done: u64, status: &[Status; 2]) {
        self.next_at = now + PERIOD_NS;
        let backlog: u64 = status.iter().map(|status| status.backlog_bytes).sum();
        let oldest = status.iter().filter_map(|status| status.oldest_written_at).min();
        let lag = oldest.map_or(0, |at| now.saturating_sub(at));
        self.bar.set_position(done);
        let doing = match self.epilogue {
            Some(what) => what.to_string(),
            None => format!("{} requests/s", count(self.bar.per_sec() as u64)),
        };
        self.bar.set_message(format!("{doing}, backlog {}, lag {}", bytes(backlog), duration(lag)));
    }

    /// Says what is going on after the last request: how long it takes does not follow from how
    /// long the requests took.
    pub fn say(&mut self, what: &'static str) {
        self.epilogue = Some(what);
        output::without_estimate(&self.bar, " {msg}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
