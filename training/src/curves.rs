//! Loss curves as pictures.

use std::convert::Infallible;
use std::path::Path;

use anyhow::Result;
use embedded_graphics::Drawable as _;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor as _};
use embedded_graphics::primitives::{Polyline, Primitive as _, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};

use crate::parameters::write_whole;
use crate::trainer;

/// Width and height of one curve's field, in pixels.
const FIELD: (u32, u32) = (460, 150);
/// Pixels around fields, and the height of their labels.
const GAP: u32 = 16;

/// Draws one field for each part of a loss, side by side in two columns, to a PNG.
///
/// # Errors
/// The file cannot be written.
pub fn draw(points: &[trainer::Point], path: &Path) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in points.iter().flat_map(|point| &point.values) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let rows = (names.len() as u32).div_ceil(2).max(1);
    let mut canvas = Canvas(RgbImage::from_pixel(
        2 * (FIELD.0 + GAP) + GAP,
        rows * (FIELD.1 + 2 * GAP) + GAP,
        Rgb([255; 3]),
    ));
    for (name, place) in names.iter().zip(0u32..) {
        let values: Vec<(usize, f64)> = points
            .iter()
            .filter_map(|point| {
                let (_, value) = point.values.iter().find(|(known, _)| known == name)?;
                Some((point.step, *value))
            })
            .collect();
        let origin = (GAP + (place % 2) * (FIELD.0 + GAP), GAP + (place / 2) * (FIELD.1 + 2 * GAP));
        canvas.field(origin, name, &values);
    }
    write_whole(path, |partial| Ok(canvas.0.save_with_format(partial, image::ImageFormat::Png)?))
}

struct Canvas(RgbImage);

impl Canvas {
    fn field(&mut self, (x, y): (u32, u32), name: &str, values: &[(usize, f64)]) {
        let finite = || values.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
        let (low, high) =
            finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (Some(&(last_step, last)), true) = (values.last(), low <= high) else { return };
        let label = format!("{name}: {last:.4} at step {last_step} ({low:.4} to {high:.4})");
        let style = MonoTextStyle::new(&FONT_6X13, Rgb888::BLACK);
        let Ok(_) =
            Text::with_baseline(&label, Point::new(x as i32, y as i32), style, Baseline::Top).draw(self);
        let top = y + GAP;
        let frame = Rectangle::new(Point::new(x as i32, top as i32), Size::new(FIELD.0, FIELD.1));
        let Ok(()) = frame.into_styled(PrimitiveStyle::with_stroke(Rgb888::new(190, 190, 190), 1)).draw(self);
        let range = (high - low).max(f64::MIN_POSITIVE);
        let line: Vec<Point> = values
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|&(step, value)| {
                let across = step as f64 / last_step.max(1) as f64 * f64::from(FIELD.0 - 1);
                let down = (high - value) / range * f64::from(FIELD.1 - 1);
                Point::new(x as i32 + across as i32, top as i32 + down as i32)
            })
            .collect();
        let Ok(()) =
            Polyline::new(&line).into_styled(PrimitiveStyle::with_stroke(Rgb888::BLUE, 1)).draw(self);
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
