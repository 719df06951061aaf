//! Scenes and their pictures.

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::world::sprite::Sprite;
use crate::world::{Background, CELL, Class, SIZE};

/// How much of its light a reflection keeps.
const REFLECTANCE: f32 = 0.82;

/// Width of a mirror's frame in pixels.
const FRAME: usize = 2;

/// An object; its box is `x..x + size` by `y..y + size` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub class: Class,
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// One of [`OBJECT_SIZES`](crate::world::OBJECT_SIZES).
    pub size: usize,
    /// Whether it is a reflection: drawn flipped and dimmed.
    pub in_mirror: bool,
}

impl Object {
    /// The horizontal centre in pixels.
    pub fn centre_x(&self) -> usize {
        self.x + self.size / 2
    }

    /// The vertical centre in pixels.
    pub fn centre_y(&self) -> usize {
        self.y + self.size / 2
    }
}

/// A square mirror; its reflection fills all but one cell on each side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirror {
    /// Left edge in pixels.
    pub x: usize,
    /// Upper edge in pixels.
    pub y: usize,
    /// Side in pixels.
    pub size: usize,
    /// Colour of the frame, channels in `0..=1`.
    pub frame: [f32; 3],
    /// Colour of the glass at the top and at the bottom.
    pub glass: [[f32; 3]; 2],
}

/// One to four objects on a background; boxes lie inside the picture and do not overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What is behind everything.
    pub background: Background,
    /// A mirror, if there is one.
    pub mirror: Option<Mirror>,
    /// The objects; an instruction names one of them, its slot.
    pub objects: Vec<Object>,
}

impl Scene {
    /// The same scene with another class in a slot, or without that object.
    ///
    /// A reflection and what it reflects are objects of their own: changing one leaves the other.
    ///
    /// # Panics
    /// If there is no such slot.
    #[must_use]
    pub fn with(&self, slot: usize, class: Option<Class>) -> Self {
        let mut scene = self.clone();
        match class {
            Some(class) => scene.objects[slot].class = class,
            None => drop(scene.objects.remove(slot)),
        }
        scene
    }

    /// Its picture, [`SIZE`] pixels square.
    pub fn render(&self) -> RgbImage {
        let mut canvas = Canvas::new(&self.background);
        if let Some(mirror) = &self.mirror {
            canvas.draw_mirror(mirror);
        }
        for object in &self.objects {
            canvas.draw_object(object);
        }
        canvas.into_picture()
    }

    /// White in the box of a slot, black elsewhere.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn mask(&self, slot: usize) -> GrayImage {
        let Object { x, y, size, .. } = self.objects[slot];
        self.mask_where(|column, row| (x..x + size).contains(&column) && (y..y + size).contains(&row))
    }

    /// White on the pixels of the object itself, its opacity above one half, black elsewhere.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn silhouette(&self, slot: usize) -> GrayImage {
        let object = &self.objects[slot];
        self.mask_where(|column, row| pixel_of(object, column, row).is_some_and(|pixel| pixel[3] > 0.5))
    }

    fn mask_where(&self, inside: impl Fn(usize, usize) -> bool) -> GrayImage {
        GrayImage::from_fn(SIZE as u32, SIZE as u32, |x, y| {
            Luma([if inside(x as usize, y as usize) { u8::MAX } else { 0 }])
        })
    }
}

/// An object's colour and opacity at a pixel of the picture, if its box covers that pixel.
fn pixel_of(object: &Object, column: usize, row: usize) -> Option<[f32; 4]> {
    let (x, y) = (column.checked_sub(object.x)?, row.checked_sub(object.y)?);
    if x >= object.size || y >= object.size {
        return None;
    }
    let sprite = Sprite::of(object.class, object.size);
    let x = if object.in_mirror { object.size - 1 - x } else { x };
    Some(sprite.at(x, y))
}

/// A picture while it is drawn, channels in `0..=1`.
struct Canvas {
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    fn new(background: &Background) -> Self {
        let pixels = (0..SIZE * SIZE).map(|index| background.at(index % SIZE, index / SIZE));
        Self { pixels: pixels.collect() }
    }

    fn draw_mirror(&mut self, mirror: &Mirror) {
        let inner = FRAME..mirror.size - FRAME;
        for (y, x) in (0..mirror.size).flat_map(|y| (0..mirror.size).map(move |x| (y, x))) {
            let colour = if inner.contains(&x) && inner.contains(&y) {
                let share = (y - FRAME) as f32 / (inner.len() - 1) as f32;
                mix(mirror.glass[0], mirror.glass[1], share)
            } else {
                mirror.frame
            };
            self.pixels[(mirror.y + y) * SIZE + mirror.x + x] = colour;
        }
    }

    fn draw_object(&mut self, object: &Object) {
        let light = if object.in_mirror { REFLECTANCE } else { 1.0 };
        for row in object.y..object.y + object.size {
            for column in object.x..object.x + object.size {
                let Some(pixel) = pixel_of(object, column, row) else { continue };
                let below = &mut self.pixels[row * SIZE + column];
                let rest = 1.0 - light * pixel[3];
                *below = std::array::from_fn(|channel| below[channel] * rest + light * pixel[channel]);
            }
        }
    }

    fn into_picture(self) -> RgbImage {
        RgbImage::from_fn(SIZE as u32, SIZE as u32, |x, y| {
            let pixel = self.pixels[y as usize * SIZE + x as usize];
            Rgb(pixel.map(|channel| (channel * 255.0).round() as u8))
        })
    }
}

/// The colour `share` of the way from one to another.
pub(crate) fn mix(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

impl Mirror {
    /// Where the reflection's box starts.
    pub fn inside(&self) -> (usize, usize) {
        (self.x + CELL, self.y + CELL)
    }
}
