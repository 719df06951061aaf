//! What the edits of a benchmark may come to: `outcomes/outcomes.json`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use image::RgbImage;
use serde::Deserialize;
use smartedit_core::metrics::differ;
use smartedit_core::picture::DecodeOptions;

use super::benchmark::{Problem, Sample, other_size, picture, text};
use smartedit_core::metrics::Scenario;

/// The file, in the benchmark's directory.
pub(super) const FILE: &str = "outcomes/outcomes.json";

/// The format that is read.
const FORMAT: u32 = 1;

/// Bytes that the file may have.
const MAX_FILE: u64 = 64 << 20;

/// What an edit may come to, as files.
#[derive(Debug, Clone)]
pub(super) struct OutcomeFiles {
    pub(super) unseen_phrasing: bool,
    pub(super) target: PathBuf,
    pub(super) wrong_places: Vec<PathBuf>,
    pub(super) wrong_classes: Vec<PathBuf>,
}

/// What an edit may come to, as pictures.
#[derive(Debug, Clone)]
pub(super) struct OutcomePictures {
    pub(super) target: RgbImage,
    pub(super) wrong_places: Vec<RgbImage>,
    pub(super) wrong_classes: Vec<RgbImage>,
}

impl OutcomeFiles {
    pub(super) fn load(&self, reading: &DecodeOptions) -> Result<OutcomePictures, Problem> {
        let all = |paths: &[PathBuf]| -> Result<Vec<RgbImage>, Problem> {
            paths.iter().map(|path| picture(path, reading)).collect()
        };
        Ok(OutcomePictures {
            target: picture(&self.target, reading)?,
            wrong_places: all(&self.wrong_places)?,
            wrong_classes: all(&self.wrong_classes)?,
        })
    }

    /// What is wrong with the files: they cannot be read, have another size than the source, or show the same as the
    /// target, so that no edit could be told from the other.
    pub(super) fn check(&self, source: &RgbImage, reading: &DecodeOptions) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut load = |path: &PathBuf| {
            let loaded = picture(path, reading).and_then(|picture| match picture.dimensions() {
                size if size == source.dimensions() => Ok(picture),
                size => Err(other_size(path, size, source.dimensions())),
            });
            loaded.map_err(|problem| problems.push(problem)).ok()
        };
        let target = load(&self.target);
        let wrong = self.wrong_places.iter().chain(&self.wrong_classes);
        let wrong: Vec<_> = wrong.filter_map(|path| Some((path, load(path)?))).collect();
        if let Some(target) = target {
            if !differ(&target, source) {
                problems.push(Problem::file(&self.target, "the target shows the same as the picture"));
            }
            let same = wrong.iter().filter(|(_, picture)| !differ(&target, picture));
            problems.extend(same.map(|(path, _)| Problem::file(path, "shows the same as the target")));
        }
        problems
    }
}

#[derive(Deserialize)]
struct File {
    format: u32,
    scenarios: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    image: String,
    instruction: String,
    #[serde(default)]
    unseen_phrasing: bool,
    target: PathBuf,
    #[serde(default)]
    wrong_places: Vec<PathBuf>,
    #[serde(default)]
    wrong_classes: Vec<PathBuf>,
}

/// Tells the samples their outcomes, if the benchmark has such.
pub(super) fn attach(
    benchmark: &Path,
    scenarios: &mut BTreeMap<Scenario, Vec<Sample>>,
    problems: &mut Vec<Problem>,
) {
    let path = benchmark.join(FILE);
    if !path.exists() {
        return;
    }
    let file = match read(&path) {
        Ok(file) => file,
        Err(problem) => return problems.push(problem),
    };
    let directory = path.parent().unwrap_or(benchmark);
    for (name, entries) in file.scenarios {
        let scenario = Scenario::named(&name);
        let Some((scenario, samples)) = scenario.and_then(|s| Some((s, scenarios.get_mut(&s)?))) else {
            problems.push(Problem::file(&path, format!("there is no scenario `{name}` in the benchmark")));
            continue;
        };
        if entries.len() != samples.len() {
            let (entries, lines) = (entries.len(), samples.len());
            let message = format!("{scenario}: {entries} entries for {lines} instructions");
            problems.push(Problem::file(&path, message));
            continue;
        }
        for (sample, entry) in samples.iter_mut().zip(entries) {
            match outcomes(directory, sample, entry) {
                Ok(outcomes) => sample.outcomes = Some(outcomes),
                Err(message) => problems.push(Problem::file(&path, format!("{sample}: {message}"))),
            }
        }
    }
}

fn read(path: &Path) -> Result<File, Problem> {
    let file: File =
        serde_json::from_str(&text(path, MAX_FILE)?).map_err(|error| Problem::file(path, error))?;
    match file.format {
        FORMAT => Ok(file),
        format => {
            Err(Problem::file(path, format!("has format {format}; this program reads format {FORMAT}")))
        }
    }
}

/// The files of an entry, which must be that of the sample.
fn outcomes(directory: &Path, sample: &Sample, entry: Entry) -> Result<OutcomeFiles, String> {
    if entry.image != sample.name {
        return Err(format!("the entry is of image `{}`", entry.image));
    }
    if entry.instruction.trim() != sample.instruction {
        return Err(format!(
            "the entry has the instruction {:?}, the benchmark {:?}",
            entry.instruction, sample.instruction
        ));
    }
    let inside = |path: PathBuf| match path.components().all(|part| matches!(part, Component::Normal(_))) {
        true => Ok(directory.join(path)),
        false => Err(format!("{}: is no path within {}", path.display(), directory.display())),
    };
    let all = |paths: Vec<PathBuf>| paths.into_iter().map(inside).collect::<Result<_, _>>();
    Ok(OutcomeFiles {
        unseen_phrasing: entry.unseen_phrasing,
        target: inside(entry.target)?,
        wrong_places: all(entry.wrong_places)?,
        wrong_classes: all(entry.wrong_classes)?,
    })
}
