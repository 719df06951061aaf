//! Kernels in host memory. All compute in `f32`; 16-bit operands are widened on the way in.

mod attention;
mod conv;
mod embedding;
mod functions;
mod linear;
mod matrix;
mod microkernel;
mod norm;
mod resize;
mod scratch;
mod winograd;

pub(crate) use attention::{Shape as AttentionShape, attention};
pub(crate) use conv::{Shape as ConvShape, conv2d};
pub(crate) use embedding::embedding;
pub(crate) use functions::{Function, apply};
pub(crate) use linear::linear;
pub(crate) use norm::{group_norm, layer_norm, rms_norm};
pub(crate) use resize::{bilinear, nearest};
