//! The torch engine: every operation of a network is one of libtorch's, on a CPU or on CUDA, but attention where that is
//! slow.
//!
//! Feature maps are kept in libtorch's memory format *channels last*: its convolutions and group norms compute
//! fastest there, and a feature map and the sequence of its cells are then views of each other. No result depends
//! on the format.

mod attention;
mod backend;
mod engine;
mod foreign;
mod packed;
mod program;
mod tensor;
mod threads;

pub use backend::TorchBackend;
pub use engine::TorchEngine;
pub use tensor::TorchTensor;
