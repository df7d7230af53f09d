//! Hosts by NBD: an own client that says what it likes, and real ones where they are installed.

mod client;
mod ends;
mod negotiation;
mod parts;
mod requests;
mod rig;
mod tls;
mod tls_parts;
