//! Hosts by NBD: 4 KiB random writes over a unix socket, by fio, beside nbdkit's file plugin.
//!
//! The server is that of a device whose peer is attached, over a line in memory, and takes what is shipped;
//! both devices are in this process, and complete a write once the log file has it. nbdkit replicates
//! nothing. Both have written all of their blocks before, and are measured in turns. With `--mkfs` a file
//! system is made on a fresh export of 1 TiB, through nbdfuse, beside nbdkit's memory plugin; with `--written` only on
//! one of which every 6.4 MiB begin with 64 KiB that were written, which is 1 % (22 GB of disk, some minutes).
//!
//!     cargo run --release -p afterimage-benches --bin hosts [-- --dir DIR] [--quick] [--mkfs] [--written] [--depth N]
//!
//! It needs fio with its engine `nbd`, and nbdkit; `--mkfs` needs nbdfuse and mkfs.ext4.

use afterimage::{
    Clock, Device, Directory, Durability, Geometry, Line, Settings, SystemClock, Threads,
    VolumeSpec, memory_link,
};
use afterimage_benches::Column;
use afterimage_cli::nbd::{Export, Listener, News, Server};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

struct Bench {
    dir: PathBuf,
    bytes: u64,
    seconds: u64,
    rounds: usize,
}

/// A pair with a server of the device that serves.
struct Pair {
    server: Server,
    devices: Vec<Arc<Device>>,
    threads: Vec<Threads>,
    uri: String,
}

/// Waits until `is_so`.
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn pair(dir: &Path, bytes: u64) -> Pair {
    std::fs::create_dir_all(dir).expect("a directory");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut devices = Vec::new();
    for number in [1, 2] {
        let storage =
            Arc::new(Directory::create(dir.join(number.to_string())).expect("a directory"));
        let mut geometry = Geometry::new(7, number, vec![VolumeSpec { id: 0, bytes }]);
        geometry.journal_bytes = 256 * MIB;
        Device::create(&*storage, &geometry, number == 1).expect("created");
        let settings = Settings { durability: Durability::Written, ..Settings::default() };
        devices.push(Device::open(storage, clock.clone(), settings).expect("opened"));
    }
    let threads = devices.iter().map(|device| Threads::start(device).expect("threads")).collect();
    let (a, b) = memory_link(Line { rate: None, delay_ns: 100_000 }, clock);
    devices[0].connect(Arc::new(a)).expect("connected");
    devices[1].connect(Arc::new(b)).expect("connected");
    await_that("the device serves", || devices[0].status().serving);
    let socket = dir.join("socket");
    let listeners = vec![Listener::Unix(UnixListener::bind(&socket).expect("bound"))];
    let exports = vec![Export::new("data", 0)];
    let tell = |news| {
        if let News::Ended { why: Some(why), .. } = news {
            eprintln!("a connection has ended: {why}");
        }
    };
    let server = Server::start(devices[0].clone(), listeners, exports, Default::default(), tell);
    let uri = format!("nbd+unix:///data?socket={}", socket.display());
    Pair { server: server.expect("serving"), devices, threads, uri }
}

impl Pair {
    /// Ends it; returns how many bytes of its journal are used.
    fn end(self) -> u64 {
        let used = self.devices[0].status().own_used_bytes;
        self.server.stop();
        drop(self.threads);
        self.devices.iter().for_each(|device| device.close().expect("closed"));
        used
    }
}

/// A program that runs until this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nbdkit with these words, listening.
fn nbdkit(socket: &Path, words: &[&str]) -> (Running, String) {
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "-U"]).arg(socket).args(words);
    let running = Running(command.spawn().expect("nbdkit is installed"));
    await_that("nbdkit listens", || UnixStream::connect(socket).is_ok());
    (running, format!("nbd+unix:///?socket={}", socket.display()))
}

