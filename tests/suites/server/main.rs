//! The real server with real models: in this process through the real client, and as the `smartedit` program.

mod cancellation;
mod events;
mod golden_over_grpc;
mod rejections;
mod running;
mod witness;
