//! Metrics as Prometheus has them: each line held against the format, and scraped by a real Prometheus where one is
//! installed; with `REAL_PARTS=1` it must be.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[allow(dead_code)]
mod served;
use served::{PATIENCE, Served, run, run_with, until};

/// Serves `device` with metrics; their address.
fn serve(device: &mut Served, words: &[&str]) -> String {
    device.serve(&[&["--metrics", "127.0.0.1:0"], words].concat());
    let log = device.child.as_mut().unwrap().stderr.take().unwrap();
    let mut log = BufReader::new(log);
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log names the address");
        if let Some((_, after)) = line.split_once("metrics at http://") {
            break after.trim_end().trim_end_matches("/metrics").to_owned();
        }
    };
    device.child.as_mut().unwrap().stderr = Some(log.into_inner());
    address
}

fn scraped(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    body.into()
}

/// The samples of a page, by name and labels, once every line was found to be as OpenMetrics has it.
fn samples(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with("# EOF\n"));
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let words: Vec<&str> = meta.splitn(3, ' ').collect();
            match words[..] {
                ["EOF"] => {}
                ["HELP", name, _] => family = name,
                ["TYPE", name, kind] => {
                    assert_eq!(name, family, "the help comes first");
                    assert!(kinds.insert(name, kind).is_none(), "{name} comes twice");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let name = series.split('{').next().unwrap();
        let rest = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: of {family}"));
        let is_one_of = |suffixes: &[&str]| suffixes.contains(&rest);
        assert!(
            match kinds[family] {
                "gauge" => is_one_of(&[""]),
                "counter" => is_one_of(&["_total"]) && value >= 0.0,
                "histogram" => is_one_of(&["_bucket", "_sum", "_count"]),
                _ => false,
            },
            "{line}"
        );
        assert!(value.is_finite(), "{line}");
        assert!(found.insert(series.to_owned(), value).is_none(), "{line}: twice");
    }
    found
}

/// The one sample of this name.
fn sample(page: &str, series: &str) -> f64 {
    let all = samples(page);
    *all.get(series).unwrap_or_else(|| panic!("{series}\n{page}"))
}

fn pair(scratch: &Path) -> ([Served; 2], [String; 2]) {
    let (mut a, invitation) = Served::made(scratch);
    let mut b = Served::at(scratch.join("b"));
    let nbd = format!("unix:{}", scratch.join("a.nbd").display());
    let first = serve(&mut a, &["--listen", "127.0.0.1:0", "--nbd", &nbd]);
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    let (code, _, story) = run_with(&["join", b.path(), &address], &invitation);
    assert_eq!(code, Some(0), "{story}");
    let second = serve(&mut b, &[]);
    until("they are connected", || a.status("/connected") == true);
    ([a, b], [first, second])
}

#[test]
fn a_pair_shows_where_it_stands_and_where_the_host_has_moved() {
    let scratch = tempfile::tempdir().unwrap();
    let ([a, b], [at_a, at_b]) = pair(scratch.path());
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let page = scraped(&at_a);
    assert_eq!(sample(&page, "afterimage_role{role=\"serving\"}"), 1.0);
    assert_eq!(sample(&page, "afterimage_rung{rung=\"ordered\"}"), 1.0);
    assert_eq!(sample(&page, "afterimage_peer_connected"), 1.0);
    until("the peer has everything", || a.status("/backlog/peer_durable_until_ns").is_u64());
    let durable = || sample(&scraped(&at_a), "afterimage_peer_durable_timestamp_seconds");
    let (before, first) = (now(), durable());
    assert!((first - before).abs() < 5.0, "{first} at {before}");
    until("time goes on", || durable() > first);
    assert!(
        !scraped(&at_b).contains("\nafterimage_peer_durable_timestamp_seconds "),
        "it is fenced"
    );

    assert_eq!(b.ask(&["takeover"]).0, Some(0));
    until("the host has moved", || a.status("/role") == "fenced");
    let page = scraped(&at_b);
    assert_eq!(sample(&page, "afterimage_role{role=\"serving\"}"), 1.0);
    assert_eq!(sample(&page, "afterimage_takeovers_total"), 1.0);
    assert_eq!(sample(&page, "afterimage_last_takeover_owed_blocks"), 0.0);
    assert_eq!(b.status("/last_takeover/here"), true);
    until("a has heard of it", || a.status("/last_takeover/here") == false);
    let tenures = [&at_a, &at_b].map(|at| sample(&scraped(at), "afterimage_tenure"));
    assert_eq!(tenures, [2.0, 2.0]);
    let counted = |name: &str| {
        let series = format!("afterimage_events_total{{event=\"{name}\"}}");
        sample(&scraped(&at_a), &series)
    };
    assert_eq!((counted("paired"), counted("fenced"), counted("hook-failed")), (1.0, 1.0, 0.0));
    let refused = sample(&scraped(&at_a), "afterimage_orders_refused_total");
    assert_eq!(a.ask(&["handover"]).0, Some(9), "it does not serve");
    assert_eq!(sample(&scraped(&at_a), "afterimage_orders_refused_total"), refused + 1.0);
}

