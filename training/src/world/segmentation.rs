//! Segmentation as editing: marking the object that an instruction names.

use fastrand::Rng;
use image::{Rgb, RgbImage};

use crate::world::instruction::choose_reference;
use crate::world::scene::mix;
use crate::world::{Scene, Split};

/// The colours that objects are marked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkColour {
    /// Pure red.
    Red,
    /// Pure green.
    Green,
    /// Pure blue.
    Blue,
    /// Pure yellow.
    Yellow,
}

impl MarkColour {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Red, Self::Green, Self::Blue, Self::Yellow];

    /// Its name in an instruction.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
        }
    }

    fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [255.0, 0.0, 0.0],
            Self::Green => [0.0, 255.0, 0.0],
            Self::Blue => [0.0, 0.0, 255.0],
            Self::Yellow => [255.0, 255.0, 0.0],
        }
    }
}

/// One object to mark.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentationEdit {
    /// The scene.
    pub scene: Scene,
    /// Which object is marked.
    pub slot: usize,
    /// In which colour.
    pub colour: MarkColour,
    /// A sentence that says so.
    pub instruction: String,
}

impl SegmentationEdit {
    /// The scene's picture, its object's own pixels blended half and half with the colour.
    pub fn target(&self) -> RgbImage {
        let mut picture = self.scene.render();
        let silhouette = self.scene.silhouette(self.slot);
        for (pixel, inside) in picture.pixels_mut().zip(silhouette.pixels()) {
            if inside.0 == [u8::MAX] {
                let blend = mix(pixel.0.map(f32::from), self.colour.rgb(), 0.5);
                *pixel = Rgb(blend.map(|channel| channel.round() as u8));
            }
        }
        picture
    }
}

const TEMPLATES: [&str; 6] = [
    "Mark the {o} in {c}",
    "Please mark the {o} in {c}",
    "Mark the pixels of the {o} in {c}",
    "Segment the {o} in {c}",
    "Highlight the {o} in {c}",
    "Please highlight the {o} in {c}",
];

/// Draws an object of the scene to mark; `None` if no expression names the one drawn alone.
pub fn segmentation(rng: &mut Rng, scene: &Scene) -> Option<SegmentationEdit> {
    let slot = rng.choice(0..scene.objects.len())?;
    let reference = choose_reference(rng, scene, slot, None, Split::Train)?;
    let colour = MarkColour::ALL[rng.usize(..MarkColour::ALL.len())];
    let template = TEMPLATES[rng.usize(..TEMPLATES.len())];
    let mut instruction = template.replace("{o}", &reference.text).replace("{c}", colour.name());
    if rng.bool() {
        instruction.push('.');
    }
    Some(SegmentationEdit { scene: scene.clone(), slot, colour, instruction })
}
