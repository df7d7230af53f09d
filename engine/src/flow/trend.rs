//! The rate at which something fills or runs out, by samples of the last seconds.

/// The rate is that of the last one to four times this long, in nanoseconds: longer than a commit
/// interval, so that it does not jump with each.
const WINDOW_NS: u64 = 1_000_000_000;

/// A value and when it was, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u64,
    value: u64,
}

/// Samples that lie a window apart, as far as there was anything to see.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trend(Option<[Sample; 2]>);

impl Trend {
    /// It is `value` now. Returns when the next sample is taken.
    pub fn note(&mut self, at: u64, value: u64) -> u64 {
        let now = Sample { at, value };
        let [first, last] = self.0.unwrap_or([now, now]);
        let since = at.saturating_sub(last.at);
        let samples = match since {
            _ if since >= 2 * WINDOW_NS => [now, now],
            _ if since >= WINDOW_NS => [last, now],
            _ => [first, last],
        };
        self.0 = Some(samples);
        samples[1].at.saturating_add(WINDOW_NS)
    }

    /// Nanoseconds until it is `target`, if it is `value` now and goes on as in the last seconds. `None`
    /// if it does not move there, or nothing was seen of it for long.
    pub fn reaches_in(&self, at: u64, value: u64, target: u64) -> Option<u64> {
        let [first, last] = self.0?;
        let passed = at.saturating_sub(first.at);
        let moved = match target > value {
            true => value.saturating_sub(first.value),
            false => first.value.saturating_sub(value),
        };
        if moved == 0 || passed < WINDOW_NS || at.saturating_sub(last.at) >= 2 * WINDOW_NS {
            return None;
        }
        let left = u128::from(target.abs_diff(value)) * u128::from(passed) / u128::from(moved);
        Some(left.try_into().unwrap_or(u64::MAX))
    }
}
