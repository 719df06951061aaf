//! Reading, resizing and writing pictures.
//!
//! Bytes become an upright 8-bit RGB picture ([`decode()`]), the picture comes to the size at which it is edited
//! ([`prepare()`]) and becomes the networks' input ([`pixel_values`], [`to_tensor`]); what the VAE makes becomes a picture
//! ([`from_tensor`]) and bytes again ([`encode()`]). Resizing equals Pillow's to the bit.

mod canvas;
mod decode;
mod difference;
mod encode;
mod prepare;
mod resample;
mod tensor;

pub use canvas::Canvas;
pub use decode::{Alpha, DecodeOptions, Limits, decode, dimensions};
pub use difference::{PictureDifference, ValueDifference};
pub(crate) use difference::{peak_signal_to_noise, structural_similarity};
pub use encode::{Format, encode};
pub use prepare::{Resize, SIDE_MULTIPLE, floor_sides, prepare, prepared_size};
pub use resample::{Filter, resize};
pub use tensor::{from_tensor, pixel_values, to_tensor};

/// A picture cannot be read, prepared or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// There are no bytes.
    #[error("the image is empty")]
    Empty,
    /// The first bytes are none of a known format's.
    #[error("the image is neither PNG nor JPEG nor WebP")]
    UnknownFormat,
    /// A limit is passed; nothing was decoded.
    #[error("the image has {value} {quantity}, at most {limit} are allowed")]
    TooLarge {
        /// What there is too much of: `bytes`, `pixels`, `pixels of width` or `pixels of height`.
        quantity: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// A side is too short for the networks.
    #[error("the image is {width}×{height} pixels, at least {min}×{min} are needed")]
    TooSmall {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// Shortest side, in pixels.
        min: u32,
    },
    /// The bytes are cut off or contradict their format.
    #[error("the {format} image is damaged: {message}")]
    Damaged {
        /// The format's name.
        format: Format,
        /// The decoder's words.
        message: String,
    },
    /// A size that pictures cannot be brought to.
    #[error("{width}×{height} is no size for an edit: both sides must be positive multiples of {multiple}")]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// What sides must be a multiple of.
        multiple: u32,
    },
    /// An array is no picture.
    #[error("an array of shape {shape:?} is no picture; [1, 3, height, width] is needed")]
    Shape {
        /// The array's shape.
        shape: Vec<usize>,
    },
    /// A quality that the format does not have.
    #[error("quality {quality} for {format}: {message}")]
    Quality {
        /// The quality asked for.
        quality: u8,
        /// The format.
        format: Format,
        /// What is needed.
        message: &'static str,
    },
    /// The picture cannot be written in the format.
    #[error("cannot write {format}: {message}")]
    Encode {
        /// The format.
        format: Format,
        /// The encoder's words.
        message: String,
    },
}
