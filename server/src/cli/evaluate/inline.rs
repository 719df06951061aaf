//! Pictures within a page.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use smartedit_core::picture::{Filter, Format, PictureError, encode, resize};

/// Quality of pictures that are made smaller.
const QUALITY: u8 = 90;

/// A picture as an address that holds it. One whose longer side exceeds `max_side` is made smaller, and lossy, so that a
/// page of hundreds of them stays a page; any other is as it is.
pub(super) fn data_uri(picture: &RgbImage, max_side: u32) -> Result<String, PictureError> {
    let longer = picture.width().max(picture.height());
    let (format, file) = if longer > max_side {
        let side = |side: u32| (u64::from(side) * u64::from(max_side) / u64::from(longer)).max(1) as u32;
        let smaller = resize(picture, side(picture.width()), side(picture.height()), Filter::Bicubic);
        (Format::Jpeg, encode(&smaller, Format::Jpeg, Some(QUALITY))?)
    } else {
        (Format::Png, encode(picture, Format::Png, None)?)
    };
    Ok(format!("data:{};base64,{}", format.mime_type(), BASE64_STANDARD.encode(file)))
}

#[cfg(test)]
mod tests {
    use smartedit_core::picture::{DecodeOptions, decode};

    use super::*;

    fn shown(picture: &RgbImage, start: &str) -> RgbImage {
        let uri = data_uri(picture, 64).unwrap();
        let file = BASE64_STANDARD.decode(uri.strip_prefix(start).unwrap()).unwrap();
        decode(&file, &DecodeOptions::default()).unwrap()
    }

    #[test]
    fn a_small_picture_stays_as_it_is() {
        let small = RgbImage::from_fn(64, 8, |x, y| image::Rgb([x as u8, y as u8, 7]));
        assert_eq!(shown(&small, "data:image/png;base64,"), small);
    }

    #[test]
    fn a_large_one_keeps_its_proportions() {
        assert_eq!(shown(&RgbImage::new(100, 50), "data:image/jpeg;base64,").dimensions(), (64, 32));
        assert_eq!(shown(&RgbImage::new(2, 1000), "data:image/jpeg;base64,").dimensions(), (1, 64));
    }
}
