//! All scores, for programs.

use serde_json::{Map, Value, json};

use super::summary::{Evaluation, Judged, Summary};
use smartedit_core::metrics::Scenario;

/// Everything that was measured; absent values are null, infinite ones `"Infinity"`. `absent` says why a score is absent
/// everywhere.
pub(super) fn json(
    benchmark: &str,
    seed: Option<u64>,
    evaluations: &[Evaluation<'_>],
    absent: &[(&'static str, String)],
) -> Value {
    let deployments: Map<String, Value> =
        evaluations.iter().map(|evaluation| (evaluation.name.clone(), deployment(evaluation))).collect();
    let absent: Map<String, Value> =
        absent.iter().map(|(score, reason)| ((*score).to_owned(), reason.clone().into())).collect();
    json!({ "benchmark": benchmark, "seed": seed, "deployments": deployments, "absent": absent })
}

fn deployment(evaluation: &Evaluation<'_>) -> Value {
    let scenarios: Map<String, Value> = Scenario::ALL
        .into_iter()
        .map(|scenario| (scenario.name().to_owned(), summary(&evaluation.scenario(scenario))))
        .collect();
    json!({
        "scenarios": scenarios,
        "understanding": summary(&evaluation.understanding()),
        "reasoning": summary(&evaluation.reasoning()),
        "seen_phrasings": summary(&evaluation.phrasings(false)),
        "unseen_phrasings": summary(&evaluation.phrasings(true)),
        "images": evaluation.edits.iter().map(image).collect::<Vec<_>>(),
    })
}

fn summary(summary: &Summary) -> Value {
    json!({
        "count": summary.count,
        "failed": summary.failed,
        "psnr": number(summary.psnr),
        "ssim": number(summary.ssim),
        "mse": number(summary.mse),
        "lpips": number(summary.lpips),
        "clip_score": number(summary.clip_score),
        "alignment": number(summary.alignment),
        "strict_alignment": number(summary.strict_alignment),
        "edit_psnr": number(summary.edit_psnr),
        "background_psnr": number(summary.background_psnr),
        "ins_align": number(summary.ins_align),
    })
}

fn image(edit: &Judged<'_>) -> Value {
    let scores = edit.scored.as_ref().ok();
    let background = scores.map(|scores| scores.background);
    let alignment = scores.and_then(|scores| scores.alignment.as_ref());
    // An edit that failed is not aligned, where it could be told.
    let aligned = |aligned: Option<bool>| edit.sample.outcomes.as_ref().map(|_| aligned.unwrap_or(false));
    json!({
        "scenario": edit.sample.scenario.name(),
        "image": edit.sample.name,
        "instruction": edit.sample.instruction,
        "unseen_phrasing": edit.sample.unseen_phrasing(),
        "failure": edit.scored.as_ref().err(),
        "psnr": number(background.map(|background| background.psnr)),
        "ssim": number(background.map(|background| background.ssim)),
        "mse": number(background.map(|background| background.mse)),
        "lpips": number(scores.and_then(|scores| scores.lpips)),
        "clip_score": number(scores.and_then(|scores| scores.clip_score)),
        "aligned": aligned(alignment.map(|alignment| alignment.aligned())),
        "strictly_aligned": aligned(alignment.map(|alignment| alignment.strictly_aligned())),
        "misalignments": alignment
            .map(|alignment| alignment.misalignments.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "mistaken_classes": alignment.map(|alignment| &alignment.mistaken_classes),
        "edit_psnr": number(alignment.map(|alignment| alignment.edit_psnr)),
        "background_psnr": number(alignment.and_then(|alignment| alignment.background_psnr)),
        "ins_align": number(edit.followed),
    })
}

fn number(value: Option<f64>) -> Value {
    match value {
        Some(value) if value.is_infinite() => "Infinity".into(),
        value => value.into(),
    }
}
