//! How much two pictures differ.

use image::RgbImage;

/// Side of SSIM's window, in pixels.
const WINDOW: usize = 11;

/// Standard deviation of SSIM's Gaussian window, in pixels.
const SIGMA: f64 = 1.5;

/// How much two pictures of the same size differ, over all pixels and channels, of values in 0…255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureDifference {
    /// The largest absolute difference.
    pub max: u8,
    /// The mean absolute difference.
    pub mean: f64,
    /// Peak signal-to-noise ratio in dB; infinite for equal pictures.
    pub psnr: f64,
    /// Structural similarity, 1 for equal pictures; `None` for pictures with a side below 11 pixels.
    ///
    /// As in Wang et al. 2004: a Gaussian window of 11×11 pixels with σ = 1.5, K₁ = 0.01, K₂ = 0.03 and population
    /// (co)variances, over all windows that lie in the picture; the mean over the channels.
    pub ssim: Option<f64>,
}

/// How far the values of two pictures of the same size are apart: of [`PictureDifference`], what costs next to nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueDifference {
    /// The largest absolute difference.
    pub max: u8,
    /// The mean absolute difference.
    pub mean: f64,
    /// Peak signal-to-noise ratio in dB; infinite for equal pictures.
    pub psnr: f64,
}

impl PictureDifference {
    /// Measures the difference; `None` if the sizes are not the same.
    pub fn between(a: &RgbImage, b: &RgbImage) -> Option<Self> {
        let ValueDifference { max, mean, psnr } = ValueDifference::between(a, b)?;
        Some(Self { max, mean, psnr, ssim: ssim(a, b) })
    }
}

impl ValueDifference {
    /// Measures the difference; `None` if the sizes are not the same.
    pub fn between(a: &RgbImage, b: &RgbImage) -> Option<Self> {
        if a.dimensions() != b.dimensions() {
            return None;
        }
        let (mut max, mut sum, mut squares) = (0, 0_u64, 0_u64);
        for (&a, &b) in a.as_raw().iter().zip(b.as_raw()) {
            let difference = a.abs_diff(b);
            max = max.max(difference);
            sum += u64::from(difference);
            squares += u64::from(difference) * u64::from(difference);
        }
        let count = a.as_raw().len().max(1) as f64;
        let psnr = peak_signal_to_noise(squares as f64 / count);
        Some(Self { max, mean: sum as f64 / count, psnr })
    }
}

fn ssim(a: &RgbImage, b: &RgbImage) -> Option<f64> {
    let planes = |picture| [0, 1, 2].map(|channel| plane(picture, channel));
    structural_similarity(&planes(a), &planes(b), a.width() as usize)
}

fn plane(picture: &RgbImage, channel: usize) -> Vec<f64> {
    picture.as_raw().iter().skip(channel).step_by(3).map(|&value| value.into()).collect()
}

/// SSIM of channels of values in 0…255 with rows of `width` pixels, as [`PictureDifference::ssim`] has it.
pub(crate) fn structural_similarity(a: &[Vec<f64>; 3], b: &[Vec<f64>; 3], width: usize) -> Option<f64> {
    let height = a[0].len().checked_div(width)?;
    if width.min(height) < WINDOW {
        return None;
    }
    let window = window();
    let of_channel = |(a, b): (&Vec<f64>, &Vec<f64>)| ssim_of_channel(a, b, width, &window);
    Some(a.iter().zip(b).map(of_channel).sum::<f64>() / 3.0)
}

/// The ratio in dB of the largest value, 255, to an error whose mean square this is; infinite for none.
pub(crate) fn peak_signal_to_noise(mean_square: f64) -> f64 {
    10.0 * (255.0 * 255.0 / mean_square).log10()
}

/// SSIM of two planes with rows of `width` pixels.
fn ssim_of_channel(a: &[f64], b: &[f64], width: usize, window: &[f64; WINDOW]) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
    let [mean_a, mean_b] = [a, b].map(|plane| filtered(plane, width, window));
    let [square_a, square_b, mixed] =
        [product(a, a), product(b, b), product(a, b)].map(|plane| filtered(&plane, width, window));
    let at = |index: usize| {
        let (mean_a, mean_b) = (mean_a[index], mean_b[index]);
        let variances = (square_a[index] - mean_a * mean_a) + (square_b[index] - mean_b * mean_b);
        let covariance = mixed[index] - mean_a * mean_b;
        (2.0 * mean_a * mean_b + C1) * (2.0 * covariance + C2)
            / ((mean_a * mean_a + mean_b * mean_b + C1) * (variances + C2))
    };
    (0..mean_a.len()).map(at).sum::<f64>() / mean_a.len() as f64
}

