//! Edits: a scene, an instruction, and its one right outcome.

use fastrand::Rng;

use crate::world::held_out::{is_held_out_pair, is_held_out_placement};
use crate::world::{Class, Object, Scenario, Scene, Split, instruct, sample_scene};

/// One edit.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The scene before.
    pub scene: Scene,
    /// What it takes to understand the instruction.
    pub scenario: Scenario,
    /// A sentence that names one object and what shall become of it.
    pub instruction: String,
    /// Which object it names.
    pub slot: usize,
    /// What is there.
    pub old: Class,
    /// What shall be there; `None` for nothing.
    pub new: Option<Class>,
    /// Whether training never phrases it so.
    pub unseen_phrasing: bool,
}

impl Edit {
    /// The scene after.
    pub fn target(&self) -> Scene {
        self.scene.with(self.slot, self.new)
    }

    /// The same edit done to each other object, where that changes anything.
    pub fn wrong_places(&self) -> Vec<Scene> {
        let others = self
            .scene
            .objects
            .iter()
            .enumerate()
            .filter(|&(slot, object)| slot != self.slot && self.new != Some(object.class));
        others.map(|(slot, _)| self.scene.with(slot, self.new)).collect()
    }

    /// Every other class, and nothing, in the right place; neither the source nor the target is among them.
    pub fn wrong_classes(&self) -> Vec<(Option<Class>, Scene)> {
        Class::ALL
            .into_iter()
            .map(Some)
            .chain([None])
            .filter(|&class| class != self.new && class != Some(self.old))
            .map(|class| (class, self.scene.with(self.slot, class)))
            .collect()
    }
}

/// Draws an edit; without a scenario each of the seven is as likely as another.
///
/// `split` governs the scene and the pair of classes, `phrasing` the words; see [`instruct`].
pub fn sample_edit(rng: &mut Rng, scenario: Option<Scenario>, split: Split, phrasing: Split) -> Edit {
    loop {
        let wanted = scenario.unwrap_or_else(|| Scenario::ALL[rng.usize(..Scenario::ALL.len())]);
        let (scene, slot) = sample_scene(rng, Some(wanted), split);
        let new = sample_new(rng, &scene.objects[slot], split);
        let Some(instruction) = instruct(rng, &scene, slot, new, Some(wanted), phrasing) else { continue };
        return Edit {
            slot,
            old: scene.objects[slot].class,
            new,
            scenario: instruction.scenario,
            instruction: instruction.text,
            unseen_phrasing: instruction.unseen_phrasing,
            scene,
        };
    }
}

/// Draws what an object may become: nothing in a fifth of all cases, else another class, rather one that
/// is like it; with [`Split::Train`] neither a pair nor a placement that is held out.
pub fn sample_new(rng: &mut Rng, object: &Object, split: Split) -> Option<Class> {
    if rng.u8(..5) == 0 {
        return None;
    }
    let old = object.class;
    let allowed = |&class: &Class| {
        let held_out = is_held_out_pair(old, class) || is_held_out_placement(&Object { class, ..*object });
        class != old && !(split == Split::Train && held_out)
    };
    let draw = |rng: &mut Rng, alike: &dyn Fn(Class) -> bool| {
        let classes = Class::ALL.into_iter().filter(allowed).filter(|&class| alike(class));
        rng.choice(classes.collect::<Vec<_>>())
    };
    let recolour = old.colour().is_some() && rng.u8(..10) < 3;
    let recoloured = if recolour { draw(rng, &|class| class.noun() == old.noun()) } else { None };
    recoloured
        .or_else(|| if rng.bool() { draw(rng, &|class| class.kind() == old.kind()) } else { None })
        .or_else(|| draw(rng, &|_| true))
}

/// What shall be in the object's place, in a few fixed words: "a red apple", or "nothing".
pub fn outcome(new: Option<Class>) -> String {
    new.map_or_else(|| "nothing".to_owned(), Class::indefinite)
}
