//! `afterimage host-certs`: a small certificate authority, and what it signs: one certificate for both devices of a
//! pair, and one for each host, which says what that host may open.
//!
//! | file | what it has |
//! |---|---|
//! | `ca-cert.pem`, `ca-key.pem` | the authority; its key belongs on no device and no host |
//! | `server-cert.pem`, `server-key.pem` | both devices, by one name: hosts find an address that moves by it |
//! | `clients/NAME/` | `ca-cert.pem`, `client-cert.pem`, `client-key.pem`, as libnbd and qemu expect them |
//!
//! A folder appears whole, under its name, or does not.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::durable;
use super::pairing::leave_no_core_dump;
use super::volumes::check_name;
use crate::exit::{Exit, Failure};
use crate::nbd::rights::{Grant, client_uri};
use crate::output::shown;

/// A longer file is no certificate or key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Clocks of hosts may be behind by so long.
const BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const CLIENTS: &str = "clients";

/// The certificates to be made.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory to be made for the authority, or one that has it and gets more clients
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// The name or address by which hosts reach the device that serves, the same at both devices; may be given several
    /// times, and not with an authority that is there
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,

    /// A host, an export (`*` for every one), and whether the host only reads it; may be given several times, also for
    /// one host
    #[arg(long, value_name = "NAME:EXPORT:ro|rw", value_parser = client)]
    pub client: Vec<(String, Grant)>,

    /// The certificates count for so many days
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

fn client(word: &str) -> Result<(String, Grant), String> {
    let wrong = || format!("`{word}` is no host, export and use, such as vm1:data:rw");
    let (name, grant) = word.split_once(':').ok_or_else(wrong)?;
    let grant: Grant = grant.parse().map_err(|_| wrong())?;
    check_name(name)?;
    if name.starts_with('.') {
        return Err(format!("`{name}` begins with a dot, and is to be a folder's name"));
    }
    if grant.export != "*" {
        check_name(&grant.export)?;
    }
    Ok((name.into(), grant))
}

/// Makes what is asked for, and prints what was made. Nothing that is there is written over.
///
/// # Errors
/// [`Exit::Usage`] for names that cannot be, [`Exit::Refused`] if something stands where a file was to be made,
/// [`Exit::Device`] if the storage fails.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    leave_no_core_dump();
    let dir = &*args.dir;
    let making = format!("making certificates in {}", dir.display());
    let failed = |e: io::Error| Failure::storage(&making, &e);
    let refused = |what: &str| Err(Failure::new(Exit::Refused, format!("{making}: {what}")));
    let usage = |what: &str| Err(Failure::new(Exit::Usage, format!("{making}: {what}")));

    let mut clients: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
    for (name, grant) in &args.client {
        clients.entry(name).or_default().push(grant);
    }
    let authority = Authority::read(dir)
        .map_err(|what| Failure::new(Exit::Device, format!("{making}: {what}")))?;
    let days = Duration::from_secs(u64::from(args.days) * 24 * 60 * 60);
    if let Some(authority) = authority {
        if !args.name.is_empty() {
            return refused(
                "an authority is there already; --name makes a new one, in another directory",
            );
        }
        if clients.is_empty() {
            return usage(
                "an authority is there already: --client NAME:EXPORT:ro|rw makes a certificate of a host",
            );
        }
        let folder = dir.join(CLIENTS);
        fs::create_dir_all(&folder).map_err(failed)?;
        if let Some(name) = clients.keys().find(|name| folder.join(name).exists()) {
            return refused(&format!(
                "{CLIENTS}/{name} is there already: remove it first, or give another name"
            ));
        }
        for (name, grants) in &clients {
            let made =
                tempfile::Builder::new().prefix(".new").tempdir_in(&folder).map_err(failed)?;
            authority.client(made.path(), name, grants, days).map_err(failed)?;
            appear(made, &folder.join(name)).map_err(failed)?;
        }
    } else {
        if args.name.is_empty() {
            return usage(
                "there is no authority yet: --name NAME says by which name hosts reach the devices",
            );
        }
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return refused("something stands there already: give another directory");
        }
        let parent =
            dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made =
            tempfile::Builder::new().prefix(".host-certs").tempdir_in(parent).map_err(failed)?;
        let authority = Authority::new(&args.name[0], days).map_err(failed)?;
        let names = args.name.clone();
        let server = CertificateParams::new(names)
            .map_err(|e| Failure::new(Exit::Usage, format!("{making}: --name: {e}")))?;
        authority.server(made.path(), server, days).map_err(failed)?;
        for (name, grants) in &clients {
            let folder = made.path().join(CLIENTS).join(name);
            fs::create_dir_all(&folder).map_err(failed)?;
            authority.client(&folder, name, grants, days).map_err(failed)?;
        }
        appear(made, dir).map_err(failed)?;
        let at = dir.display();
        shown(writeln!(out, "devices: {at}/server-cert.pem {at}/server-key.pem {at}/{CA_CERT}"))?;
        shown(writeln!(out, "authority, to be kept elsewhere: {at}/{CA_KEY}"))?;
    }
    for (name, grants) in &clients {
        let grants: Vec<_> = grants.iter().map(ToString::to_string).collect();
        shown(writeln!(
            out,
            "host {name}, {}: {}/{CLIENTS}/{name}",
            grants.join(" "),
            dir.display()
        ))?;
    }
    Ok(Exit::Held)
}

