//! The simulator itself: the same seed is the same run, and short runs of many seeds hold.
//!
//! Long ones: the command in docs/testing.md.

use afterimage::internal::simulate::{Outcome, Selection, Sink, actions_of, run};
use std::sync::{Arc, Mutex};

/// Events of all seeds together: seconds in a debug build.
const EVENTS: u64 = 60_000;

fn whole(seed: u64, sink: Option<Sink>) -> Outcome {
    let outcome = run(seed, &Selection::first(actions_of(seed)), sink);
    assert_eq!(outcome.violation, None, "seed {seed}: docs/testing.md has the command");
    outcome
}

/// The run of a seed, event by event.
fn text(seed: u64) -> String {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    whole(
        seed,
        Some(Box::new(move |number, line| {
            *into.lock().unwrap() += &format!("{number} {line}\n");
        })),
    );
    let text = text.lock().unwrap();
    text.clone()
}

/// A write waits for places, and nothing in the journal is of R: a suspension would not bring them. A device that
/// goes back to order at once went up and down for ever.
#[test]
fn without_records_of_r_no_device_suspends() {
    whole(11_002_175, None);
}

#[test]
fn many_short_runs_hold() {
    let (mut events, mut seed) = (0, 1);
    let mut seen = std::collections::BTreeMap::<&str, u64>::new();
    while events < EVENTS {
        let outcome = whole(seed, None);
        events += outcome.events;
        seed += 1;
        outcome.named.into_iter().for_each(|(name, count)| *seen.entry(name).or_default() += count);
    }
    for name in [
        "takeovers",
        "kills",
        "power cuts",
        "failed syncs",
        "answers from the other device",
        "frames shipped again",
        "suspensions asked for",
        "rounds in which the host's device collects",
        "rounds of copies beside order",
        "steps that send copies",
        "takeovers by table",
        "takeovers by table with blocks still away",
        "returns to ordered mode",
        "moves by files",
    ] {
        assert!(seen.contains_key(name), "{name} never happened: {seen:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        assert_eq!(text(seed), text(seed), "{seed}");
    }
}

/// FNV-1a, so that it is the same everywhere and always.
fn hash(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// Whatever changes what a device does, however slightly, changes this: then put the number that
/// the failure shows here. If nothing was to change, or it differs between machines, look why.
#[test]
fn a_seed_means_the_same_everywhere() {
    assert_eq!(format!("{:016x}", hash(&text(5))), "07dd8e1257aa79c0");
}
