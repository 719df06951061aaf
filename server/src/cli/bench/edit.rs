//! A whole edit.

use std::time::Instant;

use image::{Rgb, RgbImage};
use smartedit_core::pipeline::{EditOptions, EditRequest, Progress, Resize};
use smartedit_core::stage::{Backend, StageOptions};

use super::model::{INSTRUCTION, RandomModel};
use super::report::Part;
use super::{Bench, Work};

/// Pixels of a picture along each side of a latent cell.
const CELL: usize = 8;

/// Loads a model and puts a request ready.
pub(super) fn work(
    bench: &Bench,
    model: &RandomModel,
    backend: &dyn Backend,
    options: &StageOptions,
) -> anyhow::Result<Work> {
    let model = model.assemble(backend, options)?;
    let (height, width) = bench.latents;
    let (width, height) = ((width * CELL) as u32, (height * CELL) as u32);
    let (steps, seed) = (usize::from(bench.steps), bench.seed);
    let mut edits = 0_u8;
    Ok(Box::new(move || {
        // A picture seen before might not be looked at again.
        edits = edits.wrapping_add(1);
        let request = EditRequest {
            image: picture(width, height, edits),
            instruction: INSTRUCTION.to_owned(),
            options: EditOptions {
                seed,
                steps: Some(steps),
                resize: Some(Resize::Stretch { width, height }),
                ..EditOptions::default()
            },
        };
        let mut edit = model.edit(request)?;
        let mut parts = Vec::new();
        let mut start = Instant::now();
        loop {
            match edit.advance()? {
                Progress::StageFinished { stage, .. } => {
                    parts.push(Part::new(stage.name(), start.elapsed()));
                    start = Instant::now();
                }
                Progress::Finished(_) => return Ok(parts),
                _ => {}
            }
        }
    }))
}

/// A picture of gradients that differs from one `mark` to the next.
fn picture(width: u32, height: u32, mark: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(255 * x / width) as u8, (255 * y / height) as u8, mark]))
}
