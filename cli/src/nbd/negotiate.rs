//! The first phase of a connection: the client's options, each answered, until one of them opens an
//! export or the client leaves.
//!
//! # Rules
//! - An option that is not known gets an error reply, and so does one whose data is not what it should be;
//!   the next option follows.
//! - Data longer than [`OPTION_BYTES_MAX`] is read and dropped, up to [`DROPPED_BYTES_MAX`]; beyond that,
//!   at a wrong magic and at unknown flags the connection ends.
//! - `STARTTLS` ends a negotiation; behind the handshake another one begins, which knows nothing of it. Where
//!   TLS is required, nothing but `STARTTLS` and `ABORT` is answered before.
//! - Only `GO` and `EXPORT_NAME` concern the device: `LIST` and `INFO` disturb nobody (R20).

use super::Export;
use super::tls::Security;
use super::wire::{Fields, OptionHead, export, greeting, info, option, option_reply, reply};
use std::io::{self, ErrorKind, Read, Write};

/// Most bytes of an option's data that are looked at: a name is 4,096 at most, and a dozen queries beside it.
const OPTION_BYTES_MAX: u32 = 64 << 10;

/// Most bytes of an option that are read and dropped.
const DROPPED_BYTES_MAX: u32 = 1 << 20;

/// Most bytes of one request's data, which is advertised.
pub(super) const PAYLOAD_MAX: u32 = 32 << 20;

/// The contexts of block status, by the numbers that they are known under, counted from 1.
pub(super) const CONTEXTS: [&str; 2] = ["base:allocation", "afterimage:location"];

/// The terms that server and client have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Which export.
    pub export: usize,
    /// Reads are answered in chunks.
    pub structured: bool,
    /// The contexts that block status tells of, as bits.
    pub contexts: u8,
}

/// The exports, as a client sees them.
pub(super) struct Offer<'a> {
    pub exports: &'a [Export],
    /// The block size of the device, in bytes.
    pub block_size: u32,
    pub security: Security,
}

impl Offer<'_> {
    /// The export of that name, or an error reply. The empty name is that of the only one.
    fn find(&self, name: &str) -> Result<usize, (u32, &'static str)> {
        let found = match (name, self.exports) {
            ("", [_]) => Some(0),
            _ => self.exports.iter().position(|export| export.name == name),
        };
        found.ok_or(match self.security {
            Security::Named => (
                reply::ERR_POLICY,
                "the certificate names no such export (afterimage:export:NAME:ro or :rw)",
            ),
            _ => (reply::ERR_UNKNOWN, "there is no export of that name"),
        })
    }

    fn flags(&self, at: usize, structured: bool) -> u16 {
        let mut flags = export::HAS_FLAGS
            | export::SEND_FLUSH
            | export::SEND_FUA
            | export::SEND_TRIM
            | export::SEND_WRITE_ZEROES
            | export::SEND_FAST_ZERO
            | export::SEND_CACHE;
        let more = [
            (self.exports[at].read_only, export::READ_ONLY),
            (structured, export::SEND_DF),
            (self.exports[at].shared, export::CAN_MULTI_CONN),
        ];
        more.iter().filter(|(has, _)| *has).for_each(|(_, flag)| flags |= flag);
        flags
    }
}

/// How a client and the server have greeted each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeted {
    /// Options are answered.
    is_fixed: bool,
    /// Zeros behind the reply to `EXPORT_NAME`.
    zeros: usize,
}

/// The end of a negotiation.
pub(super) enum Negotiated<S> {
    /// The client has left in good order.
    Left,
    Opened(Agreed, S),
    /// The client begins a TLS handshake.
    StartTls,
}

/// Greets a client.
///
/// # Errors
/// [`ErrorKind::InvalidData`] with what was wrong; the socket's.
pub(super) fn greet(input: &mut impl Read, output: &mut impl Write) -> io::Result<Greeted> {
    output.write_all(&super::wire::greeting())?;
    let flags = u32::from_be_bytes(take(input)?);
    let known = greeting::FIXED_NEWSTYLE | greeting::NO_ZEROES;
    if flags & !u32::from(known) != 0 {
        return Err(broken(format!(
            "the client greets with flags {flags:#x}, {known:#x} are known"
        )));
    }
    let is_fixed = flags & u32::from(greeting::FIXED_NEWSTYLE) != 0;
    let zeros = if flags & u32::from(greeting::NO_ZEROES) != 0 { 0 } else { 124 };
    Ok(Greeted { is_fixed, zeros })
}

