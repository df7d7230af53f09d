//! TLS on a host's connection: what a server shows and wants to see, the handshake that follows `STARTTLS`,
//! and the bytes of an encrypted connection.
//!
//! # Rules
//! - TLS 1.3, and 1.2 by ChaCha20-Poly1305, without resumption, tickets or early data.
//! - The reader of a connection waits for the socket without the lock, so that replies leave meanwhile.
//! - [`Channel::send`] says that bytes have left once all of their records have; those that it was given
//!   before are given to it again then, as with `SSL_write`.

use super::rights::Rights;
use super::stream::Socket;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of records that are read from the socket at once.
const INCOMING: usize = 64 << 10;

/// Most bytes of records that wait to be sent.
const OUTGOING: usize = 256 << 10;

/// How a server shows who it is, and whom it believes who they are.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    authenticates: bool,
    name: Option<String>,
}

impl Tls {
    /// The server shows the certificates of `chain`, its own first, with the private key `key`; hosts show
    /// certificates that an authority of `clients` has signed, or none if there is none. All are PEM.
    ///
    /// # Errors
    /// A sentence that says which of them is not what it should be.
    pub fn new(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Tls, String> {
        let mut provider = ring::default_provider();
        // In TLS 1.2 a connection may not make more than 2^24 records by the other suites.
        let is_lasting = |suite: &SupportedCipherSuite| {
            suite.version().version == ProtocolVersion::TLSv1_3
                || suite.suite().as_str().is_some_and(|name| name.contains("CHACHA20"))
        };
        provider.cipher_suites.retain(is_lasting);
        let provider = Arc::new(provider);
        let chain = certificates("certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("key: {e}"))?;
        let names = webpki::EndEntityCert::try_from(&chain[0]);
        let name = names.map_err(|e| format!("certificate: {e}"))?;
        let name = name.valid_dns_names().next().map(String::from);
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| e.to_string())?;
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("client-ca", clients)? {
                    roots.add(root).map_err(|e| format!("client-ca: {e}"))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|e| format!("client-ca: {e}"))?)
            }
        };
        let mut config =
            config.with_single_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Tls { config: Arc::new(config), authenticates: clients.is_some(), name })
    }

    /// Hosts have to show who they are.
    pub fn authenticates(&self) -> bool {
        self.authenticates
    }

    /// The first DNS name in the server's certificate.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all.map_err(|e| format!("{what}: {e}"))? {
        none if none.is_empty() => Err(format!("{what}: there is no certificate in it")),
        all => Ok(all),
    }
}

/// Whether a connection is encrypted, and whether it may or must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// There is no TLS here.
    None,
    Offered,
    /// Nothing is told and no export opened without.
    Required,
    /// The handshake is over.
    Established,
    /// The handshake is over, and the host's certificate says which exports it may open.
    Named,
}

/// An encrypted connection.
pub(super) struct Channel {
    incoming: Mutex<Incoming>,
    records: Mutex<Records>,
}

/// Bytes from the socket that were not looked at.
struct Incoming {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

struct Records {
    tls: ServerConnection,
    /// Bytes whose records have not all left.
    owed: usize,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// The handshake, on `wire`; `None` for the rights of a host that need not show who it is.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] with what was wrong with it; those of `wire`.
    pub fn accept(
        tls: &Tls,
        wire: &mut (impl Read + Write),
    ) -> io::Result<(Channel, Option<Rights>)> {
        let wrong = |why: &dyn std::fmt::Display| io::Error::other(format!("TLS: {why}"));
        let mut session = ServerConnection::new(tls.config.clone()).map_err(|e| wrong(&e))?;
        while session.is_handshaking() || session.wants_write() {
            let done = session.complete_io(wire);
            done.map_err(|e| if e.kind() == ErrorKind::InvalidData { wrong(&e) } else { e })?;
        }
        let shown = session.peer_certificates().and_then(|all| all.first());
        let rights = match shown {
            Some(shown) => Some(Rights::of(shown).map_err(|e| wrong(&e))?),
            None => None,
        };
        session.set_buffer_limit(Some(OUTGOING));
        let bytes = vec![0; INCOMING].into_boxed_slice();
        let channel = Channel {
            incoming: Mutex::new(Incoming { bytes, begin: 0, end: 0 }),
            records: Mutex::new(Records { tls: session, owed: 0 }),
        };
        Ok((channel, rights))
    }

    /// Waits for bytes, as [`Read::read`] does. By one thread.
    pub fn read(&self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        if let Some(read) = lock(&self.records).read(&mut incoming, socket, buffer)? {
            return Ok(read);
        }
        (incoming.begin, incoming.end) = (0, (&mut &*socket).read(&mut incoming.bytes)?);
        if incoming.end == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(read) = lock(&self.records).read(&mut incoming, socket, buffer)? {
            return Ok(read);
        }
        // A part of a record: its rest has no more time than is left, and the reader looks how much.
        Err(ErrorKind::Interrupted.into())
    }

    /// Sends without waiting; see [`Socket::send`] and the module.
    pub fn send(&self, socket: &Socket, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let records = &mut *lock(&self.records);
        if records.owed == 0 {
            records.owed = records.tls.writer().write_vectored(bytes)?;
        }
        records.leave(&mut Sending(socket))?;
        Ok(std::mem::take(&mut records.owed))
    }

    /// Writes, as [`Write::write`] does; for negotiation, in which nobody sends.
    pub fn write(&self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let records = &mut *lock(&self.records);
        let written = records.tls.writer().write(bytes)?;
        records.leave(&mut &*socket)?;
        Ok(written)
    }

    /// The last record, if the socket takes it and nobody is writing: the end of the socket, which follows, does not
    /// wait for one who waits for it.
    pub fn close(&self, socket: &Socket) {
        let Ok(mut records) = self.records.try_lock() else { return };
        records.tls.send_close_notify();
        // The connection is over in any case.
        let _ = records.leave(&mut Sending(socket));
    }
}

impl Records {
    /// The bytes in what has come, as many as there are; `None`: more has to come.
    fn read(
        &mut self,
        incoming: &mut Incoming,
        socket: &Socket,
        buffer: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut filled = 0;
        loop {
            match self.tls.reader().read(&mut buffer[filled..]) {
                // The end, or there is no room for more.
                Ok(0) => return Ok(Some(filled)),
                Ok(read) => filled += read,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if incoming.begin == incoming.end => {
                    return Ok((filled > 0).then_some(filled));
                }
                Err(_) => {
                    let mut come = &incoming.bytes[incoming.begin..incoming.end];
                    incoming.begin += self.tls.read_tls(&mut come)?;
                    let looked = self.tls.process_new_packets();
                    // An alert, or an answer to a change of keys. A part that the socket does not take leaves
                    // with the next reply.
                    let left = self.leave(&mut Sending(socket));
                    looked
                        .map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("TLS: {e}")))?;
                    left.or_else(|e| match e.kind() {
                        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
                        _ => Err(e),
                    })?;
                }
            }
        }
    }

    fn leave(&mut self, out: &mut dyn Write) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }
}

/// The socket, written to without waiting.
struct Sending<'a>(&'a Socket);

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
