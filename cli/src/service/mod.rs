//! A device as a service: made, served, operated.
//!
//! | module | what it is for |
//! |---|---|
//! | [`init`] | `afterimage init`: a new device, and the names of its volumes |
//! | [`serve`] | `afterimage serve`: the device opened, its threads, its sockets, until it is stopped |
//! | `running` | what works on the device while it is open, and what stays when it is opened again |
//! | [`config`] | the file with every setting |
//! | [`hosts`] | hosts, by NBD |
//! | [`host_certs`] | `afterimage host-certs`: certificates of the devices and of hosts |
//! | `listeners` | the sockets at which these come, and who may |
//! | `hooks` | commands at changes of role |
//! | [`control`] | orders by a local socket: what is said, who may say it, both ends |
//! | [`orders`] | what each order does with the device |
//! | `worst` | those of the worst day: force, resolve, forget, salvage, compare |
//! | `moves` | those that move the host, or stop it |
//! | `absence` | the device's own watch on its hosts |
//! | [`status`] | where the device stands, for a person and as JSON |
//! | [`mod@line`] | the connection to the peer |
//! | [`pairing`] | `afterimage invite`, `join`: keys, pins and invitations, and what is told to a device that joins |
//! | `news` | events, for those that follow them |
//! | [`course`] | rates, and what happened last |
//! | [`metrics`] | all that for Prometheus |
//! | [`log`] | the log |
//! | [`systemd`] | what systemd passes and wants to hear |
//!
//! # Rules
//! - **The engine decides**: here is only what is asked of it, and what a person is told.
//! - **Three rights** (see, operate, force), each with a socket of its own: file modes and owners say who has it.

mod absence;
pub mod config;
pub mod control;
pub mod course;
mod durable;
mod hooks;
pub mod host_certs;
pub mod hosts;
pub mod init;
pub mod line;
mod listeners;
pub mod log;
pub mod metrics;
mod moves;
mod news;
pub mod orders;
pub mod pairing;
mod running;
pub mod serve;
mod sockets;
pub mod status;
pub mod systemd;
mod volumes;
mod worst;
