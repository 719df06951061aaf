//! Whole edits, replayed with recorded noise down to the last pixel.
//!
//! The recorded latents of source pictures carry the rounding of the reference's own sums (see
//! [`smartedit_tests::reference`]). Edits are therefore replayed twice: with those sums in the VAE encoder, held to
//! the bar; and as they are served, where latents may differ by as much as the reference's do from exact arithmetic.

use std::sync::Arc;

use smartedit_core::engine::Precision;
use smartedit_core::pipeline::{
    EditOptions, EditOutput, EditRequest, ImageTokens, Model, NoiseKind, Progress, Resize,
};
use smartedit_core::stage::StageKind;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{Case, converted, load, load_with_reference_sums, pack};
use smartedit_tests::tolerance::{Identical, Tolerance, view};

smartedit_tests::matrix!(edit:
    smartedit,
    smartedit_as_served,
    smartedit_with_free_image_tokens,
    smartedit_from_its_seed,
    instruct_pix2pix,
    instruct_pix2pix_from_its_seed,
    instruct_pix2pix_as_served,
);

fn replay(case: &Case<'_>) -> EditOptions {
    EditOptions {
        steps: Some(case.steps()),
        initial_latents: Some(case.latents("noise_init")),
        step_noise: Some(case.step_noise()),
        ..EditOptions::default()
    }
}

fn size(json: &serde_json::Value) -> Option<Resize> {
    let side = |index: usize| json[index].as_u64().map(|side| side as u32);
    Some(Resize::Stretch { width: side(0)?, height: side(1)? })
}

fn smartedit_request(case: &Case<'_>) -> EditRequest {
    let options = EditOptions {
        text_guidance: Some(7.5),
        image_guidance: Some(1.5),
        resize: Some(size(&case.json()["res"]).unwrap_or(Resize::Keep)),
        template: case.json()["tmpl"].as_u64().expect("an index") as usize,
        control_tokens: true,
        ..replay(case)
    };
    EditRequest { image: case.image(), instruction: case.text("text").to_owned(), options }
}

/// Drives an edit to its end, comparing latents after every step.
#[track_caller]
fn drive(
    row: &Row,
    case: &Case<'_>,
    model: &Arc<Model>,
    request: EditRequest,
    tolerance: Tolerance,
) -> EditOutput {
    let mut edit = model.edit(request).unwrap_or_else(|e| panic!("{}: {e}", case.name()));
    let mut stages: Vec<StageKind> = Vec::new();
    let mut steps = 0;
    loop {
        match edit.advance().unwrap_or_else(|e| panic!("{}: {e}", case.name())) {
            Progress::StageFinished { stage, .. } => stages.push(stage),
            Progress::Step { done, total } => {
                steps += 1;
                assert_eq!((done, total), (steps, case.steps()));
                let latents = edit.latents().expect("the loop has latents");
                let what = format!("{} {} latents_{}", row.name, case.name(), done - 1);
                let expected = case.tensor(&format!("latents_{}", done - 1));
                tolerance.check(Precision::F32, &what, view(latents), expected.view());
            }
            Progress::Finished(output) => {
                assert_eq!(stages, expected_stages(model));
                assert!(edit.advance().is_err(), "an edit that is over goes no further");
                return output;
            }
            Progress::StageStarted(_) | Progress::Waiting | Progress::Tokens(_) | Progress::Reply(_) => {}
        }
    }
}

/// SmartEdit's text encoder has read the empty text when the model was loaded.
fn expected_stages(model: &Model) -> Vec<StageKind> {
    let smartedit = model.stage(StageKind::LanguageModel).is_some();
    let stages = model.config().stages.keys().copied();
    stages.filter(|stage| !smartedit || *stage != StageKind::TextEncoder).collect()
}

fn smartedit(row: &Row) {
    let model = load_with_reference_sums(row, &converted().smartedit());
    for case in pack().cases() {
        let output = drive(row, &case, &model, smartedit_request(&case), Tolerance::Approximate);
        Identical::Nearly.check(
            &format!("{} {}", row.name, case.name()),
            &output.image,
            case.bytes("image_u8").view(),
        );
        assert_eq!(output.reply.as_deref(), Some(""), "the packs' models reply with image tokens alone");
    }
}

