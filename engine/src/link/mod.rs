//! The line between the two devices, as a trait: TCP, memory, or a simulator's; and where lines come from.
//!
//! Two lanes, each in order; control may overtake data (R10). Frames are opaque bytes here.

mod memory;
#[cfg(feature = "tcp")]
pub mod tcp;

pub use memory::{Line, MemoryLink, memory_link};

use crate::error::Result;
use std::sync::Arc;
use std::time::Duration;

/// Which of the two ordered streams of a link a frame travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Shipped records: large, many, in stamp order.
    Data,
    /// Hello, takeover, prototype, remote reads, acknowledgements: small, urgent.
    Control,
}

/// One end of a link. Frames arrive whole, once and in order per lane, or the link is down.
///
/// The lanes are independent: a lane whose frames the receiver does not take holds up nothing in the
/// other, on the line neither. No frame has more than [`FRAME_BYTES_MAX`] bytes: a link that is told of a longer one
/// is down, before it makes room for it.
///
/// The link notices that its peer is gone without a word, since the engine sends nothing to ask: a lane
/// in which nothing has arrived for some seconds is down. So a link whose line does not tell (TCP)
/// sends something of its own when it has no frame to send, which the engine at the other end is not
/// given. Without that a device goes on waiting for a peer that lost its power, and connects no more.
///
/// [`FRAME_BYTES_MAX`]: crate::format::frame::FRAME_BYTES_MAX
pub trait Link: Send + Sync {
    /// Takes `frame` for delivery; it does not wait for the line.
    ///
    /// The engine bounds what it hands to a lane, by [`Link::queued`] of that lane: the data lane by
    /// [`Settings::link_queue_bytes_max`]; pieces of a prototype, and questions and answers of remote
    /// reads, in the control lane by [`Settings::control_queue_bytes_max`]. It does not bound what
    /// else is in the control lane: against a peer that asks and does not read, a link bounds what it
    /// holds there itself, at 1 MiB or more, and is down when that is exceeded.
    ///
    /// [`Settings::link_queue_bytes_max`]: crate::limits::Settings::link_queue_bytes_max
    /// [`Settings::control_queue_bytes_max`]: crate::limits::Settings::control_queue_bytes_max
    ///
    /// # Errors
    /// [`crate::error::Kind::NoPeer`] says that the link is down.
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()>;

    /// The next frame that has arrived, if any; never waits.
    ///
    /// # Errors
    /// [`crate::error::Kind::NoPeer`] says that the link is down and everything that arrived was
    /// handed over.
    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>>;

    /// Bytes of `lane`'s frames taken for delivery that have not yet left this end, so that a
    /// sender need not put more on the line than it can carry.
    fn queued(&self, lane: Lane) -> u64;

    /// Waits until the next receipt of `lane` has something to say, a frame or that the link is
    /// down (`true`), or until `timeout_ns` have passed (`false`).
    ///
    /// Once a receipt has said that the link is down, it may return at once, each time: the engine
    /// waits on such a link no more.
    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool;

    /// Ends the link, both lanes and both directions: from now on this end sends and hears nothing,
    /// and each [`Link::wait`] here returns; the peer's next receipt, after whatever still arrives there, says
    /// that the link is down. Frames under way may be lost. Never waits, not even for the line: it
    /// is called under locks of the engine's. Of a link that is down already it does nothing.
    ///
    /// The engine calls it when it ends a connection, whatever the reason, and when the device halts
    /// or is closed.
    fn close(&self);
}

impl std::fmt::Debug for dyn Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// Where links to the peer come from: one device of a pair dials, the other accepts.
pub trait Connector: Send {
    /// The next link, waited for at most `patience`; `None` if nobody has dialled so far.
    ///
    /// # Errors
    /// Whatever keeps it from dialling; it is tried again after a while, which grows.
    fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>>;

    /// Whether it is asked for links also while a connection stands. One that accepts is: a peer that
    /// dials anew has given the old connection up, and this end may not have heard of it. The old one
    /// is given up for the new link once a hello of a device of this pair has come over it; so the
    /// peer's connector, which is to say hello first, is not one that accepts.
    fn accepts(&self) -> bool {
        false
    }
}
