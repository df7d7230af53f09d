//! The link over TCP in bulk: engine frames of 4 KiB records over `Link` alone, beside one rustls stream in
//! writes of 64 KiB, in turns; both on loopback, with the same keys and suite.
//!
//! The link's sender makes its frames as `Device::step_ship` does, from blocks in memory whose checksums are
//! known, and like it waits while more than `Settings::link_queue_bytes_max` is queued. Its receiver decodes each frame and verifies each
//! block's checksum, as `Device::step_receive` does. The stream's sender writes the same blocks; its receiver
//! reads them and looks at nothing.
//!
//!     cargo run --release -p afterimage-benches --bin link [-- --quick] [--trim]

use afterimage::internal::format::Row;
use afterimage::internal::format::data_checksum;
use afterimage::internal::format::frame::{Frame, ShipBuilder, Shipped, WIRE};
use afterimage::internal::link::tcp::tls;
use afterimage::internal::unit::{Block, Round, Stamp};
use afterimage::tcp::{Acceptor, DeviceKey, Dialler, Pins, TcpSettings};
use afterimage::{Connector, Lane, Link, Settings};
use afterimage_benches::{Column, Random};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;

/// Bytes of a write to the stream.
const WRITE: usize = 64 << 10;

/// At least this part of the stream's rate.
const BOUND: f64 = 0.6;

const PATIENCE: Duration = Duration::from_secs(10);

/// Blocks as they stand in a device's memory, with the checksums that their records got at admission.
struct Blocks {
    bytes: Vec<u8>,
    checksums: Vec<u64>,
}

impl Blocks {
    fn new(count: usize) -> Blocks {
        let mut random = Random::new(1);
        let bytes: Vec<u8> =
            (0..count * BLOCK / 8).flat_map(|_| random.draw().to_le_bytes()).collect();
        let checksums = bytes.chunks(BLOCK).map(data_checksum).collect();
        Blocks { bytes, checksums }
    }

    /// The frame of the records `from..from + count`, of which record n has block n modulo their number.
    fn frame(&self, from: u64, count: u64) -> Vec<u8> {
        let place = |n: u64| n as usize % self.checksums.len();
        let stamp = |n: u64| Stamp { epoch: 1, time: n + 1, sequence: 0 };
        let records: Vec<Shipped> = (from..from + count)
            .map(|n| {
                let block = Block { volume: 0, number: n };
                let checksum = self.checksums[place(n)];
                let row = Row {
                    stamp: stamp(n),
                    block,
                    level: 0,
                    checksum,
                    index: 0,
                    count: 1,
                    has_data: true,
                };
                Shipped { row, remaining: None, total_remaining: true }
            })
            .collect();
        let data = count as usize * BLOCK;
        let round = Round::default();
        let mut frame = ShipBuilder::new(WIRE.max, 7, round, stamp(from), 0, &records, data);
        for n in from..from + count {
            frame.block(BLOCK).copy_from_slice(&self.bytes[place(n) * BLOCK..][..BLOCK]);
        }
        frame.finish()
    }
}

/// Ships `records` over `here`, in frames as large as the engine's.
fn ship(here: &Arc<dyn Link>, blocks: &Blocks, records: u64) {
    let settings = Settings::default();
    let batch = settings.ship_bytes_max / BLOCK as u64;
    for from in (0..records).step_by(batch as usize) {
        while here.queued(Lane::Data) > settings.link_queue_bytes_max {
            std::thread::sleep(Duration::from_micros(100));
        }
        here.send(Lane::Data, blocks.frame(from, batch.min(records - from))).expect("sent");
    }
}

/// Receives `records` from `there`, and holds every block against its checksum.
fn receive(there: &Arc<dyn Link>, records: u64) {
    let mut seen = 0;
    while seen < records {
        let Some(frame) = there.receive(Lane::Data).expect("the link stands") else {
            there.wait(Lane::Data, PATIENCE.as_nanos() as u64);
            continue;
        };
        let (_, frame) = Frame::decode(&frame).expect("a frame");
        let Frame::Ship { records, data, .. } = frame else { panic!("no ship") };
        for (record, block) in records.iter().zip(data.chunks(BLOCK)) {
            assert_eq!(record.row.block.number, seen, "in order");
            assert_eq!(data_checksum(block), record.row.checksum);
            seen += 1;
        }
    }
}

