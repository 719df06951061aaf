//! What is kept for edits to come changes no edit.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

use std::path::Path;
use std::sync::Arc;

use ndarray::Array4;
use smartedit_core::cache::StageCache;
use smartedit_core::engine::Precision;
use smartedit_core::model::{ModelConfig, PipelineConfig};
use smartedit_core::pipeline::{Edit, EditOptions, EditOutput, EditRequest, Model, Progress, Resize};
use smartedit_core::stage::{StageKind, StageOptions};
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{converted, load, pack};
use smartedit_tests::tolerance::{Tolerance, view};

use StageKind::{Connector, LanguageModel, TextEncoder, VaeEncoder, VisionEncoder};

smartedit_tests::matrix!(row:
    smartedit_edits_are_the_same_with_a_cache,
    instruct_pix2pix_edits_are_the_same_with_a_cache,
    models_share_what_equal_stages_made,
    an_edit_that_is_given_up_leaves_nothing_half_done,
    nothing_is_kept_of_an_edit_that_asks_for_that,
    kept_beginnings_of_prompts_change_nothing,
    an_expected_reply_saves_passes,
);

const MAX_BYTES: usize = 64 << 20;

fn cache() -> Arc<StageCache> {
    StageCache::new(MAX_BYTES)
}

fn plain(row: &Row, directory: &Path) -> Model {
    let load = |config: &_, weights: &_| row.backend.load(config, weights, &row.options);
    Model::load(directory, load).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
}

fn cached(row: &Row, directory: &Path, cache: &Arc<StageCache>) -> Arc<Model> {
    let model = plain(row, directory).with_cache(cache.clone(), |_| row.options.clone());
    Arc::new(model.unwrap())
}

fn request(instruction: &str, change: impl FnOnce(&mut EditOptions)) -> EditRequest {
    let mut options = EditOptions {
        steps: Some(2),
        resize: Some(Resize::Stretch { width: 64, height: 64 }),
        seed: 7,
        ..EditOptions::default()
    };
    change(&mut options);
    EditRequest { image: pack().cases()[0].image(), instruction: instruction.to_owned(), options }
}

/// What became of an edit.
struct Edited {
    output: EditOutput,
    latents: Vec<Array4<f32>>,
    /// Stages whose result was kept.
    cached: Vec<StageKind>,
    /// Passes of the language model.
    passes: usize,
}

fn edit(model: &Arc<Model>, request: EditRequest) -> Edited {
    go_on(model.edit(request).unwrap())
}

fn go_on(mut edit: Edit) -> Edited {
    let (mut latents, mut cached, mut passes) = (Vec::new(), Vec::new(), 0);
    loop {
        match edit.advance().unwrap() {
            Progress::StageFinished { stage, cached: true } => cached.push(stage),
            Progress::Tokens(_) => passes += 1,
            Progress::Step { .. } => latents.push(edit.latents().unwrap().clone()),
            Progress::Finished(output) => return Edited { output, latents, cached, passes },
            _ => {}
        }
    }
}

#[track_caller]
fn assert_identical(a: &Edited, b: &Edited) {
    assert_eq!(a.output, b.output);
    assert_eq!(a.latents, b.latents);
}

