//! Properties of the world as a whole, over many random scenes.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use fastrand::Rng;
use smartedit_core::directory::WriteError;

use crate::world::held_out::{is_held_out_pair, is_held_out_placement};
use crate::world::*;

const BOTH: [Split; 2] = [Split::Train, Split::HeldOut];

fn edits(seed: u64, count: usize, split: Split) -> impl Iterator<Item = Edit> {
    let mut rng = Rng::with_seed(seed);
    let phrasings = BOTH.into_iter().filter(move |&phrasing| split == Split::HeldOut || phrasing == split);
    let phrasings: Vec<Split> = phrasings.collect();
    (0..count).map(move |index| sample_edit(&mut rng, None, split, phrasings[index % phrasings.len()]))
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_owned)
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let (first, second): (Vec<_>, Vec<_>) =
        (edits(7, 50, Split::HeldOut).collect(), edits(7, 50, Split::HeldOut).collect());
    assert_eq!(first, second);
    assert_eq!(first[0].scene.render(), second[0].scene.render());
    assert_ne!(first, edits(8, 50, Split::HeldOut).collect::<Vec<_>>());
}

#[test]
fn boxes_lie_on_the_lattice_and_apart() {
    for scene in BOTH.into_iter().flat_map(|split| edits(1, 600, split)).map(|edit| edit.scene) {
        assert!((1..=4).contains(&scene.objects.len()), "{scene:?}");
        let mut boxes: Vec<_> = scene.objects.iter().filter(|object| !object.in_mirror).map(boxed).collect();
        boxes.extend(scene.mirror.map(|mirror| (mirror.x, mirror.y, mirror.size)));
        for (index, &(x, y, size)) in boxes.iter().enumerate() {
            assert!(x + size <= SIZE && y + size <= SIZE, "{scene:?}");
            assert!([x, y, size].iter().all(|value| value.is_multiple_of(CELL)), "{scene:?}");
            for &(left, top, side) in &boxes[..index] {
                let apart = x + size <= left || left + side <= x || y + size <= top || top + side <= y;
                assert!(apart, "{scene:?}");
            }
        }
        let reflections: Vec<_> = scene.objects.iter().filter(|object| object.in_mirror).map(boxed).collect();
        let expected = scene.mirror.map(|mirror| (mirror.x + CELL, mirror.y + CELL, mirror.size - 2 * CELL));
        assert_eq!(reflections, expected.into_iter().collect::<Vec<_>>(), "{scene:?}");
    }
}

fn boxed(object: &Object) -> (usize, usize, usize) {
    (object.x, object.y, object.size)
}

#[test]
fn scenarios_are_even_and_mirrors_in_about_a_sixth() {
    let mut counts = BTreeMap::new();
    let mut mirrors = 0;
    for edit in edits(2, 2100, Split::Train) {
        *counts.entry(edit.scenario.key()).or_insert(0) += 1;
        mirrors += usize::from(edit.scene.mirror.is_some());
    }
    assert_eq!(counts.len(), 7);
    assert!(counts.values().all(|count| (220..380).contains(count)), "{counts:?}");
    assert!((250..450).contains(&mirrors), "{mirrors}");
}

#[test]
fn an_edit_changes_nothing_outside_its_box_and_something_within() {
    for edit in edits(3, 300, Split::HeldOut) {
        let (before, after, mask) = (edit.scene.render(), edit.target().render(), edit.scene.mask(edit.slot));
        let mut changed = false;
        for (x, y, inside) in mask.enumerate_pixels() {
            let differs = before.get_pixel(x, y) != after.get_pixel(x, y);
            assert!(!differs || inside.0 == [255], "{edit:?} at {x}, {y}");
            changed |= differs;
        }
        assert!(changed, "{edit:?}");
        assert_eq!(edit.scene.objects[edit.slot].class, edit.old);
        assert_ne!(edit.new, Some(edit.old));
    }
}

