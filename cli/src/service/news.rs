//! Events of the device, for those that follow them: as a sentence and as a document.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage::Event;
use afterimage::tcp::{PairingEvent, PairingOutcome};
use serde_json::{Value, json};

use super::control::wire::Said;
use crate::words::{moment, plural};

/// Events that are kept for a follower that is slow.
const KEPT_MAX: usize = 1024;

/// Counted from the start, though there was none: a rise from nothing to 1 is one that alerts see.
const COUNTED: [&str; 14] = [
    "connected",
    "disconnected",
    "ready",
    "fenced",
    "paired",
    "pairing-refused",
    "invitation-leaked",
    "host-opened",
    "host-ended",
    "host-refused",
    "hook",
    "hook-failed",
    "mode",
    "paced",
];

/// The last events, numbered from 0.
#[derive(Debug, Default)]
pub struct News {
    told: Mutex<Told>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    kept: VecDeque<Said>,
    /// The number of the next one.
    next: u64,
    /// How many there were, by their name.
    counts: BTreeMap<String, u64>,
}

impl News {
    /// Adds what `event` says, if it is news for an operator; `at` is the wall time, in nanoseconds since 1970.
    pub fn add(&self, event: &Event, at: u64) {
        if let Some((name, text, facts)) = words(event) {
            self.put(name, text, facts, at);
        }
    }

