//! The networks as functions over an engine's tensors.

use super::signature::Function;
use crate::engine::{Engine, EngineError, Result};
use crate::model::NetworkConfig;
use crate::networks::{
    Connector, KeyValue, LanguageModel, Positions, PreparedContext, TextEncoder, Unet, VaeDecoder,
    VaeEncoder, VisionEncoder,
};
use crate::weights::{self, Weights};

/// The network of a stage; `T` is a tensor of the engine that holds its parameters.
#[expect(clippy::large_enum_variant, reason = "there is one for each loaded stage")]
pub enum Network<T> {
    /// CLIP vision tower.
    VisionEncoder(VisionEncoder<T>),
    /// LLaMA with the vision projector.
    LanguageModel(LanguageModel<T>),
    /// QFormer and what follows it.
    Connector(Connector<T>),
    /// CLIP text encoder.
    TextEncoder(TextEncoder<T>),
    /// VAE encoder.
    VaeEncoder(VaeEncoder<T>),
    /// UNet.
    Denoiser(Unet<T>),
    /// VAE decoder.
    VaeDecoder(VaeDecoder<T>),
}

impl<T: Clone> Network<T> {
    /// Loads the network that `config` describes.
    pub fn load(weights: &Weights<'_, T>, config: &NetworkConfig) -> weights::Result<Self> {
        Ok(match config {
            NetworkConfig::VisionEncoder(c) => Self::VisionEncoder(VisionEncoder::load(weights, c)?),
            NetworkConfig::LanguageModel(c) => Self::LanguageModel(LanguageModel::load(weights, c)?),
            NetworkConfig::Connector(c) => Self::Connector(Connector::load(weights, c)?),
            NetworkConfig::TextEncoder(c) => Self::TextEncoder(TextEncoder::load(weights, c)?),
            NetworkConfig::VaeEncoder(c) => Self::VaeEncoder(VaeEncoder::load(weights, c)?),
            NetworkConfig::Denoiser(c) => Self::Denoiser(Unet::load(weights, c)?),
            NetworkConfig::VaeDecoder(c) => Self::VaeDecoder(VaeDecoder::load(weights, c)?),
        })
    }

    /// Calls a function, with the inputs and outputs of its [`Signature`](super::signature::Signature) in their
    /// order. `None` stands for an input that is not given.
    ///
    /// # Errors
    ///
    /// An operation failed, or these are not the inputs of a function of this network.
    pub fn call<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        function: Function,
        inputs: &[Option<&T>],
    ) -> Result<Vec<T>> {
        use Function::{Forward, Logits, Prepare, ResizeFeature, Step, Whole};
        match (self, function, inputs) {
            (Self::VisionEncoder(network), Whole, [Some(pixels)]) => {
                Ok(vec![network.forward(e, &e.cast(pixels)?)?])
            }
            (Self::Connector(network), Whole, [Some(states), Some(image)]) => {
                let conditioning = network.forward(e, &e.cast(states)?, &e.cast(image)?)?;
                Ok([conditioning.prompt_embeds].into_iter().chain(conditioning.image_feature).collect())
            }
            (Self::TextEncoder(network), Whole, [Some(ids)]) => Ok(vec![network.forward(e, ids)?]),
            (Self::VaeEncoder(network), Whole, [Some(image)]) => {
                Ok(vec![network.forward(e, &e.cast(image)?)?])
            }
            (Self::VaeDecoder(network), Whole, [Some(latents)]) => {
                Ok(vec![network.forward(e, &e.cast(latents)?)?])
            }
            (Self::Denoiser(unet), Prepare, [Some(embeds)]) => {
                Ok(flattened(unet.prepare(e, &e.cast(embeds)?)?.0))
            }
            (Self::Denoiser(_), ResizeFeature, [Some(feature), Some(sample)]) => {
                Ok(vec![e.resize_bilinear_like(&e.cast(feature)?, sample)?])
            }
            (Self::Denoiser(unet), Step, [Some(sample), Some(timestep), feature, context @ ..]) => {
                let context = PreparedContext(key_values(context));
                Ok(vec![unet.forward(e, &e.cast(sample)?, timestep, &context, *feature)?])
            }
            (Self::Denoiser(unet), Whole, [Some(sample), Some(timestep), Some(embeds), feature @ ..]) => {
                let context = unet.prepare(e, &e.cast(embeds)?)?;
                let feature = match feature.first().copied().flatten() {
                    Some(feature) => Some(e.resize_bilinear_like(&e.cast(feature)?, sample)?),
                    None => None,
                };
                Ok(vec![unet.forward(e, &e.cast(sample)?, timestep, &context, feature.as_ref())?])
            }
            (
                Self::LanguageModel(network),
                Forward,
                [before, features, after, Some(cos), Some(sin), Some(mask), past @ ..],
            ) => {
                let embeddings = embeddings(network, e, *before, *features, *after)?;
                let positions = Positions { cos: e.cast(cos)?, sin: e.cast(sin)?, mask: e.cast(mask)? };
                let past = key_values(past);
                let past = (!past.is_empty()).then_some(past.as_slice());
                let (states, layers) = network.forward(e, embeddings, &positions, past)?;
                Ok([states].into_iter().chain(flattened(layers)).collect())
            }
            (Self::LanguageModel(network), Logits, [Some(states)]) => Ok(vec![network.logits(e, states)?]),
            _ => {
                let message = format!("the network has no such function of {} inputs", inputs.len());
                Err(EngineError::new(function.name(), message))
            }
        }
    }
}

/// Embeddings `[1, n, h]` of tokens, image features and again tokens, as far as they are given.
fn embeddings<E: Engine>(
    network: &LanguageModel<E::Tensor>,
    e: &E,
    before: Option<&E::Tensor>,
    features: Option<&E::Tensor>,
    after: Option<&E::Tensor>,
) -> Result<E::Tensor> {
    let embed = |ids: Option<&E::Tensor>| ids.map(|ids| network.embed(e, ids)).transpose();
    let project = |features| network.project(e, &e.cast(features)?);
    let parts = [embed(before)?, features.map(project).transpose()?, embed(after)?];
    let parts: Vec<&E::Tensor> = parts.iter().flatten().collect();
    match parts[..] {
        [only] => Ok(only.clone()),
        _ => e.concat(&parts, 1),
    }
}

/// Keys and values that follow each other in a list; none, if none are given.
fn key_values<T: Clone>(list: &[Option<&T>]) -> Vec<KeyValue<T>> {
    let pair = |pair: &[Option<&T>; 2]| match *pair {
        [Some(key), Some(value)] => Some(KeyValue { key: key.clone(), value: value.clone() }),
        _ => None,
    };
    list.as_chunks::<2>().0.iter().filter_map(pair).collect()
}

fn flattened<T>(layers: Vec<KeyValue<T>>) -> Vec<T> {
    layers.into_iter().flat_map(|layer| [layer.key, layer.value]).collect()
}
