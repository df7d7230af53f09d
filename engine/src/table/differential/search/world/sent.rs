//! Messages on the line.

use super::*;

#[derive(Clone, Debug, Hash)]
pub(super) enum Sent {
    Ship(Round, u8, usize),
    Ack(Round, u8),
    Copy(Round, u64, Blocks, Vec<u8>),
    Sum(Round, u64, Blocks, Vec<u8>),
    Differs(Round, Bits),
    Told(Announcement),
    CopyAck(Round, Blocks),
    Ask(Round, usize),
    Answer(Round, usize, Option<u8>),
    Request(Request, Bits, u8),
    Opened(Opened, Piece),
    /// With the table, the prototype, and the request's nonce, if it is a grant.
    Said(Message, Bits, (Image, u8)),
}

impl Sent {
    pub(super) fn round(&mut self) -> &mut Round {
        match self {
            Sent::Ship(round, ..)
            | Sent::Ack(round, _)
            | Sent::Copy(round, ..)
            | Sent::Sum(round, ..)
            | Sent::Differs(round, _)
            | Sent::CopyAck(round, _)
            | Sent::Ask(round, _)
            | Sent::Answer(round, ..)
            | Sent::Request(Request { round, .. }, ..)
            | Sent::Opened(Opened { round, .. }, _)
            | Sent::Told(Announcement { round, .. })
            | Sent::Said(Message::Open { round, .. }, ..)
            | Sent::Said(Message::Opened(Opened { round, .. }), ..)
            | Sent::Said(Message::Grant(Grant::Table { round, .. }), ..)
            | Sent::Said(Message::Grant(Grant::Prototype { round }), ..)
            | Sent::Said(Message::End { round, .. }, ..)
            | Sent::Said(Message::EndAck { round }, ..)
            | Sent::Said(Message::Level { round }, ..) => round,
        }
    }

    /// Whether it means nothing in another round.
    pub(super) fn is_of_round(&self) -> bool {
        use Message::{End, EndAck, Level};
        match self {
            Sent::Ship(..) | Sent::Ack(..) | Sent::Copy(..) | Sent::CopyAck(..) => true,
            Sent::Sum(..) | Sent::Differs(..) => true,
            Sent::Said(message, ..) => matches!(message, End { .. } | EndAck { .. } | Level { .. }),
            _ => false,
        }
    }
}
