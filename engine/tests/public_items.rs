//! The items that an embedding program can rely on: `lib.rs` names it, and hides the rest.

use std::collections::BTreeSet;

/// To be added to when there is more that such a program needs, and seldom.
const ITEMS: [&str; 60] = [
    "Branch",
    "BranchSheet",
    "Clock",
    "Closed",
    "Compare",
    "CompareLimits",
    "CompareReport",
    "Comparison",
    "Completion",
    "Connector",
    "Device",
    "DifferentialStatus",
    "Differing",
    "Directory",
    "Durability",
    "Error",
    "Event",
    "FRAME_BYTES_MAX",
    "FileName",
    "Fill",
    "Forced",
    "Geometry",
    "Image",
    "ImagePoint",
    "ImageStatus",
    "Kind",
    "Lane",
    "Limits",
    "Line",
    "Link",
    "Located",
    "LogRecovery",
    "LossSheet",
    "Lost",
    "Memory",
    "MemoryLink",
    "Mode",
    "Op",
    "Place",
    "Policy",
    "Recovery",
    "Request",
    "Result",
    "Round",
    "Rung",
    "Session",
    "Settings",
    "SideKind",
    "Stamp",
    "Status",
    "Storage",
    "SystemClock",
    "Takeover",
    "Threads",
    "Ticket",
    "VolumeSpec",
    "internal",
    "memory_link",
    "salvage",
    "tcp",
];

/// The names that a `pub` line at the crate's root makes public.
fn names(line: &str) -> Vec<String> {
    let path = line.trim_start_matches("pub use ").trim_start_matches("pub mod ");
    let list = path.rsplit_once("::").map_or(path, |(_, list)| list);
    let list = list.trim_matches(|c: char| "{};".contains(c) || c.is_whitespace());
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn nothing_else_is_public() {
    let root = include_str!("../src/lib.rs");
    let at_root = root.lines().filter(|line| line.starts_with("pub"));
    let mut found = BTreeSet::new();
    for line in at_root {
        assert!(line.ends_with(';') || line == "pub mod internal {", "one line an item: {line}");
        assert!(line.starts_with("pub use ") || line == "pub mod internal {", "{line}");
        found.extend(names(line));
    }
    assert_eq!(found, ITEMS.map(str::to_owned).into());
    assert!(root.contains("#[doc(hidden)]\n#[path = \".\"]\npub mod internal {"), "it is hidden");
    assert!(!root.contains("#[macro_export]") && !root.contains("pub use internal::*"));
}

/// All of what is listed can be named, and the examples need no more.
#[test]
fn the_examples_need_no_more() {
    for (name, text) in [
        ("pair", include_str!("../examples/pair.rs")),
        ("tcp_pair", include_str!("../examples/tcp_pair.rs")),
    ] {
        assert!(!text.contains("internal"), "{name} uses what is internal");
        assert!(text.contains("use afterimage::"), "{name}");
    }
}
