//! Runs a stage: steps, checkpoints, curves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use smartedit_core::stage::StageKind;
use tch::{Kind, Tensor};

use crate::curves;
use crate::lab::Lab;
use crate::objectives::{Objective, objective};
use crate::optimizer::Optimizer;
use crate::parameters::{Parameters, write_whole};
use crate::recipe::StageRecipe;

/// How often a checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);
/// Steps over which a point of a curve is a mean.
const POINT: usize = 20;
/// Part of the steps, at their end, whose parameters are averaged.
const AVERAGED: f64 = 0.1;

/// Means of a loss and its parts over some steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The last of the steps, counted from 1.
    pub step: usize,
    /// Name and mean of each part; the loss itself comes first.
    pub values: Vec<(String, f64)>,
}

/// What a checkpoint keeps beside tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    step: usize,
    points: Vec<Point>,
}

/// A stage's files.
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// The files of a stage in the directory of a run.
    pub fn new(run: &Path, stage: &str) -> Self {
        Self { directory: run.join(stage) }
    }

    /// The parameters in the end.
    pub fn result(&self) -> PathBuf {
        self.directory.join("parameters.safetensors")
    }

    fn checkpoint(&self) -> PathBuf {
        self.directory.join("checkpoint.safetensors")
    }

    fn progress(&self) -> PathBuf {
        self.directory.join("progress.json")
    }

    fn curve(&self) -> PathBuf {
        self.directory.join("curve.png")
    }
}

/// A stage in training.
pub struct Trainer<'a> {
    lab: &'a Lab,
    stage: &'a StageRecipe,
    files: Files,
    objective: Box<dyn Objective>,
    parameters: Parameters,
    average: Parameters,
    optimizer: Optimizer,
    progress: Progress,
}

impl<'a> Trainer<'a> {
    /// Begins a stage with the given parameters, or with `resume` goes on from its checkpoint, if there is one.
    ///
    /// # Errors
    /// Networks that the objective needs are missing, or the checkpoint cannot be read.
    pub fn new(
        lab: &'a Lab,
        stage: &'a StageRecipe,
        run: &Path,
        mut parameters: Parameters,
        resume: bool,
    ) -> Result<Self> {
        let objective = objective(stage);
        let missing: Vec<&str> =
            objective.needs().iter().copied().filter(|network| !parameters.has(network)).collect();
        ensure!(
            missing.is_empty(),
            "stage `{}` needs what no stage before it trained: {}; name those stages in its `after`",
            stage.name,
            missing.join(", ")
        );
        tch::manual_seed(lab.recipe.seed as i64);
        for kind in StageKind::ALL {
            let network = kind.to_string();
            if objective.trains().contains(&network.as_str()) {
                let config = lab.recipe.networks.get(&kind).context("recipes have all networks")?;
                parameters.fit(&network, config)?;
            }
        }
        objective.prepare(lab, &mut parameters)?;
        parameters.train_only(|name| {
            let network = name.split('/').next().unwrap_or_default();
            objective.trains().contains(&network) && objective.trained(name)
        });
        let mut trainer = Self {
            lab,
            stage,
            files: Files::new(run, &stage.name),
            objective,
            parameters,
            average: Parameters::default(),
            optimizer: Optimizer::new(stage.optimizer, stage.clip_norm),
            progress: Progress { step: 0, points: Vec::new() },
        };
        if resume {
            trainer.resume()?;
        }
        Ok(trainer)
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.progress.step
    }

    /// The parameters as they are.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parameters as they are, to be kept.
    pub fn into_parameters(self) -> Parameters {
        self.parameters
    }

    /// Trains to the end and writes the parameters.
    ///
    /// # Errors
    /// An operation fails, losses are no numbers any more, or files cannot be written.
    pub fn run(mut self) -> Result<()> {
        let bar = indicatif::ProgressBar::new(self.stage.steps as u64).with_style(
            indicatif::ProgressStyle::with_template("{prefix} {pos}/{len} {elapsed} left {eta} {msg}")
                .context("the template is valid")?,
        );
        bar.set_prefix(self.stage.name.clone());
        bar.set_position(self.progress.step as u64);
        let mut saved = Instant::now();
        let mut window = Window::new();
        while self.progress.step < self.stage.steps {
            window.add(self.advance()?);
            if self.progress.step.is_multiple_of(POINT) || self.progress.step == self.stage.steps {
                let rate =
                    window.count as f64 * self.stage.batch as f64 / window.started.elapsed().as_secs_f64();
                let point = window.point(self.progress.step);
                ensure!(
                    point.values.iter().all(|(_, value)| value.is_finite()),
                    "stage `{}` diverged before step {}: a loss is no number; lower its learning rate",
                    self.stage.name,
                    self.progress.step
                );
                let line = format!("{} | {rate:.1} examples/s", shown(&point));
                bar.set_message(line.clone());
                if bar.is_hidden() && (self.progress.step / POINT).is_multiple_of(5) {
                    eprintln!("{} {}/{} {line}", self.stage.name, self.progress.step, self.stage.steps);
                }
                self.progress.points.push(point);
                window = Window::new();
            }
            bar.set_position(self.progress.step as u64);
            if saved.elapsed() > CHECKPOINT_EVERY {
                self.save()?;
                saved = Instant::now();
            }
        }
        bar.finish();
        self.finish()
    }

