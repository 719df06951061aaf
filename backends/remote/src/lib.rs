//! The remote engine: a stage is a model of another server that speaks the Open Inference Protocol, version 2, over
//! gRPC, such as this project's own server, Triton or MLServer.
//!
//! A model is called like a program: it keeps nothing between calls, and
//! [`program`](smartedit_core::stages::program) hands over what calls build on. Whatever its metadata says that does not
//! fit the stage is found when the stage is loaded. A call ends when nobody waits for it any more
//! ([`interest`](smartedit_core::interest)), and one that finds the server unavailable is tried again as long as there is
//! time.

mod backend;
mod batch;
mod connection;
mod contract;
mod failure;
mod model;
mod options;
mod retry;
mod tensors;
mod trace;

pub use backend::RemoteBackend;
