//! Each order carried out: what it does with the device, and what its command says.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use afterimage::internal::unit::Mode;
use afterimage::{Device, Error, Forced, Kind, Status};
use serde_json::json;

use super::control::server::Caller;
use super::control::wire::{Order, Point, Said};
use super::course::{Course, sent};
use super::hosts::Hosts;
use super::line::PeerLine;
use super::news::News;
use super::running::{Service, stops};
use super::status::{Parts, Report, left};
use crate::exit::{Exit, Failure};
use crate::words::{bytes, plural};

/// Between two lines of progress.
pub(super) const PROGRESS: Duration = Duration::from_secs(1);

/// The service of one device.
pub struct Orders {
    /// The device.
    pub device: Arc<Device>,
    /// Its events.
    pub news: Arc<News>,
    /// Its connection to the peer.
    pub line: Arc<PeerLine>,
    /// Its hosts.
    pub hosts: Arc<Hosts>,
    /// Monotonic time of its opening.
    pub opened_at: u64,
    /// The service that has opened it.
    pub(super) service: Weak<Service>,
    /// Its rates, and what happened last.
    pub course: Arc<Course>,
    /// How far the peer may be behind, in nanoseconds, as an operator wants it.
    pub target_ns: Option<u64>,
    /// How long the last move of the host took that was asked for here, in nanoseconds; 0: there was none.
    pub last_ready_ns: AtomicU64,
}

impl Orders {
    /// Carries an order out.
    ///
    /// # Errors
    /// The failure that its command ends with.
    pub(super) fn carry_out(&self, order: Order, caller: &mut Caller) -> Result<Said, Failure> {
        match order {
            Order::Status {} => {
                let report = self.report();
                Ok(Said::new(report.to_string(), &report))
            }
            Order::Events {} => self.events(caller),
            Order::Mark {} => Ok(self.mark()),
            Order::Wait { point, timeout_ms } => self.wait(caller, point, timeout_ms),
            Order::Drain { timeout_ms } => self.drain(caller, timeout_ms),
            Order::Takeover { dry_run: true, .. } => self.would_take_over(),
            Order::Takeover { no_wait, .. } => self.take_over(caller, no_wait),
            Order::Handover { dry_run: true, .. } => self.would_hand_over(),
            Order::Handover { no_wait, .. } => self.hand_over(caller, no_wait),
            Order::Fence {} => self.fence(),
            Order::Resume {} => self.resume(caller),
            Order::Invite {} => self.invite(),
            Order::Rate { bytes_per_second } => {
                self.line.limit(Some(bytes_per_second).filter(|&rate| rate != 0))?;
                let rate = match bytes_per_second {
                    0 => "data is sent to the peer as fast as the line takes it".into(),
                    rate => format!("data is sent to the peer at {}/s at most", bytes(rate)),
                };
                let document = json!({ "version": 1, "bytes_per_second": bytes_per_second });
                Ok(Said { text: format!("{rate}\n"), document })
            }
            Order::ResumeAlone {} => {
                self.device.resume_alone().map_err(refused)?;
                Ok(self.said("the device serves"))
            }
            Order::AcceptLoss { dry_run } => self.accept_loss(dry_run),
            Order::Force { image, accept_loss, yes } => {
                self.force(Forced { image: image.image(), accept_loss }, yes)
            }
            Order::Resolve { keep, yes } => self.resolve(caller, keep, yes),
            Order::ForgetPeer { yes } => self.forget_peer(caller, yes),
            Order::SalvageList {} => self.list_salvage(),
            Order::SalvageShow { number } => self.show_salvage(caller, number),
            Order::SalvageRemove { number, yes } => self.remove_salvage(caller, number, yes),
            Order::Compare { volume, bytes_per_second } => {
                self.compare(caller, volume, bytes_per_second)
            }
        }
    }
}

/// The engine's refusal, with the exit status of its kind.
pub(super) fn refused(error: Error) -> Failure {
    let exit = match error.kind() {
        Kind::NoPeer => Exit::Unconnected,
        Kind::Timeout => Exit::TimedOut,
        Kind::Fenced | Kind::NotReady => Exit::Fenced,
        Kind::Invalid | Kind::NotProven | Kind::LostWrites => Exit::Refused,
        _ => Exit::Device,
    };
    Failure::new(exit, error.to_string())
}

pub(super) fn timed_out(what: impl Into<String>) -> Failure {
    Failure::new(Exit::TimedOut, what)
}

/// Whether the peer has all that this device has, as far as this one knows.
pub(super) fn peer_has_all(status: &Status) -> bool {
    status.backlog_records == 0 && status.differential.table_blocks == 0
}

impl Orders {
    pub(super) fn service(&self) -> Result<Arc<Service>, Failure> {
        self.service.upgrade().ok_or_else(stops)
    }

