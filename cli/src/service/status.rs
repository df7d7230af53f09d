//! Where a device stands: one screen for a person, one document for a program.
//!
//! The document's fields are added to, and never change their meaning, within a version
//! (`docs/operations.md`).

use std::fmt;

use afterimage::{Device, ImageStatus, Rung, Status};
use serde::Serialize;

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
    version: u32,
    device: u64,
    role: Role,
    tenure: u64,
    /// `ordered`, `collecting`, `sending` or `copying`.
    mode: String,
    connected: bool,
    link: line::Report,
    /// Connections of hosts.
    hosts: usize,
    hosts_refused: RefusedHosts,
    /// Of each export at each socket.
    uris: Vec<String>,
    backlog: Backlog,
    /// Blocks whose newest data is at the peer.
    owed_blocks: u64,
    journal: Journal,
    /// Whether the volumes are a state that the hosts' data had once.
    consistent: bool,
    no_consistent_copy: bool,
    image: String,
    /// Nanoseconds that a write is delayed for because the journal is filling.
    delay_ns: u64,
    awaits_taker: bool,
    lost_writes: bool,
    /// The errors that keep the device from serving, or have stopped it.
    trouble: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    /// Hosts are served here.
    Serving,
    /// The other device serves, or is to.
    Fenced,
    /// Hosts were served here last, and are again once the peer has shown that it does not (R13).
    Waiting,
    /// Hosts are served here once an operator has accepted a loss.
    Refusing,
    Stopped,
}

/// Hosts that were not served, since the service began.
#[derive(Debug, Serialize)]
struct RefusedHosts {
    too_many: u64,
    handshakes: u64,
    late: u64,
    broken: u64,
}

impl From<Counters> for RefusedHosts {
    fn from(counters: Counters) -> RefusedHosts {
        let Counters { too_many, handshakes, late, broken } = counters;
        RefusedHosts { too_many, handshakes, late, broken }
    }
}

/// Writes that the peer lacks.
#[derive(Debug, Serialize)]
struct Backlog {
    records: u64,
    blocks: u64,
    bytes: u64,
    /// The age of the oldest write among the records, in nanoseconds; `None` if it was there at the opening.
    oldest_ns: Option<u64>,
    /// Wall time, in nanoseconds since 1970: the peer has every write of before durably; `None` if that
    /// is not known.
    peer_durable_until_ns: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Journal {
    own_percent: u64,
    own_used_bytes: u64,
    received_used_bytes: u64,
    full_in_ns: Option<u64>,
    next_rung_in_ns: Option<u64>,
}

impl Report {
    /// Of `device`, now, and of its connection.
    pub fn of(device: &Device, opened_at: u64, parts: (line::Report, hosts::Report)) -> Report {
        let status = device.status();
        let times = (device.clock().monotonic(), device.clock().wall(), opened_at);
        Report::new(&status, u64::from(device.geometry().block_size), times, parts)
    }

    fn new(
        status: &Status,
        block_size: u64,
        (now, wall, opened_at): (u64, u64, u64),
        (link, of_hosts): (line::Report, hosts::Report),
    ) -> Report {
        // A record of before the opening is as old as nobody knows.
        let is_known = status.oldest_written_at.is_none_or(|at| at > opened_at);
        let oldest_ns = status.oldest_written_at.filter(|_| is_known);
        let oldest_ns = oldest_ns.map(|at| now.saturating_sub(at));
        let table_blocks = status.differential.table_blocks;
        let trouble = [&status.halted, &status.lost, &status.salvage_full];
        Report {
            version: VERSION,
            device: status.device,
            role: match status {
                _ if status.halted.is_some() => Role::Stopped,
                _ if status.serving && status.lost_writes.is_some() => Role::Refusing,
                _ if status.serving => Role::Serving,
                _ if status.last_active == status.epoch => Role::Waiting,
                _ => Role::Fenced,
            },
            tenure: status.epoch,
            mode: status.mode.to_string(),
            connected: status.connected,
            link,
            hosts: of_hosts.connections,
            hosts_refused: of_hosts.refused.into(),
            uris: of_hosts.uris,
            backlog: Backlog {
                records: status.backlog_records,
                blocks: table_blocks,
                bytes: status.backlog_bytes + table_blocks * block_size,
                oldest_ns,
                peer_durable_until_ns: (table_blocks == 0 && is_known)
                    .then(|| wall.saturating_sub(oldest_ns.unwrap_or(0))),
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
            trouble: trouble.into_iter().flatten().map(ToString::to_string).collect(),
        }
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
            }
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