struct Authority {
    pem: String,
    /// With its key, when it is new.
    key_pem: Option<String>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, for devices of that name.
    fn new(name: &str, days: Duration) -> io::Result<Authority> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = of(format!("afterimage hosts of {name}"), days);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let key_pem = Some(key.serialize_pem());
        Ok(Authority { pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// The one in `dir`; `None` if there is none.
    fn read(dir: &Path) -> Result<Option<Authority>, String> {
        let text = |file: &str| {
            let wrong = |what: String| format!("{}: {what}", dir.join(file).display());
            let bytes =
                durable::read(&dir.join(file), FILE_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
            bytes.map(String::from_utf8).transpose().map_err(|e| wrong(e.to_string()))
        };
        let (pem, key) = match (text(CA_CERT)?, text(CA_KEY)?) {
            (Some(pem), Some(key)) => (pem, key),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(format!(
                    "{CA_KEY}, by which it signs, is not beside {CA_CERT}: bring it here first"
                ));
            }
            (None, Some(_)) => {
                return Err(format!("{CA_CERT} is not beside {CA_KEY}: bring it here first"));
            }
        };
        let key = KeyPair::from_pem(&key).map_err(|e| format!("{CA_KEY}: {e}"))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| format!("{CA_CERT}: {e}"))?;
        Ok(Some(Authority { pem, key_pem: None, issuer }))
    }

    fn signed(&self, params: &CertificateParams) -> io::Result<(Certificate, KeyPair)> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok((params.signed_by(&key, &self.issuer).map_err(io::Error::other)?, key))
    }

    /// Writes the authority, and the devices' certificate with the names of `params`.
    fn server(&self, dir: &Path, names: CertificateParams, days: Duration) -> io::Result<()> {
        let mut params = of("afterimage".into(), days);
        params.subject_alt_names = names.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = self.signed(&params)?;
        write(&dir.join(CA_CERT), &self.pem, false)?;
        write(&dir.join(CA_KEY), self.key_pem.as_deref().unwrap_or_default(), true)?;
        write(&dir.join("server-cert.pem"), &certificate.pem(), false)?;
        write(&dir.join("server-key.pem"), &key.serialize_pem(), true)
    }

    /// Writes the folder of a host.
    fn client(&self, dir: &Path, name: &str, grants: &[&Grant], days: Duration) -> io::Result<()> {
        let mut params = of(name.into(), days);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uris = std::iter::once(client_uri(name)).chain(grants.iter().map(|grant| grant.uri()));
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(io::Error::other)?));
        }
        let (certificate, key) = self.signed(&params)?;
        write(&dir.join(CA_CERT), &self.pem, false)?;
        write(&dir.join("client-cert.pem"), &certificate.pem(), false)?;
        write(&dir.join("client-key.pem"), &key.serialize_pem(), true)
    }
}

