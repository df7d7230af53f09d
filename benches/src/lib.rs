//! What the benches share: rivals run in turns, and their figures as medians side by side.

pub mod split;

/// Figures of one contestant, one for each round.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What was measured, round by round.
    pub figures: Vec<f64>,
}

impl Column {
    /// Without figures yet.
    pub fn new(name: &'static str) -> Column {
        Column { name, figures: Vec::new() }
    }

    /// The median of the figures.
    pub fn median(&self) -> f64 {
        median(&self.figures)
    }

    /// The smallest and the largest figure.
    pub fn range(&self) -> (f64, f64) {
        let fold = |pick: fn(f64, f64) -> f64| self.figures.iter().copied().reduce(pick).unwrap();
        (fold(f64::min), fold(f64::max))
    }

    /// How many times the `base`'s figure this one is: the median over the rounds, each of which
    /// compares runs that followed each other.
    pub fn ratio(&self, base: &Column) -> f64 {
        let pairs = self.figures.iter().zip(&base.figures);
        median(&pairs.map(|(figure, base)| figure / base).collect::<Vec<_>>())
    }
}

/// The median of `figures`, of which there is at least one.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A generator of numbers that look random, the same in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
