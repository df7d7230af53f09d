//! A client that does not notice takeovers: qemu's storage daemon, which reconnects, between a verifying fio and a
//! pair of served devices behind an address that moves. Requests of 4 to 64 KiB, 16 at once, paced at 20 MiB/s; the
//! line takes 10 MiB/s, and a takeover begins when enough is owed.
//!
//! The longest stall is the longest request that fio has seen, reads and writes; bound: 250 ms, the two round trips
//! of a line without delay being nothing.
//!
//! With `--seconds` the takeovers are spread over so long. With `--restarts` the service that serves is then ended and
//! started again so often, in turns by SIGTERM and by SIGKILL: that stall is told, and has no bound.
//!
//!     cargo build --release && cargo run --release -p afterimage-benches --bin unnoticed
//!         [-- --dir DIR] [--takeovers N] [--owed-mib N] [--seconds N] [--restarts N] [--quick]

use afterimage_benches::served::{Pair, Running, missing};
use clap::Parser;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const BOUND_NS: u64 = 250_000_000;

/// Takeovers under a client that reconnects.
#[derive(Parser)]
struct Args {
    /// A folder that is made for it, and removed
    #[arg(long, default_value = "/dev/shm/afterimage-unnoticed")]
    dir: PathBuf,

    /// So many takeovers
    #[arg(long, default_value_t = 20)]
    takeovers: u32,

    /// So many MiB are owed at each, at least
    #[arg(long, default_value_t = 256)]
    owed_mib: u64,

    /// Spread over so many seconds; 0: as soon as enough is owed
    #[arg(long, default_value_t = 0)]
    seconds: u64,

    /// So many restarts of the service that serves, after the takeovers
    #[arg(long, default_value_t = 0)]
    restarts: u32,

    /// Two takeovers with little owed
    #[arg(long)]
    quick: bool,
}

fn main() -> io::Result<ExitCode> {
    let mut args = Args::parse();
    if args.quick {
        (args.takeovers, args.owed_mib) = (2, 16);
    }
    if let Some(program) = missing(&["qemu-storage-daemon", "fio"]) {
        println!("SKIPPED: {program} is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let measured = measure(&args);
    let _ = std::fs::remove_dir_all(&args.dir);
    let longest = measured?;
    if args.restarts > 0 {
        println!("longest stall {:.1} ms; no error, no wrong byte", longest as f64 / 1e6);
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = if longest <= BOUND_NS { "within" } else { "BEYOND" };
    println!(
        "longest stall {:.1} ms, {verdict} 250 ms; no error, no wrong byte",
        longest as f64 / 1e6
    );
    Ok(if longest <= BOUND_NS { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The longest request, in nanoseconds.
fn measure(args: &Args) -> io::Result<u64> {
    let mut pair = Pair::make(&args.dir, "2GiB", "2GiB", "10MiB/s")?;
    let socket = args.dir.join("client.nbd");
    let blockdev = format!(
        "driver=nbd,node-name=n,server.type=unix,server.path={},export=data,reconnect-delay=30",
        pair.address.display()
    );
    let daemon = Command::new("qemu-storage-daemon")
        .args(["--blockdev", &blockdev])
        .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
        .args(["--export", "type=nbd,id=e,node-name=n,name=data,writable=on"])
        .spawn()?;
    let _daemon = Running(daemon);
    let begun = Instant::now();
    while !socket.exists() {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::other("qemu's storage daemon does not open its socket"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let report = args.dir.join("fio.json");
    let mut fio = fio(&socket, &report)?;
    let (begun, mut at) = (Instant::now(), 0);
    for number in 1..=args.takeovers {
        // The host writes faster than the line carries.
        let owed = loop {
            if let Some(status) = fio.0.try_wait()? {
                return Err(io::Error::other(format!("fio has ended early: {status}")));
            }
            let status = pair.status(at)?;
            let owed = status["backlog"]["bytes"].as_u64().unwrap_or(0) >> 20;
            let due = args.seconds as f64 * f64::from(number) / f64::from(args.takeovers + 1);
            if owed >= args.owed_mib && begun.elapsed().as_secs_f64() >= due {
                break owed;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        at = 1 - at;
        let ready = pair.ask(at, &["takeover", "--no-wait"])?;
        println!(
            "takeover {number} after {:.1} s: {owed} MiB owed, {} blocks at the grant, ready after {:.2} ms",
            begun.elapsed().as_secs_f64(),
            ready["owed_blocks"],
            ready["ready_after_ns"].as_u64().unwrap_or(0) as f64 / 1e6
        );
    }
    for number in 1..=args.restarts {
        std::thread::sleep(Duration::from_secs(3));
        let signal = ["-TERM", "-KILL"][number as usize % 2];
        let away = pair.restart(at, signal)?;
        println!(
            "restart {number} after {:.1} s, by {signal}: it serves again after {:.0} ms",
            begun.elapsed().as_secs_f64(),
            away.as_secs_f64() * 1e3
        );
    }
    // The last one's reads, too.
    let left = Duration::from_secs(args.seconds).saturating_sub(begun.elapsed());
    std::thread::sleep(left.max(Duration::from_secs(5)));
    Command::new("kill").args(["-INT", &fio.0.id().to_string()]).status()?;
    // Its status says that it was interrupted; its report, whether anything failed.
    fio.0.wait()?;
    for (at, took) in stalls(&args.dir)? {
        println!("a request of {took:.0} ms in the 100 ms until {at:.1} s");
    }
    longest(&report)
}

fn fio(socket: &Path, report: &Path) -> io::Result<Running> {
    let uri = format!("--uri=nbd+unix:///data?socket={}", socket.display());
    let words = [
        "--name=unnoticed",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--iodepth=16",
        "--size=2G",
        "--time_based",
        "--runtime=24h",
        "--rate=20m",
        "--verify=crc32c",
        "--verify_backlog=256",
        "--verify_fatal=1",
        "--write_lat_log=unnoticed",
        "--log_avg_msec=100",
        "--log_max_value=1",
        "--output-format=json",
    ];
    let output = format!("--output={}", report.display());
    let folder = report.parent().expect("it is in a folder");
    let mut command = Command::new("fio");
    command.args(words).arg(output).current_dir(folder).stdin(Stdio::null());
    Ok(Running(command.spawn()?))
}

/// The longest request of fio's report; an error if one failed or had wrong bytes.
fn longest(report: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(report)?;
    // Words may stand before the report.
    let begin = text.find('{').unwrap_or(0);
    let report: Value = serde_json::from_str(&text[begin..]).map_err(io::Error::other)?;
    let job = &report["jobs"][0];
    if job["error"] != 0 {
        return Err(io::Error::other(format!("fio found an error: {}", job["error"])));
    }
    let longest = ["read", "write"].map(|kind| job[kind]["clat_ns"]["max"].as_u64().unwrap_or(0));
    println!(
        "fio: {} writes, {} reads verified",
        job["write"]["total_ios"], job["read"]["total_ios"]
    );
    Ok(longest[0].max(longest[1]))
}

/// The times, in seconds from the start, with a request that took more than half of the bound, and how long it took.
fn stalls(folder: &Path) -> io::Result<Vec<(f64, f64)>> {
    let log = std::fs::read_to_string(folder.join("unnoticed_clat.1.log"))?;
    let fields = log.lines().filter_map(|line| {
        let mut fields = line.split(',').map(|field| field.trim().parse::<u64>());
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    });
    let long = fields.filter(|&(_, ns)| ns > BOUND_NS / 2);
    Ok(long.map(|(ms, ns)| (ms as f64 / 1e3, ns as f64 / 1e6)).collect())
}
