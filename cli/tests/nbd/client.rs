//! A client that says whatever a test wants, byte by byte.

use rustls::{ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub const FIXED: u32 = 1;
pub const NO_ZEROES: u32 = 2;

pub const OPTION: u64 = 0x4948_4156_454f_5054;
pub const REQUEST: u32 = 0x2560_9513;

pub const EXPORT_NAME: u32 = 1;
pub const ABORT: u32 = 2;
pub const LIST: u32 = 3;
pub const STARTTLS: u32 = 5;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED: u32 = 8;
pub const LIST_CONTEXT: u32 = 9;
pub const SET_CONTEXT: u32 = 10;

pub const ACK: u32 = 1;
pub const UNSUP: u32 = 0x8000_0001;
pub const POLICY: u32 = 0x8000_0002;
pub const INVALID: u32 = 0x8000_0003;
pub const TLS_REQD: u32 = 0x8000_0005;
pub const UNKNOWN: u32 = 0x8000_0006;
pub const SHUTDOWN: u32 = 0x8000_0007;
pub const TOO_BIG: u32 = 0x8000_0009;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

pub const FUA: u16 = 1;
pub const NO_HOLE: u16 = 2;
pub const DF: u16 = 4;
pub const REQ_ONE: u16 = 8;
pub const FAST_ZERO: u16 = 16;

/// The connection of a client.
pub enum Wire {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn set_read_timeout(&self, most: Option<Duration>) -> io::Result<()> {
        match self {
            Wire::Unix(stream) => stream.set_read_timeout(most),
            Wire::Tcp(stream) => stream.set_read_timeout(most),
            Wire::Tls(stream) => stream.sock.set_read_timeout(most),
        }
    }

    pub fn set_nonblocking(&self, is: bool) -> io::Result<()> {
        match self {
            Wire::Unix(stream) => stream.set_nonblocking(is),
            Wire::Tcp(stream) => stream.set_nonblocking(is),
            Wire::Tls(stream) => stream.sock.set_nonblocking(is),
        }
    }

    /// One more handle of a unix socket.
    pub fn try_clone(&self) -> io::Result<Wire> {
        match self {
            Wire::Unix(stream) => stream.try_clone().map(Wire::Unix),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Unix(stream) => stream.read(bytes),
            Wire::Tcp(stream) => stream.read(bytes),
            Wire::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Unix(stream) => stream.write(bytes),
            Wire::Tcp(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Unix(stream) => stream.flush(),
            Wire::Tcp(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

pub struct Client {
    pub stream: Wire,
    pub cookie: u64,
    pub structured: bool,
}

/// One chunk of a structured reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub done: bool,
    pub kind: u16,
    pub cookie: u64,
    pub payload: Vec<u8>,
}

impl Client {
    /// Connects and greets.
    pub fn connect(path: &Path) -> Client {
        Client::greet(path, FIXED | NO_ZEROES)
    }

    pub fn greet(path: &Path, flags: u32) -> Client {
        Client::silent(path).greeted(flags)
    }

    /// Connects by TCP, and greets.
    pub fn tcp(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let stream = Wire::Tcp(stream);
        Client { stream, cookie: 0, structured: false }.greeted(FIXED | NO_ZEROES)
    }

    fn greeted(mut self, flags: u32) -> Client {
        let greeting: [u8; 18] = self.take();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        assert_eq!(greeting[16..], [0, 3]);
        self.send(&flags.to_be_bytes());
        self
    }

    /// Goes on by TLS. With TLS 1.3 a refusal shows at the next read only.
    pub fn secured(mut self, mut session: ClientConnection) -> io::Result<Client> {
        assert_eq!(self.answer(STARTTLS, &[]), ACK);
        let Wire::Tcp(mut stream) = self.stream else { panic!("no TCP") };
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        let stream = Wire::Tls(Box::new(StreamOwned::new(session, stream)));
        Ok(Client { stream, cookie: 0, structured: false })
    }

    pub fn silent(path: &Path) -> Client {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        Client { stream: Wire::Unix(stream), cookie: 0, structured: false }
    }

    /// Connected to the export, with simple replies.
    pub fn simple(path: &Path, name: &str) -> Client {
        let mut client = Client::connect(path);
        client.go(name);
        client
    }

    /// Connected to the export, with structured replies and these contexts.
    pub fn structured(path: &Path, name: &str, contexts: &[&str]) -> Client {
        let mut client = Client::connect(path);
        client.option(STRUCTURED, &[]);
        assert_eq!(client.reply(STRUCTURED), (ACK, vec![]));
        client.option(SET_CONTEXT, &query(name, contexts));
        while client.reply(SET_CONTEXT).0 != ACK {}
        client.structured = true;
        client.go(name);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("the server says something");
        bytes
    }

    pub fn take_many(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("the server says something");
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    pub fn option(&mut self, option: u32, data: &[u8]) {
        let mut bytes = OPTION.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
    }

    /// The next reply to `option`.
    pub fn reply(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x0003_e889_0455_65a9);
        assert_eq!(self.u32(), option);
        let (kind, length) = (self.u32(), self.u32());
        (kind, self.take_many(length as usize))
    }

    /// The replies to `option`, up to an acknowledgement or an error.
    pub fn replies(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.option(option, data);
        let mut replies = Vec::new();
        loop {
            let reply = self.reply(option);
            let is_last = reply.0 == ACK || reply.0 >> 31 == 1;
            replies.push(reply);
            if is_last {
                return replies;
            }
        }
    }

    /// The one reply to `option`, its kind.
    pub fn answer(&mut self, option: u32, data: &[u8]) -> u32 {
        let replies = self.replies(option, data);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies[0].0
    }

    /// Opens an export: its size and flags.
    pub fn go(&mut self, name: &str) -> (u64, u16) {
        let replies = self.replies(GO, &wish(name, &[]));
        assert_eq!(replies.last().unwrap().0, ACK, "{replies:?}");
        let told = &replies[0].1;
        assert_eq!(told[..2], [0, 0]);
        (
            u64::from_be_bytes(told[2..10].try_into().unwrap()),
            u16::from_be_bytes([told[10], told[11]]),
        )
    }

    /// Sends a request's head; returns its cookie.
    pub fn ask(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u64 {
        self.cookie += 1;
        let head = head(flags, command, self.cookie, offset, length);
        self.send(&head);
        self.cookie
    }

    pub fn ask_write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u64 {
        self.cookie += 1;
        let mut bytes = head(flags, WRITE, self.cookie, offset, data.len() as u32);
        bytes.extend(data);
        self.send(&bytes);
        self.cookie
    }

    /// The next simple reply: its cookie and error.
    pub fn done(&mut self) -> (u64, u32) {
        assert_eq!(self.u32(), 0x6744_6698, "no simple reply");
        let error = self.u32();
        (self.u64(), error)
    }

    pub fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), 0x668e_33ef, "no chunk");
        let (flags, kind) = (self.u16(), self.u16());
        let (cookie, length) = (self.u64(), self.u32());
        Chunk { done: flags == 1, kind, cookie, payload: self.take_many(length as usize) }
    }

    /// The error of a request that has no data to return, 0 for none.
    pub fn call(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
        let cookie = self.ask(flags, command, offset, length);
        let (of, error) = self.done();
        assert_eq!(of, cookie);
        error
    }

    pub fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let cookie = self.ask_write(flags, offset, data);
        let (of, error) = self.done();
        assert_eq!(of, cookie);
        error
    }

    /// A read, put together from its chunks if there are any; or its error.
    pub fn read(&mut self, flags: u16, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        let cookie = self.ask(flags, READ, offset, length);
        if !self.structured {
            let (of, error) = self.done();
            assert_eq!(of, cookie);
            return if error == 0 { Ok(self.take_many(length as usize)) } else { Err(error) };
        }
        let (mut data, mut filled, mut failed) = (vec![0xee; length as usize], 0, None);
        loop {
            let Chunk { done, kind, cookie: of, payload } = self.chunk();
            assert_eq!(of, cookie);
            let at =
                |bytes: &[u8]| (u64::from_be_bytes(bytes.try_into().unwrap()) - offset) as usize;
            match kind {
                0 => assert!(payload.is_empty() && done),
                1 => {
                    let (from, bytes) = (at(&payload[..8]), &payload[8..]);
                    data[from..from + bytes.len()].copy_from_slice(bytes);
                    filled += bytes.len();
                }
                2 => {
                    let length = u32::from_be_bytes(payload[8..].try_into().unwrap()) as usize;
                    data[at(&payload[..8])..][..length].fill(0);
                    filled += length;
                }
                kind if kind >> 15 == 1 => {
                    failed = Some(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                }
                kind => panic!("chunk of kind {kind}"),
            }
            if done {
                break;
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                assert_eq!(filled, length as usize);
                Ok(data)
            }
        }
    }

    /// Nothing more comes, and the connection has ended.
    pub fn assert_over(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("it goes on: {other:?}"),
        }
    }

    /// Nothing comes for a moment, and the connection has not ended.
    pub fn assert_silent(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let kind = self.stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::WouldBlock));
        self.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
}

pub fn head(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The data of `GO` and `INFO`.
pub fn wish(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((wanted.len() as u16).to_be_bytes());
    bytes.extend(wanted.iter().flat_map(|wanted| wanted.to_be_bytes()));
    bytes
}

/// The data of the options for contexts.
pub fn query(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((queries.len() as u32).to_be_bytes());
    bytes.extend(queries.iter().flat_map(|query| text(query)));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}
