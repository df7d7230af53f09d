//! The one file with every setting of a service, and the command line's word over it.
//!
//! `docs/afterimage.toml` has each setting with its default, and says what it does; a test holds the two together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use afterimage::{Durability, Settings};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use tracing_subscriber::filter::Targets;

use super::sockets::{Access, Owner};
use super::volumes::Named;
use super::{durable, log};
use crate::args::{self, DurabilityArg};
use crate::exit::{Exit, Failure};

/// The file that explains all.
pub const EXAMPLE: &str = include_str!("../../../docs/afterimage.toml");

/// A longer file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A service's settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// The device's directory.
    pub directory: Option<PathBuf>,
    /// The connection to the peer.
    pub link: Link,
    /// Hosts.
    pub hosts: Hosts,
    /// The rights: how each may be asked for.
    pub control: Control,
    /// The engine.
    pub device: Engine,
    /// Commands at changes of role.
    pub hooks: Hooks,
    /// Metrics.
    pub metrics: Metrics,
    /// The log.
    pub log: Log,
    /// The end of the service.
    pub stop: Stop,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where they are: `HOST:PORT`.
    pub listen: Option<String>,
    /// Whether that may be another address than one of loopback.
    pub beyond_loopback: bool,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Log {
    /// The levels that are logged.
    pub level: Option<Levels>,
}

/// The end of the service.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Stop {
    /// Whether SIGTERM and SIGINT wait until nothing is owed, either way.
    pub drain: bool,
    /// For so long at most.
    pub limit: Time,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { drain: false, limit: Time(60_000_000_000) }
    }
}

/// The connection to the peer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Link {
    /// Where the peer is waited for.
    pub listen: Option<String>,
    /// Where it is dialled.
    pub peer: Option<String>,
    /// Bytes a second.
    pub rate: Option<Size>,
    /// How far the peer may be behind, as an operator wants it.
    pub recovery_point: Option<Time>,
}

/// Hosts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Hosts {
    /// The sockets: `unix:PATH` or `HOST:PORT`.
    pub nbd: Vec<String>,
    /// Whether a TCP socket may be for anybody who reaches it.
    pub insecure: bool,
    /// The certificates that the service shows on TCP sockets, its own first, in PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key: Option<PathBuf>,
    /// The authorities that sign the certificates of hosts, in PEM.
    pub client_ca: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once whose TLS handshake is not over.
    pub handshakes: usize,
    /// The mode of unix sockets.
    pub mode: Mode,
    /// The owner of unix sockets.
    pub owner: Option<Owner>,
    /// How long a host waits for a device that is about to serve.
    pub patience: Time,
    /// How long hosts are gone before the host is offered to the peer; 0: it never is.
    pub handover_after: Time,
    /// Settings of single exports, by their names.
    pub exports: BTreeMap<String, Export>,
}

/// An export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Export {
    /// Whether several connections write to it at once.
    pub shared: bool,
    /// Whether hosts only read it.
    pub read_only: bool,
    /// Whether the first read or write of a host at the fenced device takes the host over.
    pub takeover_at_first_io: bool,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts {
            nbd: Vec::new(),
            insecure: false,
            certificate: None,
            key: None,
            client_ca: None,
            connections: 64,
            handshakes: 16,
            mode: Mode(0o600),
            owner: None,
            patience: Time(10_000_000_000),
            handover_after: Time(0),
            exports: BTreeMap::new(),
        }
    }
}

/// The rights: the modes of the three sockets, and their owners.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Control {
    /// To look.
    pub see: Mode,
    /// Its owner.
    pub see_owner: Option<Owner>,
    /// To move the host.
    pub operate: Mode,
    /// Its owner.
    pub operate_owner: Option<Owner>,
    /// To answer for a loss.
    pub force: Mode,
    /// Its owner.
    pub force_owner: Option<Owner>,
}

impl Control {
    /// Those who have each right, from the least to the most.
    pub fn access(&self) -> [Access; 3] {
        let of = |mode: Mode, owner: &Option<Owner>| Access { mode: mode.0, owner: owner.clone() };
        [
            of(self.see, &self.see_owner),
            of(self.operate, &self.operate_owner),
            of(self.force, &self.force_owner),
        ]
    }
}

impl Default for Control {
    fn default() -> Control {
        Control {
            see: Mode(0o660),
            see_owner: None,
            operate: Mode(0o600),
            operate_owner: None,
            // No mode keeps root out.
            force: Mode(0),
            force_owner: None,
        }
    }
}

