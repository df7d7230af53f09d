//! Which write every sector should show: a map from pages of eight sectors to write numbers.
//!
//! Only pages that were ever written take memory, 48 bytes each or so, wherever in a volume of
//! terabytes they lie.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// Sectors of a page.
const PAGE: u64 = 8;

/// A page: the volume and the page's number in it.
type Key = (u32, u64);

/// The number of a write; 0 is no write at all.
pub type Number = u32;

/// Sector → the number of the write it shows.
#[derive(Default)]
pub struct Image {
    pages: HashMap<Key, [Number; PAGE as usize], BuildHasherDefault<KeyHasher>>,
}

impl Image {
    /// The write that `sector` shows, 0 if none.
    pub fn get(&self, volume: u32, sector: u64) -> Number {
        let page = self.pages.get(&(volume, sector / PAGE));
        page.map_or(0, |page| page[(sector % PAGE) as usize])
    }

    /// The writes that the sectors of `range` show, one after the other.
    pub fn get_range(&self, volume: u32, range: Range<u64>) -> Vec<Number> {
        let mut numbers = Vec::with_capacity((range.end - range.start) as usize);
        for (page, within) in pages_of(range) {
            match self.pages.get(&(volume, page)) {
                Some(shown) => numbers.extend_from_slice(&shown[within]),
                None => numbers.resize(numbers.len() + within.len(), 0),
            }
        }
        numbers
    }

    /// Lets `change` see and set every sector of `range`.
    pub fn update(&mut self, volume: u32, range: Range<u64>, mut change: impl FnMut(&mut Number)) {
        for (page, within) in pages_of(range) {
            let shown = self.pages.entry((volume, page)).or_default();
            shown[within].iter_mut().for_each(&mut change);
        }
    }

    /// As [`Image::update`], for those sectors only that lie in pages ever written, so that a
    /// discard of a whole volume costs no more than what the volume holds.
    pub fn update_present(
        &mut self,
        volume: u32,
        range: Range<u64>,
        mut change: impl FnMut(&mut Number),
    ) {
        let count = range.end.div_ceil(PAGE) - range.start / PAGE;
        if count < self.pages.len() as u64 {
            for (page, within) in pages_of(range) {
                if let Some(shown) = self.pages.get_mut(&(volume, page)) {
                    shown[within].iter_mut().for_each(&mut change);
                }
            }
            return;
        }
        for (&(of, page), shown) in &mut self.pages {
            let begins = page * PAGE;
            let (start, end) = (range.start.max(begins), range.end.min(begins + PAGE));
            if of == volume && start < end {
                let within = (start - begins) as usize..(end - begins) as usize;
                shown[within].iter_mut().for_each(&mut change);
            }
        }
    }

    /// Every sector that shows a write: volume, sector and number, in no order.
    pub fn sectors(&self) -> impl Iterator<Item = (u32, u64, Number)> {
        self.pages.iter().flat_map(|(&(volume, page), shown)| {
            let written = shown.iter().enumerate().filter(|&(_, &number)| number != 0);
            written.map(move |(at, &number)| (volume, page * PAGE + at as u64, number))
        })
    }
}

/// The pages of a range of sectors, each with its part of the range.
fn pages_of(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        (at < range.end).then(|| {
            let page = at / PAGE;
            let end = range.end.min((page + 1) * PAGE);
            let within = (at % PAGE) as usize..(end - page * PAGE) as usize;
            at = end;
            (page, within)
        })
    })
}

/// A hasher for [`Key`]s, which come from a trace and from nobody hostile: a multiplication and a
/// fold each (wyhash's mixing step, Wang Yi 2019).
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = u128::from(self.0 ^ number ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB;
        self.0 = mixed as u64 ^ (mixed >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain map, with and without pages that are not there.
        #[test]
        fn is_a_map(ops in prop::collection::vec(
            (0u32..2, 0u64..100, 0u64..40, 1u32..9, any::<bool>()), 1..60,
        )) {
            let mut image = Image::default();
            let mut plain = HashMap::new();
            for (volume, start, length, number, present_only) in ops {
                let range = start..start + length;
                if present_only {
                    image.update_present(volume, range.clone(), |shown| {
                        if *shown != 0 { *shown = number; }
                    });
                    for sector in range {
                        plain.entry((volume, sector)).and_modify(|shown| *shown = number);
                    }
                } else {
                    image.update(volume, range.clone(), |shown| *shown = number);
                    plain.extend(range.map(|sector| ((volume, sector), number)));
                }
            }
            for volume in 0..2 {
                let numbers = image.get_range(volume, 0..150);
                for sector in 0..150 {
                    let expected = plain.get(&(volume, sector)).copied().unwrap_or(0);
                    prop_assert_eq!(image.get(volume, sector), expected);
                    prop_assert_eq!(numbers[sector as usize], expected);
                }
            }
            let all: HashMap<_, _> = image.sectors().map(|(v, s, n)| ((v, s), n)).collect();
            prop_assert_eq!(all, plain);
        }
    }
}
