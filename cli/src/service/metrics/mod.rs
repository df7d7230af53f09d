//! The metrics of a service, for Prometheus: `GET /metrics` at an address of this machine.
//!
//! | file | what it is for |
//! |---|---|
//! | `page` | the metrics, as text |
//! | `http` | who asks for them |
//!
//! `docs/monitoring.md` names them all, with alerts and a dashboard.

mod http;
mod page;

use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;

use self::http::Http;
use self::page::{Counts, page};
use super::config;
use super::course::sent;
use super::running::Service;
use crate::exit::{Exit, Failure};

/// Where the metrics are, as the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    /// Show metrics for Prometheus at this address, as `GET /metrics`
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,

    /// Let that address be another one than of loopback: anybody who reaches it sees how the device is doing
    #[arg(long)]
    pub metrics_beyond_loopback: bool,
}

/// The metrics' address, until this is dropped.
pub struct Metrics(#[expect(dead_code, reason = "it is kept, and ends when dropped")] Option<Http>);

impl Metrics {
    /// Shows the metrics of `service` at the address of `args`, or else of `settings`; nowhere without one.
    ///
    /// # Errors
    /// [`Exit::Usage`] for an address that is none, or not of loopback without a word that it may be;
    /// [`Exit::Device`] if it cannot be opened.
    pub fn start(
        args: &MetricsArgs,
        settings: &config::Metrics,
        service: &Arc<Service>,
    ) -> Result<Metrics, Failure> {
        let Some(address) = args.metrics.as_ref().or(settings.listen.as_ref()) else {
            return Ok(Metrics(None));
        };
        let opening = format!("opening {address} for metrics");
        let usage =
            |what: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{opening}: {what}"));
        let addresses: Vec<_> = address.to_socket_addrs().map_err(|e| usage(&e))?.collect();
        let is_open = args.metrics_beyond_loopback || settings.beyond_loopback;
        if !is_open && addresses.iter().any(|address| !address.ip().is_loopback()) {
            return Err(usage(
                &"anybody who reaches it would see how the device is doing: use an address of loopback, or say \
                 --metrics-beyond-loopback",
            ));
        }
        let failed = |e| Failure::storage(&opening, &e);
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        let service = service.clone();
        let http = Http::start(listener, move || shown(&service)).map_err(failed)?;
        tracing::info!(target: "afterimage", "metrics at http://{}/metrics", http.address());
        Ok(Metrics(Some(http)))
    }
}

/// The page; empty for a service that stops.
fn shown(service: &Service) -> String {
    let Ok(desk) = service.orders() else { return "# EOF\n".into() };
    let counts = Counts {
        requests: desk
            .hosts
            .latencies()
            .kinds()
            .map(|(kind, latency)| (kind, latency.read()))
            .into(),
        lag: desk.course.lag.read(),
        acknowledged: (desk.course.acknowledged(), sent(&desk.device.status())),
        takeovers: desk.course.takeovers().1,
        events: desk.news.counts(),
        refused_orders: service.refused(),
        begun_at: service.begun_at(),
    };
    page(&desk.report(), &counts)
}
