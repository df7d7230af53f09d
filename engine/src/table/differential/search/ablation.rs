//! Every rule of the machine, left out: the search must miss it, or it is blind to it.
//!
//! `cargo test -p afterimage --features weaken --profile sim --lib differential -- --nocapture` prints the
//! table of `docs/testing.md`.

use super::{Bounds, Options, PLAIN, Violation, explore, walk_of};
use crate::weaken::{Clause, without};

/// A clause that is not missed within so many walks is superfluous, or the search is blind.
const WALKS_MAX: u64 = 100_000;

const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const TELLS: Options = Options { tells: true, ..PLAIN };
const ALWAYS_TELLS: Options = Options { always: true, tells: true, ..PLAIN };
const SUMS: Options = Options { sums: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };

/// The clauses that walks miss too rarely, and bounds within which a search misses them: those of
/// [`Bounds::of`], and withdrawals.
const BY_SEARCH: [(Clause, [u8; 8], u8, Options); 10] = [
    (Clause::TableNotOwed, [1, 2, 0, 2, 1, 0, 1, 0], 0, PLAIN),
    (Clause::PrototypeFirst, [1, 2, 0, 1, 1, 1, 1, 0], 2, PLAIN),
    (Clause::SideFileBits, [1, 2, 0, 1, 1, 0, 0, 1], 0, SIDE),
    (Clause::EndSync, [1, 2, 0, 1, 1, 0, 1, 0], 0, VOLATILE),
    (Clause::FenceSync, [1, 2, 0, 1, 1, 0, 1, 0], 0, VOLATILE),
    (Clause::DropSync, [1, 2, 0, 1, 1, 0, 1, 0], 0, VOLATILE),
    (Clause::CopyNumber, [1, 2, 1, 1, 1, 0, 0, 0], 0, TELLS),
    (Clause::LevelCovers, [1, 2, 1, 1, 0, 0, 0, 0], 0, ALWAYS_TELLS),
    (Clause::SumsOfRound, [1, 2, 0, 1, 1, 1, 0, 0], 0, SUMS),
    (Clause::ToldOfRound, [1, 2, 1, 2, 1, 0, 0, 0], 0, TELLS),
];

/// How the clause was missed, and the way to it.
fn missed(clause: Clause) -> Option<(String, Violation)> {
    let bounds = BY_SEARCH.iter().find(|(of, ..)| *of == clause);
    if let Some(&(_, bounds, withdrawals, options)) = bounds {
        let within = Bounds { withdrawals, ..Bounds::of(bounds) };
        let violation = explore(within, options).err()?;
        return Some((format!("search {bounds:?}"), violation));
    }
    (1..=WALKS_MAX).find_map(|seed| Some((format!("walk {seed}"), walk_of(seed).err()?)))
}

#[test]
fn every_rule_is_missed_when_it_is_left_out() {
    let mut unseen = Vec::new();
    println!("| clause | found by | steps | what did not hold |\n|---|---|---:|---|");
    for &clause in Clause::SEARCHED {
        without(Some(clause));
        let found = missed(clause);
        without(None);
        let name = clause.name();
        let Some((how, Violation { promise, path })) = found else {
            unseen.push(name);
            continue;
        };
        let promise = promise.split(':').next().expect("a text has a beginning");
        println!("| `{name}` | {how} | {} | {promise} |", path.len());
    }
    assert!(unseen.is_empty(), "missed by nothing: {unseen:?}");
}
