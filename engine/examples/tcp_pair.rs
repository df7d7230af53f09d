//! A pair in two processes: a `Link` over TCP, a connector that dials and one that accepts. Either
//! process may be killed and started again at any time.
//!
//! ```text
//! tcp_pair <directory> 1 active  accept 127.0.0.1:7000
//! tcp_pair <directory> 2 passive dial   127.0.0.1:7000
//! ```
//!
//! Each takes commands, a line each: `write <block> <number>`, `read <block>`, `takeover`, `accept`,
//! `close`; and answers each with a line. `LostWrites` (the machine stopped while the device served) is
//! the answer until a person says `accept`. `TCP_PAIR_SILENCE_MS` says after how long a peer that is not heard is
//! given up (15,000 unless it does), the same for both. No encryption, no password: whoever reaches the
//! port is believed.

use afterimage::{
    Connector, Device, Directory, Durability, Error, FRAME_BYTES_MAX, Geometry, Kind, Lane, Link,
    Result, Settings, Storage, SystemClock, Threads, VolumeSpec,
};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

// ---- the link: two TCP connections, one a lane, so that neither holds up the other ----

/// Most bytes that wait in a lane, each way: more that the peer does not take ends the link, more that
/// the device does not take waits in the socket.
const WAITING_MAX: usize = 8 << 20;

/// A lane in which nothing has arrived for so long is down: a machine without power ends no connection.
/// So an empty frame goes out each third of it when there is no other.
static SILENCE: LazyLock<Duration> = LazyLock::new(|| {
    let set = std::env::var("TCP_PAIR_SILENCE_MS").ok().and_then(|ms| ms.parse().ok());
    Duration::from_millis(set.unwrap_or(15_000).max(3))
});

#[derive(Default)]
struct State {
    down: bool,
    out: VecDeque<Vec<u8>>,
    out_bytes: usize,
    arrived: VecDeque<Vec<u8>>,
    arrived_bytes: usize,
}

struct Half {
    stream: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

struct Tcp([Arc<Half>; 2]);

impl Half {
    fn new(stream: TcpStream) -> io::Result<Arc<Half>> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(*SILENCE))?;
        let half = Half { stream, state: Mutex::default(), changed: Condvar::new() };
        let half = Arc::new(half);
        for work in [Half::write_all, Half::read_all] {
            let half = half.clone();
            std::thread::spawn(move || {
                let _ = work(&half); // whatever it was, the link is down
                half.close();
            });
        }
        Ok(half)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as `blocked`, and `most` at most; an error once the link is down.
    fn until(
        &self,
        most: Duration,
        blocked: impl Fn(&State) -> bool,
    ) -> io::Result<MutexGuard<'_, State>> {
        let wait = |s: &mut State| !s.down && blocked(s);
        let waited = self.changed.wait_timeout_while(self.state(), most, wait);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.down { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(state) }
    }

    fn write_all(&self) -> io::Result<()> {
        loop {
            let mut state = self.until(*SILENCE / 3, |s| s.out.is_empty())?;
            let frame = state.out.pop_front().unwrap_or_default();
            drop(state);
            (&self.stream).write_all(&(frame.len() as u32).to_le_bytes())?;
            (&self.stream).write_all(&frame)?;
            self.state().out_bytes -= frame.len();
        }
    }

    fn read_all(&self) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            (&self.stream).read_exact(&mut length)?;
            let length = u32::from_le_bytes(length) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if length == 0 {
                continue; // the peer is there
            }
            let mut frame = vec![0; length];
            (&self.stream).read_exact(&mut frame)?;
            let mut state = self.until(Duration::MAX, |s| s.arrived_bytes > WAITING_MAX)?;
            state.arrived_bytes += length;
            state.arrived.push_back(frame);
            self.changed.notify_all();
        }
    }

    fn close(&self) {
        self.state().down = true;
        let _ = self.stream.shutdown(Shutdown::Both); // it may be down already
        self.changed.notify_all();
    }
}

fn down() -> Error {
    Error::new(Kind::NoPeer, "the TCP connection has ended")
}

impl Link for Tcp {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        let half = &self.0[lane as usize];
        let mut state = half.state();
        if state.down || state.out_bytes + frame.len() > WAITING_MAX {
            drop(state);
            self.close();
            return Err(down());
        }
        state.out_bytes += frame.len();
        state.out.push_back(frame);
        half.changed.notify_all();
        Ok(())
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        let half = &self.0[lane as usize];
        let mut state = half.state();
        match state.arrived.pop_front() {
            Some(frame) => {
                state.arrived_bytes -= frame.len();
                half.changed.notify_all();
                Ok(Some(frame))
            }
            None if state.down => Err(down()),
            None => Ok(None),
        }
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.0[lane as usize].state().out_bytes as u64
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        let half = &self.0[lane as usize];
        let idle = |s: &mut State| !s.down && s.arrived.is_empty();
        let waited =
            half.changed.wait_timeout_while(half.state(), Duration::from_nanos(timeout_ns), idle);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn close(&self) {
        self.0.iter().for_each(|half| half.close());
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.close(); // and its threads end
    }
}

