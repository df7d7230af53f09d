//! The progress bar: on a terminal only, and never in the way.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use afterimage::event::Status;

use crate::words::{bytes, count, duration};

/// How often it is drawn.
const PERIOD_NS: u64 = 200_000_000;

/// A bar on the standard error, or nothing.
pub struct Progress {
    bar: Option<ProgressBar>,
    next_at: u64,
    /// What goes on after the last request.
    epilogue: Option<&'static str>,
}

impl Progress {
    /// A bar for so many requests if the standard error is a terminal.
    pub fn new(requests: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(requests), ProgressDrawTarget::stderr());
            bar.set_style(style("{wide_bar} {human_pos}/{human_len}  {msg}  {eta} left"));
            bar
        });
        Progress { bar, next_at: 0, epilogue: None }
    }

    /// Whether it is time to draw.
    pub fn is_due(&self, now: u64) -> bool {
        self.bar.is_some() && now >= self.next_at
    }

    /// Draws: `done` requests have been issued, and the devices stand at `status`.
    pub fn draw(&mut self, now: u64, done: u64, status: &[Status; 2]) {
        self.next_at = now + PERIOD_NS;
        let Some(bar) = &self.bar else { return };
        let backlog: u64 = status.iter().map(|status| status.backlog_bytes).sum();
        let oldest = status.iter().filter_map(|status| status.oldest_written_at).min();
        let lag = oldest.map_or(0, |at| now.saturating_sub(at));
        bar.set_position(done);
        let doing = match self.epilogue {
            Some(what) => what.to_string(),
            None => format!("{} requests/s", count(bar.per_sec() as u64)),
        };
        bar.set_message(format!("{doing}, backlog {}, lag {}", bytes(backlog), duration(lag)));
    }

    /// Says what is going on after the last request: how long it takes does not follow from how
    /// long the requests took.
    pub fn say(&mut self, what: &'static str) {
        self.epilogue = Some(what);
        if let Some(bar) = &self.bar {
            bar.set_style(style("{wide_bar} {human_pos}/{human_len}  {msg}"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
