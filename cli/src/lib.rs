//! The command line of afterimage as a library, so that tests and fuzzing reach its parts.
//!
//! | module | what it is for |
//! |---|---|
//! | [`args`] | every flag, parsed and documented once |
//! | [`exit`] | what the exit status says |
//! | [`trace`] | block traces of twelve formats as one list of requests |
//! | [`replay`] | `afterimage replay`: a trace against a pair, through takeovers, with proof |
//!
//! There is no storage logic here: everything that keeps data is the engine's.

pub mod args;
pub mod exit;
pub mod replay;
pub mod trace;

use std::ffi::OsString;

use args::{Cli, Command};
use clap::Parser;
use exit::Exit;

/// Runs the command that `words` name, the program's name first, and says how it ended.
/// Whatever is to be said has been said on the terminal by then.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version go to the standard output and are no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Held };
        }
    };
    match cli.command {
        Command::Replay(args) => exit::report(replay::run(&args)),
    }
}
