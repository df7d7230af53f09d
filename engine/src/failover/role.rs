//! Which of the two devices holds the host, as this one knows: the request that is open here, the
//! grant that is being answered with, crossing requests, and what was heard of the peer's tenure
//! (R4, R5). Nothing here knows what is handed over: a grant carries a value for that, chosen when it
//! is made ([`super::handover`]).

use super::Takeover;
use super::handover::HandOver;
use crate::error::{Error, Kind, Result};
use crate::weaken::{Clause, holds};

/// This device's open takeover request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRequest {
    pub nonce: u64,
    pub requested_at: u64,
    /// When the peer last gave a sign: a piece of what it hands over, or else the request's time.
    pub progress_at: u64,
}

/// A grant under way to the peer.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The request answered.
    pub nonce: u64,
    pub tenure: u64,
    /// The rest that is to be handed over.
    pub what: HandOver,
}

/// Where takeovers stand.
pub(crate) struct Role {
    device: u64,
    request: Option<OpenRequest>,
    /// The last one that was written into a file: a grant in a file answers it, once, until a connection comes to
    /// stand.
    by_file: Option<OpenRequest>,
    /// A hello, or a host, made this device ask for the host, and neither device has begun to serve since.
    must_ask: bool,
    grant: Option<Grant>,
    outcome: Option<Result<Takeover>>,
    /// It has served since its opening.
    served: bool,
    /// It serves, or a fence ended its tenure. Cleared when the tenure comes in doubt, and it asks for
    /// the host anew.
    held: bool,
    /// The peer's proof that this device lost durable records; no hello has agreed with it since.
    lost: Option<Error>,
    /// How often the peer has said what this device knows to be untrue.
    untrue: u64,
    /// The highest tenure granted here that the peer has been heard to hold.
    taken: u64,
    /// The tenure that the peer was heard to be reachable under.
    reached: u64,
    /// The tenure of this device's own in which its driver said that hosts reach it.
    reachable: u64,
}

/// The error for the loser of two crossing requests.
fn lost() -> Error {
    let what =
        "the other device asked for the host at the same time and gets it: the host is there";
    Error::new(Kind::NotReady, what)
}

impl Role {
    /// The role of the device with this id, just opened.
    pub fn new(device: u64) -> Role {
        Role {
            device,
            request: None,
            by_file: None,
            must_ask: false,
            grant: None,
            outcome: None,
            served: false,
            held: false,
            lost: None,
            untrue: 0,
            taken: 0,
            reached: 0,
            reachable: 0,
        }
    }

    /// Opens a request, which replaces the open one. Returns this device's id, which it carries.
    pub fn ask(&mut self, request: OpenRequest) -> u64 {
        self.request = Some(request);
        self.outcome = None;
        self.device
    }

    /// A request goes into a file. Returns this device's id, which it carries.
    pub fn ask_by_file(&mut self, request: OpenRequest) -> u64 {
        self.by_file = Some(request);
        self.device
    }

    /// A grant in a file answers the request `nonce`, which is open from now on, at `now`; whether it is the one
    /// that a grant in a file may answer.
    pub fn answered_by_file(&mut self, nonce: u64, now: u64) -> bool {
        let request = self.by_file.take_if(|request| request.nonce == nonce);
        request.is_some_and(|request| {
            self.ask(OpenRequest { progress_at: now, ..request });
            true
        })
    }

    /// A connection stands: what is in a file is answered by it no more.
    pub fn forget_file(&mut self) {
        self.by_file = None;
    }

    /// The open request.
    pub fn request(&self) -> Option<OpenRequest> {
        self.request
    }

    /// Whether a request is open.
    pub fn is_asking(&self) -> bool {
        self.request.is_some()
    }

    /// A hello, or a host, makes this device ask; or, with `false`, leaves it to others.
    pub fn must_ask(&mut self, must: bool) {
        self.must_ask = must;
    }

    /// Whether this device has to ask once more, as the request that it made by itself has ended
    /// without an answer.
    pub fn asks_again(&self) -> bool {
        self.must_ask && self.request.is_none()
    }

    /// Forgets the open request, which the peer has not heard.
    pub fn withdraw(&mut self) {
        self.request = None;
    }

