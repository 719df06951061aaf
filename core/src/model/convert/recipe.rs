//! How a tensor of a model directory is made from tensors of the sources.

use std::ops::Range;

use half::{bf16, f16};

use super::ConvertError;
use crate::model::checkpoint::TensorView;
use crate::model::writer::Sink;
use crate::weights::Dtype;

/// A tensor of a source, or some of its rows.
pub(super) struct Part<'a> {
    /// Where it is, for messages.
    pub(super) source: &'a str,
    /// Its name there.
    pub(super) name: String,
    pub(super) view: TensorView<'a>,
    /// Which rows; all of them without.
    pub(super) rows: Option<Range<usize>>,
}

impl Part<'_> {
    fn elements(&self) -> Range<usize> {
        match &self.rows {
            None => 0..self.view.elements(),
            Some(rows) => {
                let width: usize = self.view.shape().iter().skip(1).product();
                rows.start * width..rows.end * width
            }
        }
    }
}

/// How a tensor is made.
pub(super) enum Recipe<'a> {
    /// Parts one after the other.
    Join(Vec<Part<'a>>),
    /// A weight with its LoRA factors.
    Merge(Box<Merge<'a>>),
}

/// `base + scale · b · a`, in `f32`.
pub(super) struct Merge<'a> {
    /// `[out, in]`
    pub(super) base: Part<'a>,
    /// `[r, in]`
    pub(super) a: Part<'a>,
    /// `[out, r]`
    pub(super) b: Part<'a>,
    pub(super) scale: f32,
}

/// A tensor of a stage and how it is made.
pub(super) struct Planned<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) recipe: Recipe<'a>,
}

impl Planned<'_> {
    /// The type in which it is written: as wanted, else as stored.
    pub(super) fn dtype(&self, wanted: Option<Dtype>) -> Dtype {
        let stored = match &self.recipe {
            Recipe::Merge(_) => Dtype::F32,
            Recipe::Join(parts) => {
                let mut dtypes = parts.iter().map(|part| part.view.dtype());
                let first = dtypes.next().unwrap_or(Dtype::F32);
                match dtypes.all(|dtype| dtype == first) && first != Dtype::F64 {
                    true => first,
                    false => Dtype::F32,
                }
            }
        };
        wanted.unwrap_or(stored)
    }

    /// Writes its elements in row-major order.
    pub(super) fn write(&self, dtype: Dtype, sink: &mut Sink) -> Result<(), ConvertError> {
        match &self.recipe {
            Recipe::Join(parts) => parts.iter().try_for_each(|part| part.write(dtype, sink)),
            Recipe::Merge(merge) => merge.write(dtype, sink),
        }
    }
}

impl Part<'_> {
    fn write(&self, dtype: Dtype, sink: &mut Sink) -> Result<(), ConvertError> {
        let (mut values, mut encoded) = (Vec::new(), Vec::new());
        self.view.for_each_chunk(self.elements(), |bytes| {
            if self.view.dtype() == dtype {
                return Ok(sink.put(bytes)?);
            }
            decode(bytes, self, &mut values)?;
            encode(&values, dtype, self, &mut encoded)?;
            Ok(sink.put(&encoded)?)
        })
    }
}

impl Merge<'_> {
    fn write(&self, dtype: Dtype, sink: &mut Sink) -> Result<(), ConvertError> {
        let &[_, width] = self.base.view.shape() else { return self.base.write(dtype, sink) };
        let a = floats(&self.a)?;
        let b = floats(&self.b)?;
        let rank = a.len() / width.max(1);
        let mut delta = vec![0.0; width];
        let mut position = 0;
        let (mut values, mut encoded) = (Vec::new(), Vec::new());
        self.base.view.for_each_chunk(self.base.elements(), |bytes| {
            decode(bytes, &self.base, &mut values)?;
            for value in &mut values {
                let (row, column) = (position / width, position % width);
                if column == 0 {
                    let factors = b.get(row * rank..(row + 1) * rank).unwrap_or_default();
                    product(factors, &a, self.scale, &mut delta);
                }
                *value += delta[column];
                position += 1;
            }
            encode(&values, dtype, &self.base, &mut encoded)?;
            Ok(sink.put(&encoded)?)
        })
    }
}

/// `scale · factors · a`: one row of the product.
fn product(factors: &[f32], a: &[f32], scale: f32, row: &mut [f32]) {
    row.fill(0.0);
    for (factor, a) in factors.iter().zip(a.chunks_exact(row.len())) {
        for (sum, value) in row.iter_mut().zip(a) {
            *sum += factor * value;
        }
    }
    row.iter_mut().for_each(|value| *value *= scale);
}

fn floats(part: &Part<'_>) -> Result<Vec<f32>, ConvertError> {
    let mut all = Vec::with_capacity(part.view.elements());
    let mut values = Vec::new();
    part.view.for_each_chunk::<ConvertError>(part.elements(), |bytes| {
        decode(bytes, part, &mut values)?;
        all.extend_from_slice(&values);
        Ok(())
    })?;
    Ok(all)
}

/// Replaces `values` by the elements in `bytes`.
fn decode(bytes: &[u8], part: &Part<'_>, values: &mut Vec<f32>) -> Result<(), ConvertError> {
    values.clear();
    match part.view.dtype() {
        Dtype::F64 => {
            for &element in bytes.as_chunks().0 {
                let value = f64::from_le_bytes(element);
                if value.is_finite() && !(value as f32).is_finite() {
                    return Err(overflow(part, value, Dtype::F32));
                }
                values.push(value as f32);
            }
        }
        Dtype::F16 => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
        _ => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
    }
    Ok(())
}

