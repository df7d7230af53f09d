//! The program that ships has no simulator, and says how to get one.
#![cfg(not(feature = "simulate"))]

use std::process::Command;

#[test]
fn a_build_without_the_simulator_says_how_to_get_it() {
    for args in [&["simulate"][..], &["simulate", "--help"], &["simulate", "--seed", "7", "-x"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_afterimage")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cargo run --profile sim --features simulate"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_afterimage")).arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("simulat"), "the help offers it");
}

/// Another member of the workspace, or a dependency for tests, could turn the engine's feature on
/// for all.
#[test]
fn the_program_was_not_built_with_the_simulator() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_afterimage")).unwrap();
    let has = |symbol: &str| program.windows(symbol.len()).any(|bytes| bytes == symbol.as_bytes());
    assert!(has("8internal6device"), "the symbols of the engine are not found");
    assert!(!has("8internal8simulate") && !has("8internal6moment4hook"));
}
