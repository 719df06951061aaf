//! Pseudo-random parameters in memory, for measurements without a checkpoint.

use std::path::PathBuf;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::MmapMut;
use safetensors::Dtype;

use super::{Result, WeightFile, WeightsError};
use crate::engine::Precision;

/// What error messages call the file that there is not.
const NAME: &str = "random weights";
/// Tensors start at multiples of this many bytes.
const ALIGNMENT: usize = 64;
/// Elements that a thread fills before it takes the next ones.
const CHUNK: usize = 1 << 20;
/// Largest absolute value of a bias.
const BIAS_BOUND: f32 = 0.02;

impl WeightFile {
    /// Makes parameters of these names and shapes in anonymous memory, which engines share as they share a
    /// mapped file.
    ///
    /// Norms scale by 1, biases are small, everything else is uniform with variance `1 / fan-in`, so that
    /// activations keep their size from layer to layer. Equal parameters, element type and seed give equal
    /// contents, on any number of threads; another element type rounds the same values.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Memory`] if the memory cannot be had.
    pub fn random(parameters: &[(String, Vec<usize>)], precision: Precision, seed: u64) -> Result<Self> {
        let (dtype, width) = match precision {
            Precision::F32 => (Dtype::F32, size_of::<f32>()),
            Precision::Bf16 => (Dtype::BF16, size_of::<bf16>()),
            Precision::F16 => (Dtype::F16, size_of::<f16>()),
        };
        let bytes = layout(parameters, width).ok_or(WeightsError::Memory {
            bytes: u64::MAX,
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let mut map = MmapMut::map_anon(bytes.total.max(1))
            .map_err(|source| WeightsError::Memory { bytes: bytes.total as u64, source })?;
        fill(&mut map, parameters, &bytes.ranges, precision, seed);
        let map = map
            .make_read_only()
            .map_err(|source| WeightsError::Memory { bytes: bytes.total as u64, source })?;
        let index = parameters
            .iter()
            .zip(&bytes.ranges)
            .map(|((name, shape), &(start, end))| (name.clone(), (start, end, dtype, shape.clone())))
            .collect();
        Ok(Self { path: PathBuf::from(NAME), map: Arc::new(map), index })
    }
}

/// Where each tensor lies.
struct Layout {
    ranges: Vec<(usize, usize)>,
    total: usize,
}

/// Places tensors one after the other; `None` if they exceed the address space.
fn layout(parameters: &[(String, Vec<usize>)], width: usize) -> Option<Layout> {
    let mut ranges = Vec::with_capacity(parameters.len());
    let mut total = 0_usize;
    for (_, shape) in parameters {
        let bytes = shape.iter().try_fold(width, |product, &size| product.checked_mul(size))?;
        let start = total.checked_next_multiple_of(ALIGNMENT)?;
        total = start.checked_add(bytes)?;
        ranges.push((start, total));
    }
    isize::try_from(total).ok()?;
    Some(Layout { ranges, total })
}

/// A part of a tensor, still to be filled.
struct Chunk<'a> {
    bytes: &'a mut [u8],
    /// Key of the tensor's values.
    key: u32,
    /// Index of the first element in its tensor.
    first: usize,
    values: Values,
}

/// How the elements of a tensor are distributed.
#[derive(Clone, Copy)]
enum Values {
    One,
    /// Uniform between `-bound` and `bound`.
    Uniform {
        bound: f32,
    },
}

impl Values {
    fn of(name: &str, shape: &[usize]) -> Self {
        let last = name.rsplit('.').next().unwrap_or(name);
        match (last, shape.len()) {
            ("weight", 1) => Self::One,
            ("bias", _) => Self::Uniform { bound: BIAS_BOUND },
            _ => {
                let fan_in: usize = shape.iter().skip(1).product();
                Self::Uniform { bound: (3.0 / fan_in.max(1) as f32).sqrt() }
            }
        }
    }
}

fn fill(
    map: &mut [u8],
    parameters: &[(String, Vec<usize>)],
    ranges: &[(usize, usize)],
    precision: Precision,
    seed: u64,
) {
    let width = if precision == Precision::F32 { 4 } else { 2 };
    let mut chunks = Vec::new();
    let mut rest = map;
    let mut consumed = 0;
    for (tensor, ((name, shape), &(start, end))) in parameters.iter().zip(ranges).enumerate() {
        let (_, tail) = rest.split_at_mut(start - consumed);
        let (bytes, tail) = tail.split_at_mut(end - start);
        (rest, consumed) = (tail, end);
        let key = hash(hash(seed as u32) ^ hash((seed >> 32) as u32).rotate_left(16) ^ tensor as u32);
        for (index, bytes) in bytes.chunks_mut(CHUNK * width).enumerate() {
            chunks.push(Chunk { bytes, key, first: index * CHUNK, values: Values::of(name, shape) });
        }
    }
    let queue = std::sync::Mutex::new(chunks);
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(chunk) = next() {
                    match precision {
                        Precision::F32 => fill_chunk(chunk, f32::to_le_bytes),
                        Precision::Bf16 => fill_chunk(chunk, |x| round_to_bf16(x).to_le_bytes()),
                        Precision::F16 => fill_chunk(chunk, |x| f16::from_f32(x).to_le_bytes()),
                    }
                }
            });
        }
    });
}

