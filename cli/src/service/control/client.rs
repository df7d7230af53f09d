//! A command's end of a control socket.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wire::{Line, Order, Right, exit_of, read_line};
use crate::exit::{Exit, Failure};
use crate::output::shown;

/// An answer's line is no longer.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Whether a service of the device in `dir` runs, as far as this user can tell.
pub fn is_served(dir: &Path) -> bool {
    match UnixStream::connect(dir.join(Right::See.file())) {
        Ok(_) => true,
        // A user that is kept out of this socket may have a greater right.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// A connection to the service of the device in `dir` with `right`, or with a greater one, which includes it.
fn connect(dir: &Path, right: Right) -> io::Result<UnixStream> {
    let at = |right: Right| UnixStream::connect(dir.join(right.file()));
    at(right).or_else(|error| {
        let greater = || Right::ALL.into_iter().filter(|other| *other > right);
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                greater().find_map(|other| at(other).ok()).ok_or(error)
            }
            _ => Err(error),
        }
    })
}

/// Has the service of the device in `dir` carry out `order`, and shows what it says in `out`, for a person or, with
/// `json`, for a program: a document a line while it goes on, the outcome last.
///
/// # Errors
/// [`Exit::Absent`] if no service runs there, [`Exit::Refused`] if this user may not ask for that;
/// what the service answers; [`Exit::Output`].
pub fn ask(dir: &Path, order: &Order, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let path = dir.join(order.right().file());
    let shown_path = path.display();
    let mut stream = connect(dir, order.right()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::Absent,
            format!(
                "{shown_path}: no service runs there: start it (`afterimage serve {}`)",
                dir.display()
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::Refused,
            format!(
                "{shown_path}: this user has no right {} there: {error}; `control` in the service's configuration \
                 says who has it",
                order.right()
            ),
        ),
        _ => Failure::storage(format!("connecting to {shown_path}"), &error),
    })?;
    let ended = |why: &dyn std::fmt::Display| {
        let what =
            format!("{shown_path}: the service's answer ended early: {why}; look at its log");
        Failure::new(Exit::Device, what)
    };
    let mut line = serde_json::to_vec(order).expect("words and numbers");
    line.push(b'\n');
    // A service that refuses a caller hangs up without having read: its answer says why.
    let _ = stream.write_all(&line);
    let mut answers = BufReader::new(stream);
    loop {
        let line = read_line(&mut answers, LINE_BYTES_MAX).map_err(|e| ended(&e))?;
        let line = line.ok_or_else(|| ended(&"the connection is gone"))?;
        let (said, is_last) = match serde_json::from_str(&line).map_err(|e| ended(&e))? {
            Line::News(said) => (said, false),
            Line::Done(said) => (said, true),
            Line::Failed { exit, why } => {
                return Err(Failure::new(exit_of(exit), format!("{}: {why}", dir.display())));
            }
        };
        let written = match json {
            true => writeln!(out, "{}", said.document),
            false => out.write_all(said.text.as_bytes()),
        };
        let written = written.and_then(|()| out.flush());
        if is_last {
            return shown(written).map(|()| Exit::Held);
        }
        match written {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Held),
            written => shown(written)?,
        }
    }
}
