//! Questions about scenes, and their answers.

use fastrand::Rng;

use crate::world::caption::{place_words, size_word};
use crate::world::instruction::choose_reference;
use crate::world::{Class, Kind, Scene, Split};

/// A question about place, size, colour, number, use or the mirror, and its answer, both sentences.
pub fn question(rng: &mut Rng, scene: &Scene) -> (String, String) {
    let asked = match rng.u8(..8) {
        0 | 1 => ask_where(rng, scene),
        2 | 3 => ask_what(rng, scene),
        4 => ask_size(rng, scene),
        5 => ask_colour(rng, scene),
        6 => ask_number(rng, scene),
        _ => ask_mirror(rng, scene),
    };
    asked.unwrap_or_else(|| ask_presence(rng, scene))
}

/// A random slot, its class and an expression that names it alone.
fn named(rng: &mut Rng, scene: &Scene) -> Option<(usize, Class, String)> {
    if scene.objects.is_empty() {
        return None;
    }
    let slot = rng.usize(..scene.objects.len());
    let reference = choose_reference(rng, scene, slot, None, Split::Train)?;
    Some((slot, scene.objects[slot].class, reference.text))
}

fn ask_where(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    let (slot, class, text) = named(rng, scene)?;
    let answer = place_words(&scene.objects[slot]);
    Some((format!("Where {} the {text}?", verb(class, &text)), sentence(answer)))
}

fn ask_what(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    let (_, class, text) = named(rng, scene)?;
    Some((format!("What {} the {text}?", verb(class, &text)), sentence(&class.indefinite())))
}

fn ask_size(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    let (slot, class, text) = named(rng, scene)?;
    Some((format!("How big {} the {text}?", verb(class, &text)), sentence(size_word(&scene.objects[slot]))))
}

fn ask_colour(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    let coloured: Vec<(&str, &str)> = scene
        .objects
        .iter()
        .filter(|object| {
            scene.objects.iter().filter(|other| other.class.noun() == object.class.noun()).count() == 1
        })
        .filter_map(|object| Some((object.class.noun(), object.class.colour()?)))
        .collect();
    let (noun, colour) = rng.choice(coloured)?;
    Some((format!("What color is the {noun}?"), sentence(colour)))
}

fn ask_number(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    const NUMBERS: [&str; 5] = ["none", "one", "two", "three", "four"];
    if scene.mirror.is_some() {
        return None;
    }
    let kinds = [(Some(Kind::Animal), "animals"), (Some(Kind::Fruit), "fruits"), (None, "objects")];
    let (kind, word) = kinds[rng.usize(..kinds.len())];
    let count =
        scene.objects.iter().filter(|object| kind.is_none_or(|kind| object.class.kind() == kind)).count();
    Some((format!("How many {word} are there?"), sentence(NUMBERS.get(count)?)))
}

fn ask_mirror(rng: &mut Rng, scene: &Scene) -> Option<(String, String)> {
    if rng.bool() {
        return Some(("Is there a mirror?".to_owned(), yes_or_no(scene.mirror.is_some())));
    }
    scene.mirror?;
    let reflection = scene.objects.iter().find(|object| object.in_mirror);
    let answer = reflection.map_or_else(|| "nothing".to_owned(), |object| object.class.indefinite());
    Some(("What is in the mirror?".to_owned(), sentence(&answer)))
}

fn ask_presence(rng: &mut Rng, scene: &Scene) -> (String, String) {
    let present = rng.choice(&scene.objects).map(|object| object.class);
    let class = present.filter(|_| rng.bool()).unwrap_or_else(|| Class::ALL[rng.usize(..Class::COUNT)]);
    let there = scene.objects.iter().any(|object| object.class == class);
    let verb = verb(class, class.noun());
    (sentence(&format!("{verb} there {}", class.indefinite())).replace('.', "?"), yes_or_no(there))
}

/// The verb that an expression for an object of the class takes.
fn verb(class: Class, expression: &str) -> &'static str {
    if class.is_plural() && expression.contains(class.noun()) && !expression.contains("reflection") {
        "are"
    } else {
        "is"
    }
}

fn yes_or_no(yes: bool) -> String {
    sentence(if yes { "yes" } else { "no" })
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}
