//! Means of scores.

use smartedit_core::metrics::Alignment;

use super::benchmark::Sample;
use super::score::{Scored, Scores};
use smartedit_core::metrics::Scenario;

/// Everything about a deployment's edit of a sample that counts.
#[derive(Debug, Clone)]
pub(super) struct Judged<'a> {
    pub(super) sample: &'a Sample,
    pub(super) scored: Scored,
    /// The part of the judges that find the instruction followed, if anybody judged it.
    pub(super) followed: Option<f64>,
}

/// Means over the edits of a scenario or of a group; `None` where no edit has the score.
///
/// An edit that failed has no scores, but is not aligned.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) failed: usize,
    pub(super) psnr: Option<f64>,
    pub(super) ssim: Option<f64>,
    pub(super) mse: Option<f64>,
    pub(super) lpips: Option<f64>,
    pub(super) clip_score: Option<f64>,
    /// The part of the edits that are aligned.
    pub(super) alignment: Option<f64>,
    pub(super) strict_alignment: Option<f64>,
    pub(super) edit_psnr: Option<f64>,
    pub(super) background_psnr: Option<f64>,
    pub(super) ins_align: Option<f64>,
}

impl Summary {
    /// The means over these edits.
    pub(super) fn of<'a>(edits: impl Iterator<Item = &'a Judged<'a>>) -> Self {
        let edits: Vec<&Judged<'_>> = edits.collect();
        let scores = |score: fn(&Scores) -> Option<f64>| {
            mean(edits.iter().filter_map(|edit| edit.scored.as_ref().ok()).filter_map(score))
        };
        let aligned = |aligned: fn(&Alignment) -> bool| {
            let of = |edit: &&&Judged<'_>| match &edit.scored {
                Ok(scores) => scores.alignment.as_ref().is_some_and(aligned),
                Err(_) => false,
            };
            let known = edits.iter().filter(|edit| edit.sample.outcomes.is_some());
            mean(known.map(|edit| f64::from(u8::from(of(&edit)))))
        };
        Self {
            count: edits.len(),
            failed: edits.iter().filter(|edit| edit.scored.is_err()).count(),
            psnr: scores(|scores| Some(scores.background.psnr)),
            ssim: scores(|scores| Some(scores.background.ssim)),
            mse: scores(|scores| Some(scores.background.mse)),
            lpips: scores(|scores| scores.lpips),
            clip_score: scores(|scores| scores.clip_score),
            alignment: aligned(Alignment::aligned),
            strict_alignment: aligned(Alignment::strictly_aligned),
            edit_psnr: scores(|scores| scores.alignment.as_ref().map(|alignment| alignment.edit_psnr)),
            background_psnr: scores(|scores| scores.alignment.as_ref()?.background_psnr),
            ins_align: mean(edits.iter().filter_map(|edit| edit.followed)),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// A deployment and all its edits.
#[derive(Debug)]
pub(super) struct Evaluation<'a> {
    pub(super) name: String,
    pub(super) edits: Vec<Judged<'a>>,
}

impl Evaluation<'_> {
    /// The means over a scenario.
    pub(super) fn scenario(&self, scenario: Scenario) -> Summary {
        Summary::of(self.edits.iter().filter(|edit| edit.sample.scenario == scenario))
    }

    /// The means over all scenarios in which the object must be understood, every edit counted alike.
    pub(super) fn understanding(&self) -> Summary {
        Summary::of(self.edits.iter().filter(|edit| edit.sample.scenario != Scenario::Reasoning))
    }

    /// The means over the reasoning scenario.
    pub(super) fn reasoning(&self) -> Summary {
        self.scenario(Scenario::Reasoning)
    }

    /// The means over the instructions of the reasoning scenario whose phrasing is, or is not, unseen.
    pub(super) fn phrasings(&self, unseen: bool) -> Summary {
        let of = |edit: &&Judged<'_>| {
            edit.sample.scenario == Scenario::Reasoning && edit.sample.unseen_phrasing() == Some(unseen)
        };
        Summary::of(self.edits.iter().filter(of))
    }

    /// The edits that failed, and why.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&Sample, &str)> {
        self.edits.iter().filter_map(|edit| Some((edit.sample, edit.scored.as_ref().err()?.as_str())))
    }
}
