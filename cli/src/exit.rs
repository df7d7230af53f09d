//! The exit status; command by command in `docs/exit-status.md`. Scripts depend on the
//! numbers: they do not change.

use std::fmt;
use std::process::ExitCode;

use afterimage::internal::error::{Error, Kind};

use crate::trace::TraceError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to, and everything checked held.
    Held = 0,
    /// It did what it was asked to, and something checked did not hold.
    NotHeld = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// A trace cannot be read.
    BadTrace = 3,
    /// A device or the storage below it failed.
    Device = 4,
    /// A device is open elsewhere, or stands where one was to be made, and was left as it is.
    Refused = 5,
    /// A result could not be written.
    Output = 6,
    /// Nothing is damaged, and one of two devices has not yet got what the other has.
    Behind = 7,
    /// The thing that was to be changed is not there.
    Absent = 8,
    /// The host belongs at the other device, where this is to be done.
    Fenced = 9,
    /// The device was not closed cleanly, and must be recovered first.
    Unclean = 10,
    /// The volumes of the device are no state that the hosts' data ever had.
    Inconsistent = 11,
    /// Salvage has no room for what would be given up.
    SalvageFull = 12,
    /// The peer is not connected.
    Unconnected = 13,
    /// The time that was given is over.
    TimedOut = 14,
    /// The host has moved on, or a write may be lost, so that what was waited for cannot be told here.
    Superseded = 15,
}

impl Exit {
    /// All of them.
    pub const ALL: [Exit; 16] = [
        Exit::Held,
        Exit::NotHeld,
        Exit::Usage,
        Exit::BadTrace,
        Exit::Device,
        Exit::Refused,
        Exit::Output,
        Exit::Behind,
        Exit::Absent,
        Exit::Fenced,
        Exit::Unclean,
        Exit::Inconsistent,
        Exit::SalvageFull,
        Exit::Unconnected,
        Exit::TimedOut,
        Exit::Superseded,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not be carried through: the exit status and the story for a person.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    story: String,
}

impl Failure {
    /// A failure that ends the program with `exit`.
    pub fn new(exit: Exit, story: impl Into<String>) -> Failure {
        Failure { exit, story: story.into() }
    }

    /// The failure of an engine's device while `doing` something.
    pub fn device(doing: impl fmt::Display, error: &Error) -> Failure {
        let exit = match error.kind() {
            Kind::Config => Exit::Usage,
            _ => Exit::Device,
        };
        Failure::new(exit, format!("{doing}: {error}"))
    }

    /// The storage below the devices failed while `doing` something.
    pub fn storage(doing: impl fmt::Display, error: &std::io::Error) -> Failure {
        let exit = match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::AlreadyExists => Exit::Refused,
            _ => Exit::Device,
        };
        Failure::new(exit, format!("{doing}: {error}"))
    }

    /// A result could not be written to `name`.
    pub fn output(name: impl fmt::Display, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Output, format!("writing {name}: {error}"))
    }

    /// The same failure, of `what`.
    pub fn within(self, what: impl fmt::Display) -> Failure {
        Failure { story: format!("{what}: {}", self.story), ..self }
    }

    /// The exit status it leads to.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

impl std::error::Error for Failure {}

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Failure {
        Failure::new(Exit::BadTrace, error.to_string())
    }
}

/// Tells a person about a failure and gives the exit status of `outcome`.
pub fn report(outcome: Result<Exit, Failure>) -> Exit {
    outcome.unwrap_or_else(|failure| {
        eprintln!("afterimage: {failure}");
        if crate::signals::met_file_size_limit() {
            eprintln!(
                "afterimage: SIGXFSZ: no file of this process may be so large; `ulimit -f` says how \
                 large it may be"
            );
        }
        failure.exit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change() {
        let all = [
            (Exit::Held, 0),
            (Exit::NotHeld, 1),
            (Exit::Usage, 2),
            (Exit::BadTrace, 3),
            (Exit::Device, 4),
            (Exit::Refused, 5),
            (Exit::Output, 6),
            (Exit::Behind, 7),
            (Exit::Absent, 8),
            (Exit::Fenced, 9),
            (Exit::Unclean, 10),
            (Exit::Inconsistent, 11),
            (Exit::SalvageFull, 12),
            (Exit::Unconnected, 13),
            (Exit::TimedOut, 14),
            (Exit::Superseded, 15),
        ];
        assert_eq!(all.map(|(exit, _)| exit), Exit::ALL);
        for (exit, number) in all {
            assert_eq!(exit as u8, number);
        }
    }

    #[test]
    fn failures_of_a_device_are_told_apart() {
        let exit = |kind| Failure::device("opening a", &Error::new(kind, "x")).exit();
        assert_eq!(exit(Kind::Config), Exit::Usage);
        assert_eq!(exit(Kind::Halted), Exit::Device);
        assert_eq!(exit(Kind::Storage), Exit::Device);
        let story = Failure::device("opening a", &Error::new(Kind::Damaged, "no superblock"));
        assert_eq!(story.to_string(), "opening a: no superblock");
        let locked = std::io::Error::new(std::io::ErrorKind::WouldBlock, "open elsewhere");
        assert_eq!(Failure::storage("opening b", &locked).exit(), Exit::Refused);
        let there = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "holds a device");
        assert_eq!(Failure::storage("making a", &there).exit(), Exit::Refused);
    }
}
