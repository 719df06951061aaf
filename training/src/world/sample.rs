//! Random scenes.

use fastrand::Rng;

use crate::world::held_out::is_held_out_placement;
use crate::world::{
    Background, CELL, Class, Mirror, OBJECT_SIZES, Object, SIZE, Scenario, Scene, Split, references,
};

const SMALL: usize = OBJECT_SIZES[0];
const MEDIUM: usize = OBJECT_SIZES[1];
const LARGE: usize = OBJECT_SIZES[2];

const FRAMES: [[f32; 3]; 4] =
    [[0.62, 0.45, 0.15], [0.35, 0.22, 0.12], [0.86, 0.86, 0.90], [0.18, 0.18, 0.24]];

/// Draws a scene and a slot in it that an expression of the scenario names unambiguously.
///
/// Without a scenario each of the seven is as likely as another.
pub fn sample_scene(rng: &mut Rng, scenario: Option<Scenario>, split: Split) -> (Scene, usize) {
    let scenario = scenario.unwrap_or_else(|| Scenario::ALL[rng.usize(..Scenario::ALL.len())]);
    loop {
        let Some(scene) = draft(rng, scenario) else { continue };
        let held_out = scene.objects.iter().any(is_held_out_placement);
        if held_out != (split == Split::HeldOut) {
            continue;
        }
        let slots = (0..scene.objects.len()).filter(|&slot| is_named(&scene, slot, scenario));
        if let Some(slot) = rng.choice(slots.collect::<Vec<_>>()) {
            return (scene, slot);
        }
    }
}

fn is_named(scene: &Scene, slot: usize, scenario: Scenario) -> bool {
    references(scene, slot, Split::Train).iter().any(|reference| reference.scenario == scenario)
}

/// A scene that suits the scenario more often than not; `None` if the objects found no room.
fn draft(rng: &mut Rng, scenario: Scenario) -> Option<Scene> {
    let any = |rng: &mut Rng| Class::ALL[rng.usize(..Class::COUNT)];
    let classes = match scenario {
        Scenario::Mirror => return draft_mirror(rng),
        Scenario::Plain if rng.u8(..6) == 0 => return draft_mirror(rng),
        Scenario::LeftRight | Scenario::RelativeSize => {
            let mut classes = group(rng);
            if classes.len() == 2 && rng.f32() < 0.35 {
                classes.push(any(rng));
            }
            classes
        }
        Scenario::Color => {
            let mut classes = colours(rng);
            if rng.f32() < 0.25 {
                classes.push(classes[0]);
            }
            while classes.len() < 4 && rng.f32() < 0.25 {
                classes.push(any(rng));
            }
            classes
        }
        Scenario::MultipleObjects => (0..rng.usize(3..=4)).map(|_| any(rng)).collect(),
        Scenario::Reasoning => (0..rng.usize(2..=4)).map(|_| any(rng)).collect(),
        Scenario::Plain => (0..rng.usize(1..=2)).map(|_| any(rng)).collect(),
    };
    let sizes = sizes(rng, classes.len());
    let mut room = Room::default();
    let objects = classes.into_iter().zip(sizes).map(|(class, size)| {
        let (x, y) = room.place(rng, size)?;
        Some(Object { class, x, y, size, in_mirror: false })
    });
    let objects = objects.collect::<Option<Vec<_>>>()?;
    Some(Scene { background: Background::sample(rng), mirror: None, objects })
}

/// Two or three objects among which place or size decides.
fn group(rng: &mut Rng) -> Vec<Class> {
    let first = Class::ALL[rng.usize(..Class::COUNT)];
    let count = if rng.f32() < 0.2 { 3 } else { 2 };
    let alike = |class: &Class| class.kind() == first.kind();
    let akin: Vec<Class> = Class::ALL.into_iter().filter(alike).collect();
    match rng.u8(..10) {
        0..=3 => vec![first; count],
        4..=7 => (0..count).map(|_| akin[rng.usize(..akin.len())]).collect(),
        _ => (0..count).map(|_| Class::ALL[rng.usize(..Class::COUNT)]).collect(),
    }
}

/// Two or three colours of a noun that has several.
fn colours(rng: &mut Rng) -> Vec<Class> {
    let nouns = ["apple", "book", "car"];
    let noun = nouns[rng.usize(..nouns.len())];
    let mut classes: Vec<Class> = Class::ALL.into_iter().filter(|class| class.noun() == noun).collect();
    rng.shuffle(&mut classes);
    classes.truncate(rng.usize(2..=3));
    classes
}

fn sizes(rng: &mut Rng, count: usize) -> Vec<usize> {
    let choices: &[usize] = match count {
        1 | 2 => &[SMALL, MEDIUM, LARGE],
        3 => &[SMALL, SMALL, MEDIUM, MEDIUM, LARGE],
        _ => &[SMALL, SMALL, MEDIUM],
    };
    (0..count).map(|_| choices[rng.usize(..choices.len())]).collect()
}

/// An object, a mirror that reflects it, and perhaps one or two other objects.
fn draft_mirror(rng: &mut Rng) -> Option<Scene> {
    let size = if rng.bool() { SMALL } else { MEDIUM };
    let class = Class::ALL[rng.usize(..Class::COUNT)];
    let mut room = Room::default();
    let side = size + 2 * CELL;
    let (x, y) = room.place(rng, side)?;
    let mirror = Mirror {
        x,
        y,
        size: side,
        frame: FRAMES[rng.usize(..FRAMES.len())],
        glass: [glass(rng, 0.68), glass(rng, 0.58)],
    };
    let (x, y) = mirror.inside();
    let reflection = Object { class, x, y, size, in_mirror: true };
    let (x, y) = room.place(rng, size)?;
    let mut objects = vec![Object { class, x, y, size, in_mirror: false }, reflection];
    while objects.len() < 4 && rng.f32() < 0.35 {
        let (x, y) = room.place(rng, SMALL)?;
        let class = Class::ALL[rng.usize(..Class::COUNT)];
        objects.push(Object { class, x, y, size: SMALL, in_mirror: false });
    }
    Some(Scene { background: Background::sample(rng), mirror: Some(mirror), objects })
}

/// A cool colour of about this lightness.
fn glass(rng: &mut Rng, lightness: f32) -> [f32; 3] {
    [-0.06, 0.04, 0.12].map(|tint| lightness + tint + 0.06 * (rng.f32() - 0.5))
}

/// Which boxes of the picture are taken.
#[derive(Default)]
struct Room {
    taken: Vec<Square>,
}

#[derive(Clone, Copy)]
struct Square {
    x: usize,
    y: usize,
    size: usize,
}

impl Room {
    /// Takes a free square on the lattice; `None` after some tries.
    fn place(&mut self, rng: &mut Rng, size: usize) -> Option<(usize, usize)> {
        let places = (SIZE - size) / CELL + 1;
        (0..20).find_map(|_| {
            let square = Square { x: CELL * rng.usize(..places), y: CELL * rng.usize(..places), size };
            let free = self.taken.iter().all(|taken| !taken.overlaps(square));
            free.then(|| {
                self.taken.push(square);
                (square.x, square.y)
            })
        })
    }
}

impl Square {
    fn overlaps(self, other: Self) -> bool {
        let meet = |a: usize, b: usize| a < b + other.size && b < a + self.size;
        meet(self.x, other.x) && meet(self.y, other.y)
    }
}
