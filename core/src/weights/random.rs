//! Pseudo-random parameters in memory, for measurements without a checkpoint.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::MmapMut;
use safetensors::Dtype;

use super::{Index, Result, WeightFile, WeightsError};
use crate::engine::Precision;

/// What error messages call the file that there is not.
const NAME: &str = "random weights";
/// Tensors start at multiples of this many bytes.
const ALIGNMENT: usize = 64;
/// Elements that a thread fills before it takes the next ones.
const CHUNK: usize = 1 << 20;
/// What owns a table of embeddings, in all networks of this crate.
const EMBEDDINGS: [&str; 3] = ["embed_tokens", "token_embedding", "position_embedding"];
/// Largest absolute value of a bias.
const BIAS_BOUND: f32 = 0.02;

/// Pseudo-random parameters that may still be changed; [`RandomWeights::freeze`] makes a [`WeightFile`] of them.
///
/// Norms scale by 1, biases are small, rows of embedding tables have variance 1, and everything else is uniform
/// with variance `1 / fan-in`, so that activations keep their size from layer to layer. Equal parameters,
/// element type and seed give equal contents, on any number of threads; another element type rounds the same
/// values.
pub struct RandomWeights {
    map: MmapMut,
    index: Index,
}

impl RandomWeights {
    /// Makes parameters of these names and shapes in anonymous memory.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Memory`] if the memory cannot be had.
    pub fn new(parameters: &[(String, Vec<usize>)], precision: Precision, seed: u64) -> Result<Self> {
        let (dtype, width) = match precision {
            Precision::F32 => (Dtype::F32, size_of::<f32>()),
            Precision::Bf16 => (Dtype::BF16, size_of::<bf16>()),
            Precision::F16 => (Dtype::F16, size_of::<f16>()),
        };
        let Layout { ranges, total } = layout(parameters, width).ok_or_else(|| WeightsError::Memory {
            bytes: u64::MAX,
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let mut map = MmapMut::map_anon(total.max(1)).map_err(|source| no_memory(total, source))?;
        fill(&mut map, parameters, &ranges, precision, seed);
        let index = parameters
            .iter()
            .zip(ranges)
            .map(|((name, shape), (start, end))| (name.clone(), (start, end, dtype, shape.clone())))
            .collect();
        Ok(Self { map, index })
    }

    /// Copies a row of one table over a row of another (or the same) one of the same width.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Missing`] for a table that is not there, [`WeightsError::Config`] for rows that do not fit.
    pub fn copy_row(&mut self, from: (&str, usize), to: (&str, usize)) -> Result<()> {
        let (source, target) = (self.row(from)?, self.row(to)?);
        if source.len() != target.len() {
            let message = format!("rows of `{}` and `{}` differ in width", from.0, to.0);
            return Err(WeightsError::Config(message));
        }
        self.map.copy_within(source, target.start);
        Ok(())
    }

    /// The parameters as engines take them; they share the memory as they share a mapped file.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Memory`] if the memory cannot be made read-only.
    pub fn freeze(self) -> Result<WeightFile> {
        let bytes = self.map.len();
        let map = self.map.make_read_only().map_err(|source| no_memory(bytes, source))?;
        Ok(WeightFile { path: PathBuf::from(NAME), map: Arc::new(map), index: self.index, update: None })
    }

    /// The bytes of a row of a table.
    fn row(&self, (name, row): (&str, usize)) -> Result<Range<usize>> {
        let (start, end, _, shape) = self
            .index
            .get(name)
            .ok_or_else(|| WeightsError::Missing { name: name.to_owned(), path: PathBuf::from(NAME) })?;
        let rows = shape.first().copied().unwrap_or(0);
        if row >= rows {
            return Err(WeightsError::Config(format!("`{name}` has {rows} rows, and not row {row}")));
        }
        let width = (end - start) / rows;
        Ok(start + row * width..start + (row + 1) * width)
    }
}

fn no_memory(bytes: usize, source: std::io::Error) -> WeightsError {
    WeightsError::Memory { bytes: bytes as u64, source }
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
        let mut names = name.rsplit('.');
        let (last, owner) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        // A row of an embedding table is looked up, not summed over.
        let is_table = shape.len() == 2 && EMBEDDINGS.contains(&owner);
        match (last, shape.len()) {
            ("weight", 1) => Self::One,
            ("bias", _) => Self::Uniform { bound: BIAS_BOUND },
            _ => {
                let fan_in = if is_table { 1 } else { shape.iter().skip(1).product::<usize>().max(1) };
                Self::Uniform { bound: (3.0 / fan_in as f32).sqrt() }
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
        // Neighbouring seeds and tensors must not share a key.
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
            parameter("embed_tokens.weight", &[300, 64]),
            parameter("lm_head.weight", &[300, 64]),
        ]
    }

    fn values(precision: Precision, seed: u64, name: &str) -> Vec<f32> {
        let file = RandomWeights::new(&parameters(), precision, seed).unwrap().freeze().unwrap();
        let shape = parameters().into_iter().find(|(other, _)| other == name).unwrap().1;
        file.view(name, &shape).unwrap().to_f32()
    }

    #[test]
    fn norms_are_one_and_the_rest_has_the_variance_of_its_fan_in() {
        assert!(values(Precision::F32, 1, "norm.weight").iter().all(|&x| x == 1.0));
        assert!(values(Precision::F32, 1, "conv.bias").iter().all(|x| x.abs() <= BIAS_BOUND));
        for (name, fan_in) in [("conv.weight", 32 * 9), ("lm_head.weight", 64), ("embed_tokens.weight", 1)] {
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
    fn a_row_is_copied_between_tables() {
        let mut weights = RandomWeights::new(&parameters(), Precision::Bf16, 1).unwrap();
        weights.copy_row(("embed_tokens.weight", 7), ("lm_head.weight", 9)).unwrap();
        let error = weights.copy_row(("embed_tokens.weight", 300), ("lm_head.weight", 0)).unwrap_err();
        assert!(error.to_string().contains("row 300"), "{error}");
        let error = weights.copy_row(("embed_tokens.weight", 0), ("conv.weight", 0)).unwrap_err();
        assert!(error.to_string().contains("width"), "{error}");
        let file = weights.freeze().unwrap();
        let table = |name| file.view(name, &[300, 64]).unwrap().to_f32();
        let (embeddings, head) = (table("embed_tokens.weight"), table("lm_head.weight"));
        assert_eq!(embeddings[7 * 64..8 * 64], head[9 * 64..10 * 64]);
        assert_ne!(embeddings[8 * 64..9 * 64], head[8 * 64..9 * 64]);
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        let parameters = vec![("huge.weight".to_owned(), vec![usize::MAX / 2, 3])];
        let error = RandomWeights::new(&parameters, Precision::F32, 0).err().unwrap();
        assert!(matches!(error, WeightsError::Memory { .. }), "{error}");
    }
}
