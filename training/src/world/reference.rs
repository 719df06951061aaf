//! Expressions that name exactly one object of a scene.

use crate::world::{Class, Object, Scenario, Scene, Split};

/// How far apart two centres are at least, in pixels, for one to be left of the other.
const LEFT_OF: usize = 12;

/// An expression for one object, to be read after "the", and the scenario that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it takes to understand it.
    pub scenario: Scenario,
    /// Such as "left cat".
    pub text: String,
}

/// Every unambiguous expression for the object in a slot; none if it cannot be told from another.
///
/// `split` chooses which descriptions by knowledge of the world there are; the rest does not depend on it.
///
/// # Panics
/// If there is no such slot.
pub fn references(scene: &Scene, slot: usize, split: Split) -> Vec<Reference> {
    let view = View::new(scene, slot);
    if view.object.in_mirror {
        return view.reflection();
    }
    let mut references = view.reflected();
    references.extend(view.unique());
    references.extend(view.coloured());
    for group in view.object.class.groups() {
        if let Some(rivals) = view.rivals(group) {
            references.extend(by_place(view.object, group, &rivals));
            references.extend(by_size(view.object, group, &rivals));
        }
    }
    references.extend(view.known(split));
    references
}

/// A scene as seen from one of its objects.
struct View<'a> {
    scene: &'a Scene,
    object: &'a Object,
    others: Vec<&'a Object>,
}

impl<'a> View<'a> {
    fn new(scene: &'a Scene, slot: usize) -> Self {
        let others = scene.objects.iter().enumerate().filter(|(other, _)| *other != slot);
        Self { scene, object: &scene.objects[slot], others: others.map(|(_, object)| object).collect() }
    }

    fn class(&self) -> Class {
        self.object.class
    }

    /// The other objects that a word names too; `None` if one is a reflection, which makes place and size
    /// unclear.
    fn rivals(&self, group: &str) -> Option<Vec<&'a Object>> {
        let rivals = self.others_in(group);
        rivals.iter().all(|rival| !rival.in_mirror).then_some(rivals)
    }

    fn others_in(&self, group: &str) -> Vec<&'a Object> {
        self.others.iter().copied().filter(|other| other.class.is_a(group)).collect()
    }

    /// The object is a reflection; a mirror holds one.
    fn reflection(&self) -> Vec<Reference> {
        let named = self.class().groups().flat_map(|group| {
            let twin = self.others_in(group).len() == 1;
            let reflection = twin.then(|| format!("reflection of the {group}"));
            [Some(format!("{group} in the mirror")), reflection]
        });
        let bare = Some("reflection in the mirror".to_owned());
        of(Scenario::Mirror, named.chain([bare]).flatten())
    }

    /// The object is the only one outside the mirror that a word names, and the reflection is one too.
    fn reflected(&self) -> Vec<Reference> {
        let names = self.class().groups().filter(|group| {
            let others = self.others_in(group);
            others.len() == 1 && others[0].in_mirror
        });
        let texts = names.flat_map(|group| {
            [
                format!("{group} outside the mirror"),
                format!("{group} in front of the mirror"),
                format!("{group} that is not in the mirror"),
                format!("real {group}"),
            ]
        });
        of(Scenario::Mirror, texts)
    }

    /// The object is the only one that a word names.
    fn unique(&self) -> Vec<Reference> {
        let scenario = if self.scene.objects.len() > 2 { Scenario::MultipleObjects } else { Scenario::Plain };
        let mut texts: Vec<String> = self
            .class()
            .groups()
            .filter(|group| self.others_in(group).is_empty())
            .map(str::to_owned)
            .collect();
        if self.class().colour().is_some() && self.others_in(self.class().noun()).is_empty() {
            texts.push(self.class().name().to_owned());
        }
        of(scenario, texts)
    }

    /// The object has rivals of its noun, all of other colours.
    fn coloured(&self) -> Vec<Reference> {
        let (noun, Some(colour)) = (self.class().noun(), self.class().colour()) else {
            return Vec::new();
        };
        let rivals = self.rivals(noun).unwrap_or_default();
        if rivals.is_empty() || rivals.iter().any(|rival| rival.class == self.class()) {
            return Vec::new();
        }
        of(Scenario::Color, [format!("{colour} {noun}"), format!("{noun} that is {colour}")])
    }

    /// The object is the only one of its noun, which a description fits.
    fn known(&self, split: Split) -> Vec<Reference> {
        if !self.others_in(self.class().noun()).is_empty() {
            return Vec::new();
        }
        of(Scenario::Reasoning, self.class().phrases(split).iter().map(|&phrase| phrase.to_owned()))
    }
}

fn by_place(object: &Object, group: &str, rivals: &[&Object]) -> Vec<Reference> {
    let is_left_of = |a: &Object, b: &Object| a.centre_x() + LEFT_OF <= b.centre_x();
    let side = if rivals.is_empty() {
        return Vec::new();
    } else if rivals.iter().all(|rival| is_left_of(object, rival)) {
        "left"
    } else if rivals.iter().all(|rival| is_left_of(rival, object)) {
        "right"
    } else {
        return Vec::new();
    };
    let texts = if rivals.len() == 1 {
        vec![
            format!("{side} {group}"),
            format!("{group} on the {side}"),
            format!("{group} on the {side} side"),
        ]
    } else {
        vec![format!("{side}most {group}")]
    };
    of(Scenario::LeftRight, texts)
}

fn by_size(object: &Object, group: &str, rivals: &[&Object]) -> Vec<Reference> {
    let (pair, many): (&[&str], &[&str]) = if rivals.is_empty() {
        return Vec::new();
    } else if rivals.iter().all(|rival| object.size > rival.size) {
        (&["bigger", "larger", "big", "large"], &["biggest", "largest"])
    } else if rivals.iter().all(|rival| object.size < rival.size) {
        (&["smaller", "small", "little"], &["smallest"])
    } else {
        return Vec::new();
    };
    let words = if rivals.len() == 1 { pair } else { many };
    of(Scenario::RelativeSize, words.iter().map(|word| format!("{word} {group}")))
}

fn of(scenario: Scenario, texts: impl IntoIterator<Item = String>) -> Vec<Reference> {
    texts.into_iter().map(|text| Reference { scenario, text }).collect()
}