#[test]
fn wrong_edits_are_neither_the_source_nor_the_target() {
    for edit in edits(4, 100, Split::HeldOut) {
        let right = [edit.scene.render(), edit.target().render()];
        let wrong_classes = edit.wrong_classes();
        assert_eq!(wrong_classes.len(), Class::COUNT - 1);
        for scene in wrong_classes.into_iter().map(|(_, scene)| scene).chain(edit.wrong_places()) {
            assert!(!right.contains(&scene.render()), "{edit:?}");
        }
    }
}

#[test]
fn training_has_nothing_that_is_held_out() {
    for edit in edits(5, 3000, Split::Train) {
        assert!(!edit.unseen_phrasing);
        assert!(edit.new.is_none_or(|new| !is_held_out_pair(edit.old, new)), "{edit:?}");
        for object in edit.scene.objects.iter().chain(&edit.target().objects) {
            assert!(!is_held_out_placement(object), "{edit:?}");
        }
    }
    let held_out: Vec<Edit> = edits(5, 1000, Split::HeldOut).collect();
    for edit in &held_out {
        assert!(edit.scene.objects.iter().any(is_held_out_placement), "{edit:?}");
    }
    assert!(held_out.iter().any(|edit| edit.new.is_some_and(|new| is_held_out_pair(edit.old, new))));
    assert!(held_out.iter().any(|edit| edit.unseen_phrasing));
}

#[test]
fn unseen_phrasings_are_not_among_the_trained_ones() {
    let named = |edit: &Edit| {
        let all = BOTH.into_iter().flat_map(|split| references(&edit.scene, edit.slot, split));
        let mut texts: Vec<String> =
            all.map(|one| one.text).filter(|text| edit.instruction.contains(text)).collect();
        texts.sort_by_key(String::len);
        texts.pop()
    };
    // What is left of an instruction without its object and its class.
    let frame = |edit: &Edit| {
        let text = edit.instruction.replace(&named(edit).unwrap_or_default(), "").replace('.', "");
        let class = edit.new.map(Class::indefinite).unwrap_or_default();
        let colour = edit.new.and_then(Class::colour).unwrap_or_default();
        text.replace(&format!(" {class}"), "").replace(&format!(" {colour}"), "")
    };
    let key = |edit: &Edit| match edit.scenario {
        Scenario::Reasoning => named(edit).unwrap_or_default(),
        _ => frame(edit),
    };
    let trained: HashSet<String> = edits(6, 8000, Split::Train).map(|edit| key(&edit)).collect();
    let unseen: Vec<Edit> = edits(6, 1000, Split::HeldOut).filter(|edit| edit.unseen_phrasing).collect();
    assert_eq!(unseen.len(), 500);
    for edit in unseen {
        assert!(!trained.contains(&key(&edit)), "{:?}", edit.instruction);
    }
}

#[test]
fn every_noun_has_its_own_phrases() {
    let mut nouns = HashSet::new();
    let mut phrases = HashSet::new();
    for class in Class::ALL {
        assert_eq!(Class::named(class.name()), Some(class));
        assert!((4..=6).contains(&class.phrases(Split::Train).len()), "{}", class.name());
        assert_eq!(class.phrases(Split::HeldOut).len(), 2, "{}", class.name());
        if nouns.insert(class.noun()) {
            for phrase in BOTH.into_iter().flat_map(|split| class.phrases(split)) {
                assert!(phrases.insert(phrase), "{phrase}");
            }
        }
    }
}

