//! A served pair with real hosts on it: libnbd's and qemu's tools, on files of random bytes. Where a tool is not
//! installed its test says so and is skipped; with `REAL_PARTS=1` it fails instead, as in `.ci/run`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code)]
mod served;
use served::parts::{Pair, are_there, done, real_parts, text};
use served::{Served, run, run_with, until};

/// A pair with one volume.
fn pair() -> Pair {
    Pair::new(&["data=64MiB"], "16MiB")
}

/// A file of so many random bytes.
fn random(pair: &Pair, name: &str, bytes: usize) -> PathBuf {
    let path = pair.scratch.path().join(name);
    let mut content = vec![0; bytes];
    getrandom::fill(&mut content).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// The host moves while most of what it wrote is not there yet, reads all of it, and moves back.
#[test]
fn a_copied_image_is_the_same_at_either_device_at_once() {
    if !are_there(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let pair = pair();
    let [a, b] = &pair.devices;
    let image = random(&pair, "image", 32 << 20);
    assert_eq!(a.ask(&["rate", "4MiB/s"]).0, Some(0));
    done("nbdcopy", &["--flush", text(&image), &pair.uri(0, "data")]);
    let owed = pair.take_over(1);
    assert!(owed > 1000, "{owed} blocks were owed");
    let back = pair.scratch.path().join("back");
    done("nbdcopy", &[&pair.uri(1, "data"), text(&back)]);
    let [was, is] = [&image, &back].map(|path| fs::read(path).unwrap());
    assert!(was[..] == is[..was.len()], "the image is another one");
    assert!(is[was.len()..].iter().all(|&byte| byte == 0));

    let newer = random(&pair, "newer", 32 << 20);
    done("nbdcopy", &["--flush", text(&newer), &pair.uri(1, "data")]);
    pair.take_over(0);
    fs::remove_file(&back).unwrap();
    done("nbdcopy", &[&pair.uri(0, "data"), text(&back)]);
    let [was, is] = [&newer, &back].map(|path| fs::read(path).unwrap());
    assert!(was[..] == is[..was.len()], "the image is the older one, or a mixture");
    assert_eq!(b.ask(&["drain"]).0, Some(9), "it does not serve");
    pair.end_equal(0);
}

/// A device that no other has joined so far takes more than its journal holds, and the one that joins gets it all.
#[test]
fn a_device_without_a_peer_fills_no_journal() {
    if !are_there(&["nbdcopy"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| Served::at(scratch.path().join(name)));
    let socket = scratch.path().join("a.nbd");
    let words = ["init", a.path(), "--volume", "data=64MiB", "--journal", "8MiB"];
    let (code, invitation, story) = run(&words);
    assert_eq!(code, Some(0), "{story}");
    a.serve(&["--listen", "127.0.0.1:0", "--nbd", &format!("unix:{}", socket.display())]);
    let image = scratch.path().join("image");
    let mut content = vec![0; 48 << 20];
    getrandom::fill(&mut content).unwrap();
    fs::write(&image, content).unwrap();
    let uri = format!("nbd+unix:///data?socket={}", socket.display());
    done("nbdcopy", &["--flush", text(&image), &uri]);
    let address = a.status("/link/address").as_str().unwrap().to_owned();
    let (code, _, story) = run_with(&["join", b.path(), &address], &invitation);
    assert_eq!(code, Some(0), "{story}");
    b.serve(&[]);
    until("they are connected", || a.status("/connected") == true);
    assert_eq!(a.ask(&["drain", "--timeout", "20s"]).0, Some(0));
    until("the order is back", || a.status("/mode") == "ordered");
    a.end("-TERM");
    b.end("-TERM");
    let (code, story, _) = run(&["verify", a.path(), b.path()]);
    assert_eq!(code, Some(0), "{story}");
}

#[test]
fn qemu_finds_an_image_as_it_left_it() {
    if !are_there(&["qemu-img", "qemu-io"]) {
        return;
    }
    let pair = pair();
    let image = random(&pair, "image", 64 << 20);
    let (from, uri) = (text(&image), pair.uri(0, "data"));
    done("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", from, &uri]);
    done("qemu-img", &["compare", "-f", "raw", "-F", "raw", from, &uri]);
    pair.take_over(1);
    done("qemu-img", &["compare", "-f", "raw", "-F", "raw", from, &pair.uri(1, "data")]);
    let uri = pair.uri(1, "data");
    let mut words = vec!["-f", "raw"];
    for command in [
        "write -P 7 5000 123457",
        "discard 1M 3M",
        "flush",
        "read -P 7 5000 123457",
        "read -P 0 1M 3M",
    ] {
        words.extend(["-c", command]);
    }
    words.push(&uri);
    done("qemu-io", &words);
}

/// The lines of the README's section, without the comments that name a terminal.
fn lines_of_the_readme(section: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).expect("the section");
    let text = rest.split("\n## ").next().unwrap();
    let code = text.lines().filter_map(|line| line.strip_prefix("    "));
    code.map(|line| line.split(" # ").next().unwrap().trim().to_owned()).collect()
}

/// A reader sees that a program has begun before the next line: a command that ends well once this one has.
fn has_begun(line: &str) -> &'static str {
    let begun = [
        ("afterimage serve a ", "afterimage status a"),
        ("afterimage serve b ", "afterimage status b | grep 'peer connected'"),
        ("nbdfuse a.disk/data ", "test -s a.disk/data"),
        ("nbdfuse b.disk/data ", "test -s b.disk/data"),
    ];
    begun.iter().find(|(part, _)| line.contains(part)).map_or("true", |(_, command)| command)
}

