//! A Reason-Edit directory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use image::RgbImage;
use smartedit_core::metrics::Mask;
use smartedit_core::picture::{DecodeOptions, decode};
use walkdir::WalkDir;

use super::outcomes::{self, OutcomeFiles};
use smartedit_core::metrics::Scenario;

/// Bytes that a file of instructions may have.
const MAX_TEXT: u64 = 1 << 20;

/// Pictures that a scenario may have.
const MAX_IMAGES: usize = 10_000;

/// How deep the directories of scenarios may lie.
const MAX_DEPTH: usize = 16;

/// A benchmark: pictures, masks and instructions of its scenarios, all of them known to be readable.
#[derive(Debug)]
pub(super) struct Benchmark {
    /// Scenario after scenario.
    pub(super) samples: Vec<Sample>,
    pub(super) reading: DecodeOptions,
}

/// One instruction and its picture.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) scenario: Scenario,
    /// The picture's name without its extension.
    pub(super) name: String,
    pub(super) picture: PathBuf,
    pub(super) mask: PathBuf,
    pub(super) instruction: String,
    /// What the edited region should show.
    pub(super) caption: String,
    /// What the edit may come to, if that is known.
    pub(super) outcomes: Option<OutcomeFiles>,
}

impl Sample {
    /// Whether it is known to be phrased as no instruction that a model was trained on.
    pub(super) fn unseen_phrasing(&self) -> Option<bool> {
        self.outcomes.as_ref().map(|outcomes| outcomes.unseen_phrasing)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scenario, self.name)
    }
}

/// A directory is no benchmark that can be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("cannot evaluate {}, {} found:{}", directory.display(), counted(.problems), listed(.problems))]
pub(super) struct BenchmarkError {
    pub(super) directory: PathBuf,
    pub(super) problems: Vec<Problem>,
}

fn counted(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

/// One reason why a directory cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("no directory whose name ends in one of {}", Scenario::ALL.map(Scenario::directory).join(", "))]
    NoScenario,
    #[error("{}: {} is there, too; one directory for each scenario is needed", second.display(), first.display())]
    Twice { first: PathBuf, second: PathBuf },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("{}: {pictures} pictures (*.png), {masks} masks (*_mask.jpg) and {lines} lines of {text} do not match", directory.display())]
    Counts { directory: PathBuf, pictures: usize, masks: usize, lines: usize, text: &'static str },
    #[error("{}, line {line}: {message}", path.display())]
    Line { path: PathBuf, line: usize, message: &'static str },
}

impl Problem {
    pub(super) fn file(path: &Path, message: impl fmt::Display) -> Self {
        Self::File { path: path.to_owned(), message: message.to_string() }
    }
}

impl Benchmark {
    /// Reads a directory and makes sure that everything in it can be used: of each scenario the first pictures, as many
    /// as `limit` says.
    ///
    /// # Errors
    ///
    /// Everything that cannot be used, at once.
    pub(super) fn read(
        directory: &Path,
        reading: DecodeOptions,
        limit: Option<usize>,
    ) -> Result<Self, BenchmarkError> {
        let mut problems = Vec::new();
        let mut scenarios = BTreeMap::new();
        let found = directories(directory, Scenario::directory, &mut problems);
        if found.is_empty() && problems.is_empty() {
            problems.push(Problem::NoScenario);
        }
        for (scenario, path) in found {
            scenarios.insert(scenario, read_scenario(scenario, &path, &mut problems));
        }
        outcomes::attach(directory, &mut scenarios, &mut problems);
        let limit = limit.unwrap_or(usize::MAX);
        let samples = scenarios.into_values().flat_map(|samples| samples.into_iter().take(limit)).collect();
        let benchmark = Self { samples, reading };
        for sample in &benchmark.samples {
            benchmark.check(sample, &mut problems);
        }
        match problems.is_empty() {
            true => Ok(benchmark),
            false => Err(BenchmarkError { directory: directory.to_owned(), problems }),
        }
    }

    /// The picture of a sample.
    pub(super) fn source(&self, sample: &Sample) -> Result<RgbImage, Problem> {
        picture(&sample.picture, &self.reading)
    }

    /// The mask of a sample.
    pub(super) fn mask(&self, sample: &Sample) -> Result<Mask, Problem> {
        picture(&sample.mask, &self.reading).map(|picture| Mask::from_picture(&picture))
    }

    /// Finds what is wrong with a sample's files.
    fn check(&self, sample: &Sample, problems: &mut Vec<Problem>) {
        let source = self.source(sample).map_err(|problem| problems.push(problem)).ok();
        match self.mask(sample) {
            Err(problem) => problems.push(problem),
            Ok(mask) => {
                if mask.edited_box().is_none() {
                    problems.push(Problem::file(
                        &sample.mask,
                        "the mask is black, so that nothing is to be edited",
                    ));
                }
                if let Some(size) =
                    source.as_ref().map(RgbImage::dimensions).filter(|size| *size != mask.dimensions())
                {
                    problems.push(other_size(&sample.mask, mask.dimensions(), size));
                }
            }
        }
        if let (Some(source), Some(outcomes)) = (source, &sample.outcomes) {
            problems.extend(outcomes.check(&source, &self.reading));
        }
    }
}

/// What is wrong with a file whose picture has another size than the source.
pub(super) fn other_size(path: &Path, size: (u32, u32), source_size: (u32, u32)) -> Problem {
    let ((width, height), (source_width, source_height)) = (size, source_size);
    Problem::file(path, format!("is {width}×{height} pixels, the picture {source_width}×{source_height}"))
}

/// The picture in a file.
pub(super) fn picture(path: &Path, reading: &DecodeOptions) -> Result<RgbImage, Problem> {
    let bytes = read_file(path, reading.limits.max_bytes)?;
    decode(&bytes, reading).map_err(|error| Problem::file(path, error))
}

/// The text in a file.
pub(super) fn text(path: &Path, max_bytes: u64) -> Result<String, Problem> {
    let text = String::from_utf8(read_file(path, max_bytes)?);
    text.map_err(|_| Problem::file(path, "is no UTF-8 text"))
}

/// The bytes of a file that may have so many.
pub(super) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Problem> {
    let length = std::fs::metadata(path).map_err(|error| Problem::file(path, error))?.len();
    if length > max_bytes {
        return Err(Problem::file(path, format!("has {length} bytes, at most {max_bytes} are allowed")));
    }
    std::fs::read(path).map_err(|error| Problem::file(path, error))
}

/// The directory of each scenario, at any depth, known by how its name ends.
pub(super) fn directories(
    root: &Path,
    ending: fn(Scenario) -> &'static str,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Scenario, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in WalkDir::new(root).max_depth(MAX_DEPTH).follow_links(true).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) if entry.file_type().is_dir() => entry,
            Ok(_) => continue,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let message = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                problems.push(Problem::File { path, message });
                continue;
            }
        };
        let name = entry.file_name().to_string_lossy();
        let Some(scenario) = Scenario::ALL.into_iter().find(|scenario| name.ends_with(ending(*scenario)))
        else {
            continue;
        };
        let second = entry.path().to_owned();
        match found.get(&scenario) {
            None => drop(found.insert(scenario, second)),
            Some(first) => problems.push(Problem::Twice { first: PathBuf::clone(first), second }),
        }
    }
    found
}