fn smartedit_edits_are_the_same_with_a_cache(row: &Row) {
    let (model, cache) = (load(row, &converted().smartedit()), cache());
    let with_cache = cached(row, &converted().smartedit(), &cache);
    let all = [VisionEncoder, LanguageModel, Connector, VaeEncoder];
    type Change = fn(&mut EditOptions);
    let asked: [(&str, Change, &[StageKind]); 10] = [
        ("make it red", |_| {}, &[]),
        ("make it red", |_| {}, &all),
        ("make it red", |options| options.seed = 8, &all),
        ("make it red", |options| options.text_guidance = Some(3.0), &all),
        ("make it blue", |_| {}, &[VisionEncoder, VaeEncoder]),
        ("make it red", |options| options.template = 1, &[VisionEncoder, VaeEncoder]),
        (
            "make it red",
            |options| options.resize = Some(Resize::Stretch { width: 64, height: 32 }),
            &all[..3],
        ),
        ("make it red", |options| options.temperature = 0.5, &[VisionEncoder, VaeEncoder]),
        ("make it red", |options| options.temperature = 0.5, &all),
        (
            "make it red",
            |options| (options.temperature, options.seed) = (0.5, 9),
            &[VisionEncoder, VaeEncoder],
        ),
    ];
    for (index, (instruction, change, kept)) in asked.into_iter().enumerate() {
        let expected = edit(&model, request(instruction, change));
        let found = edit(&with_cache, request(instruction, change));
        assert_identical(&expected, &found);
        // A reply that is sampled anew may be one that the connector has seen.
        let sampled = request(instruction, change).options.temperature > 0.0 && kept != all;
        let found: Vec<_> =
            found.cached.into_iter().filter(|stage| !sampled || *stage != Connector).collect();
        assert_eq!(found, kept, "edit {index}");
        assert!(cache.usage().bytes <= MAX_BYTES);
    }
    let mut other = request("make it red", |_| {});
    other.image.put_pixel(3, 3, image::Rgb([1, 2, 3]));
    assert_identical(&edit(&model, other.clone()), &edit(&with_cache, other));
}

