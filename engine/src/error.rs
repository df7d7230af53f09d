//! Errors: a small stable kind with the story around it.
//!
//! A caller branches on [`Kind`]; a person reads the message, which says what was tried, what was
//! found and what to do.

use std::fmt;
use std::sync::Arc;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The device gives no service: the host has moved. Retry at the other device.
    Fenced,
    /// A takeover is under way here. Retry here, later.
    NotReady,
    /// The session is over: a later one writes to its volume, or its owner revoked it (R20). Open
    /// another one for the host, if it is still there.
    Superseded,
    /// Writes that hosts were told had completed may be lost, and nobody has accepted that yet (R20):
    /// [`crate::Device::accept_loss`].
    LostWrites,
    /// After an opening, this device has not yet shown that it may serve (R13). Retry later.
    NotProven,
    /// The journal has had no free place for the longest time allowed (R9). Retry later.
    JournalFull,
    /// So many bytes of writes wait to be admitted that this one may not join them
    /// ([`crate::Settings::waiting_bytes_max`]); nothing of it has been done. Repeat it when one of
    /// them is done.
    Busy,
    /// The other device did not answer in time. Retry later.
    Timeout,
    /// A link to the other device is needed and there is none. Retry later.
    NoPeer,
    /// The request is beyond the volume's end, or names no volume; or a takeover was asked for at the
    /// device that serves.
    Invalid,
    /// The request is larger than the advertised limit: split it.
    TooLarge,
    /// Geometry or settings are out of range, contradict each other, or do not fit what is on disk.
    Config,
    /// The device stopped after a failed write or sync, or a broken invariant. It stays stopped.
    Halted,
    /// Bytes on disk are not what they should be.
    Damaged,
    /// The peer sent what it must not send, or belongs to another pair.
    Protocol,
    /// The storage failed.
    Storage,
}

impl Kind {
    /// Whether the same request can succeed later, here or (for [`Kind::Fenced`]) at the other
    /// device, without anybody's help.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Kind::Fenced
                | Kind::NotReady
                | Kind::NotProven
                | Kind::JournalFull
                | Kind::Busy
                | Kind::Timeout
                | Kind::NoPeer
        )
    }
}

/// A failure: its kind, its story and its source.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Arc<std::io::Error>>,
}

impl Error {
    /// A failure of `kind`; `context` says what was tried, what was found and what to do.
    pub fn new(kind: Kind, context: impl Into<String>) -> Error {
        Error { kind, context: context.into(), source: None }
    }

    /// A failure of the storage below, with what was being done.
    pub fn storage(context: impl Into<String>, source: std::io::Error) -> Error {
        Error { kind: Kind::Storage, context: context.into(), source: Some(Arc::new(source)) }
    }

    /// The same failure as another kind, with more of its story in front.
    pub fn because(self, kind: Kind, context: impl fmt::Display) -> Error {
        Error { kind, context: format!("{context}: {}", self.context), source: self.source }
    }

    /// The storage's error, if it was one.
    pub fn io(&self) -> Option<&std::io::Error> {
        self.source.as_deref()
    }

    /// The kind, for programs.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.context),
            None => f.write_str(&self.context),
        }
    }
}

impl std::error::Error for Error {
    /// The cause of the storage's error: that one itself is part of the message, and a report that
    /// goes along the chain would print it twice. See [`Error::io`].
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io().and_then(std::error::Error::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report that goes along the chain, as most do, says each thing once.
    #[test]
    fn nothing_is_printed_twice() {
        let cause = Error::new(Kind::Damaged, "the medium's own words");
        let io = std::io::Error::new(std::io::ErrorKind::TimedOut, "the disk is slow");
        let error = Error::storage("syncing own.log", io).because(Kind::Halted, "stopped");
        assert_eq!(chain(&error), ["stopped: syncing own.log: the disk is slow"]);
        assert_eq!(error.io().map(|e| e.kind()), Some(std::io::ErrorKind::TimedOut));
        let wrapped = Error::storage("reading", std::io::Error::other(cause));
        assert_eq!(chain(&wrapped).join("|").matches("the medium's own words").count(), 1);
    }

    fn chain(error: &dyn std::error::Error) -> Vec<String> {
        std::iter::successors(Some(error), |e| e.source()).map(|e| e.to_string()).collect()
    }
}