#[test]
fn the_corpus_has_every_word() {
    let known: HashSet<String> = corpus().flat_map(|text| words(&text).collect::<Vec<_>>()).collect();
    let mut rng = Rng::with_seed(8);
    let mut missing = HashSet::new();
    let held_out = Class::ALL.into_iter().flat_map(|class| class.phrases(Split::HeldOut));
    let mut texts: Vec<String> = held_out.map(|&phrase| phrase.to_owned()).collect();
    for edit in BOTH.into_iter().flat_map(|split| edits(9, 3000, split)) {
        let (question, answer) = question(&mut rng, &edit.target());
        let marking = segmentation(&mut rng, &edit.scene).map(|marking| marking.instruction);
        texts.extend([edit.instruction.clone(), question, answer, caption(&mut rng, &edit.target())]);
        texts.extend(marking);
    }
    missing.extend(texts.iter().flat_map(|text| words(text)).filter(|word| !known.contains(word)));
    assert!(missing.is_empty(), "{missing:?}");
    assert!(known.len() < 500, "{}", known.len());
}

/// Every object that a reading of an expression, written without regard to how expressions are made, finds.
fn resolve(scene: &Scene, text: &str) -> Vec<usize> {
    let is = |object: &Object, word: &str| {
        let class = object.class;
        let kind = match class.kind() {
            Kind::Animal => "animal",
            Kind::Fruit => "fruit",
            Kind::Tool => "tool",
            Kind::Thing => "",
        };
        [class.noun(), class.name(), kind, "object"].contains(&word)
    };
    let all = |test: &dyn Fn(&Object) -> bool| -> Vec<usize> {
        (0..scene.objects.len()).filter(|&slot| test(&scene.objects[slot])).collect()
    };
    let least = |word: &str, key: &dyn Fn(&Object) -> i32| {
        let lowest = scene.objects.iter().filter(|object| is(object, word)).map(key).min();
        all(&|object| is(object, word) && Some(key(object)) == lowest)
    };
    let knows = |object: &Object| BOTH.into_iter().any(|split| object.class.phrases(split).contains(&text));
    if scene.objects.iter().any(knows) {
        return all(&knows);
    }
    let horizontal = |object: &Object| (2 * object.x + object.size) as i32;
    let size = |object: &Object| object.size as i32;
    let parts: Vec<&str> = text.split(' ').collect();
    match parts[..] {
        ["reflection", "in", "the", "mirror"] => all(&|object| object.in_mirror),
        ["reflection", "of", "the", word] | [word, "in", "the", "mirror"] => {
            all(&|object| object.in_mirror && is(object, word))
        }
        ["real", word]
        | [word, "outside", "the", "mirror"]
        | [word, "in", "front", "of", "the", "mirror"]
        | [word, "that", "is", "not", "in", "the", "mirror"] => {
            all(&|object| !object.in_mirror && is(object, word))
        }
        ["left" | "leftmost", word] | [word, "on", "the", "left"] | [word, "on", "the", "left", "side"] => {
            least(word, &horizontal)
        }
        ["right" | "rightmost", word]
        | [word, "on", "the", "right"]
        | [word, "on", "the", "right", "side"] => least(word, &|object| -horizontal(object)),
        ["big" | "bigger" | "biggest" | "large" | "larger" | "largest", word] => {
            least(word, &|object| -size(object))
        }
        ["small" | "smaller" | "smallest" | "little", word] => least(word, &size),
        [word, "that", "is", colour] | [colour, word] => {
            all(&|object| object.class.noun() == word && object.class.colour() == Some(colour))
        }
        [word] => all(&|object| is(object, word)),
        _ => Vec::new(),
    }
}

#[test]
fn an_expression_names_exactly_one_object() {
    let mut read = BTreeMap::new();
    for edit in BOTH.into_iter().flat_map(|split| edits(10, 1500, split)) {
        for scene in [&edit.scene, &edit.target()] {
            for slot in 0..scene.objects.len() {
                for reference in BOTH.into_iter().flat_map(|split| references(scene, slot, split)) {
                    assert_eq!(resolve(scene, &reference.text), [slot], "{reference:?} in {scene:?}");
                    *read.entry(reference.scenario.key()).or_insert(0) += 1;
                }
            }
        }
        let named = references(&edit.scene, edit.slot, Split::Train)
            .into_iter()
            .chain(references(&edit.scene, edit.slot, Split::HeldOut))
            .any(|one| one.scenario == edit.scenario && edit.instruction.contains(&one.text));
        assert!(named, "{edit:?}");
    }
    assert_eq!(read.len(), 7, "{read:?}");
}

