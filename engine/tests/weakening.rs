//! The proof that the simulator can see: every clause of the rules, switched off, must make it fail.
//!
//! `cargo test -p afterimage --features weaken --profile sim --test weakening -- --nocapture`
//! prints the table of `docs/testing.md`.

use afterimage::internal::simulate::{Selection, actions_of, run};
use afterimage::internal::weaken::{Clause, without};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A clause that is not missed within so many seeds is superfluous, or the simulator is blind.
const SEEDS_MAX: u64 = 10_000;

/// The clauses that random runs cannot miss, as `docs/testing.md` explains; scenarios on the
/// simulated world do (`every_scenario_misses_its_clauses` in `engine/src/simulate/scenarios.rs`), or scenarios of
/// `forced.rs`, `last_image.rs` and `refusals.rs`.
const BY_SCENARIO: [Clause; 15] = [
    Clause::HiWithoutNeed,
    Clause::ExtentsRefused,
    Clause::RoundMet,
    Clause::RoundBegun,
    Clause::GivenUpFirst,
    Clause::WholeOfRecords,
    Clause::HiWithWhole,
    Clause::RecordsBeforeVolume,
    Clause::AskAtHello,
    Clause::Turn,
    Clause::RepeatedGrant,
    Clause::HandOverPaced,
    Clause::ToldChain,
    Clause::ToldWhole,
    Clause::EqualSync,
];

struct Found {
    seeds: u64,
    events: u64,
    promise: String,
}

fn missed(clause: Option<Clause>, seeds: u64) -> Option<Found> {
    without(clause);
    let mut events = 0;
    (1..=seeds).find_map(|seed| {
        let outcome = run(seed, &Selection::first(actions_of(seed)), None);
        events += outcome.events;
        let promise = outcome.violation?.promise;
        Some(Found { seeds: seed, events, promise })
    })
}

#[test]
fn every_clause_is_missed_when_it_is_off() {
    // A run's panic is part of its outcome.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(&clause) = Clause::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !BY_SCENARIO.contains(&clause) {
                found.push((clause, missed(Some(clause), SEEDS_MAX)));
            }
        }
        found
    };
    let mut found = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(work));
        let joined = threads.map(|thread| thread.join().expect("runs catch their panics"));
        joined.into_iter().flatten().collect::<Vec<_>>()
    });
    let _ = std::panic::take_hook();
    found.sort_by_key(|&(clause, _)| clause as usize);
    println!("| clause | seeds | events | what did not hold |\n|---|---:|---:|---|");
    let mut unseen = Vec::new();
    for (clause, found) in &found {
        match found {
            Some(Found { seeds, events, promise }) => {
                println!("| `{}` | {seeds} | {events} | {promise} |", clause.name());
            }
            None => unseen.push(clause.name()),
        }
    }
    assert_eq!(found.len() + BY_SCENARIO.len(), Clause::ALL.len());
    assert!(unseen.is_empty(), "not missed in {SEEDS_MAX} seeds: {unseen:?}");
}

/// The same seeds hold with every clause in force: it is the clause that was missed.
#[test]
fn nothing_is_missed_when_all_hold() {
    assert!(missed(None, 200).is_none());
}
