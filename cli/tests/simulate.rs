//! `afterimage simulate` as a user runs it: output, exit status, the same bytes for the same seed.

use std::process::{Command, Output, Stdio};

fn simulate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.arg("simulate").args(args).stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn runs_hold_and_say_what_they_came_to() {
    let output = simulate(&["--seed", "1", "--steps", "5000"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.ends_with("every promise held\n"), "{text}");
    for words in [" events of ", " messages, ", " disk operations, ", "takeovers", "kills"] {
        assert!(text.contains(words), "{words} is not in: {text}");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("events a second"), "{said}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let print = || simulate(&["--seed", "5", "--print"]);
    let (one, two) = (print(), print());
    assert!(one.status.success());
    assert!(one.stdout == two.stdout, "two runs of seed 5 differ");
    let text = stdout(&one);
    assert!(text.starts_with("      1 A makes own.log "), "{text:.200}");
    // Every event is a line; the summary counts them.
    let events = text.lines().filter(|line| line.starts_with("  ")).count();
    assert!(events > 500, "{events} lines");
    assert!(simulate(&["--seed", "6", "--print"]).stdout != one.stdout);
}

#[test]
fn a_part_of_a_run_is_a_run() {
    let output = simulate(&["--seed", "5", "--only", "0-20,40", "--print", "--no-shrink"]);
    assert!(output.status.success(), "{}", stdout(&output));
    assert!(stdout(&output).len() < stdout(&simulate(&["--seed", "5", "--print"])).len());
}

#[test]
fn nonsense_is_refused() {
    for args in [&["--only", "5-3"][..], &["--only", "1", "--steps", "9"], &["--seed", "x"]] {
        let output = simulate(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}
