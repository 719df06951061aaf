//! PyTorch's noise.

use ndarray::ArrayD;
use rand_mt::Mt;

use super::noise::array;
use super::{DiffusionError, NoiseSource};

/// Values that PyTorch transforms together; fewer are drawn in another way.
const BLOCK: usize = 16;

/// What `torch.randn(shape, generator=torch.Generator().manual_seed(seed))` gives on a CPU in single precision, for
/// edits that must begin with the same noise as a Python program's.
///
/// Values equal PyTorch's up to the last bits of its vectorised logarithm, sine and cosine.
#[derive(Clone, Debug)]
pub struct TorchNoise {
    generator: Mt,
    /// The second value of a pair, where arrays of less than [`BLOCK`] elements took the first.
    spare: Option<f64>,
}

impl TorchNoise {
    /// The noise of a seed, of which PyTorch's generator takes the lower 32 bits.
    pub fn new(seed: u64) -> Self {
        Self { generator: Mt::new(seed as u32), spare: None }
    }

    fn uniform(&mut self) -> f32 {
        (self.generator.next_u32() & ((1 << 24) - 1)) as f32 * (1.0 / (1 << 24) as f32)
    }

    fn uniform_double(&mut self) -> f64 {
        let high = u64::from(self.generator.next_u32());
        let low = u64::from(self.generator.next_u32());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    fn single(&mut self) -> f32 {
        if let Some(value) = self.spare.take() {
            return value as f32;
        }
        let (u, v) = (self.uniform_double(), self.uniform_double());
        let radius = (-2.0 * (-v).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u).sin_cos();
        self.spare = Some(radius * sin);
        (radius * cos) as f32
    }
}

/// Turns 16 uniform values into normal ones: each of the first half with its partner in the second.
fn transform(block: &mut [f32]) {
    let (firsts, seconds) = block.split_at_mut(block.len() / 2);
    for (first, second) in firsts.iter_mut().zip(seconds) {
        let radius = (-2.0 * (1.0 - *first).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * *second).sin_cos();
        (*first, *second) = (radius * cos, radius * sin);
    }
}

impl NoiseSource for TorchNoise {
    fn draw(&mut self, shape: &[usize]) -> Result<ArrayD<f32>, DiffusionError> {
        let count = shape.iter().product::<usize>();
        if count < BLOCK {
            return array(shape, (0..count).map(|_| self.single()).collect());
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        values.chunks_exact_mut(BLOCK).for_each(transform);
        if !count.is_multiple_of(BLOCK) {
            // The last block is drawn anew, over whatever it shares with the one before.
            let last: Vec<f32> = (0..BLOCK).map(|_| self.uniform()).collect();
            values.truncate(count - BLOCK);
            values.extend(last);
            if let Some(block) = values.get_mut(count - BLOCK..) {
                transform(block);
            }
        }
        array(shape, values)
    }
}
