//! Real kills: the program replays a real trace and is killed at a random moment: in its order, through two
//! takeovers; while it suspends, copies and comes back; around the loss of a site, in every mode. The
//! directories that it leaves are recovered by the program and judged by its request log. Of a lost site, what the hosts had been
//! promised stands in the volumes or in the salvage.
//!
//! `KILL_ROUNDS=200` kills so many at work and judges what is left, `KILL_SEED=n` repeats one round. When a round is repeated
//! the moment is the same, the machine is not: what was found need not be found again;
//! `KILL_KEEP=PATH` has what the last kill left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use afterimage_cli::replay::judge::{Claim, History};
use afterimage_cli::replay::requests::{self, Event};

#[allow(dead_code)]
mod killed;
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
use killed::{
    is_consistent, is_made, judge, judge_with_salvage, replay, run, superblock_of, text, trace,
};
use random::Random;

/// A replay is taken to last so long, until one was done earlier.
const USUAL: Duration = Duration::from_millis(2500);

/// Replays in order.
const IN_ORDER: &[&str] = &["--takeover-at 35%,70% --link-rate 40MiB/s"];

/// Replays by bits, and out of the order and back; sites are lost in every mode, and hosts go back to them.
const OUT_OF_ORDER: &[&str] = &[
    "--journal-full suspend --outage 8%..30%,50%..65% --takeover-at 35%,70% --link-rate 40MiB/s",
    "--mode differential --takeover-at 25%,40%,70% --link-rate 40MiB/s",
    "--journal-full suspend --takeover-at 25%,40%,60%,80% --link-rate 12MiB/s",
    "--lose-site 40%..55% --takeover-at 20%,75% --link-rate 20MiB/s",
    "--mode differential --lose-site 40%..55% --takeover-at 70% --link-rate 20MiB/s",
    "--journal-full suspend --outage 5%..35% --lose-site 35%..50% --lose-in sending --takeover-at 75% \
     --link-rate 20MiB/s",
    "--journal-full suspend --outage 5%..30% --lose-site 32%..50% --lose-in collecting --takeover-at 32%,70% \
     --link-rate 20MiB/s",
    "--journal-full suspend --outage 5%..35% --lose-site 35%..50% --lose-in copying --takeover-at 80% \
     --link-rate 20MiB/s",
];

/// The outcome of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Killed before there was a pair.
    TooEarly,
    /// Killed, and judged.
    Killed,
    /// Done before the kill, and judged.
    Done,
}

/// Kills a replay `after` its start; how it came, promises that were kept, and where it stood.
fn round(trace: &Path, ways: &[&str], seed: u64, after: Duration) -> (Came, usize, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut child = replay(trace, path, ways[seed as usize % ways.len()], seed);
    std::thread::sleep(after);
    child.kill().expect("it can be killed");
    let output = child.wait_with_output().unwrap();
    let done = output.status.code().is_some();
    if let Ok(keep) = std::env::var("KILL_KEEP") {
        let _ = fs::remove_dir_all(&keep);
        let copied =
            Command::new("cp").args(["-r", "--sparse=always"]).arg(path).arg(keep).status();
        assert!(copied.is_ok_and(|status| status.success()));
    }
    assert!(!done || output.status.success(), "the replay failed: {}", text(&output));

    let log = fs::read_to_string(path.join("log")).unwrap_or_default();
    let mut events = requests::parse(&log).unwrap();
    let [a, b] = ["a", "b"].map(|name| path.join("devices").join(name));
    if !is_made(&a) || !is_made(&b) {
        assert!(!done && History::of(&events).writes() == 0, "there was a pair");
        for half in [&a, &b].into_iter().filter(|device| !is_made(device)) {
            let (code, story) = run("recover", &[half]);
            assert_eq!(code, Some(4), "{story}");
            assert!(!half.exists() || story.contains("making was cut short"), "{story}");
        }
        return (Came::TooEarly, 0, "half-made".into());
    }
    let found = [&a, &b].map(|device| superblock_of(device));
    let is_forced = |event: &Event| matches!(event, Event::Forced { .. });
    if found[0].lineage != found[1].lineage && !events.iter().any(is_forced) {
        let to = usize::from(found[1].lineage > found[0].lineage);
        events.push(Event::Forced { to, epoch: found[to].epoch });
    }
    let (history, is_forced) = (History::of(&events), events.iter().any(is_forced));
    let [in_a, in_b] = found.each_ref().map(|s| s.mode.to_string());
    let returns = if found[0].lineage == found[1].lineage { "forced" } else { "parted" };
    let stood =
        format!("{in_a}/{in_b}{}", if is_forced { format!(" {returns}") } else { String::new() });
    if (seed / 8).is_multiple_of(2) {
        // The content of one of them alone may be old, but it must have been true once.
        let (code, story) = run("recover", &[&b]);
        assert_eq!(code, Some(0), "{story}");
        if is_consistent(&b) {
            judge(&b, &history, Claim::Closed);
        }
    }
    let (code, story) = run("recover", &[&a, &b]);
    assert_eq!(code, Some(0), "{story}");
    let (code, story) = run("verify", &[&a, &b]);
    assert_eq!(code, Some(0), "{story}");
    judge(&a, &history, Claim::Promised);
    judge(&b, &history, Claim::Promised);
    if is_forced {
        judge_with_salvage([&a, &b], &history);
    }
    (if done { Came::Done } else { Came::Killed }, history.promised(), stood)
}

