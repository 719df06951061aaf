//! What an edited picture is worth.

use image::RgbImage;
use smartedit_core::metrics::{Alignment, Background, BackgroundDifference, Mask, Outcomes, alignment};
use smartedit_core::picture::{DecodeOptions, decode};

use super::benchmark::{Benchmark, Sample};
use super::networks::Networks;

/// The scores of an edited picture. What the benchmark or the command has no means for is `None`.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) background: BackgroundDifference,
    pub(super) lpips: Option<f64>,
    pub(super) clip_score: Option<f64>,
    pub(super) alignment: Option<Alignment>,
}

/// What became of a sample in a deployment: the scores of the edit, or why there are none.
pub(super) type Scored = Result<Scores, String>;

/// Scores an edited picture.
///
/// # Errors
///
/// The picture cannot be read, or a network fails.
pub(super) fn score(benchmark: &Benchmark, sample: &Sample, edited: &[u8], networks: &Networks) -> Scored {
    let edited = decode(edited, &DecodeOptions::default()).map_err(|error| error.to_string())?;
    let source = benchmark.source(sample).map_err(|problem| problem.to_string())?;
    let mask = benchmark.mask(sample).map_err(|problem| problem.to_string())?;
    let background = Background::new(&source, &edited, &mask);
    Ok(Scores {
        background: background.difference(),
        lpips: networks.lpips(&background).map_err(|error| error.to_string())?,
        clip_score: networks
            .clip_score(&edited, &mask, &sample.caption)
            .map_err(|error| error.to_string())?,
        alignment: aligned(benchmark, sample, &source, &edited, &mask)?,
    })
}

fn aligned(
    benchmark: &Benchmark,
    sample: &Sample,
    source: &RgbImage,
    edited: &RgbImage,
    mask: &Mask,
) -> Result<Option<Alignment>, String> {
    let Some(files) = &sample.outcomes else { return Ok(None) };
    let pictures = files.load(&benchmark.reading).map_err(|problem| problem.to_string())?;
    let outcomes = Outcomes {
        source,
        target: &pictures.target,
        wrong_places: &pictures.wrong_places,
        wrong_classes: &pictures.wrong_classes,
        mask,
    };
    alignment(edited, &outcomes).map(Some).map_err(|error| error.to_string())
}
