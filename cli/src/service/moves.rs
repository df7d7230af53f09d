//! Orders that move the host, or stop it: takeover, handover, fence, resume; and what each would do.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use afterimage::Status;
use serde_json::json;

use super::control::server::Caller;
use super::control::wire::Said;
use super::orders::{Orders, PROGRESS, peer_has_all, refused, timed_out};
use super::status::left;
use crate::exit::{Exit, Failure};
use crate::words::{bytes, duration, moment, plural};

/// A peer that takes longer to answer an offer, or to say hello, is not there.
const ANSWER: Duration = Duration::from_secs(10);

fn refusal<T>(exit: Exit, what: &str) -> Result<T, Failure> {
    Err(Failure::new(exit, what))
}

fn check_halted(status: &Status) -> Result<(), Failure> {
    status.halted.clone().map_or(Ok(()), |why| Err(refused(why)))
}

impl Orders {
    pub(super) fn would_take_over(&self) -> Result<Said, Failure> {
        let status = self.device.status();
        match &status {
            _ if status.serving => refusal(Exit::Refused, "this device serves already"),
            _ if !status.connected => refusal(
                Exit::Unconnected,
                "the peer is not connected: it cannot be asked for the host; if it is lost, force this device to take \
                 over",
            ),
            _ if status.lost.is_some() => {
                refusal(Exit::Device, "this device lacks records that it had: see the status")
            }
            _ => {
                let told = plural(status.told_blocks, "block");
                let text = format!(
                    "the host would move here; as far as the peer has told, {told} would be missing at first, the \
                     newest written {}; {}",
                    moment(status.told.time),
                    self.predicted()
                );
                Ok(self.would(&text, (status.told_blocks, status.told_bytes)))
            }
        }
    }

    /// How long the last move of the host took.
    fn last_ready(&self) -> Option<u64> {
        Some(self.last_ready_ns.load(Ordering::Relaxed)).filter(|&ns| ns > 0)
    }

    /// A sentence on how long it takes until hosts are served again.
    fn predicted(&self) -> String {
        match self.last_ready() {
            Some(ns) => format!("hosts would be served again after about {}, as last time", duration(ns)),
            None => "hosts would be served again after two round trips and a sync of the other device's journal, \
                     however much is owed"
                .into(),
        }
    }

    fn would(&self, text: &str, (owed_blocks, owed_bytes): (u64, u64)) -> Said {
        let document = json!({
            "version": 1,
            "dry_run": true,
            "tenure": self.device.status().epoch,
            "owed_blocks": owed_blocks,
            "owed_bytes": owed_bytes,
            "ready_after_ns": self.last_ready(),
        });
        Said { text: format!("{text}\n"), document }
    }

