//! Lower layers do not name upper ones: the order of the code map in `docs/architecture.md`.

use std::path::Path;

/// Lowest first; those in one layer may name each other.
const LAYERS: [&[&str]; 12] = [
    &["unit", "chunks", "clock", "error", "sync", "wake", "moment", "weaken"],
    &["format"],
    &["limits"],
    &["storage"],
    &["superblock", "table_file", "compare"],
    &["queue"],
    &["table"],
    &["journal"],
    &["link"],
    &["event"],
    &["flow", "failover", "request", "device", "opening", "host", "peer", "listeners"],
    &["threads"],
];

/// Calls `look` with the text of the module's file, and of those in its folder.
fn files(path: &Path, look: &mut dyn FnMut(&str)) {
    if let Ok(text) = std::fs::read_to_string(path.with_extension("rs")) {
        look(&text);
    }
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        files(&entry.unwrap().path().with_extension(""), look);
    }
}

#[test]
fn no_layer_names_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for (at, module) in LAYERS.iter().enumerate().flat_map(|(at, l)| l.iter().map(move |m| (at, m)))
    {
        files(&source.join(module), &mut |text| {
            seen += 1;
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for path in code.flat_map(|line| line.split("crate::").skip(1)) {
                let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let is_above = LAYERS[at + 1..].iter().any(|layer| layer.contains(&name));
                let flow_knows = *module == "flow" && name == "failover";
                assert!(!is_above && !flow_knows, "{module} names {path}");
            }
        });
    }
    assert!(seen > 50, "only {seen} files were found");
}

/// Values that own cursors: the file, the type, and the field under which others reach it.
const OWNERS: [(&str, &str, &str); 8] = [
    ("table/own", "Own", "own"),
    ("table/out", "Out", "out"),
    ("table/incoming", "Incoming", "incoming"),
    ("table/normal", "Normal", "normal"),
    ("flow/owed", "Owed", "owed"),
    ("flow/differential", "Machine", "machine"),
    ("failover/connection", "Connection", "connection"),
    ("failover/role", "Role", "role"),
];

/// The names of the fields of `struct name`, whose text is in `text`, each with whether it is
/// private.
fn fields<'a>(text: &'a str, name: &str) -> Vec<(&'a str, bool)> {
    let begin = format!("struct {name} {{\n");
    let (_, body) = text.split_once(&begin).unwrap_or_else(|| panic!("no {name}"));
    let body = body.split_once("\n}").expect("a struct ends").0;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let declared = lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    declared.map(|name| (name.rsplit(' ').next().unwrap(), !name.starts_with("pub"))).collect()
}

/// A cursor moves by its owner's transitions only: outside of the owner's file nothing is able to
/// name it, as long as it is private and no other module is within the owner's.
#[test]
fn a_cursor_is_written_by_its_owner_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, name, path) in OWNERS {
        let text = std::fs::read_to_string(source.join(file).with_extension("rs")).expect(file);
        let fields = fields(&text, name);
        assert!(fields.len() > 1, "{name} has only {fields:?}");
        for (field, is_private) in &fields {
            assert!(is_private, "{name}::{field} is not private");
        }
        let has_module = text.lines().any(|line| {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            words.next() == Some("mod") && !line.contains("mod tests")
        });
        assert!(!has_module && !source.join(file).exists(), "{file} has a module of its own");
        // The compiler refuses these already; here stands why.
        files(&source, &mut |other| {
            if other == text {
                return;
            }
            for after in other.split(&format!(".{path}.")).skip(1) {
                let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
                let (used, rest) = after.split_at(end);
                let is_field = fields.iter().any(|(field, _)| *field == used);
                assert!(
                    !is_field || rest.starts_with('('),
                    "{name}::{used} is named outside {file}"
                );
            }
        });
    }
}
