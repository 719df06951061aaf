//! People as judges: a page to judge on, and the judgements read back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use maud::{DOCTYPE, PreEscaped, html};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use smartedit_core::picture::{DecodeOptions, decode};

use super::benchmark::{self, Benchmark, Problem, Sample};
use super::edited::Edit;
use super::inline::data_uri;
use crate::cli::CliError;

/// Longest side of a picture on the page, in pixels.
const MAX_SIDE: u32 = 512;

/// The format of judgements.
const FORMAT: u32 = 1;

/// Bytes that a file of judgements may have.
const MAX_FILE: u64 = 16 << 20;

const STYLE: &str = include_str!("human.css");
const SCRIPT: &str = include_str!("human.js");

/// What is judged: an instruction, the picture it is about and what was made of it. It does not tell who made it, and a
/// judgement holds for no other picture.
pub(super) fn item(benchmark: &Benchmark, sample: &Sample, edited: &[u8]) -> Result<String, CliError> {
    let source = benchmark::read_file(&sample.picture, benchmark.reading.limits.max_bytes);
    let source = source.map_err(CliError::failed)?;
    let mut digest = Sha256::new();
    for part in [&source, sample.instruction.as_bytes(), edited] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    Ok(digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// A page on which one edit after the other is judged, without a word on who made it, in an order that the seed decides.
pub(super) fn page(benchmark: &Benchmark, edits: &[Vec<Edit>], seed: u64) -> Result<String, CliError> {
    let mut items = BTreeMap::new();
    for edits in edits {
        for (sample, edit) in benchmark.samples.iter().zip(edits) {
            if let Ok(file) = edit {
                items.insert(item(benchmark, sample, file)?, (sample, file));
            }
        }
    }
    let mut items: Vec<_> = items.into_iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut items);
    let mut digest = Sha256::new();
    let mut sections = Vec::new();
    for (item, (sample, file)) in &items {
        digest.update(item);
        let source = benchmark.source(sample).map_err(CliError::failed)?;
        // What is no picture failed, and is told so elsewhere.
        let Ok(edited) = decode(file, &DecodeOptions::default()) else { continue };
        let [source, edited] = [source, edited].map(|picture| data_uri(&picture, MAX_SIDE));
        sections.push(html! {
            section data-item=(item) hidden {
                p.instruction { (sample.instruction) }
                div.pictures {
                    figure { img src=(source.map_err(CliError::failed)?) alt="before"; figcaption { "before" } }
                    figure { img src=(edited.map_err(CliError::failed)?) alt="after"; figcaption { "after" } }
                }
            }
        });
    }
    let page: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Is the instruction followed?" }
                style { (PreEscaped(STYLE)) }
            }
            body data-page=(page) data-format=(FORMAT) {
                h1 { "Is the instruction followed?" }
                p {
                    "Yes: the object that is meant was changed as the instruction says, and nothing else was. Keys: "
                    kbd { "y" } " yes, " kbd { "n" } " no, " kbd { "←" } " and " kbd { "→" } " go back and forth."
                }
                @for section in &sections { (section) }
                p.answers {
                    button type="button" id="back" { "←" }
                    button type="button" id="yes" { "Yes" }
                    button type="button" id="no" { "No" }
                    button type="button" id="next" { "→" }
                    output id="progress" {}
                }
                p { button type="button" id="export" { "Save the judgements" } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(markup.into_string())
}

/// Judgements of people, by item.
#[derive(Debug, Default)]
pub(super) struct Judgements(BTreeMap<String, Vec<bool>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    judgements: BTreeMap<String, bool>,
}

impl Judgements {
    /// Reads files that the page saved, each of another judge.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, CliError> {
        let mut judgements = Self::default();
        for path in paths {
            for (item, follows) in Self::read_file(path).map_err(CliError::failed)?.judgements {
                judgements.0.entry(item).or_default().push(follows);
            }
        }
        Ok(judgements)
    }

    fn read_file(path: &Path) -> Result<File, Problem> {
        let text = benchmark::text(path, MAX_FILE)?;
        let file: File = serde_json::from_str(&text).map_err(|error| Problem::file(path, error))?;
        match file.format {
            FORMAT => Ok(file),
            format => {
                Err(Problem::file(path, format!("has format {format}; this program reads format {FORMAT}")))
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of the judges that find the instruction of an item followed, if anybody judged it.
    pub(super) fn followed(&self, item: &str) -> Option<f64> {
        let votes = self.0.get(item)?;
        let yes = votes.iter().filter(|follows| **follows).count();
        Some(yes as f64 / votes.len() as f64)
    }

    /// How many of the judged items are none of these.
    pub(super) fn strangers(&self, items: &BTreeSet<String>) -> usize {
        self.0.keys().filter(|item| !items.contains(*item)).count()
    }
}