fn instruct_pix2pix_edits_are_the_same_with_a_cache(row: &Row) {
    let model = load(row, &converted().instruct_pix2pix());
    let with_cache = cached(row, &converted().instruct_pix2pix(), &cache());
    let negative = |options: &mut EditOptions| options.negative_prompt = Some("blur".to_owned());
    type Change<'a> = &'a dyn Fn(&mut EditOptions);
    let asked: [(&str, Change<'_>, &[StageKind]); 4] = [
        ("make it red", &|_| {}, &[]),
        ("make it red", &|options| options.seed = 8, &[TextEncoder, VaeEncoder]),
        ("make it blue", &|_| {}, &[VaeEncoder]),
        ("make it red", &negative, &[VaeEncoder]),
    ];
    for (index, (instruction, change, kept)) in asked.into_iter().enumerate() {
        let found = edit(&with_cache, request(instruction, change));
        assert_identical(&edit(&model, request(instruction, change)), &found);
        assert_eq!(found.cached, kept, "edit {index}");
    }
}

fn models_share_what_equal_stages_made(row: &Row) {
    let (directory, cache) = (converted().smartedit(), cache());
    let first = edit(&cached(row, &directory, &cache), request("make it red", |_| {}));
    let second = edit(&cached(row, &directory, &cache), request("make it red", |_| {}));
    assert_eq!(second.cached, [VisionEncoder, LanguageModel, Connector, VaeEncoder]);
    assert_identical(&first, &second);

    let narrow = StageOptions { precision: Precision::Bf16, ..row.options.clone() };
    let options = |kind| if kind == VaeEncoder { narrow.clone() } else { row.options.clone() };
    let load = |config: &smartedit_core::model::NetworkConfig, weights: &_| {
        row.backend.load(config, weights, &options(config.kind()))
    };
    let other = Model::load(&directory, load).unwrap().with_cache(cache.clone(), options).unwrap();
    let third = edit(&Arc::new(other), request("make it red", |_| {}));
    assert_eq!(third.cached, [VisionEncoder, LanguageModel, Connector]);
}

/// Advances an edit until it has fed the language model once.
fn until_the_reply(edit: &mut Edit) {
    while !matches!(edit.advance().unwrap(), Progress::Tokens(_)) {}
}

fn an_edit_that_is_given_up_leaves_nothing_half_done(row: &Row) {
    let (directory, cache) = (converted().smartedit(), cache());
    let model = plain(row, &directory).with_prefixes(MAX_BYTES);
    let model = Arc::new(model.with_cache(cache.clone(), |_| row.options.clone()).unwrap());
    let expected = edit(&Arc::new(plain(row, &directory).with_prefixes(MAX_BYTES)), request("red", |_| {}));

    let mut given_up = model.edit(request("red", |_| {})).unwrap();
    until_the_reply(&mut given_up);
    let mut waiting = model.edit(request("red", |_| {})).unwrap();
    while !matches!(waiting.advance().unwrap(), Progress::Waiting) {}
    assert!(matches!(waiting.advance().unwrap(), Progress::Waiting), "as long as the other edit is there");
    assert_eq!(cache.usage().entries, 1, "the vision encoder's");
    drop(given_up);

    let finished = go_on(waiting);
    assert_identical(&expected, &finished);
    assert_eq!(cache.usage().entries, 4);
}

fn nothing_is_kept_of_an_edit_that_asks_for_that(row: &Row) {
    let cache = cache();
    let model = cached(row, &converted().smartedit(), &cache);
    let bypass = || request("red", |options| options.no_cache = true);
    let first = edit(&model, bypass());
    assert_eq!(cache.usage(), smartedit_core::cache::Usage::default());
    assert!(edit(&model, request("red", |_| {})).cached.is_empty());
    let usage = cache.usage();
    let last = edit(&model, bypass());
    assert!(last.cached.is_empty());
    assert_eq!(cache.usage(), usage);
    assert_identical(&first, &last);
}

fn kept_beginnings_of_prompts_change_nothing(row: &Row) {
    let directory = converted().smartedit();
    let whole = load(row, &directory);
    let in_parts = || Arc::new(plain(row, &directory).with_prefixes(MAX_BYTES));
    let (warm, no_room) = (in_parts(), Arc::new(plain(row, &directory).with_prefixes(1)));
    let other_picture = || {
        let mut request = request("make it red", |_| {});
        request.image.put_pixel(3, 3, image::Rgb([1, 2, 3]));
        request
    };
    let asked = [
        ("the first edit", request("make it red", |_| {}), 2),
        ("the same again", request("make it red", |_| {}), 0),
        ("another instruction", request("make it blue", |_| {}), 0),
        ("another picture", other_picture(), 1),
        ("another template", request("make it red", |options| options.template = 1), 2),
        ("nothing kept", request("make it red", |options| options.no_cache = true), 2),
    ];
    for (what, request, beginning) in asked {
        let cold = edit(&in_parts(), request.clone());
        let found = edit(&warm, request.clone());
        assert_identical(&cold, &found);
        assert_identical(&cold, &edit(&no_room, request.clone()));
        assert_eq!(cold.passes - found.passes, 2 - beginning, "{what}");

        let expected = edit(&whole, request);
        assert_eq!(expected.output.reply, found.output.reply);
        for (found, expected) in found.latents.iter().zip(&expected.latents) {
            let what = format!("{}: {what}", row.name);
            Tolerance::Approximate.check(Precision::F32, &what, view(found), view(expected));
        }
    }
}

fn an_expected_reply_saves_passes(row: &Row) {
    let directory = converted().smartedit();
    let unexpected = edit(&load(row, &directory), request("make it red", |_| {}));
    assert_eq!(unexpected.output.reply.as_deref(), Some(""), "not what the template was trained with");

    let place = tempfile::tempdir().unwrap();
    copy(&directory, place.path());
    let file = place.path().join("model.json");
    let mut config: ModelConfig = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let PipelineConfig::SmartEdit { prompt, .. } = &mut config.pipeline else { panic!("another pipeline") };
    prompt.replies = vec!["[img]".to_owned()];
    std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();

    let expected = edit(&load(row, place.path()), request("make it red", |_| {}));
    assert_eq!((unexpected.passes, expected.passes), (2, 1));
    assert_eq!(unexpected.output.reply, expected.output.reply);
    for (found, expected) in expected.latents.iter().zip(&unexpected.latents) {
        Tolerance::Approximate.check(Precision::F32, row.name, view(found), view(expected));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
