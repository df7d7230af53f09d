//! A pair of served devices: two real processes of `afterimage`, and commands that ask them.

use serde_json::Value;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a process takes to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that ends with this.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program beside the bench that runs: `cargo build --release` makes both.
///
/// # Panics
/// If it is not there.
pub fn program() -> PathBuf {
    let bench = std::env::current_exe().expect("the bench is a file");
    let program = bench.with_file_name("afterimage");
    assert!(program.exists(), "{} is not built: cargo build --release", program.display());
    program
}

/// The first of these programs that is not installed.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| std::env::split_paths(&path).any(|at| at.join(program).exists());
    programs.iter().copied().find(|program| !is_there(program))
}

/// Two served devices whose hosts come by one address, a link to a unix socket, which a hook moves.
#[derive(Debug)]
pub struct Pair {
    dirs: [PathBuf; 2],
    /// Where hosts connect.
    pub address: PathBuf,
    configs: Vec<PathBuf>,
    services: Vec<Running>,
}

impl Pair {
    /// Makes a pair with one volume, `data`, in the folder `at`, which must not be there.
    ///
    /// # Errors
    /// The system's; what a command complains of.
    pub fn make(at: &Path, volume: &str, journal: &str, rate: &str) -> io::Result<Pair> {
        fs::create_dir_all(at)?;
        let dirs = ["a", "b"].map(|name| at.join(name));
        let address = at.join("host.nbd");
        let invitation = at.join("invitation");
        let volume = format!("data={volume}");
        let made = run(&["init", text(&dirs[0]), "--volume", &volume, "--journal", journal])?;
        fs::write(&invitation, made)?;
        let mut pair = Pair { dirs, address, configs: Vec::new(), services: Vec::new() };
        for (at_which, name) in ["a", "b"].into_iter().enumerate() {
            let (config, hook, socket) = (
                at.join(format!("{name}.toml")),
                at.join(format!("{name}.hook")),
                at.join(format!("{name}.nbd")),
            );
            let new = at.join("host.new");
            let script = format!(
                "#!/bin/sh\nln -sf {} {new} && mv -T {new} {}\n",
                socket.display(),
                pair.address.display(),
                new = new.display()
            );
            fs::write(&hook, script)?;
            fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
            let listen = if at_which == 0 { "listen = \"127.0.0.1:0\"\n" } else { "" };
            let settings = format!(
                "[link]\nrate = \"{rate}\"\n{listen}[hosts]\nnbd = [\"unix:{}\"]\n[hooks]\nready = [\"{}\"]\n",
                socket.display(),
                hook.display()
            );
            fs::write(&config, settings)?;
            if at_which == 1 {
                let listens = pair.status(0)?["link"]["address"].as_str().unwrap_or("").to_owned();
                let file = text(&invitation);
                run(&["join", text(&pair.dirs[1]), &listens, "--invitation-file", file])?;
            }
            pair.configs.push(config);
            let service = pair.serve(at_which, &[])?;
            pair.services.push(service);
            pair.until(at_which, |_| true)?;
        }
        pair.until(0, |status| status["connected"] == true)?;
        Ok(pair)
    }

    fn serve(&self, at: usize, more: &[&str]) -> io::Result<Running> {
        let words = ["serve", text(&self.dirs[at]), "--config", text(&self.configs[at])];
        let mut command = Command::new(program());
        command.args(words).args(more).stderr(Stdio::null());
        Ok(Running(command.spawn()?))
    }

    /// Ends the service of the device `at` by a signal, and starts it again; how long its hosts were served by nobody.
    ///
    /// # Errors
    /// The system's; it does not serve after 30 s.
    pub fn restart(&mut self, at: usize, signal: &str) -> io::Result<Duration> {
        let listens = self.status(at)?["link"]["address"].as_str().unwrap_or("").to_owned();
        let begun = Instant::now();
        Command::new("kill").args([signal, &self.services[at].0.id().to_string()]).status()?;
        self.services[at].0.wait()?;
        let more = ["--listen", &listens];
        self.services[at] = self.serve(at, if at == 0 { &more } else { &[] })?;
        self.until(at, |status| status["role"] == "serving")?;
        Ok(begun.elapsed())
    }

    /// Where the device `at` stands.
    ///
    /// # Errors
    /// What the command complains of.
    pub fn status(&self, at: usize) -> io::Result<Value> {
        self.ask(at, &["status"])
    }

    /// An order to the service of the device `at`: the last document of its answer.
    ///
    /// # Errors
    /// What the command complains of.
    pub fn ask(&self, at: usize, words: &[&str]) -> io::Result<Value> {
        let order = [&[words[0], text(&self.dirs[at])], &words[1..], &["--json"]].concat();
        let said = run(&order)?;
        serde_json::from_str(said.lines().last().unwrap_or("null")).map_err(io::Error::other)
    }

    /// Waits until the status of the device `at` is as wanted.
    ///
    /// # Errors
    /// It is not after 30 s.
    pub fn until(&self, at: usize, mut is_so: impl FnMut(&Value) -> bool) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match self.status(at) {
                Ok(status) if is_so(&status) => return Ok(()),
                other if begun.elapsed() > PATIENCE => {
                    return Err(io::Error::other(format!(
                        "device {at} does not come so far: {other:?}"
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Runs the program to its end; what it printed.
fn run(words: &[&str]) -> io::Result<String> {
    let output = Command::new(program()).args(words).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the bench's own names are text")
}
