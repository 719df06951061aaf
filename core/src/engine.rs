//! The tensor operations a backend supplies.
//!
//! A network calls these and nothing else, so that one definition runs on every engine. Networks never branch
//! on run-time sizes: whatever depends on a size (batch, sequence, height, width) is expressed relative to
//! another tensor ([`Engine::unflatten_spatial`], [`Engine::upsample_nearest_like`], …), which lets an engine
//! record the calls once and replay them for any size.

use std::time::Duration;

use crate::tensor::HostTensor;
use crate::weights::WeightView;

/// An operation failed: which, and why, with the shapes involved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct EngineError {
    /// The operation, as it is named in [`Engine`].
    pub operation: &'static str,
    /// The engine's own words.
    pub message: String,
    /// Whether it is worth trying again.
    pub prospect: Prospect,
}

/// Whether what has failed is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prospect {
    /// It will fail again.
    #[default]
    Hopeless,
    /// What computes cannot be had at the moment.
    Unavailable {
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
}

impl EngineError {
    /// An error of the named operation.
    pub fn new(operation: &'static str, message: impl ToString) -> Self {
        Self { operation, message: message.to_string(), prospect: Prospect::Hopeless }
    }

    /// An error of the named operation, because what computes it cannot be had at the moment.
    pub fn unavailable(
        operation: &'static str,
        message: impl ToString,
        retry_after: Option<Duration>,
    ) -> Self {
        Self { prospect: Prospect::Unavailable { retry_after }, ..Self::new(operation, message) }
    }
}

/// What every operation returns.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Zeros added around the last two dimensions before a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same padding on every side.
    pub const fn all(size: usize) -> Self {
        Self { top: size, left: size, bottom: size, right: size }
    }
}

/// Element type in which an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats with the exponent range of `f32`.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// Tensor operations on one device in one precision.
///
/// Tensors are cheap to clone (they share storage) and immutable. Composite operations have default bodies; an
/// engine overrides those it can fuse.
pub trait Engine: Send + Sync {
    /// A tensor of this engine.
    type Tensor: Clone + Send + Sync + 'static;

    /// Hands a parameter of a checkpoint to the engine, in the engine's precision. Shares the mapped file where
    /// precision and device allow it.
    fn parameter(&self, view: WeightView) -> Result<Self::Tensor>;

    /// Copies a host tensor to the engine as it is: floats stay `f32` whatever the engine's precision.
    fn upload(&self, tensor: &HostTensor) -> Result<Self::Tensor>;

