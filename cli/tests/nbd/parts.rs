//! Real clients, where they are installed; a test without its parts says so and passes.

use crate::client::*;
use crate::rig::*;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether `program` is installed; says so if not.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

pub fn run(program: &str, words: &[&str]) -> Output {
    let output = Command::new(program).args(words).output().expect("it is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    output
}

pub fn out(program: &str, words: &[&str]) -> String {
    String::from_utf8(run(program, words).stdout).unwrap()
}

/// A file of `bytes`, of data and holes.
pub fn image(path: &Path, bytes: u64) {
    let mut data = vec![0u8; bytes as usize];
    for (number, block) in data.chunks_mut(4096).enumerate().filter(|(number, _)| number % 7 < 3) {
        block.fill(1 + (number % 250) as u8);
    }
    std::fs::write(path, data).unwrap();
}

#[test]
fn nbdinfo_sees_the_exports_and_disturbs_no_host() {
    if !has("nbdinfo") {
        return;
    }
    let rig = Rig::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut host = Client::simple(&rig.path(), "data");
            let mut written = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(host.write(0, written % 1000 * 4096, &[1; 4096]), 0);
                written += 1;
            }
            assert!(written > 0);
        });
        let told = out("nbdinfo", &["--json", &rig.uri("data")]);
        for word in [
            format!("\"export-size\": {BYTES}"),
            "\"can_multi_conn\": false".into(),
            "\"can_cache\": true".into(),
            "\"can_df\": true".into(),
            "\"can_fast_zero\": true".into(),
            "\"can_fua\": true".into(),
            "\"can_trim\": true".into(),
            "\"can_zero\": true".into(),
            "\"is_read_only\": false".into(),
            "\"block_size_minimum\": 1".into(),
            "\"block_size_preferred\": 4096".into(),
            "\"block_size_maximum\": 33554432".into(),
            "\"afterimage:location\"".into(),
        ] {
            assert!(told.contains(&word), "{word}: {told}");
        }
        let listed = out("nbdinfo", &["--list", &rig.uri("")]);
        for name in ["data", "wal", "seen", "large"] {
            assert!(listed.contains(&format!("export=\"{name}\"")), "{listed}");
        }
        for _ in 0..5 {
            run("nbdinfo", &["--map", &rig.uri("data")]);
            out("nbdinfo", &["--map=afterimage:location", "--totals", &rig.uri("data")]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nbdcopy_brings_back_what_it_took_there() {
    if !has("nbdcopy") {
        return;
    }
    let rig = Rig::new();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    image(&from, SMALL / 2);
    std::fs::File::create(&to).unwrap();
    run("nbdcopy", &["--flush", from.to_str().unwrap(), &rig.uri("wal")]);
    run("nbdcopy", &[&rig.uri("wal"), to.to_str().unwrap()]);
    let (from, to) = (std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
    assert_eq!(to.len() as u64, SMALL);
    assert!(to[..from.len()] == from && to[from.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn qemu_img_converts_there_and_back() {
    if !has("qemu-img") {
        return;
    }
    let rig = Rig::new();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    image(&from, SMALL);
    let (from, to, wal) = (from.to_str().unwrap(), to.to_str().unwrap(), rig.uri("wal"));
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", from, &wal]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", from, &wal]);
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &wal, to]);
    assert!(std::fs::read(from).unwrap() == std::fs::read(to).unwrap());
    assert!(out("qemu-img", &["map", "--output=json", &wal]).contains("\"zero\": true"));
}

#[test]
fn qemu_io_reads_what_it_wrote() {
    if !has("qemu-io") {
        return;
    }
    let rig = Rig::new();
    let commands = [
        "write -P 7 1000 100000",
        "read -P 7 1000 100000",
        "write -f -P 8 512 512",
        "write -z 2000 30000",
        "write -z -u 40960 8192",
        "read -P 0 2000 30000",
        "read -P 7 32000 8960",
        "read -P 0 40960 8192",
        "discard 0 1M",
        "read -P 0 4096 1000000",
        "flush",
        "aio_write -P 9 0 1M",
        "aio_write -P 9 1M 1M",
        "aio_flush",
        "read -P 9 0 2M",
    ];
    let mut words = vec!["-f", "raw"];
    commands.iter().for_each(|command| words.extend(["-c", command]));
    let uri = rig.uri("data");
    words.push(&uri);
    let said = out("qemu-io", &words);
    assert!(!said.contains("Pattern verification failed"), "{said}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !has("fio") {
        return;
    }
    let engine = out("fio", &["--enghelp"]);
    if !engine.contains("nbd") {
        eprintln!("SKIPPED: this fio has no engine nbd");
        return;
    }
    let rig = Rig::new();
    let uri = format!("--uri={}", rig.uri("data"));
    let words = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-64k",
        "--bs_unaligned=1",
        "--iodepth=16",
        "--size=16m",
        "--io_size=12m",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randrepeat=1",
    ];
    // It leaves a file of its state where it runs.
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("fio").args(words).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A host that comes back to a server that was gone for a moment sees no error.
#[test]
fn qemu_does_not_notice_a_hang_up() {
    if !has("qemu-io") {
        return;
    }
    let rig = Rig::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(30));
                rig.server().hang_up_all();
            }
        });
        let options = format!(
            "driver=nbd,server.type=unix,server.path={},export=data,reconnect-delay=10",
            rig.path().display()
        );
        let write = "aio_write -P 5 0 64k".to_string();
        let mut words = vec!["--image-opts", &options];
        for _ in 0..400 {
            words.extend(["-c", &write, "-c", "aio_flush"]);
        }
        words.extend(["-c", "read -P 5 0 64k", "-c", "flush"]);
        let said = out("qemu-io", &words);
        is_over.store(true, Ordering::Relaxed);
        assert!(!said.contains("error") && !said.contains("failed"), "{said}");
    });
    assert!(rig.news.lock().unwrap().len() > 2, "nothing was hung up on");
}
