//! The figures of a bench for machines: `--json FILE`, or as the last line of the standard output
//! with `--json -`. One object: name → value, unit, and whether less or more of it is better.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A time.
    Less,
    /// A rate.
    More,
}

/// The figures that a run measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The median over the run's rounds.
    pub value: f64,
    /// `ns`, `us`, `ms`, `MB/s`, `bytes`, `blocks`, or `ratio`.
    pub unit: String,
    /// Which way it gets better.
    pub better: Better,
}

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, Figure>);

impl Figures {
    /// Adds a figure.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, better: Better) {
        self.0.insert(name.into(), Figure { value, unit: unit.into(), better });
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Figure)> {
        self.0.iter().map(|(name, figure)| (name.as_str(), figure))
    }

    /// The figure of that name.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.0.get(name)
    }

    /// Writes them where the program's argument `--json` says, if it is there.
    ///
    /// # Panics
    /// If it names no file, or one that cannot be written.
    pub fn write(&self) {
        let mut args = std::env::args().skip_while(|arg| arg != "--json").skip(1);
        let to = match std::env::args().any(|arg| arg == "--json") {
            true => PathBuf::from(args.next().expect("--json needs a file, or -")),
            false => return,
        };
        let line = serde_json::to_string(self).expect("figures are numbers") + "\n";
        match to == Path::new("-") {
            true => std::io::stdout().write_all(line.as_bytes()).expect("written"),
            false => std::fs::write(&to, line).unwrap_or_else(|e| panic!("{}: {e}", to.display())),
        }
    }

    /// The figures that a run with `--json -` printed.
    ///
    /// # Errors
    /// A last line that is no JSON of figures is an error that shows it.
    pub fn of_json(output: &str) -> Result<Figures, String> {
        let last = output.lines().next_back().unwrap_or_default();
        serde_json::from_str(last).map_err(|e| format!("the last line is no figures ({e}): {last}"))
    }

    /// The figures that a run of the program `bench` printed for a person, before `--json`.
    ///
    /// # Errors
    /// The line that is missing, or the programs that can be read so.
    pub fn of_text(bench: &str, output: &str) -> Result<Figures, String> {
        let mut figures = Figures::default();
        for &(_, name, heading, label, unit, better) in TEXT.iter().filter(|row| row.0 == bench) {
            let mut lines =
                output.lines().skip_while(|line| !heading.is_empty() && *line != heading);
            let value = lines.find_map(|line| {
                line.trim_start().strip_prefix(label)?.split_whitespace().next()?.parse().ok()
            });
            let missing = || format!("no line under {heading:?} has a number behind {label:?}");
            figures.add(name, value.ok_or_else(missing)?, unit, better);
        }
        match figures.0.is_empty() {
            true => Err(format!("{bench} is none of write_path, queue, takeover")),
            false => Ok(figures),
        }
    }
}

/// Where the figures stand in what the programs print: program, figure, the line above (anywhere
/// if empty), what its line begins with, unit.
const TEXT: [(&str, &str, &str, &str, &str, Better); 12] = {
    use Better::{Less, More};
    [
        ("write_path", "write+flush", "", "host write 4 KiB + flush", "us", Less),
        ("write_path", "write+flush to raw", "", "write+flush / raw write+sync", "ratio", Less),
        ("write_path", "32 of 1 thread", "", "32 outstanding, 1 thread", "MB/s", More),
        ("write_path", "32 of 2 threads", "", "32 outstanding, 2 threads", "MB/s", More),
        ("write_path", "32 blocking threads", "", "32 blocking threads", "MB/s", More),
        ("queue", "in batches", "in batches", "afterimage", "ns", Less),
        ("queue", DISORDER, DISORDER, "afterimage", "ns", Less),
        ("queue", "one at a time", "one at a time", "afterimage", "ns", Less),
        ("takeover", "ready, 16 GiB", "", "16 GiB volume: ready after", "ms", Less),
        ("takeover", "ready, 64 TiB", "", "64 TiB volume: ready after", "ms", Less),
        (
            "takeover",
            "first remote read, 16 GiB",
            "",
            "16 GiB volume: first remote read",
            "ms",
            Less,
        ),
        ("takeover", "first byte, 16 GiB", "", "16 GiB volume: first byte after", "ms", Less),
    ]
};

const DISORDER: &str = "in batches, one in ten out of order";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_are_read() {
        let text = "2 producers\n\nin batches\n   ns/pair\nafterimage     164.4   160-170\n\n\
            in batches, one in ten out of order\nafterimage   170.5  1-2\n\n\
            one at a time\nSkipMap  500.0 1-2\nafterimage   299.0  1-2\n";
        let figures = Figures::of_text("queue", text).unwrap();
        let value = |name| figures.get(name).unwrap().value;
        assert_eq!(["in batches", DISORDER, "one at a time"].map(value), [164.4, 170.5, 299.0]);
        let line = serde_json::to_string(&figures).unwrap();
        assert!(line.contains(r#""in batches":{"value":164.4,"unit":"ns","better":"less"}"#));
        assert_eq!(Figures::of_json(&format!("{text}{line}\n")), Ok(figures));
        assert!(Figures::of_json(text).unwrap_err().contains("afterimage   299.0"));
        assert!(Figures::of_text("queue", "in batches\n").unwrap_err().contains("afterimage"));
        assert!(Figures::of_text("open", text).unwrap_err().contains("open is none of"));
    }
}
