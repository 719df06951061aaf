//! A picture to bytes.

use std::fmt;
use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ImageFormat, RgbImage};

use super::PictureError;

/// JPEG's quality where none is asked for.
const DEFAULT_JPEG_QUALITY: u8 = 90;

/// A format of pictures that is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Lossless.
    #[default]
    Png,
    /// Lossy, with a quality.
    Jpeg,
    /// Read lossy or lossless, written lossless.
    WebP,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::WebP];

    /// The name used in requests and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    /// The media type.
    pub const fn mime_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The format that a file's first bytes tell.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        let format = image::guess_format(bytes).ok()?;
        Self::ALL.into_iter().find(|known| known.image_format() == format)
    }

    pub(super) const fn image_format(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes a picture. `quality`, 1 to 100, is JPEG's (90 where none is given); PNG is lossless and ignores it; WebP, which
/// is written lossless, refuses it, so that nobody takes a large file for a small one.
pub fn encode(picture: &RgbImage, format: Format, quality: Option<u8>) -> Result<Vec<u8>, PictureError> {
    check_quality(format, quality)?;
    let mut bytes = Cursor::new(Vec::new());
    let written = match format {
        Format::Png => picture.write_with_encoder(PngEncoder::new(&mut bytes)),
        Format::Jpeg => {
            let quality = quality.unwrap_or(DEFAULT_JPEG_QUALITY);
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality))
        }
        Format::WebP => picture.write_with_encoder(WebPEncoder::new_lossless(&mut bytes)),
    };
    written.map_err(|e| PictureError::Encode { format, message: e.to_string() })?;
    Ok(bytes.into_inner())
}

fn check_quality(format: Format, quality: Option<u8>) -> Result<(), PictureError> {
    let Some(quality) = quality else { return Ok(()) };
    let error = |message| Err(PictureError::Quality { quality, format, message });
    match format {
        Format::WebP => error("webp is written lossless and has none"),
        _ if !(1..=100).contains(&quality) => error("it must be between 1 and 100"),
        _ => Ok(()),
    }
}
