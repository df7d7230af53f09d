//! The command line of afterimage as a library, so that tests and fuzzing reach its parts.
//!
//! | module | what it is for |
//! |---|---|
//! | [`args`] | every flag, parsed and documented once |
//! | [`exit`] | what the exit status says |
//! | [`trace`] | block traces of twelve formats as one list of requests |
//! | [`inspect`] | `afterimage inspect`: a device directory as the specification draws it |
//! | [`verify`] | `afterimage verify`: two devices compared |
//! | `simulate` | `afterimage simulate`, with the feature `simulate`: two simulated devices through faults of every kind |
//! | [`closed`] | `afterimage resume-alone`, `prefer`, `accept-loss`: an operator's changes of a device that no process has open |
//! | [`disaster`] | `afterimage force`, `resolve`, `forget-peer`: an operator's word when the other device is gone |
//! | [`salvaged`] | `afterimage salvage`: what was given up, listed, shown, copied out, removed |
//! | [`nbd`] | hosts by NBD: the exports of a device that serves |
//! | [`service`] | `afterimage init`, `serve`, `status`, `takeover`, …: a device as a service, and orders to it |
//! | [`recover`] | `afterimage recover`: devices that were not closed, opened and closed |
//! | [`replay`] | `afterimage replay`: a trace against a pair, through takeovers, with proof |
//! | `signals` | what a signal that ends the program leaves behind |
//! | [`results`] | files that results go to, none of which is an input, another result or a device |
//!
//! There is no storage logic here: everything that keeps data is the engine's.

pub mod args;
pub mod closed;
pub mod disaster;
pub mod exit;
pub mod inspect;
mod latency;
pub mod nbd;
mod output;
mod ranges;
pub mod recover;
pub mod replay;
pub mod results;
pub mod salvaged;
pub mod service;
mod signals;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod trace;
pub mod verify;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use args::{Cli, Command, CompareArgs, ConfigCommand, Served};
use clap::Parser;
use exit::{Exit, Failure};
use output::shown;
use service::config::{Config, EXAMPLE};
use service::control::client;
use service::control::wire::Order;

/// Runs the command that `words` name, the program's name first, and says how it ended.
/// Whatever is to be said has been said on the terminal by then.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args::without_dashes(words)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version go to the standard output and are no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Held };
        }
    };
    signals::watch();
    match cli.command {
        Command::Replay(args) => exit::report(replay::run(&args)),
        Command::Inspect(args) => exit::report(inspect_directory(&args)),
        Command::Recover(args) => exit::report(recover::run(&args, &mut std::io::stdout().lock())),
        Command::ResumeAlone(args) => {
            exit::report(closed::resume_alone(&args, &mut std::io::stdout().lock()))
        }
        Command::Prefer(args) => exit::report(closed::prefer(&args, &mut std::io::stdout().lock())),
        Command::AcceptLoss(args) => {
            at_device((&args.dir, args.json), Order::AcceptLoss { dry_run: args.dry_run }, |out| {
                closed::accept_loss(&args, out)
            })
        }
        Command::Force(args) => force(&args),
        Command::Takeover(args) if args.force => force(&args.forced()),
        Command::Resolve(args) => resolve(&args),
        Command::ForgetPeer(args) => {
            at_device((&args.dir, args.json), Order::ForgetPeer { yes: args.yes }, |out| {
                disaster::forget_peer(&args, out)
            })
        }
        Command::Salvage(args) => match args.action.order() {
            Some((Served { dir, json }, order)) => {
                at_device((&dir, json), order, |out| salvaged::run(&args, out))
            }
            None => exit::report(salvaged::run(&args, &mut std::io::stdout().lock())),
        },
        Command::Verify(args) => exit::report(verify_devices(&args)),
        Command::Init(args) => {
            exit::report(service::init::run(&args, &mut std::io::stdout().lock()))
        }
        Command::HostCerts(args) => {
            exit::report(service::host_certs::run(&args, &mut std::io::stdout().lock()))
        }
        Command::Join(args) => exit::report(service::pairing::join(&args)),
        Command::Invite(served) => order(&served, Order::Invite {}),
        Command::Serve(args) => exit::report(service::serve::run(&args)),
        Command::Config { command } => exit::report(configure(&command)),
        Command::Status(served) => order(&served, Order::Status {}),
        Command::Events(served) => order(&served, Order::Events {}),
        Command::Mark(served) => order(&served, Order::Mark {}),
        Command::Wait(args) => {
            let timeout_ms = args.timeout.map(|ns| ns / 1_000_000);
            order(&args.served, Order::Wait { point: args.point, timeout_ms })
        }
        Command::Drain(args) => {
            let timeout_ms = args.timeout.map(|ns| ns / 1_000_000);
            order(&args.served, Order::Drain { timeout_ms })
        }
        Command::Takeover(args) => {
            let (dry_run, no_wait) = (args.dry_run, args.no_wait);
            order(&args.served, Order::Takeover { dry_run, no_wait })
        }
        Command::Compare(args) => {
            let CompareArgs { served, volume, rate: bytes_per_second } = args;
            order(&served, Order::Compare { volume, bytes_per_second })
        }
        Command::Handover(args) => {
            let (dry_run, no_wait) = (args.dry_run, args.no_wait);
            order(&args.served, Order::Handover { dry_run, no_wait })
        }
        Command::Fence(served) => order(&served, Order::Fence {}),
        Command::Rate(args) => order(&args.served, Order::Rate { bytes_per_second: args.rate }),
        Command::Resume(args) if args.alone => order(&args.served, Order::ResumeAlone {}),
        Command::Resume(args) => order(&args.served, Order::Resume {}),
        #[cfg(feature = "simulate")]
        Command::Simulate(args) => exit::report(simulate::run(&args)),
        #[cfg(not(feature = "simulate"))]
        Command::Simulate { .. } => exit::report(Err(Failure::new(Exit::Usage, NO_SIMULATOR))),
    }
}

