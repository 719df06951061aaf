//! Every objective learns, by the gradients of its loss, and an interruption changes nothing.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use smartedit_core::model::ModelDirectory;
use smartedit_train::objectives::objective;
use smartedit_train::optimizer::{Optimizer, Rule};
use smartedit_train::parameters::Parameters;
use smartedit_train::recipe::{Recipe, StageRecipe};
use smartedit_train::run::Run;
use smartedit_train::trainer::Trainer;
use tch::Tensor;

/// libtorch has one generator of random numbers for all threads: tests that draw from it do so one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recipe() -> Recipe {
    Recipe::read(Path::new("recipes/smoke.toml")).expect("the recipe is valid")
}

/// A run whose stages are trained already, for tests to go on from.
fn trained(directory: &Path) -> Run {
    let run = Run::new(recipe(), directory.to_owned(), NonZeroUsize::MIN).expect("a run can begin");
    run.train(&[], false).expect("every stage can be trained");
    run
}

fn stage<'a>(run: &'a Run, name: &str) -> &'a StageRecipe {
    let stages = &run.lab().recipe.stages;
    stages.iter().find(|stage| stage.name == name).expect("the recipe has the stage")
}

/// What a stage begins with.
fn beginning(run: &Run, stage: &StageRecipe, directory: &Path) -> Parameters {
    let before = run.parameters(&stage.after).expect("earlier stages are trained");
    let trainer = Trainer::new(run.lab(), stage, directory, before, false).expect("the stage can begin");
    trainer.into_parameters()
}

/// The loss on one fixed batch, with the same noise every time.
fn loss(run: &Run, stage: &StageRecipe, parameters: &Parameters) -> Tensor {
    tch::manual_seed(5);
    let mut rng = Rng::with_seed(5);
    objective(stage).loss(run.lab(), parameters, &mut rng).expect("the loss can be computed").total
}

#[test]
fn the_whole_recipe_can_be_followed_and_each_objective_learns_by_its_gradients() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = trained(directory.path());

    for stage in &run.lab().recipe.stages {
        let parameters = beginning(&run, stage, directory.path());
        directional_derivative(&run, stage, &parameters);
        loss_falls(&run, stage, &parameters);
    }

    let models = directory.path().join("models");
    run.ship(&models).expect("the models can be written");
    for model in &run.lab().recipe.models {
        ModelDirectory::open(&models.join(&model.name)).expect("the model directory is whole");
    }
    let again = run.ship(&models).expect_err("nothing is overwritten");
    assert!(format!("{again:#}").contains("exists"), "{again:#}");
}

/// Compares the gradients, along a random direction, with the difference of losses on both sides.
fn directional_derivative(run: &Run, stage: &StageRecipe, parameters: &Parameters) {
    loss(run, stage, parameters).backward();
    tch::manual_seed(11);
    let directions: Vec<(Tensor, Tensor)> = parameters
        .trained()
        .filter(|(_, tensor)| tensor.grad().defined())
        .map(|(_, tensor)| (tensor.shallow_clone(), tensor.randn_like() * tensor.grad().abs().sqrt()))
        .collect();
    let slope: f64 = directions
        .iter()
        .map(|(tensor, direction)| (tensor.grad() * direction).sum(tch::Kind::Double).double_value(&[]))
        .sum();
    let norm: f64 = directions
        .iter()
        .map(|(_, direction)| direction.square().sum(tch::Kind::Double).double_value(&[]))
        .sum::<f64>()
        .sqrt();
    let step = 2e-3 / norm;
    let moved = |by: f64| {
        tch::no_grad(|| {
            for (tensor, direction) in &directions {
                let _ = tensor.shallow_clone().g_add_(&(direction * by));
            }
            let value = loss(run, stage, parameters).double_value(&[]);
            for (tensor, direction) in &directions {
                let _ = tensor.shallow_clone().g_sub_(&(direction * by));
            }
            value
        })
    };
    let difference = (moved(step) - moved(-step)) / (2.0 * step);
    let scale = slope.abs().max(1e-2 * norm);
    assert!(
        (difference - slope).abs() < 0.05 * scale,
        "{}: the loss changes by {difference}, its gradients say {slope}",
        stage.name
    );
    for (mut tensor, _) in directions {
        tensor.zero_grad();
    }
}

fn loss_falls(run: &Run, stage: &StageRecipe, parameters: &Parameters) {
    let mut optimizer = Optimizer::new(Rule::AdamW, 1.0);
    let first = loss(run, stage, parameters).double_value(&[]);
    for step in 0..6 {
        loss(run, stage, parameters).backward();
        optimizer.step(parameters, 2e-3, step);
    }
    let last = loss(run, stage, parameters).double_value(&[]);
    assert!(last < first, "{}: {first} before, {last} after", stage.name);
}

#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = Run::new(recipe(), directory.path().to_owned(), NonZeroUsize::MIN).expect("a run can begin");
    let stage = stage(&run, "vae");
    let begin = |directory: &Path, resume: bool| {
        Trainer::new(run.lab(), stage, directory, Parameters::default(), resume).expect("the stage can begin")
    };

    let mut whole = begin(&directory.path().join("whole"), false);
    for _ in 0..4 {
        whole.advance().expect("a step can be done");
    }

    let parts = directory.path().join("parts");
    let mut first = begin(&parts, false);
    for _ in 0..2 {
        first.advance().expect("a step can be done");
    }
    first.save().expect("a checkpoint can be written");
    drop(first);
    let mut second = begin(&parts, true);
    assert_eq!(second.step(), 2);
    for _ in 0..2 {
        second.advance().expect("a step can be done");
    }

    for ((name, one), (_, other)) in whole.parameters().iter().zip(second.parameters().iter()) {
        assert_eq!((one - other).abs().max().double_value(&[]), 0.0, "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_recipe_is_said_all_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("recipe.toml");
    let text = std::fs::read_to_string("recipes/smoke.toml").expect("the recipe can be read");
    let broken = text
        .replacen("after = [\"vae\", \"clip\"]", "after = [\"vea\"]", 1)
        .replacen("warmup = 2", "weights = { atention = 1.0 }", 1)
        .replacen("kind = \"instruct-pix2pix\"", "kind = \"instructpix2pix\"", 1);
    std::fs::write(&path, broken).expect("the recipe can be written");
    let message = format!("{:#}", Recipe::read(&path).expect_err("the recipe is broken"));
    for part in ["no stage `vea`", "no weight `atention`", "neither smartedit nor"] {
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(&path, text.replacen("seed = 7", "sead = 7", 1)).expect("the recipe can be written");
    let message = format!("{:#}", Recipe::read(&path).expect_err("the recipe is broken"));
    assert!(message.contains("sead"), "{message}");
}

#[test]
fn a_stage_whose_beginning_is_missing_says_what_to_train_first() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = Run::new(recipe(), directory.path().to_owned(), NonZeroUsize::MIN).expect("a run can begin");
    let message =
        format!("{:#}", run.train(&["drawing".to_owned()], false).expect_err("nothing is trained yet"));
    assert!(message.contains("stage `vae` has not been trained"), "{message}");
    let stage = stage(&run, "drawing");
    let error = Trainer::new(run.lab(), stage, directory.path(), Parameters::default(), false).err();
    let message = format!("{:#}", error.expect("networks are missing"));
    assert!(message.contains("vae_encoder, text_encoder"), "{message}");
}
