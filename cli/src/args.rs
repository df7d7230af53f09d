//! Every flag, once: parsing, help and defaults.
//!
//! Sizes are `512`, `64KiB`, `20MiB` (also `K`, `M`, `G`, `T`, which mean the same, and `kB`,
//! `MB`, `GB`, `TB`, which are powers of ten). Times are `250us`, `5ms`, `1.5s`, `2m`, `-1h`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use afterimage::internal::limits::Durability;
use afterimage::internal::unit::Mode;

use crate::disaster::{Choice, ForceArgs};
use crate::results::Target;
use crate::service::control::wire::Point;
use crate::trace::{Format, Input};
use crate::words::duration;

/// Replication of block storage in time order, with a takeover that does not wait for the copy.
#[derive(Debug, Parser)]
#[command(name = "afterimage", version, about, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay block traces against a pair of devices, through takeovers, and prove the result
    ///
    /// Reads and writes go to device A. At the chosen points the host moves to the other device,
    /// with whatever backlog the link has left, and goes on there at once. At the end both
    /// directions drain, and both devices are compared with each other and with what was written.
    Replay(Box<ReplayArgs>),

    /// Print a device directory: superblocks, unreflected tables, data location table
    ///
    /// Read-only, and on damaged directories too: what is wrong is named, the rest is shown.
    Inspect(crate::inspect::Args),

    /// Compare the normal volumes of two device directories
    Verify(crate::verify::Args),

    /// Run two simulated devices through faults of every kind, and check every promise
    ///
    /// The production code of two devices on simulated disks, line and clocks, in one thread, from
    /// one seed: the same seed is the same run, byte for byte, on every machine. A run that breaks
    /// a promise is made short, shown event by event, and the command that replays it is printed.
    #[cfg(feature = "simulate")]
    Simulate(crate::simulate::Args),

    /// The simulator, which this build lacks
    #[cfg(not(feature = "simulate"))]
    #[command(hide = true, disable_help_flag = true)]
    Simulate {
        /// The arguments of the command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },

    /// Open a device that was not closed, say what was found and cut, and close it
    ///
    /// With both devices of a pair, whatever either still owes the other is copied, so that both
    /// hold the same afterwards. A damaged one is refused, by name, and left as it is.
    Recover(crate::recover::Args),

    /// Change whether a device, once opened, serves without having heard from the other one
    ///
    /// It counts only for a device that held the host and had caught up. With `on` something else, such as a
    /// cluster's fencing, must make sure that this device is dead before the other one is forced to
    /// take over.
    ResumeAlone(crate::closed::PolicyArgs),

    /// Change whether a device asks for the host when the two meet and both are fenced
    Prefer(crate::closed::PolicyArgs),

    /// Accept that writes which hosts were told had completed are lost, so that hosts are served again
    ///
    /// Prints the first record that was lost, since when, and when that was found. To be given at the
    /// device that holds the host, closed cleanly or served, after its volumes have been checked.
    AcceptLoss(crate::closed::Args),

    /// Force a device to take over whose peer is lost, and say what is given up by it
    ///
    /// Something else must make sure that no host uses the other device. Served is the newest state that the
    /// hosts' data had; in the middle of a resync into the device, its last one, if the side file has it
    /// (--image last); or, with --newest, whatever is there. A dry run unless --yes; then the loss
    /// sheet is written to DIR/loss-N.txt and DIR/loss-N.json, and the next opening serves. The other
    /// device, when it returns, becomes the target, and keeps what it alone has as salvage.
    Force(crate::disaster::ForceArgs),

    /// Keep this device's history, of two devices that have served apart
    Resolve(crate::disaster::ResolveArgs),

    /// Forget a peer that is lost for good: another device, made anew, takes its place
    ForgetPeer(crate::disaster::Args),

    /// List, show, copy out or remove what forced takeovers gave up
    Salvage(crate::salvaged::Args),

    /// Make a device: its directory, journals and volumes
    Init(crate::service::init::Args),

    /// Make the peer of a device that is served elsewhere and has invited one
    ///
    /// The invitation is read from a file, from the standard input or at a prompt: it is a secret.
    Join(crate::service::pairing::JoinArgs),

    /// Print a new invitation for a peer; an earlier one is void
    Invite(Served),

    /// Make the certificates by which hosts come by TCP: of both devices, and of each host
    ///
    /// A small certificate authority signs them. The certificate of a host says which exports it may
    /// open, and whether it only reads them. In DIR are server-cert.pem, server-key.pem and
    /// ca-cert.pem for both devices, clients/NAME for each host, as libnbd and qemu expect it, and
    /// ca-key.pem, which belongs on none of them. Run again, it makes certificates of further hosts.
    HostCerts(crate::service::host_certs::Args),

    /// Open a device, and do what it is there for until SIGTERM
    ///
    /// The commands below ask this process, by sockets in the device's directory.
    Serve(crate::service::serve::Args),

    /// Look at a service's configuration before it is used
    Config {
        /// The command.
        #[command(subcommand)]
        command: ConfigCommand,
    },

    /// Say where a device stands that is served
    Status(Served),

    /// Say what happens to a device, as it happens, a line an event
    Events(Served),

    /// Print the newest write of a host: its point in the order of all
    Mark(Served),

    /// Wait until the peer has everything up to a point durably
    Wait(WaitArgs),

    /// Wait until neither device owes the other anything
    Drain(DrainArgs),

    /// Move the host to this device, and follow what the peer owes until it is here
    Takeover(TakeoverArgs),

    /// Move the host to the peer, and follow what the peer lacks until it is there
    Handover(HandoverArgs),

    /// Stop hosts at the device that serves, so that they are served nowhere
    ///
    /// That outlives a restart. The peer may take the host over as ever; `afterimage resume` undoes it here.
    Fence(Served),

    /// Compare the volumes of a device that is served with its peer's, by checksums, while hosts go on
    ///
    /// Blocks that are on their way to the peer are looked at again later. Nothing is changed.
    Compare(CompareArgs),

    /// Limit the data that goes to the peer
    Rate(RateArgs),

    /// Serve again, at a device that was fenced, or that does not serve by itself after its opening
    Resume(ResumeArgs),
}

