//! Where a device stands: one screen for a person, one document for a program.
//!
//! The document's fields are added to, and never change their meaning, within a version
//! (`docs/operations.md`).

use std::fmt;

use afterimage::{Device, ImageStatus, Mode, Rung, Status};
use serde::Serialize;

use super::course::{Course, Takeover, sent};
use super::{hosts, line};

use crate::nbd::Counters;
use crate::words::{bytes, count, duration, moment, plural};

/// The document's version.
const VERSION: u32 = 1;

/// More do not fit on a screen.
const URIS_MAX: usize = 8;

/// The state of a device, named as operators name it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) version: u32,
    pub(super) device: u64,
    pub(super) role: Role,
    pub(super) tenure: u64,
    /// `ordered`, `collecting`, `sending` or `copying`.
    pub(super) mode: String,
    /// The rung of the ladder: the mode, or `paced`.
    pub(super) rung: String,
    pub(super) connected: bool,
    pub(super) link: line::Report,
    /// Connections of hosts.
    pub(super) hosts: usize,
    pub(super) hosts_refused: RefusedHosts,
    /// Of each export at each socket.
    pub(super) uris: Vec<String>,
    pub(super) backlog: Backlog,
    /// Blocks whose newest data is at the peer.
    pub(super) owed_blocks: u64,
    pub(super) journal: Journal,
    /// Whether the volumes are a state that the hosts' data had once.
    pub(super) consistent: bool,
    pub(super) no_consistent_copy: bool,
    pub(super) image: String,
    /// Nanoseconds that a write is delayed for because the journal is filling.
    pub(super) delay_ns: u64,
    pub(super) awaits_taker: bool,
    pub(super) lost_writes: bool,
    /// The last move of the host since the service's start.
    pub(super) last_takeover: Option<Takeover>,
    /// The errors that keep the device from serving, or have stopped it.
    pub(super) trouble: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// Hosts are served here.
    Serving,
    /// The other device serves, or is to.
    Fenced,
    /// An operator has stopped hosts here, and nobody serves them.
    FencedHere,
    /// Hosts were served here last, and are again once the peer has shown that it does not (R13).
    Waiting,
    /// Hosts are served here once an operator has accepted a loss.
    Refusing,
    Stopped,
}

/// Hosts that were not served, since the service began.
#[derive(Debug, Serialize)]
pub(super) struct RefusedHosts {
    pub(super) too_many: u64,
    pub(super) handshakes: u64,
    pub(super) late: u64,
    pub(super) broken: u64,
}

impl From<Counters> for RefusedHosts {
    fn from(counters: Counters) -> RefusedHosts {
        let Counters { too_many, handshakes, late, broken } = counters;
        RefusedHosts { too_many, handshakes, late, broken }
    }
}

impl Role {
    /// All of them, as the document names them.
    pub(super) const ALL: [(Role, &str); 6] = [
        (Role::Serving, "serving"),
        (Role::Fenced, "fenced"),
        (Role::FencedHere, "fenced-here"),
        (Role::Waiting, "waiting"),
        (Role::Refusing, "refusing"),
        (Role::Stopped, "stopped"),
    ];
}

/// The rungs, as the document names them.
pub(super) const RUNGS: [&str; 5] = ["ordered", "paced", "collecting", "sending", "copying"];

/// Writes that the peer lacks.
#[derive(Debug, Serialize)]
pub(super) struct Backlog {
    pub(super) records: u64,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// The age of the oldest write among the records, in nanoseconds; `None` if it was there at the opening.
    pub(super) oldest_ns: Option<u64>,
    /// Wall time, in nanoseconds since 1970: the peer has every write of before durably, as was known last; `None` if
    /// it was not since the service's start.
    pub(super) peer_durable_until_ns: Option<u64>,
    /// How far that is behind the present, in nanoseconds: the recovery point.
    pub(super) behind_ns: Option<u64>,
    /// How far it may be, as an operator wants it.
    pub(super) target_ns: Option<u64>,
    /// Bytes a second that the peer has got in the last seconds.
    pub(super) bytes_per_second: u64,
    /// Nanoseconds until the peer has all, at that rate and without further writes; `None` at a rate of 0.
    pub(super) drained_in_ns: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Journal {
    pub(super) own_percent: u64,
    pub(super) own_used_bytes: u64,
    pub(super) received_used_bytes: u64,
    pub(super) full_in_ns: Option<u64>,
    pub(super) next_rung_in_ns: Option<u64>,
}

/// The rest of a report, beside the device.
pub(super) struct Parts<'a> {
    pub(super) link: line::Report,
    pub(super) hosts: hosts::Report,
    pub(super) course: &'a Course,
    /// Monotonic time of the opening.
    pub(super) opened_at: u64,
    /// As [`Backlog::target_ns`].
    pub(super) target_ns: Option<u64>,
}

