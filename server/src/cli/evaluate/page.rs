//! Every picture of an evaluation, with its scores, on one page.

use image::RgbImage;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use smartedit_core::picture::{DecodeOptions, decode};

use super::benchmark::{Benchmark, Problem, Sample, picture};
use super::edited::Edit;
use super::inline::data_uri;
use super::score::Scores;
use super::summary::{Evaluation, Judged};
use super::table;
use smartedit_core::metrics::Scenario;

/// Longest side of a picture on the page, in pixels: that at which the benchmark measures.
const MAX_SIDE: u32 = smartedit_core::metrics::SIDE;

const STYLE: &str = include_str!("page.css");

/// The page; `edits` are those of the evaluations.
pub(super) fn page(
    benchmark: &Benchmark,
    evaluations: &[Evaluation<'_>],
    edits: &[Vec<Edit>],
    remarks: &[String],
) -> String {
    let mut rows = table::rows(evaluations).into_iter();
    let heading = rows.next().unwrap_or_default();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Reason-Edit: " (names(evaluations)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Reason-Edit: " (names(evaluations)) }
                table {
                    thead { tr { @for cell in &heading { th { (cell) } } } }
                    tbody { @for row in rows { tr { @for cell in &row { td { (cell) } } } } }
                }
                @if !remarks.is_empty() { ul { @for remark in remarks { li { (remark) } } } }
                @for scenario in Scenario::ALL {
                    @let samples = benchmark.samples.iter().enumerate();
                    @let mut samples = samples.filter(|(_, sample)| sample.scenario == scenario).peekable();
                    @if samples.peek().is_some() {
                        h2 id=(scenario.name()) { (scenario.name()) }
                        @for (index, sample) in samples {
                            (section(benchmark, sample, evaluations, edits, index))
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn names(evaluations: &[Evaluation<'_>]) -> String {
    evaluations.iter().map(|evaluation| evaluation.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A sample: what it shows and asks for, and what each deployment made of it.
fn section(
    benchmark: &Benchmark,
    sample: &Sample,
    evaluations: &[Evaluation<'_>],
    edits: &[Vec<Edit>],
    index: usize,
) -> Markup {
    let read = |path| picture(path, &benchmark.reading);
    html! {
        section {
            h3 { (sample.name) " " q { (sample.instruction) } }
            @if sample.unseen_phrasing() == Some(true) { p { "unseen phrasing" } }
            div.pictures {
                (figure("source", read(&sample.picture)))
                (figure("mask", read(&sample.mask)))
                @if let Some(outcomes) = &sample.outcomes { (figure("target", read(&outcomes.target))) }
                @for (evaluation, edits) in evaluations.iter().zip(edits) {
                    @if let (Some(judged), Some(edit)) = (evaluation.edits.get(index), edits.get(index)) {
                        (edited(&evaluation.name, judged, edit))
                    }
                }
            }
        }
    }
}

fn figure(caption: &str, picture: Result<RgbImage, Problem>) -> Markup {
    html! {
        figure {
            (shown(picture.map_err(|problem| problem.to_string())))
            figcaption { (caption) }
        }
    }
}

fn edited(name: &str, judged: &Judged<'_>, edit: &Edit) -> Markup {
    let picture = edit
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|file| decode(file, &DecodeOptions::default()).map_err(|error| error.to_string()));
    let verdict = match (&judged.scored, &judged.sample.outcomes) {
        (Err(_), _) => "failed",
        (Ok(Scores { alignment: Some(alignment), .. }), _) if alignment.strictly_aligned() => "strict",
        (Ok(Scores { alignment: Some(alignment), .. }), _) if alignment.aligned() => "aligned",
        (Ok(Scores { alignment: Some(_), .. }), _) => "misaligned",
        (Ok(_), _) => "unjudged",
    };
    html! {
        figure class=(verdict) {
            (shown(picture))
            figcaption {
                strong { (name) }
                @match &judged.scored {
                    Err(why) => p { "failed: " (why) },
                    Ok(scores) => ul { @for line in lines(scores, judged.followed) { li { (line) } } },
                }
            }
        }
    }
}

fn shown(picture: Result<RgbImage, String>) -> Markup {
    let uri = picture.and_then(|picture| {
        let uri = data_uri(&picture, MAX_SIDE).map_err(|error| error.to_string())?;
        Ok((uri, picture.dimensions()))
    });
    html! {
        @match uri {
            Ok((uri, (width, height))) => img src=(uri) alt="" title={ (width) "×" (height) } loading="lazy";,
            Err(why) => p.missing { (why) },
        }
    }
}

/// The scores of an edit, in words.
fn lines(scores: &Scores, followed: Option<f64>) -> Vec<String> {
    let background = scores.background;
    let mut lines =
        vec![format!("PSNR {:.2}, SSIM {:.3}, MSE {:.4}", background.psnr, background.ssim, background.mse)];
    let networks = [("LPIPS", scores.lpips), ("CLIP", scores.clip_score)];
    lines.extend(networks.iter().filter_map(|(name, score)| Some(format!("{name} {:.3}", (*score)?))));
    if let Some(alignment) = &scores.alignment {
        lines.push(format!("edit PSNR {:.2}", alignment.edit_psnr));
        lines.extend(alignment.background_psnr.map(|psnr| format!("rest PSNR {psnr:.2}")));
        lines.push(if alignment.aligned() { "aligned".to_owned() } else { "not aligned".to_owned() });
        lines.extend(alignment.misalignments.iter().map(ToString::to_string));
        if !alignment.mistaken_classes.is_empty() {
            let classes: Vec<_> =
                alignment.mistaken_classes.iter().map(|index| (index + 1).to_string()).collect();
            lines.push(format!("not nearer to the target than to wrong class {}", classes.join(", ")));
        }
    }
    lines.extend(followed.map(|followed| format!("followed, say {:.0} % of the judges", 100.0 * followed)));
    lines
}