/// The engine's settings; `None` is its default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Engine {
    durability: Option<Word<DurabilityArg>>,
    pacing_max: Option<Time>,
    pacing_from_percent: Option<u64>,
    pacing_until_percent: Option<u64>,
    suspend_from_percent: Option<u64>,
    suspend_after: Option<Time>,
    resume_order_below_percent: Option<u64>,
    resume_order_after: Option<Time>,
    salvage_max: Option<Size>,
    salvage_keep: Option<Time>,
    image_max: Option<Size>,
    takeover_timeout: Option<Time>,
    remote_read_timeout: Option<Time>,
    admit_timeout: Option<Time>,
}

impl Engine {
    /// These settings.
    pub fn settings(&self) -> Settings {
        // A restart is not to be seen by hosts that reconnect (R20).
        let durability = self.durability.map_or(Durability::Written, |word| word.0.into());
        // A device that joins is made by a program that knows bits.
        let suspends_without_peer = true;
        let mut all = Settings { durability, suspends_without_peer, ..Settings::default() };
        set(&mut all.pacing_max_ns, self.pacing_max.map(|time| time.0));
        set(&mut all.pacing_from_percent, self.pacing_from_percent);
        set(&mut all.pacing_until_percent, self.pacing_until_percent);
        set(&mut all.suspend_from_percent, self.suspend_from_percent);
        set(&mut all.suspend_after_ns, self.suspend_after.map(|time| time.0));
        set(&mut all.resume_order_below_percent, self.resume_order_below_percent);
        set(&mut all.resume_order_after_ns, self.resume_order_after.map(|time| time.0));
        set(&mut all.salvage_bytes_max, self.salvage_max.map(|size| size.0));
        set(&mut all.salvage_keep_ns, self.salvage_keep.map(|time| time.0));
        set(&mut all.image_bytes_max, self.image_max.map(|size| size.0));
        set(&mut all.takeover_timeout_ns, self.takeover_timeout.map(|time| time.0));
        set(&mut all.remote_read_timeout_ns, self.remote_read_timeout.map(|time| time.0));
        set(&mut all.admit_timeout_ns, self.admit_timeout.map(|time| time.0));
        all
    }
}

fn set<T>(at: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *at = to;
    }
}

/// Commands at changes of role: a program and its arguments; empty: none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Hooks {
    /// The device serves; hosts are told that they reach it after this.
    pub ready: Vec<String>,
    /// The host is granted to the peer.
    pub fenced: Vec<String>,
    /// A command that takes longer is killed.
    pub limit: Time,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks { ready: Vec::new(), fenced: Vec::new(), limit: Time(10_000_000_000) }
    }
}

/// Bytes, such as "20MiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Nanoseconds, such as "5ms".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

/// The mode of a socket, such as "0660".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// The levels of the log, such as "info" or "warn,afterimage::order=debug".
#[derive(Clone, Debug, PartialEq)]
pub struct Levels(pub Targets);

/// One of a list of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<T>(T);

fn word<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    parse(&String::deserialize(from)?).map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        word(from, |word| args::size(word.strip_suffix("/s").unwrap_or(word))).map(Size)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        word(from, args::delay).map(Time)
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Levels, D::Error> {
        word(from, log::levels).map(Levels)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        word(from, |word| match u32::from_str_radix(word, 8) {
            Ok(mode) if mode <= 0o777 => Ok(mode),
            _ => Err(format!("`{word}` is no mode: three octal digits, such as \"0660\"")),
        })
        .map(Mode)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Owner, D::Error> {
        word(from, str::parse)
    }
}

impl<'de, T: clap::ValueEnum> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Word<T>, D::Error> {
        word(from, |word| {
            T::from_str(word, false).map_err(|_| {
                let all = T::value_variants().iter().filter_map(|value| value.to_possible_value());
                let all: Vec<_> = all.map(|value| value.get_name().to_owned()).collect();
                format!("`{word}` is none of {}", all.join(", "))
            })
        })
        .map(Word)
    }
}

impl Config {
    /// The settings of an engine whose volumes have these names.
    pub fn engine(&self, names: &[Named]) -> Settings {
        let is_shared =
            |named: &&Named| self.hosts.exports.get(&named.name).is_some_and(|of| of.shared);
        let shared_volumes = names.iter().filter(is_shared).map(|named| named.id).collect();
        Settings { shared_volumes, ..self.device.settings() }
    }

