//! The real traces, which are not ours to ship: where they are, if they are.

use std::path::{Path, PathBuf};

/// `shared/traces` beside the checkout or above it, or where `AFTERIMAGE_TRACES` says. Without it
/// the test that asks is to be skipped, and that has been said.
pub fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("AFTERIMAGE_TRACES").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|a| a.join("shared/traces"));
    let found = named.into_iter().chain(above).find(|folder| folder.join("MANIFEST.md").is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no real traces; set AFTERIMAGE_TRACES to the folder of MANIFEST.md");
    }
    found
}