    /// A request that the peer has left without a sign for more than `timeout` ends.
    pub fn expire(&mut self, now: u64, timeout: u64) {
        let Some(request) = &self.request else { return };
        let waited = now.saturating_sub(request.progress_at);
        if waited > timeout {
            let ms = waited / 1_000_000;
            let what = format!(
                "the peer has not answered the takeover request for {ms} ms: see that it runs and \
                 is connected, then ask again"
            );
            self.request = None;
            self.outcome = Some(Err(Error::new(Kind::Timeout, what)));
        }
    }

    /// The peer answers the request `nonce`, at `now`; whether that is the open one.
    pub fn progress(&mut self, nonce: u64, now: u64) -> bool {
        match &mut self.request {
            Some(request) if request.nonce == nonce || !holds(Clause::RequestNonce) => {
                request.progress_at = now;
                true
            }
            _ => false,
        }
    }

    /// Everything granted has arrived: closes the open request and returns it.
    pub fn answered(&mut self) -> Option<OpenRequest> {
        self.request.take()
    }

    /// The peer's own request won against the request `nonce`; whether that was open.
    pub fn refused(&mut self, nonce: u64) -> bool {
        let is_open = self.request.as_ref().is_some_and(|request| request.nonce == nonce);
        if is_open {
            self.lose();
        }
        is_open
    }

    /// The device `device` asks, too: of crossing requests the lower device id wins (R5). Returns
    /// whether `device` wins; the request here has then ended, and its caller is told.
    pub fn yields_to(&mut self, device: u64) -> bool {
        if self.request.is_some() && holds(Clause::CrossingRequests) {
            if self.device < device {
                return false;
            }
            self.lose();
        }
        // The peer is to serve.
        self.must_ask = false;
        true
    }

    fn lose(&mut self) {
        self.request = None;
        self.must_ask = false;
        self.outcome = Some(Err(lost()));
    }

    /// The outcome of the last request, once.
    pub fn take_outcome(&mut self) -> Option<Result<Takeover>> {
        self.outcome.take()
    }

    /// The device serves by the takeover that it asked for.
    pub fn took_over(&mut self, takeover: Takeover) {
        self.outcome = Some(Ok(takeover));
    }

    /// Hosts are about to be let in.
    pub fn serve(&mut self) {
        self.must_ask = false;
        self.served = true;
        self.held = true;
    }

    /// Whether it has served since its opening.
    pub fn served(&self) -> bool {
        self.served
    }

    /// Whether it held the host until a fence.
    pub fn held(&self) -> bool {
        self.held
    }

    /// The tenure that it held is in doubt: it asks for the host anew.
    pub fn doubt(&mut self) {
        self.held = false;
    }

    /// Answers with `grant`, instead of what was being answered before.
    pub fn begin_grant(&mut self, grant: Grant) {
        self.grant = Some(grant);
    }

    /// The grant under way.
    pub fn grant(&mut self) -> Option<&mut Grant> {
        self.grant.as_mut()
    }

    /// Whether something is still to be handed over.
    pub fn is_handing_over(&self) -> bool {
        self.grant.is_some()
    }

    /// Everything is handed over, or the connection or the peer's interest has ended.
    pub fn end_grant(&mut self) {
        self.grant = None;
    }

    /// The peer has shown that this device lost durable records; whether that is news.
    pub fn lose_records(&mut self, error: Error) -> bool {
        self.lost.replace(error).is_none()
    }

    /// The peer's proof that this device lost durable records.
    pub fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    /// A hello agrees with the logs.
    pub fn agree(&mut self) {
        self.lost = None;
    }

    /// The peer says what is known here to be untrue.
    pub fn count_untrue(&mut self) {
        self.untrue += 1;
    }

    /// How often it did.
    pub fn untrue(&self) -> u64 {
        self.untrue
    }

    /// The peer holds `tenure`, which was granted here last; whether that is news.
    pub fn take(&mut self, tenure: u64) -> bool {
        std::mem::replace(&mut self.taken, tenure) != tenure
    }

    /// Hosts reach the peer under `tenure`; whether it is the one that it took, and that is news.
    pub fn peer_reached(&mut self, tenure: u64) -> bool {
        let is_news = self.taken == tenure && self.reached != tenure;
        if is_news {
            self.reached = tenure;
        }
        is_news
    }

    /// Hosts reach this device under its own `tenure`.
    pub fn reach(&mut self, tenure: u64) {
        self.reachable = tenure;
    }

    /// The tenure of this device's own in which its driver said that hosts reach it.
    pub fn reachable(&self) -> u64 {
        self.reachable
    }

    /// The highest tenure granted here that the peer has been heard to hold.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}