/// The names in a directory that end like this, sorted.
pub(super) fn names_ending(directory: &Path, ending: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(ending)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The samples of a scenario: pictures, masks and lines belong together by their rank.
fn read_scenario(scenario: Scenario, directory: &Path, problems: &mut Vec<Problem>) -> Vec<Sample> {
    let names = |ending| names_ending(directory, ending);
    let (pictures, masks) = match names(".png").and_then(|pictures| Ok((pictures, names("_mask.jpg")?))) {
        Ok(names) => names,
        Err(error) => {
            problems.push(Problem::file(directory, error));
            return Vec::new();
        }
    };
    let file = directory.join(scenario.text_file());
    let lines = match text(&file, MAX_TEXT) {
        Ok(text) => instructions(&file, &text, problems),
        Err(problem) => {
            problems.push(problem);
            return Vec::new();
        }
    };
    if pictures.is_empty() || pictures.len() != masks.len() || pictures.len() != lines.len() {
        problems.push(Problem::Counts {
            directory: directory.to_owned(),
            pictures: pictures.len(),
            masks: masks.len(),
            lines: lines.len(),
            text: scenario.text_file(),
        });
    }
    if pictures.len() > MAX_IMAGES {
        problems.push(Problem::file(directory, format!("holds more than {MAX_IMAGES} pictures")));
        return Vec::new();
    }
    let samples = pictures.iter().zip(&masks).zip(lines);
    samples
        .map(|((picture, mask), (instruction, caption))| Sample {
            scenario,
            name: picture.trim_end_matches(".png").to_owned(),
            picture: directory.join(picture),
            mask: directory.join(mask),
            instruction,
            caption,
            outcomes: None,
        })
        .collect()
}

/// Instruction and caption of each line `INSTRUCTION CLIP: CAPTION`.
fn instructions(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let mut instructions = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let mut problem = |message| {
            problems.push(Problem::Line { path: path.to_owned(), line: number, message });
        };
        let (instruction, caption) = line.split_once("CLIP:").unwrap_or_else(|| {
            problem("there is no `CLIP: ` between an instruction and a caption");
            (line, "")
        });
        if instruction.trim().is_empty() {
            problem("there is no instruction");
        }
        instructions.push((instruction.trim().to_owned(), caption.trim().to_owned()));
    }
    instructions
}
