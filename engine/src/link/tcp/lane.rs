//! One lane at one end: a connection with a thread that writes and a thread that reads.
//!
//! The two share the state of TLS, in memory only: neither holds it while it waits for the socket.

use super::frames::Frames;
use super::queues::{Arrived, Outgoing};
use super::rate::Pace;
use super::wire::Wire;
use crate::sync::lock;
use rustls::Connection;
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

/// Bytes that are read from the socket at a time.
const READ_BYTES: usize = 64 << 10;

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
    pub(super) fn write(&self, mut pace: Pace) -> Result<(), String> {
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        while let Some(bytes) = self.out.take(pace.piece(), self.silence / 3, &mut plain) {
            let ready = match &self.tls {
                None => &plain,
                Some(tls) => {
                    sealed.clear();
                    seal(&mut lock(tls), &plain, &mut sealed).map_err(|e| e.to_string())?;
                    &sealed
                }
            };
            if !self.out.pause(pace.wait(ready.len())) {
                break;
            }
            (&self.stream).write_all(ready).map_err(|e| e.to_string())?;
            self.out.left(bytes);
        }
        Ok(())
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

/// Encrypts `plain` into `sealed`.
fn seal(tls: &mut Connection, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
    tls.writer().write_all(plain)?;
    while tls.wants_write() {
        tls.write_tls(sealed)?;
    }
    Ok(())
}
