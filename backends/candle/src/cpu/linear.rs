//! `x · weightᵀ + bias` with the weight where it lies.

use rayon::prelude::*;

use super::bf16;
use super::matrix::{Destination, Matrix, Threads, multiply};
use super::vectorised::{joined, vectorised};
use crate::tensor::Elements;

/// Elements of a weight that are widened at a time: 1 MiB of `f32`.
const BLOCK: usize = 1 << 18;

/// Rows up to which each is multiplied by itself.
const FEW_ROWS: usize = 4;

/// `x [rows, inputs]`, `weight [outputs, inputs]`, `bias [outputs]` → `[rows, outputs]`.
pub(crate) fn linear(
    x: &[f32],
    weight: Elements<'_>,
    bias: Option<&[f32]>,
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let rows = x.len().checked_div(inputs).unwrap_or(0);
    let mut out = match bias {
        Some(bias) => bias.repeat(rows),
        None => vec![0.0; rows * outputs],
    };
    match weight {
        Elements::F32(weight) if rows > 1 => {
            let mut destination = Destination { data: &mut out, row_stride: outputs };
            let weight = Matrix::new(weight, outputs, inputs).transposed();
            multiply(&mut destination, Matrix::new(x, rows, inputs), weight, true, Threads::All);
        }
        weight => add_blocks(&mut out, x, weight, rows, inputs, outputs),
    }
    out
}

/// The same in `bf16`, where [`bf16::is_available`].
pub(crate) fn linear_bf16(
    x: &[half::bf16],
    weight: &[half::bf16],
    bias: Option<&[f32]>,
    inputs: usize,
    outputs: usize,
) -> Vec<half::bf16> {
    let rows = x.len().checked_div(inputs).unwrap_or(0);
    if rows > FEW_ROWS {
        return bf16::multiply(
            weight,
            bf16::Right::Columns(x),
            bias,
            (outputs, inputs, rows),
            bf16::Order::Columns,
        );
    }
    let mut out = vec![half::bf16::ZERO; rows * outputs];
    // A token of a language model: as fast as the weight is read.
    let by_output: Vec<f32> = weight
        .par_chunks_exact(inputs.max(1))
        .with_min_len((BLOCK / inputs.max(1)).max(1))
        .flat_map_iter(|weight| x.chunks_exact(inputs.max(1)).map(|x| bf16::dot(x, weight)))
        .collect();
    for (output, sums) in by_output.chunks_exact(rows.max(1)).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[output]);
        for (row, sum) in sums.iter().enumerate() {
            out[row * outputs + output] = half::bf16::from_f32(sum + bias);
        }
    }
    out
}

/// Adds the product, block of outputs by block of outputs, each widened in the thread that multiplies it.
fn add_blocks(out: &mut [f32], x: &[f32], weight: Elements<'_>, rows: usize, inputs: usize, outputs: usize) {
    let threads = rayon::current_num_threads();
    let block = (BLOCK / inputs.max(1)).clamp(1, outputs.div_ceil(threads).max(1));
    let products: Vec<Vec<f32>> = (0..outputs.div_ceil(block))
        .into_par_iter()
        .map_init(Vec::new, |scratch, index| {
            let first = index * block;
            let last = (first + block).min(outputs);
            let weight = weight.slice(first * inputs, last * inputs);
            let weight = crate::tensor::widened(weight, scratch);
            product(x, weight, rows, inputs, last - first)
        })
        .collect();
    for (index, product) in products.iter().enumerate() {
        let first = index * block;
        let width = product.len().checked_div(rows).unwrap_or(0);
        for row in 0..rows {
            let sums = &mut out[row * outputs + first..][..width];
            for (sum, value) in sums.iter_mut().zip(&product[row * width..]) {
                *sum += value;
            }
        }
    }
}

fn product(x: &[f32], weight: &[f32], rows: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    if rows == 1 {
        return weight.chunks_exact(inputs).map(|weight| dot(x, weight)).collect();
    }
    let mut out = vec![0.0; rows * outputs];
    let mut destination = Destination { data: &mut out, row_stride: outputs };
    let weight = Matrix::new(weight, outputs, inputs).transposed();
    multiply(&mut destination, Matrix::new(x, rows, inputs), weight, false, Threads::One);
    out
}

/// Partial sums in vectors, so that the compiler vectorises the reduction.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 64;
    vectorised(
        #[inline(always)]
        || {
            let mut sums = [0.0f32; LANES];
            let (a_chunks, a_rest) = a.as_chunks::<LANES>();
            let (b_chunks, b_rest) = b.as_chunks::<LANES>();
            for (a, b) in a_chunks.iter().zip(b_chunks) {
                for lane in 0..LANES {
                    sums[lane] += a[lane] * b[lane];
                }
            }
            for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
                *sum += a * b;
            }
            joined(sums, |a, b| a + b)
        },
    )
}
