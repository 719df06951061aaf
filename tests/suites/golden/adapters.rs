//! LoRA adapters: chosen by an edit they make of a model what they make of it merged into its weights.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array3, Array4};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use smartedit_core::adapter::{Adapter, AdapterChoice, Strength};
use smartedit_core::cache::StageCache;
use smartedit_core::engine::Precision;
use smartedit_core::model::{ModelDirectory, NetworkConfig};
use smartedit_core::pipeline::{Edit, EditOptions, EditOutput, EditRequest, Model, Progress, Resize};
use smartedit_core::stage::{LoadError, StageError, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_tests::adapters::Recipe;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{converted, load, open, pack};
use smartedit_tests::tolerance::{Tolerance, view};

use StageKind::{Denoiser, LanguageModel};

smartedit_tests::matrix!(row:
    chosen_is_as_merged,
    another_takes_the_place_of_the_merged_one,
    edits_with_different_adapters_at_the_same_time,
    an_adapter_stays_while_an_edit_has_it,
    what_is_kept_is_kept_for_its_adapter,
    random_layers_of_random_ranks,
);

/// An adapter of attention, convolutions and the language model's layers.
fn adapter(model: &ModelDirectory, seed: u64) -> Arc<Adapter> {
    let wanted = |stage: StageKind, layer: &str| match stage {
        Denoiser => layer.contains(".to_") || layer.ends_with("conv1") || layer.ends_with("proj_in"),
        _ => layer.ends_with("q_proj") || layer.ends_with("v_proj") || layer.ends_with("down_proj"),
    };
    Recipe { rank: 3, alpha: 6.0, strength: 0.3, seed, wanted: &wanted }.read(model)
}

/// An adapter of the denoiser alone.
fn of_denoiser(model: &ModelDirectory, seed: u64) -> Arc<Adapter> {
    let wanted = |stage: StageKind, layer: &str| stage == Denoiser && layer.contains(".to_");
    Recipe { rank: 3, alpha: 6.0, strength: 0.3, seed, wanted: &wanted }.read(model)
}

fn strength(adapter: &Arc<Adapter>, scale: f32) -> Strength {
    Strength { adapter: adapter.clone(), scale }
}

fn merged(row: &Row, directory: &Path, adapter: Strength) -> Arc<Model> {
    let load = |config: &_, weights: &_| row.backend.load(config, weights, &row.options);
    Arc::new(Model::load_adapted(directory, Some(adapter), load).unwrap())
}

fn request(adapter: AdapterChoice) -> EditRequest {
    let options = EditOptions {
        steps: Some(3),
        // Norms over the few values of smaller latents would make much of how sums are rounded.
        resize: Some(Resize::Stretch { width: 128, height: 128 }),
        seed: 7,
        adapter,
        ..EditOptions::default()
    };
    EditRequest { image: pack().cases()[0].image(), instruction: "make it red".to_owned(), options }
}

/// The result of an edit, and the latents that it was decoded from.
type Edited = (EditOutput, Array4<f32>);

fn go_on(mut edit: Edit) -> Edited {
    let mut latents = None;
    loop {
        match edit.advance().unwrap() {
            Progress::Step { .. } => latents = edit.latents().cloned(),
            Progress::Finished(output) => return (output, latents.unwrap()),
            _ => {}
        }
    }
}

fn edit(model: &Arc<Model>, adapter: AdapterChoice) -> Edited {
    go_on(model.edit(request(adapter)).unwrap())
}

/// Whether edits can choose adapters on this engine; where they cannot, that must be said.
fn can_choose(row: &Row, model: &Arc<Model>, adapter: &Arc<Adapter>) -> bool {
    let choice = AdapterChoice::Of(strength(adapter, 1.0));
    if row.name != "onnx" {
        model.can_adapt(&choice).unwrap();
        return true;
    }
    let error = model.can_adapt(&choice).unwrap_err();
    assert!(matches!(error, LoadError::Fixed { engine: "onnx", .. }), "{error}");
    assert!(model.edit(request(choice)).is_err());
    false
}

fn same(what: &str, found: &Edited, expected: &Edited) {
    assert_eq!(found.0.reply, expected.0.reply, "{what}");
    Tolerance::Loose.check(Precision::F32, what, view(&found.1), view(&expected.1));
}

fn differ(what: &str, a: &Edited, b: &Edited) {
    let distance = (&a.1 - &b.1).iter().fold(0.0f32, |max, value| max.max(value.abs()));
    assert!(distance > 0.05, "{what}: latents differ by no more than {distance}");
}

fn chosen_is_as_merged(row: &Row) {
    for directory in [converted().smartedit(), converted().instruct_pix2pix()] {
        let model = load(row, &directory);
        let adapter = adapter(&open(&directory), 1);
        let plain = edit(&model, AdapterChoice::Default);
        for scale in [1.0, -0.5] {
            let expected = edit(&merged(row, &directory, strength(&adapter, scale)), AdapterChoice::Default);
            differ("merged and plain", &expected, &plain);
            if can_choose(row, &model, &adapter) {
                let found = edit(&model, AdapterChoice::Of(strength(&adapter, scale)));
                same(&format!("{}: {} at {scale}", row.name, directory.display()), &found, &expected);
            }
        }
        assert_eq!(edit(&model, AdapterChoice::Of(strength(&adapter, 0.0))), plain);
        assert_eq!(edit(&model, AdapterChoice::None), plain);
    }
}

fn another_takes_the_place_of_the_merged_one(row: &Row) {
    let directory = converted().smartedit();
    let (first, second) = (adapter(&open(&directory), 1), adapter(&open(&directory), 2));
    let model = merged(row, &directory, strength(&first, 1.0));
    let default = edit(&model, AdapterChoice::Default);
    assert_eq!(edit(&model, AdapterChoice::Of(strength(&first, 1.0))), default);
    if !can_choose(row, &model, &second) {
        assert!(matches!(model.can_adapt(&AdapterChoice::None), Err(LoadError::Fixed { .. })));
        return;
    }
    let plain = load(row, &directory);
    same("none", &edit(&model, AdapterChoice::None), &edit(&plain, AdapterChoice::None));
    for (choice, what) in [(strength(&second, 1.0), "another"), (strength(&first, 0.5), "half as strong")] {
        let expected = edit(&merged(row, &directory, choice.clone()), AdapterChoice::Default);
        differ(what, &expected, &default);
        same(what, &edit(&model, AdapterChoice::Of(choice)), &expected);
    }
}

fn at_first_step(model: &Arc<Model>, adapter: AdapterChoice) -> Edit {
    let mut edit = model.edit(request(adapter)).unwrap();
    while edit.next_step().is_none() {
        edit.advance().unwrap();
    }
    edit
}

fn edits_with_different_adapters_at_the_same_time(row: &Row) {
    let directory = converted().smartedit();
    let model = load(row, &directory);
    let (first, second) = (of_denoiser(&open(&directory), 1), of_denoiser(&open(&directory), 2));
    if !can_choose(row, &model, &first) {
        return;
    }
    let choices = [
        AdapterChoice::Default,
        AdapterChoice::Of(strength(&first, 1.0)),
        AdapterChoice::Of(strength(&second, 1.0)),
        AdapterChoice::Of(strength(&first, 0.5)),
    ];
    let alone: Vec<Edited> = choices.iter().map(|choice| edit(&model, choice.clone())).collect();
    let mut edits: Vec<Edit> = choices.iter().map(|choice| at_first_step(&model, choice.clone())).collect();
    let groups: Vec<_> = edits.iter().map(|edit| edit.next_step().unwrap().adapter).collect();
    for (index, group) in groups.iter().enumerate() {
        assert!(!groups[..index].contains(group), "{groups:?}");
    }
    let error = Edit::step_together(&mut edits.iter_mut().collect::<Vec<_>>()).unwrap_err();
    assert!(matches!(error, StageError::Foreign { stage: Denoiser }), "{error}");

    for edit in &mut edits {
        edit.advance().unwrap();
    }
    for (edit, expected) in edits.into_iter().zip(&alone) {
        assert_eq!(go_on(edit), *expected);
    }

    let mut pair = [1.0, 1.0].map(|scale| at_first_step(&model, AdapterChoice::Of(strength(&first, scale))));
    for _ in 0..3 {
        let steps = Edit::step_together(&mut pair.iter_mut().collect::<Vec<_>>()).unwrap();
        assert!(steps.into_iter().all(|step| matches!(step.unwrap(), Progress::Step { .. })));
    }
    for edit in pair {
        Tolerance::Loose.check(
            Precision::F32,
            "two with one adapter",
            view(edit.latents().unwrap()),
            view(&alone[1].1),
        );
    }
}

fn an_adapter_stays_while_an_edit_has_it(row: &Row) {
    let directory = converted().smartedit();
    let model = Arc::new(Arc::into_inner(load(row, &directory)).unwrap().with_prefixes(1 << 20));
    let adapter = adapter(&open(&directory), 1);
    if !can_choose(row, &model, &adapter) {
        return;
    }
    let choice = || AdapterChoice::Of(strength(&adapter, 1.0));
    let expected = edit(&model, choice());
    let running = at_first_step(&model, choice());
    let adapted = Arc::downgrade(&model.adapted(&choice()).unwrap());
    let gone = Arc::downgrade(&adapter);
    drop(adapter);
    assert!(adapted.upgrade().is_some(), "the edit has it");
    assert_eq!(go_on(running), expected);
    assert!(adapted.upgrade().is_none() && gone.upgrade().is_none(), "nobody has it any more");
}

fn what_is_kept_is_kept_for_its_adapter(row: &Row) {
    let directory = converted().smartedit();
    let (first, second) = (adapter(&open(&directory), 1), adapter(&open(&directory), 2));
    let plain = load(row, &directory);
    if !can_choose(row, &plain, &first) {
        return;
    }
    let choices = || {
        [
            AdapterChoice::Default,
            AdapterChoice::Of(strength(&first, 1.0)),
            AdapterChoice::Of(strength(&second, 1.0)),
            AdapterChoice::Of(strength(&first, 0.5)),
        ]
    };
    let expected = choices().map(|choice| edit(&plain, choice));
    let cache = StageCache::new(64 << 20);
    let with_cache = |model: Arc<Model>, prefixes: usize| {
        let model = Arc::into_inner(model).unwrap().with_prefixes(prefixes);
        Arc::new(model.with_cache(cache.clone(), |_| row.options.clone()).unwrap())
    };
    let models = [
        with_cache(load(row, &directory), 0),
        with_cache(merged(row, &directory, strength(&second, 1.0)), 0),
        with_cache(load(row, &directory), 1 << 20),
    ];
    for model in &models {
        for _ in 0..2 {
            for (choice, expected) in choices().into_iter().zip(&expected) {
                let choice = match (choice, model.merged_adapter()) {
                    (AdapterChoice::Default, Some(_)) => AdapterChoice::None,
                    (choice, _) => choice,
                };
                same(&format!("{choice:?}"), &edit(model, choice), expected);
            }
        }
    }
}

/// The inputs of a run of a stage.
fn inputs(config: &NetworkConfig) -> Tensors {
    let wave = |index: usize| (index as f32 * 0.7).sin();
    match config {
        NetworkConfig::Denoiser(unet) => {
            let embeds =
                Array3::from_shape_fn((2, 7, unet.cross_attention_dim), |(a, b, c)| wave(a + 3 * b + 11 * c));
            // With less than 16×16, the deepest norms are over so few values that they magnify rounding a thousandfold.
            let sample = Array4::from_shape_fn((2, unet.in_channels, 16, 16), |(a, b, c, d)| {
                wave(a + 5 * b + 17 * c + 31 * d)
            });
            let timestep = Array1::from_vec(vec![10.0, 700.0]);
            Tensors::new().with("prompt_embeds", embeds).with("sample", sample).with("timestep", timestep)
        }
        NetworkConfig::LanguageModel(llama) => {
            let ids =
                ndarray::Array2::from_shape_fn((1, 9), |(_, index)| (7 * index % llama.vocab_size) as i64);
            Tensors::new().with("input_ids", ids)
        }
        other => panic!("{other:?} is not adapted"),
    }
}

fn random_layers_of_random_ranks(row: &Row) {
    let directory = open(&converted().smartedit());
    let strategy = (1usize..6, 0.25f32..8.0, -1.5f32..1.5, any::<u64>(), 1u64..5);
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    let case = |(rank, alpha, scale, seed, sparsity): (usize, f32, f32, u64, u64)| {
        // Always some layer of each stage.
        let wanted = |_: StageKind, layer: &str| {
            let hash = layer.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
            hash.is_multiple_of(sparsity) || layer == "conv_in" || layer == "lm_head"
        };
        let adapter = Recipe { rank, alpha, strength: 0.3, seed, wanted: &wanted }.read(&directory);
        for kind in [Denoiser, LanguageModel] {
            let config = &directory.config().stages[&kind].network;
            let weights = || directory.stage_weights(kind).unwrap().unwrap();
            let update = || strength(&adapter, scale).update(kind).unwrap();
            let plain = row.backend.load(config, &weights(), &row.options).unwrap();
            let merged = row.backend.load(config, &weights().with_update(update()), &row.options).unwrap();
            let updated = plain.updated(&[update()]);
            assert_eq!(plain.updates(), updated.is_ok());
            let Ok(updated) = updated else { continue };
            let output = if kind == Denoiser { "noise_prediction" } else { "logits" };
            let run = |stage: &dyn smartedit_core::stage::Stage| {
                stage.session().run(&inputs(config)).unwrap().take_f32(output).unwrap()
            };
            let (found, expected) = (run(updated.as_ref()), run(merged.as_ref()));
            let what = format!("{}: {kind}, rank {rank}, α {alpha}, scale {scale}", row.name);
            Tolerance::Approximate.check(Precision::F32, &what, found.view(), expected.view());
        }
        Ok(())
    };
    runner.run(&strategy, case).unwrap();
}
