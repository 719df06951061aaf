//! A picture that can be drawn on.

use std::convert::Infallible;

use embedded_graphics::Drawable as _;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor as _};
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};

/// A picture on which `embedded-graphics` draws. What falls outside is left out.
pub struct Canvas(pub RgbImage);

impl Canvas {
    /// A white one.
    pub fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255; 3])))
    }

    /// Writes a line in black, its top left corner at a place, as far as it fits into a width in pixels.
    pub fn label(&mut self, (x, y): (u32, u32), text: &str, width: u32) {
        let room = (width / FONT_6X13.character_size.width) as usize;
        let text: String = text.chars().take(room).collect();
        let style = MonoTextStyle::new(&FONT_6X13, Rgb888::BLACK);
        let Ok(_) =
            Text::with_baseline(&text, Point::new(x as i32, y as i32), style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = embedded_graphics::Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for embedded_graphics::Pixel(point, color) in pixels {
            let place = u32::try_from(point.x).ok().zip(u32::try_from(point.y).ok());
            if let Some(pixel) = place.and_then(|(x, y)| self.0.get_pixel_mut_checked(x, y)) {
                *pixel = Rgb([color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}
