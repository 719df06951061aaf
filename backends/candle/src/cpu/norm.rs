//! Layer, root-mean-square and group norms.

use rayon::prelude::*;

/// Normalises each row of `x`, then scales and shifts.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    out.par_chunks_mut(weight.len()).for_each(|row| {
        let (mean, factor) = moments(row, eps);
        for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
            *value = (*value - mean) * factor * weight + bias;
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
    let mut out = x.to_vec();
    out.par_chunks_mut(channels * cells).enumerate().for_each(|(index, group)| {
        let (mean, factor) = moments(group, eps);
        let first = (index % groups) * channels;
        for (channel, plane) in group.chunks_exact_mut(cells).enumerate() {
            let scale = factor * weight[first + channel];
            let shift = bias[first + channel] - mean * scale;
            for value in plane {
                *value = *value * scale + shift;
            }
        }
    });
    out
}

/// Mean, and the reciprocal of the standard deviation. Sums are kept per chunk, then in `f64`, so that large
/// groups lose no digits.
fn moments(values: &[f32], eps: f32) -> (f32, f32) {
    const CHUNK: usize = 256;
    let count = values.len() as f64;
    let sum: f64 = values.chunks(CHUNK).map(|chunk| f64::from(sum_lanes(chunk, |v| v))).sum();
    let mean = (sum / count) as f32;
    let squares: f64 =
        values.chunks(CHUNK).map(|chunk| f64::from(sum_lanes(chunk, |v| (v - mean) * (v - mean)))).sum();
    let variance = (squares / count) as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Sixteen partial sums, so that the compiler vectorises the reduction.
fn sum_lanes(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f(value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&value| f(value)).sum::<f32>()
}
