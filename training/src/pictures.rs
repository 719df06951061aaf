//! Pictures as tensors.

use image::RgbImage;
use tch::{Kind, Tensor};

/// Pixels in −1…1, `[batch, 3, height, width]`; all pictures have the same size.
pub fn tensor(pictures: &[RgbImage]) -> Tensor {
    let (width, height) =
        pictures.first().map_or((0, 0), |first| (first.width() as i64, first.height() as i64));
    let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.as_raw().iter().copied()).collect();
    Tensor::from_slice(&bytes)
        .reshape([pictures.len() as i64, height, width, 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        .contiguous()
        / 127.5
        - 1.0
}

/// The picture of pixels in −1…1, `[3, height, width]`.
pub fn picture(pixels: &Tensor) -> Option<RgbImage> {
    let size = pixels.size();
    let &[3, height, width] = size.as_slice() else { return None };
    let bytes = ((pixels + 1.0) * 127.5).round().clamp(0.0, 255.0).permute([1, 2, 0]).contiguous();
    let bytes = Vec::<u8>::try_from(bytes.to_kind(Kind::Uint8).reshape([-1])).ok()?;
    RgbImage::from_raw(u32::try_from(width).ok()?, u32::try_from(height).ok()?, bytes)
}