/// Answers a client's options. `open` waits until the export of that number may be served, and says else why it is not.
///
/// # Errors
/// [`ErrorKind::InvalidData`] with what was wrong; the socket's.
pub(super) fn negotiate<S>(
    greeted: Greeted,
    input: &mut impl Read,
    output: &mut impl Write,
    offer: &Offer<'_>,
    open: impl FnMut(usize) -> Result<S, String>,
) -> io::Result<Negotiated<S>> {
    let mut talk = Talk { input, output, offer, open, agreed: Agreed::default(), asked: None };
    loop {
        let OptionHead { option, length } =
            OptionHead::decode(&take(talk.input)?).map_err(broken)?;
        if !greeted.is_fixed && option != option::EXPORT_NAME {
            let what = format!("option {option} of a client that expects no answers");
            return Err(broken(what));
        }
        let Some(data) = talk.data(option, length)? else { continue };
        match option {
            option::ABORT => {
                talk.reply(option, reply::ACK, &[])?;
                return Ok(Negotiated::Left);
            }
            option::STARTTLS => match offer.security {
                Security::None => talk.refuse(option, reply::ERR_UNSUP, "there is no TLS here")?,
                _ if !data.is_empty() => {
                    talk.refuse(option, reply::ERR_INVALID, "this option has no data")?;
                }
                Security::Established | Security::Named => {
                    talk.refuse(option, reply::ERR_INVALID, "this is TLS already")?;
                }
                Security::Offered | Security::Required => {
                    talk.reply(option, reply::ACK, &[])?;
                    return Ok(Negotiated::StartTls);
                }
            },
            _ if offer.security == Security::Required => {
                let why = "everything here takes TLS: STARTTLS comes first";
                if option == option::EXPORT_NAME {
                    return Err(broken(why.into()));
                }
                talk.refuse(option, reply::ERR_TLS_REQD, why)?;
            }
            option::EXPORT_NAME => {
                let (agreed, opened) = talk.export_name(&data, greeted.zeros)?;
                return Ok(Negotiated::Opened(agreed, opened));
            }
            option::GO | option::INFO => {
                if let Some(opened) = talk.info(option, &data)? {
                    return Ok(Negotiated::Opened(talk.agreed, opened));
                }
            }
            option::LIST => talk.list(&data)?,
            option::STRUCTURED_REPLY if data.is_empty() => {
                talk.agreed.structured = true;
                talk.reply(option, reply::ACK, &[])?;
            }
            option::STRUCTURED_REPLY => {
                talk.refuse(option, reply::ERR_INVALID, "this option has no data")?;
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => talk.contexts(option, &data)?,
            _ => talk.refuse(option, reply::ERR_UNSUP, "this option is not known here")?,
        }
    }
}

struct Talk<'a, I, O, F> {
    input: &'a mut I,
    output: &'a mut O,
    offer: &'a Offer<'a>,
    open: F,
    agreed: Agreed,
    /// The export that the contexts were asked for.
    asked: Option<usize>,
}

