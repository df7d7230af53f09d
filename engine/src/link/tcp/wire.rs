//! A connection before it is a lane: it has a deadline for everything together, however slowly its peer
//! goes on.

use super::PublicKey;
use super::tls::Untrusted;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Connection};
use rustls::{ServerConfig, ServerConnection};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The reason why a connection has come to nothing.
#[derive(Debug)]
pub(super) enum Broken {
    /// Its peer has shown a key that is not trusted.
    WrongKey(PublicKey),
    /// The deadline.
    TimedOut,
    /// It ended, or its peer said something that has no meaning.
    Malformed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::WrongKey(key) => Untrusted(*key).fmt(f),
            Broken::TimedOut => f.write_str("the peer took too long"),
            Broken::Malformed(what) => f.write_str(what),
        }
    }
}

impl From<rustls::Error> for Broken {
    fn from(e: rustls::Error) -> Broken {
        if let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = &e
            && let Some(Untrusted(key)) = other.0.downcast_ref()
        {
            return Broken::WrongKey(*key);
        }
        if let rustls::Error::AlertReceived(alert) = &e {
            let why = "perhaps it has not pinned this device's key";
            return Broken::Malformed(format!(
                "the peer has refused the handshake ({alert:?}): {why}"
            ));
        }
        Broken::Malformed(e.to_string())
    }
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Broken {
        let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match (e.kind(), tls) {
            (_, Some(tls)) => tls.clone().into(),
            (io::ErrorKind::TimedOut, _) => Broken::TimedOut,
            (io::ErrorKind::UnexpectedEof, _) => Broken::Malformed("the peer has hung up".into()),
            _ => Broken::Malformed(e.to_string()),
        }
    }
}

/// The stream with what is left of the time as the limit of each call.
struct Timed<'a>(&'a TcpStream, Instant);

/// The time that is left until the deadline; an error once none is.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Timed<'_> {
    fn call(
        &self,
        limit: impl Fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            limit(self.0, Some(left(self.1)?))?;
            match call(self.0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A socket whose limit has passed says that it would block.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                other => return other,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.call(TcpStream::set_read_timeout, |mut stream| stream.read(bytes))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(TcpStream::set_write_timeout, |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, and its TLS unless it is in the clear.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) tls: Option<Connection>,
    pub(super) until: Instant,
}

impl Wire {
    /// Dials over `stream`: by `until` the peer has shown a key that is trusted.
    pub(super) fn dial(
        stream: TcpStream,
        config: Option<&Arc<ClientConfig>>,
        until: Instant,
    ) -> Result<Wire, Broken> {
        let tls = config.map(|config| {
            let name = ServerName::try_from("afterimage").expect("a name"); // never sent
            ClientConnection::new(config.clone(), name).map(Connection::from)
        });
        Wire::begin(stream, tls.transpose()?, until)
    }

    /// The same at the accepting end.
    pub(super) fn accept(
        stream: TcpStream,
        config: Option<&Arc<ServerConfig>>,
        until: Instant,
    ) -> Result<Wire, Broken> {
        let tls = config.map(|config| ServerConnection::new(config.clone()).map(Connection::from));
        Wire::begin(stream, tls.transpose()?, until)
    }

    fn begin(
        stream: TcpStream,
        mut tls: Option<Connection>,
        until: Instant,
    ) -> Result<Wire, Broken> {
        stream.set_nodelay(true)?;
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(None); // each caller has its own bound
            while tls.is_handshaking() {
                tls.complete_io(&mut Timed(&stream, until))?;
            }
        }
        let mut wire = Wire { stream, tls, until };
        wire.flush()?;
        Ok(wire)
    }

    /// The key that the peer has shown; `None` in the clear.
    pub(super) fn peer(&self) -> Option<PublicKey> {
        let shown = self.tls.as_ref()?.peer_certificates()?;
        PublicKey::from_spki(shown.first()?)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        match &mut self.tls {
            None => Timed(&self.stream, self.until).write_all(bytes)?,
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let mut timed = Timed(&self.stream, self.until);
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut timed)?;
        }
        Ok(())
    }

    /// Fills `bytes` with what arrives next.
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        let mut timed = Timed(&self.stream, self.until);
        let Some(tls) = &mut self.tls else { return Ok(timed.read_exact(bytes)?) };
        let mut at = 0;
        while at < bytes.len() {
            match tls.reader().read(&mut bytes[at..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => at += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if tls.read_tls(&mut timed)? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    tls.process_new_packets()?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn receive_array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.receive(&mut bytes)?;
        Ok(bytes)
    }
}
