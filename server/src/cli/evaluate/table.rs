//! The table of the paper, as text and as Markdown.

use super::summary::{Evaluation, Summary};
use crate::cli::columns::aligned;
use smartedit_core::metrics::Scenario;

/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// One score of a summary, in words.
type Cell = fn(&Summary) -> String;

/// The columns that say what a row is about.
const LABELS: [&str; 2] = ["deployment", "scenario"];

/// The columns of scores; arrows show which way is better.
const COLUMNS: [(&str, Cell); 11] = [
    ("n", |summary| summary.count.to_string()),
    ("PSNR ↑", |summary| decimals(summary.psnr, 3)),
    ("SSIM ↑", |summary| decimals(summary.ssim, 3)),
    ("MSE ↓", |summary| decimals(summary.mse, 4)),
    ("LPIPS ↓", |summary| decimals(summary.lpips, 3)),
    ("CLIP ↑", |summary| decimals(summary.clip_score, 3)),
    ("aligned ↑", |summary| decimals(summary.alignment, 3)),
    ("strict ↑", |summary| decimals(summary.strict_alignment, 3)),
    ("edit PSNR ↑", |summary| decimals(summary.edit_psnr, 2)),
    ("rest PSNR ↑", |summary| decimals(summary.background_psnr, 2)),
    ("Ins-align ↑", |summary| decimals(summary.ins_align, 3)),
];

fn decimals(value: Option<f64>, places: usize) -> String {
    value.map_or(NOTHING.to_owned(), |value| match value.is_infinite() {
        true => "equal".to_owned(),
        false => format!("{value:.places$}"),
    })
}

/// The heading and, for each deployment, a row for each scenario of the benchmark and for each group.
pub(super) fn rows(evaluations: &[Evaluation<'_>]) -> Vec<Vec<String>> {
    let heading = LABELS.into_iter().chain(COLUMNS.iter().map(|(name, _)| *name));
    let mut rows = vec![heading.map(str::to_owned).collect()];
    for evaluation in evaluations {
        for (name, summary) in summaries(evaluation) {
            let cells = [evaluation.name.clone(), name.to_owned()];
            rows.push(cells.into_iter().chain(COLUMNS.iter().map(|(_, cell)| cell(&summary))).collect());
        }
    }
    rows
}

/// What a deployment's rows are about, as far as the benchmark has it.
fn summaries(evaluation: &Evaluation<'_>) -> Vec<(&'static str, Summary)> {
    let scenarios = Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Reasoning);
    let mut summaries: Vec<_> =
        scenarios.map(|scenario| (scenario.name(), evaluation.scenario(scenario))).collect();
    summaries.push(("understanding", evaluation.understanding()));
    summaries.push(("reasoning", evaluation.reasoning()));
    let phrasings = [("· seen phrasings", false), ("· unseen phrasings", true)]
        .map(|(name, unseen)| (name, evaluation.phrasings(unseen)));
    // They say something only where there are both.
    if phrasings.iter().all(|(_, summary)| summary.count > 0) {
        summaries.extend(phrasings);
    }
    summaries.retain(|(_, summary)| summary.count > 0);
    summaries
}

/// The table for a terminal, with remarks below.
pub(super) fn text(evaluations: &[Evaluation<'_>], remarks: &[String]) -> String {
    let mut text = aligned(&rows(evaluations), LABELS.len());
    for remark in remarks {
        text += &format!("{remark}\n");
    }
    text
}

/// The table in Markdown, with remarks below.
pub(super) fn markdown(evaluations: &[Evaluation<'_>], remarks: &[String]) -> String {
    let mut text = String::new();
    for (row, index) in rows(evaluations).iter().zip(0..) {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if index == 0 {
            text += &format!("|{}{}\n", " --- |".repeat(LABELS.len()), " ---: |".repeat(COLUMNS.len()));
        }
    }
    if !remarks.is_empty() {
        text += "\n";
    }
    for remark in remarks {
        text += &format!("- {remark}\n");
    }
    text
}
