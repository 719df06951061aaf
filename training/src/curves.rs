//! Loss curves as pictures.

use std::path::Path;

use anyhow::Result;
use embedded_graphics::Drawable as _;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor as _};
use embedded_graphics::primitives::{Polyline, Primitive as _, PrimitiveStyle, Rectangle};
use smartedit_core::picture::Canvas;

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
    let (width, height) = (2 * (FIELD.0 + GAP) + GAP, rows * (FIELD.1 + 2 * GAP) + GAP);
    let mut canvas = Canvas::new(width, height);
    for (name, place) in names.iter().zip(0u32..) {
        let values: Vec<(usize, f64)> = points
            .iter()
            .filter_map(|point| {
                let (_, value) = point.values.iter().find(|(known, _)| known == name)?;
                Some((point.step, *value))
            })
            .collect();
        let origin = (GAP + (place % 2) * (FIELD.0 + GAP), GAP + (place / 2) * (FIELD.1 + 2 * GAP));
        field(&mut canvas, origin, name, &values);
    }
    write_whole(path, |partial| Ok(canvas.0.save_with_format(partial, image::ImageFormat::Png)?))
}

/// Draws a frame, the curve in it, and what it is above.
fn field(canvas: &mut Canvas, (x, y): (u32, u32), name: &str, values: &[(usize, f64)]) {
    let finite = || values.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let (low, high) =
        finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let (Some(&(last_step, last)), true) = (values.last(), low <= high) else { return };
    let label = format!("{name}: {last:.4} at step {last_step} ({low:.4} to {high:.4})");
    canvas.label((x, y), &label, FIELD.0);
    let top = y + GAP;
    let frame = Rectangle::new(Point::new(x as i32, top as i32), Size::new(FIELD.0, FIELD.1));
    let Ok(()) = frame.into_styled(PrimitiveStyle::with_stroke(Rgb888::new(190, 190, 190), 1)).draw(canvas);
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
    let Ok(()) = Polyline::new(&line).into_styled(PrimitiveStyle::with_stroke(Rgb888::BLUE, 1)).draw(canvas);
}
