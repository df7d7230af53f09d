//! The page's HTTP end: `GET /metrics`, by one thread for all connections.
//!
//! # Rules
//! - **Bounded**: so many connections at once, of which a newer one ends the oldest; a request of so many bytes; all
//!   of it within a time, however slowly bytes come.
//! - **One request a connection**: a request of any form is answered or hung up on, and none reaches further than the
//!   choice between the page and an error.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections at once.
const CONNECTIONS_MAX: usize = 16;

/// A longer request is refused.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// How long a connection lasts, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The thread, until this is dropped.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Answers with `page` at `listener`.
    ///
    /// # Errors
    /// The system's.
    pub fn start(
        listener: TcpListener,
        page: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Http> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stops = stop.clone();
        let thread = std::thread::Builder::new().name("metrics".into());
        let thread = thread.spawn(move || answer_all(&listener, &stops, &page))?;
        Ok(Http { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn answer_all(listener: &TcpListener, stop: &AtomicBool, page: &impl Fn() -> String) {
    let look = Timespec::try_from(LOOK).expect("a time below a second");
    let mut open: Vec<Connection> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let mut awaited = vec![PollFd::new(listener, PollFlags::IN)];
        awaited.extend(open.iter().map(|one| PollFd::new(&one.stream, one.awaits())));
        let _ = poll(&mut awaited, Some(&look));
        let now = Instant::now();
        open.retain_mut(|one| one.until > now && one.go_on(page));
        for _ in 0..CONNECTIONS_MAX {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if open.len() == CONNECTIONS_MAX {
                        open.remove(0);
                    }
                    open.push(Connection::new(stream, now + PATIENCE));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // No descriptor is left, perhaps.
                    std::thread::sleep(LOOK);
                    break;
                }
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    until: Instant,
    stage: Stage,
}

enum Stage {
    /// The request, as far as it has come.
    Asking(Vec<u8>),
    /// The answer, and how much of it has left.
    Answering(Vec<u8>, usize),
    /// The answer has left: more that comes is dropped, since an end with bytes unread would take the answer back.
    Leaving,
}

impl Connection {
    fn new(stream: TcpStream, until: Instant) -> Connection {
        Connection { stream, until, stage: Stage::Asking(Vec::new()) }
    }

    fn awaits(&self) -> PollFlags {
        match self.stage {
            Stage::Answering(..) => PollFlags::OUT,
            Stage::Asking(_) | Stage::Leaving => PollFlags::IN,
        }
    }

    /// Goes on as far as it can; whether the connection lasts.
    fn go_on(&mut self, page: &impl Fn() -> String) -> bool {
        let mut bytes = [0; 4096];
        // A client that sends without an end does not keep the thread.
        for _ in 0..8 {
            let stepped = match &mut self.stage {
                Stage::Asking(asked) => match self.stream.read(&mut bytes) {
                    Ok(0) => return false,
                    Ok(read) => {
                        asked.extend(&bytes[..read]);
                        if let Some(answer) = answer(asked, page) {
                            self.stage = Stage::Answering(answer, 0);
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                Stage::Answering(answer, sent) => match self.stream.write(&answer[*sent..]) {
                    Ok(0) => return false,
                    Ok(written) => {
                        *sent += written;
                        if *sent == answer.len() {
                            let _ = self.stream.shutdown(Shutdown::Write);
                            self.stage = Stage::Leaving;
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                Stage::Leaving => match self.stream.read(&mut bytes) {
                    Ok(0) => return false,
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            match stepped {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

/// The answer to a request, once it is whole.
fn answer(asked: &[u8], page: &impl Fn() -> String) -> Option<Vec<u8>> {
    let is_whole = asked.windows(4).any(|four| four == b"\r\n\r\n")
        || asked.windows(2).any(|two| two == b"\n\n");
    if !is_whole {
        return (asked.len() > REQUEST_BYTES_MAX)
            .then(|| reply("431 Request Header Fields Too Large", "text/plain", "too long\n"));
    }
    let line = asked.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.trim_ascii_end().split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Some(reply("400 Bad Request", "text/plain", "no request of HTTP\n"));
    };
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    Some(match (method, path, version.starts_with(b"HTTP/1.")) {
        (_, _, false) => reply("400 Bad Request", "text/plain", "no request of HTTP 1\n"),
        (b"GET", b"/metrics", _) => reply("200 OK", OPENMETRICS, &page()),
        (b"GET", _, _) => reply("404 Absent", "text/plain", "there is /metrics\n"),
        _ => reply("405 Method Not Allowed\r\nAllow: GET", "text/plain", "there is GET\n"),
    })
}

fn reply(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Http::start(listener, || "x 1\n".repeat(100_000)).unwrap()
    }

    fn call(http: &Http) -> TcpStream {
        let stream = TcpStream::connect(http.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn asked(http: &Http, request: &[u8]) -> String {
        let mut stream = call(http);
        // One that has heard enough hangs up.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn requests_of_any_form_are_answered() {
        let http = started();
        let long = [b"GET /metrics HTTP/1.1\r\nCookie: ".to_vec(), vec![b'x'; 1 << 20]].concat();
        for (request, status) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..], "200 OK"),
            (b"GET /metrics?a=b HTTP/1.0\n\n", "200 OK"),
            (b"GET / HTTP/1.1\r\n\r\n", "404 "),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 "),
            (b"GET /metrics HTTP/2\r\n\r\n", "400 "),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", "400 "),
            (b"\xff\x00\r\n\r\n", "400 "),
            (b"\n\n", "400 "),
            (&long, "431 "),
        ] {
            let answer = asked(&http, request);
            let begins = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&begins), "{request:?}: {answer:.80}");
            let length: usize = answer
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), length, "{answer:.80}");
        }
    }

    #[test]
    fn clients_that_say_nothing_or_take_nothing_keep_nobody_out() {
        let http = started();
        let silent: Vec<TcpStream> = (0..3 * CONNECTIONS_MAX).map(|_| call(&http)).collect();
        let mut deaf = call(&http);
        deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        for _ in 0..50 {
            assert!(asked(&http, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
        }
        // The oldest ones were hung up on.
        let mut first = &silent[0];
        assert!(matches!(first.read(&mut [0; 1]), Ok(0) | Err(_)));
        drop(http);
    }

    #[test]
    fn a_slow_client_has_its_time_and_no_more() {
        let http = started();
        let mut slow = call(&http);
        let begun = Instant::now();
        loop {
            let said = slow.write_all(b"G");
            std::thread::sleep(LOOK);
            if said.is_err() {
                break;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "it is still heard");
        }
        assert!(begun.elapsed() + LOOK >= PATIENCE);
    }
}
