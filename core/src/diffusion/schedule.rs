//! Samplers: which noise levels are visited, and how to go from one to the next.
//!
//! Equal to diffusers 0.20.2's `EulerAncestralDiscreteScheduler`, `EulerDiscreteScheduler` and `DDIMScheduler`, with
//! `linspace` or `trailing` spacing, `clip_sample` and `set_alpha_to_one` off, and η = 0. Euler's noise draw, which
//! has no effect there, is left out.

use ndarray::{Array4, Zip};

use super::{DiffusionError, expect_shape};
use crate::model::{BetaSchedule, PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing};

/// Most training steps that a configuration may have.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

/// The noise levels that one run visits, from the noisiest on.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: SchedulerKind,
    prediction_type: PredictionType,
    levels: Vec<Level>,
    init_noise_sigma: f32,
}

/// A noise level that is visited, and the one that follows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Level {
    timestep: f32,
    from: f32,
    to: f32,
}

impl Schedule {
    /// The schedule of `steps` steps, 1 or more and no more than there are training steps.
    pub fn new(config: &SchedulerConfig, kind: SchedulerKind, steps: usize) -> Result<Self, DiffusionError> {
        let alphas = alphas_cumprod(config)?;
        let max = alphas.len();
        if !(1..=max).contains(&steps) {
            return Err(DiffusionError::Steps { steps, max });
        }
        let timesteps = match config.timestep_spacing {
            TimestepSpacing::Linspace => spread(max - 1, steps),
            TimestepSpacing::Trailing => trailing(max, steps),
        };
        let (levels, init_noise_sigma) = match kind {
            SchedulerKind::EulerAncestral | SchedulerKind::Euler => euler_levels(&alphas, &timesteps),
            SchedulerKind::Ddim => (ddim_levels(&alphas, &timesteps), 1.0),
        };
        Ok(Self { kind, prediction_type: config.prediction_type, levels, init_noise_sigma })
    }

    /// The sampler.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.levels.len()
    }

    /// What the denoiser is told in each step; not always whole numbers.
    pub fn timesteps(&self) -> impl ExactSizeIterator<Item = f32> {
        self.levels.iter().map(|level| level.timestep)
    }

    /// Euler's noise levels σ, the one after the last step, 0, included; DDIM's ᾱ, likewise.
    pub fn levels(&self) -> impl Iterator<Item = f32> {
        self.levels.iter().map(|level| level.from).chain(self.levels.last().map(|level| level.to))
    }

    /// What noise of unit variance is multiplied with to begin.
    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    /// Whether each step adds fresh noise.
    pub fn needs_noise(&self) -> bool {
        self.kind == SchedulerKind::EulerAncestral
    }

    /// The timestep of a step.
    pub fn timestep(&self, index: usize) -> Result<f32, DiffusionError> {
        self.level(index).map(|level| level.timestep)
    }

    /// Latents as the denoiser takes them in a step.
    pub fn scale_input(&self, latents: &Array4<f32>, index: usize) -> Result<Array4<f32>, DiffusionError> {
        let level = self.level(index)?;
        Ok(match self.kind {
            SchedulerKind::EulerAncestral | SchedulerKind::Euler => {
                let scale = (level.from * level.from + 1.0).sqrt();
                latents.mapv(|x| x / scale)
            }
            SchedulerKind::Ddim => latents.clone(),
        })
    }

    /// The noise-free latents that a prediction amounts to in a step.
    pub fn predicted_original(
        &self,
        latents: &Array4<f32>,
        prediction: &Array4<f32>,
        index: usize,
    ) -> Result<Array4<f32>, DiffusionError> {
        let level = self.level(index)?;
        expect_shape("predictions", prediction.shape(), latents.shape())?;
        let (of_latents, of_prediction) = self.original_weights(level.from);
        Ok(Zip::from(latents).and(prediction).map_collect(|&x, &p| of_latents * x + of_prediction * p))
    }

    /// What latents and prediction are multiplied with to give the noise-free latents, at a level.
    fn original_weights(&self, level: f32) -> (f32, f32) {
        use PredictionType::{Epsilon, VPrediction};
        match (self.kind, self.prediction_type) {
            (SchedulerKind::Ddim, Epsilon) => (1.0 / level.sqrt(), -((1.0 - level) / level).sqrt()),
            (SchedulerKind::Ddim, VPrediction) => (level.sqrt(), -(1.0 - level).sqrt()),
            (SchedulerKind::EulerAncestral | SchedulerKind::Euler, Epsilon) => (1.0, -level),
            (SchedulerKind::EulerAncestral | SchedulerKind::Euler, VPrediction) => {
                let variance = level * level + 1.0;
                (1.0 / variance, -level / variance.sqrt())
            }
        }
    }

    /// The latents after a step, given the prediction and, where [`Schedule::needs_noise`], fresh noise of unit
    /// variance. All arrays have the same shape.
    pub fn step(
        &self,
        latents: &Array4<f32>,
        prediction: &Array4<f32>,
        index: usize,
        noise: Option<&Array4<f32>>,
    ) -> Result<Array4<f32>, DiffusionError> {
        let level = self.level(index)?;
        let original = self.predicted_original(latents, prediction, index)?;
        if self.kind == SchedulerKind::Ddim {
            let (signal, direction) = (level.to.sqrt(), (1.0 - level.to).sqrt());
            let (from_signal, from_direction) = (level.from.sqrt(), (1.0 - level.from).sqrt());
            return Ok(Zip::from(&original).and(latents).and(prediction).map_collect(|&original, &x, &p| {
                let noise = match self.prediction_type {
                    PredictionType::Epsilon => p,
                    PredictionType::VPrediction => from_signal * p + from_direction * x,
                };
                signal * original + direction * noise
            }));
        }
        let (down, up) = if self.needs_noise() { ancestral(level.from, level.to) } else { (level.to, 0.0) };
        let dt = down - level.from;
        let mut next = Zip::from(latents)
            .and(&original)
            .map_collect(|&x, &original| x + (x - original) / level.from * dt);
        if self.needs_noise() {
            let noise = noise.ok_or(DiffusionError::NoNoise { index })?;
            expect_shape("noise values", noise.shape(), latents.shape())?;
            next.zip_mut_with(noise, |x, &noise| *x += noise * up);
        }
        Ok(next)
    }

    fn level(&self, index: usize) -> Result<Level, DiffusionError> {
        let steps = self.levels.len();
        self.levels.get(index).copied().ok_or(DiffusionError::NoStep { index, steps })
    }
}

