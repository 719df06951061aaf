//! Kernels in host memory. They compute in `f32`, and 16-bit operands are widened on the way in; linear layers and
//! convolutions multiply `bf16` as it is where the processor can.

mod attention;
mod bf16;
mod conv;
mod embedding;
mod functions;
mod layout;
mod linear;
mod matrix;
mod microkernel;
mod norm;
mod resize;
mod scratch;
mod tasks;
mod vectorised;
mod winograd;

pub(crate) use attention::{Shape as AttentionShape, attention};
pub(crate) use bf16::is_available as has_bf16_products;
pub(crate) use conv::{Shape as ConvShape, conv2d, conv2d_bf16};
pub(crate) use embedding::embedding;
pub(crate) use functions::{Binary, Function, apply, geglu, join};
pub(crate) use layout::{swap_middle, transpose};
pub(crate) use linear::{linear, linear_bf16};
pub(crate) use norm::{group_norm, layer_norm, rms_norm};
pub(crate) use resize::{bilinear, nearest};
pub(crate) use scratch::free as free_scratch;
