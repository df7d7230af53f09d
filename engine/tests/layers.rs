//! Lower layers do not name upper ones: the order of the code map in `docs/architecture.md`.

use std::path::Path;

/// Lowest first; those in one layer may name each other.
const LAYERS: [&[&str]; 12] = [
    &["unit", "clock", "error", "sync", "wake", "moment", "weaken"],
    &["format"],
    &["limits"],
    &["storage"],
    &["superblock"],
    &["queue"],
    &["table"],
    &["journal"],
    &["link"],
    &["event"],
    &["flow", "failover", "request", "device"],
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
