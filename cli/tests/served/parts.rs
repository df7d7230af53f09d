//! Programs that may not be installed, and pairs with hosts on them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Served, run, run_with, until};

/// Whether these programs are there, and their test is to run: with `REAL_PARTS=1` a missing one fails it.
pub fn are_there(programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| {
        !std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).exists())
        })
    };
    let missing: Vec<_> = programs.iter().filter(is_missing).collect();
    assert!(missing.is_empty() || !real_parts(), "not installed: {missing:?}");
    if !missing.is_empty() {
        eprintln!("SKIPPED: not installed: {missing:?}");
    }
    missing.is_empty()
}

/// Whether tests that take long are to run.
pub fn real_parts() -> bool {
    std::env::var_os("REAL_PARTS").is_some()
}

/// The number of this name in the environment, or the usual one.
pub fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |word| word.parse().expect("a number"))
}

/// Runs a program, which must end well; what it printed.
pub fn done(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it starts");
    let story = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {story}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("the test's own names are text")
}

/// A pair whose hosts come by unix sockets.
pub struct Pair {
    pub devices: [Served; 2],
    pub sockets: [PathBuf; 2],
    pub scratch: tempfile::TempDir,
}

impl Pair {
    /// A pair with these volumes, as `init` takes them, and journals of this size.
    pub fn new(volumes: &[&str], journal: &str) -> Pair {
        let scratch = tempfile::tempdir().unwrap();
        let sockets = ["a", "b"].map(|name| scratch.path().join(format!("{name}.nbd")));
        let nbd = sockets.each_ref().map(|path| format!("unix:{}", path.display()));
        let [mut a, mut b] = ["a", "b"].map(|name| Served::at(scratch.path().join(name)));
        let mut words = vec!["init", a.path(), "--journal", journal];
        volumes.iter().for_each(|volume| words.extend(["--volume", volume]));
        let (code, invitation, story) = run(&words);
        assert_eq!(code, Some(0), "{story}");
        a.serve(&["--listen", "127.0.0.1:0", "--nbd", &nbd[0]]);
        let address = a.status("/link/address").as_str().unwrap().to_owned();
        let (code, _, story) = run_with(&["join", b.path(), &address], &invitation);
        assert_eq!(code, Some(0), "{story}");
        b.serve(&["--nbd", &nbd[1]]);
        until("they are connected", || a.status("/connected") == true);
        Pair { devices: [a, b], sockets, scratch }
    }

    /// A volume at a device, for libnbd and qemu.
    pub fn uri(&self, at: usize, volume: &str) -> String {
        format!("nbd+unix:///{volume}?socket={}", self.sockets[at].display())
    }

    /// Moves the host; how many blocks are owed then.
    pub fn take_over(&self, at: usize) -> u64 {
        let (code, ready, story) = self.devices[at].ask(&["takeover", "--no-wait"]);
        assert_eq!(code, Some(0), "{story}");
        ready["owed_blocks"].as_u64().unwrap()
    }

    /// Nothing is owed, both close, and are the same.
    pub fn end_equal(self, serving: usize) {
        let Pair { devices: [mut a, mut b], scratch: _scratch, .. } = self;
        let devices = [&a, &b];
        for device in devices {
            assert_eq!(device.ask(&["rate", "off"]).0, Some(0));
        }
        let (code, _, story) = devices[serving].ask(&["drain", "--timeout", "120s"]);
        assert_eq!(code, Some(0), "{story}");
        a.end("-TERM");
        b.end("-TERM");
        let (code, story, _) = run(&["verify", a.path(), b.path()]);
        assert_eq!(code, Some(0), "{story}");
    }
}