impl Report {
    /// Of `device`, now.
    pub(super) fn of(device: &Device, parts: Parts<'_>) -> Report {
        let status = device.status();
        let times = (device.clock().monotonic(), device.clock().wall());
        Report::new(&status, u64::from(device.geometry().block_size), times, parts)
    }

    fn new(status: &Status, block_size: u64, (now, wall): (u64, u64), parts: Parts<'_>) -> Report {
        let Parts { link, hosts, course, opened_at, target_ns } = parts;
        // A record of before the opening is as old as nobody knows.
        let is_known = status.oldest_written_at.is_none_or(|at| at > opened_at);
        let oldest_ns = status.oldest_written_at.filter(|_| is_known);
        let oldest_ns = oldest_ns.map(|at| now.saturating_sub(at));
        let table_blocks = status.differential.table_blocks;
        let known =
            (table_blocks == 0 && is_known).then(|| wall.saturating_sub(oldest_ns.unwrap_or(0)));
        let until = course.durable_until(known, wall);
        let missing = status.backlog_bytes + table_blocks * block_size;
        let rate = course.rate(sent(status), now);
        let mode = status.mode.to_string();
        let trouble = [&status.halted, &status.lost, &status.salvage_full];
        Report {
            version: VERSION,
            device: status.device,
            role: match status {
                _ if status.halted.is_some() => Role::Stopped,
                _ if status.serving && status.lost_writes.is_some() => Role::Refusing,
                _ if status.serving => Role::Serving,
                _ if status.fenced_here => Role::FencedHere,
                _ if status.last_active == status.epoch => Role::Waiting,
                _ => Role::Fenced,
            },
            tenure: status.epoch,
            rung: match status.rung {
                Rung::Paced { .. } if status.mode == Mode::Ordered => "paced".into(),
                _ => mode.clone(),
            },
            mode,
            connected: status.connected,
            link,
            hosts: hosts.connections,
            hosts_refused: hosts.refused.into(),
            uris: hosts.uris,
            backlog: Backlog {
                records: status.backlog_records,
                blocks: table_blocks,
                bytes: missing,
                oldest_ns,
                peer_durable_until_ns: until,
                behind_ns: until.map(|until| wall.saturating_sub(until)),
                target_ns,
                bytes_per_second: rate,
                drained_in_ns: match (missing, rate) {
                    (0, _) => Some(0),
                    (_, 0) => None,
                    _ => (u128::from(missing) * 1_000_000_000 / u128::from(rate)).try_into().ok(),
                },
            },
            owed_blocks: status.owed_blocks,
            journal: Journal {
                own_percent: status.own_fill_percent,
                own_used_bytes: status.own_used_bytes,
                received_used_bytes: status.recv_used_bytes,
                full_in_ns: status.own_full_in_ns,
                next_rung_in_ns: status.next_rung_in_ns,
            },
            consistent: status.differential.is_consistent,
            no_consistent_copy: status.differential.no_consistent_copy,
            image: image_words(&status.image),
            delay_ns: match status.rung {
                Rung::Paced { delay_ns } => delay_ns,
                _ => 0,
            },
            awaits_taker: status.awaits_taker,
            lost_writes: status.lost_writes.is_some(),
            last_takeover: course.takeovers().0,
            trouble: trouble.into_iter().flatten().map(ToString::to_string).collect(),
        }
    }
}

impl Report {
    /// Where the device stands, in a few words.
    pub(super) fn phrase(&self) -> String {
        let role = Role::ALL.iter().find(|(role, _)| *role == self.role).map_or("", |role| role.1);
        let line = if self.connected { "connected" } else { "not connected" };
        let (records, blocks) = (self.backlog.records, self.backlog.blocks);
        format!(
            "{role}, tenure {}, {}, peer {line}, backlog {} and {}, {} owed",
            self.tenure,
            self.rung,
            plural(records, "record"),
            plural(blocks, "block"),
            plural(self.owed_blocks, "block")
        )
    }
}

