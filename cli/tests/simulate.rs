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

/// A clause of the rules is switched off, so that there is something to find.
#[cfg(feature = "weaken")]
mod weakened {
    use super::*;

    const AGAIN: &str =
        "again: cargo run -q --profile sim --features weaken --bin afterimage -- simulate ";

    /// The last two lines: what did not hold, and the command that shows it again.
    fn verdict(output: &Output) -> (String, String) {
        assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
        let text = stdout(output);
        let mut last = text.lines().rev();
        let again = last.next().and_then(|line| line.strip_prefix(AGAIN));
        let broken = last.next().filter(|line| line.starts_with("DID NOT HOLD, after "));
        let both = broken.zip(again).unwrap_or_else(|| panic!("no verdict: {text}"));
        (both.0.into(), both.1.into())
    }

    #[test]
    fn a_failing_run_is_made_short_and_comes_again_by_its_command() {
        let promise = "what is not written of a block stays";
        let whole = simulate(&["--weaken", "two-halves", "--steps", "1000000", "--no-shrink"]);
        assert!(verdict(&whole).0.contains(promise));
        let (broken, command) =
            verdict(&simulate(&["--weaken", "two-halves", "--steps", "1000000"]));
        assert!(broken.contains(promise), "{broken}");
        let args: Vec<&str> = command.split(' ').collect();
        let only = args.iter().skip_while(|&&arg| arg != "--only").nth(1).expect("its actions");
        let kept = afterimage::internal::simulate::Selection::parse(only)
            .expect("a list")
            .numbers()
            .count();
        assert!(kept <= 30, "{kept} actions are left: {only}");
        assert_eq!(verdict(&simulate(&args)), (broken, command.clone()));
        // It is the clause that was missed.
        let sound = command.replace(" --weaken two-halves", "");
        let sound = simulate(&sound.split(' ').collect::<Vec<_>>());
        assert_eq!(sound.status.code(), Some(0), "{}", stdout(&sound));
    }

    #[test]
    fn an_unknown_clause_is_refused_with_those_there_are() {
        let output = simulate(&["--weaken", "gravity"]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("seal-publication") && said.contains("tenure"), "{said}");
    }
}
