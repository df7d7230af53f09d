//! The sockets of a service at which hosts come: which are opened, for whom, and where they are said to be.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

#[allow(dead_code)]
mod served;
use served::{Served, afterimage, run, until};

/// Certificates for the device, and for a host `vm` that writes to `data`.
fn certificates(scratch: &Path) -> String {
    let dir = scratch.join("certs").to_str().unwrap().to_owned();
    let words = ["host-certs", &dir, "--name", "localhost", "--client", "vm:data:rw"];
    let (code, said, story) = run(&words);
    assert!(code == Some(0) && said.contains("clients/vm"), "{story}");
    dir
}

/// A configuration with `hosts` in that section.
fn config(scratch: &Path, hosts: &str) -> String {
    let path = scratch.join("config.toml");
    fs::write(&path, format!("[hosts]\n{hosts}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_socket_that_lets_anybody_in_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (served, _) = Served::made(scratch.path());
    let certs = certificates(scratch.path());
    let shown =
        format!("certificate = '{certs}/server-cert.pem'\nkey = '{certs}/server-key.pem'\n");
    let open = scratch.path().join("open.pem");
    fs::copy(format!("{certs}/server-key.pem"), &open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let open = open.display();
    for (hosts, why) in [
        (String::new(), "without encryption"),
        (shown.clone(), "hosts.client-ca"),
        (format!("client-ca = '{certs}/ca-cert.pem'"), "belong together"),
        (format!("certificate = '{certs}/server-cert.pem'\nkey = '{open}'"), "chmod 600"),
        (format!("{shown}client-ca = '{certs}/nothing'"), "reading"),
        (format!("{shown}client-ca = '{certs}/ca-key.pem'"), "no certificate"),
        (format!("certificate = '{certs}/ca-cert.pem'\nkey = '{certs}/server-key.pem'"), "key"),
        (format!("{shown}[hosts.exports.date]"), "no volume of that name"),
    ] {
        let config = config(scratch.path(), &hosts);
        let words = ["serve", served.path(), "--config", &config, "--nbd", "127.0.0.1:0"];
        let (code, _, story) = run(&words);
        assert!(code == Some(2) && story.contains(why), "{why}: {story}");
    }
    // A device that was not served was closed again.
    assert_eq!(run(&["inspect", served.path()]).0, Some(0));
}

#[test]
fn hosts_come_where_they_are_told_to() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut served, _) = Served::made(scratch.path());
    let certs = certificates(scratch.path());
    let group = fs::metadata(scratch.path()).unwrap().gid();
    let socket = scratch.path().join("a b.nbd");
    let hosts = format!(
        "nbd = ['unix:{}', '127.0.0.1:0']\nmode = '0620'\nowner = ':{group}'\ncertificate = '{certs}/server-cert.pem'\n\
         key = '{certs}/server-key.pem'\nclient-ca = '{certs}/ca-cert.pem'\n\
         [hosts.exports.data]\nshared = true\n[hosts.exports.wal]\nread-only = true",
        socket.display()
    );
    let config = config(scratch.path(), &hosts);
    let words = ["serve", served.path(), "--config", &config, "--print-uri"];
    let mut child =
        afterimage(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let printed = BufReader::new(child.stdout.take().unwrap()).lines().take(4);
    let printed: Vec<_> = printed.map(Result::unwrap).collect();
    served.child = Some(child);
    until("it answers", || served.ask(&["status"]).0 == Some(0));
    let unix = scratch.path().display();
    let port = printed[1].split([':', '/']).nth(4).expect("a port").to_owned();
    let expected = ["data", "wal"].map(|name| {
        let path = format!("nbd+unix:///{name}?socket={unix}/a%20b.nbd");
        [path, format!("nbds://localhost:{port}/{name}")]
    });
    assert_eq!(printed, expected.concat());
    assert_eq!(served.status("/uris"), serde_json::to_value(&printed).unwrap());
    assert_eq!(served.status("/hosts_refused/handshakes"), 0);
    assert!(printed.iter().all(|uri| run(&["status", served.path()]).1.contains(uri)));
    let found = fs::metadata(&socket).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o620, group));

    if Command::new("nbdinfo").arg("--version").output().is_err() {
        eprintln!("SKIPPED: nbdinfo is not installed");
        return;
    }
    let info = |uri: &str| {
        let output = Command::new("nbdinfo").arg(uri).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (found, data) = info(&printed[0]);
    assert!(found && data.contains("can_multi_conn: true"), "{data}");
    let (found, wal) = info(&printed[2]);
    assert!(found && wal.contains("can_multi_conn: false") && wal.contains("is_read_only: true"));
    let with = |uri: &str| info(&format!("{uri}?tls-certificates={certs}/clients/vm"));
    assert!(with(&printed[1]).0);
    assert!(!with(&printed[3]).0, "its certificate does not name `wal`");
    assert!(!info(&printed[1]).0, "no certificate");
    until("that is counted", || served.status("/hosts_refused/handshakes") == 1);
}
