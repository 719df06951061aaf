//! Edits whose denoising steps share runs of the denoiser come out as they do alone.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::engine::Precision;
use smartedit_core::model::SchedulerKind;
use smartedit_core::pipeline::{Edit, EditOptions, EditRequest, Model, Progress, Resize};
use smartedit_core::stage::{StageError, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{converted, load, pack};
use smartedit_tests::tolerance::{Identical, Tolerance, view};

use crate::programs::with_programs;
use crate::replay;

smartedit_tests::matrix!(row:
    smartedit_edits_that_join_and_leave,
    instruct_pix2pix_edits_that_join_and_leave,
    edits_of_a_program_that_takes_any_number_of_rows,
    a_program_that_does_not_say_so_gets_every_branch_of_one_edit,
    an_edit_without_guidance_is_the_text_branch_alone,
    what_is_not_finite_fails_its_own_edit,
    edits_that_cannot_share_a_run_are_left_as_they_were,
);

fn request(index: usize, change: impl FnOnce(&mut EditOptions)) -> EditRequest {
    let mut options = EditOptions {
        steps: Some(4),
        resize: Some(Resize::Stretch { width: 64, height: 32 }),
        seed: index as u64,
        ..EditOptions::default()
    };
    change(&mut options);
    let cases = pack().cases();
    let image = cases[index % cases.len()].image();
    EditRequest { image, instruction: format!("make it number {index}"), options }
}

/// Edits that differ in everything but their size.
fn requests() -> Vec<EditRequest> {
    vec![
        request(0, |_| {}),
        request(1, |options| options.steps = Some(2)),
        request(2, |options| (options.text_guidance, options.image_guidance) = (Some(3.0), Some(1.0))),
        request(3, |options| options.scheduler = Some(SchedulerKind::Ddim)),
        request(4, |options| (options.text_guidance, options.image_guidance) = (Some(1.0), Some(1.0))),
        request(5, |options| options.steps = Some(7)),
    ]
}

/// Advances an edit to its first step.
fn at_first_step(model: &Arc<Model>, request: EditRequest) -> Edit {
    let mut edit = model.edit(request).unwrap();
    while edit.next_step().is_none() {
        edit.advance().unwrap();
    }
    edit
}

/// One edit in a crowd.
struct Member {
    index: usize,
    edit: Edit,
    latents: Option<Array4<f32>>,
}

/// Does the edits with shared steps: another one joins before each step, and whoever is done leaves.
fn crowd(model: &Arc<Model>, requests: &[EditRequest]) -> Vec<(RgbImage, Array4<f32>)> {
    let mut waiting: Vec<_> = requests.iter().cloned().enumerate().rev().collect();
    let (mut members, mut done) = (Vec::<Member>::new(), Vec::new());
    while !waiting.is_empty() || !members.is_empty() {
        if let Some((index, request)) = waiting.pop() {
            members.push(Member { index, edit: at_first_step(model, request), latents: None });
        }
        let mut edits: Vec<&mut Edit> = members.iter_mut().map(|member| &mut member.edit).collect();
        for progress in Edit::step_together(&mut edits).unwrap() {
            assert!(matches!(progress.unwrap(), Progress::Step { .. }));
        }
        let mut still = Vec::new();
        for mut member in members {
            member.latents = member.edit.latents().cloned();
            match member.edit.next_step() {
                Some(_) => still.push(member),
                None => done.push(member),
            }
        }
        members = still;
    }
    done.sort_by_key(|member| member.index);
    let finish = |mut member: Member| loop {
        if let Progress::Finished(output) = member.edit.advance().unwrap() {
            return (output.image, member.latents.unwrap());
        }
    };
    done.into_iter().map(finish).collect()
}

fn as_alone(row: &Row, model: &Arc<Model>) {
    let requests = requests();
    for (index, (image, latents)) in crowd(model, &requests).into_iter().enumerate() {
        let (alone, expected) = replay::run(model, requests[index].clone());
        let what = format!("{}: edit {index}", row.name);
        // libtorch chooses its convolutions by the size of the batch; many runs of a UNet follow each other.
        Tolerance::Loose.check(Precision::F32, &what, view(&latents), view(&expected));
        let (width, height) = (alone.image.width() as usize, alone.image.height() as usize);
        let expected = ndarray::ArrayD::from_shape_vec(vec![height, width, 3], alone.image.into_raw());
        Identical::Mostly.check(&what, &image, expected.unwrap().view());
    }
}

fn smartedit_edits_that_join_and_leave(row: &Row) {
    as_alone(row, &load(row, &converted().smartedit()));
}

fn instruct_pix2pix_edits_that_join_and_leave(row: &Row) {
    as_alone(row, &load(row, &converted().instruct_pix2pix()));
}

fn edits_of_a_program_that_takes_any_number_of_rows(row: &Row) {
    as_alone(row, &with_programs(row, &converted().instruct_pix2pix(), true));
}

fn a_program_that_does_not_say_so_gets_every_branch_of_one_edit(row: &Row) {
    let model = with_programs(row, &converted().instruct_pix2pix(), false);
    // Norms over the few values of smaller latents would make much of how sums are rounded.
    let unguided = |options: &mut EditOptions| {
        (options.text_guidance, options.image_guidance) = (Some(1.0), Some(1.0));
        (options.steps, options.resize) = (Some(2), Some(Resize::Stretch { width: 128, height: 128 }));
    };
    let edit = at_first_step(&model, request(0, unguided));
    assert_eq!(edit.next_step().map(|step| step.shareable), Some(false));
    let (_, found) = replay::run(&model, request(0, unguided));
    let (_, expected) = replay::run(&load(row, &converted().instruct_pix2pix()), request(0, unguided));
    Tolerance::Approximate.check(Precision::F32, row.name, view(&found), view(&expected));
}

fn an_edit_without_guidance_is_the_text_branch_alone(row: &Row) {
    let model = load(row, &converted().smartedit());
    let guided = |text: f32, image: f32| {
        let change = |options: &mut EditOptions| {
            (options.text_guidance, options.image_guidance) = (Some(text), Some(image));
        };
        replay::run(&model, request(0, change)).1
    };
    // Scales beside 1 need all branches, whose weights then are as good as those at 1.
    let (without, nearly) = (guided(1.0, 1.0), guided(1.000_001, 0.999_999));
    Tolerance::Approximate.check(Precision::F32, row.name, view(&without), view(&nearly));
}

fn inputs(rows: usize, value: f32) -> Tensors {
    let embeds = |value| ndarray::Array3::from_elem((rows, 77, width()), value);
    Tensors::new()
        .with("prompt_embeds", embeds(0.5))
        .with("sample", Array4::from_elem((rows, 8, 4, 4), value))
        .with("timestep", ndarray::Array1::from_elem(rows, 3.0_f32))
}

/// Width of the InstructPix2Pix model's embeddings.
fn width() -> usize {
    use smartedit_core::model::{ModelDirectory, NetworkConfig};
    let directory = ModelDirectory::open(&converted().instruct_pix2pix()).unwrap();
    match &directory.config().stages[&StageKind::Denoiser].network {
        NetworkConfig::Denoiser(unet) => unet.cross_attention_dim,
        other => panic!("{other:?}"),
    }
}

fn what_is_not_finite_fails_its_own_edit(row: &Row) {
    let model = load(row, &converted().instruct_pix2pix());
    let stage = model.stage(StageKind::Denoiser).unwrap();
    let (mut good, mut bad) = (stage.session(), stage.session());
    let outputs =
        stage.run_together(&mut [good.as_mut(), bad.as_mut()], &[inputs(3, 0.5), inputs(1, f32::NAN)]);
    let outputs = outputs.unwrap();
    let expected = stage.session().run(&inputs(3, 0.5)).unwrap();
    let prediction = |outputs: &Tensors| outputs.f32("noise_prediction").unwrap().to_owned();
    let (found, expected) = (prediction(outputs[0].as_ref().unwrap()), prediction(&expected));
    Tolerance::Approximate.check(Precision::F32, row.name, found.view(), expected.view());
    assert!(matches!(outputs[1], Err(StageError::NotFinite { stage: StageKind::Denoiser, .. })));
}

fn edits_that_cannot_share_a_run_are_left_as_they_were(row: &Row) {
    let model = load(row, &converted().smartedit());
    let larger = |options: &mut EditOptions| {
        options.resize = Some(Resize::Stretch { width: 64, height: 64 });
    };
    let (mut first, mut second) =
        (at_first_step(&model, request(0, |_| {})), at_first_step(&model, request(1, larger)));
    assert_ne!(first.next_step(), second.next_step());
    let error = Edit::step_together(&mut [&mut first, &mut second]).unwrap_err();
    assert!(error.to_string().contains("height and width"), "{error}");
    for (mut edit, request) in [(first, request(0, |_| {})), (second, request(1, larger))] {
        let output = loop {
            if let Progress::Finished(output) = edit.advance().unwrap() {
                break output;
            }
        };
        assert_eq!(output, replay::run(&model, request).0);
    }

    let other = load(row, &converted().smartedit());
    let mut stranger = other.stage(StageKind::Denoiser).unwrap().session();
    let stage = model.stage(StageKind::Denoiser).unwrap();
    let mut own = stage.session();
    let both = &mut [own.as_mut(), stranger.as_mut()];
    let error = stage.run_together(both, &[Tensors::new(), Tensors::new()]).unwrap_err();
    assert!(matches!(error, StageError::Foreign { .. }), "{error}");
}
