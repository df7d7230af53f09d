//! The sockets that hosts come by: unix sockets and TCP as one, encrypted or not.

use super::tls::{Channel, Security, Tls};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;

/// A TCP connection that is silent is asked after this time whether its other end is there, and again in
/// such intervals, three times: a host that lost its power is noticed after two minutes.
const ALIVE: Duration = Duration::from_secs(30);

/// A TCP connection whose other end acknowledges nothing for so many milliseconds is over.
const GONE_MS: u32 = 120_000;

/// A bound socket that hosts connect to.
#[derive(Debug)]
pub enum Listener {
    /// On this machine, guarded by the socket file's mode and owner.
    Unix(UnixListener),
    /// From anywhere that reaches it, as anybody.
    Tcp(TcpListener),
    /// From anywhere that reaches it, by TLS.
    Tls {
        /// The bound socket.
        listener: TcpListener,
        /// The server's certificate, and the authorities of hosts.
        tls: Tls,
        /// Whether a host that does not ask for TLS is refused.
        is_required: bool,
    },
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) | Listener::Tls { listener, .. } => listener.as_fd(),
        }
    }
}

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Unix(listener) => listener.set_nonblocking(true),
            Listener::Tcp(listener) | Listener::Tls { listener, .. } => {
                listener.set_nonblocking(true)
            }
        }
    }

    /// Whether its connections may or must be encrypted, and as whom.
    pub(super) fn security(&self) -> (Security, Option<&Tls>) {
        match self {
            Listener::Unix(_) | Listener::Tcp(_) => (Security::None, None),
            Listener::Tls { tls, is_required: true, .. } => (Security::Required, Some(tls)),
            Listener::Tls { tls, is_required: false, .. } => (Security::Offered, Some(tls)),
        }
    }

    /// A connection, and who is at its other end.
    pub(super) fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Unix(listener) => {
                let stream = listener.accept()?.0;
                let host = match sockopt::socket_peercred(&stream) {
                    Ok(cred) => format!(
                        "process {} of user {}",
                        cred.pid.as_raw_nonzero(),
                        cred.uid.as_raw()
                    ),
                    Err(_) => "a process of this machine".into(),
                };
                Ok((Socket::Unix(stream).into(), host))
            }
            Listener::Tcp(listener) | Listener::Tls { listener, .. } => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, ALIVE)?;
                sockopt::set_tcp_keepintvl(&stream, ALIVE)?;
                sockopt::set_tcp_keepcnt(&stream, 3)?;
                // While a reply is under way nothing is asked.
                sockopt::set_tcp_user_timeout(&stream, GONE_MS)?;
                Ok((Socket::Tcp(stream).into(), address.to_string()))
            }
        }
    }
}

/// A host's connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    /// Once it is encrypted.
    channel: OnceLock<Channel>,
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Stream {
        Stream { socket, channel: OnceLock::new() }
    }
}

impl Stream {
    /// From now on it is encrypted. To be called once, by its reader.
    pub fn encrypt(&self, channel: Channel) {
        let _ = self.channel.set(channel);
    }

    /// Ends it in both directions, at once: a thread that reads finds its end.
    pub fn shutdown(&self) {
        if let Some(channel) = self.channel.get() {
            channel.close(&self.socket);
        }
        self.socket.shutdown();
    }

    /// How long a read, and a write, may wait; `None`: for ever. Sending never waits.
    pub fn set_timeout(&self, most: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(most)
    }

    /// Sends as much as the socket takes without waiting; returns how many bytes. After
    /// [`io::ErrorKind::WouldBlock`] the next call is to begin with the same bytes.
    pub fn send(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.channel.get() {
            None => self.socket.send(bytes),
            Some(channel) => channel.send(&self.socket, bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.channel.get() {
            None => (&self.socket).read(buffer),
            Some(channel) => channel.read(&self.socket, buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.channel.get() {
            None => (&self.socket).write(buffer),
            Some(channel) => channel.write(&self.socket, buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Its socket.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Ends it in both directions, at once: a thread that reads finds its end.
    pub fn shutdown(&self) {
        // It may have ended by itself.
        let _ = match self {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// How long a read, and a write, may wait; `None`: for ever. Sending never waits.
    pub fn set_timeout(&self, most: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(s) => s.set_read_timeout(most).and_then(|()| s.set_write_timeout(most)),
            Socket::Tcp(s) => s.set_read_timeout(most).and_then(|()| s.set_write_timeout(most)),
        }
    }

    /// Sends as much as the socket takes without waiting; returns how many bytes.
    pub fn send(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(self, bytes, &mut SendAncillaryBuffer::default(), flags)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&*stream).read(buffer),
            Socket::Tcp(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&*stream).write(buffer),
            Socket::Tcp(stream) => (&*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
