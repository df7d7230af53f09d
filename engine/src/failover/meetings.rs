//! The table of `docs/failover.md`, made from [`decide`]: what two devices do when they meet.
//!
//! Every state of two devices is asked for, and described in an operator's words, one in each column.
//! Lines that differ in one column only and say the same are one line.

use super::decide::tests::Digits;
use super::decide::{Decision, Heard, Here, Kin, Occasion, Refusal, decide};
use crate::unit::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Those that describe a meeting; then those of the two outcomes.
const COLUMNS: [&str; 9] = [
    "histories",
    "the host belongs to",
    "lost durable records",
    "B knows of a later tenure",
    "B owed A records",
    "A wants the host",
    "B wants the host",
    "A",
    "B",
];
const STATES: usize = 7;

/// The words of a meeting, in the columns' order, each with its rank within the column.
type State = [(u8, &'static str); STATES];

/// Outcomes of A and of B.
type Outcomes = [BTreeSet<&'static str>; 2];

/// A line: the words that hold in each column, and the outcomes.
type Row = (Vec<Vec<&'static str>>, Outcomes);

/// Every state of a device that can meet another.
fn devices() -> Vec<Here> {
    let all = (0..2 << 10).map(Digits).map(|mut n| Here {
        fenced: n.bit(),
        fenced_here: n.bit(),
        serving: n.bit(),
        served: n.bit(),
        lost: false,
        asking: n.bit(),
        prefer: n.bit(),
        resume_alone: false,
        epoch: 2 + n.below(2),
        newest: n.stamp(),
        acked: n.stamp(),
        hi: n.stamp(),
        need: n.stamp(),
        owed: false,
    });
    let can_be = |h: &Here| {
        let is_kept = h.fenced_here && (h.fenced || h.serving);
        !is_kept && !(h.serving && (h.fenced || h.asking || !h.served))
    };
    // An unfenced device has not served since its opening unless it does.
    let knows = |h: &Here| h.fenced || h.fenced_here || h.serving || !h.served;
    all.filter(can_be).filter(knows).collect()
}

fn hello(kin: Kin, of: Here) -> Heard {
    let Here { fenced, asking, epoch, newest, hi, .. } = of;
    let (told, lost_round, new_round) = (Stamp::ZERO, false, false);
    Heard { kin, fenced, asking, epoch, newest, hi, told, lost_round, new_round }
}

/// Whether `one` lacks what `other` knows of it: records, or a tenure.
fn has_lost(one: Here, other: Here) -> bool {
    let records = other.hi.max(other.need) > one.newest || other.acked > one.hi;
    records || one.fenced && !other.fenced && other.epoch > one.epoch
}

fn wants(here: Here) -> (u8, &'static str) {
    match (here.asking, here.prefer) {
        (true, _) => (0, "has asked"),
        (_, true) => (1, "prefers it"),
        _ => (2, "no"),
    }
}

/// The words for a meeting. A column that the ones before it make needless has no word: were it not
/// needless, the line would have several outcomes.
fn state(kin: Kin, a: Here, b: Here) -> State {
    let histories = match kin {
        Kin::Same => (0, "one"),
        Kin::Below => (1, "A was forced, B returns"),
        Kin::Above => (2, "B was forced, A returns"),
        Kin::Apart => (3, "two"),
    };
    let host = match (a.serving, a.fenced, b.fenced) {
        (true, _, true) => (0, "A, which serves"),
        (_, false, true) if a.fenced_here => (2, "A, fenced here"),
        (_, false, true) => (1, "A, opened again"),
        (_, true, true) => (3, "neither: both are fenced"),
        _ => (4, "both: neither is fenced"),
    };
    let lost = match (has_lost(a, b), has_lost(b, a)) {
        (false, false) => (0, "neither"),
        (true, false) => (1, "A"),
        (false, true) => (2, "B"),
        (true, true) => (3, "both"),
    };
    let tenure = if a.epoch < b.epoch { (1, "yes") } else { (0, "no") };
    let owed = if a.hi < a.need { (1, "yes") } else { (0, "no") };
    let mut all = [histories, host, lost, tenure, owed, wants(a), wants(b)];
    let needed = match (histories.0, host.0, lost.0) {
        (3, ..) => 1,
        (1 | 2, ..) => STATES,
        (_, 4, _) => 2,
        (_, _, 1..) => 3,
        _ => STATES,
    };
    all[needed..].fill(ANY);
    if host.0 == 0 {
        all[4] = ANY;
        all[5] = ANY;
    }
    if host.0 == 3 {
        all[3] = ANY;
        all[4] = ANY;
    }
    all
}

/// No word.
const ANY: (u8, &str) = (0, "");

/// The outcome of `here`, which hears `peer`'s hello.
fn outcome(kin: Kin, here: Here, peer: Here) -> &'static str {
    match decide(here, Occasion::Hello(hello(kin, peer))) {
        Decision::Serve => "begins to serve",
        Decision::GoOn if here.serving => "serves on",
        Decision::GoOn if here.fenced_here => "serves nobody",
        Decision::GoOn => "follows",
        Decision::Ask => "asks for the host",
        Decision::Return => "is fenced and follows",
        Decision::Wait(_) => unreachable!("a hello decides"),
        Decision::Refuse(Refusal::Lineage) => "refuses: another history",
        Decision::Refuse(Refusal::LostThere) => "refuses: lost there",
        Decision::Refuse(Refusal::LostHere) => "refuses: lost here",
        Decision::Refuse(Refusal::Untrue) => "refuses: untrue",
        Decision::Halt(_) => "stops",
    }
}

/// Every meeting, with all outcomes that it can have.
fn meetings() -> BTreeMap<State, Outcomes> {
    let mut met: BTreeMap<State, Outcomes> = BTreeMap::new();
    let devices = devices();
    let all = devices.iter().flat_map(|&a| devices.iter().map(move |&b| (a, b)));
    for (a, b) in all {
        for kin in [Kin::Same, Kin::Below, Kin::Above, Kin::Apart] {
            let opposite = match kin {
                Kin::Below => Kin::Above,
                Kin::Above => Kin::Below,
                same => same,
            };
            // The device that holds the host is A; of two alike, that with the smaller words.
            let rank = |h: Here| (h.fenced, !h.serving);
            let (forth, back) = (state(kin, a, b), state(opposite, b, a));
            if rank(a) > rank(b) || rank(a) == rank(b) && forth > back {
                continue;
            }
            let outcomes = met.entry(forth).or_default();
            outcomes[0].insert(outcome(kin, a, b));
            outcomes[1].insert(outcome(opposite, b, a));
        }
    }
    met
}

/// The lines of the meetings that are alike in the first `depth` columns.
fn rows(met: &[(&State, &Outcomes)], depth: usize) -> Vec<Row> {
    if met.iter().all(|(_, outcomes)| *outcomes == met[0].1) {
        return vec![(vec![Vec::new(); STATES - depth], met[0].1.clone())];
    }
    let mut by_word: BTreeMap<(u8, &str), Vec<(&State, &Outcomes)>> = BTreeMap::new();
    for &(state, outcomes) in met {
        by_word.entry(state[depth]).or_default().push((state, outcomes));
    }
    let mut alike: Vec<(Vec<&'static str>, Vec<Row>)> = Vec::new();
    for group in by_word.values() {
        let (word, below) = (group[0].0[depth].1, rows(group, depth + 1));
        match alike.iter_mut().find(|(_, other)| *other == below) {
            Some((words, _)) => words.push(word),
            None => alike.push((vec![word], below)),
        }
    }
    // Without a choice the column says nothing.
    let is_any = alike.len() == 1;
    let line = |words: &Vec<&'static str>, (rest, outcomes): Row| {
        let words = if is_any { Vec::new() } else { words.clone() };
        ([vec![words], rest].concat(), outcomes)
    };
    let lines = alike
        .into_iter()
        .map(|(words, below)| below.into_iter().map(|row| line(&words, row)).collect::<Vec<Row>>());
    lines.flatten().collect()
}

fn table() -> String {
    let met = meetings();
    let all: Vec<_> = met.iter().collect();
    let mut text = format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    for (words, outcomes) in rows(&all, 0) {
        let mut cells: Vec<String> = words.iter().map(|words| words.join(", or ")).collect();
        cells.iter_mut().filter(|cell| cell.is_empty()).for_each(|cell| "any".clone_into(cell));
        let outcomes = outcomes.iter().map(|o| o.iter().copied().collect::<Vec<_>>().join(", or "));
        cells.extend(outcomes);
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// `UPDATE_DOCS=1` writes the table anew.
#[test]
#[cfg_attr(miri, ignore = "it reads a document")]
fn the_document_has_the_table_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/failover.md");
    let document = std::fs::read_to_string(&path).expect("docs/failover.md");
    let [begin, end] = ["<!-- generated -->\n", "<!-- end -->\n"];
    let (before, rest) = document.split_once(begin).expect("the mark before the table");
    let (found, after) = rest.split_once(end).expect("the mark after the table");
    let table = format!("\n{}\n", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let document = [before, begin, &table, end, after].concat();
        return std::fs::write(&path, document).expect("docs/failover.md is written");
    }
    let what =
        "docs/failover.md is not what the code does: see it with UPDATE_DOCS=1 and `git diff`";
    assert!(found == table, "{what}\n{table}");
}
