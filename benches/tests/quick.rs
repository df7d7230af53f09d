//! Benches run tiny, so that they cannot rot; `.ci/run benches` runs all of them so.

use std::process::Command;

#[test]
fn queue() {
    let out = Command::new(env!("CARGO_BIN_EXE_queue")).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("bound"), "{text}");
}

#[test]
fn memory() {
    let out = Command::new(env!("CARGO_BIN_EXE_memory")).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("resident"), "{text}{out:?}");
}

#[test]
fn memory_of_records() {
    let arguments = ["--records", "--quick"];
    let out = Command::new(env!("CARGO_BIN_EXE_memory")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success()
            && text.contains("committed by itself")
            && text.contains("three turns"),
        "{text}{out:?}"
    );
}

#[test]
fn open() {
    let out = Command::new(env!("CARGO_BIN_EXE_open")).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("opened"), "{text}{out:?}");
}

#[test]
fn link() {
    let out = Command::new(env!("CARGO_BIN_EXE_link")).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("link / stream"), "{text}{out:?}");
}

#[test]
fn extents() {
    let out = Command::new(env!("CARGO_BIN_EXE_extents")).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("with / without"), "{text}{out:?}");
}

#[test]
fn ladder() {
    let costs = [
        ("cost", "differential / ordered"),
        ("bits", "blocks owed"),
        ("stall", "stall at the suspension"),
        ("load", "needless copies"),
        ("takeover", "ready after"),
    ];
    for (cost, words) in costs {
        let out = Command::new(env!("CARGO_BIN_EXE_ladder")).args([cost, "--quick"]).output();
        let out = out.unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains(words), "{cost}: {text}{out:?}");
    }
}
