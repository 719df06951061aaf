//! Where an edit belongs.

use image::{GrayImage, Luma, Rgb, RgbImage};

/// Level above which a pixel is to be edited.
const EDITED: u8 = 127;

/// What is to be edited: white, on black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(GrayImage);

/// A rectangle of pixels; all four sides lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Its first column.
    pub left: u32,
    /// Its first row.
    pub top: u32,
    /// Its last column.
    pub right: u32,
    /// Its last row.
    pub bottom: u32,
}

impl Bounds {
    /// Whether a pixel lies in it.
    pub fn contains(&self, x: u32, y: u32) -> bool {
        (self.left..=self.right).contains(&x) && (self.top..=self.bottom).contains(&y)
    }
}

impl Mask {
    /// The luminance of a picture, as Pillow converts to `L`.
    pub fn from_picture(picture: &RgbImage) -> Self {
        let luminance = |&Rgb([r, g, b]): &Rgb<u8>| {
            let [r, g, b] = [r, g, b].map(u32::from);
            ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
        };
        let (width, height) = picture.dimensions();
        Self(GrayImage::from_fn(width, height, |x, y| Luma([luminance(picture.get_pixel(x, y))])))
    }

    /// Width and height in pixels.
    pub fn dimensions(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    /// One value for each pixel, row after row.
    pub fn values(&self) -> &[u8] {
        self.0.as_raw()
    }

    /// Takes the nearest pixel for each of a new size, as Pillow's `NEAREST`.
    #[must_use]
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let nearest = |index: u32, from: u32, to: u32| {
            let place = (f64::from(index) + 0.5) * (f64::from(from) / f64::from(to));
            (place as u32).min(from.saturating_sub(1))
        };
        let (from_width, from_height) = self.0.dimensions();
        if from_width == 0 || from_height == 0 {
            return Self(GrayImage::new(width, height));
        }
        Self(GrayImage::from_fn(width, height, |x, y| {
            *self.0.get_pixel(nearest(x, from_width, width), nearest(y, from_height, height))
        }))
    }

    /// The box of what is to be edited: of every pixel that is nearer to white than to black.
    pub fn edited_box(&self) -> Option<Bounds> {
        self.bounds_above(EDITED)
    }

    /// The smallest rectangle that holds every pixel above a level; `None` if there is none.
    pub fn bounds_above(&self, level: u8) -> Option<Bounds> {
        let mut pixels = self.0.enumerate_pixels().filter(|(_, _, Luma([value]))| *value > level);
        let (x, y, _) = pixels.next()?;
        let first = Bounds { left: x, top: y, right: x, bottom: y };
        Some(pixels.fold(first, |bounds, (x, y, _)| Bounds {
            left: bounds.left.min(x),
            top: bounds.top.min(y),
            right: bounds.right.max(x),
            bottom: bounds.bottom.max(y),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Mask {
        Mask::from_picture(&RgbImage::from_fn(width, height, |x, y| Rgb([value(x, y); 3])))
    }

    #[test]
    fn bounds_hold_what_is_above_the_level() {
        let mask = mask(8, 6, |x, y| if (x, y) == (2, 1) || (x, y) == (5, 3) { 128 } else { 127 });
        let bounds = mask.edited_box().unwrap();
        assert_eq!(bounds, Bounds { left: 2, top: 1, right: 5, bottom: 3 });
        assert!(bounds.contains(2, 3) && bounds.contains(5, 1) && !bounds.contains(6, 3));
        assert_eq!(mask.bounds_above(128), None);
    }

    #[test]
    fn grey_stays_and_colours_are_weighed() {
        assert!(
            mask(4, 4, |x, y| (x * 16 + y) as u8)
                .values()
                .iter()
                .eq(&[0, 16, 32, 48, 1, 17, 33, 49, 2, 18, 34, 50, 3, 19, 35, 51])
        );
        let green = Mask::from_picture(&RgbImage::from_pixel(1, 1, Rgb([0, 255, 0])));
        assert_eq!(green.values(), [150]);
    }

    /// `Image.fromarray(np.arange(5, dtype=np.uint8)[None]).resize((8, 1), Image.NEAREST)`, and to 3 pixels.
    #[test]
    fn resizing_takes_the_pixel_that_pillow_takes() {
        let row = mask(5, 1, |x, _| x as u8);
        assert_eq!(row.resized(8, 1).values(), [0, 0, 1, 2, 2, 3, 4, 4]);
        assert_eq!(row.resized(3, 1).values(), [0, 2, 4]);
    }
}
