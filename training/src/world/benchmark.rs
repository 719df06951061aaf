//! The Reason-Edit benchmark in this world: the official layout, and the outcomes that only a world with
//! exact targets can add.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;
use image::codecs::jpeg::JpegEncoder;
use serde::Serialize;

use smartedit_core::directory::WriteError;

use crate::world::output::{Output, encoding};
use crate::world::{Class, Edit, Scenario, Scene, Split, sample_edit};

/// How much of the benchmark to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Benchmark {
    /// Edits in each of the six scenarios, at most [`Benchmark::MOST`].
    pub per_scenario: u32,
    /// What the random choices follow from.
    pub seed: u64,
    /// Share of the reasoning scenario whose descriptions training never has, in `0..=1`.
    pub unseen_phrasings: f32,
    /// Whether all edits name their object plainly instead, each file of the layout holding such edits.
    pub plain: bool,
}

impl Benchmark {
    /// Names of pictures have four digits.
    pub const MOST: u32 = 9999;
}

const MASK_QUALITY: u8 = 100;

#[derive(Serialize)]
struct Outcomes {
    format: u32,
    scenarios: BTreeMap<&'static str, Vec<Entry>>,
}

/// What `outcomes.json` says of one edit; paths are relative to it.
#[derive(Serialize)]
struct Entry {
    image: String,
    instruction: String,
    unseen_phrasing: bool,
    target: String,
    wrong_places: Vec<String>,
    wrong_classes: Vec<String>,
}

/// Writes a benchmark of held-out scenes to a directory.
///
/// Beside the six official directories, `outcomes/outcomes.json` names for each edit its true outcome and
/// every wrong one: the same edit of each other object, and every other class in the right place.
///
/// # Errors
/// If the directory is there already and not empty, or the file system refuses.
pub fn write_benchmark(path: &Path, benchmark: Benchmark) -> Result<(), WriteError> {
    let directory = Output::create(path)?;
    let mut seeds = Rng::with_seed(benchmark.seed);
    let mut scenarios = BTreeMap::new();
    let layout = Scenario::ALL.into_iter().filter_map(|scenario| {
        let official = scenario.benchmark()?;
        Some((scenario, official.directory(), official.text_file()))
    });
    for (scenario, folder, text) in layout {
        // A generator of its own for each scenario: how many edits one has does not change the others.
        let mut rng = seeds.fork();
        let (mut lines, mut entries) = (String::new(), Vec::new());
        for index in 0..benchmark.per_scenario.min(Benchmark::MOST) {
            let drawn = if benchmark.plain { Scenario::Plain } else { scenario };
            let phrasing = benchmark.phrasing(drawn, index);
            let edit = sample_edit(&mut rng, Some(drawn), Split::HeldOut, phrasing);
            let edit = Edit { scenario, ..edit };
            let image = format!("{:04}", index + 1);
            let caption = edit.new.map_or_else(|| "an empty place".to_owned(), Class::indefinite);
            lines += &format!("{} CLIP: {caption}\n", edit.instruction);
            directory.write_png(&format!("{folder}/{image}.png"), &edit.scene.render())?;
            write_mask(&directory, &format!("{folder}/{image}_mask.jpg"), &edit)?;
            entries.push(write_outcomes(&directory, image, edit)?);
        }
        directory.write(&format!("{folder}/{text}"), lines.as_bytes())?;
        scenarios.insert(scenario.key(), entries);
    }
    directory.write_json("outcomes/outcomes.json", &Outcomes { format: 1, scenarios })?;
    directory.finish()
}

impl Benchmark {
    /// Spreads the unseen phrasings evenly.
    fn phrasing(&self, scenario: Scenario, index: u32) -> Split {
        let unseen = |count: u32| (f64::from(count) * f64::from(self.unseen_phrasings)) as u32;
        if scenario == Scenario::Reasoning && unseen(index + 1) > unseen(index) {
            Split::HeldOut
        } else {
            Split::Train
        }
    }
}

fn write_mask(directory: &Output, path: &str, edit: &Edit) -> Result<(), WriteError> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, MASK_QUALITY)
        .encode_image(&edit.scene.mask(edit.slot))
        .map_err(|error| encoding(path, error))?;
    directory.write(path, &jpeg)
}

fn write_outcomes(directory: &Output, image: String, edit: Edit) -> Result<Entry, WriteError> {
    let folder = format!("{}/{image}", edit.scenario.key());
    let write = |name: String, scene: Scene| {
        let path = format!("{folder}/{name}.png");
        directory.write_png(&format!("outcomes/{path}"), &scene.render())?;
        Ok::<_, WriteError>(path)
    };
    let places = (1..).map(|number| format!("place-{number}")).zip(edit.wrong_places());
    let classes = edit.wrong_classes().into_iter().map(|(class, scene)| {
        let name = class.map_or("none", Class::name).replace(' ', "-");
        (format!("class-{name}"), scene)
    });
    Ok(Entry {
        target: write("target".to_owned(), edit.target())?,
        wrong_places: places.map(|(name, scene)| write(name, scene)).collect::<Result<_, _>>()?,
        wrong_classes: classes.map(|(name, scene)| write(name, scene)).collect::<Result<_, _>>()?,
        image,
        instruction: edit.instruction,
        unseen_phrasing: edit.unseen_phrasing,
    })
}
