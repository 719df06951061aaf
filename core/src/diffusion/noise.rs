//! Sources of Gaussian noise.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use ndarray::{Array4, ArrayD, IxDyn};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::{DiffusionError, expect_shape};

/// Where noise of zero mean and unit variance comes from. Each request has a source of its own.
pub trait NoiseSource: Send {
    /// The next array of noise.
    fn draw(&mut self, shape: &[usize]) -> Result<ArrayD<f32>, DiffusionError>;
}

/// Noise that a seed determines, the same on every engine, device and batch size.
///
/// The generator, so that anybody can reproduce it:
///
/// 1. ChaCha20 (RFC 8439's rounds, with a 64-bit block counter) with counter and nonce 0; the key is the seed as 8 bytes,
///    little-endian, then 24 zero bytes. Its key stream is read as little-endian `u64`.
/// 2. Of two successive numbers `a`, `b`: `u = ((a >> 11) + 1) · 2⁻⁵³` in (0, 1], `v = (b >> 11) · 2⁻⁵³` in [0, 1).
/// 3. Box–Muller in `f64`: `r = √(−2 ln u)`; the two values are `r cos 2πv` and `r sin 2πv`, rounded to `f32`.
/// 4. An array is filled in row-major order. Each array begins with a new pair; of an odd number of elements the
///    last pair's second value is dropped.
#[derive(Debug, Clone)]
pub struct SeededNoise {
    generator: ChaCha20Rng,
}

impl SeededNoise {
    /// The noise of a seed.
    pub fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        for (target, byte) in key.iter_mut().zip(seed.to_le_bytes()) {
            *target = byte;
        }
        Self { generator: ChaCha20Rng::from_seed(key) }
    }

    fn pair(&mut self) -> [f32; 2] {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        let u = ((self.generator.next_u64() >> 11) + 1) as f64 * UNIT;
        let v = (self.generator.next_u64() >> 11) as f64 * UNIT;
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (TAU * v).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    }
}

impl NoiseSource for SeededNoise {
    fn draw(&mut self, shape: &[usize]) -> Result<ArrayD<f32>, DiffusionError> {
        let count = shape.iter().product::<usize>();
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            values.extend(self.pair());
        }
        values.truncate(count);
        array(shape, values)
    }
}

/// Noise that was recorded.
#[derive(Debug, Clone)]
pub struct RecordedNoise {
    arrays: VecDeque<ArrayD<f32>>,
    recorded: usize,
}

impl RecordedNoise {
    /// Noise to be drawn in this order.
    pub fn new(arrays: impl IntoIterator<Item = Array4<f32>>) -> Self {
        let arrays: VecDeque<_> = arrays.into_iter().map(Array4::into_dyn).collect();
        Self { recorded: arrays.len(), arrays }
    }
}

impl NoiseSource for RecordedNoise {
    fn draw(&mut self, shape: &[usize]) -> Result<ArrayD<f32>, DiffusionError> {
        let next =
            self.arrays.pop_front().ok_or(DiffusionError::NoiseExhausted { recorded: self.recorded })?;
        expect_shape("recorded noise values", next.shape(), shape)?;
        Ok(next)
    }
}

/// Values in row-major order as an array.
pub(super) fn array(shape: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, DiffusionError> {
    let count = values.len();
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| DiffusionError::Shape {
        array: "noise values",
        found: vec![count],
        expected: shape.to_vec(),
    })
}
