//! The life of a connection, in its thread: negotiation, with a TLS handshake in it where there is one, then
//! the requests.

use super::connection::{Connection, Input};
use super::counters::count;
use super::first::first_session;
use super::negotiate::{Negotiated, Offer, broken, greet, negotiate};
use super::request::{reader, transmit};
use super::tls::{Channel, Security, Tls};
use super::{News, Seat, Shared};
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A connection whose TLS handshake is not over.
pub(super) struct Stranger {
    shared: Arc<Shared>,
    tls: Tls,
}

impl Stranger {
    pub fn new(shared: &Arc<Shared>, tls: &Tls) -> Stranger {
        shared.strangers.fetch_add(1, Ordering::Relaxed);
        Stranger { shared: shared.clone(), tls: tls.clone() }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.shared.strangers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The life of a connection, in its thread.
pub(super) fn attend(
    seat: Seat,
    connection: Arc<Connection>,
    security: (Security, Option<Stranger>),
) {
    let ended = talk(&seat.shared, &connection, security);
    connection.cut();
    let why = match ended {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
        Err(error) => {
            match error.kind() {
                ErrorKind::InvalidData => count(&seat.shared.counts.broken),
                ErrorKind::TimedOut => count(&seat.shared.counts.late),
                _ => {}
            }
            Some(error.to_string())
        }
    };
    let host = connection.host.clone();
    (seat.shared.tell)(News::Ended { connection: connection.id, host, why });
}

fn talk(
    shared: &Shared,
    connection: &Arc<Connection>,
    (mut security, mut stranger): (Security, Option<Stranger>),
) -> io::Result<()> {
    let settings = &shared.settings;
    let until = Cell::new(Some(Instant::now() + settings.negotiation));
    let mut input = reader(Input { connection, until: &until });
    let mut output = Input { connection, until: &until };
    let mut host = connection.host.clone();
    let mut exports = shared.exports.clone();
    let greeted = greet(&mut input, &mut output)?;
    let (agreed, session) = loop {
        let offer = Offer { exports: &exports, block_size: shared.block_size, security };
        let open = |at: usize| {
            let begun = Instant::now();
            let opened = shared.open(connection, &exports[at]);
            // The device's time is not the client's.
            until.set(until.get().map(|until| until + begun.elapsed()));
            opened
        };
        let stranger = match negotiate(greeted, &mut input, &mut output, &offer, open)? {
            Negotiated::Left => return Ok(()),
            Negotiated::Opened(agreed, session) => break (agreed, session),
            Negotiated::StartTls => stranger.take().expect("TLS was offered"),
        };
        if !input.buffer().is_empty() {
            // They would be taken for the host's, though anybody may have put them there.
            return Err(broken("bytes in the clear came behind STARTTLS".into()));
        }
        let (channel, rights) =
            Channel::accept(&stranger.tls, &mut output).inspect_err(|error| {
                if error.kind() != ErrorKind::TimedOut {
                    count(&shared.counts.handshakes);
                }
            })?;
        connection.stream.encrypt(channel);
        security = if rights.is_some() { Security::Named } else { Security::Established };
        if let Some(rights) = rights {
            exports = rights.among(&shared.exports);
            host.extend(rights.name.iter().map(|name| format!(" ({name})")));
        }
    };
    drop(stranger);
    until.set(None);
    connection.stream.set_timeout(None)?;
    let export = &exports[agreed.export];
    (shared.tell)(News::Opened { connection: connection.id, host, export: export.name.clone() });
    let (session, before) = match session {
        Some(session) => (session, Vec::new()),
        None => match first_session(shared, connection, (export, agreed), &mut input)? {
            Some(first) => first,
            None => return Ok(()),
        },
    };
    transmit(connection, &session, export, agreed, (&mut input, before))
}