/// The lines run word for word, in namespaces of their own: with the shell all their processes and mounts end.
#[test]
fn the_two_terminals_of_the_readme_show_the_files_at_once() {
    let lines = lines_of_the_readme("A pair in two terminals");
    assert!((5..10).contains(&lines.len()), "{lines:?}");
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let devices = ["/dev/fuse", "/dev/loop-control"];
    let obstacle = match () {
        () if !real_parts() => Some("it runs with REAL_PARTS=1"),
        () if !is_root => Some("only root mounts file systems"),
        () if devices.iter().any(|at| fs::metadata(at).is_err()) => Some("no fuse or loop devices"),
        () => None,
    };
    if let Some(why) = obstacle {
        eprintln!("SKIPPED: {why}");
        return;
    }
    if !are_there(&["nbdfuse", "fusermount3", "mkfs.ext4", "mount", "unshare"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut script = "trap 'umount a.files b.files; fusermount3 -u a.disk; fusermount3 -u b.disk' EXIT\n\
        begun() { for _ in {1..600}; do eval \"$1\" >/dev/null 2>&1 && return; sleep 0.1; done; exit 3; }\n"
        .to_owned();
    for line in &lines {
        script += &format!("{line}\n[ $? = 0 ] || exit 2\nbegun \"{}\"\n", has_begun(line));
    }
    script += "afterimage rate a off && afterimage drain b --timeout 120s || exit 4\n\
        diff -r --no-dereference /usr/bin b.files/bin && echo all files are the same\n";
    let built = Path::new(env!("CARGO_BIN_EXE_afterimage")).parent().unwrap();
    let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    let apart = "-sKILL 280 unshare --mount --pid --fork --kill-child --mount-proc bash -xc";
    command.args(apart.split(' ')).arg(&script).env("PATH", path).current_dir(scratch.path());
    let output = command.output().unwrap();
    let [shown, story] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{}\n{shown}\n{story}", output.status);
    assert!(shown.contains("all files are the same"), "{shown}\n{story}");
    let owed = shown.lines().filter_map(|line| line.trim().strip_prefix("owed "));
    let owed: Vec<_> = owed.map(str::trim).collect();
    let is_behind = |line: &&str| line.ends_with("blocks at the peer") && !line.starts_with("0 ");
    assert!(owed.iter().any(is_behind), "it had caught up before `status`: {shown}");
}
