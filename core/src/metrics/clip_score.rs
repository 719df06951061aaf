//! How well a picture fits a text.

use std::path::Path;

use image::RgbImage;
use image::imageops::crop_imm;
use ndarray::Array2;

use super::{Mask, MetricError, SIDE};
use crate::engine::{Engine, EngineError};
use crate::model::VisionConfig;
use crate::model::checkpoint::CheckpointWeights;
use crate::model::convert::ClipCheckpoint;
use crate::networks::{LayerNorm, Linear, TextEncoder, VisionEncoder};
use crate::picture::{Filter, pixel_values, resize};
use crate::tensor::HostTensor;
use crate::text::ClipTokenizer;
use crate::weights::Weights;

/// CLIP: pictures and texts as directions in one space. `T` is a tensor of the engine that holds the towers.
pub struct ClipScore<T> {
    tokenizer: ClipTokenizer,
    text: TextEncoder<T>,
    text_positions: usize,
    text_projection: Linear<T>,
    vision: VisionEncoder<T>,
    vision_config: VisionConfig,
    vision_norm: LayerNorm<T>,
    vision_projection: Linear<T>,
}

impl<T> ClipScore<T> {
    /// Opens a model in the layout of `transformers`, such as `openai/clip-vit-large-patch14`: `config.json`,
    /// `preprocessor_config.json`, the tokenizer's files and weights.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or lacks a tensor.
    pub fn open<E: Engine<Tensor = T>>(e: &E, directory: &Path) -> Result<Self, MetricError> {
        let tokenizer = ClipTokenizer::from_directory(directory)?;
        let ClipCheckpoint { text, vision, projection_size, checkpoint } = ClipCheckpoint::open(directory)?;
        let source = CheckpointWeights::new(e, &checkpoint);
        let weights = Weights::root(&source);
        let (text_weights, vision_weights) = (weights.scope("text_model"), weights.scope("vision_model"));
        let projection =
            |name: &str, size| Linear::load_unbiased(&weights.scope(name), size, projection_size);
        Ok(Self {
            tokenizer,
            text: TextEncoder::load(&text_weights, &text)?,
            text_positions: text.max_positions,
            text_projection: projection("text_projection", text.hidden_size)?,
            vision: VisionEncoder::load(&vision_weights, &vision)?,
            vision_norm: LayerNorm::load(
                &vision_weights.scope("post_layernorm"),
                vision.hidden_size,
                vision.layer_norm_eps,
            )?,
            vision_projection: projection("visual_projection", vision.hidden_size)?,
            vision_config: vision,
        })
    }

    /// A hundred times the cosine between picture and text, at least 0.
    ///
    /// # Errors
    ///
    /// The text cannot be tokenized, or an operation of the engine failed.
    pub fn score<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        picture: &RgbImage,
        text: &str,
    ) -> Result<f64, MetricError> {
        let (picture, text) = (self.picture_direction(e, picture)?, self.text_direction(e, text)?);
        Ok((100.0 * cosine(&picture, &text)).max(0.0))
    }

    fn picture_direction<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        picture: &RgbImage,
    ) -> Result<Vec<f32>, EngineError> {
        let square = centre_square(picture, u32::try_from(self.vision_config.image_size).unwrap_or(u32::MAX));
        let pixels = e.cast(&e.upload(&pixel_values(&square, &self.vision_config).into())?)?;
        let class = e.narrow(&self.vision.states(e, &pixels)?, 1, 0, 1)?;
        download(e, &self.vision_projection.forward(e, &self.vision_norm.forward(e, &class)?)?)
    }

    fn text_direction<E: Engine<Tensor = T>>(&self, e: &E, text: &str) -> Result<Vec<f32>, MetricError> {
        let ids = self.tokenizer.encode(text, self.text_positions)?;
        // The state at the end token, which has the largest id; padding may be the same token.
        let largest = ids.iter().max();
        let end = ids.iter().position(|id| Some(id) == largest).unwrap_or(0);
        let ids = Array2::from_shape_fn((1, ids.len()), |(_, index)| i64::from(ids[index]));
        let states = self.text.forward(e, &e.upload(&ids.into())?)?;
        let state = e.narrow(&states, 1, end, 1)?;
        Ok(download(e, &self.text_projection.forward(e, &state)?)?)
    }
}

fn download<E: Engine>(e: &E, x: &E::Tensor) -> Result<Vec<f32>, EngineError> {
    match e.download(x)? {
        HostTensor::F32(array) => Ok(array.iter().copied().collect()),
        HostTensor::I64(_) => Err(EngineError::new("download", "a direction is of floats")),
    }
}

/// The part of an edited picture that the benchmark scores against a caption: at 256×256 pixels, the box of what the mask
/// does not leave black, as the benchmark has it without its last row and column. `None` if nothing is left.
pub fn edited_part(edited: &RgbImage, mask: &Mask) -> Option<RgbImage> {
    let bounds = mask.resized(SIDE, SIDE).bounds_above(0)?;
    let (width, height) = (bounds.right - bounds.left, bounds.bottom - bounds.top);
    let edited = resize(edited, SIDE, SIDE, Filter::Bicubic);
    (width > 0 && height > 0).then(|| crop_imm(&edited, bounds.left, bounds.top, width, height).to_image())
}

/// The centre of a picture whose shorter side has come to a length, bicubic.
fn centre_square(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let short = u64::from(width.min(height).max(1));
    let scaled = |length: u32| u32::try_from(u64::from(side) * u64::from(length) / short).unwrap_or(u32::MAX);
    let picture = resize(picture, scaled(width), scaled(height), Filter::Bicubic);
    let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    crop_imm(&picture, left, top, side, side).to_image()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn the_part_lacks_the_last_row_and_column() {
        let mask = |inside: fn(u32, u32) -> bool| {
            let value = |x, y| Rgb([if inside(x, y) { 1 } else { 0 }; 3]);
            Mask::from_picture(&RgbImage::from_fn(SIDE, SIDE, value))
        };
        let edited = RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([x as u8, y as u8, 0]));
        let part =
            edited_part(&edited, &mask(|x, y| (10..30).contains(&x) && (50..55).contains(&y))).unwrap();
        assert_eq!(part.dimensions(), (19, 4));
        assert_eq!((part.get_pixel(0, 0).0, part.get_pixel(18, 3).0), ([10, 50, 0], [28, 53, 0]));
        assert_eq!(edited_part(&edited, &mask(|x, _| x == 10)), None);
        assert_eq!(edited_part(&edited, &mask(|_, _| false)), None);
    }

    #[test]
    fn the_centre_of_a_wide_picture_is_its_middle() {
        let wide = RgbImage::from_fn(30, 10, |x, _| Rgb([if (10..20).contains(&x) { 200 } else { 0 }; 3]));
        let square = centre_square(&wide, 20);
        assert_eq!(square.dimensions(), (20, 20));
        assert_eq!(square.get_pixel(10, 10).0, [200; 3]);
    }
}
