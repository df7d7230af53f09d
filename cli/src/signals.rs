//! Signals: one that ends the program leaves nothing behind, or it is said what remains and where.
//!
//! # Rules
//! - **SIGINT and SIGTERM** end the program as they end any: shells see 130 and 143. Temporary
//!   directories are removed before; what has to stay is named, with what to do about it. A service comes to rest at
//!   the first one.
//! - **SIGXFSZ** (a file would be larger than the process may make it) ends nothing: the write
//!   fails with `EFBIG`, and so do the device and the command, with that error's name.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Removing a directory is tried so often: threads that still run may make files in it meanwhile.
const ATTEMPTS: usize = 100;

/// Something that a signal would leave behind.
enum Remains {
    /// A directory or a file that nobody needs.
    Remove(PathBuf),
    /// A story of something that stays.
    Say(String),
}

static REMAINS: Mutex<Vec<(u64, Remains)>> = Mutex::new(Vec::new());

/// The way to end of a program that does so by itself, with the signal's name.
type Ends = Box<dyn FnOnce(&'static str) + Send>;

static ENDS: Mutex<Option<Ends>> = Mutex::new(None);

/// The next SIGINT or SIGTERM calls `ends`, and does not end the program.
pub(crate) fn end_with(ends: impl FnOnce(&'static str) + Send + 'static) {
    *ENDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ends));
}

/// As long as it lives, a signal that ends the program removes or names what it was made for.
pub(crate) struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        remains().retain(|(number, _)| *number != self.0);
    }
}

/// `path`, a file or a directory, is removed by a signal that ends the program.
pub(crate) fn removing(path: &Path) -> Guard {
    add(Remains::Remove(path.to_path_buf()))
}

/// `story` is told when a signal ends the program.
pub(crate) fn saying(story: String) -> Guard {
    add(Remains::Say(story))
}

fn add(what: Remains) -> Guard {
    let mut remains = remains();
    let number = remains.last().map_or(0, |(number, _)| number + 1);
    remains.push((number, what));
    Guard(number)
}

fn remains() -> MutexGuard<'static, Vec<(u64, Remains)>> {
    REMAINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a write would have made a file larger than this process may.
pub(crate) fn met_file_size_limit() -> bool {
    too_large().load(Ordering::Relaxed)
}

fn too_large() -> &'static Arc<AtomicBool> {
    static TOO_LARGE: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    TOO_LARGE.get_or_init(Arc::default)
}

/// Begins to watch for signals; once per process. Where the system refuses, they end the program as
/// they do without this.
pub(crate) fn watch() {
    let _ = signal_hook::flag::register(SIGXFSZ, too_large().clone());
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let watching = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ends {
                Some(ends) => ends(name_of(signal)),
                None => end_by(signal),
            }
        }
    });
    if watching.is_err() {
        for signal in [SIGINT, SIGTERM] {
            let _ = signal_hook::flag::register_conditional_default(
                signal,
                Arc::new(AtomicBool::new(true)),
            );
        }
    }
}

fn name_of(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// Removes and says what there is, and ends the program as `signal` does by itself.
fn end_by(signal: i32) {
    // Nothing is made or given up from here on.
    let remains = remains();
    eprintln!("afterimage: ended by {}", name_of(signal));
    for (_, what) in remains.iter() {
        match what {
            Remains::Say(story) => eprintln!("afterimage: {story}"),
            Remains::Remove(path) => match remove(path) {
                Ok(()) => {}
                Err(error) => eprintln!("afterimage: {} remains: {error}", path.display()),
            },
        }
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

fn remove(path: &Path) -> std::io::Result<()> {
    let mut attempts = 0;
    loop {
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(path),
            false => std::fs::remove_file(path),
        };
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if attempts == ATTEMPTS => return Err(error),
            Err(_) => attempts += 1,
            Ok(()) => return Ok(()),
        }
    }
}
