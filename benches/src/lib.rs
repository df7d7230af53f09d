//! The common part of the benches: rivals run in turns, and their figures as medians side by side.

pub mod figures;
pub mod served;
pub mod sketch;
pub mod split;

/// Figures of one contestant, one for each round.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// The measured figures, round by round.
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

/// Resident memory of this process, in bytes.
///
/// # Panics
/// If the operating system does not tell.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") << 10
}

/// The median of `figures`, of which there is at least one.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The 95 % interval of the median of `figures`, at least six of them, by the sign test: the
/// narrowest pair of them, as far from either end, that the median is between with that chance
/// whatever they are spread like.
///
/// # Panics
/// With fewer than six: not even the smallest and the largest are that sure.
pub fn sign_interval(figures: &[f64]) -> (f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as i32;
    // The chance that at most so many of n fall below the median, term by term.
    let mut term = 0.5f64.powi(n);
    let (mut tail, mut cut) = (term, 0);
    while tail <= 0.025 {
        cut += 1;
        term *= f64::from(n - cut + 1) / f64::from(cut);
        tail += term;
    }
    assert!(cut > 0, "{n} figures are too few for an interval of 95 %");
    (sorted[cut as usize - 1], sorted[(n - cut) as usize])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_test_interval_is_that_of_its_table() {
        // How many are left out at either end: a table of the sign test, two-sided 5 %.
        for (n, left_out) in [(6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (50, 17)]
        {
            let figures: Vec<f64> = (0..n).rev().map(f64::from).collect();
            let ends = (f64::from(left_out), f64::from(n - 1 - left_out));
            assert_eq!(sign_interval(&figures), ends, "of {n}");
        }
        assert!(std::panic::catch_unwind(|| sign_interval(&[1.0; 5])).is_err());
    }
}