    /// Keeps how much the peer has got by now.
    pub(super) fn note(&self) {
        self.course.note(sent(&self.device.status()), self.device.clock().monotonic());
    }

    /// Where the device stands.
    pub fn report(&self) -> Report {
        let parts = Parts {
            link: self.line.report(),
            hosts: self.hosts.report(),
            course: &self.course,
            opened_at: self.opened_at,
            target_ns: self.target_ns,
        };
        Report::of(&self.device, parts)
    }

    /// `text`, with the device's state beside it.
    pub(super) fn said(&self, text: &str) -> Said {
        Said::new(format!("{text}\n"), &self.report())
    }

    fn events(&self, caller: &mut Caller) -> Result<Said, Failure> {
        let mut next = self.news.next();
        loop {
            let (events, after, missed) = self.news.from(next, Duration::from_millis(100));
            next = after;
            if missed > 0 {
                let text = format!("{} came too fast to be told\n", plural(missed, "event"));
                caller.tell(Said { text, document: json!({ "version": 1, "missed": missed }) })?;
            }
            events.into_iter().try_for_each(|said| caller.tell(said))?;
            caller.rest(Duration::ZERO)?;
        }
    }

    fn invite(&self) -> Result<Said, Failure> {
        let invitation = self.line.invite(&self.news)?;
        let document = json!({ "version": 1, "invitation": invitation });
        Ok(Said { text: format!("{invitation}\n"), document })
    }

    /// The writes that have completed count in the status only once they are durable here.
    pub(super) fn flush(&self) {
        // A device that does not serve has none, or they are in doubt.
        let _ = self.device.session().and_then(|session| session.flush());
    }

    fn mark(&self) -> Said {
        self.flush();
        let status = self.device.status();
        let point = Point(status.newest_own);
        let document = json!({ "version": 1, "tenure": status.epoch, "point": point });
        Said { text: format!("{point}\n"), document }
    }

    /// The peer has everything up to `point`, durably: by records in ordered mode; while bits stand, once it has
    /// everything.
    fn wait(
        &self,
        caller: &mut Caller,
        point: Point,
        timeout_ms: Option<u64>,
    ) -> Result<Said, Failure> {
        let begun = Instant::now();
        let status = self.device.status();
        let is_of_before = point.0.epoch != 0 && point.0.epoch != status.last_active;
        if !status.serving || is_of_before {
            let what = format!(
                "the host has moved since {point}, or is not here: whether the peer has it is not known here"
            );
            return Err(Failure::new(Exit::Superseded, what));
        }
        if point.0 > status.newest_own {
            let newest = Point(status.newest_own);
            let what = format!("no write has the point {point}: the newest one is {newest}");
            return Err(Failure::new(Exit::Refused, what));
        }
        let most = timeout_ms.map(Duration::from_millis);
        let has_come = caller.wait(most, |_| {
            let status = self.device.status();
            if !status.serving {
                let what = format!(
                    "the device serves no more: whether the peer has {point} is not known here"
                );
                return Err(Failure::new(Exit::Superseded, what));
            }
            if status.lost_writes.is_some_and(|lost| lost.first <= point.0) {
                let what = format!("the write {point} may be lost: see the status");
                return Err(Failure::new(Exit::Superseded, what));
            }
            let is_by_records = status.mode == Mode::Ordered && status.acked >= point.0;
            Ok(is_by_records || status.differential.is_level || peer_has_all(&status))
        })?;
        if !has_come {
            return Err(timed_out(format!("the peer has not got {point} durably by now")));
        }
        let waited = begun.elapsed().as_nanos() as u64;
        let document = json!({ "version": 1, "point": point, "waited_ns": waited });
        Ok(Said { text: format!("the peer has {point} durably\n"), document })
    }

    fn drain(&self, caller: &mut Caller, timeout_ms: Option<u64>) -> Result<Said, Failure> {
        let status = self.device.status();
        if !status.serving && !status.fenced_here {
            let what = "this device does not serve: drain at the one that does";
            return Err(Failure::new(Exit::Fenced, what));
        }
        self.flush();
        let most = timeout_ms.map(Duration::from_millis);
        let mut shown = Instant::now();
        let is_drained = caller.wait(most, |caller| {
            let status = self.device.status();
            if let Some(why) = status.halted {
                return Err(refused(why));
            }
            let is_owed = status.owed_blocks > 0 || !peer_has_all(&status);
            if is_owed && shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                let report = self.report();
                let (records, blocks) = (status.backlog_records, status.differential.table_blocks);
                let (records, blocks) = (plural(records, "record"), plural(blocks, "block"));
                let owed = left(status.owed_blocks);
                caller.tell(Said::new(
                    format!("{records} and {blocks} to send, {owed}\n"),
                    &report,
                ))?;
            }
            Ok(!is_owed)
        })?;
        match is_drained {
            true => Ok(self.said("nothing is owed")),
            false => Err(timed_out("something is still owed: see the status")),
        }
    }
}
