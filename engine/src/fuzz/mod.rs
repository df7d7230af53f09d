//! Bodies of the fuzz targets: what libFuzzer's bytes are made into, and what must hold. Built for
//! tests, which run them over the targets' seeds or seeded bytes, and with the feature `fuzz`.

mod directory;
mod formats;
#[cfg(feature = "tcp")]
mod link;
mod peer;
mod prototype;

pub use directory::{damaged_directory, examine_directory};
pub use formats::{frame, headers};
#[cfg(feature = "tcp")]
pub use link::link;
pub use peer::peer;
pub use prototype::prototype;

/// Bytes as a list of choices; all further ones are 0 when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_spent(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// A number below `bound`, from as many bytes as that takes.
    fn below(&mut self, bound: u64) -> u64 {
        let bytes = (64 - bound.leading_zeros()).div_ceil(8);
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte())) % bound.max(1)
    }

    /// A number as damage and lies have them: small, huge, or anything.
    fn number(&mut self) -> u64 {
        match self.byte() % 6 {
            0 => 0,
            1 => u64::from(self.byte()),
            2 => u64::MAX - u64::from(self.byte()),
            3 => 1 << (self.byte() % 64),
            4 => 512 * u64::from(self.byte()),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }
}

/// Calls `body` with every seed of a fuzz target.
pub fn over_seeds(target: &str, body: impl Fn(&[u8])) {
    let seeds = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    for seed in std::fs::read_dir(seeds).expect("the target has seeds") {
        body(&std::fs::read(seed.expect("listed").path()).expect("read"));
    }
}

/// Calls `body` with `count` strings of bytes, short and long, from a fixed seed.
#[cfg(test)]
pub(crate) fn over_seeded_bytes(count: u64, longest: u64, body: impl Fn(&[u8])) {
    let mut state = 7u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..count {
        let length = draw() % (draw() % longest + 1);
        let bytes: Vec<u8> = (0..length).map(|_| (draw() >> 32) as u8).collect();
        body(&bytes);
    }
}
