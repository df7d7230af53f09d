//! `afterimage`, the command. Everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    afterimage_cli::run(std::env::args_os()).into()
}