/// A look at a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a file is a configuration, and what is wrong with it
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Print a configuration that has every setting, with its default and what it does
    Example,
}

/// A device whose service runs.
#[derive(Clone, Debug, Args)]
pub struct Served {
    /// The device's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Print JSON documents, one a line, instead of text (docs/operations.md)
    #[arg(long)]
    pub json: bool,
}

/// A point to be waited for.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// The point, as `afterimage mark` prints it
    #[arg(value_name = "POINT")]
    pub point: Point,

    /// Wait for so long at most
    #[arg(long, value_name = "TIME", value_parser = delay)]
    pub timeout: Option<u64>,
}

/// How long a drain is waited for.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// Wait for so long at most
    #[arg(long, value_name = "TIME", value_parser = delay)]
    pub timeout: Option<u64>,
}

/// A takeover.
#[derive(Clone, Debug, Args)]
pub struct TakeoverArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Return as soon as the device serves
    #[arg(long, conflicts_with = "force")]
    pub no_wait: bool,

    /// Without the peer, which is lost, and giving up what this device lacks of it, as `afterimage force`: something
    /// else must make sure that no host uses the peer. A dry run unless --yes
    #[arg(long)]
    pub force: bool,

    /// With --force: do it; without this, what would be given up is said and nothing is changed
    #[arg(long, requires = "force", conflicts_with = "dry_run")]
    pub yes: bool,

    /// With --force: serve each block as new as it is here
    #[arg(long, requires = "force", conflicts_with = "image")]
    pub newest: bool,

    /// With --force: serve this state
    #[arg(long, requires = "force", value_enum, value_name = "IMAGE")]
    pub image: Option<Choice>,

    /// With --force: accept the loss as well, so that hosts are served at once
    #[arg(long, requires = "force")]
    pub accept_loss: bool,
}

impl TakeoverArgs {
    /// The same as a forced takeover.
    pub fn forced(self) -> ForceArgs {
        let TakeoverArgs { served: Served { dir, json }, yes, newest, image, accept_loss, .. } =
            self;
        let device = crate::disaster::Args { dir, yes, json };
        ForceArgs { device, newest, image, accept_loss }
    }
}

/// A comparison of the volumes with the peer's.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// This volume alone
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,

    /// Read so many bytes of blocks a second at most, at each device
    #[arg(long, value_name = "BYTES/s", value_parser = rate)]
    pub rate: Option<u64>,
}

/// A handover.
#[derive(Clone, Debug, Args)]
pub struct HandoverArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Return as soon as the peer serves
    #[arg(long)]
    pub no_wait: bool,
}

/// A limit of what goes to the peer.
#[derive(Clone, Debug, Args)]
pub struct RateArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// Bytes a second, or `off`
    #[arg(value_name = "BYTES/s|off", value_parser = copy_rate)]
    pub rate: u64,
}

/// A device that is to serve again.
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// The device.
    #[command(flatten)]
    pub served: Served,

    /// Without the peer, which surely does not serve
    #[arg(long)]
    pub alone: bool,
}

