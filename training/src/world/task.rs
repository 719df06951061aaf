//! What can be asked for at an object's place.

use fastrand::Rng;

use crate::world::{
    Class, MarkColour, Scenario, Scene, Split, instruct, mark, outcome, sample_edit, sample_scene,
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
    /// Part of the edits whose instructions may take understanding or reasoning; the others name their object plainly.
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

    /// A sentence that asks for it, an edit in the words of `scenario` if there is one; `None` if no such expression
    /// names the object alone.
    pub fn instruct(
        self,
        rng: &mut Rng,
        scene: &Scene,
        slot: usize,
        scenario: Option<Scenario>,
    ) -> Option<String> {
        match self {
            Self::Becomes(new) => {
                instruct(rng, scene, slot, new, scenario, Split::Train).map(|instruction| instruction.text)
            }
            Self::Marked(colour) => mark(rng, scene, slot, colour),
        }
    }
}

impl Mixture {
    /// Draws what an edit's instruction may take: anything, or nothing.
    pub fn scenario(self, rng: &mut Rng) -> Option<Scenario> {
        if rng.f64() < self.complex { None } else { Some(Scenario::Plain) }
    }

    /// Draws a request of the training split; edits are drawn like those of [`sample_edit`].
    pub fn draw(self, rng: &mut Rng) -> Request {
        if rng.f64() < self.segmentation {
            return draw_marking(rng);
        }
        let scenario = self.scenario(rng);
        let edit = sample_edit(rng, scenario, Split::Train, Split::Train);
        let task = Task::Becomes(edit.new);
        Request { scene: edit.scene, slot: edit.slot, task, instruction: edit.instruction }
    }
}

fn draw_marking(rng: &mut Rng) -> Request {
    loop {
        let (scene, slot) = sample_scene(rng, None, Split::Train);
        let task = Task::Marked(MarkColour::ALL[rng.usize(..MarkColour::ALL.len())]);
        if let Some(instruction) = task.instruct(rng, &scene, slot, None) {
            return Request { scene, slot, task, instruction };
        }
    }
}
