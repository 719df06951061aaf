//! Layer, root-mean-square and group norms.

use pulp::Arch;
use rayon::prelude::*;

/// Normalises each row of `x`, then scales and shifts.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let rows = x.par_chunks(weight.len().max(1));
    out.par_chunks_mut(weight.len().max(1)).zip(rows).for_each(|(out, row)| {
        let (mean, factor) = moments(row, eps);
        for (((out, value), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = (value - mean) * factor * weight + bias;
        }
    });
    out
}

/// Divides each row of `x` by its root mean square, then scales.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    out.par_chunks_mut(weight.len()).for_each(|row| {
        let mean_square = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
        let factor = 1.0 / (mean_square + eps).sqrt();
        for (value, weight) in row.iter_mut().zip(weight) {
            *value = *value * factor * weight;
        }
    });
    out
}

/// Normalises groups of channels of `x [batch, channels, cells]`, then scales and shifts each channel.
pub(crate) fn group_norm(
    x: &[f32],
    groups: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    cells: usize,
) -> Vec<f32> {
    let channels = weight.len() / groups;
    let mut out = vec![0.0; x.len()];
    if out.is_empty() {
        return out;
    }
    let places = x.par_chunks(channels * cells).enumerate();
    out.par_chunks_mut(channels * cells).zip(places).for_each(|(out, (index, group))| {
        let (mean, factor) = moments(group, eps);
        let first = (index % groups) * channels;
        let planes = out.chunks_exact_mut(cells).zip(group.chunks_exact(cells));
        for (channel, (out, plane)) in planes.enumerate() {
            let scale = factor * weight[first + channel];
            let shift = bias[first + channel] - mean * scale;
            for (out, value) in out.iter_mut().zip(plane) {
                *out = value * scale + shift;
            }
        }
    });
    out
}

/// Mean, and the reciprocal of the standard deviation.
fn moments(values: &[f32], eps: f32) -> (f32, f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let mean = average(values, |sum, value| sum + value);
            let variance = average(values, |sum, value| sum + (value - mean) * (value - mean));
            (mean, 1.0 / (variance + eps).sqrt())
        },
    )
}

/// The sum that `add` makes, over the number of values. Sums are kept per chunk, then in `f64`, so that large
/// groups lose no digits.
#[inline(always)]
fn average(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    const CHUNK: usize = 256;
    let total: f64 = values.chunks(CHUNK).map(|chunk| f64::from(partial_sums(chunk, &add))).sum();
    (total / values.len() as f64) as f32
}

/// Sixteen partial sums, so that the compiler vectorises them.
#[inline(always)]
fn partial_sums(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum = add(*sum, value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().fold(0.0, |sum, &value| add(sum, value))
}