#[test]
fn places_and_sizes_that_are_too_close_are_not_told_apart() {
    let cat = Class::named("cat").expect("there are cats");
    let object = |x, y| Object { class: cat, x, y, size: 16, in_mirror: false };
    let background = Background::sample(&mut Rng::with_seed(0));
    let scene = Scene { background, mirror: None, objects: vec![object(20, 0), object(28, 40)] };
    assert_eq!(references(&scene, 0, Split::Train), []);
}

#[test]
fn a_reflection_is_flipped_and_keeps_when_its_original_changes() {
    let mut rng = Rng::with_seed(11);
    let (scene, _) = sample_scene(&mut rng, Some(Scenario::Mirror), Split::Train);
    let (original, reflection) = (scene.objects[0], scene.objects[1]);
    assert!(reflection.in_mirror && !original.in_mirror);
    let (front, back) = (scene.silhouette(0), scene.silhouette(1));
    for (x, y) in (0..original.size).flat_map(|y| (0..original.size).map(move |x| (x, y))) {
        let at = |object: &Object, x: usize| ((object.x + x) as u32, (object.y + y) as u32);
        let (front_x, front_y) = at(&original, x);
        let (back_x, back_y) = at(&reflection, original.size - 1 - x);
        assert_eq!(front.get_pixel(front_x, front_y), back.get_pixel(back_x, back_y));
    }
    assert_eq!(scene.with(0, None).objects[0], reflection);
}

#[test]
fn marking_changes_the_object_alone() {
    let mut rng = Rng::with_seed(12);
    let (scene, _) = sample_scene(&mut rng, Some(Scenario::Plain), Split::Train);
    let marking = std::iter::repeat_with(|| segmentation(&mut rng, &scene)).flatten().next();
    let marking = marking.expect("some object has a name");
    let (before, after) = (scene.render(), marking.target());
    let silhouette = scene.silhouette(marking.slot);
    let changed = |x, y| before.get_pixel(x, y) != after.get_pixel(x, y);
    assert!(silhouette.enumerate_pixels().all(|(x, y, inside)| inside.0 == [255] || !changed(x, y)));
    assert!(silhouette.enumerate_pixels().any(|(x, y, _)| changed(x, y)));
    assert!(marking.instruction.contains(marking.colour.name()));
}

#[test]
fn the_papers_sentences_are_sentences_of_training() {
    let examples = examples(0);
    assert_eq!(examples.len(), 7);
    for Example { edit, .. } in &examples {
        assert!(edit.new.is_none_or(|new| !is_held_out_pair(edit.old, new)), "{edit:?}");
        let mut rng = Rng::with_seed(13);
        let said = (0..20_000).any(|_| {
            let drawn =
                instruct(&mut rng, &edit.scene, edit.slot, edit.new, Some(edit.scenario), Split::Train);
            drawn.is_some_and(|drawn| drawn.text == edit.instruction)
        });
        assert!(said, "{}", edit.instruction);
    }
}

#[test]
fn a_benchmark_has_the_official_layout() {
    check_layout(false);
}

#[test]
fn a_benchmark_of_plain_edits_has_it_too() {
    check_layout(true);
}

