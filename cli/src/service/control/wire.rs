//! The words of a control socket.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::Path;

use afterimage::Stamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::disaster::Choice;
use crate::exit::Exit;

/// A longer line is no order; an answer's lines are bounded by the service that writes them.
pub const ORDER_BYTES_MAX: u64 = 64 << 10;

/// A right at a service, from the least to the most. Each has a socket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To look.
    See,
    /// To move the host, and to wait for something.
    Operate,
    /// To answer for a loss.
    Force,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 3] = [Right::See, Right::Operate, Right::Force];

    /// The file of its socket, in the device's directory.
    pub fn file(self) -> &'static str {
        match self {
            Right::See => "see.sock",
            Right::Operate => "operate.sock",
            Right::Force => "force.sock",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::See => "to see",
            Right::Operate => "to operate",
            Right::Force => "to force",
        })
    }
}

/// An order to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Where the device stands.
    Status {},
    /// Every event from now on.
    Events {},
    /// The newest write of a host here.
    Mark {},
    /// Until the peer has everything up to a point durably.
    Wait {
        /// That of a mark.
        point: Point,
        /// For so many milliseconds at most.
        timeout_ms: Option<u64>,
    },
    /// Until nothing is owed, either way.
    Drain {
        /// For so many milliseconds at most.
        timeout_ms: Option<u64>,
    },
    /// The host moves here.
    Takeover {
        /// Say what would happen.
        dry_run: bool,
        /// Return as soon as the device serves, and not when everything owed is here.
        no_wait: bool,
    },
    /// The host moves to the peer.
    Handover {
        /// Say what would happen.
        dry_run: bool,
        /// Return as soon as the peer serves, and not when it has everything.
        no_wait: bool,
    },
    /// Hosts are stopped here, and served nowhere.
    Fence {},
    /// That is undone.
    Resume {},
    /// A new invitation for a peer; the one before is void.
    Invite {},
    /// So many bytes of data a second go to the peer at most; 0: as many as the line takes.
    Rate {
        /// Bytes a second.
        bytes_per_second: u64,
    },
    /// The device serves without having heard from its peer (R13).
    ResumeAlone {},
    /// Writes of which hosts were told are lost, and that is accepted (R20).
    AcceptLoss {
        /// Say which.
        #[serde(default)]
        dry_run: bool,
    },
    /// The device takes over without its peer, which is lost (D10).
    Force {
        /// The state that is served.
        image: Choice,
        /// The loss is accepted, too.
        accept_loss: bool,
        /// Do it.
        yes: bool,
    },
    /// Of two histories that have parted this device's is kept (D10).
    Resolve {
        /// The device whose history is meant to be kept.
        keep: Option<u64>,
        /// Do it.
        yes: bool,
    },
    /// The peer is lost for good, and another device takes its place.
    ForgetPeer {
        /// Do it.
        yes: bool,
    },
    /// The files of what was given up.
    SalvageList {},
    /// The entries of one of them.
    SalvageShow {
        /// Its number.
        number: u32,
    },
    /// One of them goes for good.
    SalvageRemove {
        /// Its number.
        number: u32,
        /// Do it.
        yes: bool,
    },
    /// The volumes are held against the peer's, by checksums.
    Compare {
        /// The name of one; all without.
        volume: Option<String>,
        /// So many bytes of blocks a second are read here, and at the peer, at most.
        bytes_per_second: Option<u64>,
    },
}

impl Order {
    /// The right that it asks for.
    pub fn right(&self) -> Right {
        match self {
            Order::Status {}
            | Order::Events {}
            | Order::Mark {}
            | Order::SalvageList {}
            | Order::SalvageShow { .. } => Right::See,
            Order::Wait { .. }
            | Order::Drain { .. }
            | Order::Takeover { .. }
            | Order::Handover { .. }
            | Order::Fence {}
            | Order::Resume {}
            | Order::Invite {}
            | Order::Rate { .. }
            | Order::Compare { .. } => Right::Operate,
            Order::ResumeAlone {}
            | Order::AcceptLoss { .. }
            | Order::Force { .. }
            | Order::Resolve { .. }
            | Order::ForgetPeer { .. }
            | Order::SalvageRemove { .. } => Right::Force,
        }
    }
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// How it goes; others follow.
    News(Said),
    /// The order is carried out; the last line.
    Done(Said),
    /// The order is refused, or failed; the last line.
    Failed {
        /// The command's exit status.
        exit: u8,
        /// For a person.
        why: String,
    },
}

/// The same twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// For a person.
    pub text: String,
    /// For a program.
    pub document: Value,
}

impl Said {
    /// `document`, which `text` tells of.
    pub fn new(text: impl Into<String>, document: &impl Serialize) -> Said {
        let document = serde_json::to_value(document).expect("numbers, words and lists of them");
        Said { text: text.into(), document }
    }

    /// The same, with a text that begins with the name of the device's directory.
    pub fn within(self, dir: &Path) -> Said {
        Said { text: format!("{}: {}", dir.display(), self.text), ..self }
    }
}

/// Reads one line of at most `most` bytes; `None` at the end.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is longer, or breaks off; what `from` says.
pub fn read_line(from: &mut impl BufRead, most: u64) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(most + 1).read_until(b'\n', &mut line)?;
    let broken = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => match String::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => broken(format!("a line is not text: {error}")),
        },
        Some(_) if line.len() as u64 >= most => {
            broken(format!("a line has more than {most} bytes"))
        }
        Some(_) => broken(format!("a line breaks off after {} bytes", line.len() + 1)),
    }
}

/// A write of a host: its stamp, as `mark` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(pub Stamp);

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Point {
    type Err = String;

    fn from_str(word: &str) -> Result<Point, String> {
        let parse = || {
            let mut parts = word.split('.');
            let stamp = Stamp {
                epoch: parts.next()?.parse().ok()?,
                time: parts.next()?.parse().ok()?,
                sequence: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(Point(stamp))
        };
        parse().ok_or_else(|| {
            format!("`{word}` is no point: `afterimage mark` prints one, such as 3.1700000000000000000.0")
        })
    }
}

impl Serialize for Point {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Point, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The exit status that a line names.
pub fn exit_of(number: u8) -> Exit {
    Exit::ALL.get(usize::from(number)).copied().unwrap_or(Exit::Device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let point = "3.17.2".parse().unwrap();
        for order in [
            Order::Status {},
            Order::Wait { point, timeout_ms: Some(5) },
            Order::Takeover { dry_run: true, no_wait: false },
        ] {
            let line = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order, "{line}");
        }
        for bad in [
            r#"{"order": "status", "force": true}"#,
            r#"{"order": "burn"}"#,
            r#"{"order": "wait", "point": "3.17", "timeout_ms": null}"#,
            "status",
        ] {
            serde_json::from_str::<Order>(bad).unwrap_err();
        }
    }

    #[test]
    fn a_line_is_bounded_and_whole() {
        let read = |bytes: &[u8], most| read_line(&mut &bytes[..], most).map_err(|e| e.to_string());
        assert_eq!(read(b"", 4), Ok(None));
        assert_eq!(read(b"abcd\nrest", 4), Ok(Some("abcd".into())));
        assert!(read(b"abcde\n", 4).unwrap_err().contains("more than 4 bytes"));
        assert!(read(b"abc", 4).unwrap_err().contains("breaks off after 3 bytes"));
        assert!(read(b"\xff\n", 4).unwrap_err().contains("not text"));
    }
}
