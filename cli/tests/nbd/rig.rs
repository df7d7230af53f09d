//! Devices in memory, alone or as a pair, and a server of theirs on a unix socket.

use afterimage::{
    Clock, Device, Durability, Geometry, Line, Memory, SystemClock, Threads, VolumeSpec,
    memory_link,
};
use afterimage_cli::nbd::{Export, Listener, News, Server, Settings, Tls};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes of the volume `data`.
pub const BYTES: u64 = 48 << 20;

/// Bytes of the volume `wal`.
pub const SMALL: u64 = 8 << 20;

/// Bytes of the volume `large`.
pub const LARGE: u64 = 1 << 40;

pub type Log = Arc<Mutex<Vec<News>>>;

pub struct Rig {
    // Dropped in this order.
    pub server: Option<Server>,
    _threads: Option<Threads>,
    pub device: Arc<Device>,
    pub news: Log,
    /// Of the last listener that is no unix socket.
    pub address: Option<SocketAddr>,
    dir: tempfile::TempDir,
}

pub fn geometry(device: u64) -> Geometry {
    let volume = |id, bytes| VolumeSpec { id, bytes };
    let volumes = vec![volume(0, BYTES), volume(4, SMALL), volume(9, LARGE)];
    // A device without a peer frees nothing: there is room for all that a test writes.
    Geometry { journal_bytes: 256 << 20, ..Geometry::new(7, device, volumes) }
}

pub fn engine_settings() -> afterimage::Settings {
    afterimage::Settings { durability: Durability::Written, ..Default::default() }
}

pub fn new_device(number: u64, settings: afterimage::Settings) -> Arc<Device> {
    let storage = Arc::new(Memory::new());
    Device::create(&*storage, &geometry(number), number == 1).unwrap();
    Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap()
}

/// Two devices that are connected; the first one serves.
pub fn pair() -> [(Arc<Device>, Threads); 2] {
    let devices = [1, 2].map(|number| new_device(number, engine_settings()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let line = Line { rate: None, delay_ns: 1_000_000 };
    let (a, b) = memory_link(line, clock);
    let pair = devices.map(|device| {
        let threads = Threads::start(&device).unwrap();
        (device, threads)
    });
    pair[0].0.connect(Arc::new(a)).unwrap();
    pair[1].0.connect(Arc::new(b)).unwrap();
    wait_for("the first device serves", || {
        pair[0].0.status().serving && pair[1].0.status().connected
    });
    pair
}

pub fn exports() -> Vec<Export> {
    let mut described = Export::new("wal", 4);
    described.description = "the log".into();
    let mut read_only = Export::new("seen", 0);
    read_only.read_only = true;
    vec![Export::new("data", 0), described, read_only, Export::new("large", 9)]
}

impl Rig {
    /// A device that serves alone.
    pub fn new() -> Rig {
        Rig::with(Settings::default(), engine_settings())
    }

    pub fn with(settings: Settings, engine: afterimage::Settings) -> Rig {
        let device = new_device(1, engine);
        let threads = Threads::start(&device).unwrap();
        device.resume_alone().unwrap();
        Rig::serving(device, Some(threads), settings)
    }

    /// A server of `device`, whatever its state.
    pub fn serving(device: Arc<Device>, threads: Option<Threads>, settings: Settings) -> Rig {
        Rig::at(device, threads, settings, None)
    }

    /// A device that serves alone, by TLS as well.
    pub fn with_tls(settings: Settings, tls: Tls, is_required: bool) -> Rig {
        let device = new_device(1, engine_settings());
        let threads = Threads::start(&device).unwrap();
        device.resume_alone().unwrap();
        Rig::at(device, Some(threads), settings, Some((tls, is_required)))
    }

    fn at(
        device: Arc<Device>,
        threads: Option<Threads>,
        settings: Settings,
        tls: Option<(Tls, bool)>,
    ) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (news, log) = (Log::default(), Log::default());
        let told = news.clone();
        let tell = move |news| told.lock().unwrap().push(news);
        let mut listeners = vec![Listener::Unix(listener)];
        let mut address = None;
        if let Some((tls, is_required)) = tls {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            address = Some(listener.local_addr().unwrap());
            listeners.push(Listener::Tls { listener, tls, is_required });
        }
        let server = Server::start(device.clone(), listeners, exports(), settings, tell).unwrap();
        drop(log);
        Rig { server: Some(server), _threads: threads, device, news, address, dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.path().display())
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it was not stopped")
    }

    /// Waits until no connection is left.
    pub fn wait_for_nobody(&self) {
        wait_for("every connection has ended", || self.server().connections() == 0);
    }

    /// The reason that the last connection ended for.
    pub fn last_end(&self) -> String {
        let news = self.news.lock().unwrap();
        let why = news.iter().rev().find_map(|news| match news {
            News::Ended { why, .. } => Some(why.clone()),
            _ => None,
        });
        why.flatten().unwrap_or_default()
    }
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
