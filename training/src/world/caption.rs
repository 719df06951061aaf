//! Scenes in words.

use fastrand::Rng;

use crate::world::{Object, SIZE, Scene};

/// A description of a scene, as long as chance will have it:
/// "a big cat on the left and a red apple in the mirror, in front of a blue background".
pub fn caption(rng: &mut Rng, scene: &Scene) -> String {
    let mut parts: Vec<String> = scene.objects.iter().map(|object| describe(rng, object)).collect();
    rng.shuffle(&mut parts);
    if scene.mirror.is_some() && !scene.objects.iter().any(|object| object.in_mirror) {
        parts.push("an empty mirror".to_owned());
    }
    let mut text = match parts.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    };
    if rng.bool() {
        text += &format!(", in front of a {} background", scene.background.name());
    }
    text
}

fn describe(rng: &mut Rng, object: &Object) -> String {
    let mut text = if rng.bool() {
        let name = object.class.name();
        let size = size_word(object);
        if object.class.is_plural() { format!("{size} {name}") } else { format!("a {size} {name}") }
    } else {
        object.class.indefinite()
    };
    if object.in_mirror {
        text += " in the mirror";
    }
    if rng.f32() < 0.6 {
        text = format!("{text} {}", place_words(object));
    }
    text
}

/// "small", "medium" or "big".
pub(crate) fn size_word(object: &Object) -> &'static str {
    match object.size {
        ..24 => "small",
        24..32 => "medium",
        _ => "big",
    }
}

/// Which ninth of the picture an object is in: "at the top left", "in the middle".
pub(crate) fn place_words(object: &Object) -> &'static str {
    const PLACES: [[&str; 3]; 3] = [
        ["at the top left", "at the top", "at the top right"],
        ["on the left", "in the middle", "on the right"],
        ["at the bottom left", "at the bottom", "at the bottom right"],
    ];
    let third = |centre: usize| (centre * 3 / SIZE).min(2);
    PLACES[third(object.centre_y())][third(object.centre_x())]
}
