//! The documents and the CI script say of the code what is so.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a path in the documents may begin.
const ROOTS: [&str; 4] = ["engine/src", "engine/tests", "engine", ""];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether `c` may be a part of a name.
fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` is code in which `name` is given to something: a function, a type, a constant, a
/// module, a field, a macro, a variant of an enum, or a feature of a manifest.
fn defines(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        if before.ends_with(is_of_name) || after.starts_with(is_of_name) {
            return false;
        }
        let keywords =
            ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod ", "impl "];
        let is_item = keywords.iter().any(|keyword| before.ends_with(keyword));
        let is_field = after.starts_with(": ");
        let line = before.rsplit('\n').next().unwrap_or("");
        let is_variant = line.trim().is_empty()
            && name.starts_with(char::is_uppercase)
            && [",", "(", " {", " ="].iter().any(|end| after.starts_with(end));
        is_item || is_field || is_variant
    })
}

/// The words in backticks of a document, each with its line; text that is set apart is left out.
fn quoted(document: &str) -> Vec<(usize, &str)> {
    let mut is_apart = false;
    let mut words = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        is_apart ^= line.starts_with("```");
        if !is_apart && !line.starts_with("    ") {
            words.extend(line.split('`').skip(1).step_by(2).map(|word| (number, word)));
        }
    }
    words
}

/// The names in a word of a document, `` `Type::function` `` or `` `value.field` ``; `None` for any
/// other word, among it one without a capital or a `_`, which may be plain English.
fn names(word: &str) -> Option<Vec<&str>> {
    let names: Vec<_> = word.split("::").flat_map(|part| part.split('.')).collect();
    let is_name =
        |name: &&str| name.starts_with(|c: char| c.is_alphabetic()) && name.chars().all(is_of_name);
    let is_code = word.contains('_') || word.contains(char::is_uppercase);
    (is_code && names.iter().all(is_name)).then_some(names)
}

/// The text of every file of code in `folder`.
fn code(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            code(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The references of a document that lead nowhere, each with its line, and how many were looked at:
/// `` `path.rs` ``; `` `path.rs:name` ``, defined in that file; `` `Type::name` `` and `` `a_name` ``,
/// defined in one file of the code; and `s04`, a test whose name begins so.
fn dangling(document: &str, code: &[String]) -> (usize, Vec<String>) {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (line, word) in quoted(document) {
        let is_there = if word.contains([' ', '*', '/', '<']) && !word.contains(".rs") {
            continue;
        } else if word.contains(".rs") && !word.contains([' ', '*']) {
            let (file, names) = word.split_once(':').unwrap_or((word, ""));
            let texts = ROOTS.iter().flat_map(|r| fs::read_to_string(project().join(r).join(file)));
            let names = || names.split([':', '.']).filter(|name| !name.is_empty());
            texts.into_iter().any(|text| names().all(|name| defines(&text, name)))
        } else if let Some(names) = names(word.strip_suffix("()").unwrap_or(word)) {
            let last = names.last().unwrap();
            code.iter()
                .any(|text| defines(text, last) && names.iter().all(|name| text.contains(name)))
        } else {
            continue;
        };
        seen += 1;
        if !is_there {
            wrong.push(format!("{line}: {word}"));
        }
    }
    let scenarios = document.split(|c| !is_of_name(c)).filter(|word| {
        word.len() == 3 && word.starts_with('s') && word[1..].chars().all(|c| c.is_ascii_digit())
    });
    for scenario in scenarios {
        seen += 1;
        let test = format!("fn {scenario}_");
        if !code.iter().any(|text| text.contains(&test)) {
            wrong.push(scenario.into());
        }
    }
    (seen, wrong)
}

/// Every file and every function that these documents name.
#[test]
fn every_reference_of_the_documents_leads_somewhere() {
    let mut all = Vec::new();
    for member in ["engine", "cli", "benches"] {
        code(&project().join(member), &mut all);
    }
    for (name, least) in [("conformance", 500), ("README", 30)] {
        let path = project().join("docs").join(name).with_extension("md");
        let (seen, wrong) = dangling(&fs::read_to_string(path).unwrap(), &all);
        assert!(seen > least, "only {seen} references were found in docs/{name}.md");
        assert!(wrong.is_empty(), "docs/{name}.md names what is not there: {wrong:#?}");
    }
}

/// Names that are wrong in one letter, or in the file beside them, are found.
#[test]
fn a_reference_that_leads_nowhere_is_found() {
    let code = ["impl Queue {\n    fn insert_with(&self) {}\n}\nfn s04_story() {}".to_string()];
    let right = "`queue/mod.rs:Queue::insert_with`, `Queue::insert_with`, `insert_with()`, s04";
    assert_eq!(dangling(right, &code), (4, vec![]));
    for wrong in [
        "`queue/mode.rs`",
        "`queue/mod.rs:insert_wit`",
        "`queue/clk.rs:Queue::insert_with`",
        "`Queue::insert`",
        "`insert_wit`",
        "s05",
    ] {
        assert_eq!(dangling(wrong, &code).1.len(), 1, "{wrong}");
    }
}

/// Every page that a document links to is there.
#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut seen = 0;
    let documents =
        fs::read_dir(project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.is_file());
    for path in documents.chain([project().join("README.md")]) {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                seen += 1;
                let target = path.parent().unwrap().join(file);
                assert!(target.exists(), "{} links to {link}", path.display());
            }
        }
    }
    assert!(seen > 40, "only {seen} links were found");
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
