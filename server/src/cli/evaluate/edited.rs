//! Edited pictures as files, laid out as the official scripts lay them out.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use smartedit_core::picture::{DecodeOptions, decode};

use super::benchmark::{Benchmark, BenchmarkError, Problem, Sample, directories, names_ending, read_file};
use crate::cli::CliError;
use crate::cli::output::{self, file_error};
use smartedit_core::metrics::Scenario;

/// An edited picture's file, or why there is none.
pub(super) type Edit = Result<Bytes, String>;

/// For each deployment, an edit of each of the benchmark's samples.
pub(super) type Edits = Vec<Vec<Edit>>;

/// The edits of all deployments, and the deployments' names.
pub(super) struct Made {
    pub(super) names: Vec<String>,
    pub(super) edits: Edits,
}

/// Reads the edited picture of every sample: in the directory of its scenario (`LeftRight_metrics_1`, …, at any depth)
/// the only PNG file whose name is the sample's, or begins with it and an underscore.
///
/// # Errors
///
/// Every picture that is missing or cannot be read, at once.
pub(super) fn read(directory: &Path, benchmark: &Benchmark) -> Result<Vec<Edit>, BenchmarkError> {
    let mut problems = Vec::new();
    let found = directories(directory, Scenario::edited_directory, &mut problems);
    let mut edits = Vec::new();
    for scenario in Scenario::ALL {
        let samples: Vec<&Sample> =
            benchmark.samples.iter().filter(|sample| sample.scenario == scenario).collect();
        match found.get(&scenario) {
            Some(directory) => edits.extend(read_scenario(directory, &samples, &mut problems)),
            None if samples.is_empty() => {}
            None => {
                let message = format!("there is no directory …{}", scenario.edited_directory());
                problems.push(Problem::file(directory, message));
            }
        }
    }
    match problems.is_empty() {
        true => Ok(edits.into_iter().map(Ok).collect()),
        false => Err(BenchmarkError { directory: directory.to_owned(), problems }),
    }
}

fn read_scenario(directory: &Path, samples: &[&Sample], problems: &mut Vec<Problem>) -> Vec<Bytes> {
    let names = match names_ending(directory, ".png") {
        Ok(names) => names,
        Err(error) => {
            problems.push(Problem::file(directory, error));
            return Vec::new();
        }
    };
    let mut read = |sample: &&Sample| {
        let found = only_of(&names, &sample.name)
            .map_err(|message| Problem::file(directory, message))
            .and_then(|name| read_picture(&directory.join(name)));
        found.map_err(|problem| problems.push(problem)).ok()
    };
    samples.iter().filter_map(&mut read).collect()
}

/// The file of a picture that can be read.
fn read_picture(path: &Path) -> Result<Bytes, Problem> {
    let reading = DecodeOptions::default();
    let file = read_file(path, reading.limits.max_bytes)?;
    decode(&file, &reading).map_err(|error| Problem::file(path, error))?;
    Ok(file.into())
}

/// The name of the only picture of a sample.
fn only_of<'a>(names: &'a [String], sample: &str) -> Result<&'a str, String> {
    let of_sample = |name: &&String| {
        let rest = name.trim_end_matches(".png").strip_prefix(sample);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let found: Vec<&String> = names.iter().filter(of_sample).collect();
    match found[..] {
        [only] => Ok(only),
        [] => Err(format!("there is no {sample}.png and no {sample}_….png")),
        [first, second, ..] => Err(format!("both {first} and {second} may be the edit of {sample}")),
    }
}

/// Where edits are kept, to be read again.
pub(super) struct Keeping<'a> {
    directory: &'a Path,
}

impl<'a> Keeping<'a> {
    /// Makes the directories of all deployments and scenarios.
    pub(super) fn new(
        directory: &'a Path,
        deployments: &[String],
        benchmark: &Benchmark,
    ) -> Result<Self, CliError> {
        let keeping = Self { directory };
        for deployment in deployments {
            for sample in &benchmark.samples {
                let path = keeping.scenario(deployment, sample.scenario);
                std::fs::create_dir_all(&path).map_err(|error| file_error("cannot create", &path, error))?;
            }
        }
        Ok(keeping)
    }

    /// Writes an edit.
    pub(super) fn keep(&self, deployment: &str, sample: &Sample, file: &[u8]) -> Result<(), CliError> {
        output::write(&self.scenario(deployment, sample.scenario).join(format!("{}.png", sample.name)), file)
    }

    fn scenario(&self, deployment: &str, scenario: Scenario) -> PathBuf {
        self.directory.join(deployment).join(scenario.edited_directory())
    }
}