/// Seconds of all of the process's threads.
fn processor() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// MB a second from the first send until all has been received and verified, and nanoseconds of processor time
/// a byte.
fn timed(records: u64, send: impl FnOnce() + Send, receive: impl FnOnce()) -> [f64; 2] {
    let (started, used) = (Instant::now(), processor());
    std::thread::scope(|scope| {
        scope.spawn(send);
        receive();
    });
    let bytes = (records * BLOCK as u64) as f64;
    [bytes / started.elapsed().as_secs_f64() / 1e6, (processor() - used) * 1e9 / bytes]
}

fn link(ends: &[Arc<dyn Link>; 2], blocks: &Blocks, records: u64) -> [f64; 2] {
    timed(records, || ship(&ends[0], blocks, records), || receive(&ends[1], records))
}

type Streams = (StreamOwned<ClientConnection, TcpStream>, StreamOwned<ServerConnection, TcpStream>);

fn stream(streams: &mut Streams, blocks: &Blocks, records: u64) -> [f64; 2] {
    let bytes = records as usize * BLOCK;
    let (here, there) = streams;
    let send = || {
        let pieces = blocks.bytes.chunks(WRITE).cycle();
        pieces.take(bytes / WRITE).for_each(|piece| here.write_all(piece).expect("written"));
        here.flush().expect("flushed");
    };
    let receive = || {
        let (mut left, mut piece) = (bytes, vec![0; WRITE]);
        while left > 0 {
            left -= there.read(&mut piece).expect("read");
        }
    };
    timed(records, send, receive)
}

/// The two ends of one rustls stream.
fn streams(keys: &[DeviceKey; 2]) -> Streams {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (there, _) = listener.accept().expect("accepted");
    here.set_nodelay(true).expect("set");
    let name = ServerName::try_from("afterimage").expect("a name");
    let client = ClientConnection::new(tls::client(&keys[0], Box::new(|_| true)), name);
    let server = ServerConnection::new(tls::server(&keys[1], Box::new(|_| true)));
    let mut client = StreamOwned::new(client.expect("a client"), here);
    let mut server = StreamOwned::new(server.expect("a server"), there);
    std::thread::scope(|scope| {
        scope.spawn(|| client.write_all(b"hello").expect("the handshake"));
        server.read_exact(&mut [0; 5]).expect("the handshake");
    });
    (client, server)
}

/// Lets the C library keep freed memory of up to 16 MiB (mallopt(3): the threshold for mmap is dynamic, and that
/// for trimming twice as high). Else each frame is in pages that the kernel has just cleared.
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(8 << 20)));
}

fn main() {
    if !std::env::args().any(|argument| argument == "--trim") {
        keep_freed_memory();
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, mib) = if quick { (1, 8) } else { (9, 1024) };
    let records = (mib << 20) / BLOCK as u64;
    let blocks = Blocks::new(2048);

    let keys = [(); 2].map(|()| DeviceKey::generate().expect("a key"));
    let pins = keys.each_ref().map(|key| Pins::new(key.public()));
    let settings = TcpSettings::default;
    let mut acceptor =
        Acceptor::bind("127.0.0.1:0", &keys[1], &pins[0], settings()).expect("bound");
    let address = acceptor.address().to_string();
    let mut dialler = Dialler::new(&address, &keys[0], &pins[1], settings());
    let here = dialler.connect(PATIENCE).expect("dialled").expect("in time");
    let ends = [here, acceptor.connect(PATIENCE).expect("accepted").expect("in time")];
    let mut streams = streams(&keys);

    let columns = || [Column::new("stream"), Column::new("link")];
    let (mut rates, mut costs) = (columns(), columns());
    for _ in 0..rounds {
        let figures = [stream(&mut streams, &blocks, records), link(&ends, &blocks, records)];
        for (at, [rate, cost]) in figures.into_iter().enumerate() {
            rates[at].figures.push(rate);
            costs[at].figures.push(cost);
        }
    }
    println!("{mib} MiB in records of 4 KiB, {rounds} rounds: median (min-max)");
    for (rate, cost) in rates.iter().zip(&costs) {
        let ((low, high), ns) = (rate.range(), cost.median());
        let name = rate.name;
        println!(
            "  {name:>7} {:7.0} MB/s ({low:.0}-{high:.0}), {ns:.2} ns/byte of all processors",
            rate.median()
        );
    }
    println!("  link / stream: {:.2}, bound {BOUND}", rates[1].ratio(&rates[0]));
}