/// The trace to replay, and how.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Files of one trace, plain or gzipped; `-` is the standard input
    #[arg(value_name = "TRACE", required = true)]
    pub traces: Vec<Input>,

    /// Insist on this format of the trace instead of recognising it
    #[arg(long, value_enum, help_heading = "Trace")]
    pub format: Option<Format>,

    /// Stop reading the trace after so many requests
    #[arg(long, value_name = "N", help_heading = "Trace")]
    pub limit_rows: Option<u64>,

    /// Count rows that cannot be understood and leave them out
    #[arg(long, help_heading = "Trace")]
    pub skip_bad_rows: bool,

    /// Replay the trace so many times in one run
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Trace",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: u32,

    /// Move the host to the other device at this point: a percentage of the requests, or a time
    /// of the trace such as `90s`; may be given several times
    #[arg(long, value_name = "POINT", value_parser = takeover_at, value_delimiter = ',',
          help_heading = "Takeover and link")]
    pub takeover_at: Vec<TakeoverAt>,

    /// Cut the line between the devices from one point to another, each as for --takeover-at, such
    /// as `20%..40%` or `90s..2m`; may be given several times. It comes back by itself. With `--speed
    /// max` it comes back early when hosts have been able to do nothing for 1 s: the trace's time
    /// stands still then. A takeover that is asked for meanwhile is refused, and hosts stay where they are
    #[arg(long, value_name = "FROM..TO", value_parser = outage, value_delimiter = ',',
          help_heading = "Takeover and link")]
    pub outage: Vec<OutageAt>,

    /// Lose the site of the device that the host is at, at one point, each as for --takeover-at: its
    /// process is gone, and no line leads there. The other device is forced to take over, and hosts go on
    /// there; at RETURN the lost device is opened again, with its files, and becomes the target of a resync
    /// [default: halfway between AT and the end]. The loss is compared with the loss sheet
    #[arg(long, value_name = "AT[..RETURN]", value_parser = lose_site,
          help_heading = "Takeover and link")]
    pub lose_site: Option<LoseSiteAt>,

    /// Lose that site in this mode: from AT on the hosts wait until their device is in it, and issue a few more
    /// requests, but for `copying`, which may end at once
    #[arg(long, value_name = "MODE", requires = "lose_site", help_heading = "Takeover and link")]
    pub lose_in: Option<LoseIn>,

    /// The link's rate in each direction [default: without limit]
    #[arg(long, value_name = "SIZE/s", value_parser = rate, help_heading = "Takeover and link")]
    pub link_rate: Option<u64>,

    /// How long the link takes from one end to the other
    #[arg(long, value_name = "TIME", value_parser = delay, default_value = "0s",
          help_heading = "Takeover and link")]
    pub link_delay: u64,

    /// How far the clock of the host at device B is off; may be negative
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0s",
          allow_hyphen_values = true, help_heading = "Takeover and link")]
    pub skew: i64,

    /// `max`, or how many times as fast as the trace's own clock
    #[arg(long, value_name = "SPEED", value_parser = speed, default_value = "max",
          help_heading = "Pace")]
    pub speed: Speed,

    /// Most requests in flight [default: 32; 1024 at the trace's own pace, where latency counts
    /// from when the trace issues a request, not from its turn]
    #[arg(long, value_name = "N", help_heading = "Pace",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub depth: Option<u32>,

    /// Size of each journal [default: 64MiB; with --link-rate the next power of two that holds all
    /// that the trace writes and discards, from 64MiB to 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Devices")]
    pub journal_size: Option<u64>,

    /// How writes reach the other device: `ordered`, in the order of their timestamps, or `differential`, by
    /// bits for blocks, without their order
    #[arg(long, value_name = "MODE", default_value = "ordered", help_heading = "Devices")]
    pub mode: PairMode,

    /// How writes go on when a journal is full: `wait`, until the other device has taken records, or
    /// `suspend`: from 90 % on bits remember what the other device lacks, until it has all again
    #[arg(long, value_name = "HOW", value_parser = journal_full, default_value = "wait",
          help_heading = "Devices")]
    pub journal_full: JournalFull,

    /// Size of a block: a power of two, 512 to 64KiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4KiB",
          help_heading = "Devices")]
    pub block_size: u64,

    /// Longest delay of a write while a journal is filling, so that the host slows down before the
    /// journal is full; 0s for none
    #[arg(long, value_name = "TIME", value_parser = delay, default_value = "0s",
          help_heading = "Devices")]
    pub pacing_max: u64,

    /// When a write counts as completed
    #[arg(long, value_enum, default_value_t, help_heading = "Devices")]
    pub durability: DurabilityArg,

    /// Where to make the devices' directories [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", help_heading = "Devices")]
    pub dir: Option<PathBuf>,

    /// Leave the devices in DIR/a and DIR/b
    #[arg(long, requires = "dir", help_heading = "Devices")]
    pub keep: bool,

    /// Keep the devices in memory instead of on disk
    #[arg(long, conflicts_with_all = ["dir", "keep"], help_heading = "Devices")]
    pub memory: bool,

    /// Write everything measured to this file, for programs (docs/replay-json.md); `-` is the
    /// standard output, and the table then goes to the standard error, as with the next two
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub json: Option<Target>,

    /// Write an HdrHistogram interval log to this file
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub hlog: Option<Target>,

    /// Append what the hosts ask for and are told to this file, as it happens, for programs that
    /// judge what must have survived a crash (docs/request-log.md)
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub request_log: Option<Target>,

    /// Name of the run in every sector written (docs/payload.md) [default: from the clock]
    #[arg(long, value_name = "N", help_heading = "Results")]
    pub seed: Option<u64>,
}

