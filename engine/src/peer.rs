//! A device's one peer, as far as neither R and the received records (`table/{out,incoming}.rs`) nor
//! the connection (`failover/connection.rs`) have it: a second peer would be a second value.

use crate::flow::checksums::Asked;
use crate::flow::compare::Comparing;
use crate::flow::copy::CopyRate;
use crate::flow::differential::Machine;
use crate::flow::owed::Owed;
use crate::flow::policy::Stay;
use crate::flow::remote::{Answers, Questions};
use crate::format::frame::TablePiece;
use crate::journal::recv::RecvLog;
use crate::salvage::Saving;
use crate::table::prototype::Debt;
use crate::unit::Block;
use std::sync::Mutex;

/// The peer's records here, what it owes, and the work with it.
pub(crate) struct Peer {
    /// Its shipped records.
    pub recv: RecvLog,
    /// Its debt: records that it has told of and not shipped.
    pub owed: Owed,
    /// Differential mode towards it.
    pub machine: Machine,
    /// Blocks to be saved before the peer's content comes over them.
    pub saving: Saving,
    /// How long it is to last; a leaf among the locks.
    pub stay: Mutex<Stay>,
    pub copy_rate: CopyRate,
    /// The blocks that hosts here wait for.
    pub questions: Mutex<Questions>,
    /// The comparison that was begun here.
    pub comparing: Mutex<Comparing>,
    /// The blocks of a comparison that was begun there.
    pub checked: Mutex<Option<Asked>>,
    /// One thread at a time in each of these steps; nothing else waits for these locks. The first guards
    /// the peer's questions, the second the first address that is copied next.
    pub controlling: Mutex<Answers>,
    pub shipping: Mutex<Block>,
    pub receiving: Mutex<()>,
}

impl Peer {
    /// As it was left, with what it had told.
    pub fn new(recv: RecvLog, told: Debt, machine: Machine, copy_rate: CopyRate) -> Peer {
        Peer {
            recv,
            owed: Owed::new(told),
            machine,
            saving: Saving::default(),
            stay: Mutex::default(),
            copy_rate,
            questions: Mutex::default(),
            comparing: Mutex::default(),
            checked: Mutex::default(),
            controlling: Mutex::default(),
            shipping: Mutex::new(TablePiece::FIRST),
            receiving: Mutex::default(),
        }
    }
}
