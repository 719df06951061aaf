//! What edited pictures are worth.

use std::collections::BTreeSet;

use image::RgbImage;
use smartedit_core::metrics::{Alignment, Background, BackgroundDifference, Mask, Outcomes, alignment};
use smartedit_core::picture::{DecodeOptions, decode};
use tokio_util::sync::CancellationToken;

use super::benchmark::{Benchmark, Sample};
use super::edited::{Edit, Made};
use super::human::{self, Judgements};
use super::networks::Networks;
use super::outcomes;
use super::summary::{Evaluation, Judged};
use crate::cli::CliError;
use crate::cli::progress::Bar;

/// The scores of an edited picture. What the benchmark or the command has no means for is `None`.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) background: BackgroundDifference,
    pub(super) lpips: Option<f64>,
    pub(super) clip_score: Option<f64>,
    pub(super) alignment: Option<Alignment>,
}

/// The scores of an edit, or why there are none.
pub(super) type Scored = Result<Scores, String>;

/// What edits are scored with.
pub(super) struct Scoring<'a> {
    pub(super) benchmark: &'a Benchmark,
    pub(super) networks: Networks,
    pub(super) judgements: Judgements,
}

impl<'a> Scoring<'a> {
    /// Scores every edit, one after the other; `None` if it was stopped.
    pub(super) fn score_all(
        &self,
        made: &Made,
        stopped: &CancellationToken,
    ) -> Result<Option<Vec<Evaluation<'a>>>, CliError> {
        let bar = Bar::new();
        let total = made.edits.iter().map(Vec::len).sum();
        let mut done = 0;
        let mut evaluations = Vec::new();
        for (name, edits) in made.names.iter().zip(&made.edits) {
            let mut judged = Vec::new();
            for (sample, edit) in self.benchmark.samples.iter().zip(edits) {
                if stopped.is_cancelled() {
                    return Ok(None);
                }
                bar.count("scoring", done, total);
                judged.push(self.judge(sample, edit)?);
                done += 1;
            }
            evaluations.push(Evaluation { name: name.clone(), edits: judged });
        }
        Ok(Some(evaluations))
    }

    fn judge(&self, sample: &'a Sample, edit: &Edit) -> Result<Judged<'a>, CliError> {
        let followed = match edit {
            Ok(file) if !self.judgements.is_empty() => {
                self.judgements.followed(&human::item(self.benchmark, sample, file)?)
            }
            _ => None,
        };
        let scored = edit.as_ref().map_err(Clone::clone).and_then(|file| self.score(sample, file));
        Ok(Judged { sample, scored, followed })
    }

    fn score(&self, sample: &Sample, edited: &[u8]) -> Scored {
        let edited = decode(edited, &DecodeOptions::default()).map_err(words)?;
        let source = self.benchmark.source(sample).map_err(words)?;
        let mask = self.benchmark.mask(sample).map_err(words)?;
        let background = Background::new(&source, &edited, &mask);
        Ok(Scores {
            background: background.difference(),
            lpips: self.networks.lpips(&background).map_err(words)?,
            clip_score: self.networks.clip_score(&edited, &mask, &sample.caption).map_err(words)?,
            alignment: self.alignment(sample, &source, &edited, &mask)?,
        })
    }

    fn alignment(
        &self,
        sample: &Sample,
        source: &RgbImage,
        edited: &RgbImage,
        mask: &Mask,
    ) -> Result<Option<Alignment>, String> {
        let Some(files) = &sample.outcomes else { return Ok(None) };
        let pictures = files.load(&self.benchmark.reading).map_err(words)?;
        let outcomes = Outcomes {
            source,
            target: &pictures.target,
            wrong_places: &pictures.wrong_places,
            wrong_classes: &pictures.wrong_classes,
            mask,
        };
        alignment(edited, &outcomes).map(Some).map_err(words)
    }

    /// Scores that are absent everywhere, and why.
    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        let mut absent = self.networks.absent();
        if self.benchmark.samples.iter().all(|sample| sample.outcomes.is_none()) {
            absent.push(("alignment", format!("not measured: the benchmark has no {}", outcomes::FILE)));
        }
        if self.judgements.is_empty() {
            absent.push(("ins_align", "nobody has judged: see --human and --judgements".to_owned()));
        }
        absent
    }

    /// What is told of judgements of other pictures.
    pub(super) fn strangers(&self, made: &Made) -> Result<Option<String>, CliError> {
        if self.judgements.is_empty() {
            return Ok(None);
        }
        let mut items = BTreeSet::new();
        for edits in &made.edits {
            for (sample, edit) in self.benchmark.samples.iter().zip(edits) {
                if let Ok(file) = edit {
                    items.insert(human::item(self.benchmark, sample, file)?);
                }
            }
        }
        Ok(match self.judgements.strangers(&items) {
            0 => None,
            1 => Some("ins_align: 1 judgement is about another picture".to_owned()),
            count => Some(format!("ins_align: {count} judgements are about other pictures")),
        })
    }
}

fn words(error: impl ToString) -> String {
    error.to_string()
}