    /// The configuration in the file `path`.
    ///
    /// # Errors
    /// [`Exit::Usage`], naming what is wrong and where: no such setting, a value of another kind, a value that cannot be.
    pub fn read(path: &Path) -> Result<Config, Failure> {
        let wrong = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
        let bytes = durable::read(path, FILE_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
        let bytes = bytes.ok_or_else(|| wrong("there is no such file".into()))?;
        let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
        Config::parse(&text).map_err(wrong)
    }

    /// The configuration that `text` has.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Config, String> {
        let from = toml::Deserializer::parse(text).map_err(|e| e.to_string())?;
        let mut unknown = Vec::new();
        let config: Config = serde_ignored::deserialize(from, |key| unknown.push(key.to_string()))
            .map_err(|e| e.to_string())?;
        if !unknown.is_empty() {
            return Err(format!(
                "no setting is called {}: `afterimage config example` prints all that there are",
                unknown.join(", ")
            ));
        }
        let hosts = &config.hosts;
        for (name, value) in [("connections", hosts.connections), ("handshakes", hosts.handshakes)]
        {
            if value == 0 {
                return Err(format!("hosts.{name} is 0: at least 1"));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_every_setting_and_its_default() {
        let shown = Config::parse(EXAMPLE).unwrap();
        assert_eq!(shown, Config::default(), "what is not commented out is the default");
        // A setting that is commented out can be said, too.
        let said: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(setting) if setting.starts_with('[') => setting,
                Some(setting) if setting.contains(" = ") && !setting.starts_with(' ') => setting,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let all = Config::parse(&said).unwrap();
        assert!(all.directory.is_some() && all.link.listen.is_some() && all.link.peer.is_some());
        assert!(all.link.rate.is_some() && !all.hooks.ready.is_empty());
        let Hosts { certificate, key, client_ca, owner, exports, .. } = &all.hosts;
        assert!([certificate, key, client_ca].iter().all(|file| file.is_some()) && owner.is_some());
        assert_eq!(exports["data"], Export::default());
        assert!(all.control.access().iter().all(|access| access.owner.is_some()));
        assert!(all.link.recovery_point.is_some() && all.metrics.listen.is_some());
        assert!(all.log.level.is_some());
        let Engine {
            durability,
            pacing_max,
            pacing_from_percent,
            pacing_until_percent,
            suspend_from_percent,
            suspend_after,
            resume_order_below_percent,
            resume_order_after,
            salvage_max,
            salvage_keep,
            image_max,
            takeover_timeout,
            remote_read_timeout,
            admit_timeout,
        } = &all.device;
        let times = [
            pacing_max,
            suspend_after,
            resume_order_after,
            salvage_keep,
            takeover_timeout,
            remote_read_timeout,
            admit_timeout,
        ];
        let percents = [
            pacing_from_percent,
            pacing_until_percent,
            suspend_from_percent,
            resume_order_below_percent,
        ];
        assert!(times.iter().all(|time| time.is_some()), "{times:?}");
        assert!(percents.iter().all(|percent| percent.is_some()), "{percents:?}");
        assert!(durability.is_some() && salvage_max.is_some() && image_max.is_some());
        // The values that it names are the engine's defaults.
        assert_eq!(
            format!("{:?}", all.device.settings()),
            format!("{:?}", Engine::default().settings())
        );
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, why) in [
            ("colour = 1", "colour"),
            ("[link]\nlisten = 7", "listen"),
            ("[link]\nlisen = \"a:1\"\n[hosts]\nndb = []", "hosts.ndb, link.lisen"),
            ("[control]\nsee = \"999\"", "no mode"),
            ("[control]\nsee-owner = \":\"", "no owner"),
            ("[hosts]\nconnections = 0", "at least 1"),
            ("[hosts]\nhandshakes = 0", "at least 1"),
            ("[hosts]\nowner = \"a:b:c\"", "owner"),
            ("[hosts.exports.data]\nshard = true", "hosts.exports.data.shard"),
            ("[hosts]\npatience = \"soon\"", "soon"),
            ("[hosts.exports.data]\nfirst-io = true", "hosts.exports.data.first-io"),
            ("[device]\ndurability = \"perhaps\"", "none of strict, written"),
            ("[device]\nsalvage-max = \"5 parsec\"", "parsec"),
            ("[log]\nlevel = \"x=loud\"", "loud"),
            ("[stop]\nlimit = \"9 parsec\"", "parsec"),
            ("[device", "line 1"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
