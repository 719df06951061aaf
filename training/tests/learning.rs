//! Every objective learns, by the gradients of its loss, and an interruption changes nothing.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use smartedit_core::model::ModelDirectory;
use smartedit_core::stage::StageKind;
use smartedit_train::objectives::objective;
use smartedit_train::optimizer::{Optimizer, Rule};
use smartedit_train::parameters::Parameters;
use smartedit_train::recipe::{Recipe, StageRecipe};
use smartedit_train::run::Run;
use smartedit_train::trainer::{Files, Trainer};
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

/// Compares the gradients, along their own direction and a random one together, with the difference of losses on both
/// sides.
fn directional_derivative(run: &Run, stage: &StageRecipe, parameters: &Parameters) {
    loss(run, stage, parameters).backward();
    tch::manual_seed(11);
    let trained: Vec<Tensor> = parameters
        .trained()
        .filter(|(_, tensor)| tensor.grad().defined())
        .map(|(_, tensor)| tensor.shallow_clone())
        .collect();
    let dot = |a: &[Tensor], b: &[Tensor]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a * b).sum(tch::Kind::Double).double_value(&[])).sum()
    };
    let unit = |parts: Vec<Tensor>| -> Vec<Tensor> {
        let norm = dot(&parts, &parts).sqrt();
        parts.iter().map(|part| part / norm).collect()
    };
    let gradient: Vec<Tensor> = trained.iter().map(|tensor| tensor.grad().copy()).collect();
    let along = unit(gradient.iter().map(Tensor::copy).collect());
    let across = unit(trained.iter().map(Tensor::randn_like).collect());
    let directions: Vec<Tensor> = along.iter().zip(&across).map(|(along, across)| along + across).collect();
    let slope = dot(&gradient, &directions);
    let step = 4e-3 / slope;
    let moved = |by: f64| {
        tch::no_grad(|| {
            for (tensor, direction) in trained.iter().zip(&directions) {
                let _ = tensor.shallow_clone().g_add_(&(direction * by));
            }
            let value = loss(run, stage, parameters).double_value(&[]);
            for (tensor, direction) in trained.iter().zip(&directions) {
                let _ = tensor.shallow_clone().g_sub_(&(direction * by));
            }
            value
        })
    };
    let difference = (moved(step) - moved(-step)) / (2.0 * step);
    assert!(
        (difference - slope).abs() < 0.03 * slope,
        "{}: the loss changes by {difference}, its gradients say {slope}",
        stage.name
    );
    for mut tensor in trained {
        tensor.zero_grad();
    }
}

fn loss_falls(run: &Run, stage: &StageRecipe, parameters: &Parameters) {
    let mut optimizer = Optimizer::new(Rule::AdamW, 1.0);
    let first = loss(run, stage, parameters).double_value(&[]);
    for step in 0..6 {
        loss(run, stage, parameters).backward();
        optimizer.step(parameters, |_| 2e-3, step);
    }
    let last = loss(run, stage, parameters).double_value(&[]);
    assert!(last < first, "{}: {first} before, {last} after", stage.name);
}

