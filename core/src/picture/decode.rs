//! Bytes to an upright RGB picture.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::{Format, PictureError};

/// What a picture may cost. Checked on its length and its header, before any pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of the file.
    pub max_bytes: u64,
    /// Width times height.
    pub max_pixels: u64,
    /// Width, and height.
    pub max_side: u32,
}

impl Default for Limits {
    /// 32 MiB, 50 million pixels, 16 384 pixels a side.
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_pixels: 50_000_000, max_side: 16_384 }
    }
}

/// What becomes of transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alpha {
    /// The picture is laid over white.
    #[default]
    OverWhite,
    /// Transparency is forgotten, as in the reference.
    Drop,
}

/// How a picture is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeOptions {
    /// What it may cost.
    pub limits: Limits,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// Whether the orientation that EXIF data tell is left alone, as in the reference's vision branch.
    pub ignore_orientation: bool,
}

/// Reads PNG, JPEG or WebP, whichever the first bytes say it is, as an 8-bit RGB picture. Grey, palette and 16-bit
/// pictures are converted; of an animation the first frame is read.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PictureError> {
    let (format, mut decoder) = open(bytes, &options.limits)?;
    let orientation =
        if options.ignore_orientation { Orientation::NoTransforms } else { orientation(&mut decoder) };
    let mut picture = DynamicImage::from_decoder(decoder)
        .map_err(|e| PictureError::Damaged { format, message: e.to_string() })?;
    picture.apply_orientation(orientation);
    Ok(match options.alpha {
        Alpha::OverWhite if picture.color().has_alpha() => over_white(picture),
        _ => picture.into_rgb8(),
    })
}

/// Width and height of what [`decode`] would return, out of the header: no pixel is decoded. Fails as `decode` does
/// where the header is enough to tell.
pub fn dimensions(bytes: &[u8], options: &DecodeOptions) -> Result<(u32, u32), PictureError> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};

    let (_, mut decoder) = open(bytes, &options.limits)?;
    let (width, height) = decoder.dimensions();
    let turned = !options.ignore_orientation
        && matches!(orientation(&mut decoder), Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    Ok(if turned { (height, width) } else { (width, height) })
}

/// Reads the header and checks the limits.
fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Format, impl ImageDecoder + use<'a>), PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    within("bytes", bytes.len() as u64, limits.max_bytes)?;
    let format = Format::sniff(bytes).ok_or(PictureError::UnknownFormat)?;
    let damaged = |e: image::ImageError| PictureError::Damaged { format, message: e.to_string() };

    if let Some(size) = png_size(bytes).filter(|_| format == Format::Png) {
        check_size(size, limits)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.image_format());
    let mut memory = image::Limits::no_limits();
    // Four channels of 16 bits, and as much again for what a decoder keeps besides.
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(16 << 20));
    reader.limits(memory);
    let decoder = reader.into_decoder().map_err(damaged)?;
    check_size(decoder.dimensions(), limits)?;
    if format == Format::WebP && !webp_chunks_fit(bytes) {
        // Memory for metadata is asked for before it is read.
        let message = "it is cut off: a chunk is longer than what is left".to_owned();
        return Err(PictureError::Damaged { format, message });
    }
    if format == Format::Jpeg && !jpeg_ends(bytes) {
        // The decoder would fill up with grey what is missing.
        let message = "it is cut off: the end marker is missing".to_owned();
        return Err(PictureError::Damaged { format, message });
    }
    Ok((format, decoder))
}

fn within(quantity: &'static str, value: u64, limit: u64) -> Result<(), PictureError> {
    if value > limit { Err(PictureError::TooLarge { quantity, value, limit }) } else { Ok(()) }
}

fn check_size((width, height): (u32, u32), limits: &Limits) -> Result<(), PictureError> {
    within("pixels of width", width.into(), limits.max_side.into())?;
    within("pixels of height", height.into(), limits.max_side.into())?;
    within("pixels", u64::from(width) * u64::from(height), limits.max_pixels)
}

/// The size in a PNG's first chunk. Its decoder reserves memory for a row before it tells the size.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |start: usize| bytes.get(start..start + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some((side(16)?, side(20)?))
}

/// The orientation in EXIF data; data that cannot be read are as good as none.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten().unwrap_or_default();
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

/// Whether an end marker follows the beginning of a JPEG's first scan.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    // A segment is 0xff (any number of times), a marker, a length of two bytes that counts itself, content.
    while let [0xff, marker, tail @ ..] = rest {
        rest = match (marker, tail) {
            (0xff, _) => rest.get(1..).unwrap_or_default(),
            (&START_OF_SCAN, _) => return tail.windows(2).any(|pair| pair == [0xff, 0xd9]),
            (0x01 | 0xd0..=0xd8, _) => tail,
            (_, [high, low, ..]) => {
                tail.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default()
            }
            _ => return false,
        };
    }
    false
}

/// Whether no chunk of a WebP file claims more bytes than there are.
fn webp_chunks_fit(bytes: &[u8]) -> bool {
    // `RIFF`, the length of what follows it, `WEBP`; then chunks of a name, a length, content, and a byte if that is odd.
    let riff = bytes.get(4..8).and_then(|length| length.try_into().ok()).map_or(0, u32::from_le_bytes);
    let whole = bytes.len().min((riff as usize).saturating_add(8));
    let mut start = 12;
    while let Some(length) = bytes.get(start + 4..start + 8).filter(|_| start < whole) {
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        if length > bytes.len() - start - 8 {
            return false;
        }
        start += 8 + length + length % 2;
    }
    true
}

fn over_white(picture: DynamicImage) -> RgbImage {
    let picture = picture.into_rgba8();
    let (width, height) = picture.dimensions();
    let mut over = RgbImage::new(width, height);
    for (target, source) in over.pixels_mut().zip(picture.pixels()) {
        let [r, g, b, alpha] = source.0.map(u32::from);
        let blend = |channel: u32| ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        target.0 = [blend(r), blend(g), blend(b)];
    }
    over
}
