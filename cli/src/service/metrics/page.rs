//! The metrics of a service, as OpenMetrics text.
//!
//! Everything that `status` says of a device is here: [`page`] takes its report apart, so that a field that is added
//! there is looked at here. A value that is not known is absent.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::latency::Reading;
use crate::service::line;
use crate::service::status::{Backlog, Journal, RUNGS, RefusedHosts, Report, Role};

/// The rest of the page, beside the report.
pub(super) struct Counts {
    /// Requests of hosts, by what they ask for.
    pub requests: Vec<(&'static str, Reading)>,
    /// Records, from their write until the peer had acknowledged them.
    pub lag: Reading,
    /// Records that the peer has acknowledged, and bytes that it has got.
    pub acknowledged: (u64, u64),
    /// Moves of the host.
    pub takeovers: u64,
    /// Events by their name.
    pub events: BTreeMap<String, u64>,
    /// Orders that were refused.
    pub refused_orders: u64,
    /// Wall time of the service's start, in nanoseconds since 1970.
    pub begun_at: u64,
}

/// The values of one metric, each with its labels.
#[derive(Debug)]
enum Values {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, u64)>),
    Histogram(Vec<(Labels, Reading)>),
}

type Labels = Vec<(&'static str, String)>;

impl EncodeMetric for Values {
    fn encode(&self, mut to: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Values::Gauge(values) => values
                .iter()
                .try_for_each(|(labels, value)| to.encode_family(labels)?.encode_gauge(value)),
            Values::Counter(values) => values.iter().try_for_each(|(labels, value)| {
                to.encode_family(labels)?.encode_counter::<Labels, _, u64>(value, None)
            }),
            Values::Histogram(values) => values.iter().try_for_each(|(labels, read)| {
                let mut to = to.encode_family(labels)?;
                to.encode_histogram::<Labels>(read.sum, read.count, &read.buckets, None)
            }),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Values::Gauge(_) => MetricType::Gauge,
            Values::Counter(_) => MetricType::Counter,
            Values::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// A page in the making.
struct Page(Registry);

impl Page {
    /// One value, if it is known.
    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        let values = value.into().map(|value| (Vec::new(), value));
        self.0.register(name, help, Values::Gauge(values.into_iter().collect()));
    }

    /// Whether something is so.
    fn flag(&mut self, name: &str, help: &str, is: bool) {
        self.gauge(name, help, f64::from(u8::from(is)));
    }

    /// The one of several states that it is in: that one is 1, all others are 0.
    fn state<'a>(
        &mut self,
        (name, label): (&str, &'static str),
        help: &str,
        states: impl IntoIterator<Item = &'a str>,
        now: &str,
    ) {
        let value = |state: &str| (vec![(label, state.into())], f64::from(u8::from(state == now)));
        self.0.register(name, help, Values::Gauge(states.into_iter().map(value).collect()));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, Values::Counter(vec![(Vec::new(), value)]));
    }

    fn counters<'a>(
        &mut self,
        (name, label): (&str, &'static str),
        help: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let values = values.into_iter().map(|(of, value)| (vec![(label, of.into())], value));
        self.0.register(name, help, Values::Counter(values.collect()));
    }
}

/// The page.
pub(super) fn page(report: &Report, counts: &Counts) -> String {
    let mut page = Page(Registry::with_prefix("afterimage"));
    device(&mut page, report);
    counters(&mut page, report, counts);
    let mut text = String::new();
    encode(&mut text, &page.0).expect("a string takes it");
    text
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn device(page: &mut Page, report: &Report) {
    // Whole: a field that is added has its metric, or is named here as having none.
    let Report {
        version: _,
        device,
        role,
        tenure,
        mode: _, // with the rung
        rung,
        connected,
        link: _, // its counters, and the limit, below
        hosts,
        hosts_refused: _, // a counter, below
        uris: _,
        backlog,
        owed_blocks,
        journal,
        consistent,
        no_consistent_copy,
        image: _, // words
        delay_ns,
        awaits_taker,
        lost_writes,
        last_takeover,
        trouble,
    } = report;
    let info = vec![("device", device.to_string()), ("version", env!("CARGO_PKG_VERSION").into())];
    let is = Values::Gauge(vec![(info, 1.0)]);
    page.0.register("device_info", "The device's number, and the program's version", is);
    let now = Role::ALL.iter().find(|(of, _)| of == role).map_or("", |(_, name)| name);
    let roles = Role::ALL.map(|(_, name)| name);
    page.state(("role", "role"), "The device's part: serving hosts, fenced, …", roles, now);
    page.state(("rung", "rung"), "How writes reach the peer: the rung of the ladder", RUNGS, rung);
    page.gauge("tenure", "The highest tenure that the device granted or held", *tenure as f64);
    page.flag("peer_connected", "Whether a connection to the peer stands", *connected);
    page.gauge("host_connections", "Connections of hosts", *hosts as f64);
    let owed = *owed_blocks as f64;
    page.gauge("owed_blocks", "Blocks whose newest data is at the peer", owed);
    page.flag("consistent", "Whether the volumes are a state that the data had once", *consistent);
    let help = "Whether no consistent copy is at either site";
    page.flag("no_consistent_copy", help, *no_consistent_copy);
    page.gauge("write_delay_seconds", "The delay of a write by pacing", seconds(*delay_ns));
    let help = "Whether the host is granted to the peer, which has not taken it";
    page.flag("awaits_taker", help, *awaits_taker);
    let help = "Whether writes may be lost that hosts were told had completed";
    page.flag("lost_writes", help, *lost_writes);
    let help = "Errors that have stopped the device, or keep it from something";
    page.gauge("troubles", help, trouble.len() as f64);
    let help = "When the host moved last, since the service's start";
    let at = last_takeover.map(|takeover| seconds(takeover.at_ns));
    page.gauge("last_takeover_timestamp_seconds", help, at);
    let help = "Blocks that were owed when the host moved here last";
    let owed = last_takeover.and_then(|takeover| takeover.owed_blocks);
    page.gauge("last_takeover_owed_blocks", help, owed.map(|blocks| blocks as f64));
    replication(page, *role, backlog);

    let Journal { own_percent, own_used_bytes, received_used_bytes, full_in_ns, next_rung_in_ns } =
        journal;
    let help = "How full the own journal is, from 0 to 1";
    page.gauge("journal_fill_ratio", help, *own_percent as f64 / 100.0);
    page.gauge("journal_own_used_bytes", "Bytes held in the own journal", *own_used_bytes as f64);
    let help = "Bytes held in the received journal";
    page.gauge("journal_received_used_bytes", help, *received_used_bytes as f64);
    let help = "Time until the own journal is full, as it fills now; absent if it does not";
    page.gauge("journal_full_seconds", help, full_in_ns.map(seconds));
    let help = "Time until the next rung; absent if nothing leads there";
    page.gauge("next_rung_seconds", help, next_rung_in_ns.map(seconds));
}

fn replication(page: &mut Page, role: Role, backlog: &Backlog) {
    let Backlog {
        records,
        blocks,
        bytes,
        oldest_ns,
        peer_durable_until_ns,
        behind_ns: _, // by the time of whoever asks
        target_ns,
        bytes_per_second,
        drained_in_ns,
    } = backlog;
    page.gauge("backlog_records", "Records that the peer lacks", *records as f64);
    page.gauge("backlog_blocks", "Blocks that the peer lacks, by bits", *blocks as f64);
    page.gauge("backlog_bytes", "Data that the peer lacks", *bytes as f64);
    let help =
        "The age of the oldest record that the peer lacks; absent if it is of before the start";
    page.gauge("backlog_oldest_seconds", help, oldest_ns.map(seconds));
    // A device that is fenced and owes nothing has no say in that.
    let is_mine = role != Role::Fenced || records + blocks > 0;
    let until = peer_durable_until_ns.filter(|_| is_mine).map(seconds);
    let help = "The peer has every write of before this time durably, as was known last";
    page.gauge("peer_durable_timestamp_seconds", help, until);
    let help = "How far that may be behind, as configured";
    page.gauge("recovery_point_target_seconds", help, target_ns.map(seconds));
    let help = "Data that the peer has got a second in the last seconds";
    page.gauge("sent_bytes_per_second", help, *bytes_per_second as f64);
    let help = "Time until the peer has all, at that rate and without further writes";
    page.gauge("drained_seconds", help, drained_in_ns.map(seconds));
}

fn counters(page: &mut Page, report: &Report, counts: &Counts) {
    let line::Report {
        way: _,
        address: _,
        peer_address: _,
        peer_key: _,
        trouble: _, // words, all of them
        refused,
        rate_limit,
    } = &report.link;
    let help = "The most that is sent to the peer; absent without a limit";
    page.gauge("rate_limit_bytes_per_second", help, rate_limit.map(|rate| rate as f64));
    let reasons = refused.as_ref().map(|refused| {
        [
            ("wrong-key", refused.wrong_key),
            ("timed-out", refused.timed_out),
            ("malformed", refused.malformed),
            ("too-many", refused.too_many),
        ]
    });
    let help = "Connections to the link's address that got no session";
    page.counters(("link_refused", "reason"), help, reasons.into_iter().flatten());
    let RefusedHosts { too_many, handshakes, late, broken } = report.hosts_refused;
    let reasons =
        [("too-many", too_many), ("handshakes", handshakes), ("late", late), ("broken", broken)];
    let help = "Connections of hosts that were not served";
    page.counters(("hosts_refused", "reason"), help, reasons);
    let help = "Orders at the control sockets that were refused or not understood";
    page.counter("orders_refused", help, counts.refused_orders);
    let events = counts.events.iter().map(|(name, count)| (&**name, *count));
    page.counters(("events", "event"), "Events, as `afterimage events` names them", events);
    page.counter("takeovers", "Moves of the host, either way", counts.takeovers);
    let (records, bytes) = counts.acknowledged;
    page.counter("acknowledged_records", "Records that the peer has acknowledged", records);
    page.counter("sent_bytes", "Data that the peer has got: records, and copies", bytes);
    let labelled = |(kind, read): &(&str, Reading)| (vec![("kind", (*kind).into())], read.clone());
    let requests = counts.requests.iter().map(labelled).collect();
    let help = "Requests of hosts, from their arrival to their answer";
    page.0.register("request_seconds", help, Values::Histogram(requests));
    let lag = vec![(Vec::new(), counts.lag.clone())];
    let help = "Records, from their write until the peer had acknowledged them";
    page.0.register("replication_lag_seconds", help, Values::Histogram(lag));
    page.gauge("start_timestamp_seconds", "When the service started", seconds(counts.begun_at));
}

#[cfg(test)]
mod tests;
