//! A gRPC model server for instruction-based image editing, and its command line.
//!
//! - [`config`]: the configuration file and its overrides; [`engines`]: the engines of this build.
//! - [`deployment`]: models under names, loaded on their own threads; [`work`]: queue, workers, events.
//! - [`route`]: names that stand for several deployments.
//! - [`service`]: `smartedit.v1` over all of that; [`status`]: what callers are told of a [`failure`].
//! - `connections`: what bounds connections and transfers; [`security`]: who may connect and call; `web`: what is served over
//!   HTTP; [`metrics`]: what the server counts.
//! - [`server`]: the whole, in a process of its own or inside another; [`cli`]: the `smartedit` binary.

pub mod cli;
pub mod config;
mod connections;
pub mod deployment;
pub mod engines;
pub mod failure;
mod idle;
mod memory;
pub mod metrics;
pub mod route;
pub mod security;
pub mod server;
pub mod service;
pub mod status;
pub mod telemetry;
mod web;
pub mod work;

pub use config::Config;
pub use server::{Server, Shutdown, StartError};