/// The last consistent image, in a phrase.
pub(super) fn image_words(status: &ImageStatus) -> String {
    match status {
        ImageStatus::NotNeeded => "none is needed".into(),
        ImageStatus::Kept { point, blocks, bytes: length } => format!(
            "kept, of {}: {}, {}",
            moment(point.at),
            plural(*blocks, "block"),
            bytes(*length)
        ),
        ImageStatus::Missing { why } => format!("not kept: {why}"),
        ImageStatus::PutBack { point } => {
            format!("on its way back into the volumes, of {}", moment(point.at))
        }
        _ => "not known to this program".into(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Serving => "serves",
            Role::Fenced => "is fenced: hosts belong at the peer",
            Role::FencedHere => {
                "is fenced by an operator: hosts are served nowhere (`afterimage resume`)"
            }
            Role::Waiting => {
                "held the host, and waits for the peer's word (or `afterimage resume --alone`)"
            }
            Role::Refusing => "refuses hosts until a loss is accepted (`afterimage accept-loss`)",
            Role::Stopped => "has stopped",
        };
        let line = if self.connected { "connected" } else { "not connected" };
        writeln!(f, "device {} {role}", self.device)?;
        writeln!(f, "  tenure    {}, {} mode, peer {line}", self.tenure, self.mode)?;
        writeln!(f, "  link      {}", self.link)?;
        writeln!(f, "  hosts     {}", plural(self.hosts as u64, "connection"))?;
        for uri in self.uris.iter().take(URIS_MAX) {
            writeln!(f, "            {uri}")?;
        }
        if let Some(more) = self.uris.len().checked_sub(URIS_MAX + 1) {
            writeln!(f, "            and {} more (--json)", more + 1)?;
        }
        let Backlog { records, blocks, bytes: size, oldest_ns, .. } = self.backlog;
        match records + blocks {
            0 => writeln!(f, "  backlog   none")?,
            _ => {
                let age = oldest_ns.map_or(String::new(), |ns| format!(", {} old", duration(ns)));
                let (records, blocks) = (plural(records, "record"), plural(blocks, "block"));
                writeln!(f, "  backlog   {records}, {blocks} by bits, {}{age}", bytes(size))?;
                let left = self.backlog.drained_in_ns;
                let left = left.map_or(String::new(), |ns| format!(", all in {}", duration(ns)));
                writeln!(f, "  sent      {}/s{left}", bytes(self.backlog.bytes_per_second))?;
            }
        }
        if let (Some(behind), Some(target)) = (self.backlog.behind_ns, self.backlog.target_ns)
            && behind > target
        {
            let (behind, target) = (duration(behind), duration(target));
            writeln!(f, "  WARNING   the peer is {behind} behind: the target is {target}")?;
        }
        writeln!(f, "  owed      {} at the peer", plural(self.owed_blocks, "block"))?;
        let Journal { own_percent, own_used_bytes, received_used_bytes, full_in_ns, .. } =
            self.journal;
        let full = full_in_ns.map_or(String::new(), |ns| format!(", full in {}", duration(ns)));
        let next = self.journal.next_rung_in_ns;
        let next = next.map_or(String::new(), |ns| format!(", next rung in {}", duration(ns)));
        let (own, received) = (bytes(own_used_bytes), bytes(received_used_bytes));
        writeln!(f, "  journal   {own_percent} %: own {own}, received {received}{full}{next}")?;
        if self.delay_ns > 0 {
            writeln!(f, "  pacing    each write is delayed by {}", duration(self.delay_ns))?;
        }
        let is = if self.consistent { "consistent" } else { "not consistent" };
        writeln!(f, "  volumes   {is}; last consistent image: {}", self.image)?;
        if let Some(Takeover { at_ns, tenure, here, .. }) = self.last_takeover {
            let to = if here { "here" } else { "to the peer" };
            writeln!(f, "  takeover  {to}, tenure {tenure}, {}", moment(at_ns))?;
        }
        if self.no_consistent_copy {
            writeln!(f, "  WARNING   no consistent copy is at either site")?;
        }
        if self.awaits_taker {
            writeln!(f, "  WARNING   the host is granted to the peer, which has not taken it yet")?;
        }
        if self.lost_writes {
            writeln!(f, "  WARNING   writes that hosts were told had completed may be lost")?;
        }
        self.trouble.iter().try_for_each(|what| writeln!(f, "  WARNING   {what}"))
    }
}

/// Progress of what is owed, for a sentence.
pub(super) fn left(blocks: u64) -> String {
    format!("{} left at the peer", count(blocks))
}
