//! Benchmarks of the SmartEdit server, in `benches/`:
//!
//! - `overhead`: an edit through loopback gRPC beside the same pipeline called as a library.
