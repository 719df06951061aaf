//! The paper's own instructions, on scenes that training never has.

use std::path::Path;

use fastrand::Rng;
use serde::Serialize;

use smartedit_core::directory::WriteError;

use crate::world::output::Output;
use crate::world::{Class, Edit, Scenario, Split, references, sample_scene};

/// A sentence and what it names.
struct Sentence {
    file: &'static str,
    scenario: Scenario,
    text: &'static str,
    reference: &'static str,
    old: Option<&'static str>,
    new: Option<&'static str>,
}

const SENTENCES: [Sentence; 7] = [
    Sentence {
        file: "left-animal",
        scenario: Scenario::LeftRight,
        text: "Change the left animal to a fox",
        reference: "left animal",
        old: None,
        new: Some("fox"),
    },
    Sentence {
        file: "bigger-bear",
        scenario: Scenario::RelativeSize,
        text: "Change the bigger bear to a wolf",
        reference: "bigger bear",
        old: Some("bear"),
        new: Some("wolf"),
    },
    Sentence {
        file: "red-apple",
        scenario: Scenario::Color,
        text: "Change the red apple to a peach",
        reference: "red apple",
        old: Some("red apple"),
        new: Some("peach"),
    },
    Sentence {
        file: "dog-in-mirror",
        scenario: Scenario::Mirror,
        text: "Change the dog in the mirror to a tiger",
        reference: "dog in the mirror",
        old: Some("dog"),
        new: Some("tiger"),
    },
    Sentence {
        file: "friend-of-humans",
        scenario: Scenario::Reasoning,
        text: "Please replace the animal that is usually known as friend of humans with a tiger",
        reference: "animal that is usually known as friend of humans",
        old: Some("dog"),
        new: Some("tiger"),
    },
    Sentence {
        file: "tells-time",
        scenario: Scenario::Reasoning,
        text: "Please remove the object that can tell the time",
        reference: "object that can tell the time",
        old: Some("clock"),
        new: None,
    },
    Sentence {
        file: "cuts-cakes",
        scenario: Scenario::Reasoning,
        text: "Please remove the tool that is used to cut cakes",
        reference: "tool that is used to cut cakes",
        old: Some("knife"),
        new: None,
    },
];

/// Edited objects of examples are at least this large, to be seen at a glance.
const EASY_TO_SEE: usize = 24;

/// An example and the name of its file, without an ending.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Such as "left-animal".
    pub name: &'static str,
    /// One of the paper's instructions on a held-out scene.
    pub edit: Edit,
}

/// The seven instructions by which the paper shows what it can do, each on a held-out scene.
pub fn examples(seed: u64) -> Vec<Example> {
    let mut seeds = Rng::with_seed(seed);
    SENTENCES.iter().map(|sentence| sentence.example(seeds.fork())).collect()
}

impl Sentence {
    fn example(&self, mut rng: Rng) -> Example {
        let new = self.new.and_then(Class::named);
        loop {
            let (scene, slot) = sample_scene(&mut rng, Some(self.scenario), Split::HeldOut);
            let object = scene.objects[slot];
            let fits = self.old.is_none_or(|name| name == object.class.name())
                && object.size >= EASY_TO_SEE
                && scene.objects.iter().all(|object| Some(object.class) != new)
                && references(&scene, slot, Split::Train).iter().any(|one| one.text == self.reference);
            if fits {
                let edit = Edit {
                    scenario: self.scenario,
                    instruction: self.text.to_owned(),
                    slot,
                    old: object.class,
                    new,
                    unseen_phrasing: false,
                    scene,
                };
                return Example { name: self.file, edit };
            }
        }
    }
}

/// One entry of `examples.json`.
#[derive(Serialize)]
struct Entry {
    image: String,
    instruction: String,
    scenario: &'static str,
}

/// Writes the pictures of [`examples`] to a directory, and their instructions as `examples.json`.
///
/// # Errors
/// If the directory is there already and not empty, or the file system refuses.
pub fn write_examples(path: &Path, seed: u64) -> Result<(), WriteError> {
    let directory = Output::create(path)?;
    let mut entries = Vec::new();
    for Example { name, edit } in examples(seed) {
        let image = format!("{name}.png");
        directory.write_png(&image, &edit.scene.render())?;
        entries.push(Entry { image, instruction: edit.instruction, scenario: edit.scenario.key() });
    }
    directory.write_json("examples.json", &entries)?;
    directory.finish()
}