fn smartedit_as_served(row: &Row) {
    let model = load(row, &converted().smartedit());
    for case in pack().cases() {
        let output = drive(row, &case, &model, smartedit_request(&case), Tolerance::Loose);
        Identical::Mostly.check(
            &format!("{} {}", row.name, case.name()),
            &output.image,
            case.bytes("image_u8").view(),
        );
    }
}

fn smartedit_with_free_image_tokens(row: &Row) {
    let model = load_with_reference_sums(row, &converted().smartedit());
    for case in pack().cases() {
        let mut request = smartedit_request(&case);
        request.options.image_tokens = ImageTokens::Free;
        let output = drive(row, &case, &model, request, Tolerance::Approximate);
        Identical::Nearly.check(
            &format!("{} {}", row.name, case.name()),
            &output.image,
            case.bytes("image_u8").view(),
        );
    }
}

/// No recorded noise: the reference's seed, and PyTorch's generator.
fn from_its_seed(case: &Case<'_>, request: EditRequest) -> EditRequest {
    let options = EditOptions {
        seed: case.json()["torch_cpu_seed"].as_u64().expect("a seed"),
        noise: NoiseKind::Torch,
        initial_latents: None,
        step_noise: None,
        ..request.options
    };
    EditRequest { options, ..request }
}

fn smartedit_from_its_seed(row: &Row) {
    let model = load_with_reference_sums(row, &converted().smartedit());
    for case in pack().cases() {
        let request = from_its_seed(&case, smartedit_request(&case));
        let output = drive(row, &case, &model, request, Tolerance::Approximate);
        let what = format!("{} {}", row.name, case.name());
        Identical::Nearly.check(&what, &output.image, case.bytes("image_u8").view());
    }
}

fn instruct_pix2pix_from_its_seed(row: &Row) {
    let model = load_with_reference_sums(row, &converted().instruct_pix2pix());
    for case in pack().instruct_pix2pix_cases() {
        let request = from_its_seed(&case, instruct_pix2pix_request(&case));
        let output = drive(row, &case, &model, request, Tolerance::Approximate);
        let what = format!("{} {}", row.name, case.name());
        Identical::Nearly.check(&what, &output.image, case.bytes("image_u8").view());
    }
}

fn instruct_pix2pix_request(case: &Case<'_>) -> EditRequest {
    let json = case.json();
    let options = EditOptions {
        text_guidance: json["guidance"].as_f64().map(|scale| scale as f32),
        image_guidance: json["image_guidance"].as_f64().map(|scale| scale as f32),
        resize: Some(size(&json["resize"]).unwrap_or(Resize::Keep)),
        negative_prompt: json["negative_prompt"].as_str().map(str::to_owned),
        ..replay(case)
    };
    EditRequest { image: case.image(), instruction: case.text("prompt").to_owned(), options }
}

fn instruct_pix2pix(row: &Row) {
    let model = load_with_reference_sums(row, &converted().instruct_pix2pix());
    for case in pack().instruct_pix2pix_cases() {
        let request = instruct_pix2pix_request(&case);
        let output = drive(row, &case, &model, request, Tolerance::Approximate);
        Identical::Nearly.check(
            &format!("{} {}", row.name, case.name()),
            &output.image,
            case.bytes("image_u8").view(),
        );
        assert_eq!(output.reply, None);
    }
}

fn instruct_pix2pix_as_served(row: &Row) {
    let model = load(row, &converted().instruct_pix2pix());
    for case in pack().instruct_pix2pix_cases() {
        let request = instruct_pix2pix_request(&case);
        let output = drive(row, &case, &model, request, Tolerance::Loose);
        Identical::Mostly.check(
            &format!("{} {}", row.name, case.name()),
            &output.image,
            case.bytes("image_u8").view(),
        );
    }
}
