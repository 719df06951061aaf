//! What tells results of one model's stages from those of another's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ndarray::ArrayD;

use super::adapted;
use crate::adapter::Strength;
use crate::cache::{Key, KeyBuilder, StageCache};
use crate::decoding::{DecodingOptions, ImageTokens};
use crate::model::ModelConfig;
use crate::model::directory::sha256;
use crate::stage::{StageInfo, StageKind, StageOptions};
use crate::tensor::Tensors;
use crate::text::{PromptTokens, SpecialIds};

/// Stages whose results are a function of their inputs alone and are kept.
pub(super) const KEPT: [StageKind; 5] = [
    StageKind::VisionEncoder,
    StageKind::LanguageModel,
    StageKind::Connector,
    StageKind::TextEncoder,
    StageKind::VaeEncoder,
];

/// A model's access to a cache: each stage's results are kept under its identity and its inputs.
///
/// Inputs are digested as they are, so that a result is found whichever way led to the inputs: an instruction that
/// is new finds what the picture alone decides.
pub(super) struct Caching {
    pub(super) cache: Arc<StageCache>,
    pub(super) identities: BTreeMap<StageKind, Key>,
}

impl Caching {
    /// Of the same model with adapters.
    pub(super) fn adapted(&self, added: &[Strength]) -> Self {
        let of =
            |(stage, identity): (&StageKind, &Key)| (*stage, adapted::identity(*stage, *identity, added));
        Self { cache: self.cache.clone(), identities: self.identities.iter().map(of).collect() }
    }

    /// The key of what a stage makes of its inputs in one run.
    pub(super) fn key(&self, stage: StageKind, inputs: &Tensors) -> Option<Key> {
        let identity = self.identities.get(&stage)?;
        Some(KeyBuilder::new("stage").key(*identity).tensors(inputs).finish())
    }

    /// The key of a reply and its image tokens' states.
    pub(super) fn reply_key(&self, reply: &ReplyKey<'_>) -> Option<Key> {
        let identity = self.identities.get(&StageKind::LanguageModel)?;
        Some(reply.build(*identity))
    }
}

/// What shapes a reply besides the language model itself.
pub(super) struct ReplyKey<'a> {
    pub(super) prompt: &'a PromptTokens,
    pub(super) features: &'a ArrayD<f32>,
    pub(super) special: &'a SpecialIds,
    pub(super) options: &'a DecodingOptions,
    /// Whether the prompt is fed in parts.
    pub(super) in_parts: bool,
}

impl ReplyKey<'_> {
    fn build(&self, identity: Key) -> Key {
        // Nothing is left out by accident: a new field must find its place here.
        let DecodingOptions { image_tokens, temperature, seed, max_tokens, drafts, max_positions } =
            self.options;
        let SpecialIds { unk, bos, eos, image, image_start, image_end, first_image_token, last_image_token } =
            *self.special;
        let special = [unk, bos, eos, image, image_start, image_end, first_image_token, last_image_token];
        let free = match image_tokens {
            ImageTokens::Forced => 0,
            ImageTokens::Free => 1,
        };
        let features = Tensors::new().with("image_features", self.features.clone());
        let key = KeyBuilder::new("reply")
            .key(identity)
            .ids(&self.prompt.ids_without_image_token)
            .number(self.prompt.image_position as u64)
            .number(self.in_parts.into())
            .tensors(&features)
            .ids(&special)
            .number(free)
            .number(*max_tokens as u64)
            .number(*max_positions as u64);
        // Drafts shape no token, but how many positions share a pass, and with that how sums are rounded.
        let key = drafts.iter().fold(key.number(drafts.len() as u64), |key, draft| key.ids(draft));
        match self.options.is_greedy() {
            true => key.bytes(b"greedy").finish(),
            false => key.bytes(b"sampled").number(temperature.to_bits().into()).number(*seed).finish(),
        }
    }
}

/// What tells a stage from every other one: its weights and network, and all that decides how it is computed. `None`
/// where the weights are of no known content, because they come from no model directory or are another server's.
///
/// # Errors
/// The stage's program cannot be read.
pub(super) fn identity(
    config: &ModelConfig,
    info: &StageInfo,
    options: &StageOptions,
) -> io::Result<Option<Key>> {
    let StageInfo { kind, engine, device, precision, provider, weight_bytes: _ } = info;
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.map_err(io::Error::other);
    let key = KeyBuilder::new("identity")
        .bytes(kind.name().as_bytes())
        .bytes(engine.as_bytes())
        .bytes(device.as_bytes())
        .bytes(precision.to_string().as_bytes())
        .bytes(&json(serde_json::to_vec(provider))?)
        .bytes(&json(serde_json::to_vec(options))?);
    let Some(stage) = config.stages.get(kind).filter(|_| options.remote.is_none()) else { return Ok(None) };
    let computed_by = match (&options.program, config.files.get(&stage.file)) {
        (Some(program), _) => sha256(&program.file)?,
        (None, Some(weights)) => weights.sha256.to_ascii_lowercase(),
        (None, None) => return Ok(None),
    };
    let network = json(serde_json::to_vec(&stage.network))?;
    Ok(Some(key.bytes(&network).bytes(computed_by.as_bytes()).finish()))
}

#[cfg(test)]
mod tests;
