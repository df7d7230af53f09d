//! The service's connection to its peer: dialled or waited for, encrypted, and how it is doing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use afterimage::internal::format::superblock::Superblock;
use afterimage::tcp::{Acceptor, Dialler, Pins, PublicKey, Rate, Record, TcpSettings};
use afterimage::{Device, Error, Threads};
use serde::Serialize;

use super::config;
use super::news::News;
use super::pairing::{self, Host, Peer};
use super::volumes::Named;
use crate::exit::{Exit, Failure};

/// The way to the peer, as the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct LineArgs {
    /// Wait for the peer at this address, and for a device that joins
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "peer")]
    pub listen: Option<String>,

    /// Dial the peer at this address; without this and --listen, the address at which the device has joined
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Option<String>,

    /// Without keys and encryption, between loopback addresses, for a pair that was made without keys
    #[arg(long)]
    pub insecure: bool,

    /// Bytes a second to the peer.
    #[arg(skip)]
    pub rate: Option<u64>,
}

impl LineArgs {
    /// The way that the command line names, or else the configuration's `link`.
    pub fn over(&self, link: config::Link) -> LineArgs {
        let is_said = self.listen.is_some() || self.peer.is_some();
        let (listen, peer) = match is_said {
            true => (self.listen.clone(), self.peer.clone()),
            false => (link.listen, link.peer),
        };
        let rate = link.rate.map(|rate| rate.0);
        LineArgs { listen, peer, insecure: self.insecure, rate }
    }
}

#[derive(Clone)]
enum End {
    None,
    Accepts(Acceptor),
    Dials(Dialler, String),
}

/// The connection of one service.
pub struct PeerLine {
    dir: PathBuf,
    end: End,
    /// Whether it is without keys.
    insecure: bool,
    pins: Pins,
    rate: Rate,
    /// The device's at its last opening.
    superblock: Mutex<Superblock>,
    names: Vec<Named>,
    /// One invitation at a time.
    inviting: Mutex<()>,
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the connection is doing.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `listens`, `dials` or `none`.
    pub(super) way: &'static str,
    /// Where it listens, or whom it dials.
    pub(super) address: Option<String>,
    pub(super) peer_address: Option<String>,
    /// The fingerprint of the key that the peer has shown.
    pub(super) peer_key: Option<String>,
    /// Why the last attempt to dial failed.
    pub(super) trouble: Option<String>,
    /// Connections that were refused.
    pub(super) refused: Option<Refused>,
    /// The most that is sent, in bytes a second.
    pub(super) rate_limit: Option<u64>,
}

/// Connections that have come and got no session, by reason.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    pub(super) wrong_key: u64,
    pub(super) timed_out: u64,
    pub(super) malformed: u64,
    pub(super) too_many: u64,
}

impl PeerLine {
    /// This device's end of the connection, as `args` say.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the arguments do not fit the device; [`Exit::Device`] if an address cannot be listened at.
    pub fn new(
        dir: &Path,
        args: &LineArgs,
        (superblock, names): (Superblock, Vec<Named>),
    ) -> Result<PeerLine, Failure> {
        let failed = |e: Error| Failure::device("the connection to the peer", &e);
        let usage = |what: &str| Err(Failure::new(Exit::Usage, what));
        if args.listen.is_some() && args.peer.is_some() {
            return usage("the device is to listen and to dial: one of them");
        }
        let (peer, key) = (Peer::read(dir)?, pairing::key_of(dir)?);
        let pins = pairing::pins(peer.as_ref());
        let settings = TcpSettings::default();
        let rate = settings.rate.clone();
        let joined_at = peer.and_then(|peer| peer.address).filter(|_| args.listen.is_none());
        let end = match (&args.listen, args.peer.clone().or(joined_at), key) {
            (None, None, _) => End::None,
            (_, _, None) if !args.insecure => {
                return usage(
                    "the device has no key, so that its connection cannot be encrypted: make a device with `afterimage \
                     init`, or say --insecure between loopback addresses",
                );
            }
            (_, _, Some(_)) if args.insecure => {
                return usage(
                    "the device has a key, and is never connected without: leave --insecure out",
                );
            }
            (Some(address), _, None) => {
                End::Accepts(Acceptor::insecure(address, &pins, settings).map_err(failed)?)
            }
            (Some(address), _, Some(key)) => {
                End::Accepts(Acceptor::bind(address, &key, &pins, settings).map_err(failed)?)
            }
            (None, Some(address), None) => {
                let dialler = Dialler::insecure(&address, &pins, settings).map_err(failed)?;
                End::Dials(dialler, address)
            }
            (None, Some(_), Some(_)) if pins.is_empty() => {
                return usage("the device has no peer yet: let it join one, or listen");
            }
            (None, Some(address), Some(key)) => {
                End::Dials(Dialler::new(&address, &key, &pins, settings), address)
            }
        };
        let line = PeerLine {
            dir: dir.into(),
            end,
            insecure: args.insecure,
            pins,
            rate,
            superblock: Mutex::new(superblock),
            names,
            inviting: Mutex::default(),
        };
        line.limit(args.rate)?;
        Ok(line)
    }

