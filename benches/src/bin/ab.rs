//! Two builds of one bench against each other: is B slower than A?
//!
//! Both run in interleaved pairs, in the order A B, B A, A B, …, so that what drifts in the machine
//! meets both alike. For every figure: the medians, the median of the pairs' ratios, and its 95 %
//! interval from the sign test, which assumes nothing of how the ratios are spread. A ratio above 1
//! means that B is worse: B/A of a time, A/B of a rate. Exit status 1: an interval's upper end is
//! above the bound; 2: a program did not print figures.
//!
//!     cargo run --release -p afterimage-benches --bin ab -- A/queue B/queue [ARGUMENTS FOR BOTH]

use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::{median, sign_interval};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Compares two builds of one bench.
#[derive(Parser)]
struct Args {
    /// Pairs of runs
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(6..))]
    pairs: u32,

    /// The largest upper end of an interval that passes
    #[arg(long, default_value_t = 1.03)]
    bound: f64,

    /// Only this figure; may be given several times
    #[arg(long, value_name = "NAME")]
    figure: Vec<String>,

    /// Read what the programs print for a person, as one of them does not know `--json`
    #[arg(long)]
    text: bool,

    /// The program that is the base
    a: PathBuf,

    /// The program that is compared with it
    b: PathBuf,

    /// The arguments that both are started with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Args {
    fn run(&self, program: &Path) -> Result<Figures, String> {
        let mut command = Command::new(program);
        command.args(&self.arguments);
        if !self.text {
            command.args(["--json", "-"]);
        }
        let output = command.output().map_err(|e| format!("{}: {e}", program.display()))?;
        // A bound of its own that it missed is no matter here.
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = match self.text {
            true => {
                let name = program.file_name().unwrap_or_default().to_string_lossy();
                Figures::of_text(&name, &text)
            }
            false => Figures::of_json(&text),
        };
        figures.map_err(|what| {
            let said = String::from_utf8_lossy(&output.stderr);
            let hint = if self.text { "" } else { "; --text reads programs without --json" };
            format!("{}, {}: {what}{hint}\n{said}", program.display(), output.status)
        })
    }

    fn runs(&self) -> Result<Vec<[Figures; 2]>, String> {
        let mut runs = Vec::new();
        for pair in 0..self.pairs {
            eprint!("\rpair {} of {} ", pair + 1, self.pairs);
            runs.push(match pair % 2 {
                0 => [self.run(&self.a)?, self.run(&self.b)?],
                _ => {
                    let b = self.run(&self.b)?;
                    [self.run(&self.a)?, b]
                }
            });
        }
        eprintln!();
        Ok(runs)
    }

    /// Prints the comparison; whether every interval ends within the bound.
    fn compare(&self, runs: &[[Figures; 2]]) -> Result<bool, String> {
        let first = &runs[0][0];
        let names: Vec<&str> = match self.figure.is_empty() {
            true => first.iter().map(|(name, _)| name).collect(),
            false => self.figure.iter().map(String::as_str).collect(),
        };
        println!("{} pairs; ratio above 1: B is worse; bound {}", self.pairs, self.bound);
        println!("{:38}{:>10}{:>10}  {:6}{:>7}   95 % interval", "", "A", "B", "", "ratio");
        let mut held = true;
        for name in names {
            let all = || first.iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            let figure = first.get(name).ok_or_else(|| format!("{name} is none of {}", all()))?;
            let values = |of: usize| -> Option<Vec<f64>> {
                runs.iter().map(|pair| Some(pair[of].get(name)?.value)).collect()
            };
            let Some((a, b)) = values(0).zip(values(1)) else {
                println!("{name:38} only A has it in every run");
                held = false;
                continue;
            };
            let worse = |(a, b): (&f64, &f64)| match figure.better {
                Better::Less => b / a,
                Better::More => a / b,
            };
            let ratios: Vec<f64> = a.iter().zip(&b).map(worse).collect();
            let (low, high) = sign_interval(&ratios);
            let verdict = if high <= self.bound { "" } else { "  ABOVE THE BOUND" };
            held &= high <= self.bound;
            println!(
                "{name:38}{:>10.3}{:>10.3}  {:6}{:>7.3}   {low:.3}-{high:.3}{verdict}",
                median(&a),
                median(&b),
                figure.unit,
                median(&ratios),
            );
        }
        Ok(held)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.runs().and_then(|runs| args.compare(&runs)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("ab: {what}");
            ExitCode::from(2)
        }
    }
}