/// Has the service of the device in `dir` carry out `order`; where none runs, does `closed` with the directory.
fn at_device(
    (dir, json): (&Path, bool),
    given: Order,
    closed: impl FnOnce(&mut dyn Write) -> Result<Exit, Failure>,
) -> Exit {
    match client::is_served(dir) {
        true => order(&Served { dir: dir.into(), json }, given),
        false => exit::report(closed(&mut std::io::stdout().lock())),
    }
}

fn force(args: &disaster::ForceArgs) -> Exit {
    let disaster::Args { dir, yes, json } = &args.device;
    let given = Order::Force { image: args.choice(), accept_loss: args.accept_loss, yes: *yes };
    at_device((dir, *json), given, |out| disaster::force(args, out))
}

fn resolve(args: &disaster::ResolveArgs) -> Exit {
    let disaster::Args { dir, yes, json } = &args.device;
    if args.other.is_some() && client::is_served(dir) {
        let what = "a service runs there, and looks at no other directory: give the command without OTHER, and \
                    look at the other device with its own";
        return exit::report(Err(Failure::new(Exit::Usage, what).within(dir.display())));
    }
    let given = Order::Resolve { keep: args.keep, yes: *yes };
    at_device((dir, *json), given, |out| disaster::resolve(args, out))
}

fn configure(command: &ConfigCommand) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    match command {
        ConfigCommand::Check { file } => {
            Config::read(file)?;
            shown(writeln!(out, "{}: every setting is known, and can be", file.display()))?;
        }
        ConfigCommand::Example => shown(out.write_all(EXAMPLE.as_bytes()))?,
    }
    Ok(Exit::Held)
}

fn order(served: &Served, order: Order) -> Exit {
    let mut out = std::io::stdout().lock();
    exit::report(client::ask(&served.dir, &order, served.json, &mut out))
}

/// The answer to `afterimage simulate` of a build that lacks the simulator.
#[cfg(not(feature = "simulate"))]
const NO_SIMULATOR: &str = "the simulator is not in this build; from a checkout of the project, \
    `cargo run --profile sim --features simulate --bin afterimage -- simulate` runs it";

fn inspect_directory(args: &inspect::Args) -> Result<Exit, Failure> {
    let report = inspect::examine(args).map_err(|e| Failure::device("inspecting", &e))?;
    shown(report.write(args, &mut std::io::stdout().lock()))?;
    Ok(match report.verdict() {
        inspect::Verdict::Sound => Exit::Held,
        inspect::Verdict::Damaged => Exit::NotHeld,
    })
}

fn verify_devices(args: &verify::Args) -> Result<Exit, Failure> {
    let report = verify::compare(args).map_err(|e| Failure::device("comparing", &e))?;
    shown(report.write(args, &mut std::io::stdout().lock()))?;
    Ok(match report.verdict() {
        verify::Verdict::Equal => Exit::Held,
        verify::Verdict::Behind => Exit::Behind,
        verify::Verdict::Different | verify::Verdict::Damaged => Exit::NotHeld,
    })
}
