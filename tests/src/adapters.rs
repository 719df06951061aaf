//! LoRA adapters that tests make up.

#![allow(clippy::unwrap_used, reason = "what cannot be made fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use smartedit_core::adapter::{ADAPTED, Adapter};
use smartedit_core::model::ModelDirectory;
use smartedit_core::networks;
use smartedit_core::stage::StageKind;

const MAX_BYTES: u64 = 64 << 20;

/// Uniform values between -bound and bound.
fn values(count: usize, bound: f32, seed: &mut u64) -> Vec<f32> {
    let next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bound * ((*seed >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Which layers an adapter updates, and how.
pub struct Recipe<'a> {
    /// Rank of all factors.
    pub rank: usize,
    /// Alpha of all layers.
    pub alpha: f32,
    /// How far a layer's output is moved, as a part of what the layer makes of noise.
    pub strength: f32,
    /// Of the pseudo-random factors.
    pub seed: u64,
    /// Whether a layer is updated.
    pub wanted: &'a dyn Fn(StageKind, &str) -> bool,
}

impl Recipe<'_> {
    /// Writes an adapter for a model, in diffusers' names for the denoiser and PEFT's for the language model.
    pub fn write(&self, model: &ModelDirectory, directory: &Path) -> PathBuf {
        let mut seed = self.seed;
        let mut tensors = Vec::new();
        for stage in ADAPTED {
            let Some(config) = model.config().stages.get(&stage) else { continue };
            for (weight, shape) in networks::updatable(&config.network).unwrap() {
                let layer = weight.strip_suffix(".weight").unwrap();
                if !(self.wanted)(stage, layer) {
                    continue;
                }
                let (outputs, inputs): (usize, usize) = (shape[0], shape[1..].iter().product());
                let bound = |fan_in: usize| (3.0 / fan_in as f32).sqrt();
                let down_shape: Vec<usize> =
                    [self.rank].into_iter().chain(shape[1..].iter().copied()).collect();
                let up_shape = match shape.len() {
                    4 => vec![outputs, self.rank, 1, 1],
                    _ => vec![outputs, self.rank],
                };
                let scale = self.alpha / self.rank as f32;
                let down = values(self.rank * inputs, bound(inputs), &mut seed);
                let up = values(outputs * self.rank, self.strength * bound(self.rank) / scale, &mut seed);
                let name = |half: &str| match stage {
                    StageKind::Denoiser => format!("unet.{layer}.lora_{half}.weight"),
                    _ => format!("base_model.model.model.{layer}.lora_{half}.weight"),
                };
                tensors.push((name("A"), down_shape, down));
                tensors.push((name("B"), up_shape, up));
                tensors.push((name("A").replace(".lora_A.weight", ".alpha"), Vec::new(), vec![self.alpha]));
            }
        }
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<_> =
            tensors.into_iter().map(|(name, shape, values)| (name, shape, bytes(&values))).collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let path = directory.join(format!("{}.safetensors", self.seed));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        path
    }

    /// The adapter as it is read.
    pub fn read(&self, model: &ModelDirectory) -> Arc<Adapter> {
        let directory = tempfile::tempdir().unwrap();
        let path = self.write(model, directory.path());
        Arc::new(Adapter::read(&path, model.config(), MAX_BYTES).unwrap_or_else(|error| panic!("{error}")))
    }
}
