//! The three rights at a service, asked for by processes of other users. Only root can start these: without it the tests
//! are skipped, and a line says so.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;

#[allow(dead_code)]
mod served;
use served::{Served, is_root, until};

/// Users without a name, but for the first, each in the group of its number.
const SEES: u32 = 65534;
const OPERATES: u32 = 64_001;
const STRANGER: u32 = 64_002;
const SERVES: u32 = 64_003;
const ROOT: u32 = 0;

const OPERATE: [&[&str]; 12] = [
    &["wait", "0.0.0"],
    &["drain"],
    &["takeover"],
    &["takeover", "--dry-run"],
    &["handover"],
    &["handover", "--dry-run"],
    &["fence"],
    &["resume"],
    &["rate", "off"],
    &["invite"],
    &["compare"],
    &["compare", "--volume", "data"],
];

const FORCE: [&[&str]; 8] = [
    &["resume", "--alone"],
    &["accept-loss"],
    &["accept-loss", "--dry-run"],
    &["takeover", "--force", "--yes"],
    &["force", "--yes"],
    &["resolve", "--yes"],
    &["forget-peer", "--yes"],
    &["salvage", "remove", "1", "--yes"],
];

/// A folder and a program that every user reaches.
struct Site {
    scratch: tempfile::TempDir,
    program: PathBuf,
}

impl Site {
    fn new() -> Option<Site> {
        if !is_root() {
            eprintln!("SKIPPED: only root can ask as other users");
            return None;
        }
        let scratch = tempfile::tempdir().unwrap();
        open(scratch.path());
        // Folders above the one that was built are closed to others, perhaps.
        let program = scratch.path().join("afterimage");
        // By a process of its own: one that another test starts meanwhile would hold the file open for writing.
        let copied =
            Command::new("cp").arg(env!("CARGO_BIN_EXE_afterimage")).arg(&program).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Some(Site { scratch, program })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A device of `user`, which has the folder for itself.
    fn device(&self, user: u32) -> Served {
        let home = self.path("home");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(user), Some(user)).unwrap();
        open(&home);
        let device = Served::at(home.join("a"));
        let words = ["init", device.path(), "--volume", "data=1MiB", "--journal", "16MiB"];
        let made = self.command(user, &words).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        open(&device.dir);
        device
    }

    fn command(&self, user: u32, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Other groups than this one are left, too.
        command.args(words).uid(user).gid(user).current_dir("/").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Serves `device` as `user`, with these settings of `[control]`.
    fn serve(&self, device: &mut Served, user: u32, control: &str) {
        device.child = Some(self.start(device, user, control));
        let force = device.dir.join("force.sock");
        until("it answers", || device.ask(&["status"]).0 == Some(0) && force.exists());
    }

    fn start(&self, device: &Served, user: u32, control: &str) -> Child {
        let config = self.path("config.toml");
        fs::write(&config, format!("[control]\n{control}\n[log]\nlevel = 'debug'\n")).unwrap();
        let words = ["serve", device.path(), "--config", config.to_str().unwrap()];
        self.command(user, &words).spawn().unwrap()
    }

    /// The outcome of a command of `user`: its words but for the directory, which comes behind the verb.
    fn ask(&self, user: u32, device: &Served, words: &[&str]) -> (Option<i32>, String) {
        let verb = if words[0] == "salvage" { 2 } else { 1 };
        let words = [&words[..verb], &[device.path()], &words[verb..]].concat();
        let Output { status, stdout, stderr } = self.command(user, &words).output().unwrap();
        let text = [stdout, stderr].concat();
        (status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn may(&self, user: u32, device: &Served, words: &[&str]) {
        let (code, story) = self.ask(user, device, words);
        assert_eq!(code, Some(0), "{user} {words:?}: {story}");
    }

    fn is_refused(&self, user: u32, device: &Served, words: &[&str], right: &str) {
        let (code, story) = self.ask(user, device, words);
        let why = format!("this user has no right to {right}");
        assert!(code == Some(5) && story.contains(&why), "{user} {words:?}: {code:?} {story}");
    }
}

/// Lets every user pass through the folder.
fn open(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
}

#[test]
fn each_user_has_its_rights_and_no_other() {
    let Some(site) = Site::new() else { return };
    let mut device = site.device(ROOT);
    let control = format!("see-owner = ':{SEES}'\noperate-owner = '{OPERATES}'");
    site.serve(&mut device, ROOT, &control);

    for words in [&["status"][..], &["mark"], &["salvage", "list"]] {
        site.may(SEES, &device, words);
        // A right includes the lesser ones.
        site.may(OPERATES, &device, words);
        site.is_refused(STRANGER, &device, words, "see");
    }
    for words in OPERATE {
        site.is_refused(SEES, &device, words, "operate");
        site.is_refused(STRANGER, &device, words, "operate");
    }
    for words in FORCE {
        for user in [SEES, OPERATES, STRANGER] {
            site.is_refused(user, &device, words, "force");
        }
    }
    assert_eq!(device.status("/role"), "serving", "nothing of that was done");

    let words = ["events", device.path(), "--json"];
    let mut follower = site.command(SEES, &words).spawn().unwrap();
    let (told, events) = channel();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
    until("an event is seen", || {
        site.may(OPERATES, &device, &["fence"]);
        site.may(ROOT, &device, &["resume", "--alone"]);
        events.try_recv().is_ok()
    });

    let (code, log) = device.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(follower.wait().unwrap().code(), Some(8), "the service stops");
    for (user, order) in [
        (SEES, "Status"),
        (SEES, "Events"),
        (OPERATES, "Status"),
        (OPERATES, "Fence"),
        (ROOT, "ResumeAlone"),
    ] {
        let line = format!("order user={user} order={order}");
        assert!(log.contains(&line), "{line}: {log}");
    }
    assert!(!log.contains(&format!("user={STRANGER}")), "{log}");
}

#[test]
fn the_user_of_a_service_does_not_force_and_root_does() {
    let Some(site) = Site::new() else { return };
    let mut device = site.device(SERVES);
    site.serve(&mut device, SERVES, "");
    for user in [SERVES, ROOT] {
        site.may(user, &device, &["status"]);
        site.may(user, &device, &["rate", "off"]);
    }
    for words in FORCE {
        site.is_refused(SERVES, &device, words, "force");
        site.is_refused(STRANGER, &device, words, "force");
    }
    site.may(ROOT, &device, &["resume", "--alone"]);
    let (_, log) = device.end("-TERM");
    for line in [format!("user={SERVES} order=Rate"), format!("user={ROOT} order=ResumeAlone")] {
        assert!(log.contains(&line), "{line}: {log}");
    }

    // The configuration can say otherwise.
    site.serve(&mut device, SERVES, "force = '0600'");
    site.may(SERVES, &device, &["resume", "--alone"]);
}

#[test]
fn a_right_that_cannot_be_given_is_named() {
    let Some(site) = Site::new() else { return };
    let mut device = site.device(SERVES);
    for (control, why) in [
        (format!("operate-owner = '{OPERATES}'"), "operate.sock"),
        (format!("force-owner = ':{OPERATES}'"), "a group that it is in"),
        ("see-owner = 'nobody of that name'".into(), "has no nobody of that name"),
    ] {
        let ended = site.start(&device, SERVES, &control).wait_with_output().unwrap();
        let story = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(2) && story.contains(why), "{control}: {story}");
    }
    // The device was closed again, and a group that the service is in is given.
    site.serve(&mut device, SERVES, &format!("see-owner = ':{SERVES}'"));
}
