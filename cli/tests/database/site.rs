//! One of the two machines that the database may run on: each volume a file by nbdfuse, a loop device, an ext4.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::served::parts::{Pair, done, text};
use crate::served::until;

/// The volumes: what is in the one refers to what is in the other.
pub const VOLUMES: [&str; 2] = ["data", "wal"];

pub struct Site {
    folder: PathBuf,
    fuses: Vec<Child>,
    loops: Vec<String>,
    postgres: Option<Child>,
    bin: PathBuf,
}

/// Debian's folder of PostgreSQL's programs.
pub fn postgres_folder() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("postgres").exists()).max()
}

/// The numbers of the user and the group that the database runs as.
fn user() -> [u32; 2] {
    ["-u", "-g"].map(|of| done("id", &[of, "postgres"]).trim().parse().unwrap())
}

impl Site {
    /// A host's machine at the device `at`, with both volumes mounted; `is_new` makes their file systems.
    pub fn mount(pair: &Pair, at: usize, bin: &Path, is_new: bool) -> Site {
        let folder = pair.scratch.path().join("host");
        fs::create_dir_all(&folder).unwrap();
        // The database's user opens its socket here.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let (fuses, loops) = (Vec::new(), Vec::new());
        let mut site = Site { folder, fuses, loops, postgres: None, bin: bin.into() };
        for volume in VOLUMES {
            let [file, mounted] = [site.file(volume), site.folder.join(volume)];
            fs::write(&file, []).unwrap();
            fs::create_dir_all(&mounted).unwrap();
            let mut command = Command::new("nbdfuse");
            let fuse = command.arg(&file).arg(pair.uri(at, volume)).stdin(Stdio::null());
            site.fuses.push(fuse.spawn().unwrap());
            until("the export is a file", || fs::metadata(&file).is_ok_and(|it| it.len() > 0));
            let words = ["--find", "--show", "--direct-io=on", text(&file)];
            let device = done("losetup", &words).trim().to_owned();
            site.loops.push(device.clone());
            if is_new {
                done("mkfs.ext4", &["-q", &device]);
            }
            done("mount", &[&device, text(&mounted)]);
            let [user, group] = user();
            chown(&mounted, Some(user), Some(group)).unwrap();
        }
        site
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.folder.join(format!("{volume}.export"))
    }

    /// A program of PostgreSQL's, as its user.
    fn program(&self, name: &str) -> Command {
        let [user, group] = user().map(|number| number.to_string());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
        command.arg(self.bin.join(name)).current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, words: &[&str]) {
        let output = self.program(name).args(words).output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&said));
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data/cluster")
    }

    /// Makes the database, its log on the other volume.
    pub fn make_database(&self) {
        let [data, log] = [self.data(), self.folder.join("wal/log")];
        let words = ["-D", text(&data), "-X", text(&log), "--data-checksums", "-A", "trust"];
        self.run("initdb", &words);
        let settings = "fsync = on\nfull_page_writes = on\nsynchronous_commit = on\nlisten_addresses = ''\n\
            shared_buffers = 64MB\nmax_wal_size = 256MB\ncheckpoint_timeout = 30s\nautovacuum_naptime = 2s\n\
            restart_after_crash = off\n";
        fs::write(self.data().join("postgresql.auto.conf"), settings).unwrap();
    }

    /// Starts the database, which recovers if it has to, and waits until it answers.
    pub fn start_database(&mut self) {
        let mut command = self.program("postgres");
        command.args(["-D", text(&self.data()), "-k", text(&self.folder)]);
        let log = fs::File::create(self.folder.join("postgres.log")).unwrap();
        self.postgres = Some(command.stderr(log).spawn().unwrap());
        let waiting = std::time::Instant::now();
        while !self.answers() {
            let log = || fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
            let ended = self.postgres.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the database does not start: {}", log());
            assert!(waiting.elapsed() < Duration::from_secs(180), "it recovers on: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let mut command = self.program("pg_isready");
        command.args(["-q", "-h", text(&self.folder)]).status().unwrap().success()
    }

    /// A session with the database, whose statements come by the standard input.
    pub fn session(&self) -> Command {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-U", "postgres", "-d", "postgres", "-h", text(&self.folder)]);
        command
    }

    /// The output of one statement.
    pub fn query(&self, statement: &str) -> String {
        let output = self.session().args(["-c", statement]).output().unwrap();
        let story = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {story}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Every table and index of the database is sound.
    pub fn check_files(&self) {
        let words = ["--install-missing", "--heapallindexed", "-U", "postgres", "-d", "postgres"];
        self.run("pg_amcheck", &[&words[..], &["-h", text(&self.folder)]].concat());
    }

    /// The machine dies, with sessions open: nothing is flushed.
    pub fn break_down(&self) {
        let postgres = self.postgres.as_ref().map(Child::id);
        let sessions = postgres.map(children).unwrap_or_default();
        let all = self.fuses.iter().map(Child::id).chain(postgres).chain(sessions);
        let all: Vec<String> = all.map(|process| process.to_string()).collect();
        let _ = Command::new("kill").arg("-KILL").args(all).output();
    }

    /// Mounts and devices of the dead machine are cleared away.
    pub fn clear(mut self) {
        self.die();
    }

    fn die(&mut self) {
        self.break_down();
        for mut process in self.fuses.drain(..).chain(self.postgres.take()) {
            let _ = process.wait();
        }
        let quietly = |program: &str, words: &[&str]| {
            Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
        };
        for volume in VOLUMES {
            let mounted = self.folder.join(volume);
            let is_mounted =
                || fs::read_to_string("/proc/mounts").unwrap().contains(text(&mounted));
            // Sessions that were killed may not be gone.
            for _ in 0..50 {
                if quietly("umount", &[text(&mounted)]) || !is_mounted() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        self.loops.drain(..).for_each(|device| {
            quietly("losetup", &["-d", &device]);
        });
        for volume in VOLUMES {
            quietly("umount", &["-l", text(&self.file(volume))]);
        }
    }

    /// The database and the machine stop in order.
    pub fn stop(mut self) {
        let mut postgres = self.postgres.take().unwrap();
        // Its fast shutdown.
        done("kill", &["-INT", &postgres.id().to_string()]);
        assert!(postgres.wait().unwrap().success());
        for volume in VOLUMES {
            done("umount", &[text(&self.folder.join(volume))]);
        }
        self.die();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.loops.is_empty() {
            self.die();
        }
    }
}

/// The processes that this one has started: each is in a session of its own.
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let told = fs::read_to_string(path).unwrap_or_default();
    told.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}