    /// Converts floats to the engine's precision.
    fn cast(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Copies a tensor to the host; floats become `f32`.
    fn download(&self, tensor: &Self::Tensor) -> Result<HostTensor>;

    /// `x · weightᵀ + bias`: `[…, in]` × `[out, in]` → `[…, out]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Cross-correlation: `[batch, in, h, w]` × `[out, in, kh, kw]` → `[batch, out, h', w']`.
    fn conv2d(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<Self::Tensor>;

    /// Rows of a table: integer ids `[batch, n]` of `[rows, width]` → `[batch, n, width]`.
    fn embedding(&self, table: &Self::Tensor, ids: &Self::Tensor) -> Result<Self::Tensor>;

    /// Normalises the last dimension to mean 0 and variance 1, then scales and shifts.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        eps: f64,
    ) -> Result<Self::Tensor>;

    /// Divides the last dimension by its root mean square (computed in `f32`), then scales.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f64) -> Result<Self::Tensor>;

    /// Normalises groups of channels of `[batch, c, h, w]`, then scales and shifts each channel.
    fn group_norm(
        &self,
        x: &Self::Tensor,
        groups: usize,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        eps: f64,
    ) -> Result<Self::Tensor>;

    /// Logistic function.
    fn sigmoid(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `max(x, 0)`.
    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x · Φ(x)`, with the error function.
    fn gelu(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Sine.
    fn sin(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Cosine.
    fn cos(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Sum, broadcast over dimensions of size 1 and over missing leading dimensions.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Product, broadcast as in [`Engine::add`].
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x · factor`.
    fn scale(&self, x: &Self::Tensor, factor: f64) -> Result<Self::Tensor>;

    /// Batched matrix product of the last two dimensions.
    fn matmul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Softmax over the last dimension, computed in `f32`.
    fn softmax(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Exchanges the last two dimensions.
    fn transpose(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Joins tensors along a dimension.
    fn concat(&self, parts: &[&Self::Tensor], axis: usize) -> Result<Self::Tensor>;

    /// `length` entries of a dimension from `start` on.
    fn narrow(&self, x: &Self::Tensor, axis: usize, start: usize, length: usize) -> Result<Self::Tensor>;

    /// Inserts a dimension of size 1.
    fn unsqueeze(&self, x: &Self::Tensor, axis: usize) -> Result<Self::Tensor>;

    /// Repeats `[1, …]` to the batch size of another tensor.
    fn broadcast_batch_like(&self, x: &Self::Tensor, like: &Self::Tensor) -> Result<Self::Tensor>;

    /// `[batch, n, heads · d]` → `[batch, heads, n, d]`.
    fn split_heads(&self, x: &Self::Tensor, heads: usize) -> Result<Self::Tensor>;

    /// `[batch, heads, n, d]` → `[batch, n, heads · d]`.
    fn merge_heads(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `[batch, c, h, w]` → `[batch, h · w, c]`.
    fn flatten_spatial(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `[batch, h · w, c]` → `[batch, c, h, w]`, with the height and width of `like`.
    fn unflatten_spatial(&self, x: &Self::Tensor, like: &Self::Tensor) -> Result<Self::Tensor>;

    /// `[batch, side · side, c]` → `[batch, c, side, side]`.
    fn unflatten_square(&self, x: &Self::Tensor, side: usize) -> Result<Self::Tensor>;

    /// `[batch, c · factor², h, w]` → `[batch, c, factor · h, factor · w]`: the channels of a cell become the pixels
    /// of a square, row by row (PyTorch `pixel_shuffle`).
    fn pixel_shuffle(&self, x: &Self::Tensor, factor: usize) -> Result<Self::Tensor>;

    /// Doubles height and width, repeating the nearest element.
    fn upsample_nearest_2x(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Nearest-element resize of `[batch, c, h, w]` to the height and width of `like`
    /// (PyTorch `interpolate(mode="nearest")`).
    fn upsample_nearest_like(&self, x: &Self::Tensor, like: &Self::Tensor) -> Result<Self::Tensor>;

    /// Bilinear resize of `[batch, c, h, w]` to the height and width of `like`, with half-pixel centres and
    /// without antialiasing (PyTorch `align_corners=False`).
    fn resize_bilinear_like(&self, x: &Self::Tensor, like: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x · σ(x)`.
    fn silu(&self, x: &Self::Tensor) -> Result<Self::Tensor> {
        self.mul(x, &self.sigmoid(x)?)
    }

    /// `x · σ(1.702 x)`, CLIP's approximation of the Gaussian error linear unit.
    fn quick_gelu(&self, x: &Self::Tensor) -> Result<Self::Tensor> {
        self.mul(x, &self.sigmoid(&self.scale(x, 1.702)?)?)
    }

    /// The gated unit of the UNet's transformers: of `[batch, n, 2 · size]`, the first half times
    /// [`Engine::gelu`] of the second → `[batch, n, size]`.
    fn geglu(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor> {
        let gate = self.gelu(&self.narrow(x, 2, size, size)?)?;
        self.mul(&self.narrow(x, 2, 0, size)?, &gate)
    }

    /// Scaled dot-product attention: queries `[batch, heads, n, d]`, keys and values `[batch, heads, m, d]` →
    /// `[batch, heads, n, d]`. The mask `[n, m]` is added to the scaled scores.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        scale: f64,
        mask: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let mut scores = self.matmul(&self.scale(q, scale)?, &self.transpose(k)?)?;
        if let Some(mask) = mask {
            scores = self.add(&scores, mask)?;
        }
        self.matmul(&self.softmax(&scores)?, v)
    }

    /// Rotary position embedding in the half-split convention: `x · cos + rotate_half(x) · sin`, where
    /// `rotate_half([a, b]) = [−b, a]`. `x` is `[batch, heads, n, d]` (`d` given), the tables are `[n, d]`.
    fn rotary(
        &self,
        x: &Self::Tensor,
        head_dim: usize,
        cos: &Self::Tensor,
        sin: &Self::Tensor,
    ) -> Result<Self::Tensor> {
        let half = head_dim / 2;
        let first = self.narrow(x, 3, 0, half)?;
        let second = self.scale(&self.narrow(x, 3, half, half)?, -1.0)?;
        let rotated = self.concat(&[&second, &first], 3)?;
        self.add(&self.mul(x, cos)?, &self.mul(&rotated, sin)?)
    }
}
