//! PostgreSQL on a served pair, its data and its log on two volumes. Its machine dies under load, again and again, with
//! much that the other device has not got; it goes on there at once, and has every commit that was acknowledged.
//!
//! Root only: it mounts. With `REAL_PARTS=1`; `MOVES` says how often the machine dies (2), `OWED_MIB` how much is owed
//! then at least (64), `RATE_MIB` what the line takes in a second (10).

#[allow(dead_code)]
#[path = "../served/mod.rs"]
mod served;

mod load;
mod site;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use load::CLIENTS;
use served::Served;
use served::parts::{Pair, are_there, number, real_parts};
use site::Site;

/// Longer than a load takes until enough is owed.
const PATIENCE: Duration = Duration::from_secs(300);

/// Programs that the test runs.
const PROGRAMS: [&str; 9] = [
    "nbdfuse",
    "losetup",
    "mkfs.ext4",
    "mount",
    "umount",
    "psql",
    "pg_isready",
    "setpriv",
    "stdbuf",
];

/// Why it cannot run here.
fn obstacle() -> Option<&'static str> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let devices = ["/dev/fuse", "/dev/loop-control"];
    match () {
        () if !real_parts() => Some("it runs with REAL_PARTS=1"),
        () if !is_root => Some("only root mounts file systems"),
        () if devices.iter().any(|at| fs::metadata(at).is_err()) => Some("no fuse or loop devices"),
        () if site::postgres_folder().is_none() => Some("PostgreSQL is not installed"),
        () => None,
    }
}

fn backlog(device: &Served) -> u64 {
    device.status("/backlog/bytes").as_u64().unwrap() >> 20
}

#[test]
fn a_database_loses_no_commit_when_its_machine_dies() {
    if let Some(why) = obstacle() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    if !are_there(&PROGRAMS) {
        return;
    }
    let (moves, owed_least) = (number("MOVES", 2), number("OWED_MIB", 64));
    let rate = format!("{}MiB/s", number("RATE_MIB", 10));
    let bin = site::postgres_folder().unwrap();
    let pair = Pair::new(&["data=2GiB", "wal=2GiB"], "1GiB");
    fs::set_permissions(pair.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut site = Site::mount(&pair, 0, &bin, true);
    site.make_database();
    site.start_database();
    load::make_tables(&site);
    pair.devices.iter().for_each(|device| assert_eq!(device.ask(&["rate", &rate]).0, Some(0)));

    let (mut at, mut commits) = (0, vec![0; CLIENTS as usize]);
    for number in 1..=moves {
        let (begun, stop) = (Instant::now(), AtomicBool::new(false));
        let mut owed = 0;
        let mut sessions: Vec<_> = (0..CLIENTS).map(|_| load::session(&site)).collect();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .zip(&mut sessions)
                .map(|(client, session)| {
                    let (stop, last) = (&stop, commits[client as usize]);
                    let ends = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
                    scope.spawn(move || load::client(ends, client, last, stop))
                })
                .collect();
            let mut has_failed = false;
            while owed < owed_least && !has_failed && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(50));
                owed = backlog(&pair.devices[at]);
                has_failed = clients.iter().any(|client| client.is_finished());
            }
            site.break_down();
            stop.store(true, Relaxed);
            // Processes of the dead machine may hang in the kernel, and their clients with them.
            std::thread::sleep(Duration::from_millis(500));
            for session in &mut sessions {
                session.kill().unwrap();
                session.wait().unwrap();
            }
            assert!(!has_failed, "the database failed a client");
            assert!(owed >= owed_least, "the load is too slow: {owed} MiB are owed");
            for (client, last) in clients.into_iter().zip(&mut commits) {
                *last = client.join().unwrap();
            }
        });
        let loaded = begun.elapsed();
        site.clear();
        at = 1 - at;
        let taken = Instant::now();
        let (code, ready, story) = pair.devices[at].ask(&["takeover", "--no-wait"]);
        assert_eq!(code, Some(0), "{story}");
        site = Site::mount(&pair, at, &bin, false);
        site.start_database();
        let started = taken.elapsed();
        let acknowledged: u64 = commits.iter().sum();
        commits = load::check(&site, &commits);
        site.check_files();
        println!(
            "move {number}: {acknowledged} commits after {:.1} s of load, {owed} MiB owed, {} blocks at the grant; ready \
             after {:.2} ms, the database after {:.1} s, checked after {:.1} s: all there",
            loaded.as_secs_f64(),
            ready["owed_blocks"],
            ready["ready_after_ns"].as_u64().unwrap() as f64 / 1e6,
            started.as_secs_f64(),
            taken.elapsed().as_secs_f64()
        );
    }
    site.stop();
    pair.end_equal(at);
}
