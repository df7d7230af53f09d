//! The sockets at which hosts come, and who may come there.
//!
//! | socket | a host |
//! |---|---|
//! | `unix:PATH` | is who may write to the socket's file |
//! | `HOST:PORT` with certificate, key and client CA | comes by TLS, and shows a certificate that names exports |
//! | the same on the loopback, insecure | may do without |
//! | `HOST:PORT` with certificate and key, insecure | comes by TLS (on the loopback it need not), and is anybody |
//! | `HOST:PORT` without, insecure | is anybody |
//!
//! Any other one is refused.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::config;
use super::durable;
use super::sockets::{self, Access};
use crate::exit::{Exit, Failure};
use crate::nbd::{Listener, Tls};

/// A longer file has no certificate.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Sockets that are open.
#[derive(Default)]
pub struct Sockets {
    pub listeners: Vec<Listener>,
    /// The files of those that have one.
    pub unix: Vec<PathBuf>,
    /// Where a client finds them.
    ways: Vec<Way>,
}

/// The parts of a URI before and behind an export's name.
struct Way(String, String);

/// Opens the sockets of `addresses`, and takes those that systemd has `passed`.
///
/// # Errors
/// [`Exit::Usage`] for certificates that cannot be, and for a socket that would let anybody in without `is_insecure`;
/// [`Exit::Device`] and [`Exit::Refused`] if one cannot be opened.
pub fn open(
    addresses: &[String],
    passed: Vec<Listener>,
    settings: &config::Hosts,
    is_insecure: bool,
) -> Result<Sockets, Failure> {
    let tls = tls(settings).map_err(|what| Failure::new(Exit::Usage, what))?;
    let mut sockets = Sockets::default();
    for address in addresses {
        let opening = format!("opening {address} for hosts");
        let failed = |e: io::Error| Failure::storage(&opening, &e);
        if let Some(path) = address.strip_prefix("unix:") {
            let path = std::path::absolute(path).map_err(failed)?;
            let access = Access { mode: settings.mode.0, owner: settings.owner.clone() };
            let listener = sockets::bind(&path, &access);
            let listener = listener.map_err(|e| sockets::failure(&opening, &e))?;
            sockets.listeners.push(Listener::Unix(listener));
            sockets.ways.push(Way::unix(&path));
            sockets.unix.push(path);
            continue;
        }
        let said = address.rsplit_once(':').map_or(&**address, |(host, _)| host);
        let bind = || TcpListener::bind(address);
        sockets.add_tcp(bind, Some(said), &opening, tls.as_ref(), is_insecure)?;
    }
    for listener in passed {
        let opening = "taking a socket of systemd's for hosts";
        match listener {
            Listener::Unix(listener) => {
                let address = listener.local_addr().map_err(|e| Failure::storage(opening, &e))?;
                if let Some(path) = address.as_pathname() {
                    sockets.ways.push(Way::unix(path));
                }
                sockets.listeners.push(Listener::Unix(listener));
            }
            Listener::Tcp(listener) | Listener::Tls { listener, .. } => {
                sockets.add_tcp(|| Ok(listener), None, opening, tls.as_ref(), is_insecure)?;
            }
        }
    }
    Ok(sockets)
}

impl Way {
    fn unix(path: &Path) -> Way {
        Way("nbd+unix:///".into(), format!("?socket={}", encoded(path)))
    }
}

impl Sockets {
    /// Adds the socket that `bind` gives, which clients find at the host `said`, or else at its address.
    fn add_tcp(
        &mut self,
        bind: impl FnOnce() -> io::Result<TcpListener>,
        said: Option<&str>,
        opening: &str,
        tls: Option<&Tls>,
        is_insecure: bool,
    ) -> Result<(), Failure> {
        if !is_insecure && !tls.is_some_and(Tls::authenticates) {
            let lacks = match tls {
                None => "encryption: use unix:PATH, or name hosts.certificate, key and client-ca",
                Some(_) => "showing who it is: name hosts.client-ca",
            };
            let what = format!(
                "{opening}: by TCP anybody who reaches it would read and write all volumes, without {lacks} in the \
                 configuration (`afterimage host-certs` makes them), or say --insecure-hosts"
            );
            return Err(Failure::new(Exit::Usage, what));
        }
        let failed = |e: io::Error| Failure::storage(opening, &e);
        let listener = bind().map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let is_required = !(is_insecure && bound.ip().is_loopback());
        let shown = match bound.ip() {
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        let said = said.unwrap_or(&shown);
        let (scheme, host) = match tls {
            Some(tls) if is_required => ("nbds", tls.name().unwrap_or(said)),
            _ => ("nbd", said),
        };
        self.ways.push(Way(format!("{scheme}://{host}:{}/", bound.port()), String::new()));
        self.listeners.push(match tls {
            None => Listener::Tcp(listener),
            Some(tls) => Listener::Tls { listener, tls: tls.clone(), is_required },
        });
        Ok(())
    }

    /// The URIs of an export.
    pub fn uris(&self, export: &str) -> impl Iterator<Item = String> {
        self.ways.iter().map(move |Way(before, behind)| format!("{before}{export}{behind}"))
    }
}

/// A path, as it may stand in a URI.
fn encoded(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| match plain(byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// The certificates that the settings name, if they name any.
fn tls(settings: &config::Hosts) -> Result<Option<Tls>, String> {
    let (certificate, key) = match (&settings.certificate, &settings.key, &settings.client_ca) {
        (Some(certificate), Some(key), _) => (certificate, key),
        (None, None, None) => return Ok(None),
        _ => {
            return Err(
                "hosts.certificate and hosts.key belong together, and hosts.client-ca to them"
                    .into(),
            );
        }
    };
    let text = |path: &Path| {
        let read = durable::read(path, FILE_BYTES_MAX)
            .and_then(|text| text.ok_or(io::ErrorKind::NotFound.into()));
        read.map_err(|e| format!("reading {}: {e}", path.display()))
    };
    let secret = text(key)?;
    let mode = fs::metadata(key).map_err(|e| format!("reading {}: {e}", key.display()))?.mode();
    if mode & 0o027 != 0 {
        let (path, mode) = (key.display(), mode & 0o777);
        return Err(format!(
            "{path} has mode {mode:o}, so that others can read a private key: chmod 600 {path}"
        ));
    }
    let clients = settings.client_ca.as_deref().map(text).transpose()?;
    Tls::new(&text(certificate)?, &secret, clients.as_deref())
        .map(Some)
        .map_err(|what| format!("{} and the files beside it: {what}", certificate.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_so_that_a_uri_can_have_it() {
        assert_eq!(encoded(Path::new("/run/a b/n%d?")), "/run/a%20b/n%25d%3F");
    }
}
