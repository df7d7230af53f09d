//! A service as systemd runs it: what it says, the sockets that it is passed, its end; and the units.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[allow(dead_code)]
mod served;
use served::{PATIENCE, Served, run_with, until};

/// Serves `device` as systemd would, which passes the socket `hosts` and listens at `notify`.
fn serve(device: &mut Served, hosts: &UnixListener, notify: &Path, words: &[&str]) {
    let program = env!("CARGO_BIN_EXE_afterimage");
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", script, "sh", program, "serve", device.path()])
        .args(words)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "hosts")
        .env("NOTIFY_SOCKET", notify)
        .env("WATCHDOG_USEC", "600000")
        .stdin(Stdio::from(OwnedFd::from(hosts.try_clone().unwrap())))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    device.child = Some(child);
}

/// The words to systemd, until `end` is.
fn told(notify: &UnixDatagram, end: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let length = notify.recv(&mut bytes).unwrap_or_else(|e| panic!("{end}: {e}; {all:?}"));
        let said = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let is_last = said.lines().any(|line| line.starts_with(end));
        all.push(said);
        if is_last {
            return all;
        }
    }
}

fn greeted(host: &mut UnixStream) {
    let mut greeting = [0; 16];
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    host.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"NBDMAGICIHAVEOPT");
}

#[test]
fn systemd_hears_of_a_service_and_keeps_its_hosts_while_it_restarts() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut device, _) = Served::made(scratch.path());
    let (hosts, notify) = (scratch.path().join("hosts"), scratch.path().join("notify"));
    let heard = UnixDatagram::bind(&notify).unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let listener = UnixListener::bind(&hosts).unwrap();
    let mut early = UnixStream::connect(&hosts).unwrap();
    serve(&mut device, &listener, &notify, &[]);
    told(&heard, "READY=1");
    greeted(&mut early);
    assert_eq!(device.ask(&["status"]).0, Some(0), "it takes orders once it is ready");
    let begun = Instant::now();
    for _ in 0..5 {
        let said = told(&heard, "WATCHDOG=1");
        assert!(said.last().unwrap().contains("STATUS=serving, tenure 1, ordered"), "{said:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5 * 600 / 1000), "within the watchdog's time");

    // Killed: who connects meanwhile waits for the next one.
    device.end("-KILL");
    let mut waiting = UnixStream::connect(&hosts).unwrap();
    serve(&mut device, &listener, &notify, &[]);
    greeted(&mut waiting);
    let (code, story) = device.end("-TERM");
    assert!(code == Some(0) && story.contains("closed cleanly, after SIGTERM"), "{story}");
    told(&heard, "STOPPING=1");
    UnixStream::connect(&hosts).expect("systemd's socket stands after the end");
}

/// Owed data keeps a service that is to drain, for as long as it may; a second signal does not wait.
#[test]
fn a_service_drains_at_its_end_if_it_is_to() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut a, invitation) = Served::made(scratch.path());
    let settings = scratch.path().join("a.toml");
    let limited = |limit: &str| {
        let text = format!("[stop]\ndrain = true\nlimit = \"{limit}\"\n");
        std::fs::write(&settings, text).unwrap();
    };
    limited("20s");
    let config = settings.to_str().unwrap().to_owned();
    a.serve(&["--listen", "127.0.0.1:0", "--config", &config]);
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    let mut b = Served::at(scratch.path().join("b"));
    let (code, _, story) = run_with(&["join", b.path(), &address], &invitation);
    assert_eq!(code, Some(0), "{story}");
    b.serve(&[]);
    until("they are connected", || a.status("/connected") == true);
    let (code, story) = a.end("-TERM");
    assert!(code == Some(0) && story.contains("nothing is owed"), "{story}");

    // Alone, with a write: the time passes, and the device is closed all the same.
    b.end("-KILL");
    limited("1s");
    let nbd = scratch.path().join("nbd");
    let unix = format!("unix:{}", nbd.display());
    a.serve(&["--config", &config, "--listen", &address, "--nbd", &unix]);
    assert_eq!(a.ask(&["resume", "--alone"]).0, Some(0));
    write_a_block(&nbd);
    let begun = Instant::now();
    let (code, story) = a.end("-TERM");
    assert!(code == Some(0) && story.contains("something is still owed"), "{story}");
    assert!((1..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());

    limited("10m");
    a.serve(&["--config", &config, "--listen", &address]);
    let id = a.child.as_ref().unwrap().id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let (code, _) = a.end("-TERM");
    assert!(code.is_none() && begun.elapsed() < Duration::from_secs(5), "{code:?}");
}

fn write_a_block(nbd: &Path) {
    let mut host = UnixStream::connect(nbd).unwrap();
    greeted(&mut host);
    host.read_exact(&mut [0; 2]).unwrap();
    host.write_all(&3u32.to_be_bytes()).unwrap();
    let option = [&b"IHAVEOPT"[..], &1u32.to_be_bytes(), &4u32.to_be_bytes(), b"data"].concat();
    host.write_all(&option).unwrap();
    host.read_exact(&mut [0; 10]).unwrap();
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 16]].concat();
    host.write_all(&[&head[..], &4096u32.to_be_bytes(), &[7; 4096]].concat()).unwrap();
    let mut reply = [0; 16];
    host.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..8], [0; 4]);
}

/// By a file below /proc/sys a device knows that the page cache outlived its process: where that is hidden, each crash
/// counts as a loss.
#[test]
fn the_service_sees_whether_the_page_cache_outlived_it() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/systemd/afterimage@.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("ProcSubset=")));
}

#[test]
fn the_units_are_sound_and_let_little_through() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        assert!(std::env::var_os("REAL_PARTS").is_none(), "systemd-analyze is not installed");
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return;
    };
    assert!(version.status.success());
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/systemd");
    let scratch = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        // The program need not be installed here.
        let text = std::fs::read_to_string(units.join(name)).unwrap();
        let text = text.replace("/usr/bin/afterimage", env!("CARGO_BIN_EXE_afterimage"));
        let path = scratch.path().join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let [service, socket] = ["afterimage@.service", "afterimage@.socket"].map(copy);
    let path = format!("{}:", scratch.path().display());
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args([&service, &socket])
        .env("SYSTEMD_UNIT_PATH", &path)
        .output()
        .unwrap();
    assert!(verify.status.success() && verify.stderr.is_empty(), "{verify:?}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=25", "--no-pager"])
        .arg(&service)
        .output()
        .unwrap();
    assert!(security.status.success(), "{security:?}");
}
