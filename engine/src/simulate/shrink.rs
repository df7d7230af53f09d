//! Makes a failing run short: actions are left out, in chunks and then one by one, as long as the
//! same promise breaks (delta debugging; Zeller & Hildebrandt, TSE 2002).

use super::{Outcome, Selection, run};

/// A shorter selection of `seed`'s actions that breaks the same promise as `selection` does, and
/// what it comes to; after at most `runs` runs.
pub fn shrink(seed: u64, selection: &Selection, runs: u64) -> (Selection, Outcome) {
    let mut outcome = run(seed, selection, None);
    let Some(violation) = outcome.violation.clone() else { return (selection.clone(), outcome) };
    // What comes after the failure had no part in it.
    let mut kept: Vec<u64> = selection.numbers().take(outcome.actions as usize).collect();
    let mut left = runs;
    let mut chunk = kept.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < kept.len() && left > 0 {
            left -= 1;
            let end = (at + chunk).min(kept.len());
            let fewer: Vec<u64> = kept[..at].iter().chain(&kept[end..]).copied().collect();
            let tried = run(seed, &Selection::of(&fewer), None);
            if tried.violation.as_ref().is_some_and(|v| v.promise == violation.promise) {
                kept = fewer;
                kept.truncate(tried.actions as usize);
                outcome = tried;
                shorter = true;
            } else {
                at = end;
            }
        }
        if left == 0 || chunk == 1 && !shorter {
            return (Selection::of(&kept), outcome);
        }
        chunk = if shorter && chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
}
