//! A link: two connections with the same peer.

use super::lane::LaneEnd;
use super::rate::{Pace, Rate};
use super::wire::Wire;
use super::{PublicKey, TcpSettings};
use crate::error::{Error, Kind, Result};
use crate::link::{Lane, Link};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Most bytes of control frames that wait for a peer that does not read; beyond that the link is down.
const CONTROL_BYTES_MAX: u64 = 8 << 20;

/// Bytes of the data lane that the kernel may hold without having sent them. The rest waits here: there it
/// counts as queued, and a control frame of the other connection need not share the line with it.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// The shortest silence after which a lane is down: a heartbeat needs some time.
const SILENCE_MIN: Duration = Duration::from_millis(30);

const LANES: [Lane; 2] = [Lane::Data, Lane::Control];

/// One end of a link over TCP. Its four threads end when it is closed or dropped.
pub struct TcpLink(Arc<Ends>);

struct Ends {
    lanes: [LaneEnd; 2],
    address: SocketAddr,
    key: Option<PublicKey>,
    /// The first that took the link down.
    reason: OnceLock<String>,
}

impl TcpLink {
    /// A link of two connections that have been greeted, data before control.
    pub(super) fn start(wires: [Wire; 2], settings: &TcpSettings) -> io::Result<TcpLink> {
        let (address, key) = (wires[0].stream.peer_addr()?, wires[0].peer());
        socket2::SockRef::from(&wires[0].stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        let silence = settings.silence.max(SILENCE_MIN);
        let [data, control] = wires.map(|wire| LaneEnd::new(wire, silence));
        let lanes = [data?, control?];
        let link = TcpLink(Arc::new(Ends { lanes, address, key, reason: OnceLock::new() }));
        for (lane, rate) in LANES.into_iter().zip([settings.rate.clone(), Rate::default()]) {
            let name = if lane == Lane::Data { "link-data" } else { "link-control" };
            link.spawn(format!("{name}-out"), move |ends| {
                ends.lane(lane).write(Pace::new(rate)).map_err(|e| e.to_string())
            })?;
            link.spawn(format!("{name}-in"), move |ends| ends.lane(lane).read())?;
        }
        Ok(link)
    }

    /// Runs `work` in a thread; the link is down when it returns.
    fn spawn(
        &self,
        name: String,
        work: impl FnOnce(&Ends) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let ends = self.0.clone();
        let run = move || {
            let ended = work(&ends);
            ends.close(&ended.err().unwrap_or_default(), false);
        };
        std::thread::Builder::new().name(name).spawn(run).map(drop)
    }

    /// The peer's address, and the key that it has shown; `None` in the clear.
    pub fn peer(&self) -> (SocketAddr, Option<PublicKey>) {
        (self.0.address, self.0.key)
    }
}

impl Ends {
    fn lane(&self, lane: Lane) -> &LaneEnd {
        &self.lanes[lane as usize]
    }

    fn close(&self, reason: &str, forgotten: bool) {
        self.reason.get_or_init(|| reason.to_owned());
        self.lanes.iter().for_each(|lane| lane.close(forgotten));
    }

    fn is_down(&self) -> Error {
        let reason = self.reason.get().map_or("", String::as_str);
        Error::new(Kind::NoPeer, format!("the link to {} has ended: {reason}", self.address))
    }
}

impl Link for TcpLink {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        let most = if lane == Lane::Control { CONTROL_BYTES_MAX } else { u64::MAX };
        if self.0.lane(lane).out.push(frame, most) {
            return Ok(());
        }
        let reason = format!(
            "{CONTROL_BYTES_MAX} bytes of control frames wait for a peer that does not read"
        );
        self.0.close(&reason, false); // if it was down already, its reason stays
        Err(self.0.is_down())
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        self.0.lane(lane).arrived.pop().map_err(|()| self.0.is_down())
    }

    fn queued(&self, lane: Lane) -> u64 {
        self.0.lane(lane).out.bytes()
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.0.lane(lane).arrived.wait(Duration::from_nanos(timeout_ns))
    }

    fn close(&self) {
        self.0.close("it was closed here", true);
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends { address, key, reason, .. } = &*self.0;
        let mut shown = f.debug_struct("TcpLink");
        shown.field("address", address).field("key", key).field("down", &reason.get()).finish()
    }
}
