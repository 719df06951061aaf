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
    /// The picture with the object marked.
    pub fn target(&self) -> RgbImage {
        self.scene.marked(self.slot, self.colour)
    }
}

impl Scene {
    /// The scene's picture, the own pixels of the object in a slot blended half and half with a colour.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn marked(&self, slot: usize, colour: MarkColour) -> RgbImage {
        let mut picture = self.render();
        let silhouette = self.silhouette(slot);
        for (pixel, inside) in picture.pixels_mut().zip(silhouette.pixels()) {
            if inside.0 == [u8::MAX] {
                let blend = mix(pixel.0.map(f32::from), colour.rgb(), 0.5);
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
    let colour = MarkColour::ALL[rng.usize(..MarkColour::ALL.len())];
    let instruction = mark(rng, scene, slot, colour)?;
    Some(SegmentationEdit { scene: scene.clone(), slot, colour, instruction })
}

/// An instruction to mark the object in a slot; `None` if no expression names it alone.
pub fn mark(rng: &mut Rng, scene: &Scene, slot: usize, colour: MarkColour) -> Option<String> {
    let reference = choose_reference(rng, scene, slot, None, Split::Train)?;
    let template = TEMPLATES[rng.usize(..TEMPLATES.len())];
    let instruction = template.replace("{o}", &reference.text).replace("{c}", colour.name());
    Some(if rng.bool() { instruction + "." } else { instruction })
}
