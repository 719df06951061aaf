//! Benchmarks of the SmartEdit server, in `benches/`:
//!
//! - `overhead`: an edit through loopback gRPC beside the same pipeline called as a library.
//! - `operations`: what a UNet step spends its time in, at the sizes of Stable Diffusion 1.5.
//! - `reliability`: what the server adds to an edit, and how it stands ten times what it can do.
//! - `unet_step`: the whole step.