#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = Run::new(recipe(), directory.path().to_owned(), NonZeroUsize::MIN).expect("a run can begin");
    // Parameters are averaged over the last two of these steps: the interruption falls between them.
    let stage = StageRecipe { steps: 20, batch: 1, ..stage(&run, "vae").clone() };
    let begin = |directory: &Path, resume: bool| {
        Trainer::new(run.lab(), &stage, directory, Parameters::default(), resume)
            .expect("the stage can begin")
    };
    let result = |directory: &Path| {
        Parameters::load(&Files::new(directory, "vae").result()).expect("the parameters can be read")
    };

    let whole = directory.path().join("whole");
    begin(&whole, false).run().expect("the stage can be trained");

    let parts = directory.path().join("parts");
    let mut first = begin(&parts, false);
    for _ in 0..19 {
        first.advance().expect("a step can be done");
    }
    first.save().expect("a checkpoint can be written");
    drop(first);
    let second = begin(&parts, true);
    assert_eq!(second.step(), 19);
    second.run().expect("the stage can be trained");

    let (whole, parts) = (result(&whole), result(&parts));
    assert_eq!(whole.iter().count(), parts.iter().count());
    for ((name, one), (_, other)) in whole.iter().zip(parts.iter()) {
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
        .replacen("after = [\"clip\", \"llava\"]", "after = [\"clip\", \"llava/languagemodel\"]", 1)
        .replacen("kind = \"instruct-pix2pix\"", "kind = \"instructpix2pix\"", 1);
    std::fs::write(&path, broken).expect("the recipe can be written");
    let message = format!("{:#}", Recipe::read(&path).expect_err("the recipe is broken"));
    for part in [
        "no stage `vea`",
        "`llava/languagemodel` names no network",
        "no weight `atention`",
        "neither smartedit nor",
    ] {
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(&path, text.replacen("seed = 7", "sead = 7", 1)).expect("the recipe can be written");
    let message = format!("{:#}", Recipe::read(&path).expect_err("the recipe is broken"));
    assert!(message.contains("sead"), "{message}");
}

#[test]
fn a_recipe_builds_on_another_and_shares_what_that_has_trained() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let before = trained(directory.path());
    let connector = &before.lab().recipe.networks[&StageKind::Connector];
    let base = std::path::absolute("recipes/smoke.toml").expect("there is a current directory");
    let interactions: [(&str, &str); 2] =
        [("plain", ""), ("simple_ca", "vision_size = 32\nnum_heads = 2\nlayer_norm_eps = 1e-5\n")];
    for (kind, sizes) in interactions {
        let mut connector = toml::Table::try_from(connector).expect("configurations are tables");
        connector.insert("kind".to_owned(), "connector".into());
        connector.insert(
            "interaction".to_owned(),
            format!("kind = {kind:?}\n{sizes}").parse::<toml::Table>().expect("a table").into(),
        );
        let mut networks = toml::Table::new();
        networks.insert("connector".to_owned(), connector.into());
        let networks = toml::to_string(&toml::Table::from_iter([("networks".to_owned(), networks.into())]));
        // The language model is the last stage's, the connector the first stage's.
        let text = format!(
            "base = {base:?}\n{}\n[[stages]]\nname = \"own\"\nobjective = \"edit\"\n\
             after = [\"vae\", \"clip\", \"align\", \"pointing/language_model\", \"drawing\"]\nsteps = 2\nbatch = 2\n\
             learning_rate = 1e-3\noptimizer = \"muon\"\n[[models]]\nname = {kind:?}\nkind = \"smartedit\"\n\
             after = [\"vae\", \"clip\", \"align\", \"drawing\", \"own\"]\n",
            networks.expect("tables can be written")
        );
        let path = directory.path().join(format!("{kind}.toml"));
        std::fs::write(&path, text).expect("the recipe can be written");
        let recipe = Recipe::read(&path).expect("the recipe is valid");
        let needed: Vec<&str> = recipe.needed().map(|stage| stage.name.as_str()).collect();
        assert_eq!(needed, ["vae", "clip", "drawing", "llava", "align", "pointing", "own"]);
        let own = directory.path().join("own");
        if own.exists() {
            std::fs::remove_dir_all(&own).expect("the stage can be forgotten");
        }
        let run = Run::new(recipe, directory.path().to_owned(), NonZeroUsize::MIN).expect("a run can begin");
        let shared = directory.path().join("drawing/parameters.safetensors");
        let written = shared.metadata().and_then(|file| file.modified()).expect("the stage has a result");
        run.train(&[], true).expect("the stage can be trained");
        assert_eq!(shared.metadata().and_then(|file| file.modified()).ok(), Some(written));
        let parameters = run.parameters(&["own".to_owned()]).expect("the stage is trained");
        let of = |part: &str| parameters.of("connector").any(|(name, _)| name.starts_with(part));
        assert_eq!((of("simple_ca."), of("bim.")), (kind == "simple_ca", false));
        let models = directory.path().join("models");
        run.ship(&models).expect("the model can be written");
        ModelDirectory::open(&models.join(kind)).expect("the model directory is whole");
    }
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
