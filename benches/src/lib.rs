//! What the benches share.

pub mod split;
