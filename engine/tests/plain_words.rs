//! Sentences of comments and documents have a noun for a subject: none begins with one of [`RIDDLES`].

use std::fs;
use std::path::{Path, PathBuf};

/// A sentence that begins with one of these leaves out the thing that it speaks of.
const RIDDLES: [&str; 6] = ["Who", "What", "Whoever", "Also", "Not", "Held"];

/// A line of prose: its number, and its text without the marker of a comment.
type Line<'a> = (usize, &'a str);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Calls `look` with every file of the project that has prose in it.
fn files(folder: &Path, look: &mut dyn FnMut(&Path, &str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_ours = !name.starts_with('.') || name == ".ci";
        if path.is_dir() {
            // Besides what is built, folders of test data have no prose.
            if is_ours && !["target", "seeds", "corpus", "artifacts"].contains(&&*name) {
                files(&path, look);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            look(&path, &text);
        }
    }
}

/// The text behind `marker` (`//` or `#`), and whether the line has nothing else. A marker within
/// a string literal counts for nothing: an odd number of quotes stands before it.
fn comment<'a>(line: &'a str, marker: &str) -> Option<(&'a str, bool)> {
    let trimmed = line.trim_start();
    if let Some(text) = trimmed.strip_prefix(marker) {
        return Some((text.trim_start_matches(['/', '!']), true));
    }
    let (before, text) = line.rsplit_once(&format!(" {marker} "))?;
    (before.matches('"').count() % 2 == 0).then_some((text, false))
}

/// The blocks of prose in `text`: paragraphs, list items, cells of tables, comments.
fn blocks<'a>(text: &'a str, marker: Option<&str>) -> Vec<Vec<Line<'a>>> {
    let (mut blocks, mut is_code) = (vec![Vec::new()], false);
    for (number, line) in (1..).zip(text.lines()) {
        let (prose, is_whole) = match marker.map(|marker| comment(line, marker)) {
            None => (line, true),
            Some(Some(found)) => found,
            Some(None) => {
                blocks.push(Vec::new());
                is_code = false;
                continue;
            }
        };
        let prose = prose.trim();
        is_code ^= prose.starts_with("```");
        let opens = ["- ", "* ", "#", "|", "> ", "```"].iter().any(|mark| prose.starts_with(mark))
            || prose.split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
        if opens || !is_whole || prose.is_empty() {
            blocks.push(Vec::new());
        }
        if is_code || prose.starts_with("```") {
            continue;
        }
        for (at, cell) in prose.split('|').enumerate() {
            if at > 0 {
                blocks.push(Vec::new());
            }
            blocks.last_mut().unwrap().push((number, cell));
        }
        if !is_whole {
            blocks.push(Vec::new());
        }
    }
    blocks
}

/// Calls `look` with each sentence of a block, and the line on which it begins.
fn sentences(block: &[Line], look: &mut dyn FnMut(usize, &str)) {
    let (mut sentence, mut begins) = (String::new(), 0);
    for &(number, text) in block {
        for word in text.split_whitespace() {
            if sentence.is_empty() {
                begins = number;
            } else {
                sentence.push(' ');
            }
            sentence.push_str(word);
            if word.trim_end_matches(['*', '`', '"', ')', '_']).ends_with(['.', '!', '?']) {
                look(begins, &sentence);
                sentence.clear();
            }
        }
    }
    look(begins, &sentence);
}

/// Whether a sentence begins with a riddle, whatever marks of Markdown stand before it.
fn is_riddle(sentence: &str) -> bool {
    let words = sentence.trim_start_matches(|c: char| !c.is_alphabetic() && c != '`');
    let first = words.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    first.is_some_and(|first| RIDDLES.contains(&first))
}

/// The riddles of one file, as `line: sentence`.
fn riddles(text: &str, marker: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for block in blocks(text, marker) {
        sentences(&block, &mut |line, sentence| {
            if is_riddle(sentence) {
                found.push(format!("{line}: {sentence}"));
            }
        });
    }
    found
}

#[test]
fn no_sentence_begins_with_a_riddle() {
    let (root, mut seen, mut wrong) = (project(), 0, Vec::new());
    files(&root, &mut |path, text| {
        let marker = match path.extension().and_then(|e| e.to_str()) {
            Some("rs") => Some("//"),
            Some("md") => None,
            Some("toml" | "sh" | "py") => Some("#"),
            None if text.starts_with("#!") => Some("#"),
            _ => return,
        };
        seen += 1;
        let name = path.strip_prefix(&root).unwrap().display();
        wrong.extend(riddles(text, marker).iter().map(|riddle| format!("{name}:{riddle}")));
    });
    assert!(seen > 250, "only {seen} files were found");
    assert!(wrong.is_empty(), "{} sentences have no subject:\n{}", wrong.len(), wrong.join("\n"));
}

/// The message of an error begins with the thing that is wrong, too.
#[test]
fn no_text_for_a_person_begins_with_a_riddle() {
    let mut wrong = Vec::new();
    for member in ["engine/src", "cli/src"] {
        files(&project().join(member), &mut |path, text| {
            let literals = text.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
            let literals = literals.filter(|text| text.contains(' ') && is_riddle(text));
            wrong.extend(literals.map(|text| format!("{}: {text}", path.display())));
        });
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each of these is a riddle, and one only.
#[test]
fn a_riddle_is_found_where_it_stands() {
    for (text, line) in [
        ("/// Who waits.", 1),
        ("//! A rule.\n//!\n//! Whoever waits is woken.", 3),
        ("fn f() {\n    // A thread sleeps. Not\n    // this one.\n}", 2),
        ("let a = 1; // Also here", 1),
        ("/// A sum (of both). **Held** by one.", 1),
        ("/// - One.\n/// - What is left.", 2),
        ("/// | name | What it is |", 1),
    ] {
        let found = riddles(text, Some("//"));
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].starts_with(&format!("{line}: ")), "{text:?}: {found:?}");
    }
    assert_eq!(riddles("# Title\n\n1. Also\n2. This\n", None).len(), 1);
    for text in [
        "// A title says\n// What it is called.",
        "let a = \"// What\";",
        "/// ```text\n/// Not prose\n/// ```",
        "/// `Not` is a name. Nothing else is. Whatever comes.",
        "fn what() {} // not one",
    ] {
        assert_eq!(riddles(text, Some("//")), [""; 0], "{text:?}");
    }
}
