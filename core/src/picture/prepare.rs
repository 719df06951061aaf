//! A picture to the size at which it is edited.

use image::RgbImage;
use image::imageops::crop_imm;

use super::{Filter, PictureError, resize};

/// What the sides of an edited picture are multiples of: the VAE's latents are an eighth as large.
pub const SIDE_MULTIPLE: u32 = 8;

/// How a picture comes to the size at which it is edited. Sides must be multiples of 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The picture's own size, each side floored to a multiple of 8.
    Keep,
    /// Exactly this size; the aspect ratio is not kept.
    Stretch {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// The largest size within this one that keeps the aspect ratio (sides floored to multiples of 8).
    Fit {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Exactly this size, of the largest centred part with its aspect ratio.
    Crop {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

/// The size that a picture of this size gets.
pub fn prepared_size(width: u32, height: u32, resize: Resize) -> Result<(u32, u32), PictureError> {
    if width == 0 || height == 0 {
        return Err(PictureError::TooSmall { width, height, min: 1 });
    }
    match resize {
        Resize::Keep if width < SIDE_MULTIPLE || height < SIDE_MULTIPLE => {
            Err(PictureError::TooSmall { width, height, min: SIDE_MULTIPLE })
        }
        Resize::Keep => Ok((floor(width), floor(height))),
        Resize::Stretch { width, height } | Resize::Crop { width, height } => check_size(width, height),
        Resize::Fit { width: max_width, height: max_height } => {
            let (max_width, max_height) = check_size(max_width, max_height)?;
            Ok(if is_wider((width, height), (max_width, max_height)) {
                (max_width, floor(scaled(height, max_width, width)))
            } else {
                (floor(scaled(width, max_height, height)), max_height)
            })
        }
    }
}

/// Brings a picture to the size at which it is edited: bicubic, or Lanczos for [`Resize::Keep`].
pub fn prepare(picture: &RgbImage, how: Resize) -> Result<RgbImage, PictureError> {
    let (width, height) = prepared_size(picture.width(), picture.height(), how)?;
    Ok(match how {
        Resize::Keep => resize(picture, width, height, Filter::Lanczos),
        Resize::Stretch { .. } | Resize::Fit { .. } => resize(picture, width, height, Filter::Bicubic),
        Resize::Crop { .. } => {
            let (w, h) = picture.dimensions();
            let (part_width, part_height) = if is_wider((w, h), (width, height)) {
                (scaled(h, width, height).clamp(1, w), h)
            } else {
                (w, scaled(w, height, width).clamp(1, h))
            };
            let (x, y) = ((w - part_width) / 2, (h - part_height) / 2);
            let part = crop_imm(picture, x, y, part_width, part_height).to_image();
            resize(&part, width, height, Filter::Bicubic)
        }
    })
}

/// Floors each side to a multiple of 8, as the diffusion pipeline does before it encodes a picture.
pub fn floor_sides(picture: &RgbImage) -> Result<RgbImage, PictureError> {
    prepare(picture, Resize::Keep)
}

fn check_size(width: u32, height: u32) -> Result<(u32, u32), PictureError> {
    let fits = |side: u32| side > 0 && side.is_multiple_of(SIDE_MULTIPLE);
    if fits(width) && fits(height) {
        Ok((width, height))
    } else {
        Err(PictureError::Size { width, height, multiple: SIDE_MULTIPLE })
    }
}

fn floor(side: u32) -> u32 {
    (side / SIDE_MULTIPLE * SIDE_MULTIPLE).max(SIDE_MULTIPLE)
}

fn is_wider((width, height): (u32, u32), (other_width, other_height): (u32, u32)) -> bool {
    u64::from(width) * u64::from(other_height) >= u64::from(height) * u64::from(other_width)
}

/// `side · to / from`, rounded.
fn scaled(side: u32, to: u32, from: u32) -> u32 {
    let (side, to, from) = (u64::from(side), u64::from(to), u64::from(from).max(1));
    u32::try_from((side * to + from / 2) / from).unwrap_or(u32::MAX)
}