    pub(super) fn take_over(&self, caller: &mut Caller, no_wait: bool) -> Result<Said, Failure> {
        let takeover = self.device.takeover().map_err(refused)?;
        let took = takeover.ready_at.saturating_sub(takeover.requested_at);
        self.last_ready_ns.store(took, Ordering::Relaxed);
        let ready = format!(
            "ready after {}: tenure {}, {} owed by the peer",
            duration(took),
            takeover.epoch,
            plural(takeover.owed_blocks, "block")
        );
        let document = |caught_up: bool| {
            json!({
                "version": 1,
                "tenure": takeover.epoch,
                "ready_after_ns": took,
                "owed_blocks": takeover.owed_blocks,
                "caught_up": caught_up,
            })
        };
        if no_wait || takeover.owed_blocks == 0 {
            let document = document(takeover.owed_blocks == 0);
            return Ok(Said { text: format!("{ready}\n"), document });
        }
        caller.tell(Said { text: format!("{ready}\n"), document: document(false) })?;
        let begun = Instant::now();
        let mut shown = begun;
        caller.wait(None, |caller| {
            let status = self.device.status();
            check_halted(&status)?;
            if !status.serving || status.epoch != takeover.epoch {
                let what = "the host has moved on before everything owed was here";
                return refusal(Exit::Superseded, what);
            }
            if status.owed_blocks > 0 && shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                let text = format!("{}\n", left(status.owed_blocks));
                let document = json!({ "version": 1, "owed_blocks": status.owed_blocks });
                caller.tell(Said { text, document })?;
            }
            Ok(status.owed_blocks == 0)
        })?;
        let took = duration(begun.elapsed().as_nanos() as u64);
        Ok(Said { text: format!("caught up after {took}\n"), document: document(true) })
    }

    pub(super) fn would_hand_over(&self) -> Result<Said, Failure> {
        self.flush();
        let status = self.device.status();
        let blocks = status.backlog_records + status.differential.table_blocks;
        match &status {
            _ if !status.serving => {
                refusal(Exit::Fenced, "this device does not serve: there is no host to hand over")
            }
            _ if !status.connected => {
                refusal(Exit::Unconnected, "the peer is not connected, and could not take the host")
            }
            _ => {
                let text = format!(
                    "the host would move to the peer, which would lack {} at first; {}",
                    self.lacks(&status),
                    self.predicted()
                );
                Ok(self.would(&text, (blocks, self.lacking_bytes(&status))))
            }
        }
    }

    fn lacking_bytes(&self, status: &Status) -> u64 {
        let block_size = u64::from(self.device.geometry().block_size);
        status.backlog_bytes + status.differential.table_blocks * block_size
    }

    /// The writes that the peer has not got, in a phrase.
    fn lacks(&self, status: &Status) -> String {
        let records = plural(status.backlog_records, "record");
        let blocks = plural(status.differential.table_blocks, "block");
        format!("{records} and {blocks} by bits, {}", bytes(self.lacking_bytes(status)))
    }

    pub(super) fn hand_over(&self, caller: &mut Caller, no_wait: bool) -> Result<Said, Failure> {
        let epoch = self.device.status().epoch;
        let begun = Instant::now();
        self.device.offer_host().map_err(refused)?;
        let has_moved = caller.wait(Some(ANSWER), |_| {
            let status = self.device.status();
            check_halted(&status)?;
            // Stored with the fence.
            Ok(status.epoch > epoch)
        })?;
        if !has_moved {
            return Err(timed_out(format!(
                "the peer has not taken the host within {} s: this device serves on, and the peer may still take it",
                ANSWER.as_secs()
            )));
        }
        let serves = caller.wait(Some(ANSWER), |_| {
            let status = self.device.status();
            check_halted(&status)?;
            Ok(!status.awaits_taker)
        })?;
        if !serves {
            return Err(timed_out(format!(
                "the host is granted to the peer, which has not been heard to serve within {} s: see its status",
                ANSWER.as_secs()
            )));
        }
        let took = begun.elapsed().as_nanos() as u64;
        self.last_ready_ns.store(took, Ordering::Relaxed);
        let status = self.device.status();
        let tenure = status.epoch;
        let ready = format!(
            "the peer serves after {}: tenure {tenure}; it lacks {}\n",
            duration(took),
            self.lacks(&status)
        );
        let lacking = (status.backlog_records, status.differential.table_blocks);
        let document = |caught_up: bool| {
            json!({
                "version": 1,
                "tenure": tenure,
                "ready_after_ns": took,
                "lacking_records": lacking.0,
                "lacking_blocks": lacking.1,
                "caught_up": caught_up,
            })
        };
        if no_wait || peer_has_all(&status) {
            return Ok(Said { text: ready, document: document(peer_has_all(&status)) });
        }
        caller.tell(Said { text: ready, document: document(false) })?;
        let begun = Instant::now();
        let mut shown = begun;
        caller.wait(None, |caller| {
            let status = self.device.status();
            check_halted(&status)?;
            if status.epoch != tenure {
                let what = "the host has moved on before the peer had everything";
                return refusal(Exit::Superseded, what);
            }
            let has_all = peer_has_all(&status);
            if !has_all && shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                caller.tell(self.said(&format!("the peer lacks {}", self.lacks(&status))))?;
            }
            Ok(has_all)
        })?;
        let took = duration(begun.elapsed().as_nanos() as u64);
        Ok(Said {
            text: format!("the peer has everything after {took}\n"),
            document: document(true),
        })
    }

    pub(super) fn fence(&self) -> Result<Said, Failure> {
        self.device.fence_here().map_err(refused)?;
        Ok(self.said("hosts are served nowhere, until `afterimage resume` here or a takeover"))
    }

    /// Undoes a fence, by the peer's word.
    pub(super) fn resume(&self, caller: &mut Caller) -> Result<Said, Failure> {
        self.device.unfence().map_err(refused)?;
        let serves = caller.wait(Some(ANSWER), |_| {
            let status = self.device.status();
            check_halted(&status)?;
            Ok(status.serving)
        })?;
        match serves {
            true => Ok(self.said("the device serves")),
            false => Err(timed_out(format!(
                "the peer has not shown within {} s that it was not forced to take over: this device serves once it \
                 has",
                ANSWER.as_secs()
            ))),
        }
    }
}