/// Runs fio; its figures of writes: how many a second, and their mean latency in microseconds.
fn fio(bench: &Bench, uri: &str, words: &[&str]) -> [f64; 2] {
    let mut command = Command::new("fio");
    command.args(["--name=x", "--ioengine=nbd", "--output-format=json"]);
    command.arg(format!("--uri={uri}")).arg(format!("--size={}", bench.bytes)).args(words);
    let output = command.current_dir(&bench.dir).stderr(Stdio::inherit()).output();
    let output = output.expect("fio is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // Its engine says something before the figures begin.
    let begin = output.stdout.iter().position(|byte| *byte == b'{').expect("figures");
    let told = serde_json::from_slice::<serde_json::Value>(&output.stdout[begin..]).expect("json");
    let write = &told["jobs"][0]["write"];
    let mean = write["clat_ns"]["mean"].as_f64().expect("a mean") / 1e3;
    [write["iops"].as_f64().expect("iops"), mean]
}

fn random_writes(bench: &Bench, depths: &[u32]) {
    let pair = pair(&bench.dir.join("pair"), bench.bytes);
    let file = bench.dir.join("file");
    std::fs::File::create(&file).and_then(|file| file.set_len(bench.bytes)).expect("a file");
    let (kit, kit_uri) =
        nbdkit(&bench.dir.join("kit"), &["file", file.to_str().expect("a path in UTF-8")]);
    for uri in [&pair.uri, &kit_uri] {
        fio(bench, uri, &["--rw=write", "--bs=1m", "--iodepth=8"]);
    }
    for depth in depths {
        let mut writes = [Column::new("device"), Column::new("nbdkit")];
        let mut latencies = [Column::new("device"), Column::new("nbdkit")];
        for _ in 0..bench.rounds {
            for (at, uri) in [&pair.uri, &kit_uri].into_iter().enumerate() {
                let seconds = format!("--runtime={}", bench.seconds);
                let depth = format!("--iodepth={depth}");
                let words = ["--rw=randwrite", "--bs=4k", "--time_based", &seconds, &depth];
                let [iops, mean] = fio(bench, uri, &words);
                writes[at].figures.push(iops);
                latencies[at].figures.push(mean);
            }
        }
        println!("4 KiB random writes, depth {depth}, {} s each: median (min-max)", bench.seconds);
        for (unit, columns) in [("a second", &writes), ("µs each", &latencies)] {
            for column in columns {
                let (low, high) = column.range();
                println!(
                    "  {:>7} {:8.0} {unit} ({low:.0}-{high:.0})",
                    column.name,
                    column.median()
                );
            }
            println!("  device / nbdkit: {:.2}", columns[0].ratio(&columns[1]));
        }
    }
    drop(kit);
    pair.end();
}

/// Seconds that a file system takes to be made at `uri`.
fn mkfs(bench: &Bench, uri: &str) -> f64 {
    let mounted = bench.dir.join("mounted");
    std::fs::write(&mounted, []).expect("a file to mount at");
    let mut command = Command::new("nbdfuse");
    let fuse = Running(command.arg(&mounted).arg(uri).spawn().expect("nbdfuse is installed"));
    await_that("the export is a file", || {
        std::fs::metadata(&mounted).is_ok_and(|found| found.len() == TIB)
    });
    let begun = Instant::now();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-E", "discard"]).arg(&mounted).status();
    assert!(made.expect("mkfs.ext4 is installed").success());
    let seconds = begun.elapsed().as_secs_f64();
    let left = Command::new("umount").arg(&mounted).status();
    assert!(left.expect("umount is installed").success(), "{} is still mounted", mounted.display());
    drop(fuse);
    seconds
}

/// Writes 1 % of a volume of 1 TiB, scattered, and waits until the other device has it.
fn write_some(device: &Arc<Device>) {
    let session = device.session().expect("it serves");
    let piece = vec![0x5a; 64 << 10];
    for at in (0..TIB).step_by(100 * piece.len()) {
        session.write(0, at, &piece).expect("written");
    }
    session.flush().expect("flushed");
    await_that("the other device has it", || device.status().backlog_records == 0);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let value = |flag: &str| args.iter().position(|arg| arg == flag).map(|at| args[at + 1].clone());
    let dir = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("hosts-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (bytes, seconds, rounds) =
        if has("--quick") { (32 * MIB, 1, 1) } else { (1024 * MIB, 8, 3) };
    let bench = Bench { dir, bytes, seconds, rounds };
    let installed = |program: &str| Command::new(program).arg("--version").output().is_ok();
    match value("--depth") {
        _ if has("--written") => {}
        _ if !installed("fio") || !installed("nbdkit") => {
            println!("SKIPPED: fio and nbdkit are not both installed");
        }
        Some(depth) => random_writes(&bench, &[depth.parse().expect("a depth")]),
        None => random_writes(&bench, &[32, 1]),
    }
    if has("--written") {
        let pair = pair(&bench.dir.join("written"), TIB);
        write_some(&pair.devices[0]);
        let seconds = mkfs(&bench, &pair.uri);
        let used = pair.end() / MIB;
        println!(
            "mkfs.ext4 -E discard, 1 TiB with 1 % written: {seconds:.2} s, {used} MiB of its journal used"
        );
    }
    if has("--mkfs") {
        let pair = pair(&bench.dir.join("fresh"), TIB);
        let device = mkfs(&bench, &pair.uri);
        let used = pair.end() / MIB;
        let (kit, uri) = nbdkit(&bench.dir.join("memory"), &["memory", "1T"]);
        let reference = mkfs(&bench, &uri);
        drop(kit);
        println!(
            "mkfs.ext4 -E discard, 1 TiB: device {device:.2} s, {used} MiB of its journal used"
        );
        println!("  nbdkit's memory plugin {reference:.2} s");
    }
    std::fs::remove_dir_all(&bench.dir).expect("removed");
}
