//! The real server with real models: in this process through the real client, and as the `smartedit` program.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

mod adapters;
mod caching;
mod cancellation;
mod compare;
mod connections;
mod events;
mod faults;
mod golden_over_grpc;
mod http;
mod inference;
mod leaks;
mod lifecycle;
mod program;
mod rejections;
mod routes;
mod running;
mod scheduling;
mod stages;
mod storms;
mod witness;
