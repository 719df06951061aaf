//! The diffusion loss.

use anyhow::Result;
use smartedit_core::diffusion::alphas_cumprod;
use smartedit_core::model::{PredictionType, SchedulerConfig};
use tch::{Kind, Tensor};

/// The forward process of a noise schedule.
pub struct Diffusion {
    /// `[timesteps]`.
    alphas: Tensor,
    prediction: PredictionType,
}

/// Latents with noise added, and what a denoiser should make of them.
pub struct Noised {
    /// `[batch, c, h, w]`.
    pub latents: Tensor,
    /// `[batch]`, in 32 bits.
    pub timesteps: Tensor,
    /// `[batch, c, h, w]`.
    pub target: Tensor,
}

impl Diffusion {
    /// The process of a schedule.
    ///
    /// # Errors
    /// The schedule makes no sense.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        Ok(Self { alphas: Tensor::from_slice(&alphas_cumprod(config)?), prediction: config.prediction_type })
    }

    /// Adds noise at evenly drawn timesteps; a part of the batch, its first examples, gets the last one.
    pub fn noise(&self, latents: &Tensor, part_at_last: f64) -> Noised {
        let count = self.alphas.size()[0];
        let batch = latents.size()[0];
        let timesteps = Tensor::randint(count, [batch], (Kind::Int64, tch::Device::Cpu));
        let last = (batch as f64 * part_at_last).round() as i64;
        let _ = timesteps.narrow(0, 0, last.clamp(0, batch)).fill_(count - 1);
        self.noise_at(latents, &timesteps)
    }

    /// Adds noise at given timesteps, `[batch]`.
    pub fn noise_at(&self, latents: &Tensor, timesteps: &Tensor) -> Noised {
        let noise = latents.randn_like();
        let alpha = self.alphas.index_select(0, timesteps).reshape([-1, 1, 1, 1]);
        let (signal, part) = (alpha.sqrt(), (alpha * -1.0 + 1.0).sqrt());
        let target = match self.prediction {
            PredictionType::Epsilon => noise.shallow_clone(),
            PredictionType::VPrediction => &signal * &noise - &part * latents,
        };
        Noised {
            latents: &signal * latents + &part * &noise,
            timesteps: timesteps.to_kind(Kind::Float),
            target,
        }
    }
}

/// Mean squared error with the cells of a mask `[batch, 1, h, w]` weighted by `1 + weight`, as a mean over all
/// elements.
pub fn masked_square(prediction: &Tensor, target: &Tensor, mask: &Tensor, weight: f64) -> Tensor {
    ((prediction - target).square() * (mask * weight + 1.0)).mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use smartedit_core::model::{BetaSchedule, SchedulerKind, TimestepSpacing};

    use super::*;

    fn config(prediction_type: PredictionType) -> SchedulerConfig {
        SchedulerConfig {
            default: SchedulerKind::Euler,
            beta_start: 0.5,
            beta_end: 0.5,
            beta_schedule: BetaSchedule::Linear,
            num_train_timesteps: 2,
            steps_offset: 0,
            prediction_type,
            timestep_spacing: TimestepSpacing::Linspace,
        }
    }

    /// With β = ½, ᾱ is ½ and ¼.
    #[test]
    fn noised_latents_and_targets_are_what_the_definitions_say() {
        let latents = Tensor::from_slice(&[1.0f32, -2.0]).reshape([2, 1, 1, 1]);
        let timesteps = Tensor::from_slice(&[0i64, 1]);
        for prediction in [PredictionType::Epsilon, PredictionType::VPrediction] {
            let noised = Diffusion::new(&config(prediction)).unwrap().noise_at(&latents, &timesteps);
            for (row, alpha) in [(0, 0.5f64), (1, 0.25)] {
                let value = |x: &Tensor| x.double_value(&[row, 0, 0, 0]);
                let (signal, part) = (alpha.sqrt(), (1.0 - alpha).sqrt());
                let noise = (value(&noised.latents) - signal * value(&latents)) / part;
                let expected = match prediction {
                    PredictionType::Epsilon => noise,
                    PredictionType::VPrediction => signal * noise - part * value(&latents),
                };
                assert!((value(&noised.target) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_part_of_the_batch_is_at_the_last_timestep() {
        let diffusion = Diffusion::new(&config(PredictionType::Epsilon)).unwrap();
        let noised = diffusion.noise(&Tensor::zeros([8, 1, 2, 2], tch::kind::FLOAT_CPU), 0.5);
        assert!(Vec::<f32>::try_from(noised.timesteps.narrow(0, 0, 4)).unwrap().iter().all(|&t| t == 1.0));
    }

    /// `((1 − 0)² · (1 + 3) + (2 − 0)²) / 2`.
    #[test]
    fn masked_cells_weigh_more() {
        let prediction = Tensor::from_slice(&[1.0f32, 2.0]).reshape([1, 1, 1, 2]);
        let mask = Tensor::from_slice(&[1.0f32, 0.0]).reshape([1, 1, 1, 2]);
        let loss = masked_square(&prediction, &prediction.zeros_like(), &mask, 3.0);
        assert_eq!(loss.double_value(&[]), 4.0);
    }
}
