//! Programs that are killed, and what they leave: the trace that is replayed, and what must have survived.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use afterimage::internal::format::superblock::Superblock;
use afterimage::internal::storage::Directory;
use afterimage::internal::superblock;
use afterimage_cli::replay::judge::{Claim, History, Shown};

/// Requests of the trace in a round.
const ROWS: usize = 1500;

/// The part of the shipped trace that is replayed: after the format of the file system, whose
/// discards of the whole disk would be most of the round.
pub fn trace(directory: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/postgres-ext4.iolog.gz");
    let mut text = String::new();
    let mut file = flate2::read::GzDecoder::new(fs::File::open(shipped).unwrap());
    file.read_to_string(&mut text).unwrap();
    let is_large = |line: &str| {
        let length = line.rsplit(' ').next().and_then(|word| word.parse().ok());
        line.contains(" trim ") && length.is_some_and(|length: u64| length > 8 << 20)
    };
    let lines = text.lines().filter(|line| !is_large(line)).take(ROWS);
    let path = directory.join("trace.iolog");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    path
}

pub fn afterimage(command: &str) -> Command {
    let mut all = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    all.arg(command).stdin(Stdio::null());
    all
}

/// A replay in `directory`: the child.
pub fn replay(trace: &Path, directory: &Path, way: &str, seed: u64) -> Child {
    let mut command = afterimage("replay");
    command.arg(trace).arg("--dir").arg(directory.join("devices")).arg("--keep");
    command.arg("--request-log").arg(directory.join("log"));
    command.args(way.split_whitespace());
    command.args(["--link-delay", "2ms", "--journal-size", "4MiB", "--depth", "8"]);
    command.args(["--seed", &seed.to_string()]);
    if seed.is_multiple_of(3) {
        command.args(["--durability", "strict"]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

pub fn run(command: &str, devices: &[&Path]) -> (Option<i32>, String) {
    let output = afterimage(command).args(devices).output().expect("the program starts");
    (output.status.code(), text(&output))
}

pub fn superblock_of(device: &Path) -> Superblock {
    superblock::load(&Directory::open_read_only(device).unwrap()).unwrap()
}

/// Whether the volumes of a closed device are a state that the hosts' data had once.
pub fn is_consistent(device: &Path) -> bool {
    let Superblock { usable, consat, hi, .. } = superblock_of(device);
    usable && consat <= hi
}

pub fn is_made(device: &Path) -> bool {
    // The superblock is written last, and its first copy first.
    fs::read(device.join("superblock")).is_ok_and(|bytes| bytes.iter().take(512).any(|&b| b != 0))
}

pub fn judge(device: &Path, history: &History, claim: Claim) {
    let storage = Directory::open_read_only(device).unwrap();
    let shown = Shown::read(&storage, history).unwrap();
    let findings = history.judge(&shown, claim);
    let name = device.display();
    assert_eq!(findings.count(), 0, "{name}, {claim:?}: {:#?}", findings.first());
}

/// The hosts' writes that were promised before a forced takeover are in the volumes, which are equal, or in
/// the salvage of either device.
pub fn judge_with_salvage(devices: [&Path; 2], history: &History) {
    let devices = devices.map(|device| Directory::open_read_only(device).unwrap());
    let mut shown = Shown::read(&devices[0], history).unwrap();
    devices.iter().for_each(|device| shown.add_salvage(device, history).unwrap());
    let findings = history.unforced().judge(&shown, Claim::Promised);
    assert_eq!(findings.count(), 0, "with salvage: {:#?}", findings.first());
}
