//! Functions of single elements, written so that the compiler vectorises them for the processor at hand.

use rayon::prelude::*;

use super::tasks;
use super::vectorised::{joined, vectorised};

/// Partial results of a reduction: several vectors, so that one need not wait for the other.
const LANES: usize = 64;

/// A function of single elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x · σ(x)`.
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// `x · σ(1.702 x)`.
    QuickGelu,
}

/// Applies a function to every element.
pub(crate) fn apply(function: Function, x: &[f32]) -> Vec<f32> {
    match function {
        Function::Sigmoid => map(x, sigmoid),
        Function::Silu => map(x, |x| x * sigmoid(x)),
        Function::Gelu => map(x, gelu),
        Function::QuickGelu => map(x, |x| x * sigmoid(1.702 * x)),
    }
}

/// Of each row of two halves, the first times `x · Φ(x)` of the second.
pub(crate) fn geglu(x: &[f32], size: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / 2];
    if size > 0 {
        let rows = out.par_chunks_exact_mut(size).zip(x.par_chunks_exact(2 * size));
        rows.with_min_len(tasks::items(size)).for_each(|(out, x)| {
            let (values, gates) = x.split_at(size);
            vectorised(
                #[inline(always)]
                || {
                    for ((out, value), &gate) in out.iter_mut().zip(values).zip(gates) {
                        *out = value * gelu(gate);
                    }
                },
            );
        });
    }
    out
}

/// What joins two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Mul,
}

/// Joins `a` with `b`, of which every element meets `repeat` successive elements of `a`.
pub(crate) fn join(binary: Binary, a: &[f32], b: &[f32], repeat: usize) -> Vec<f32> {
    match binary {
        Binary::Add => zip(a, b, repeat, |a, b| a + b),
        Binary::Mul => zip(a, b, repeat, |a, b| a * b),
    }
}

fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(tasks::ELEMENTS).zip(x.par_chunks(tasks::ELEMENTS)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || out.iter_mut().zip(x).for_each(|(out, x)| *out = f(*x)),
        );
    });
    out
}

fn zip(a: &[f32], b: &[f32], repeat: usize, f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    if repeat == 1 {
        let operands = a.par_chunks(tasks::ELEMENTS).zip(b.par_chunks(tasks::ELEMENTS));
        out.par_chunks_mut(tasks::ELEMENTS).zip(operands).for_each(|(out, (a, b))| {
            vectorised(
                #[inline(always)]
                || {
                    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                        *out = f(a, b);
                    }
                },
            );
        });
        return out;
    }
    let rows = out.par_chunks_mut(repeat).zip(a.par_chunks(repeat)).zip(b).with_min_len(tasks::items(repeat));
    rows.for_each(|((out, a), &b)| out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a, b)));
    out
}

/// Turns scores, after scaling and masking, into exponentials of their distance to the largest; returns their sum.
pub(super) fn exponentiate(scores: &mut [f32], scale: f32, mask: Option<&[f32]>) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            if let Some(mask) = mask {
                scores.iter_mut().zip(mask).for_each(|(score, mask)| *score = *score * scale + mask);
            }
            let scale = if mask.is_some() { 1.0 } else { scale };
            let max = largest(scores, scale);
            scores.iter_mut().for_each(|score| *score = exp(*score * scale - max));
            let mut sums = [0.0; LANES];
            let (chunks, rest) = scores.as_chunks::<LANES>();
            for chunk in chunks {
                sums.iter_mut().zip(chunk).for_each(|(sum, score)| *sum += score);
            }
            sums.iter_mut().zip(rest).for_each(|(sum, score)| *sum += score);
            joined(sums, |a, b| a + b)
        },
    )
}

/// The largest of the scaled scores.
#[inline(always)]
fn largest(scores: &[f32], scale: f32) -> f32 {
    let larger = |max: f32, score: f32| if score > max { score } else { max };
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, &score) in partial.iter_mut().zip(chunk) {
            *max = larger(*max, score * scale);
        }
    }
    for (max, &score) in partial.iter_mut().zip(rest) {
        *max = larger(*max, score * scale);
    }
    joined(partial, larger)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `eˣ`, to two units in the last place. Below −87 the result stays at the smallest normal number, above 88 at the
/// largest power; NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 · 2²³: adding it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = x - power * LN_2_HIGH - power * LN_2_LOW;
    // Minimax polynomial of (eʳ − 1 − r) / r² on ±ln 2 / 2, as in the Cephes library.
    let series = 1.987_569_1e-4;
    let series = series * rest + 1.398_199_9e-3;
    let series = series * rest + 8.333_452e-3;
    let series = series * rest + 4.166_579_6e-2;
    let series = series * rest + 0.166_666_65;
    let series = series * rest + 0.5;
    let value = series * rest * rest + rest + 1.0;
    // The low bits of `rounded` are the power itself; the clamps keep it within −126…127.
    value * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// Error function, to 1.5 · 10⁻⁷ (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let series = 1.061_405_4;
    let series = series * t - 1.453_152_1;
    let series = series * t + 1.421_413_8;
    let series = series * t - 0.284_496_72;
    let series = series * t + 0.254_829_6;
    (1.0 - series * t * exp(-magnitude * magnitude)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_the_last_digits() {
        for step in -8_700..8_800 {
            let x = step as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "e^{x}: {found} for {expected}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exponentials_sum_to_what_is_returned_and_masked_scores_have_none() {
        let mut scores: Vec<f32> = (0..137).map(|i| (i * 7 % 11) as f32).collect();
        let mask: Vec<f32> = (0..137).map(|i| if i < 130 { 0.0 } else { f32::NEG_INFINITY }).collect();
        let sum = exponentiate(&mut scores, 0.5, Some(&mask));
        assert!((scores.iter().sum::<f32>() / sum - 1.0).abs() < 1e-6);
        assert!(scores[130..].iter().all(|&weight| weight < 1e-30));
    }

    #[test]
    fn scores_are_scaled_before_they_are_compared() {
        for scale in [0.5f32, -2.0] {
            let scores: Vec<f32> = (0..75).map(|i| (i * 7 % 11) as f32).collect();
            let max = scores.iter().map(|score| score * scale).fold(f32::NEG_INFINITY, f32::max);
            let mut found = scores.clone();
            exponentiate(&mut found, scale, None);
            for (found, score) in found.iter().zip(scores) {
                assert!((found - (score * scale - max).exp()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_shows() {
        let mut scores = vec![0.0; 100];
        scores[7] = f32::NAN;
        assert!(exponentiate(&mut scores, 1.0, None).is_nan());
    }
}
