//! Makes a failing run short: actions are left out, in chunks and then one by one, as long as the
//! same promise breaks (delta debugging; Zeller & Hildebrandt, TSE 2002).

use super::{Outcome, Selection, run};

/// A shorter selection of `seed`'s actions that breaks the same promise as `selection` does, and
/// what it comes to; after at most `runs` runs.
pub fn shrink(seed: u64, selection: &Selection, runs: u64) -> (Selection, Outcome) {
    let mut outcome = run(seed, selection, None);
    let Some(violation) = outcome.violation.clone() else { return (selection.clone(), outcome) };
    // The actions after the failure had no part in it.
    let kept: Vec<u64> = selection.numbers().take(outcome.actions as usize).collect();
    let shortest = least(kept, runs, |fewer| {
        let tried = run(seed, &Selection::of(fewer), None);
        let same = tried.violation.as_ref().is_some_and(|v| v.promise == violation.promise);
        let needed = tried.actions as usize;
        same.then(|| {
            outcome = tried;
            needed
        })
    });
    (Selection::of(&shortest), outcome)
}

/// Leaves out what it can of `kept`: `fails` says of a selection how many of its first suffice to
/// fail, if it does. After at most `runs` tries.
fn least(
    mut kept: Vec<u64>,
    runs: u64,
    mut fails: impl FnMut(&[u64]) -> Option<usize>,
) -> Vec<u64> {
    let mut left = runs;
    let mut chunk = kept.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < kept.len() && left > 0 {
            left -= 1;
            let end = (at + chunk).min(kept.len());
            let mut fewer: Vec<u64> = kept[..at].iter().chain(&kept[end..]).copied().collect();
            match fails(&fewer) {
                Some(needed) => {
                    fewer.truncate(needed);
                    kept = fewer;
                    shorter = true;
                }
                None => at = end,
            }
        }
        if left == 0 || chunk == 1 && !shorter {
            return kept;
        }
        chunk = if shorter && chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_short_and_fails_by_itself() {
        let fails = |kept: &[u64]| [17, 40].iter().all(|n| kept.contains(n));
        let mut runs = 0;
        let left = least((0..200).collect(), 500, |kept| {
            runs += 1;
            fails(kept).then_some(kept.len())
        });
        assert_eq!(left, [17, 40]);
        assert!(runs < 200, "{runs} runs");
        // It stops when it may try no more, and what fails only as a whole stays whole.
        assert_eq!(
            least((0..200).collect(), 3, |kept| fails(kept).then_some(kept.len())).len(),
            100
        );
        assert_eq!(least(vec![1, 2, 3], 100, |kept| (kept.len() == 3).then_some(3)), [1, 2, 3]);
        // The actions after the failure are not tried again.
        let upto = |kept: &[u64]| kept.iter().position(|&n| n == 9).map(|at| at + 1);
        assert_eq!(least((0..64).collect(), 200, upto), [9]);
    }
}