    /// Does one step and returns the loss and its parts.
    ///
    /// # Errors
    /// An operation fails.
    pub fn advance(&mut self) -> Result<Vec<(&'static str, Tensor)>> {
        let step = self.progress.step;
        // Each step draws from its own seed, so that a run that was interrupted goes on as if it had not been.
        let seed = self.lab.recipe.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step as u64);
        tch::manual_seed(seed as i64);
        let mut rng = Rng::with_seed(seed);
        let loss = self.objective.loss(self.lab, &self.parameters, &mut rng)?;
        loss.total.backward();
        let learning_rate = self.stage.learning_rate_at(step);
        self.optimizer.step(&self.parameters, |name| learning_rate * self.objective.rate(name), step);
        self.progress.step += 1;
        self.average_in();
        let mut parts = vec![("loss", loss.total.detach())];
        parts.extend(loss.parts.into_iter().map(|(name, part)| (name, part.detach())));
        Ok(parts)
    }

    /// Over how many steps parameters have been averaged.
    fn averaged(&self) -> usize {
        let start = (self.stage.steps as f64 * (1.0 - AVERAGED)).floor() as usize;
        self.progress.step.saturating_sub(start)
    }

    /// Adds the parameters to their average over the last part of the steps.
    fn average_in(&mut self) {
        let averaged = self.averaged();
        if averaged == 0 {
            return;
        }
        let weight = 1.0 / averaged as f64;
        let mut average = Parameters::default();
        tch::no_grad(|| {
            for (name, tensor) in self.parameters.trained() {
                let next = match self.average.get(name) {
                    Some(mean) => mean + (tensor - mean) * weight,
                    None => tensor.copy(),
                };
                average.insert(name, next);
            }
        });
        self.average = average;
    }

    fn finish(mut self) -> Result<()> {
        let average = std::mem::take(&mut self.average);
        self.parameters.take(average);
        self.parameters.train_only(|_| false);
        self.objective.finish(self.lab, &mut self.parameters)?;
        let trains = self.objective.trains();
        self.parameters.save(&self.files.result(), |name| {
            trains.iter().any(|network| name.starts_with(&format!("{network}/")))
        })?;
        self.write_progress()?;
        let checkpoint = self.files.checkpoint();
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)
                .with_context(|| format!("cannot remove {}", checkpoint.display()))?;
        }
        Ok(())
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (name, tensor) in self.parameters.trained() {
            tensors.push((format!("parameters/{name}"), tensor.detach()));
        }
        for (name, tensor) in self.average.iter() {
            tensors.push((format!("average/{name}"), tensor.shallow_clone()));
        }
        for (name, tensor) in self.optimizer.state() {
            tensors.push((format!("optimizer/{name}"), tensor));
        }
        // The step is in the same file as the tensors, so that both are of one moment.
        tensors.push(("step".to_owned(), Tensor::from_slice(&[self.progress.step as f32])));
        let tensors: Vec<(&str, Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.contiguous())).collect();
        write_whole(&self.files.checkpoint(), |partial| Ok(Tensor::write_safetensors(&tensors, partial)?))?;
        self.write_progress()
    }

    fn write_progress(&self) -> Result<()> {
        write_whole(&self.files.progress(), |partial| {
            Ok(std::fs::write(partial, serde_json::to_string(&self.progress)?)?)
        })?;
        curves::draw(&self.progress.points, &self.files.curve())
    }

    fn resume(&mut self) -> Result<()> {
        let path = self.files.checkpoint();
        if !path.exists() {
            return Ok(());
        }
        let state = Parameters::load(&path)?;
        let step = state.get("step").map(|step| step.double_value(&[0]) as usize);
        let Some(step) = step else { bail!("{} is no checkpoint", path.display()) };
        let progress = std::fs::read(self.files.progress())
            .with_context(|| format!("cannot read {}", self.files.progress().display()))?;
        let mut progress: Progress = serde_json::from_slice(&progress)
            .with_context(|| format!("{} is damaged", self.files.progress().display()))?;
        progress.points.retain(|point| point.step <= step);
        progress.step = step;
        self.progress = progress;
        let names: Vec<String> = self.parameters.trained().map(|(name, _)| name.to_owned()).collect();
        let loaded = state.part("parameters");
        let missing = names.iter().filter(|name| loaded.get(name).is_none()).count();
        ensure!(
            missing == 0,
            "{} lacks {missing} trained parameters: it is of another recipe",
            path.display()
        );
        self.parameters.take(loaded);
        self.parameters.train_only(|name| names.iter().any(|trained| trained == name));
        self.average = state.part("average");
        self.optimizer.restore(&state.part("optimizer"));
        Ok(())
    }
}

/// Sums over the steps since the last point.
struct Window {
    sums: Vec<(&'static str, Tensor)>,
    count: usize,
    started: Instant,
}

impl Window {
    fn new() -> Self {
        Self { sums: Vec::new(), count: 0, started: Instant::now() }
    }

    fn add(&mut self, parts: Vec<(&'static str, Tensor)>) {
        self.count += 1;
        for (name, part) in parts {
            match self.sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum = &*sum + part,
                None => self.sums.push((name, part)),
            }
        }
    }

    fn point(&self, step: usize) -> Point {
        let mean = |sum: &Tensor| sum.to_kind(Kind::Float).double_value(&[]) / self.count.max(1) as f64;
        let values = self.sums.iter().map(|(name, sum)| ((*name).to_owned(), mean(sum))).collect();
        Point { step, values }
    }
}

fn shown(point: &Point) -> String {
    let parts: Vec<String> = point.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    parts.join(" ")
}