#[test]
fn what_was_promised_survives_a_kill() {
    kills(IN_ORDER, 10);
}

#[test]
fn what_was_promised_survives_a_kill_out_of_order() {
    kills(OUT_OF_ORDER, 8);
}

fn kills(ways: &[&str], usual: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let trace = trace(directory.path());
    let mut wholes = vec![USUAL; ways.len()];
    let rounds = number("KILL_ROUNDS").unwrap_or(usual) as usize;
    let seeds = match number("KILL_SEED") {
        Some(seed) => seed..seed + 1,
        // Some are killed while half-made, some are done: twice as many will do.
        None => 0..2 * rounds as u64 + 10,
    };
    let alone = seeds.end - seeds.start == 1;
    let (mut came, mut promised, mut stood) = (Vec::new(), 0, BTreeMap::new());
    let count = |came: &[Came], which| came.iter().filter(|&&outcome| outcome == which).count();
    for seed in seeds {
        if count(&came, Came::Killed) == rounds {
            break;
        }
        let mut random = Random::new(seed);
        // One in eight while the directories are made, one in eight about the end.
        let way = seed as usize % ways.len();
        let whole = &mut wholes[way];
        let from = whole.as_micros() as u64;
        let after = match seed / ways.len() as u64 % 8 {
            0 => random.within(0..from / 20),
            1 => random.within(from * 9 / 10..from * 21 / 20),
            _ => random.within(from / 50..from),
        };
        let story = format!("KILL_SEED={seed}: killed after {after} of {from} us: {}", ways[way]);
        let outcome =
            std::panic::catch_unwind(|| round(&trace, ways, seed, Duration::from_micros(after)));
        let Ok((outcome, kept, stand)) = outcome else { panic!("{story}") };
        came.push(outcome);
        if outcome == Came::Done {
            *whole = *whole * 9 / 10;
        }
        if outcome == Came::Killed {
            *stood.entry(stand).or_insert(0) += 1;
        }
        promised += kept;
    }
    let [early, killed, done] =
        [Came::TooEarly, Came::Killed, Came::Done].map(|which| count(&came, which));
    let mut err = std::io::stderr();
    let line = format!(
        "rounds of up to {:?}: {killed} killed at work, {early} while half-made, {done} were done; \
         {promised} writes were promised and are there; the pairs stood {stood:?}\n",
        wholes.iter().max()
    );
    err.write_all(line.as_bytes()).unwrap();
    assert!(alone || killed == rounds && promised > 0, "{killed} of {rounds} were judged");
}
