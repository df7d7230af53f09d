//! The service's end: three sockets, a right each.
//!
//! # Rules
//! - **A connection has the socket's right**: the file's mode and owner say who can connect. The log of every order
//!   has the user.
//! - **Bounded**: so many connections a socket at once, an order within 10 s, of so many bytes.
//! - **A caller that is gone** ends what it asked for at once, if nothing is changed by that.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wire::{Line, ORDER_BYTES_MAX, Order, Right, Said, read_line};
use crate::exit::{Exit, Failure};
use crate::service::sockets::{self, Access};

/// How long an order is waited for, and how long a caller may leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a thread that waits looks whether it is to stop, or its caller is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Connections of one socket at once.
const CALLERS_MAX: usize = 16;

/// The sockets and their threads, until this is dropped: callers that still wait are told so.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    paths: Vec<PathBuf>,
    threads: Vec<JoinHandle<()>>,
}

/// The part of a service that carries orders out.
pub trait Desk: Send + Sync + 'static {
    /// Carries out `order`; tells `caller` how it goes.
    ///
    /// # Errors
    /// The failure that the command ends with.
    fn carry_out(&self, order: Order, caller: &mut Caller) -> Result<Said, Failure>;

    /// An order was refused, or was none.
    fn count_refusal(&self);
}

impl Server {
    /// Opens the sockets in `dir`, each for those whom its `access` names. The device in it is open in this process, so that files of that name were left
    /// by one that ended.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if a socket cannot have its owner; the system's.
    pub fn start(dir: &Path, access: &[Access; 3], desk: Arc<dyn Desk>) -> io::Result<Server> {
        let mut server = Server { stop: Arc::default(), paths: Vec::new(), threads: Vec::new() };
        for (right, access) in Right::ALL.into_iter().zip(access) {
            let path = dir.join(right.file());
            let listener = sockets::bind(&path, access)?;
            listener.set_nonblocking(true)?;
            server.paths.push(path);
            let (stop, desk) = (server.stop.clone(), desk.clone());
            let accept = move || accept_all(&listener, right, &stop, &desk);
            let thread = std::thread::Builder::new().name(format!("control {right}"));
            server.threads.push(thread.spawn(accept)?);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept_all(listener: &UnixListener, right: Right, stop: &Arc<AtomicBool>, desk: &Arc<dyn Desk>) {
    let callers = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Acquire) {
        let mut awaited = [PollFd::new(listener, PollFlags::IN)];
        let _ = poll(&mut awaited, Some(&timespec(LOOK)));
        let Ok((stream, _)) = listener.accept() else { continue };
        let seat = Seat::take(&callers);
        let mut caller = Caller { stream, stop: stop.clone() };
        let Some(seat) = seat else {
            let what = format!("{CALLERS_MAX} callers are there already: try again");
            desk.count_refusal();
            caller.end(Err(Failure::new(Exit::Refused, what)));
            continue;
        };
        let desk = desk.clone();
        let answer = move || {
            let _seat = seat;
            let user = caller.user().map_or("unknown".into(), |user| user.to_string());
            let outcome = caller.hear(right).and_then(|order| {
                match order.right() {
                    Right::See => {
                        tracing::debug!(target: "afterimage::order", %user, ?order, "order");
                    }
                    _ => tracing::info!(target: "afterimage::order", %user, ?order, "order"),
                }
                desk.carry_out(order, &mut caller)
            });
            if let Err(failure) = &outcome {
                desk.count_refusal();
                tracing::info!(target: "afterimage::order", %user, why = %failure, "no order was carried out");
            }
            caller.end(outcome);
        };
        // Without a thread the connection ends, which the caller hears.
        let _ = std::thread::Builder::new().name("control".into()).spawn(answer);
    }
    // Callers look at `stop`, too.
    let until = Instant::now() + PATIENCE;
    while callers.load(Ordering::Acquire) > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One of the connections that a socket may have at once.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(callers: &Arc<AtomicUsize>) -> Option<Seat> {
        let seat = Seat(callers.clone());
        (callers.fetch_add(1, Ordering::AcqRel) < CALLERS_MAX).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The connection of one command.
#[derive(Debug)]
pub struct Caller {
    stream: UnixStream,
    stop: Arc<AtomicBool>,
}

impl Caller {
    /// The user that asks, if the system knows.
    pub fn user(&self) -> Option<u32> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.stream);
        credentials.ok().map(|credentials| credentials.uid.as_raw())
    }

    /// The order, which this socket's right must cover.
    fn hear(&mut self, right: Right) -> Result<Order, Failure> {
        let wrong = |what: String| Failure::new(Exit::Usage, what);
        let deadline = |e: io::Error| wrong(format!("no order came: {e}"));
        self.stream.set_nonblocking(false).map_err(deadline)?;
        self.stream.set_write_timeout(Some(PATIENCE)).map_err(deadline)?;
        let within = Within { stream: &self.stream, until: Instant::now() + PATIENCE };
        let line = read_line(&mut BufReader::new(within), ORDER_BYTES_MAX).map_err(deadline)?;
        let line = line.ok_or_else(|| wrong("no order came".into()))?;
        let order: Order = serde_json::from_str(&line)
            .map_err(|e| wrong(format!("this service does not know the order: {e}")))?;
        if order.right() > right {
            let what = format!(
                "the order takes the right {}: it is given at {}, not at {}",
                order.right(),
                order.right().file(),
                right.file()
            );
            return Err(Failure::new(Exit::Refused, what));
        }
        Ok(order)
    }

    /// Tells how it goes.
    ///
    /// # Errors
    /// The caller is gone, or does not read.
    pub fn tell(&mut self, said: Said) -> Result<(), Failure> {
        self.write(&Line::News(said)).map_err(|e| gone(&e))
    }

    /// Waits until `is_done`, which is looked at now, every 100 ms, and as often as it asks for with `Some(pause)`;
    /// for `most` at most. Whether it came to that.
    ///
    /// # Errors
    /// The caller is gone, the service stops, or what `is_done` says.
    pub fn wait(
        &mut self,
        most: Option<Duration>,
        mut is_done: impl FnMut(&mut Caller) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let begun = Instant::now();
        loop {
            if is_done(self)? {
                return Ok(true);
            }
            let left = most.map_or(LOOK, |most| most.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                return Ok(false);
            }
            self.rest(left.min(LOOK))?;
        }
    }

    /// Sleeps for `pause`.
    ///
    /// # Errors
    /// The caller is gone, or the service stops.
    pub fn rest(&self, pause: Duration) -> Result<(), Failure> {
        let mut awaited = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let ended = poll(&mut awaited, Some(&timespec(pause)));
        if self.stop.load(Ordering::Acquire) {
            return Err(Failure::new(Exit::Absent, "the service stops"));
        }
        match ended {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => Err(gone(&"it has hung up")),
            Err(error) => Err(gone(&error)),
        }
    }

    fn end(&mut self, outcome: Result<Said, Failure>) {
        let line = match outcome {
            Ok(said) => Line::Done(said),
            Err(failure) => Line::Failed { exit: failure.exit() as u8, why: failure.to_string() },
        };
        // A caller that is gone misses nothing.
        let _ = self.write(&line);
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.stream.write_all(&bytes)
    }
}

/// A caller's words until a moment, however slowly it goes on.
struct Within<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Read for Within<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

fn gone(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Output, format!("the caller is gone: {why}"))
}

fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).expect("a time of seconds")
}
