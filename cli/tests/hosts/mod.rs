//! A host with two volumes by NBD, whose writes have numbers: block by block it is known which of them must be there.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const BLOCK: u64 = 4096;
pub const VOLUMES: [&str; 2] = ["data", "wal"];
/// Of each volume.
pub const BLOCKS: u64 = 256;

/// Each block of both volumes, by the number of its last write; 0: none.
pub type Blocks = [Vec<u64>; 2];

pub struct Host {
    volumes: [UnixStream; 2],
}

/// The volume and block of the write `n`.
pub fn place(n: u64) -> (usize, u64) {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    ((n % 2) as usize, mixed % BLOCKS)
}

/// The blocks after the writes `numbers` over `before`.
pub fn after(before: &Blocks, numbers: impl Iterator<Item = u64>) -> Blocks {
    let mut blocks = before.clone();
    for n in numbers {
        let (volume, block) = place(n);
        blocks[volume][block as usize] = n;
    }
    blocks
}

pub fn empty() -> Blocks {
    [vec![0; BLOCKS as usize], vec![0; BLOCKS as usize]]
}

/// Wall time in nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

impl Host {
    /// Opens both exports.
    pub fn connect(socket: &Path) -> io::Result<Host> {
        Ok(Host { volumes: [open(socket, VOLUMES[0])?, open(socket, VOLUMES[1])?] })
    }

    /// Makes the write `n`, and waits until it is answered.
    pub fn write(&mut self, n: u64) -> io::Result<()> {
        let (volume, block) = place(n);
        let data: Vec<u8> = (0..BLOCK / 8).flat_map(|_| n.to_le_bytes()).collect();
        let stream = &mut self.volumes[volume];
        stream.write_all(&[request(1, n, block * BLOCK, data.len()), data].concat())?;
        answer(stream, n)
    }

    /// All that is there; a block that is not one write's whole is a failure.
    pub fn read(&mut self) -> io::Result<Blocks> {
        let mut all = empty();
        for (stream, blocks) in self.volumes.iter_mut().zip(&mut all) {
            let mut data = vec![0; (BLOCKS * BLOCK) as usize];
            stream.write_all(&request(0, 7, 0, data.len()))?;
            answer(stream, 7)?;
            stream.read_exact(&mut data)?;
            for (block, data) in blocks.iter_mut().zip(data.chunks(BLOCK as usize)) {
                let mut words = data.chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
                *block = words.next().unwrap();
                assert!(words.all(|word| word == *block), "a block of two writes");
            }
        }
        Ok(all)
    }
}

fn request(kind: u16, cookie: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(0_u16.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend((length as u32).to_be_bytes());
    bytes
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn answer(stream: &mut UnixStream, cookie: u64) -> io::Result<()> {
    let magic = u32::from_be_bytes(take(stream)?);
    let error = u32::from_be_bytes(take(stream)?);
    let of = u64::from_be_bytes(take(stream)?);
    assert_eq!((magic, of), (0x6744_6698, cookie));
    match error {
        0 => Ok(()),
        error => panic!("an error reply, which a host takes for final: {error}"),
    }
}

/// The export `name`, opened by GO.
fn open(socket: &Path, name: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let _greeting: [u8; 18] = take(&mut stream)?;
    let data = [&(name.len() as u32).to_be_bytes(), name.as_bytes(), &[0, 0]].concat();
    let mut words = 3_u32.to_be_bytes().to_vec();
    words.extend(0x4948_4156_454f_5054_u64.to_be_bytes());
    words.extend(7_u32.to_be_bytes());
    words.extend((data.len() as u32).to_be_bytes());
    stream.write_all(&[words, data].concat())?;
    loop {
        let _magic_and_option: [u8; 12] = take(&mut stream)?;
        let kind = u32::from_be_bytes(take(&mut stream)?);
        let mut text = vec![0; u32::from_be_bytes(take(&mut stream)?) as usize];
        stream.read_exact(&mut text)?;
        match kind {
            1 => return Ok(stream),
            3 => {}
            _ => return Err(io::Error::other(String::from_utf8_lossy(&text).into_owned())),
        }
    }
}
