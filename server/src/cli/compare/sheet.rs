//! Pictures side by side, and below them how they differ.

use image::RgbImage;
use smartedit_core::picture::{Canvas, Filter, resize};

/// Pixels between cells, and around them.
const GAP: u32 = 8;

/// Height of a label.
const LABEL: u32 = 16;

/// Width of a cell in which a label can be read.
const MIN_WIDTH: u32 = 156;

/// A column of the sheet: a picture, and the difference from the first one.
pub(super) struct Column {
    /// Above the picture.
    pub(super) label: String,
    /// The picture, if there is one.
    pub(super) picture: Option<RgbImage>,
    /// Above the difference.
    pub(super) difference_label: String,
}

/// Draws the source, each column's picture, and below all but the first the absolute differences from the first,
/// `gain` times as large.
pub(super) fn draw(source: &RgbImage, columns: &[Column], gain: u8) -> RgbImage {
    let pictures = columns.iter().filter_map(|column| column.picture.as_ref());
    let (width, height) =
        pictures.fold((0, 0), |(w, h), picture| (w.max(picture.width()), h.max(picture.height())));
    let (width, height) = match height {
        0 => source.dimensions(),
        height => (width, height),
    };
    let cells = Cells { width: width.max(MIN_WIDTH), height };
    let (width_of_all, height_of_all) = cells.size(columns.len() as u32 + 1);
    let mut canvas = Canvas::new(width_of_all, height_of_all);
    cell(&mut canvas, cells.at(0, 0), "source", Some(&fitted(source, width, height)), cells.width);
    let first = columns.first().and_then(|column| column.picture.as_ref());
    for (column, index) in columns.iter().zip(1..) {
        cell(&mut canvas, cells.at(index, 0), &column.label, column.picture.as_ref(), cells.width);
        if index > 1 {
            let map = first.zip(column.picture.as_ref()).and_then(|(a, b)| difference(a, b, gain));
            cell(&mut canvas, cells.at(index, 1), &column.difference_label, map.as_ref(), cells.width);
        }
    }
    canvas.0
}

/// Absolute differences, `gain` times as large; `None` for pictures of different size.
fn difference(a: &RgbImage, b: &RgbImage, gain: u8) -> Option<RgbImage> {
    let values = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b).saturating_mul(gain));
    let same = a.dimensions() == b.dimensions();
    same.then(|| RgbImage::from_raw(a.width(), a.height(), values.collect())).flatten()
}

/// The largest picture within a size that keeps the aspect ratio.
fn fitted(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let scale = f64::min(
        f64::from(width) / f64::from(picture.width()),
        f64::from(height) / f64::from(picture.height()),
    );
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    resize(picture, side(picture.width()), side(picture.height()), Filter::Bicubic)
}

/// The grid of the sheet: labels above pictures.
struct Cells {
    width: u32,
    height: u32,
}

impl Cells {
    fn size(&self, columns: u32) -> (u32, u32) {
        (GAP + columns * (self.width + GAP), GAP + 2 * (LABEL + self.height + GAP))
    }

    fn at(&self, column: u32, row: u32) -> (u32, u32) {
        (GAP + column * (self.width + GAP), GAP + row * (LABEL + self.height + GAP))
    }
}

/// Draws a label, as far as it fits, and a picture below it.
fn cell(canvas: &mut Canvas, (x, y): (u32, u32), label: &str, picture: Option<&RgbImage>, width: u32) {
    canvas.label((x, y), label, width);
    if let Some(picture) = picture {
        image::imageops::replace(&mut canvas.0, picture, x.into(), (y + LABEL).into());
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn column(picture: Option<RgbImage>) -> Column {
        Column { label: "a".to_owned(), picture, difference_label: "difference".to_owned() }
    }

    fn plain(width: u32, height: u32, value: u8) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([value; 3]))
    }

    #[test]
    fn pictures_stand_side_by_side_and_differences_below() {
        let columns = [plain(200, 40, 100), plain(200, 40, 100), plain(200, 40, 90)];
        let columns = columns.map(|picture| column(Some(picture)));
        let sheet = draw(&plain(100, 20, 7), &columns, 10);
        assert_eq!(sheet.dimensions(), (8 + 4 * 208, 8 + 2 * (16 + 40 + 8)));
        let at = |column: u32, row: u32| {
            let corner = (8 + column * 208, 8 + row * 64 + 16);
            sheet.get_pixel(corner.0 + 199, corner.1 + 39).0[0]
        };
        assert_eq!([0, 1, 2, 3].map(|column| at(column, 0)), [7, 100, 100, 90]);
        // Black where the picture is the first one's, ten times the difference where it is not.
        assert_eq!([0, 1, 2, 3].map(|column| at(column, 1)), [255, 255, 0, 100]);
    }

    #[test]
    fn labels_are_drawn_above_and_never_into_the_next_cell() {
        let mut long = column(Some(plain(200, 40, 255)));
        long.label = "w".repeat(1000);
        let sheet = draw(&plain(200, 40, 255), &[long, column(None)], 1);
        let ink =
            |from: u32, to: u32| (from..to).any(|x| (8..24).any(|y| sheet.get_pixel(x, y).0 != [255; 3]));
        assert!(ink(216, 416));
        assert!(!ink(416, 424));
    }

    #[test]
    fn what_failed_or_has_another_size_has_no_difference() {
        let columns = [column(Some(plain(16, 16, 1))), column(None), column(Some(plain(8, 16, 1)))];
        let sheet = draw(&plain(16, 16, 9), &columns, 255);
        assert_eq!(sheet.dimensions(), (8 + 4 * (MIN_WIDTH + 8), 8 + 2 * (16 + 16 + 8)));
        assert_eq!(draw(&plain(16, 16, 9), &[column(None)], 1).height(), 8 + 2 * (16 + 16 + 8));
    }
}
