//! `afterimage simulate`: seeds run through the engine's simulator, and what they came to.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use afterimage::internal::simulate::{
    Outcome, Selection, Sink, actions_of, run as run_seed, shrink,
};
#[cfg(feature = "weaken")]
use afterimage::internal::weaken::{Clause, without};

use crate::exit::{Exit, Failure};
use crate::output::bar;

/// How often a failing run is run again to make it short.
const SHRINK_RUNS: u64 = 3000;

/// The runs to simulate.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The first seed; runs of the seeds after it follow
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Go on to the next seed until so many events have happened; without it, one seed
    #[arg(long, value_name = "M")]
    pub steps: Option<u64>,

    /// Only these actions of the seed, as `3,17,40-44`
    #[arg(long, value_name = "LIST", value_parser = Selection::parse, conflicts_with = "steps")]
    pub only: Option<Selection>,

    /// Print every event
    #[arg(long)]
    pub print: bool,

    /// Show a failing run as it is, without making it short
    #[arg(long)]
    pub no_shrink: bool,

    /// Switch this clause of the rules off: a promise must break
    #[cfg(feature = "weaken")]
    #[arg(long, value_name = "CLAUSE", value_parser = Clause::parse)]
    pub weaken: Option<Clause>,
}

impl Args {
    /// The feature that is needed to run with the same rules, and the part of the command line that
    /// says which of them hold.
    fn rules(&self) -> (&'static str, String) {
        #[cfg(feature = "weaken")]
        if let Some(clause) = self.weaken {
            return ("weaken", format!(" --weaken {}", clause.name()));
        }
        ("simulate", String::new())
    }
}

/// The outcome of all runs.
#[derive(Default)]
struct Total {
    seeds: u64,
    events: u64,
    sorts: [u64; 5],
    named: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.sorts.iter_mut().zip(outcome.sorts).for_each(|(all, these)| *all += these);
        for (name, count) in &outcome.named {
            *self.named.entry(name).or_default() += count;
        }
    }

    /// The same for the same seeds.
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Total { seeds, events, sorts: [messages, disk, host, takeovers, faults], named } = self;
        writeln!(out, "{events} events of {seeds} seeds")?;
        writeln!(
            out,
            "{messages} messages, {disk} disk operations, {host} host operations, {takeovers} moves of the host, {faults} faults and starts"
        )?;
        for (name, count) in named {
            writeln!(out, "{count:>12}  {name}")?;
        }
        Ok(())
    }
}

/// Runs the seeds until all events have happened, or a promise breaks.
///
/// # Errors
/// If the result cannot be written.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    #[cfg(feature = "weaken")]
    without(args.weaken);
    // A run's panic is part of its outcome.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let steps = args.steps.unwrap_or(1);
    let bar = (steps > 1).then(|| bar(steps, "events  {per_sec}"));
    let mut total = Total::default();
    let mut seed = args.seed;
    let outcome = loop {
        let selection = args.only.clone().unwrap_or_else(|| Selection::first(actions_of(seed)));
        let outcome = run_seed(seed, &selection, args.print.then(printer));
        total.add(&outcome);
        if outcome.violation.is_some() {
            break Some((seed, selection, outcome));
        }
        if let Some(bar) = &bar {
            bar.set_position(total.events);
        }
        if total.events >= steps {
            break None;
        }
        seed += 1;
    };
    drop(bar);
    let mut out = std::io::stdout().lock();
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{seconds:.1} s, {:.0} events a second", total.events as f64 / seconds);
    let wrote = total.write(&mut out);
    wrote.map_err(|e| Failure::output("the standard output", &e))?;
    match outcome {
        None => {
            let wrote = writeln!(out, "every promise held");
            wrote.map_err(|e| Failure::output("the standard output", &e))?;
            Ok(Exit::Held)
        }
        Some((seed, selection, outcome)) => {
            drop(out);
            failed(args, seed, selection, outcome);
            Ok(Exit::NotHeld)
        }
    }
}

/// Says what broke, in a run as short as it gets.
fn failed(args: &Args, seed: u64, selection: Selection, outcome: Outcome) {
    let (selection, outcome) = match args.no_shrink {
        true => (selection, outcome),
        false => {
            eprintln!("a promise did not hold; looking for a short run that shows it");
            shrink(seed, &selection, SHRINK_RUNS)
        }
    };
    if !args.no_shrink {
        run_seed(seed, &selection, Some(printer()));
    }
    let violation = outcome.violation.expect("the shrunk run fails like the long one");
    println!("DID NOT HOLD, after {} events: {violation}", outcome.events);
    let (feature, rules) = args.rules();
    println!(
        "again: cargo run -q --profile sim --features {feature} --bin afterimage -- simulate \
         --seed {seed} --only {selection}{rules} --print --no-shrink"
    );
}

/// Prints events.
fn printer() -> Sink {
    let out = Arc::new(Mutex::new(std::io::BufWriter::new(std::io::stdout())));
    Box::new(move |number, line| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that has closed the pipe has seen enough.
        let _ = writeln!(out, "{number:>7} {line}");
    })
}