/// A certificate for `name`, for so long. It says nothing of the uses of its key: qemu wants one that does to
/// allow what keys on elliptic curves cannot do.
fn of(name: String, days: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + days).into();
    params.use_authority_key_identifier_extension = true;
    params
}

fn write(path: &Path, text: &str, is_secret: bool) -> io::Result<()> {
    let mode = if is_secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The folder `made` gets its name, unless something is there.
fn appear(made: tempfile::TempDir, path: &Path) -> io::Result<()> {
    fs::rename(made.path(), path).map_err(|e| match e.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            io::Error::new(io::ErrorKind::AlreadyExists, "something stands there already")
        }
        _ => e,
    })?;
    // It has another name now.
    let _ = made.keep();
    durable::sync_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn make(dir: &Path, words: &[&str]) -> Result<String, Failure> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let words = [&["x", dir.to_str().unwrap()][..], words].concat();
        let line = <Line as clap::Parser>::try_parse_from(words)
            .map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
        let mut out = Vec::new();
        run(&line.args, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn refused(dir: &Path, words: &[&str], exit: Exit, why: &str) {
        let failure = make(dir, words).unwrap_err();
        assert!(failure.exit() == exit && failure.to_string().contains(why), "{failure}");
    }

    /// Every file below `dir`, with its mode and content.
    fn files(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let (entry, name) =
                entry.map(|e| (e.path(), e.file_name().into_string().unwrap())).unwrap();
            if entry.is_dir() {
                let below = files(&entry).into_iter();
                all.extend(below.map(|(path, file)| (format!("{name}/{path}"), file)));
            } else {
                let mode = fs::metadata(&entry).unwrap().permissions().mode() & 0o777;
                all.insert(name, (mode, fs::read(&entry).unwrap()));
            }
        }
        all
    }

    #[test]
    fn keys_are_their_owners_and_nothing_is_written_over() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = &*scratch.path().join("certs");
        refused(dir, &["--client", "vm1:data:rw"], Exit::Usage, "no authority yet");
        for word in
            ["vm1", "vm1:data", "vm1:data:x", ":data:rw", "..:data:rw", "a/b:data:rw", "vm1:a/b:ro"]
        {
            refused(dir, &["--name", "a", "--client", word], Exit::Usage, "--client");
        }
        refused(dir, &["--name", "stra\u{df}e"], Exit::Usage, "--name");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left behind");

        let words = ["--name", "pair.example", "--name", "127.0.0.1", "--client", "vm1:data:rw"];
        let said = make(dir, &[&words[..], &["--client", "vm1:wal:ro"]].concat()).unwrap();
        assert!(said.contains("host vm1, data:rw wal:ro: "), "{said}");
        let made = files(dir);
        let names: Vec<_> = made.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "ca-cert.pem",
                "ca-key.pem",
                "clients/vm1/ca-cert.pem",
                "clients/vm1/client-cert.pem",
                "clients/vm1/client-key.pem",
                "server-cert.pem",
                "server-key.pem"
            ]
        );
        for (name, (mode, text)) in &made {
            let is_key = name.ends_with("key.pem");
            // A umask may take more away.
            let others = if is_key { 0o177 } else { 0o133 };
            assert_eq!(mode & others, 0, "{name}");
            let what: &[u8] =
                if is_key { b"-----BEGIN PRIVATE KEY" } else { b"-----BEGIN CERTIFICATE" };
            assert!(text.starts_with(what), "{name}");
        }
        refused(dir, &words, Exit::Refused, "authority is there");
        refused(dir, &[], Exit::Usage, "--client");
        refused(dir, &["--client", "vm1:data:ro"], Exit::Refused, "clients/vm1");
        assert_eq!(files(dir), made);
        // The authority signs for more hosts.
        make(dir, &["--client", "vm2:*:ro"]).unwrap();
        let more = files(dir);
        assert_eq!(more.len(), made.len() + 3);
        assert!(made.iter().all(|(name, file)| more[name] == *file));
        // Something else is left alone.
        let other = scratch.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("letter"), "x").unwrap();
        refused(&other, &words, Exit::Refused, "stands there");
    }
}
