//! Devices served by real processes, and commands that ask them.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod parts;
pub mod proxy;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn afterimage(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(words).stdin(Stdio::null());
    command
}

/// A command's exit status, and what it printed.
pub fn run(words: &[&str]) -> (Option<i32>, String, String) {
    run_with(words, "")
}

/// The same with this standard input.
pub fn run_with(words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = afterimage(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // One that needs no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A device's directory, and its service while one runs.
pub struct Served {
    pub dir: PathBuf,
    pub child: Option<Child>,
}

impl Served {
    /// A device made in `scratch`, and its invitation.
    pub fn made(scratch: &Path) -> (Served, String) {
        let made = Served::at(scratch.join("a"));
        let volumes = ["--volume", "data=1MiB", "--volume", "wal=1MiB", "--journal", "16MiB"];
        let (code, invitation, story) = run(&[&["init", made.path()], &volumes[..]].concat());
        assert_eq!(code, Some(0), "{story}");
        (made, invitation)
    }

    pub fn at(dir: PathBuf) -> Served {
        Served { dir, child: None }
    }

    pub fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    pub fn serve(&mut self, words: &[&str]) {
        let words = [&["serve", self.path()], words].concat();
        let child = afterimage(&words).stderr(Stdio::piped()).spawn().unwrap();
        self.child = Some(child);
        until("it answers", || self.ask(&["status"]).0 == Some(0));
        self.let_in();
    }

    /// This user may force, as root may without.
    fn let_in(&self) {
        let socket = self.dir.join("force.sock");
        until("all sockets are there", || socket.exists());
        if !is_root() {
            fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Asks the service: the exit status, the last document of the answer, and what was complained of.
    pub fn ask(&self, words: &[&str]) -> (Option<i32>, Value, String) {
        let (code, out, story) =
            run(&[&[words[0], self.path()], &words[1..], &["--json"]].concat());
        let last = out.lines().last().unwrap_or("null");
        (code, serde_json::from_str(last).unwrap(), story)
    }

    /// A field of its status.
    pub fn status(&self, pointer: &str) -> Value {
        let (code, status, story) = self.ask(&["status"]);
        assert_eq!(code, Some(0), "{story}");
        status.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {status}")).clone()
    }

    pub fn call(&self, socket: &str) -> UnixStream {
        let stream = UnixStream::connect(self.dir.join(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to these bytes, at this socket.
    pub fn answer(&self, socket: &str, bytes: &[u8]) -> Value {
        let mut stream = self.call(socket);
        // A service that has read enough hangs up on the rest.
        let _ = stream.write_all(bytes);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub fn end(&mut self, signal: &str) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let mut story = String::new();
        child.stderr.take().unwrap().read_to_string(&mut story).unwrap();
        (child.wait().unwrap().code(), story)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
