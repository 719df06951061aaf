//! The first recorded edit, driven to its end.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::picture::{DecodeOptions, decode};
use smartedit_core::pipeline::{EditOptions, EditOutput, EditRequest, Model, Progress, Resize};
use smartedit_tests::golden::{Case, pack};

/// The edit of a case, replayed.
fn request(case: &Case<'_>) -> EditRequest {
    let side = |index: usize| case.json()["res"][index].as_u64().expect("a side") as u32;
    let options = EditOptions {
        steps: Some(case.steps()),
        resize: Some(Resize::Stretch { width: side(0), height: side(1) }),
        control_tokens: true,
        initial_latents: Some(case.latents("noise_init")),
        step_noise: Some(case.step_noise()),
        ..EditOptions::default()
    };
    EditRequest { image: case.image(), instruction: case.text("text").to_owned(), options }
}

/// The picture of an example, made for the instruction "Change the left animal to a fox".
pub(crate) fn example() -> RgbImage {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/left-animal.png");
    decode(&std::fs::read(path).unwrap(), &DecodeOptions::default()).unwrap()
}

/// The edited picture of the first case and the latents that it was decoded from.
pub(crate) fn edit(model: &Arc<Model>) -> (EditOutput, Array4<f32>) {
    run(model, request(&pack().cases()[0]))
}

/// The edited picture and the latents that it was decoded from.
pub(crate) fn run(model: &Arc<Model>, request: EditRequest) -> (EditOutput, Array4<f32>) {
    let mut edit = model.edit(request).unwrap();
    let mut latents = None;
    loop {
        match edit.advance().unwrap() {
            Progress::Step { .. } => latents = edit.latents().cloned(),
            Progress::Finished(output) => return (output, latents.expect("there were steps")),
            _ => {}
        }
    }
}