fn fill_chunk<const N: usize>(chunk: Chunk<'_>, encode: impl Fn(f32) -> [u8; N]) {
    let elements = chunk.bytes.as_chunks_mut::<N>().0;
    match chunk.values {
        Values::One => elements.fill(encode(1.0)),
        Values::Uniform { bound } => {
            // 24 random bits, which `f32` holds exactly, around 0.
            let step = bound / (1 << 23) as f32;
            for (offset, element) in elements.iter_mut().enumerate() {
                let bits = hash((chunk.first + offset) as u32 ^ chunk.key) >> 8;
                *element = encode((bits as i32 - (1 << 23)) as f32 * step);
            }
        }
    }
}

/// To nearest, ties to even; the values are finite, which spares the branches of [`bf16::from_f32`].
fn round_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// MurmurHash3's finalizer: every bit of the input changes half of the output's.
fn hash(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Vec<(String, Vec<usize>)> {
        let parameter = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        vec![
            parameter("norm.weight", &[7]),
            parameter("conv.weight", &[64, 32, 3, 3]),
            parameter("conv.bias", &[64]),
            parameter("long.weight", &[3, CHUNK / 2 + 5]),
        ]
    }

    fn values(precision: Precision, seed: u64, name: &str) -> Vec<f32> {
        let file = WeightFile::random(&parameters(), precision, seed).unwrap();
        let shape = parameters().into_iter().find(|(other, _)| other == name).unwrap().1;
        file.view(name, &shape).unwrap().to_f32()
    }

    #[test]
    fn norms_are_one_and_the_rest_has_the_variance_of_its_fan_in() {
        assert!(values(Precision::F32, 1, "norm.weight").iter().all(|&x| x == 1.0));
        assert!(values(Precision::F32, 1, "conv.bias").iter().all(|x| x.abs() <= BIAS_BOUND));
        for (name, fan_in) in [("conv.weight", 32 * 9), ("long.weight", CHUNK / 2 + 5)] {
            let values = values(Precision::F32, 1, name);
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64;
            let variance = square * fan_in as f64;
            assert!((0.95..1.05).contains(&variance), "{name}: {variance}");
            assert!(mean.abs() * (fan_in as f64).sqrt() < 0.05, "{name}: {mean}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_values_in_every_element_type() {
        let wide = values(Precision::F32, 5, "long.weight");
        assert_eq!(wide, values(Precision::F32, 5, "long.weight"));
        assert_ne!(wide, values(Precision::F32, 6, "long.weight"));
        let rounded: Vec<f32> = wide.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        assert_eq!(rounded, values(Precision::Bf16, 5, "long.weight"));
        let rounded: Vec<f32> = wide.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        assert_eq!(rounded, values(Precision::F16, 5, "long.weight"));
    }

    #[test]
    fn rows_and_tensors_differ() {
        let long = values(Precision::F32, 1, "long.weight");
        let (first, second) = long.split_at(long.len() / 3);
        assert_ne!(first[..16], second[..16]);
        assert_ne!(long[..16], values(Precision::F32, 1, "conv.weight")[..16]);
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        let parameters = vec![("huge.weight".to_owned(), vec![usize::MAX / 2, 3])];
        let error = WeightFile::random(&parameters, Precision::F32, 0).err().unwrap();
        assert!(matches!(error, WeightsError::Memory { .. }), "{error}");
    }
}
