//! The sockets that hosts come by: unix sockets and TCP as one.

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
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
    /// From anywhere that reaches it.
    Tcp(TcpListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Unix(listener) => listener.set_nonblocking(true),
            Listener::Tcp(listener) => listener.set_nonblocking(true),
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
                Ok((Stream::Unix(stream), host))
            }
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, ALIVE)?;
                sockopt::set_tcp_keepintvl(&stream, ALIVE)?;
                sockopt::set_tcp_keepcnt(&stream, 3)?;
                // While a reply is under way nothing is asked.
                sockopt::set_tcp_user_timeout(&stream, GONE_MS)?;
                Ok((Stream::Tcp(stream), address.to_string()))
            }
        }
    }
}

/// A host's connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Ends it in both directions, at once: a thread that reads finds its end.
    pub fn shutdown(&self) {
        // It may have ended by itself.
        let _ = match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// How long a read, and a write, may wait; `None`: for ever. Sending never waits.
    pub fn set_timeout(&self, most: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(s) => s.set_read_timeout(most).and_then(|()| s.set_write_timeout(most)),
            Stream::Tcp(s) => s.set_read_timeout(most).and_then(|()| s.set_write_timeout(most)),
        }
    }

    /// Sends as much as the socket takes without waiting; returns how many bytes.
    pub fn send(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(self, bytes, &mut SendAncillaryBuffer::default(), flags)?)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(buffer),
            Stream::Tcp(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(buffer),
            Stream::Tcp(stream) => (&*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