// ---- where links come from: each connection begins with 9 bytes, a number and the lane ----

struct Dial(SocketAddr);

impl Connector for Dial {
    fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>> {
        let number = RandomState::new().hash_one(0).to_le_bytes();
        let half = |lane: u8| {
            let mut stream = TcpStream::connect_timeout(&self.0, patience)?;
            stream.write_all(&[&number[..], &[lane]].concat())?;
            Half::new(stream)
        };
        let both = half(0).and_then(|data| Ok([data, half(1)?]));
        let both = both.map_err(|e| Error::storage(format!("dialling {}", self.0), e))?;
        Ok(Some(Arc::new(Tcp(both))))
    }
}

struct Accept(Receiver<[TcpStream; 2]>);

impl Accept {
    /// Listens in a thread of its own, and pairs the connections of each link.
    fn at(address: SocketAddr) -> io::Result<Accept> {
        let listener = TcpListener::bind(address)?;
        let (give, take) = channel();
        std::thread::spawn(move || {
            let mut first: Option<(TcpStream, [u8; 9])> = None;
            for mut stream in listener.incoming().flatten() {
                let mut said = [0; 9];
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                if stream.read_exact(&mut said).is_err() {
                    continue;
                }
                match first.take() {
                    Some((data, before)) if before[..8] == said[..8] && said[8] == 1 => {
                        if give.send([data, stream]).is_err() {
                            return;
                        }
                    }
                    _ => first = (said[8] == 0).then_some((stream, said)),
                }
            }
        });
        Ok(Accept(take))
    }
}

impl Connector for Accept {
    fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>> {
        let Ok([data, control]) = self.0.recv_timeout(patience) else { return Ok(None) };
        let both = Half::new(data).and_then(|data| Ok([data, Half::new(control)?]));
        let both = both.map_err(|e| Error::storage("accepting", e))?;
        Ok(Some(Arc::new(Tcp(both))))
    }

    fn accepts(&self) -> bool {
        true
    }
}

// ---- the program ----

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 64;

/// Does what `line` says.
fn command(device: &Arc<Device>, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| {
        let word = words.get(at).and_then(|word| word.parse::<u64>().ok());
        word.ok_or_else(|| Error::new(Kind::Invalid, format!("{line:?}: word {at} is no number")))
    };
    match words.first().copied() {
        Some("write") => {
            let block = number(2)?.to_le_bytes().repeat(BLOCK as usize / 8);
            device.session()?.write(0, number(1)? * BLOCK, &block)?;
            Ok("written".into())
        }
        Some("read") => {
            let mut block = [0; BLOCK as usize];
            device.session()?.read(0, number(1)? * BLOCK, &mut block)?;
            let (numbers, _) = block.as_chunks::<8>();
            let same = numbers.iter().all(|number| *number == numbers[0]);
            let number = u64::from_le_bytes(numbers[0]);
            Ok(if same { format!("read {number}") } else { "torn".into() })
        }
        Some("takeover") => Ok(format!("serves {}", device.takeover()?.epoch)),
        Some("accept") => device.accept_loss().map(|()| "accepted".into()),
        Some("close") => device.close().map(|()| "closed".into()),
        _ => Err(Error::new(Kind::Invalid, format!("{line:?} is no command"))),
    }
}

/// Runs one device of the pair until its input ends.
///
/// # Errors
/// Wrong arguments; whatever keeps the device from opening.
pub fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [path, id, role, way, address] = arguments else {
        return Err("wanted: <directory> <id> active|passive accept|dial <address>".into());
    };
    let storage: Arc<dyn Storage> = match std::path::Path::new(path).join("superblock").exists() {
        true => Arc::new(Directory::open(path)?),
        false => {
            let storage = Directory::create(path)?;
            let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK }];
            let geometry =
                Geometry { journal_bytes: 16 << 20, ..Geometry::new(1, id.parse()?, volumes) };
            Device::create(&storage, &geometry, role == "active")?;
            Arc::new(storage)
        }
    };
    // A killed process loses its memory: a write is completed only when the log file has it.
    let settings = Settings { durability: Durability::Written, ..Settings::default() };
    let device = Device::open(storage, Arc::new(SystemClock::default()), settings)?;
    let threads = Threads::start(&device)?;
    match way.as_str() {
        "accept" => threads.keep_connected(&device, Accept::at(address.parse()?)?)?,
        _ => threads.keep_connected(&device, Dial(address.parse()?))?,
    }
    println!("> open");
    for line in io::stdin().lock().lines() {
        match command(&device, &line?) {
            Ok(answer) => println!("> {answer}"),
            Err(error) => println!("> {:?}: {error}", error.kind()),
        }
    }
    Ok(())
}

#[allow(dead_code, reason = "the test runs the same without it")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}
