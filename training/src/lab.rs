//! What all objectives share: the recipe, the machine, the tokenizers, and networks built of the parameters.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use smartedit_core::engine::Engine as _;
use smartedit_core::model::{
    ConnectorConfig, LlamaConfig, NetworkConfig, TextConfig, UnetConfig, VaeConfig, VisionConfig,
};
use smartedit_core::networks::{
    Connector, LanguageModel, TextEncoder, Unet, VaeDecoder, VaeEncoder, VisionEncoder,
};
use smartedit_core::stage::StageKind;
use smartedit_core::text::{ClipTokenizer, LlamaTokenizer};
use smartedit_torch::TorchTensor;
use tch::Tensor;

use crate::condition::PlaceFeatures;
use crate::conversation::Speaker;
use crate::diffusion::Diffusion;
use crate::machine::{Machine, leave};
use crate::parameters::Parameters;
use crate::recipe::Recipe;
use crate::source::Source;

/// Where objectives find what they need.
pub struct Lab {
    /// The recipe.
    pub recipe: Recipe,
    /// Where training computes.
    pub machine: Machine,
    /// The language model's tokenizer.
    pub tokenizer: LlamaTokenizer,
    /// The text encoder's tokenizer.
    pub clip_tokenizer: ClipTokenizer,
    /// Where encoded pictures are kept between runs.
    pub cache: PathBuf,
    diffusion: Diffusion,
    places: PlaceFeatures,
}

/// The configuration of a recipe's network.
macro_rules! network {
    ($recipe:expr, $kind:ident) => {
        match $recipe.networks.get(&StageKind::$kind) {
            Some(NetworkConfig::$kind(config)) => Ok(config),
            _ => Err(anyhow!("the recipe has no {}", StageKind::$kind)),
        }
    };
}