/// Replaces `bytes` by the values in another type; one that becomes infinite is an error.
fn encode(values: &[f32], dtype: Dtype, part: &Part<'_>, bytes: &mut Vec<u8>) -> Result<(), ConvertError> {
    bytes.clear();
    let largest = match dtype {
        Dtype::F16 => {
            bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
            f16::MAX.to_f32()
        }
        Dtype::BF16 => {
            bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
            bf16::MAX.to_f32()
        }
        _ => {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            return Ok(());
        }
    };
    let becomes_infinite = |value: &&f32| {
        value.is_finite()
            && value.abs() > largest
            && match dtype {
                Dtype::F16 => f16::from_f32(**value).is_infinite(),
                _ => bf16::from_f32(**value).is_infinite(),
            }
    };
    match values.iter().find(becomes_infinite) {
        Some(&value) => Err(overflow(part, value.into(), dtype)),
        None => Ok(()),
    }
}

fn overflow(part: &Part<'_>, value: f64, dtype: Dtype) -> ConvertError {
    ConvertError::Overflow {
        source_name: part.source.to_owned(),
        tensor: part.name.clone(),
        value,
        dtype: dtype_name(dtype),
    }
}

/// An element type as it is spelled in messages and reports.
pub(in crate::model) fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::tensor::{TensorView as Stored, serialize_to_file};

    use super::*;
    use crate::model::ModelWriter;
    use crate::model::checkpoint::Checkpoint;

    const ROWS: usize = 120;
    /// No divisor of what is read at once, so that pieces end within rows.
    const WIDTH: usize = 5120;
    const RANK: usize = 2;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 101) % 251) as f32 / 64.0 - 2.0).collect()
    }

    fn store(path: &Path, tensors: &[(&str, Vec<usize>, &[f32])]) {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| (*name, Stored::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        serialize_to_file(views, None, path).unwrap();
    }

    fn part<'a>(checkpoint: &'a Checkpoint, name: &str, rows: Option<Range<usize>>) -> Part<'a> {
        Part { source: "test", name: name.to_owned(), view: checkpoint.get(name).unwrap(), rows }
    }

    fn written(planned: &Planned<'_>, dtype: Dtype) -> Vec<u8> {
        let place = tempfile::tempdir().unwrap();
        let mut writer = ModelWriter::create(&place.path().join("model")).unwrap();
        let mut path = None;
        let write = |sink: &mut Sink| {
            path = Some(sink.path().to_owned());
            planned.write(dtype, sink)
        };
        writer.write("tensor", write).unwrap();
        std::fs::read(path.unwrap()).unwrap()
    }

    #[test]
    fn pieces_may_end_within_rows_of_a_merged_weight() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.safetensors");
        let (base, a, b) = (values(ROWS * WIDTH, 1), values(RANK * WIDTH, 2), values(ROWS * RANK, 3));
        store(
            &path,
            &[("base", vec![ROWS, WIDTH], &base), ("a", vec![RANK, WIDTH], &a), ("b", vec![ROWS, RANK], &b)],
        );
        let checkpoint = Checkpoint::open(&[&path]).unwrap();
        let merge = Merge {
            base: part(&checkpoint, "base", None),
            a: part(&checkpoint, "a", None),
            b: part(&checkpoint, "b", None),
            scale: 2.0,
        };
        let planned = Planned {
            name: "w".to_owned(),
            shape: vec![ROWS, WIDTH],
            recipe: Recipe::Merge(Box::new(merge)),
        };
        assert_eq!(planned.dtype(None), Dtype::F32);
        let bytes = written(&planned, Dtype::F32);
        assert_eq!(bytes.len(), 4 * ROWS * WIDTH);
        for (index, &found) in bytes.as_chunks().0.iter().enumerate() {
            let (row, column) = (index / WIDTH, index % WIDTH);
            let delta: f32 = (0..RANK).map(|k| b[row * RANK + k] * a[k * WIDTH + column]).sum();
            // All values are multiples of 2⁻¹² below 2⁶, so that sums are exact.
            assert_eq!(f32::from_le_bytes(found), base[index] + 2.0 * delta, "row {row}, column {column}");
        }
    }

    #[test]
    fn joined_rows_keep_their_order_in_another_type() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.safetensors");
        let (first, second) = (values(ROWS * WIDTH, 1), values(8 * WIDTH, 2));
        store(&path, &[("first", vec![ROWS, WIDTH], &first), ("second", vec![8, WIDTH], &second)]);
        let checkpoint = Checkpoint::open(&[&path]).unwrap();
        let planned = Planned {
            name: "w".to_owned(),
            shape: vec![ROWS, WIDTH],
            recipe: Recipe::Join(vec![
                part(&checkpoint, "first", Some(0..ROWS - 3)),
                part(&checkpoint, "second", Some(5..8)),
            ]),
        };
        let expected: Vec<u8> = first[..(ROWS - 3) * WIDTH]
            .iter()
            .chain(&second[5 * WIDTH..])
            .flat_map(|&value| bf16::from_f32(value).to_le_bytes())
            .collect();
        assert_eq!(written(&planned, planned.dtype(Some(Dtype::BF16))), expected);
    }
}
