//! A small benchmark in the official layout, with outcomes.

use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::{file, png};

/// A scenario: its name, its directory, its file of instructions and the directory of its edits.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) directory: &'static str,
    pub(super) text: &'static str,
    edited: &'static str,
    pictures: usize,
}

const fn scenario(
    name: &'static str,
    directory: &'static str,
    text: &'static str,
    edited: &'static str,
    pictures: usize,
) -> Scenario {
    Scenario { name, directory, text, edited, pictures }
}

pub(super) const SCENARIOS: [Scenario; 6] = [
    scenario("left-right", "1-Left-Right", "Left_Right_text.txt", "LeftRight_metrics_1", 2),
    scenario("relative-size", "2-Relative-Size", "Size_text.txt", "RelativeSize_metrics_2", 2),
    scenario("mirror", "3-Mirror", "Mirror_text.txt", "Mirror_metrics_3", 2),
    scenario("color", "4-Color", "Color_text.txt", "Color_metrics_4", 2),
    scenario(
        "multiple-objects",
        "5-Multiple-Objects",
        "MultipleObjects_text.txt",
        "MultipleObjects_metrics_5",
        2,
    ),
    scenario("reasoning", "6-Reasoning", "Reason_test.txt", "Reasoning_metrics_1", 4),
];

/// Two red squares on grey, of which the left one is to become blue. The number shifts them.
pub(super) struct Scene(u32);

impl Scene {
    fn squares(&self, left: [u8; 3], right: [u8; 3]) -> RgbImage {
        RgbImage::from_fn(64, 64, |x, y| {
            let (x, y) = (x.wrapping_sub(self.0), y.wrapping_sub(self.0));
            Rgb(match (x, y) {
                (8..24, 20..36) => left,
                (36..52, 20..36) => right,
                _ => [128; 3],
            })
        })
    }

    pub(super) fn source(&self) -> RgbImage {
        self.squares(RED, RED)
    }

    pub(super) fn target(&self) -> RgbImage {
        self.squares(BLUE, RED)
    }

    pub(super) fn wrong_place(&self) -> RgbImage {
        self.squares(RED, BLUE)
    }

    pub(super) fn wrong_class(&self) -> RgbImage {
        self.squares(GREEN, RED)
    }

    /// A little more of a picture than of the target.
    pub(super) fn almost(&self, mut picture: RgbImage) -> RgbImage {
        for (pixel, target) in picture.pixels_mut().zip(self.target().pixels()) {
            for (value, target) in pixel.0.iter_mut().zip(target.0) {
                *value = ((u32::from(*value) * 11 + u32::from(target) * 9) / 20) as u8;
            }
        }
        picture
    }

    fn mask(&self) -> RgbImage {
        let blank = self.squares([255; 3], [0; 3]);
        RgbImage::from_fn(64, 64, |x, y| match blank.get_pixel(x, y) {
            Rgb([255, 255, 255]) => Rgb([255; 3]),
            _ => Rgb([0; 3]),
        })
    }
}

const RED: [u8; 3] = [200, 40, 40];
const BLUE: [u8; 3] = [40, 40, 200];
const GREEN: [u8; 3] = [40, 200, 40];

/// A directory with a benchmark in `bench`.
pub(super) struct Benchmark(TempDir);

impl Benchmark {
    pub(super) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut outcomes = serde_json::Map::new();
        for scenario in &SCENARIOS {
            let entries: Vec<Value> =
                (1..=scenario.pictures).map(|number| place.write_scene(scenario, number)).collect();
            let lines = (1..=scenario.pictures)
                .map(|number| format!("{}  CLIP: a blue square\n", instruction(scenario, number)));
            place.write(&format!("{}/{}", directory(scenario), scenario.text), lines.collect::<String>());
            outcomes.insert(scenario.name.to_owned(), entries.into());
        }
        place.write_outcomes(&json!({ "format": 1, "scenarios": outcomes }));
        place
    }

    /// Writes the files of a scene, and returns what is told of its outcomes.
    fn write_scene(&self, scenario: &Scenario, number: usize) -> Value {
        let scene = Scene(number as u32);
        let directory = directory(scenario);
        self.write(&format!("{directory}/{number:04}.png"), png(&scene.source()));
        let mask = file(&scene.mask(), ImageFormat::Jpeg);
        self.write(&format!("{directory}/{number:04}_mask.jpg"), mask);
        let outcome = |name: &str, picture: RgbImage| {
            let path = format!("{}/{number:04}/{name}.png", scenario.name);
            self.write(&format!("bench/outcomes/{path}"), png(&picture));
            path
        };
        json!({
            "image": format!("{number:04}"),
            "instruction": instruction(scenario, number),
            "unseen_phrasing": number == 4,
            "target": outcome("target", scene.target()),
            "wrong_places": [outcome("place-1", scene.wrong_place())],
            "wrong_classes": [outcome("class-green", scene.wrong_class())],
        })
    }

    pub(super) fn write_outcomes(&self, outcomes: &Value) {
        self.write("bench/outcomes/outcomes.json", outcomes.to_string());
    }

    pub(super) fn outcomes(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("bench/outcomes/outcomes.json")).unwrap()).unwrap()
    }

    /// Writes a picture for each scene, as the official script names them.
    pub(super) fn write_edited(&self, name: &str, picture: impl Fn(&Scene) -> RgbImage) {
        for scenario in &SCENARIOS {
            for number in 1..=scenario.pictures {
                let path = format!("{name}/{}/{number:04}_T7.5_I1.5.png", scenario.edited);
                self.write(&path, png(&picture(&Scene(number as u32))));
            }
        }
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = PathBuf::from(self.path(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }
}

/// The directory of a scenario, a level below the benchmark's.
pub(super) fn directory(scenario: &Scenario) -> String {
    format!("bench/Reason-Edit/{}", scenario.directory)
}

fn instruction(scenario: &Scenario, number: usize) -> String {
    match (scenario.name, number) {
        ("mirror", 1) => "Make the square that is to the left of the other one blue".to_owned(),
        ("left-right", _) => "Make the <left> square blue".to_owned(),
        _ => format!("Make square {number} blue"),
    }
}
