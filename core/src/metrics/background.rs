//! What the Reason-Edit benchmark measures outside the edited region.

use image::RgbImage;
use ndarray::Array4;

use super::Mask;
use crate::picture::{Filter, peak_signal_to_noise, resize, structural_similarity};

/// Side of the squares to which pictures come before they are measured, in pixels.
pub const SIDE: u32 = 256;

/// An original and its edit without what was to be edited: both at 256×256 pixels, every value multiplied by the part
/// of its pixel that the mask leaves. The blackened region stays in all averages.
#[derive(Debug, Clone)]
pub struct Background {
    /// Channels of values in 0…255.
    original: [Vec<f64>; 3],
    edited: [Vec<f64>; 3],
}

/// How much the background of an edit differs from the original's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackgroundDifference {
    /// Mean squared error of values in 0…1.
    pub mse: f64,
    /// Peak signal-to-noise ratio in dB; infinite for equal backgrounds.
    pub psnr: f64,
    /// Structural similarity, 1 for equal backgrounds.
    pub ssim: f64,
}

impl Background {
    /// Brings all three, of any size, to the benchmark's: pictures bicubic, the mask by nearest pixels.
    pub fn new(original: &RgbImage, edited: &RgbImage, mask: &Mask) -> Self {
        let mask = mask.resized(SIDE, SIDE);
        let planes = |picture: &RgbImage| {
            let picture = resize(picture, SIDE, SIDE, Filter::Bicubic);
            [0, 1, 2].map(|channel| {
                let values = picture.as_raw().iter().skip(channel).step_by(3);
                let kept = |(&value, &mask): (&u8, &u8)| f64::from(value) * (1.0 - f64::from(mask) / 255.0);
                values.zip(mask.values()).map(kept).collect()
            })
        };
        Self { original: planes(original), edited: planes(edited) }
    }

    /// Measures the difference.
    pub fn difference(&self) -> BackgroundDifference {
        let pairs = self.original.iter().flatten().zip(self.edited.iter().flatten());
        let count = 3.0 * f64::from(SIDE) * f64::from(SIDE);
        let mean_square = pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / count;
        BackgroundDifference {
            mse: mean_square / (255.0 * 255.0),
            psnr: peak_signal_to_noise(mean_square),
            ssim: structural_similarity(&self.original, &self.edited, SIDE as usize)
                .expect("a side of the benchmark holds many of SSIM's windows"),
        }
    }

    /// The original and the edit as networks take them: values in −1…1, each `[1, 3, 256, 256]`.
    pub fn tensors(&self) -> [Array4<f32>; 2] {
        let side = SIDE as usize;
        [&self.original, &self.edited].map(|planes| {
            Array4::from_shape_fn((1, 3, side, side), |(_, channel, y, x)| {
                (planes[channel][y * side + x] / 255.0 * 2.0 - 1.0) as f32
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn plain(value: u8) -> RgbImage {
        RgbImage::from_pixel(16, 16, Rgb([value; 3]))
    }

    /// White in the left half.
    fn left() -> Mask {
        Mask::from_picture(&RgbImage::from_fn(16, 16, |x, _| Rgb([if x < 8 { 255 } else { 0 }; 3])))
    }

    #[test]
    fn what_the_mask_covers_counts_as_equal() {
        let edited = RgbImage::from_fn(16, 16, |x, _| Rgb([if x < 8 { 200 } else { 100 }; 3]));
        let difference = Background::new(&plain(100), &edited, &Mask::from_picture(&plain(255))).difference();
        assert_eq!((difference.mse, difference.psnr), (0.0, f64::INFINITY));
        assert!((difference.ssim - 1.0).abs() < 1e-12, "{difference:?}");
    }

    #[test]
    fn the_covered_region_stays_in_the_average() {
        let difference = Background::new(&plain(100), &plain(151), &left()).difference();
        // 0.2² over one half, nothing over the other.
        assert!((difference.mse - 0.02).abs() < 1e-12, "{difference:?}");
        assert!((difference.psnr - 10.0 * 50f64.log10()).abs() < 1e-9, "{difference:?}");
        assert!(difference.ssim < 1.0, "{difference:?}");
    }

    #[test]
    fn a_grey_mask_covers_in_part() {
        let grey = Mask::from_picture(&plain(51));
        let difference = Background::new(&plain(100), &plain(151), &grey).difference();
        assert!((difference.mse - 0.16 * 0.16).abs() < 1e-12, "{difference:?}");
        let [original, edited] = Background::new(&plain(255), &plain(0), &grey).tensors();
        assert!((original[[0, 2, 255, 255]] - 0.6).abs() < 1e-6);
        assert_eq!(edited[[0, 0, 0, 0]], -1.0);
    }
}
