//! A service that systemd has started: what it passes, and what it wants to hear. Without systemd nothing happens here.

use std::process::Command;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::exit::{Exit, Failure};
use crate::nbd::Listener;

/// The variables of this process by which systemd is found, and which no other is to have.
const VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// The sockets that were opened for this process: hosts come there, and wait there while no service runs.
///
/// # Errors
/// [`Exit::Usage`] if one is neither a unix socket nor one of TCP.
pub fn passed() -> Result<Vec<Listener>, Failure> {
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .filter_map(|at| match passed.take_unix_listener(at) {
            Ok(found) => found.map(|listener| Ok(Listener::Unix(listener))),
            Err(_) => passed.take_tcp_listener(at).map(|tcp| tcp.map(Listener::Tcp)).transpose(),
        })
        .collect::<Result<_, _>>()
        .map_err(|e| {
            let what = format!("systemd has passed something that no host can connect to: {e}");
            Failure::new(Exit::Usage, what)
        })
}

/// `command` is not told how to reach systemd.
pub fn keep_from(command: &mut Command) {
    for name in VARIABLES {
        command.env_remove(name);
    }
}

/// How often systemd wants to hear that the service is alive; `None`: it does not look.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The service takes orders and hosts.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The service is alive, and stands like this.
pub fn alive(standing: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(standing)]);
}

/// The service ends, and takes at most `most` for it from now on.
pub fn stopping(standing: &str, most: Duration) {
    let most = u32::try_from(most.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(standing),
        NotifyState::ExtendTimeoutUsec(most),
    ]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a systemd that listens nobody misses it; one that does not hear ends the service by its watchdog.
    let _ = sd_notify::notify(states);
}
