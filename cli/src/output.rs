//! How commands put their results and their progress before a person or a program.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::exit::Failure;
use crate::service::control::wire::Said;

/// A reader that has seen enough (`| head`) is no failure.
pub fn shown(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::output("the standard output", &e))
        }
        _ => Ok(()),
    }
}

/// Shows the outcome of a command: its text, or with `as_json` its document.
///
/// # Errors
/// [`crate::exit::Exit::Output`] if `out` fails.
pub fn said(said: &Said, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    shown(match as_json {
        true => json(&said.document, out),
        false => out.write_all(said.text.as_bytes()).and_then(|()| out.flush()),
    })
}

/// Writes one JSON document, for reading by people too.
pub fn json(document: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A progress bar on the standard error, which hides itself if that is no terminal; `what` is
/// counted, and may say more of it in `indicatif`'s words.
pub fn bar(length: u64, what: &str) -> ProgressBar {
    ProgressBar::new(length).with_style(style(&format!("{what}  {{eta}} left")))
}

/// Leaves the time left out of a bar from now on.
pub fn without_estimate(bar: &ProgressBar, what: &str) {
    bar.set_style(style(what));
}

fn style(what: &str) -> ProgressStyle {
    let template = format!("{{wide_bar}} {{human_pos}}/{{human_len}} {what}");
    ProgressStyle::with_template(&template).expect("a valid template")
}