#[test]
fn requests_are_counted_by_how_long_they_take() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut a, _) = Served::made(scratch.path());
    let socket = scratch.path().join("a.nbd");
    let at = serve(&mut a, &["--nbd", &format!("unix:{}", socket.display())]);
    let mut host = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let take = |host: &mut std::os::unix::net::UnixStream, length: usize| {
        let mut bytes = vec![0; length];
        host.read_exact(&mut bytes).unwrap();
        bytes
    };
    // EXPORT_NAME: the export's size and flags come back, and no zeroes.
    assert_eq!(&take(&mut host, 18)[..8], b"NBDMAGIC");
    host.write_all(&3u32.to_be_bytes()).unwrap();
    let option = [&b"IHAVEOPT"[..], &1u32.to_be_bytes(), &4u32.to_be_bytes(), b"data"].concat();
    host.write_all(&option).unwrap();
    take(&mut host, 10);
    let request = |kind: u16, cookie: u64, length: u32| {
        let head = [&0x2560_9513u32.to_be_bytes()[..], &[0; 2], &kind.to_be_bytes()].concat();
        [&head[..], &cookie.to_be_bytes(), &0u64.to_be_bytes(), &length.to_be_bytes()].concat()
    };
    for cookie in 0..5 {
        host.write_all(&[request(1, cookie, 4096), vec![7; 4096]].concat()).unwrap();
        assert_eq!(take(&mut host, 16)[4..8], [0; 4]);
    }
    host.write_all(&request(3, 9, 0)).unwrap();
    assert_eq!(take(&mut host, 16)[4..8], [0; 4]);
    let all = samples(&scraped(&at));
    let count = |kind: &str| all[&format!("afterimage_request_seconds_count{{kind=\"{kind}\"}}")];
    assert_eq!((count("write"), count("flush"), count("read")), (5.0, 1.0, 0.0));
    // Cumulative, up to the count.
    let bound = |name: &str| -> f64 {
        name.split("le=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };
    let mut rising: Vec<(f64, f64)> = all
        .iter()
        .filter(|(name, _)| name.contains("request_seconds_bucket") && name.contains("\"write\""))
        .map(|(name, value)| (bound(name), *value))
        .collect();
    rising.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(rising.len() == 24 && rising.windows(2).all(|two| two[0].1 <= two[1].1), "{rising:?}");
    assert_eq!(rising.last(), Some(&(f64::INFINITY, 5.0)));
    assert!(all["afterimage_request_seconds_sum{kind=\"write\"}"] > 0.0);
    assert_eq!(all["afterimage_host_connections"], 1.0);
    assert!(all["afterimage_backlog_bytes"] > 0.0, "no peer has it");
    assert!(!all.contains_key("afterimage_drained_seconds"), "nothing is sent");
    // Refused addresses: one of others, and none.
    drop(host);
    a.end("-TERM");
    for (address, why) in [("0.0.0.0:0", "--metrics-beyond-loopback"), ("nowhere", "nowhere")] {
        let (code, _, story) = run(&["serve", a.path(), "--metrics", address]);
        assert!(code == Some(2) && story.contains(why), "{address}: {story}");
    }
}

/// A real Prometheus, ended with this.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str) -> bool {
    let is_there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()));
    assert!(is_there || std::env::var_os("REAL_PARTS").is_none(), "{program} is not installed");
    if !is_there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    is_there
}

#[test]
fn a_real_prometheus_takes_every_sample_and_the_alerts_hold() {
    if !is_there("prometheus") || !is_there("promtool") {
        return;
    }
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    for words in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let tried = Command::new("promtool").args(words).current_dir(&documents).output().unwrap();
        assert!(tried.status.success(), "{words:?}: {tried:?}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let (_devices, [at_a, at_b]) = pair(scratch.path());
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = scratch.path().join("prometheus.yml");
    let rules = documents.join("alerts.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n  - job_name: \
         afterimage\n    static_configs: [{{targets: [{at_a:?}, {at_b:?}]}}]\n",
        rules.canonicalize().unwrap()
    );
    fs::write(&settings, text).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", settings.display()))
        .arg(format!("--storage.tsdb.path={}", scratch.path().join("tsdb").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let server = format!("http://{free}");
    let ask = |query: &str| {
        let words = ["query", "instant", &server, query];
        let output = Command::new("promtool").args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    until("both are up", || ask("sum(up == 1)").contains("=> 2 "));
    until("the peer is durable, by Prometheus' clock", || {
        ask("time() - afterimage_peer_durable_timestamp_seconds < 10").contains(&at_a)
    });
    assert!(ask("afterimage_role == 1").contains("role=\"serving\""));
    // It has stored as many samples as the page has.
    let stored = ask(&format!("scrape_samples_scraped{{instance=\"{at_b}\"}}"));
    let stored: usize =
        stored.split("=> ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(stored, samples(&scraped(&at_b)).len());
    until("rules are evaluated", || ask("count(ALERTS) or vector(0)").contains("=> "));
    for name in ["AfterimageDown", "AfterimageTrouble", "AfterimageJournalHalf"] {
        assert_eq!(ask(&format!("ALERTS{{alertname={name:?}}}")).trim(), "", "{name}");
    }
}
