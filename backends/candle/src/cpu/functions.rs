//! Functions of single elements, written so that the compiler vectorises them for the processor at hand.

use pulp::Arch;
use rayon::prelude::*;

/// Elements that one task computes.
const CHUNK: usize = 1 << 14;

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
    let mut out = x.to_vec();
    out.par_chunks_mut(CHUNK).for_each(|chunk| match function {
        Function::Sigmoid => each(chunk, sigmoid),
        Function::Silu => each(chunk, |x| x * sigmoid(x)),
        Function::Gelu => each(chunk, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
        Function::QuickGelu => each(chunk, |x| x * sigmoid(1.702 * x)),
    });
    out
}

fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || values.iter_mut().for_each(|value| *value = f(*value)),
    );
}

/// Turns scores into weights that sum to 1, after scaling and masking.
pub(super) fn softmax(scores: &mut [f32], scale: f32, mask: Option<&[f32]>) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            match mask {
                Some(mask) => {
                    scores.iter_mut().zip(mask).for_each(|(score, mask)| *score = *score * scale + mask);
                }
                None => scores.iter_mut().for_each(|score| *score *= scale),
            }
            let max = reduce(scores, f32::NEG_INFINITY, |max, score| if score > max { score } else { max });
            scores.iter_mut().for_each(|score| *score = exp(*score - max));
            let factor = 1.0 / reduce(scores, 0.0, |sum, score| sum + score);
            scores.iter_mut().for_each(|score| *score *= factor);
        },
    );
}

/// Sixteen partial results, so that the compiler vectorises the reduction.
#[inline(always)]
pub(super) fn reduce(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = [start; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (partial, &value) in partial.iter_mut().zip(chunk) {
            *partial = f(*partial, value);
        }
    }
    let joined = partial.into_iter().fold(start, &f);
    rest.iter().fold(joined, |joined, &value| f(joined, value))
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
    fn weights_sum_to_one_and_masked_scores_get_none() {
        let mut scores: Vec<f32> = (0..37).map(|i| (i * 7 % 11) as f32).collect();
        let mask: Vec<f32> = (0..37).map(|i| if i < 30 { 0.0 } else { f32::NEG_INFINITY }).collect();
        softmax(&mut scores, 0.5, Some(&mask));
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(scores[30..].iter().all(|&weight| weight < 1e-30));
    }

    #[test]
    fn a_score_that_is_no_number_shows() {
        let mut scores = vec![0.0; 20];
        scores[7] = f32::NAN;
        softmax(&mut scores, 1.0, None);
        assert!(scores.iter().all(|weight| weight.is_nan()));
    }
}
