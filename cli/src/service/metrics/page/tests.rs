//! The page against its documents: what alerts, dashboard and list name is there.

use super::*;
use crate::latency::Latency;
use crate::service::course::Takeover;
use crate::service::line::Refused;
use std::collections::BTreeSet;

const ALERTS: &str = include_str!("../../../../../docs/monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../../docs/monitoring/dashboard.json");
const LIST: &str = include_str!("../../../../../docs/monitoring.md");

/// A report in which everything is known.
fn report() -> Report {
    Report {
        version: 1,
        device: 2,
        role: Role::Serving,
        tenure: 7,
        mode: "ordered".into(),
        rung: "paced".into(),
        connected: true,
        link: line::Report {
            way: "listens",
            address: None,
            peer_address: None,
            peer_key: None,
            trouble: None,
            refused: Some(Refused { wrong_key: 1, timed_out: 2, malformed: 3, too_many: 4 }),
            rate_limit: Some(5),
        },
        hosts: 1,
        hosts_refused: RefusedHosts { too_many: 1, handshakes: 2, late: 3, broken: 4 },
        uris: Vec::new(),
        backlog: Backlog {
            records: 2,
            blocks: 3,
            bytes: 20_480,
            oldest_ns: Some(1_500_000_000),
            peer_durable_until_ns: Some(1_764_000_000_500_000_000),
            behind_ns: Some(1_500_000_000),
            target_ns: Some(60_000_000_000),
            bytes_per_second: 4096,
            drained_in_ns: Some(5_000_000_000),
        },
        owed_blocks: 6,
        journal: Journal {
            own_percent: 81,
            own_used_bytes: 1 << 20,
            received_used_bytes: 0,
            full_in_ns: Some(9_000_000_000),
            next_rung_in_ns: Some(8_000_000_000),
        },
        consistent: true,
        no_consistent_copy: false,
        image: String::new(),
        delay_ns: 2_000_000,
        awaits_taker: false,
        lost_writes: false,
        last_takeover: Some(Takeover { at_ns: 1, tenure: 7, here: true, owed_blocks: Some(8) }),
        trouble: vec!["salvage has no room".into()],
    }
}

fn counts() -> Counts {
    let latency = Latency::default();
    latency.add(10_000);
    Counts {
        requests: vec![("read", latency.read())],
        lag: latency.read(),
        acknowledged: (3, 12_288),
        takeovers: 1,
        events: [("halted".into(), 1), ("odd \"name\"\n".into(), 2)].into(),
        refused_orders: 2,
        begun_at: 1_764_000_000_000_000_000,
    }
}

/// The words of `text` that are named like metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("afterimage_")).collect()
}

/// The names under which the page has values.
fn shown(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

#[test]
fn what_is_known_is_shown_and_what_is_not_is_absent() {
    let text = page(&report(), &counts());
    for line in [
        "afterimage_device_info{device=\"2\",version=\"0.1.0\"} 1.0",
        "afterimage_role{role=\"serving\"} 1.0",
        "afterimage_role{role=\"fenced\"} 0.0",
        "afterimage_rung{rung=\"paced\"} 1.0",
        "afterimage_rung{rung=\"ordered\"} 0.0",
        "afterimage_peer_durable_timestamp_seconds 1764000000.5",
        "afterimage_journal_fill_ratio 0.81",
        "afterimage_backlog_oldest_seconds 1.5",
        "afterimage_link_refused_total{reason=\"malformed\"} 3",
        "afterimage_hosts_refused_total{reason=\"late\"} 3",
        "afterimage_events_total{event=\"odd \\\"name\\\"\\n\"} 2",
        "afterimage_request_seconds_bucket{le=\"0.000008192\",kind=\"read\"} 0",
        "afterimage_request_seconds_bucket{le=\"0.000016384\",kind=\"read\"} 1",
        "afterimage_request_seconds_count{kind=\"read\"} 1",
        "# TYPE afterimage_replication_lag_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));

    let mut report = report();
    report.role = Role::Fenced;
    report.backlog.records = 0;
    report.backlog.blocks = 0;
    report.journal.full_in_ns = None;
    report.last_takeover = None;
    let text = page(&report, &counts());
    for name in
        ["peer_durable_timestamp_seconds", "journal_full_seconds", "last_takeover_owed_blocks"]
    {
        assert!(!shown(&text).contains(&*format!("afterimage_{name}")), "{name}\n{text}");
    }
}

#[test]
fn alerts_and_dashboard_name_what_is_shown_and_the_list_names_all() {
    let text = page(&report(), &counts());
    let shown = shown(&text);
    for (file, document) in [("alerts.yml", ALERTS), ("dashboard.json", DASHBOARD)] {
        let named = named(document);
        assert!(named.len() >= 10, "{file}: {named:?}");
        let strange: Vec<_> = named.difference(&shown).collect();
        assert!(strange.is_empty(), "{file} names what the page has not: {strange:?}");
    }
    let parts = ["_bucket", "_sum", "_count"];
    let whole =
        |name: &'static str| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    let shown: BTreeSet<&str> = shown
        .iter()
        .map(|name| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name))
        .collect();
    let listed: BTreeSet<&str> = named(LIST).into_iter().map(whole).collect();
    assert_eq!(listed, shown);
}

#[test]
fn states_are_named_as_in_the_status() {
    for (role, name) in Role::ALL {
        assert_eq!(serde_json::to_value(role).unwrap(), name);
    }
}