impl ReplayArgs {
    /// Most requests in flight. The trace's own pace is an open loop, in which requests do not wait
    /// for the answers to others; what bounds it is the memory that they hold.
    pub fn depth(&self) -> u32 {
        self.depth.unwrap_or(match self.speed {
            Speed::Max => 32,
            Speed::Times(_) => 1024,
        })
    }
}

/// The words of a command line, without the `-` of `--json -` of a command whose `--json` takes no
/// file: the standard output is where it goes.
pub fn without_dashes(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.into_iter().collect();
    let takes_none = ["inspect", "verify", "resume-alone", "prefer", "accept-loss", "force"];
    if !words.get(1).is_some_and(|command| takes_none.iter().any(|name| command == name)) {
        return words;
    }
    let is_dash = |at: usize| at > 0 && words[at] == "-" && words[at - 1] == "--json";
    (0..words.len()).filter(|&at| !is_dash(at)).map(|at| words[at].clone()).collect()
}

/// Where in a trace a takeover comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TakeoverAt {
    /// Before the request at this percentage of all.
    Percent(f64),
    /// Before the first request at or after this time of the trace, in nanoseconds.
    Time(u64),
}

impl fmt::Display for TakeoverAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TakeoverAt::Percent(percent) => write!(f, "{percent}%"),
            TakeoverAt::Time(time) => f.write_str(&duration(time)),
        }
    }
}

/// Between which points of a trace the line between the devices is down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutageAt {
    /// It goes down here.
    pub from: TakeoverAt,
    /// It comes back here.
    pub to: TakeoverAt,
}

/// Where in a trace a site is lost, and where it returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoseSiteAt {
    /// It is lost here.
    pub at: TakeoverAt,
    /// It returns here; `None`: halfway from there to the end.
    pub back: Option<TakeoverAt>,
}

/// How writes reach the other device when a site is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoseIn {
    /// In their order
    Ordered,
    /// By bits; the device collects what the other one owes it, or the line is down
    Collecting,
    /// By bits, and copies are sent
    Sending,
    /// In their order again, and copies of the rest are sent
    Copying,
}

impl From<LoseIn> for Mode {
    fn from(mode: LoseIn) -> Mode {
        match mode {
            LoseIn::Ordered => Mode::Ordered,
            LoseIn::Collecting => Mode::Collecting,
            LoseIn::Sending => Mode::Sending,
            LoseIn::Copying => Mode::Copying,
        }
    }
}

/// How writes reach the other device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PairMode {
    /// In their order.
    Ordered,
    /// By bits.
    Differential,
}

/// How writes go on that find a journal full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalFull {
    /// They wait for room.
    Wait,
    /// They go on: the device suspends.
    Suspend,
}

/// How fast a trace is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the devices answer.
    Max,
    /// So many times as fast as the trace's clock.
    Times(f64),
}

/// [`Durability`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Once it is durable
    Strict,
    /// Once the operating system has it; flushes make durable
    Written,
    /// Once it is in order, as with a disk's cache; flushes make durable
    #[default]
    Volatile,
    /// As volatile, and flushes do not reach the disk
    Never,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Durability {
        match arg {
            DurabilityArg::Strict => Durability::Strict,
            DurabilityArg::Written => Durability::Written,
            DurabilityArg::Volatile => Durability::VolatileCache,
            DurabilityArg::Never => Durability::Never,
        }
    }
}

/// A decimal number and the unit behind it.
fn split_unit(word: &str) -> Result<(f64, &str), String> {
    let end = word.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(word.len());
    let (digits, unit) = word.split_at(end);
    let number: f64 =
        digits.parse().map_err(|_| format!("'{word}' does not begin with a number"))?;
    Ok((number, unit.trim()))
}