    /// Keeps `device` connected by the threads of `threads`; `superblock` is the device's at its opening.
    ///
    /// # Errors
    /// [`Exit::Device`] if the invitation that stands cannot be read, or the system refuses a thread.
    pub fn keep(
        &self,
        (device, threads): (&Arc<Device>, &Threads),
        superblock: Superblock,
        news: &Arc<News>,
    ) -> Result<(), Failure> {
        *lock(&self.superblock) = superblock;
        match self.end().clone() {
            End::None => Ok(()),
            End::Accepts(acceptor) => {
                if let Some(record) = self.standing()? {
                    acceptor.invite(record, self.host(news));
                }
                threads.keep_connected(device, acceptor)
            }
            End::Dials(dialler, _) => threads.keep_connected(device, dialler),
        }
        .map_err(|e: Error| Failure::device("the connection to the peer", &e))
    }

    /// The volumes' names.
    pub fn volumes(&self) -> &[Named] {
        &self.names
    }

    /// The way to the peer: none once it was forgotten by a device that dials.
    fn end(&self) -> &End {
        match &self.end {
            End::Dials(..) if !self.insecure && self.pins.is_empty() => &End::None,
            end => end,
        }
    }

    /// The peer gets no connection any more, whatever it says, and may not join by an invitation of before.
    ///
    /// # Errors
    /// [`Exit::Device`] if its pin cannot be removed.
    pub fn forget(&self) -> Result<(), Failure> {
        let pinned = Peer::read(&self.dir)?.and_then(|peer| peer.key());
        if let End::Accepts(acceptor) = &self.end {
            acceptor.withdraw();
        }
        let unpinned = pairing::forget(&self.dir);
        unpinned.map_err(|e| Failure::storage("forgetting the peer's key", &e))?;
        pinned.into_iter().for_each(|key| self.pins.remove(key));
        Ok(())
    }

    /// The invitation that may still be used: none once the peer was met.
    fn standing(&self) -> Result<Option<Record>, Failure> {
        let peer = lock(&self.superblock).peer;
        match peer {
            0 => pairing::standing(&self.dir),
            _ => Ok(None),
        }
    }

    fn host(&self, news: &Arc<News>) -> Host {
        Host::new(&self.dir, &lock(&self.superblock), &self.names, news.clone())
    }

    /// A new invitation, which takes the place of the one before.
    ///
    /// # Errors
    /// [`Exit::Refused`] if the service does not listen, or has met a peer; [`Exit::Device`] if the storage fails.
    pub fn invite(&self, news: &Arc<News>) -> Result<String, Failure> {
        let End::Accepts(acceptor) = &self.end else {
            let what =
                "the service does not listen, so that no device can join: start it with --listen";
            return Err(Failure::new(Exit::Refused, what));
        };
        let _one = lock(&self.inviting);
        // None that joins is decided about meanwhile.
        acceptor.withdraw();
        let pinned = Peer::read(&self.dir)?.and_then(|peer| peer.key());
        if lock(&self.superblock).peer != 0 || pinned.is_some() && acceptor.peer().is_some() {
            if let Some(record) = self.standing()? {
                acceptor.invite(record, self.host(news));
            }
            let what = "the device has a peer: if that one is lost for good, let the device forget it (`afterimage \
                        forget-peer`)";
            return Err(Failure::new(Exit::Refused, what));
        }
        // A device that has joined and was never met may have lost its key.
        self.forget()?;
        let (invitation, record) = pairing::invite(&self.dir)?;
        acceptor.invite(record, self.host(news));
        Ok(invitation)
    }

    /// Limits what is sent, to so many bytes a second, or not.
    ///
    /// # Errors
    /// [`Exit::Refused`] if that is less than the least.
    pub fn limit(&self, bytes_per_second: Option<u64>) -> Result<(), Failure> {
        let limited = self.rate.set(bytes_per_second);
        limited.map_err(|e| Failure::new(Exit::Refused, e.to_string()))
    }

    /// How it is doing.
    pub fn report(&self) -> Report {
        let shown = |peer: Option<(std::net::SocketAddr, Option<PublicKey>)>| {
            let key = peer.and_then(|(_, key)| key).map(|key| key.fingerprint().to_string());
            (peer.map(|(address, _)| address.to_string()), key)
        };
        let rate_limit = self.rate.get();
        match self.end() {
            End::None => Report {
                way: "none",
                address: None,
                peer_address: None,
                peer_key: None,
                trouble: None,
                refused: None,
                rate_limit,
            },
            End::Accepts(acceptor) => {
                let (peer_address, peer_key) = shown(acceptor.peer());
                let counters = acceptor.counters();
                let refused = Refused {
                    wrong_key: counters.wrong_key,
                    timed_out: counters.timed_out,
                    malformed: counters.malformed,
                    too_many: counters.too_many,
                };
                let address = Some(acceptor.address().to_string());
                let (way, trouble, refused) = ("listens", None, Some(refused));
                Report { way, address, peer_address, peer_key, trouble, refused, rate_limit }
            }
            End::Dials(dialler, address) => {
                let (peer_address, peer_key) = shown(dialler.peer());
                let (way, address) = ("dials", Some(address.clone()));
                let trouble = dialler.trouble().map(|e| e.to_string());
                let refused = None;
                Report { way, address, peer_address, peer_key, trouble, refused, rate_limit }
            }
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            None => f.write_str("none: the service neither listens nor dials")?,
            Some(address) if self.way == "dials" => write!(f, "dials {address}")?,
            Some(address) => write!(f, "listens at {address}")?,
        }
        if let Some(address) = &self.peer_address {
            write!(f, ", last peer {address}")?;
        }
        if let Some(key) = &self.peer_key {
            write!(f, ", key {key}")?;
        }
        self.trouble.as_ref().map_or(Ok(()), |trouble| write!(f, "; {trouble}"))
    }
}