/// How far an ancestral step goes down from σ `from`, and how much noise brings it up to σ `to`.
fn ancestral(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    ((to * to - up * up).sqrt(), up)
}

/// ᾱ of each training step: the part of the signal's variance that is left.
///
/// # Errors
/// The configuration makes no sense.
pub fn alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>, DiffusionError> {
    let SchedulerConfig { beta_start: start, beta_end: end, num_train_timesteps: steps, .. } = *config;
    if !(1..=MAX_TRAIN_TIMESTEPS).contains(&steps) {
        return Err(DiffusionError::Config(format!(
            "num_train_timesteps must be between 1 and {MAX_TRAIN_TIMESTEPS}, not {steps}"
        )));
    }
    if !(start > 0.0 && start <= end && end < 1.0) {
        return Err(DiffusionError::Config(format!(
            "0 < beta_start ≤ beta_end < 1 is needed, not {start} and {end}"
        )));
    }
    let betas = match config.beta_schedule {
        BetaSchedule::Linear => linspace(start as f32, end as f32, steps),
        BetaSchedule::ScaledLinear => {
            linspace(start.sqrt() as f32, end.sqrt() as f32, steps).into_iter().map(|b| b * b).collect()
        }
    };
    // PyTorch accumulates the product of floats in double precision.
    let mut product = 1.0_f64;
    let alphas: Vec<f32> = betas
        .into_iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect();
    if alphas.last().is_none_or(|&last| last <= 0.0) {
        return Err(DiffusionError::Config(
            "so many training steps of such variances leave no signal".into(),
        ));
    }
    Ok(alphas)
}

/// PyTorch's `linspace`, which computes each half from its own end.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count.max(2) - 1) as f32;
    (0..count)
        .map(|index| {
            if index < count / 2 || count == 1 {
                start + step * index as f32
            } else {
                end - step * (count - 1 - index) as f32
            }
        })
        .collect()
}

/// `count` numbers spread evenly over 0…`last`, the largest first; one number is 0.
fn spread(last: usize, count: usize) -> Vec<f64> {
    let step = last as f64 / (count.max(2) - 1) as f64;
    (0..count)
        .rev()
        .map(|index| if index + 1 == count && count > 1 { last as f64 } else { index as f64 * step })
        .collect()
}

/// Every `max / count`-th of `max` training steps, from the last on.
fn trailing(max: usize, count: usize) -> Vec<f64> {
    let stride = max as f64 / count as f64;
    (0..count).map(|index| (max as f64 - index as f64 * stride).round_ties_even() - 1.0).collect()
}

fn euler_levels(alphas: &[f32], timesteps: &[f64]) -> (Vec<Level>, f32) {
    let train: Vec<f32> = alphas.iter().map(|&alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
    let mut sigmas: Vec<f32> = timesteps.iter().map(|&t| interpolate(&train, t)).collect();
    sigmas.push(0.0);
    let levels = timesteps
        .iter()
        .zip(sigmas.windows(2))
        .filter_map(|(&t, pair)| match *pair {
            [from, to] => Some(Level { timestep: t as f32, from, to }),
            _ => None,
        })
        .collect();
    (levels, sigmas.into_iter().fold(0.0, f32::max))
}

/// The value at a fractional index within the range of indices.
fn interpolate(values: &[f32], index: f64) -> f32 {
    let below = index.floor();
    let at = |index: usize| values.get(index).copied().map_or(0.0, f64::from);
    let (first, second) = (at(below as usize), at((below as usize + 1).min(values.len() - 1)));
    (first + (second - first) * (index - below)) as f32
}

fn ddim_levels(alphas: &[f32], timesteps: &[f64]) -> Vec<Level> {
    let stride = alphas.len() / timesteps.len();
    let at = |index: usize| alphas.get(index).copied().unwrap_or_default();
    timesteps
        .iter()
        .map(|t| {
            let t = t.round_ties_even();
            let index = t as usize;
            // Before the first training step, its own ᾱ is the last.
            Level { timestep: t as f32, from: at(index), to: at(index.saturating_sub(stride)) }
        })
        .collect()
}
