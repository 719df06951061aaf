//! Layer, root-mean-square and group norms.

use rayon::prelude::*;

use super::tasks;
use super::vectorised::{joined, vectorised};

/// Normalises each row of `x`, then scales and shifts.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let size = weight.len().max(1);
    let rows = out.par_chunks_mut(size).zip(x.par_chunks(size));
    rows.with_min_len(tasks::items(size)).for_each(|(out, row)| {
        vectorised(
            #[inline(always)]
            || {
                let (mean, factor) = moments(row, eps);
                for (((out, value), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                    *out = (value - mean) * factor * weight + bias;
                }
            },
        );
    });
    out
}

/// Divides each row of `x` by its root mean square, then scales.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    let rows = out.par_chunks_mut(weight.len());
    rows.with_min_len(tasks::items(weight.len())).for_each(|row| {
        vectorised(
            #[inline(always)]
            || {
                let mean_square = average(row, |sum, value| sum + value * value);
                let factor = 1.0 / (mean_square + eps).sqrt();
                for (value, weight) in row.iter_mut().zip(weight) {
                    *value = *value * factor * weight;
                }
            },
        );
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
    let size = channels * cells;
    let places = out.par_chunks_mut(size).zip(x.par_chunks(size).enumerate());
    places.with_min_len(tasks::items(size)).for_each(|(out, (index, group))| {
        vectorised(
            #[inline(always)]
            || {
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
            },
        );
    });
    out
}

/// Mean, and the reciprocal of the standard deviation.
#[inline(always)]
fn moments(values: &[f32], eps: f32) -> (f32, f32) {
    let mean = average(values, |sum, value| sum + value);
    let variance = average(values, |sum, value| sum + (value - mean) * (value - mean));
    (mean, 1.0 / (variance + eps).sqrt())
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
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum = add(*sum, value);
    }
    joined(sums, |a, b| a + b)
}
