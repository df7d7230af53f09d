//! A host by NBD that comes back: it writes and reads sectors of one volume, several requests at once, and keeps what
//! it sent, got, and when.

use std::collections::HashMap;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::linearizable::{NEVER, Op, What};
use super::random::Random;

pub const SECTOR: usize = 512;

/// Sectors of a volume that hosts use.
pub const SECTORS: u64 = 96;

pub const VOLUMES: [&str; 2] = ["data", "wal"];

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const FUA: u16 = 1;

/// A write that got no reply on its connection.
pub struct Unanswered {
    pub sector: u64,
    pub value: u64,
    pub called: u64,
    /// When the same host's next connection was first answered a write: from then on it can no longer happen.
    pub until: u64,
    /// The device, and when its connection was over.
    pub at: usize,
    pub ended: u64,
}

/// All that a host saw: sectors, counted over all volumes, and operations.
#[derive(Default)]
pub struct History {
    pub ops: Vec<(u64, Op)>,
    pub unanswered: Vec<Unanswered>,
    pub refused: u64,
    pub connections: u64,
}

pub struct Host {
    /// No other has it, in any round.
    pub id: u64,
    pub volume: usize,
    pub sockets: [PathBuf; 2],
    pub seed: u64,
}

/// A connection with an export open.
pub struct Connection {
    stream: UnixStream,
    cookie: u64,
}

/// A request that has got no reply.
struct Asked {
    first: u64,
    length: u64,
    /// 0 for a read.
    value: u64,
    is_flush: bool,
    called: u64,
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

impl Connection {
    pub fn open(socket: &Path, export: &str) -> io::Result<Connection> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(4)))?;
        stream.set_write_timeout(Some(Duration::from_secs(4)))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        let mut go = 3u32.to_be_bytes().to_vec();
        go.extend(b"IHAVEOPT");
        go.extend(7u32.to_be_bytes());
        go.extend((export.len() as u32 + 6).to_be_bytes());
        go.extend((export.len() as u32).to_be_bytes());
        go.extend(export.as_bytes());
        go.extend([0; 2]);
        stream.write_all(&go)?;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let mut told = vec![0; number(16) as usize];
            stream.read_exact(&mut told)?;
            match number(12) {
                1 => return Ok(Connection { stream, cookie: 0 }),
                kind if kind >> 31 == 1 => return Err(Error::other("the export is not opened")),
                _ => {}
            }
        }
    }

    fn ask(
        &mut self,
        flags: u16,
        command: u16,
        offset: u64,
        data: &[u8],
        length: u32,
    ) -> io::Result<u64> {
        self.cookie += 1;
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        Ok(self.cookie)
    }

    /// The next reply: its cookie and its error.
    fn reply(&mut self) -> io::Result<(u64, u32)> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        if head[..4] != 0x6744_6698u32.to_be_bytes() {
            return Err(malformed("that is no reply"));
        }
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        Ok((u64::from_be_bytes(head[8..].try_into().unwrap()), error))
    }

    /// The values of all sectors.
    pub fn read_all(&mut self) -> io::Result<Vec<u64>> {
        let length = SECTORS as usize * SECTOR;
        self.ask(0, READ, 0, &[], length as u32)?;
        match self.reply()? {
            (_, 0) => {}
            (_, error) => return Err(Error::other(format!("a read fails with {error}"))),
        }
        self.values(SECTORS)
    }

    /// The data of a read of so many sectors.
    fn values(&mut self, sectors: u64) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; sectors as usize * SECTOR];
        self.stream.read_exact(&mut bytes)?;
        let values = bytes.chunks(SECTOR).map(|sector| {
            assert!(sector[8..] == sector[..SECTOR - 8], "a torn sector: {sector:?}");
            u64::from_le_bytes(sector[..8].try_into().unwrap())
        });
        Ok(values.collect())
    }
}

