//! Real clients by TLS, where they are installed.

use crate::parts::{has, image, out, run};
use crate::rig::*;
use crate::tls::{certificates, server_of};
use afterimage_cli::nbd::Settings;
use std::path::Path;
use std::process::Command;

fn folder(dir: &Path, client: &str) -> String {
    dir.join("certs/clients").join(client).display().to_string()
}

#[test]
fn libnbd_copies_by_tls() {
    if !has("nbdcopy") || !has("nbdinfo") {
        return;
    }
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let port = rig.address.unwrap().port();
    let uri = |host: &str, export: &str, client: &str| {
        let folder = folder(dir.path(), client);
        format!("nbds://{host}:{port}/{export}?tls-certificates={folder}")
    };
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    image(&from, SMALL);
    std::fs::File::create(&to).unwrap();
    run("nbdcopy", &["--flush", from.to_str().unwrap(), &uri("localhost", "wal", "all")]);
    // By the address, which the certificate has as well; with the right to read.
    run("nbdcopy", &[&uri("127.0.0.1", "wal", "vm"), to.to_str().unwrap()]);
    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    let told = out("nbdinfo", &[&uri("localhost", "wal", "vm")]);
    assert!(told.contains("with TLS") && told.contains("is_read_only: true"), "{told}");
    let listed = out("nbdinfo", &["--list", &uri("localhost", "", "vm")]);
    assert!(listed.contains("export=\"data\"") && !listed.contains("large"), "{listed}");
    // Another export, the right to write that is not there, no certificate, no TLS.
    let fails = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(!output.status.success(), "{program} {words:?}");
    };
    fails("nbdinfo", &[&uri("localhost", "large", "vm")]);
    fails("nbdcopy", &[from.to_str().unwrap(), &uri("localhost", "wal", "vm")]);
    let empty = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("certs/ca-cert.pem"), empty.path().join("ca-cert.pem")).unwrap();
    let nobody = format!("nbds://localhost:{port}/wal?tls-certificates={}", empty.path().display());
    fails("nbdinfo", &[&nobody]);
    fails("nbdinfo", &[&format!("nbd://localhost:{port}/wal")]);
}

#[test]
fn qemu_copies_by_tls() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let port = rig.address.unwrap().port();
    let creds = |client: &str| {
        format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", folder(dir.path(), client))
    };
    let options = |host: &str| {
        format!(
            "driver=nbd,server.type=inet,server.host={host},server.port={port},export=wal,\
             tls-creds=tls0,tls-hostname=localhost"
        )
    };
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    image(&from, SMALL);
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let (all, vm, wal) = (creds("all"), creds("vm"), options("127.0.0.1"));
    let target = ["--object", &all, "--target-image-opts", from, &wal];
    run("qemu-img", &[&["convert", "-n", "-f", "raw"][..], &target].concat());
    let source = ["--object", &vm, "--image-opts", &wal, "-O", "raw", to];
    run("qemu-img", &[&["convert"][..], &source].concat());
    assert!(std::fs::read(from).unwrap() == std::fs::read(to).unwrap());
    // A reader that would write is refused as it opens the export.
    let write = ["--object", &vm, "--image-opts", &wal, "-c", "write 0 4k"];
    let output = Command::new("qemu-io").args(write).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
