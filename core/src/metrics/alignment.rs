//! Whether an edit is the one that was asked for.

use std::fmt;

use image::RgbImage;

use super::{Bounds, Mask, SizeMismatch};
use crate::picture::{Filter, peak_signal_to_noise, resize};

/// Levels by which values of a pixel may differ between two outcomes that count as equal there.
pub const SAME_LEVELS: u8 = 2;

/// The PSNR in dB against the source from which on the background counts as kept.
pub const KEPT_DECIBELS: f64 = 20.0;

/// What an edit may come to. All pictures and the mask have the source's size.
#[derive(Debug, Clone)]
pub struct Outcomes<'a> {
    /// The picture before the edit.
    pub source: &'a RgbImage,
    /// The picture as it should be after the edit.
    pub target: &'a RgbImage,
    /// The same edit, made to each object that was not meant.
    pub wrong_places: &'a [RgbImage],
    /// Other edits of the object that was meant.
    pub wrong_classes: &'a [RgbImage],
    /// Where the edit belongs.
    pub mask: &'a Mask,
}

/// How near an edit comes to the true outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// Why the edit is not aligned; empty if it is.
    pub misalignments: Vec<Misalignment>,
    /// Indices of the wrong classes that the edit is as near to as to the target.
    pub mistaken_classes: Vec<usize>,
    /// PSNR in dB against the target within the mask's box; infinite if equal there.
    pub edit_psnr: f64,
    /// PSNR in dB against the source outside the mask's box, where source and target are equal; `None` if they are
    /// equal nowhere there.
    pub background_psnr: Option<f64>,
}

impl Alignment {
    /// Whether the edit is nearer to the target than to the source and to every wrong place, and keeps the rest.
    pub fn aligned(&self) -> bool {
        self.misalignments.is_empty()
    }

    /// Whether it is also nearer to the target than to every wrong class.
    pub fn strictly_aligned(&self) -> bool {
        self.aligned() && self.mistaken_classes.is_empty()
    }
}

/// One reason why an edit is not aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misalignment {
    /// It is as near to the source as to the target.
    Unedited,
    /// It is as near to this wrong place as to the target.
    WrongPlace(usize),
    /// The rest is not kept.
    Background,
}

impl fmt::Display for Misalignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unedited => f.write_str("not nearer to the target than to the source"),
            Self::WrongPlace(index) => {
                write!(f, "not nearer to the target than to wrong place {}", index + 1)
            }
            Self::Background => f.write_str("the background is not kept"),
        }
    }
}

/// Whether pictures of the same size differ in any pixel by more than [`SAME_LEVELS`].
pub fn differ(a: &RgbImage, b: &RgbImage) -> bool {
    a.pixels().zip(b.pixels()).any(|(a, b)| pixels_differ(&a.0, &b.0))
}

fn pixels_differ(a: &[u8; 3], b: &[u8; 3]) -> bool {
    a.iter().zip(b).any(|(a, b)| a.abs_diff(*b) > SAME_LEVELS)
}

/// Measures an edit. One of another size than the source comes to the source's first.
///
/// Of the target and an alternative, the edit is nearer to the one with the smaller mean squared error over the pixels
/// in which these two differ.
///
/// # Errors
///
/// A picture or the mask has another size than the source.
pub fn alignment(edited: &RgbImage, outcomes: &Outcomes<'_>) -> Result<Alignment, SizeMismatch> {
    let Outcomes { source, target, wrong_places, wrong_classes, mask } = outcomes;
    check_sizes(outcomes)?;
    let edited = resize(edited, source.width(), source.height(), Filter::Bicubic);
    let nearer_than = |alternative: &RgbImage| is_nearer(&edited, target, alternative);
    let not_nearer = |alternatives: &[RgbImage]| -> Vec<usize> {
        let indices = alternatives.iter().enumerate().filter(|(_, picture)| !nearer_than(picture));
        indices.map(|(index, _)| index).collect()
    };
    let bounds = mask.edited_box();
    let inside = |x, y| bounds.is_some_and(|bounds: Bounds| bounds.contains(x, y));
    let edit_psnr = psnr_where(&edited, target, |x, y, _| inside(x, y)).unwrap_or(f64::INFINITY);
    let background_psnr = psnr_where(&edited, source, |x, y, pixel| {
        !inside(x, y) && !pixels_differ(pixel, &target.get_pixel(x, y).0)
    });

    let mut misalignments = Vec::new();
    if !nearer_than(source) {
        misalignments.push(Misalignment::Unedited);
    }
    misalignments.extend(not_nearer(wrong_places).into_iter().map(Misalignment::WrongPlace));
    if background_psnr.is_some_and(|psnr| psnr < KEPT_DECIBELS) {
        misalignments.push(Misalignment::Background);
    }
    Ok(Alignment { misalignments, mistaken_classes: not_nearer(wrong_classes), edit_psnr, background_psnr })
}

fn check_sizes(outcomes: &Outcomes<'_>) -> Result<(), SizeMismatch> {
    let source_size = outcomes.source.dimensions();
    let numbered = |what: &str, pictures: &[RgbImage]| -> Vec<(String, (u32, u32))> {
        pictures.iter().zip(1..).map(|(p, number)| (format!("{what} {number}"), p.dimensions())).collect()
    };
    let sizes = [
        ("the target".to_owned(), outcomes.target.dimensions()),
        ("the mask".to_owned(), outcomes.mask.dimensions()),
    ];
    let mut sizes = sizes
        .into_iter()
        .chain(numbered("wrong place", outcomes.wrong_places))
        .chain(numbered("wrong class", outcomes.wrong_classes));
    match sizes.find(|(_, size)| *size != source_size) {
        Some((what, size)) => Err(SizeMismatch { what, size, source_size }),
        None => Ok(()),
    }
}

/// Whether an edit's squared error to the target, over the pixels in which target and alternative differ, is smaller than
/// its error to the alternative.
fn is_nearer(edited: &RgbImage, target: &RgbImage, alternative: &RgbImage) -> bool {
    let (mut to_target, mut to_alternative) = (0_u64, 0_u64);
    for ((edited, target), alternative) in edited.pixels().zip(target.pixels()).zip(alternative.pixels()) {
        if pixels_differ(&target.0, &alternative.0) {
            to_target += squared_error(&edited.0, &target.0);
            to_alternative += squared_error(&edited.0, &alternative.0);
        }
    }
    to_target < to_alternative
}

fn squared_error(a: &[u8; 3], b: &[u8; 3]) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum()
}

/// PSNR over the pixels for which `counts` holds of their place and of `b`'s value; `None` if it holds for none.
fn psnr_where(a: &RgbImage, b: &RgbImage, counts: impl Fn(u32, u32, &[u8; 3]) -> bool) -> Option<f64> {
    let (mut sum, mut pixels) = (0_u64, 0_u64);
    for ((x, y, b), a) in b.enumerate_pixels().zip(a.pixels()) {
        if counts(x, y, &b.0) {
            sum += squared_error(&a.0, &b.0);
            pixels += 1;
        }
    }
    (pixels > 0).then(|| peak_signal_to_noise(sum as f64 / (3 * pixels) as f64))
}

#[cfg(test)]
mod tests;
