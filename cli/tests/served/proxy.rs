//! A line between the devices that delays, throttles, goes silent and is cut, at any byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the line is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Connections end as they come.
    pub down: bool,
    /// From the dialling end, and from the other one: bytes wait.
    pub silent: [bool; 2],
    /// Of every piece of a few KiB.
    pub delay: Duration,
    /// Each way; 0: as fast as they come.
    pub bytes_per_second: u64,
}

struct Shared {
    to: SocketAddr,
    weather: Mutex<Weather>,
    /// Connections of earlier numbers are cut.
    cut: AtomicU64,
    /// So many bytes more, and all connections are cut.
    left: AtomicI64,
    over: AtomicBool,
}

pub struct Proxy {
    shared: Arc<Shared>,
    pub address: SocketAddr,
}

impl Proxy {
    /// A line to `to`.
    pub fn new(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            weather: Mutex::default(),
            cut: AtomicU64::new(0),
            left: AtomicI64::new(i64::MAX),
            over: AtomicBool::new(false),
        });
        let line = shared.clone();
        std::thread::spawn(move || {
            for from in listener.incoming() {
                if line.over.load(Relaxed) {
                    return;
                }
                if let Ok(from) = from {
                    line.carry(from);
                }
            }
        });
        Proxy { shared, address }
    }

    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Cuts every connection, now or after so many bytes.
    pub fn cut(&self, after: Option<u64>) {
        match after {
            None => drop(self.shared.cut.fetch_add(1, Relaxed)),
            Some(bytes) => self.shared.left.store(bytes as i64, Relaxed),
        }
    }

    /// Good again.
    pub fn heal(&self) {
        self.shared.left.store(i64::MAX, Relaxed);
        self.set(Weather::default());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        self.cut(None);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, from: TcpStream) {
        if self.weather.lock().unwrap().down {
            return;
        }
        let Ok(to) = TcpStream::connect(self.to) else { return };
        let number = self.cut.load(Relaxed);
        for (way, (from, to)) in [(&from, &to), (&to, &from)].into_iter().enumerate() {
            let [from, to] = [from, to].map(|end| end.try_clone().unwrap());
            let line = self.clone();
            std::thread::spawn(move || line.pump(way, number, from, to));
        }
    }

    /// Carries one way until the line is cut or an end closes.
    fn pump(&self, way: usize, number: u64, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = to.set_nodelay(true);
        let mut piece = [0; 4096];
        while self.cut.load(Relaxed) == number {
            let weather = *self.weather.lock().unwrap();
            if weather.silent[way] {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let length = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            let pause = (length as u64 * 1_000_000).checked_div(weather.bytes_per_second);
            std::thread::sleep(weather.delay + Duration::from_micros(pause.unwrap_or(0)));
            let left = self.left.fetch_sub(length as i64, Relaxed);
            let carried = length.min(usize::try_from(left).unwrap_or(0));
            if to.write_all(&piece[..carried]).is_err() {
                break;
            }
            if carried < length {
                self.left.store(i64::MAX, Relaxed);
                self.cut(number);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn cut(&self, number: u64) {
        let _ = self.cut.compare_exchange(number, number + 1, Relaxed, Relaxed);
    }
}