/// The weighted mean of every window that lies in the plane.
fn filtered(plane: &[f64], width: usize, window: &[f64; WINDOW]) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = plane
        .chunks_exact(width)
        .map(|row| {
            let mean = |part: &[f64]| part.iter().zip(window).map(|(value, weight)| value * weight).sum();
            row.windows(WINDOW).map(mean).collect()
        })
        .collect();
    let mean = |rows: &[Vec<f64>]| {
        let mut means = vec![0.0; width + 1 - WINDOW];
        for (row, weight) in rows.iter().zip(window) {
            means.iter_mut().zip(row).for_each(|(mean, value)| *mean += weight * value);
        }
        means
    };
    rows.windows(WINDOW).flat_map(mean).collect()
}

fn window() -> [f64; WINDOW] {
    let centre = (WINDOW / 2) as f64;
    let weights: [f64; WINDOW] =
        std::array::from_fn(|index| (-((index as f64 - centre) / SIGMA).powi(2) / 2.0).exp());
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A picture of so many columns and rows: 40 × 29 in the tests whose numbers come from scikit-image.
    fn first(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 6) as u8, (y * 8) as u8, ((x * x + 3 * y) % 256) as u8])
        })
    }

    fn second(width: u32, height: u32) -> RgbImage {
        let mut picture = first(width, height);
        for (x, y, Rgb([r, g, b])) in picture.enumerate_pixels_mut() {
            *r = r.saturating_add(((x * y) % 7) as u8);
            *g = g.saturating_sub(((x + y) % 5) as u8);
            *b = if (x + 2 * y) % 11 == 0 { 255 - *b } else { *b };
        }
        picture
    }

    /// ```python
    /// import numpy as np
    /// from skimage.metrics import peak_signal_noise_ratio as psnr, structural_similarity as ssim
    /// y, x = np.mgrid[:29, :40]
    /// a = np.stack([x * 6, y * 8, (x * x + 3 * y) % 256], -1).astype(np.uint8)
    /// r = np.minimum(a[..., 0].astype(int) + x * y % 7, 255)
    /// g = np.maximum(a[..., 1].astype(int) - (x + y) % 5, 0)
    /// b = np.where((x + 2 * y) % 11 == 0, 255 - a[..., 2], a[..., 2])
    /// b = np.stack([r, g, b], -1).astype(np.uint8)
    /// d = np.abs(a.astype(int) - b)
    /// print(d.max(), d.mean(), psnr(a, b, data_range=255), ssim(a, b, channel_axis=-1, data_range=255,
    ///       gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
    /// ```
    #[test]
    fn scikit_image_measures_the_same() {
        let difference = PictureDifference::between(&first(40, 29), &second(40, 29)).unwrap();
        assert_eq!(difference.max, 255);
        assert!((difference.mean - 5.291666666667).abs() < 1e-9, "{difference:?}");
        assert!((difference.psnr - 20.029651217714).abs() < 1e-9, "{difference:?}");
        assert!((difference.ssim.unwrap() - 0.911586013726).abs() < 1e-9, "{difference:?}");
    }

    #[test]
    fn equal_pictures_are_infinitely_alike() {
        let picture = first(40, 29);
        let difference = PictureDifference::between(&picture, &picture).unwrap();
        let expected = PictureDifference { max: 0, mean: 0.0, psnr: f64::INFINITY, ssim: Some(1.0) };
        assert_eq!(difference, expected);
    }

    #[test]
    fn a_picture_smaller_than_a_window_has_no_structure() {
        assert_eq!(PictureDifference::between(&first(10, 40), &second(10, 40)).unwrap().ssim, None);
        assert!(PictureDifference::between(&first(11, 11), &second(11, 11)).unwrap().ssim.is_some());
    }

    #[test]
    fn pictures_of_different_size_cannot_be_compared() {
        assert_eq!(PictureDifference::between(&first(16, 8), &first(8, 16)), None);
    }
}
