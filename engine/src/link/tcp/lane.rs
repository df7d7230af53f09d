//! One lane at one end: a connection with a thread that writes and a thread that reads.
//!
//! The two share the state of TLS, in memory only: neither holds it while it waits for the socket.

use super::frames::Frames;
use super::queues::{Arrived, Outgoing};
use super::rate::Pace;
use super::wire::Wire;
use crate::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::Connection;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

/// Bytes that are read from the socket at a time.
const READ_BYTES: usize = 256 << 10;

pub(super) struct LaneEnd {
    stream: TcpStream,
    tls: Option<Mutex<Connection>>,
    silence: Duration,
    pub(super) out: Outgoing,
    pub(super) arrived: Arrived,
}

impl LaneEnd {
    /// The lane on `wire`, which is down when nothing has arrived for `silence`.
    pub(super) fn new(wire: Wire, silence: Duration) -> io::Result<LaneEnd> {
        wire.stream.set_read_timeout(Some(silence))?;
        wire.stream.set_write_timeout(None)?;
        let (stream, tls) = (wire.stream, wire.tls.map(Mutex::new));
        Ok(LaneEnd { stream, tls, silence, out: Outgoing::default(), arrived: Arrived::default() })
    }

    /// Sends what is pushed, until the lane is down.
    ///
    /// # Errors
    /// What took it down.
    pub(super) fn write(&self, mut pace: Pace) -> io::Result<()> {
        let mut plain = Vec::new();
        while let Some(taken) = self.out.take(pace.piece(), self.silence / 3, &mut plain) {
            let (mut before, mut rest) = (&plain[..], &taken.long[..]);
            let mut bytes = taken.short_bytes;
            while !before.is_empty() || !rest.is_empty() {
                let most = pace.piece().saturating_sub(before.len());
                let (now, later) = rest.split_at(rest.len().min(most));
                if !self.out.pause(pace.wait(before.len() + now.len())) {
                    return Ok(());
                }
                self.send(&[IoSlice::new(before), IoSlice::new(now)])?;
                self.out.left(bytes + now.len() as u64);
                (before, rest, bytes) = (&[], later, 0);
            }
        }
        Ok(())
    }

    /// Encrypts `parts` and gives them to the socket, waiting for it without the state of TLS.
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return parts.iter().try_for_each(|part| (&self.stream).write_all(part));
        };
        let given = lock(tls).writer().write_vectored(parts)?;
        debug_assert_eq!(given, parts.iter().map(|part| part.len()).sum(), "TLS has no bound");
        loop {
            {
                let mut tls = lock(tls);
                while tls.wants_write() {
                    match tls.write_tls(&mut AtOnce(&self.stream)) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        other => other?,
                    };
                }
                if !tls.wants_write() {
                    return Ok(());
                }
            }
            retry_on_intr(|| poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], None))?;
        }
    }

    /// Hands over what arrives, until the lane is down.
    ///
    /// # Errors
    /// What took it down.
    pub(super) fn read(&self) -> Result<(), String> {
        let (mut frames, mut whole) = (Frames::default(), Vec::new());
        let mut bytes = vec![0; READ_BYTES];
        let mut count = 0; // first what came together with the greeting
        loop {
            let opened = self.open(&bytes[..count], &mut frames, &mut whole);
            for frame in whole.drain(..) {
                if !self.arrived.push(frame) {
                    return Ok(());
                }
            }
            opened?;
            count = match (&self.stream).read(&mut bytes) {
                Ok(0) => return Err("the peer has hung up".into()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(format!("nothing has arrived for {:?}", self.silence));
                }
                Err(e) => return Err(e.to_string()),
            };
        }
    }

    /// Takes the frames out of `bytes` from the socket.
    fn open(
        &self,
        mut bytes: &[u8],
        frames: &mut Frames,
        whole: &mut Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let Some(tls) = &self.tls else { return frames.take(bytes, whole) };
        let mut tls = lock(tls);
        loop {
            let mut reader = tls.reader();
            loop {
                let count = match reader.fill_buf() {
                    Ok([]) => return Err("the peer has ended the session".into()),
                    Ok(plain) => frames.take(plain, whole).map(|()| plain.len())?,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e.to_string()),
                };
                reader.consume(count);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            tls.read_tls(&mut bytes).map_err(|e| e.to_string())?;
            tls.process_new_packets().map_err(|e| e.to_string())?;
        }
    }

    /// Ends the lane in both directions, without waiting; what has arrived is kept or `forgotten`.
    pub(super) fn close(&self, forgotten: bool) {
        self.out.close();
        self.arrived.close(forgotten);
        let _ = self.stream.shutdown(Shutdown::Both); // it may be down already
    }
}

/// The socket, which takes what it has room for and is not waited for.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut nothing = SendAncillaryBuffer::default();
        Ok(retry_on_intr(|| sendmsg(self.0, parts, &mut nothing, flags))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
