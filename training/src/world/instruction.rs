//! Instructions in words.

use fastrand::Rng;

use crate::world::{Class, Reference, Scenario, Scene, Split, references};

/// An instruction that names one object of a scene and what shall become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it takes to find the object.
    pub scenario: Scenario,
    /// A sentence, with or without its full stop.
    pub text: String,
    /// Whether training never phrases it so.
    pub unseen_phrasing: bool,
}

/// `{o}` stands for the object, `{n}` for what it becomes, `{c}` for a colour.
struct Templates {
    trained: &'static [&'static str],
    held_out: &'static [&'static str],
}

const REPLACE: Templates = Templates {
    trained: &[
        "Change the {o} to {n}",
        "Change the {o} into {n}",
        "Replace the {o} with {n}",
        "Please replace the {o} with {n}",
        "Please change the {o} to {n}",
        "Turn the {o} into {n}",
        "Please turn the {o} into {n}",
        "I want {n} instead of the {o}",
        "Put {n} in place of the {o}",
        "Make the {o} become {n}",
        "Swap the {o} for {n}",
        "Transform the {o} into {n}",
        "Let the {o} become {n}",
        "The {o} should be {n}",
        "Could you change the {o} to {n}?",
        "Can you replace the {o} with {n}?",
        "Can you swap the {o} for {n}?",
        "Could you put {n} in place of the {o}?",
    ],
    held_out: &[
        "Please swap the {o} with {n}",
        "I want the {o} to become {n}",
        "Please put {n} in place of the {o}",
        "Could you turn the {o} into {n}?",
    ],
};

const REMOVE: Templates = Templates {
    trained: &[
        "Remove the {o}",
        "Please remove the {o}",
        "Delete the {o}",
        "Please delete the {o}",
        "Take the {o} away",
        "Take away the {o}",
        "Erase the {o}",
        "Get rid of the {o}",
        "Make the {o} disappear",
        "Let the {o} disappear",
        "I want the {o} to be removed",
        "Could you remove the {o}?",
        "Can you delete the {o}?",
        "Please erase the {o}",
        "Please get rid of the {o}",
        "Can you take the {o} away?",
    ],
    held_out: &[
        "Please make the {o} disappear",
        "Please take the {o} away",
        "I want you to erase the {o}",
        "Could you get rid of the {o}?",
    ],
};

const RECOLOUR: Templates = Templates {
    trained: &[
        "Make the {o} {c}",
        "Paint the {o} {c}",
        "Please paint the {o} {c}",
        "Turn the {o} {c}",
        "Change the color of the {o} to {c}",
        "I want the {o} to be {c}",
        "Could you make the {o} {c}?",
    ],
    held_out: &[
        "Please make the {o} {c}",
        "I want you to paint the {o} {c}",
        "The color of the {o} should be {c}",
    ],
};

/// An instruction to put `new` in place of the object in a slot, or to remove it.
///
/// Draws among all unambiguous expressions of `scenario`, or first among the scenarios that apply.
/// [`Split::HeldOut`] asks for a phrasing that training never has: another description in
/// [`Scenario::Reasoning`], another sentence around the expression in the others.
/// `None` if no expression of the scenario names the object alone, or `new` is what is there already.
///
/// # Panics
/// If there is no such slot.
pub fn instruct(
    rng: &mut Rng,
    scene: &Scene,
    slot: usize,
    new: Option<Class>,
    scenario: Option<Scenario>,
    phrasing: Split,
) -> Option<Instruction> {
    let old = scene.objects[slot].class;
    if new == Some(old) {
        return None;
    }
    let Reference { scenario, text } = choose_reference(rng, scene, slot, scenario, phrasing)?;
    let sentences = if scenario == Scenario::Reasoning { Split::Train } else { phrasing };
    let text = sentence(rng, old, &text, new, sentences);
    Some(Instruction { scenario, text, unseen_phrasing: phrasing == Split::HeldOut })
}

/// One of the expressions for an object, each scenario being as likely as another.
pub(crate) fn choose_reference(
    rng: &mut Rng,
    scene: &Scene,
    slot: usize,
    scenario: Option<Scenario>,
    split: Split,
) -> Option<Reference> {
    let all = references(scene, slot, split);
    let of = |scenario| all.iter().filter(move |reference| reference.scenario == scenario);
    let scenario = match scenario {
        Some(scenario) => scenario,
        None => {
            rng.choice(Scenario::ALL.into_iter().filter(|&one| of(one).next().is_some()).collect::<Vec<_>>())?
        }
    };
    rng.choice(of(scenario).collect::<Vec<_>>()).cloned()
}

fn sentence(rng: &mut Rng, old: Class, object: &str, new: Option<Class>, split: Split) -> String {
    let recolour = |new: Class| if new.noun() == old.noun() { new.colour() } else { None };
    let (templates, name, colour) = match new {
        None => (REMOVE, String::new(), ""),
        Some(new) => match recolour(new) {
            Some(colour) if rng.bool() => (RECOLOUR, String::new(), colour),
            _ => (REPLACE, new.indefinite(), ""),
        },
    };
    let templates = match split {
        Split::Train => templates.trained,
        Split::HeldOut => templates.held_out,
    };
    let template = templates[rng.usize(..templates.len())];
    let text = template.replace("{o}", object).replace("{n}", &name).replace("{c}", colour);
    if rng.bool() && !text.ends_with('?') { text + "." } else { text }
}
