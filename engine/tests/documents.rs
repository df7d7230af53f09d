//! The documents and the CI script say of the code what is so.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a path in the documents may begin.
const ROOTS: [&str; 4] = ["engine/src", "engine/tests", "engine", ""];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether `text` says what `name` is: a function, a type, a constant, a module or a field.
fn defines(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let is_whole = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let keywords = ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "mod "];
        let is_item = keywords.iter().any(|keyword| before.ends_with(keyword));
        let is_field = after.starts_with(": ") && is_whole(before.chars().next_back());
        is_item && is_whole(after.chars().next()) || is_field
    })
}

/// Every `` `path.rs` `` and `` `path.rs:name` `` of the specification's map.
#[test]
fn every_reference_of_the_conformance_document_leads_somewhere() {
    let document = fs::read_to_string(project().join("docs/conformance.md")).unwrap();
    let quoted = document.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let (mut seen, mut wrong) = (0, Vec::new());
    for reference in quoted.filter(|word| word.contains(".rs") && !word.contains([' ', '*'])) {
        seen += 1;
        let (file, names) = reference.split_once(':').unwrap_or((reference, ""));
        let texts = ROOTS.iter().flat_map(|r| fs::read_to_string(project().join(r).join(file)));
        let names = || names.split([':', '.']).filter(|name| !name.is_empty());
        if !texts.into_iter().any(|text| names().all(|name| defines(&text, name))) {
            wrong.push(reference);
        }
    }
    assert!(seen > 50, "only {seen} references were found");
    assert!(wrong.is_empty(), "docs/conformance.md names what is not there: {wrong:?}");
}

/// `cargo test --workspace` leaves out a test that needs a feature, without a word.
#[test]
fn every_test_that_needs_a_feature_has_a_ci_step() {
    let script = fs::read_to_string(project().join(".ci/run")).unwrap();
    let mut seen = 0;
    for member in ["engine", "cli", "benches"] {
        let manifest = fs::read_to_string(project().join(member).join("Cargo.toml")).unwrap();
        for target in manifest.split("\n[").filter(|part| part.contains("required-features")) {
            let value = |key: &str| target.split_once(key).unwrap().1.split('"').nth(1).unwrap();
            let (name, feature) = (value("name = "), value("required-features = "));
            let runs = |line: &str| {
                let words: Vec<_> = line.split_whitespace().collect();
                line.contains("cargo test")
                    && words.windows(2).any(|pair| pair == ["--features", feature])
                    && words.windows(2).any(|pair| pair == ["--test", name])
            };
            assert!(script.lines().any(runs), "no step of .ci/run runs {member}'s test {name}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} such tests were found");
}
