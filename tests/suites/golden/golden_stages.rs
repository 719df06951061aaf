//! Every stage, through its named tensors, on converted weights.

use std::path::Path;

use ndarray::{Array1, ArrayD, Axis, s};
use smartedit_core::engine::Precision;
use smartedit_core::stage::{Session, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{Case, converted, load, open, pack};
use smartedit_tests::tolerance::Tolerance;

smartedit_tests::matrix!(row:
    vision_encoder,
    language_model_prompt,
    language_model_token_by_token,
    language_model_forced_text,
    language_model_cut_back,
    connector,
    text_encoder,
    vae_encoder,
    denoiser,
    denoiser_between_training_steps,
    denoiser_without_image_feature,
    denoiser_row_by_row,
    vae_decoder,
    instruct_pix2pix_text_encoder,
    instruct_pix2pix_denoiser,
);

fn session(row: &Row, kind: StageKind) -> Box<dyn Session> {
    load(row, &converted().smartedit()).stage(kind).expect("SmartEdit has all stages").session()
}

fn instruct_pix2pix_session(row: &Row, kind: StageKind) -> Box<dyn Session> {
    let model = load(row, &converted().instruct_pix2pix());
    model.stage(kind).expect("InstructPix2Pix has the stage").session()
}

#[track_caller]
fn check(row: &Row, case: &Case<'_>, what: &str, found: &ArrayD<f32>, expected: &ArrayD<f32>) {
    let what = format!("{} {} {what}", row.name, case.name());
    Tolerance::Approximate.check(Precision::F32, &what, found.view(), expected.view());
}

#[track_caller]
fn run(session: &mut dyn Session, inputs: &Tensors) -> Tensors {
    session.run(inputs).unwrap_or_else(|e| panic!("{e}"))
}

fn output(outputs: &Tensors, name: &str) -> ArrayD<f32> {
    outputs.f32(name).unwrap_or_else(|e| panic!("{e}")).to_owned()
}

fn ids(ids: &[u32]) -> ndarray::Array2<i64> {
    Array1::from_iter(ids.iter().map(|&id| i64::from(id))).insert_axis(Axis(0))
}

fn vision_encoder(row: &Row) {
    let mut session = session(row, StageKind::VisionEncoder);
    for case in pack().cases() {
        let inputs = Tensors::new().with("pixel_values", case.tensor("pixel_values"));
        let outputs = run(session.as_mut(), &inputs);
        check(
            row,
            &case,
            "vision_features",
            &output(&outputs, "image_features"),
            &case.tensor("vision_features"),
        );
    }
}

/// The prompt of a case without the token in whose place the image features come.
fn prompt(case: &Case<'_>) -> Tensors {
    let image = pack().json()["tokenizer"]["added"]["<img_0>"].as_u64().expect("an id") as u32;
    let mut tokens = case.ids("token_ids");
    let position = tokens.iter().position(|&id| id == image).expect("the prompt has an image");
    tokens.remove(position);
    Tensors::new()
        .with("input_ids", ids(&tokens))
        .with("image_features", case.tensor("vision_features"))
        .with("image_position", ndarray::arr1(&[position as i64]))
}

fn language_model_prompt(row: &Row) {
    for case in pack().cases() {
        let mut session = session(row, StageKind::LanguageModel);
        let outputs = run(session.as_mut(), &prompt(&case));
        check(row, &case, "prompt_hidden", &output(&outputs, "hidden_states"), &case.tensor("prompt_hidden"));
        let logits = output(&outputs, "logits");
        let last = logits.slice(s![0, -1, ..]).to_owned().into_dyn();
        check(row, &case, "first_logits", &last, &case.tensor("first_logits"));
    }
}

fn language_model_token_by_token(row: &Row) {
    for case in pack().cases() {
        let Some(expected) = case.optional("step_logits") else { continue };
        let mut session = session(row, StageKind::LanguageModel);
        let mut logits = output(&run(session.as_mut(), &prompt(&case)), "logits");
        let mut states = Vec::new();
        for (step, expected) in expected.axis_iter(Axis(0)).enumerate() {
            let last = logits.slice(s![0, -1, ..]).to_owned().into_dyn();
            check(row, &case, &format!("step_logits[{step}]"), &last, &expected.to_owned());
            let Some(&token) = case.ids("greedy_ids_fed").get(step) else { break };
            let inputs = Tensors::new().with("input_ids", ids(&[token]));
            let outputs = run(session.as_mut(), &inputs);
            states.push(output(&outputs, "hidden_states"));
            logits = output(&outputs, "logits");
        }
        let states: Vec<_> = states.iter().map(|state| state.view()).collect();
        let states = ndarray::concatenate(Axis(1), &states).expect("states of one width");
        check(row, &case, "img_states", &states, &case.tensor("img_states"));
    }
}

fn language_model_forced_text(row: &Row) {
    for case in pack().cases() {
        let mut session = session(row, StageKind::LanguageModel);
        run(session.as_mut(), &prompt(&case));
        let mut forced = case.ids("forced_text_ids");
        forced.pop();
        let inputs = Tensors::new().with("input_ids", ids(&forced));
        let hidden = output(&run(session.as_mut(), &inputs), "hidden_states");
        let from = hidden.shape()[1] - 32;
        let states = hidden.slice(s![.., from.., ..]).to_owned().into_dyn();
        check(row, &case, "forced_text.img_states", &states, &case.tensor("forced_text.img_states"));
    }
}

/// Tokens that are cut from the cache leave no trace.
fn language_model_cut_back(row: &Row) {
    let cases = pack().cases();
    let case = &cases[0];
    let mut session = session(row, StageKind::LanguageModel);
    let fed = output(&run(session.as_mut(), &prompt(case)), "hidden_states").shape()[1];
    run(session.as_mut(), &Tensors::new().with("input_ids", ids(&[5, 6, 7])));
    let tokens = case.ids("greedy_ids_fed");
    let inputs = Tensors::new()
        .with("input_ids", ids(&tokens))
        .with("cache_length", ndarray::arr1(&[fed as i64]))
        .with("logits_from", ndarray::arr1(&[tokens.len() as i64 - 1]));
    let outputs = run(session.as_mut(), &inputs);
    assert_eq!(output(&outputs, "logits").shape()[1], 1);
    check(row, case, "img_states", &output(&outputs, "hidden_states"), &case.tensor("img_states"));
}

fn connector(row: &Row) {
    let mut session = session(row, StageKind::Connector);
    for case in pack().cases() {
        let inputs = Tensors::new()
            .with("image_states", case.tensor("img_states"))
            .with("image_features", case.tensor("vision_features"));
        let outputs = run(session.as_mut(), &inputs);
        check(row, &case, "prompt_embeds", &output(&outputs, "prompt_embeds"), &case.tensor("prompt_embeds"));
    }
}

fn text_encoder(row: &Row) {
    let mut session = session(row, StageKind::TextEncoder);
    let json = pack().json()["null_text_ids"].as_array().expect("a list");
    let tokens: Vec<u32> = json.iter().map(|id| id.as_u64().expect("an id") as u32).collect();
    let outputs = run(session.as_mut(), &Tensors::new().with("input_ids", ids(&tokens)));
    let found = output(&outputs, "hidden_states");
    let what = format!("{} null_text_embeds", row.name);
    let expected = pack().tensor("null_text_embeds");
    Tolerance::Approximate.check(Precision::F32, &what, found.view(), expected.view());
}

/// The recorded latents carry the rounding of the reference's own sums; what is left without it is held to the
/// bar by `vae_encoder_with_the_sums_of_the_reference`.
fn vae_encoder(row: &Row) {
    let mut session = session(row, StageKind::VaeEncoder);
    for case in pack().cases() {
        let inputs = Tensors::new().with("image", case.source_pixels());
        let outputs = run(session.as_mut(), &inputs);
        let (found, expected) = (output(&outputs, "latents"), case.tensor("image_latents"));
        let what = format!("{} {} image_latents", row.name, case.name());
        Tolerance::Loose.check(Precision::F32, &what, found.view(), expected.view());
    }
}

/// The image feature as the connector hands it on.
fn image_feature(row: &Row, case: &Case<'_>) -> ArrayD<f32> {
    let inputs = Tensors::new()
        .with("image_states", case.tensor("img_states"))
        .with("image_features", case.tensor("vision_features"));
    output(&run(session(row, StageKind::Connector).as_mut(), &inputs), "image_feature")
}

fn timesteps(value: f32) -> Array1<f32> {
    Array1::from_elem(3, value)
}

/// What the reference feeds the UNet in each step: timestep, and the scaled latents beside the image latents.
fn steps(case: &Case<'_>, model: &Path) -> Vec<(f32, ArrayD<f32>)> {
    let schedule = case.schedule(open(model).config());
    let mut samples = vec![case.tensor("unet_in_0")];
    for (step, sigma) in schedule.levels().enumerate().take(case.steps()).skip(1) {
        let scaled = case.tensor(&format!("latents_{}", step - 1)) / (sigma * sigma + 1.0).sqrt();
        let scaled = ndarray::concatenate(Axis(0), &[scaled.view(), scaled.view(), scaled.view()]);
        let scaled = scaled.expect("three branches");
        let image = case.tensor("cfg_image_latents");
        samples.push(ndarray::concatenate(Axis(1), &[scaled.view(), image.view()]).expect("channels"));
    }
    schedule.timesteps().zip(samples).collect()
}

fn denoiser(row: &Row) {
    for case in pack().cases() {
        let mut session = session(row, StageKind::Denoiser);
        let conditioning = Tensors::new()
            .with("prompt_embeds", case.tensor("cfg_prompt_embeds"))
            .with("image_feature", image_feature(row, &case));
        run(session.as_mut(), &conditioning);
        for (step, (timestep, sample)) in steps(&case, &converted().smartedit()).into_iter().enumerate() {
            let inputs = Tensors::new().with("sample", sample).with("timestep", timesteps(timestep));
            let found = output(&run(session.as_mut(), &inputs), "noise_prediction");
            let expected = case.tensor(&format!("unet_out_{step}"));
            check(row, &case, &format!("unet_out_{step}"), &found, &expected);
        }
    }
}

fn denoiser_between_training_steps(row: &Row) {
    for case in pack().cases() {
        let Some(expected) = case.optional("unet_out_t500_5") else { continue };
        let inputs = Tensors::new()
            .with("prompt_embeds", case.tensor("cfg_prompt_embeds"))
            .with("image_feature", image_feature(row, &case))
            .with("sample", case.tensor("unet_in_0"))
            .with("timestep", timesteps(500.5));
        let outputs = run(session(row, StageKind::Denoiser).as_mut(), &inputs);
        check(row, &case, "unet_out_t500_5", &output(&outputs, "noise_prediction"), &expected);
    }
}

fn denoiser_without_image_feature(row: &Row) {
    for case in pack().cases() {
        let Some(expected) = case.optional("unet_out_0_no_bim") else { continue };
        let inputs = Tensors::new()
            .with("prompt_embeds", case.tensor("cfg_prompt_embeds"))
            .with("sample", case.tensor("unet_in_0"))
            .with("timestep", timesteps(steps(&case, &converted().smartedit())[0].0));
        let outputs = run(session(row, StageKind::Denoiser).as_mut(), &inputs);
        check(row, &case, "unet_out_0_no_bim", &output(&outputs, "noise_prediction"), &expected);
    }
}

/// A row of a batch with different timesteps equals the row run alone.
fn denoiser_row_by_row(row: &Row) {
    let cases = pack().cases();
    let case = &cases[0];
    let feature = image_feature(row, case);
    let (embeds, sample) = (case.tensor("cfg_prompt_embeds"), case.tensor("unet_in_0"));
    let timesteps = ndarray::arr1(&[999.0, 250.25, 0.0f32]);
    let step = |range: std::ops::Range<usize>| {
        let part = |array: &ArrayD<f32>| array.slice_axis(Axis(0), (range.clone()).into()).to_owned();
        let inputs = Tensors::new()
            .with("prompt_embeds", part(&embeds))
            .with("image_feature", feature.clone())
            .with("sample", part(&sample))
            .with("timestep", timesteps.slice(s![range.clone()]).to_owned());
        output(&run(session(row, StageKind::Denoiser).as_mut(), &inputs), "noise_prediction")
    };
    let batch = step(0..3);
    for index in 0..3 {
        let alone = step(index..index + 1);
        let found = batch.slice_axis(Axis(0), (index..index + 1).into());
        let what = format!("{} row {index} of a batch", row.name);
        Tolerance::Close.check(Precision::F32, &what, found, alone.view());
    }
}

fn vae_decoder(row: &Row) {
    let mut session = session(row, StageKind::VaeDecoder);
    for case in pack().cases() {
        let inputs = Tensors::new().with("latents", case.tensor("vae_decode_in"));
        let outputs = run(session.as_mut(), &inputs);
        check(row, &case, "vae_decode_out", &output(&outputs, "image"), &case.tensor("vae_decode_out"));
    }
}

fn instruct_pix2pix_text_encoder(row: &Row) {
    let mut session = instruct_pix2pix_session(row, StageKind::TextEncoder);
    for case in pack().instruct_pix2pix_cases() {
        let negative = case.ids("negative_ids");
        let texts: Vec<_> =
            [case.ids("prompt_ids"), negative.clone(), negative].iter().map(|t| ids(t)).collect();
        let texts: Vec<_> = texts.iter().map(|text| text.view()).collect();
        let texts = ndarray::concatenate(Axis(0), &texts).expect("texts of one length");
        let outputs = run(session.as_mut(), &Tensors::new().with("input_ids", texts));
        check(
            row,
            &case,
            "cfg_prompt_embeds",
            &output(&outputs, "hidden_states"),
            &case.tensor("cfg_prompt_embeds"),
        );
    }
}

fn instruct_pix2pix_denoiser(row: &Row) {
    for case in pack().instruct_pix2pix_cases() {
        let mut session = instruct_pix2pix_session(row, StageKind::Denoiser);
        run(session.as_mut(), &Tensors::new().with("prompt_embeds", case.tensor("cfg_prompt_embeds")));
        for (step, (timestep, sample)) in
            steps(&case, &converted().instruct_pix2pix()).into_iter().enumerate()
        {
            let inputs = Tensors::new().with("sample", sample).with("timestep", timesteps(timestep));
            let found = output(&run(session.as_mut(), &inputs), "noise_prediction");
            let expected = case.tensor(&format!("unet_out_{step}"));
            check(row, &case, &format!("unet_out_{step}"), &found, &expected);
        }
    }
}
