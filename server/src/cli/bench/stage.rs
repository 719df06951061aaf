//! One stage at work.

use anyhow::Context as _;
use ndarray::{Array1, Array2, ArrayD};
use smartedit_core::diffusion::{NoiseSource, SeededNoise};
use smartedit_core::model::{IMAGE_TOKENS, InteractionConfig, NetworkConfig};
use smartedit_core::stage::{Backend, StageKind, StageOptions};
use smartedit_core::tensor::Tensors;

use super::model::RandomModel;
use super::{Bench, Work};

/// A timestep in the middle of training's.
const TIMESTEP: f32 = 500.0;

/// Loads a stage and puts its inputs ready.
pub(super) fn work(
    bench: &Bench,
    model: &RandomModel,
    kind: StageKind,
    backend: &dyn Backend,
    options: &StageOptions,
) -> anyhow::Result<Work> {
    let network = model.network(kind).context("the preset has no such stage")?;
    let mut noise = SeededNoise::new(model.seed());
    if let NetworkConfig::LanguageModel(llama) = network {
        let reply = model.reply(&model.tokenizers()?)?.context("the preset has no prompt")?;
        let stage = model.load(network, Some(&reply), backend, options)?;
        let features = noise.draw(&[1, features(model), llama.vision_size])?;
        let decode = bench.decoding;
        return Ok(Box::new(move || reply.decode(stage.as_ref(), &features, decode)));
    }
    let stage = model.load(network, None, backend, options)?;
    let inputs = Inputs::of(bench, model, network, &mut noise)?;
    let mut session = stage.session();
    if let Some(once) = inputs.once {
        session.run(&once)?;
    }
    Ok(Box::new(move || {
        session.run(&inputs.each)?;
        Ok(Vec::new())
    }))
}

/// What a stage is run on.
struct Inputs {
    /// What its session is given once.
    once: Option<Tensors>,
    /// What it is given each time.
    each: Tensors,
}

impl Inputs {
    fn of(
        bench: &Bench,
        model: &RandomModel,
        network: &NetworkConfig,
        noise: &mut SeededNoise,
    ) -> anyhow::Result<Self> {
        let (height, width) = bench.latents;
        let mut draw = |shape: &[usize]| -> anyhow::Result<ArrayD<f32>> { Ok(noise.draw(shape)?) };
        let each = match network {
            NetworkConfig::VisionEncoder(vision) => {
                Tensors::new().with("pixel_values", draw(&[1, 3, vision.image_size, vision.image_size])?)
            }
            NetworkConfig::LanguageModel(llama) => {
                anyhow::bail!("a language model of width {} needs a prompt", llama.hidden_size)
            }
            NetworkConfig::Connector(connector) => {
                let width = match &connector.interaction {
                    InteractionConfig::Bim(bim) => bim.vision_size,
                    InteractionConfig::SimpleCa(simple) => simple.vision_size,
                    InteractionConfig::Plain => 1,
                };
                Tensors::new()
                    .with("image_states", draw(&[1, IMAGE_TOKENS, connector.qformer.encoder_width])?)
                    .with("image_features", draw(&[1, features(model), width])?)
            }
            NetworkConfig::TextEncoder(text) => {
                Tensors::new().with("input_ids", Array2::<i64>::zeros((1, text.max_positions)))
            }
            NetworkConfig::VaeEncoder(vae) => {
                let scale = vae.downsampling();
                let shape = [1, vae.image_channels, height * scale, width * scale];
                Tensors::new().with("image", draw(&shape)?.mapv_into(f32::tanh))
            }
            NetworkConfig::VaeDecoder(vae) => {
                Tensors::new().with("latents", draw(&[1, vae.latent_channels, height, width])?)
            }
            NetworkConfig::Denoiser(unet) => {
                let batch = usize::from(bench.batch);
                let embeds = draw(&[batch, 77, unet.cross_attention_dim])?;
                let mut once = Tensors::new().with("prompt_embeds", embeds);
                if let Some(NetworkConfig::Connector(connector)) = model.network(StageKind::Connector)
                    && let InteractionConfig::Bim(bim) = &connector.interaction
                {
                    let grid = bim.grid_size;
                    once = once.with("image_feature", draw(&[1, bim.feature_channels, grid, grid])?);
                }
                let each = Tensors::new()
                    .with("sample", draw(&[batch, unet.in_channels, height, width])?)
                    .with("timestep", Array1::from_elem(batch, TIMESTEP));
                return Ok(Self { once: Some(once), each });
            }
        };
        Ok(Self { once: None, each })
    }
}

/// Number of image features that the model's vision encoder gives.
fn features(model: &RandomModel) -> usize {
    match model.network(StageKind::VisionEncoder) {
        Some(NetworkConfig::VisionEncoder(vision)) => (vision.image_size / vision.patch_size).pow(2),
        _ => 0,
    }
}