/// `number` of `unit`s as a whole number.
fn scaled(word: &str, number: f64, unit: u64) -> Result<u64, String> {
    let product = number * unit as f64;
    if product >= (1u64 << 62) as f64 {
        return Err(format!("'{word}' is too large"));
    }
    if product.fract() != 0.0 {
        return Err(format!("'{word}' is not a whole number"));
    }
    Ok(product as u64)
}

/// A size in bytes, below 2^62.
///
/// # Errors
/// The fault of `word`: no number, of another unit, too large, no whole number of bytes.
pub fn size(word: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(word)?;
    let unit = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        other => return Err(format!("'{other}' is no unit of size; use KiB, MiB, GiB or TiB")),
    };
    scaled(word, number, unit)
}

/// A rate in bytes a second, above 0.
///
/// # Errors
/// As [`size`]; a rate of 0.
pub fn rate(word: &str) -> Result<u64, String> {
    match size(word.strip_suffix("/s").unwrap_or(word))? {
        0 => Err("a link of rate 0 carries nothing".into()),
        rate => Ok(rate),
    }
}

/// As [`rate`], or `off`: 0.
///
/// # Errors
/// Those of [`rate`].
pub fn copy_rate(word: &str) -> Result<u64, String> {
    if word == "off" { Ok(0) } else { rate(word) }
}

/// A time in nanoseconds, before or after, nearer than 2^62.
///
/// # Errors
/// The fault of `word`: no number, without a unit or of another, too large, no whole number of
/// nanoseconds.
pub fn time(word: &str) -> Result<i64, String> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (number, unit) = split_unit(digits)?;
    let unit = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "" if number == 0.0 => 1,
        "" => return Err(format!("'{word}' has no unit; use ns, us, ms, s, m, h or d")),
        other => return Err(format!("'{other}' is no unit of time; use ns, us, ms, s, m, h or d")),
    };
    // Below 2^62, so it fits.
    Ok(sign * scaled(word, number, unit)? as i64)
}

/// A time in nanoseconds that is not negative.
///
/// # Errors
/// As [`time`]; a negative one.
pub fn delay(word: &str) -> Result<u64, String> {
    u64::try_from(time(word)?).map_err(|_| format!("'{word}' is negative"))
}

/// A point of a trace.
///
/// # Errors
/// A percentage outside 0 to 100; else as [`delay`].
pub fn takeover_at(word: &str) -> Result<TakeoverAt, String> {
    let Some(number) = word.strip_suffix('%') else {
        return delay(word)
            .map(TakeoverAt::Time)
            .map_err(|e| format!("{e}; a point of a trace is a percentage or a time"));
    };
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(TakeoverAt::Percent(percent)),
        _ => Err(format!("'{word}' is not between 0% and 100%")),
    }
}

/// A stretch of a trace, whose ends are not compared: percentages and times can be only with a trace.
///
/// # Errors
/// Without `..` between two points; else as [`takeover_at`].
pub fn outage(word: &str) -> Result<OutageAt, String> {
    let (from, to) = word
        .split_once("..")
        .ok_or_else(|| format!("'{word}' is not FROM..TO, such as 20%..40% or 90s..2m"))?;
    Ok(OutageAt { from: takeover_at(from)?, to: takeover_at(to)? })
}

/// The loss of a site.
///
/// # Errors
/// As [`takeover_at`], of either point.
pub fn lose_site(word: &str) -> Result<LoseSiteAt, String> {
    let (at, back) = word.split_once("..").map_or((word, None), |(at, back)| (at, Some(back)));
    Ok(LoseSiteAt { at: takeover_at(at)?, back: back.map(takeover_at).transpose()? })
}

/// How writes go on that find a journal full.
///
/// # Errors
/// Any other word than `wait` and `suspend`.
pub fn journal_full(word: &str) -> Result<JournalFull, String> {
    match word {
        "wait" => Ok(JournalFull::Wait),
        "suspend" => Ok(JournalFull::Suspend),
        _ => Err(format!("'{word}' is neither 'wait' nor 'suspend'")),
    }
}

/// A speed.
///
/// # Errors
/// A `word` that is neither `max` nor a number above 0.
pub fn speed(word: &str) -> Result<Speed, String> {
    if word == "max" {
        return Ok(Speed::Max);
    }
    match word.strip_suffix('x').unwrap_or(word).parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err(format!("'{word}' is neither 'max' nor a number above 0")),
    }
}

#[cfg(test)]
mod tests;