fn check_layout(plain: bool) {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("benchmark");
    let benchmark = Benchmark { per_scenario: 4, seed: 3, unseen_phrasings: 0.5, plain };
    write_benchmark(&path, benchmark).expect("written");
    assert_eq!(fs::read_dir(parent.path()).expect("listed").count(), 1, "nothing temporary is left");

    let outcomes = path.join("outcomes");
    let json = fs::read(outcomes.join("outcomes.json")).expect("outcomes");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["format"], 1);
    let layout = [
        ("left-right", "1-Left-Right", "Left_Right_text.txt"),
        ("relative-size", "2-Relative-Size", "Size_text.txt"),
        ("mirror", "3-Mirror", "Mirror_text.txt"),
        ("color", "4-Color", "Color_text.txt"),
        ("multiple-objects", "5-Multiple-Objects", "MultipleObjects_text.txt"),
        ("reasoning", "6-Reasoning", "Reason_test.txt"),
    ];
    let mut targets = HashSet::new();
    for (key, folder, text) in layout {
        let lines = fs::read_to_string(path.join(folder).join(text)).expect("instructions");
        let entries = json["scenarios"][key].as_array().expect("entries");
        assert_eq!((lines.lines().count(), entries.len()), (4, 4));
        assert_eq!(fs::read_dir(path.join(folder)).expect("listed").count(), 9);
        for (line, entry) in lines.lines().zip(entries) {
            let (instruction, caption) = line.split_once(" CLIP: ").expect("a caption");
            assert_eq!(entry["instruction"], instruction);
            assert!(caption.starts_with('a') || caption == "scissors", "{caption}");
            let image = entry["image"].as_str().expect("a name");
            let size =
                |name: String| image::image_dimensions(path.join(folder).join(name)).expect("a picture");
            assert_eq!(size(format!("{image}.png")), (64, 64));
            assert_eq!(size(format!("{image}_mask.jpg")), (64, 64));
            let wrong = ["wrong_places", "wrong_classes"].map(|key| entry[key].as_array().expect("paths"));
            assert!(wrong[1].len() >= Class::COUNT - 1);
            assert!(targets.insert(entry["target"].as_str()), "another edit has this target: {entry}");
            for file in wrong.into_iter().flatten().chain([&entry["target"]]) {
                assert!(outcomes.join(file.as_str().expect("a path")).is_file(), "{file}");
            }
        }
        let unseen = entries.iter().filter(|entry| entry["unseen_phrasing"] == true).count();
        assert_eq!(unseen, if key == "reasoning" && !plain { 2 } else { 0 });
    }
}

#[test]
fn requests_are_mixed_as_asked() {
    let mut rng = Rng::with_seed(17);
    let mut markings = |mixture: Mixture| {
        let drawn = (0..400).map(|_| mixture.draw(&mut rng));
        drawn.filter(|request| matches!(request.task, Task::Marked(_))).count()
    };
    assert_eq!(markings(Mixture { complex: 1.0, segmentation: 0.0 }), 0);
    assert_eq!(markings(Mixture { complex: 1.0, segmentation: 1.0 }), 400);
    assert!((60..=140).contains(&markings(Mixture { complex: 0.0, segmentation: 0.25 })));

    let plain = Mixture { complex: 0.0, segmentation: 0.0 };
    for _ in 0..200 {
        let Request { scene, slot, instruction, .. } = plain.draw(&mut rng);
        let plainly = references(&scene, slot, Split::Train).into_iter();
        let named = plainly
            .filter(|reference| reference.scenario == Scenario::Plain)
            .any(|reference| instruction.contains(&reference.text));
        assert!(named, "{instruction}");
    }
}

#[test]
fn nothing_is_written_over() {
    let parent = tempfile::tempdir().expect("a directory");
    fs::write(parent.path().join("mine"), "precious").expect("written");
    let refused = write_examples(parent.path(), 0);
    assert!(matches!(refused, Err(WriteError::Exists(_))), "{refused:?}");
    let refused = write_examples(&parent.path().join("mine"), 0);
    assert!(matches!(refused, Err(WriteError::Exists(_))), "{refused:?}");
    assert_eq!(fs::read_to_string(parent.path().join("mine")).expect("read"), "precious");

    fs::create_dir(parent.path().join("empty")).expect("made");
    write_examples(&parent.path().join("empty"), 0).expect("an empty directory is filled");
    assert_eq!(fs::read_dir(parent.path().join("empty")).expect("listed").count(), 8);
}