    /// Adds an event of the service's own: its name, a sentence, and its facts; `at` as for [`News::add`].
    pub fn put(&self, name: &str, text: String, facts: Value, at: u64) {
        let mut document = json!({ "version": 1, "at_ns": at, "event": name });
        for (key, value) in facts.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        log(name, &text);
        let said = Said { text: format!("{}  {text}\n", moment(at)), document };
        let mut told = self.lock();
        match told.counts.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(told.counts.insert(name.into(), 1)),
        }
        if told.kept.len() == KEPT_MAX {
            told.kept.pop_front();
        }
        told.kept.push_back(said);
        told.next += 1;
        self.more.notify_all();
    }

    /// Adds what came of a device that tried to join; `at` as for [`News::add`].
    pub fn pairing(&self, event: &PairingEvent, at: u64) {
        let (name, outcome) = match event.outcome {
            PairingOutcome::Paired => ("paired", "it is the peer now".into()),
            PairingOutcome::Repeated => ("paired", "it was answered again".into()),
            PairingOutcome::Used { first } => (
                "invitation-leaked",
                format!(
                    "refused: the key {} has used the invitation before; one of the two should not have it",
                    first.fingerprint()
                ),
            ),
            PairingOutcome::WrongSecret { tries } => {
                ("pairing-refused", format!("refused: its secret is wrong, the {tries}. so far"))
            }
            PairingOutcome::Expired => {
                ("pairing-refused", "refused: the invitation is too old".into())
            }
            PairingOutcome::Void => {
                ("pairing-refused", "refused: too many secrets were wrong before".into())
            }
            _ => ("pairing-refused", "refused".into()),
        };
        let (key, from) = (event.joiner.fingerprint().to_string(), event.from.to_string());
        let text = format!("a device with the key {key} joins from {from}: {outcome}");
        self.put(name, text, json!({ "key": key, "from": from, "outcome": outcome }), at);
    }

    /// How many events there were, by their name.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<_, _> = COUNTED.map(|name| (name.to_owned(), 0)).into();
        counts.extend(self.lock().counts.clone());
        counts
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// The events from number `from` on, waited for at most `patience`, and the number of the next one; those that
    /// are not kept any more are counted.
    pub fn from(&self, from: u64, patience: Duration) -> (Vec<Said>, u64, u64) {
        let told = self.lock();
        let waited = self.more.wait_timeout_while(told, patience, |told| told.next <= from);
        let (told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let first = told.next - told.kept.len() as u64;
        let missed = first.saturating_sub(from);
        let skipped = from.saturating_sub(first) as usize;
        (told.kept.iter().skip(skipped).cloned().collect(), told.next, missed)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs an event, at the level that its name has.
fn log(name: &str, text: &str) {
    match name {
        "halted" | "lost-records" | "no-consistent-copy" | "invitation-leaked" | "differs" => {
            tracing::error!(target: "afterimage::event", event = name, "{text}");
        }
        "disconnected" | "hook-failed" | "host-refused" | "pairing-refused" | "salvage-full" => {
            tracing::warn!(target: "afterimage::event", event = name, "{text}");
        }
        _ => tracing::info!(target: "afterimage::event", event = name, "{text}"),
    }
}

/// The name of an event, what a person is told of it, and its facts; `None` for what happens all the time.
fn words(event: &Event) -> Option<(&'static str, String, Value)> {
    let nothing = || json!({});
    Some(match event {
        Event::Connected { .. } => ("connected", "the peer is connected".into(), nothing()),
        Event::Disconnected { why, .. } => {
            let why = why.to_string();
            (
                "disconnected",
                format!("the connection to the peer is gone: {why}"),
                json!({ "why": why }),
            )
        }
        Event::Ready { epoch, owed_blocks } => (
            "ready",
            format!(
                "the device serves, tenure {epoch}; the peer owes {}",
                plural(*owed_blocks, "block")
            ),
            json!({ "tenure": epoch, "owed_blocks": owed_blocks }),
        ),
        Event::Fenced { epoch, served } => (
            "fenced",
            format!("the host is granted to the peer, tenure {epoch}"),
            json!({ "tenure": epoch, "served": served }),
        ),
        Event::FencedHere { epoch, served } => (
            "fenced-here",
            format!("an operator has fenced the device, tenure {epoch}: hosts are served nowhere"),
            json!({ "tenure": epoch, "served": served }),
        ),
        Event::PeerServes { epoch } => {
            ("peer-serves", format!("the peer serves, tenure {epoch}"), json!({ "tenure": epoch }))
        }
        Event::PeerReachable { epoch } => (
            "peer-reachable",
            format!("hosts reach the peer, tenure {epoch}"),
            json!({ "tenure": epoch }),
        ),
        Event::LostRecords(why) => {
            let why = why.to_string();
            (
                "lost-records",
                format!("the device lacks records that it had: {why}"),
                json!({ "why": why }),
            )
        }
        Event::CaughtUp => ("caught-up", "everything that the peer owed is here".into(), nothing()),
        Event::NoConsistentCopy => (
            "no-consistent-copy",
            "no consistent copy is at either site until everything owed is here".into(),
            nothing(),
        ),
        Event::ModeChanged { mode } => {
            let mode = mode.to_string();
            ("mode", format!("the mode is {mode}"), json!({ "mode": mode }))
        }
        Event::Paced { fill_percent } => (
            "paced",
            format!("writes are delayed: the journal is filled to {fill_percent} %"),
            json!({ "journal_percent": fill_percent }),
        ),
        Event::PacingEnded { fill_percent } => (
            "pacing-ended",
            format!("writes are delayed no more: the journal is filled to {fill_percent} %"),
            json!({ "journal_percent": fill_percent }),
        ),
        Event::Differs(differing) => {
            let what = format!("{differing:?}");
            ("differs", format!("a comparison found a difference: {what}"), json!({ "what": what }))
        }
        Event::LastImage(status) => {
            let what = super::status::image_words(status);
            ("last-image", format!("last consistent image: {what}"), json!({ "image": what }))
        }
        Event::SalvageFull(why) => {
            let why = why.to_string();
            ("salvage-full", format!("salvage has no room: {why}"), json!({ "why": why }))
        }
        Event::Compared(report) => {
            let what = format!("{report:?}");
            ("compared", format!("the comparison is over: {what}"), json!({ "what": what }))
        }
        Event::Halted(why) => {
            let why = why.to_string();
            ("halted", format!("the device has stopped: {why}"), json!({ "why": why }))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn a_follower_has_every_event_or_hears_how_many_it_missed() {
        let news = News::default();
        assert_eq!(news.from(0, SOON), (vec![], 0, 0));
        news.add(&Event::CaughtUp, 7);
        let (said, next, missed) = news.from(0, SOON);
        assert_eq!((said.len(), next, missed), (1, 1, 0));
        assert_eq!(said[0].document["event"], "caught-up");
        assert_eq!(said[0].document["at_ns"], 7);
        let checkpoint = Event::Checkpoint { fl: afterimage::Stamp::ZERO };
        news.add(&checkpoint, 8);
        assert_eq!(news.next(), 1, "a checkpoint is no news");
        for tenure in 0..2 * KEPT_MAX as u64 {
            news.add(&Event::PeerServes { epoch: tenure }, tenure);
        }
        let (said, next, missed) = news.from(1, SOON);
        assert_eq!((said.len(), missed), (KEPT_MAX, KEPT_MAX as u64));
        assert_eq!(said.last().unwrap().document["tenure"], 2 * KEPT_MAX as u64 - 1);
        assert_eq!(news.from(next, SOON).0, []);
    }
}
