//! What can be asked for at an object's place.

use fastrand::Rng;

use crate::world::{
    Class, Instruction, MarkColour, Scenario, Scene, Split, instruct, mark, outcome, sample_edit,
    sample_scene,
};

/// What is asked for at an object's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Another class, or nothing.
    Becomes(Option<Class>),
    /// The same object, marked: segmentation as editing.
    Marked(MarkColour),
}

/// Something asked for, in words.
#[derive(Clone, Debug)]
pub struct Request {
    /// The scene before.
    pub scene: Scene,
    /// The object that is meant.
    pub slot: usize,
    /// What is asked for.
    pub task: Task,
    /// The words.
    pub instruction: String,
}

/// Which requests are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Part of the edits that may take understanding or reasoning; the others name their object plainly.
    pub complex: f64,
    /// Part of all that is segmentation.
    pub segmentation: f64,
}

impl Task {
    /// The outcome in a few fixed words.
    pub fn outcome(self) -> String {
        match self {
            Self::Becomes(new) => outcome(new),
            Self::Marked(colour) => format!("an object marked in {}", colour.name()),
        }
    }

    /// A sentence that asks for it; `None` if no expression names the object alone.
    pub fn instruct(self, rng: &mut Rng, scene: &Scene, slot: usize) -> Option<Instruction> {
        match self {
            Self::Becomes(new) => instruct(rng, scene, slot, new, None, Split::Train),
            Self::Marked(colour) => {
                let text = mark(rng, scene, slot, colour)?;
                Some(Instruction { scenario: Scenario::Plain, text, unseen_phrasing: false })
            }
        }
    }
}

impl Mixture {
    /// Draws a request of the training split; edits are drawn like those of [`sample_edit`].
    pub fn draw(self, rng: &mut Rng) -> Request {
        if rng.f64() < self.segmentation {
            return draw_marking(rng);
        }
        let scenario = if rng.f64() < self.complex { None } else { Some(Scenario::Plain) };
        let edit = sample_edit(rng, scenario, Split::Train, Split::Train);
        let task = Task::Becomes(edit.new);
        Request { scene: edit.scene, slot: edit.slot, task, instruction: edit.instruction }
    }
}

fn draw_marking(rng: &mut Rng) -> Request {
    loop {
        let (scene, slot) = sample_scene(rng, None, Split::Train);
        let task = Task::Marked(MarkColour::ALL[rng.usize(..MarkColour::ALL.len())]);
        if let Some(Instruction { text, .. }) = task.instruct(rng, &scene, slot) {
            return Request { scene, slot, task, instruction: text };
        }
    }
}
