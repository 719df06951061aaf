//! The emoji as pixels.

use std::sync::LazyLock;

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgba, Rgba32FImage};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use crate::world::{Class, OBJECT_SIZES};

/// Side of the raster that every emoji is first drawn on; the pictures measure 128.
const RASTER: u32 = 512;

/// Empty pixels on each side, which hold the outline.
const MARGIN: u32 = 1;

const OUTLINE: f32 = 0.10;
const OUTLINE_OPACITY: f32 = 0.45;

/// A square picture whose colours are multiplied by its opacity.
pub(crate) struct Sprite {
    side: usize,
    pixels: Vec<[f32; 4]>,
}

impl Sprite {
    /// The picture of a class at one of [`OBJECT_SIZES`].
    pub(crate) fn of(class: Class, size: usize) -> &'static Self {
        let rank = OBJECT_SIZES.iter().position(|&known| known == size);
        let rank = rank.expect("objects have one of the world's sizes. This is a bug.");
        &SPRITES[class.index()][rank]
    }

    /// Red, green, blue, opacity in row `y` and column `x`.
    pub(crate) fn at(&self, x: usize, y: usize) -> [f32; 4] {
        self.pixels[y * self.side + x]
    }
}

static SPRITES: LazyLock<Vec<[Sprite; OBJECT_SIZES.len()]>> = LazyLock::new(|| {
    let sprites = |class: Class| {
        let raster = crop(&rasterize(class.svg()));
        OBJECT_SIZES.map(|size| outlined(&fitted(&raster, size as u32 - 2 * MARGIN)))
    };
    Class::ALL.into_iter().map(sprites).collect()
});

fn rasterize(svg: &str) -> Rgba32FImage {
    let tree = Tree::from_str(svg, &Options::default()).expect("embedded pictures parse. This is a bug.");
    let mut pixels = Pixmap::new(RASTER, RASTER).expect("the raster is not empty. This is a bug.");
    let scale = RASTER as f32 / tree.size().width().max(tree.size().height());
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    ImageBuffer::from_fn(RASTER, RASTER, |x, y| {
        let offset = 4 * (y * RASTER + x) as usize;
        Rgba(std::array::from_fn(|channel| f32::from(pixels.data()[offset + channel]) / 255.0))
    })
}

/// The smallest part that holds everything visible.
fn crop(raster: &Rgba32FImage) -> Rgba32FImage {
    let visible = || raster.enumerate_pixels().filter(|(_, _, pixel)| pixel[3] > 0.0);
    let left = visible().map(|(x, _, _)| x).min().unwrap_or(0);
    let top = visible().map(|(_, y, _)| y).min().unwrap_or(0);
    let right = visible().map(|(x, _, _)| x + 1).max().unwrap_or(RASTER);
    let bottom = visible().map(|(_, y, _)| y + 1).max().unwrap_or(RASTER);
    imageops::crop_imm(raster, left, top, right - left, bottom - top).to_image()
}

/// Shrunk to a longer side of `inner` pixels and centred in a square with the margin around it.
fn fitted(raster: &Rgba32FImage, inner: u32) -> Rgba32FImage {
    let (width, height) = raster.dimensions();
    let longer = width.max(height);
    let mut square = Rgba32FImage::new(longer, longer);
    imageops::replace(&mut square, raster, i64::from((longer - width) / 2), i64::from((longer - height) / 2));
    let small = imageops::resize(&square, inner, inner, FilterType::Lanczos3);
    let mut padded = Rgba32FImage::new(inner + 2 * MARGIN, inner + 2 * MARGIN);
    imageops::replace(&mut padded, &small, i64::from(MARGIN), i64::from(MARGIN));
    padded
}

/// With a faint dark line around it, which keeps white on white apart.
fn outlined(picture: &Rgba32FImage) -> Sprite {
    let side = picture.width();
    let opacity = |x: u32, y: u32| picture.get_pixel(x, y)[3].clamp(0.0, 1.0);
    let around = |centre: u32| centre.saturating_sub(1)..(centre + 2).min(side);
    let pixel = |x: u32, y: u32| {
        let widest = around(y).flat_map(|row| around(x).map(move |column| (column, row)));
        let reach = widest.map(|(column, row)| opacity(column, row)).fold(0.0, f32::max);
        let own = opacity(x, y);
        let line = OUTLINE_OPACITY * reach * (1.0 - own);
        let [red, green, blue, _] = picture.get_pixel(x, y).0.map(|value| value.clamp(0.0, own));
        [red + line * OUTLINE, green + line * OUTLINE, blue + line * OUTLINE, own + line]
    };
    let pixels = (0..side).flat_map(|y| (0..side).map(move |x| pixel(x, y)));
    Sprite { side: side as usize, pixels: pixels.collect() }
}
