//! Time and chance come from outside: the engine never reads a clock by itself.

/// A source of time, of which only differences and order matter, and of random numbers. It may be
/// a simulator's.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970, as the time of receipt of a write without a time of its own (R1).
    /// It may step back.
    fn wall(&self) -> u64;

    /// Nanoseconds since some fixed moment; it never steps back. For time-outs and latencies.
    fn monotonic(&self) -> u64;

    /// A number that cannot be guessed, to name a connection or a request with: the operating
    /// system's, unless runs are to be repeated.
    ///
    /// # Errors
    /// The operating system gives none.
    fn entropy(&self) -> std::io::Result<u64> {
        Ok(getrandom::u64()?)
    }
}

/// The operating system's clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { origin: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_nanos() as u64)
    }

    fn monotonic(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