impl<I: Read, O: Write, S, F: FnMut(usize) -> Result<S, String>> Talk<'_, I, O, F> {
    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        self.output.write_all(&option_reply(option, kind, data))
    }

    fn refuse(&mut self, option: u32, kind: u32, why: &str) -> io::Result<()> {
        self.reply(option, kind, why.as_bytes())
    }

    /// The data of an option; `None` if there was too much of it, which the client has been told.
    fn data(&mut self, option: u32, length: u32) -> io::Result<Option<Vec<u8>>> {
        if length <= OPTION_BYTES_MAX {
            let mut data = vec![0; length as usize];
            self.input.read_exact(&mut data)?;
            return Ok(Some(data));
        }
        if length > DROPPED_BYTES_MAX || option == option::EXPORT_NAME {
            return Err(broken(format!("option {option} has {length} bytes")));
        }
        drop_bytes(self.input, length.into())?;
        let why = format!("{length} bytes, {OPTION_BYTES_MAX} at most");
        self.refuse(option, reply::ERR_TOO_BIG, &why)?;
        Ok(None)
    }

    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.refuse(option::LIST, reply::ERR_INVALID, "this option has no data");
        }
        for export in self.offer.exports {
            let mut server = (export.name.len() as u32).to_be_bytes().to_vec();
            server.extend(export.name.as_bytes());
            server.extend(export.description.as_bytes());
            self.reply(option::LIST, reply::SERVER, &server)?;
        }
        self.reply(option::LIST, reply::ACK, &[])
    }

    /// `INFO` and `GO`, which tell the same; the second one opens the export.
    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Option<S>> {
        let Some((name, wanted)) = info_request(data) else {
            let why = "a name and a list of what is wanted, with their lengths, are expected";
            return self.refuse(option, reply::ERR_INVALID, why).map(|()| None);
        };
        let at = match self.offer.find(name) {
            Ok(at) => at,
            Err((kind, why)) => return self.refuse(option, kind, why).map(|()| None),
        };
        let opened = match option {
            option::GO => match (self.open)(at) {
                Ok(opened) => Some(opened),
                Err(why) => {
                    return self.refuse(option, reply::ERR_SHUTDOWN, &why).map(|()| None);
                }
            },
            _ => None,
        };
        let found = &self.offer.exports[at];
        let tell = |kind: u16, data: &[u8]| [&kind.to_be_bytes(), data].concat();
        let size = found.bytes.to_be_bytes();
        let flags = self.offer.flags(at, self.agreed.structured).to_be_bytes();
        let mut told = vec![tell(info::EXPORT, &[&size[..], &flags[..]].concat())];
        if wanted.contains(&info::NAME) {
            told.push(tell(info::NAME, found.name.as_bytes()));
        }
        if wanted.contains(&info::DESCRIPTION) && !found.description.is_empty() {
            told.push(tell(info::DESCRIPTION, found.description.as_bytes()));
        }
        let sizes = [1, self.offer.block_size, PAYLOAD_MAX].map(u32::to_be_bytes);
        told.push(tell(info::BLOCK_SIZE, sizes.as_flattened()));
        for told in told {
            self.reply(option, reply::INFO, &told)?;
        }
        self.reply(option, reply::ACK, &[])?;
        self.agree_on(at);
        Ok(opened)
    }

    /// Contexts count for the export that they were asked for only.
    fn agree_on(&mut self, at: usize) {
        self.agreed.export = at;
        if self.asked != Some(at) {
            self.agreed.contexts = 0;
        }
    }

    fn contexts(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let sets = option == option::SET_META_CONTEXT;
        if sets {
            (self.asked, self.agreed.contexts) = (None, 0);
        }
        let Some((name, queries)) = context_request(data) else {
            let why = "a name and a list of queries, with their lengths, are expected";
            return self.refuse(option, reply::ERR_INVALID, why);
        };
        if sets && !self.agreed.structured {
            let why = "block status takes structured replies, ask for them first";
            return self.refuse(option, reply::ERR_INVALID, why);
        }
        let at = match self.offer.find(name) {
            Ok(at) => at,
            Err((kind, why)) => return self.refuse(option, kind, why),
        };
        let is_asked = |context: &str| {
            let all = !sets && queries.is_empty();
            // A query that ends behind the colon is for all contexts of a kind.
            let of_kind = |query: &str| !sets && query.ends_with(':') && context.starts_with(query);
            all || queries.iter().any(|query| *query == context || of_kind(query))
        };
        for (bit, context) in CONTEXTS.iter().enumerate().filter(|(_, context)| is_asked(context)) {
            let id = if sets { bit as u32 + 1 } else { 0 };
            if sets {
                self.agreed.contexts |= 1 << bit;
            }
            let told = [&id.to_be_bytes(), context.as_bytes()].concat();
            self.reply(option, reply::META_CONTEXT, &told)?;
        }
        if sets {
            self.asked = Some(at);
        }
        self.reply(option, reply::ACK, &[])
    }

    /// The one option that has no error reply: the connection ends instead.
    fn export_name(&mut self, data: &[u8], zeros: usize) -> io::Result<(Agreed, S)> {
        let name = std::str::from_utf8(data);
        let name = name.map_err(|_| broken("the name of an export is no text".into()))?;
        let at = self.offer.find(name).map_err(|(_, why)| broken(why.into()))?;
        let opened =
            (self.open)(at).map_err(|why| io::Error::new(ErrorKind::ConnectionAborted, why))?;
        let mut told = self.offer.exports[at].bytes.to_be_bytes().to_vec();
        told.extend(self.offer.flags(at, self.agreed.structured).to_be_bytes());
        told.resize(told.len() + zeros, 0);
        self.output.write_all(&told)?;
        self.agree_on(at);
        Ok((self.agreed, opened))
    }
}

/// The name and the wishes of `INFO` and `GO`; `None` if the lengths do not fit.
fn info_request(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = usize::from(fields.u16()?);
    if fields.0.len() != 2 * count {
        return None;
    }
    let wanted = std::iter::from_fn(|| fields.u16()).collect();
    Some((name, wanted))
}

/// The name and the queries of the options for contexts; `None` if the lengths do not fit.
fn context_request(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(fields.text()?);
    }
    fields.0.is_empty().then_some((name, queries))
}

/// A client that breaks the protocol.
pub(super) fn broken(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The next bytes.
pub(super) fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads `count` bytes that nobody wants.
pub(super) fn drop_bytes(input: &mut impl Read, count: u64) -> io::Result<()> {
    match io::copy(&mut input.take(count), &mut io::sink())? {
        dropped if dropped == count => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}
