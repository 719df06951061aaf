//! The ladder of tolerances: how far a result may be from its reference, relative to the reference's largest
//! magnitude.

use ndarray::{ArrayViewD, IxDyn};
use smartedit_core::engine::Precision;

/// A step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tolerance {
    /// The same arithmetic in the same order.
    Exact,
    /// One operation in another order.
    Close,
    /// A whole network in another order: the bar of golden tensors.
    Approximate,
    /// Many networks in a row, or a reference that loses digits itself.
    Loose,
}

impl Tolerance {
    /// The largest difference allowed, as a part of the largest magnitude.
    pub fn of(self, precision: Precision) -> f32 {
        match (self, precision) {
            (Self::Exact, _) => 0.0,
            (Self::Close, Precision::F32) => 1e-5,
            (Self::Approximate, Precision::F32) => 1e-4,
            (Self::Loose, Precision::F32) => 5e-3,
            (Self::Close, Precision::F16) => 4e-3,
            (Self::Approximate, Precision::F16) => 2e-2,
            (Self::Loose, Precision::F16) => 5e-2,
            (Self::Close, Precision::Bf16) => 2e-2,
            (Self::Approximate, Precision::Bf16) => 5e-2,
            (Self::Loose, Precision::Bf16) => 2e-1,
        }
    }

    /// Fails unless the shapes are equal and no element differs by more than the tolerance allows; prints what
    /// was measured.
    #[track_caller]
    pub fn check<'a, 'b>(
        self,
        precision: Precision,
        what: &str,
        found: impl Into<ArrayViewD<'a, f32>>,
        expected: impl Into<ArrayViewD<'b, f32>>,
    ) {
        let (found, expected) = (found.into(), expected.into());
        assert_eq!(found.shape(), expected.shape(), "{what}: shape");
        let magnitude = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        let mut worst = 0.0f32;
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.is_finite(), "{what}: {found} is not finite");
            worst = worst.max((found - expected).abs());
        }
        let relative = if magnitude > 0.0 { worst / magnitude } else { worst };
        println!("{what}: max |Δ| / max |ref| = {relative:.2e} (max |ref| {magnitude:.3})");
        let allowed = self.of(precision);
        assert!(relative <= allowed, "{what}: {relative:.2e} exceeds {allowed:.0e} ({self:?}, {precision})");
    }
}

/// An array of any dimensionality as a view of a dynamic one.
pub fn view<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> ArrayViewD<'_, f32> {
    array.view().into_dyn()
}

/// How equal two 8-bit pictures must be: no value off by more than two levels, and this part of them identical.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Identical {
    /// 99 %: the bar of golden pictures.
    Nearly,
    /// 95 %: where the reference loses digits itself.
    Mostly,
}

impl Identical {
    /// Fails unless `found` is as equal to `expected [h, w, 3]` as it must be; prints what was measured.
    #[track_caller]
    pub fn check(self, what: &str, found: &image::RgbImage, expected: ndarray::ArrayViewD<'_, u8>) {
        let (height, width) = (found.height() as usize, found.width() as usize);
        assert_eq!(expected.raw_dim(), IxDyn(&[height, width, 3]), "{what}: size");
        let mut worst = 0;
        let mut identical = 0;
        for (found, &expected) in found.as_raw().iter().zip(&expected) {
            worst = worst.max(found.abs_diff(expected));
            identical += usize::from(*found == expected);
        }
        let share = identical as f64 / expected.len() as f64;
        println!("{what}: {:.3} % of values identical, largest difference {worst}", 100.0 * share);
        assert!(worst <= 2, "{what}: a value is off by {worst} levels");
        let needed = match self {
            Self::Nearly => 0.99,
            Self::Mostly => 0.95,
        };
        assert!(share >= needed, "{what}: only {:.2} % of values are identical", 100.0 * share);
    }
}

/// Peak signal-to-noise ratio of two pictures in decibels; infinite if they are equal.
#[track_caller]
pub fn psnr(a: &image::RgbImage, b: &image::RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.as_raw().len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}
