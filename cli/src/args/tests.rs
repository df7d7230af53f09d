//! The words of the command line.

use super::*;

fn parse(words: &str) -> Result<ReplayArgs, String> {
    let words = format!("afterimage replay {words}");
    match Cli::try_parse_from(words.split_whitespace()).map_err(|e| e.to_string())?.command {
        Command::Replay(args) => Ok(*args),
        other => Err(format!("another command: {other:?}")),
    }
}

#[test]
fn the_flags_are_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn sizes() {
    assert_eq!(size("512"), Ok(512));
    assert_eq!(size("64KiB"), Ok(65_536));
    assert_eq!(size("1.5M"), Ok(3 << 19));
    assert_eq!(size("2GB"), Ok(2_000_000_000));
    assert_eq!(rate("20MiB/s"), Ok(20 << 20));
    assert_eq!(rate("20MiB"), Ok(20 << 20));
    for wrong in ["", "x", "-1", "1.5", "12Q", "9999999TiB", "1e9", "nan"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
    assert!(rate("0").is_err());
}

#[test]
fn times() {
    assert_eq!(time("5ms"), Ok(5_000_000));
    assert_eq!(time("-1h"), Ok(-3_600_000_000_000));
    assert_eq!(time("1.5s"), Ok(1_500_000_000));
    assert_eq!(time("0"), Ok(0));
    for wrong in ["5", "ms", "--1h", "1y", "1.5ns", "99999999d"] {
        assert!(time(wrong).is_err(), "{wrong}");
    }
    assert!(delay("-1s").is_err());
}

#[test]
fn points_and_speeds() {
    assert_eq!(takeover_at("50%"), Ok(TakeoverAt::Percent(50.0)));
    assert_eq!(takeover_at("90s"), Ok(TakeoverAt::Time(90_000_000_000)));
    assert!(takeover_at("101%").is_err() && takeover_at("-1%").is_err());
    assert!(takeover_at("50").is_err_and(|e| e.contains("percentage")));
    let both = OutageAt { from: TakeoverAt::Percent(20.0), to: TakeoverAt::Time(90_000_000_000) };
    assert_eq!(outage("20%..90s"), Ok(both));
    let at = TakeoverAt::Percent(20.0);
    assert_eq!(lose_site("20%"), Ok(LoseSiteAt { at, back: None }));
    assert_eq!(lose_site("20%..90s"), Ok(LoseSiteAt { at, back: Some(both.to) }));
    assert!(lose_site("20%..").is_err() && lose_site("..20%").is_err());
    for wrong in ["20%", "20%-40%", "..40%", "20%..", "20%..x", "101%..102%", "-1s..2s"] {
        assert!(outage(wrong).is_err(), "{wrong}");
    }
    assert_eq!(journal_full("wait"), Ok(JournalFull::Wait));
    assert_eq!(journal_full("suspend"), Ok(JournalFull::Suspend));
    assert!(journal_full("drop").is_err());
    assert_eq!(speed("max"), Ok(Speed::Max));
    assert_eq!(speed("10"), Ok(Speed::Times(10.0)));
    assert!(speed("0").is_err() && speed("inf").is_err() && speed("fast").is_err());
}

#[test]
fn a_command_line_as_in_the_documentation() {
    let args = parse(
        "--takeover-at 30% --takeover-at 60%,90s --link-rate 20MiB/s --link-delay 5ms \
         --skew -1h --block-size 64KiB a.csv b.csv -",
    )
    .unwrap();
    assert_eq!(args.takeover_at.len(), 3);
    assert_eq!(args.link_rate, Some(20 << 20));
    assert_eq!(args.link_delay, 5_000_000);
    assert_eq!(args.skew, -3_600_000_000_000);
    assert_eq!(args.block_size, 65_536);
    assert_eq!(args.traces.last(), Some(&Input::Stdin));
    assert_eq!((args.depth(), args.speed, args.passes), (32, Speed::Max, 1));
    assert_eq!(parse("--speed 2 a.csv").unwrap().depth(), 1024);
    assert_eq!(parse("--speed 2 --depth 7 a.csv").unwrap().depth(), 7);
}

#[test]
fn what_cannot_be_is_refused() {
    assert!(parse("").is_err());
    assert!(parse("--keep a.csv").is_err());
    assert!(parse("--memory --dir d a.csv").is_err());
    assert!(parse("--depth 0 a.csv").is_err());
    assert!(parse("--passes 0 a.csv").is_err());
    assert!(parse("--format nonsense a.csv").is_err());
}
