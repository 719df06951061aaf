//! The candle engine.
//!
//! On a CPU, weights stay in the mapped file where their element type is the engine's precision, and the
//! operations that carry a network (linear, convolution, attention, norms) have kernels of their own over
//! [`gemm`](https://docs.rs/gemm). On CUDA and Metal everything is candle's.

mod backend;
mod cpu;
mod engine;
mod tensor;
mod threads;
mod weight;

pub use backend::CandleBackend;
pub use engine::CandleEngine;
pub use tensor::CandleTensor;