impl Host {
    /// Works until it is to stop.
    pub fn run(&self, began: Instant, stop: &AtomicBool) -> History {
        let mut random = Random::new(self.seed);
        let mut history = History::default();
        let (mut at, mut next) = (random.within(0..2) as usize, 0);
        while !stop.load(Relaxed) {
            let opened = Connection::open(&self.sockets[at], VOLUMES[self.volume]);
            if let Ok(mut connection) = opened {
                history.connections += 1;
                let mut asked = HashMap::new();
                let ended = self.work(
                    &mut connection,
                    &mut asked,
                    &mut history,
                    &mut random,
                    &mut next,
                    (began, stop),
                );
                if let Err(error) = ended {
                    assert!(error.kind() != ErrorKind::InvalidData, "{error}");
                }
                let ended = (at, began.elapsed().as_nanos() as u64);
                for request in asked.into_values().filter(|request| request.value != 0) {
                    self.never_answered(&mut history, &request, ended);
                }
            }
            if random.once_in(2) {
                at = 1 - at;
            }
            std::thread::sleep(Duration::from_millis(random.within(1..10)));
        }
        history
    }

    fn never_answered(&self, history: &mut History, request: &Asked, (at, ended): (usize, u64)) {
        let Asked { first, length, value, called, .. } = *request;
        history.unanswered.extend((first..first + length).map(|sector| Unanswered {
            sector: self.sector(sector),
            value,
            called,
            until: NEVER,
            at,
            ended,
        }));
    }

    fn sector(&self, of_volume: u64) -> u64 {
        self.volume as u64 * SECTORS + of_volume
    }

    /// Works by one connection until that ends or is left.
    fn work(
        &self,
        connection: &mut Connection,
        asked: &mut HashMap<u64, Asked>,
        history: &mut History,
        random: &mut Random,
        next: &mut u64,
        (began, stop): (Instant, &AtomicBool),
    ) -> io::Result<()> {
        let now = || began.elapsed().as_nanos() as u64;
        let before = history.unanswered.len();
        let requests = random.within(1..4000);
        let depth = random.within(1..9);
        for _ in 0..requests {
            while !stop.load(Relaxed) && (asked.len() as u64) < depth {
                let length = random.within(1..9);
                let first = random.within(0..SECTORS - length + 1);
                let (offset, bytes) = (first * SECTOR as u64, length as usize * SECTOR);
                let mut request = Asked { first, length, value: 0, is_flush: false, called: now() };
                let flags = if random.once_in(8) { FUA } else { 0 };
                let sent = match random.within(0..16) {
                    0 => {
                        request.is_flush = true;
                        connection.ask(0, FLUSH, 0, &[], 0)
                    }
                    1..8 => connection.ask(0, READ, offset, &[], bytes as u32),
                    _ => {
                        *next += 1;
                        request.value = self.id << 32 | *next;
                        let words = request.value.to_le_bytes().repeat(bytes / 8);
                        connection.ask(flags, WRITE, offset, &words, bytes as u32)
                    }
                };
                // Part of it may have arrived: then it counts as all of it.
                asked.insert(connection.cookie, request);
                sent?;
            }
            if asked.is_empty() {
                return Ok(());
            }
            let (cookie, error) = connection.reply()?;
            let request = asked.remove(&cookie).ok_or_else(|| malformed("a reply to nothing"))?;
            let Asked { first, length, value, is_flush, called } = request;
            if error != 0 {
                // A read at the peer that timed out, a journal without room.
                assert!([5, 28].contains(&error), "the error {error} is final for a host");
                history.refused += 1;
                if value != 0 {
                    // It is refused, and no kill can take it back.
                    self.never_answered(history, &request, (0, 0));
                }
                continue;
            }
            let sectors = (first..first + length).map(|sector| self.sector(sector));
            if is_flush {
            } else if value == 0 {
                let values = connection.values(length)?;
                let returned = now();
                history.ops.extend(sectors.zip(values).map(|(sector, value)| {
                    (sector, Op { called, returned, what: What::Read(value) })
                }));
            } else {
                let returned = now();
                let op = Op { called, returned, what: What::Write(value) };
                history.ops.extend(sectors.map(|sector| (sector, op)));
                let earlier = history.unanswered[..before].iter_mut().rev();
                earlier.take_while(|it| it.until == NEVER).for_each(|it| it.until = returned);
            }
        }
        Ok(())
    }
}
