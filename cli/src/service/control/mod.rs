//! Orders to a running service, by sockets in its directory.
//!
//! An order is a line of JSON; the answer is lines of it, news first, the outcome last ([`wire`]). Each of the
//! three rights has a socket ([`server`]), whose mode and owner say who may connect: a command picks the one
//! that its order asks for ([`client`]).

pub mod client;
pub mod server;
pub mod wire;