macro_rules! networks {
    ($($(#[$doc:meta])* $name:ident, $config:ident: $kind:ident, $Config:ty, $Network:ident;)+) => {
        impl Lab {
            $(
                /// The configuration of the network below.
                pub fn $config(&self) -> Result<&$Config> {
                    network!(self.recipe, $kind)
                }

                $(#[$doc])*
                ///
                /// # Errors
                /// Parameters are missing.
                pub fn $name(&self, parameters: &Parameters) -> Result<$Network<TorchTensor>> {
                    let config = self.$config()?;
                    let name = StageKind::$kind.to_string();
                    Ok(self.source(parameters, &name).build(|weights| $Network::load(weights, config))?)
                }
            )+
        }
    };
}

networks! {
    /// The vision tower.
    vision_encoder, vision_config: VisionEncoder, VisionConfig, VisionEncoder;
    /// The language model, adapters included.
    language_model, language_config: LanguageModel, LlamaConfig, LanguageModel;
    /// QFormer and interaction.
    connector, connector_config: Connector, ConnectorConfig, Connector;
    /// The text encoder.
    text_encoder, text_config: TextEncoder, TextConfig, TextEncoder;
    /// The picture encoder.
    vae_encoder, vae_config: VaeEncoder, VaeConfig, VaeEncoder;
    /// The UNet.
    unet, unet_config: Denoiser, UnetConfig, Unet;
    /// The picture decoder.
    vae_decoder, vae_decoder_config: VaeDecoder, VaeConfig, VaeDecoder;
}

impl Lab {
    /// A lab for a recipe.
    ///
    /// # Errors
    /// The recipe lacks a network, or its noise schedule makes no sense.
    pub fn new(
        recipe: Recipe,
        machine: Machine,
        tokenizer: LlamaTokenizer,
        clip_tokenizer: ClipTokenizer,
        cache: PathBuf,
    ) -> Result<Self> {
        let diffusion = Diffusion::new(&recipe.scheduler)?;
        let channels = |unet: &UnetConfig| unet.block_channels.first().copied().unwrap_or(0);
        let channels = channels(network!(recipe, Denoiser)?);
        let vision = network!(recipe, VisionEncoder)?;
        let places = PlaceFeatures::new(channels, vision.image_size / vision.patch_size, recipe.seed);
        Ok(Self { recipe, machine, tokenizer, clip_tokenizer, cache, diffusion, places })
    }

    fn source<'a>(&'a self, parameters: &'a Parameters, network: &'a str) -> Source<'a> {
        let scale = self.recipe.lora_scale();
        Source::new(parameters, network, self.machine.engine(), self.machine.kind(), scale)
    }

    /// Cells of a row of latents.
    pub fn latent_side(&self) -> Result<usize> {
        Ok(crate::world::SIZE / self.vae_config()?.downsampling())
    }

    /// Patches of a row of a picture.
    pub fn patch_side(&self) -> Result<usize> {
        let config = self.vision_config()?;
        Ok(config.image_size / config.patch_size)
    }

    /// Who makes prompts.
    pub fn speaker(&self) -> Result<Speaker<'_>> {
        Ok(Speaker::new(&self.tokenizer, &self.recipe.prompt, self.patch_side()?.pow(2)))
    }

    /// The forward process.
    pub fn diffusion(&self) -> &Diffusion {
        &self.diffusion
    }

    /// The features that say where to draw.
    pub fn places(&self) -> &PlaceFeatures {
        &self.places
    }

    /// Ids of texts, `[batch, n]`.
    ///
    /// # Errors
    /// A text cannot be tokenized.
    pub fn text_ids<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tensor> {
        let length = self.text_config()?.max_positions;
        let mut ids = Vec::with_capacity(texts.len() * length);
        for text in texts {
            ids.extend(self.clip_tokenizer.encode(text.as_ref(), length)?.into_iter().map(i64::from));
        }
        Ok(Tensor::from_slice(&ids).reshape([texts.len() as i64, length as i64]))
    }

    /// The text encoder's states of texts, `[batch, n, c]`.
    ///
    /// # Errors
    /// An operation fails.
    pub fn read<T: AsRef<str>>(&self, encoder: &TextEncoder<TorchTensor>, texts: &[T]) -> Result<Tensor> {
        leave(&encoder.forward(self.machine.engine(), &self.text_ids(texts)?.into())?)
    }

    /// The vision tower's features of pixels `[batch, 3, s, s]` in −1…1: `[batch, p, e]`.
    ///
    /// # Errors
    /// An operation fails.
    pub fn see(&self, encoder: &VisionEncoder<TorchTensor>, pixels: &Tensor) -> Result<Tensor> {
        let config = self.vision_config()?;
        let shape = [1i64, 3, 1, 1];
        let (mean, std) = (Tensor::from_slice(&config.image_mean), Tensor::from_slice(&config.image_std));
        let pixels = ((pixels + 1.0) / 2.0 - mean.reshape(shape)) / std.reshape(shape);
        leave(&encoder.forward(self.machine.engine(), &self.machine.enter(&pixels))?)
    }

    /// What a UNet predicts.
    ///
    /// # Errors
    /// An operation fails.
    pub fn denoise(
        &self,
        unet: &Unet<TorchTensor>,
        latents: &Tensor,
        image_latents: &Tensor,
        timesteps: &Tensor,
        embeds: &Tensor,
        feature: Option<&Tensor>,
    ) -> Result<Tensor> {
        let e = self.machine.engine();
        let sample = self.machine.enter(&Tensor::cat(&[latents, image_latents], 1));
        let context = unet.prepare(e, &self.machine.enter(embeds))?;
        let feature = feature
            .map(|feature| e.resize_bilinear_like(&self.machine.enter(feature), &sample))
            .transpose()?;
        let timesteps: TorchTensor = timesteps.shallow_clone().into();
        leave(&unet.forward(e, &sample, &timesteps, &context, feature.as_ref())?)
    }
}
