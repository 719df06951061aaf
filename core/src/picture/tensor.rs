//! Pictures as the networks take and make them.

use image::RgbImage;
use ndarray::{Array3, Array4, Axis, s};

use super::{Filter, PictureError, resize};
use crate::model::VisionConfig;

/// The vision tower's input: squashed to its square, in 0…1, less the mean, by the standard deviation.
///
/// # Shapes
/// The result: `[1, 3, s, s]` with the tower's side `s`.
pub fn pixel_values(picture: &RgbImage, config: &VisionConfig) -> Array4<f32> {
    let side = u32::try_from(config.image_size).unwrap_or(u32::MAX);
    let mut values = planes(&resize(picture, side, side, Filter::Bicubic), |value| value / 255.0);
    for (channel, mut plane) in values.axis_iter_mut(Axis(1)).enumerate() {
        let (mean, std) = (config.image_mean[channel], config.image_std[channel]);
        plane.mapv_inplace(|value| (value - mean) / std);
    }
    values
}

/// The VAE encoder's input: values in −1…1.
///
/// # Shapes
/// The result: `[1, 3, h, w]`.
pub fn to_tensor(picture: &RgbImage) -> Array4<f32> {
    planes(picture, |value| value / 255.0 * 2.0 - 1.0)
}

/// A picture from the VAE decoder's output: values in −1…1 are spread over 0…255 and rounded half to even, others are
/// clamped first.
///
/// # Shapes
/// `tensor`: `[1, 3, h, w]`.
pub fn from_tensor(tensor: &Array4<f32>) -> Result<RgbImage, PictureError> {
    let shape = || PictureError::Shape { shape: tensor.shape().to_vec() };
    let (1, 3, height, width) = tensor.dim() else { return Err(shape()) };
    let bytes: Vec<u8> = tensor
        .slice(s![0, .., .., ..])
        .permuted_axes([1, 2, 0])
        .iter()
        .map(|&value| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
        .collect();
    let (width, height) = (u32::try_from(width), u32::try_from(height));
    let (Ok(width), Ok(height)) = (width, height) else { return Err(shape()) };
    RgbImage::from_raw(width, height, bytes).ok_or_else(shape)
}

/// Channels as planes, `[1, 3, h, w]`, each value through `map`.
fn planes(picture: &RgbImage, map: impl Fn(f32) -> f32) -> Array4<f32> {
    let (width, height) = picture.dimensions();
    let values = picture.as_raw().iter().map(|&value| map(f32::from(value))).collect();
    Array3::from_shape_vec((height as usize, width as usize, 3), values)
        .expect("an RGB picture holds three values per pixel")
        .permuted_axes([2, 0, 1])
        .insert_axis(Axis(0))
        .as_standard_layout()
        .into_owned()
}
