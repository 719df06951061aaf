//! From tensors' names to layers: PEFT's, diffusers' and kohya's.

use std::collections::BTreeMap;

use super::ADAPTED;
use crate::model::ModelConfig;
use crate::networks;
use crate::stage::StageKind;
use crate::weights;

/// A part of a layer's update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Down,
    Up,
    Alpha,
}

/// What ends a tensor's name, after the layer's.
const ENDS: [(&str, Part); 11] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    // Of attention processors in diffusers before 0.20.
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
];

/// What may precede a layer's name.
const BEGINNINGS: [&str; 4] = [PEFT, "model.", "unet.", "language_model."];
/// PEFT's, which keeps alpha outside of the file.
pub(super) const PEFT: &str = "base_model.model.";
/// kohya's, whose layers have underscores for dots.
const KOHYA: &str = "lora_unet_";
/// What precedes the names of text encoders' layers.
const TEXT_ENCODERS: [&str; 4] = ["text_encoder.", "text_encoder_2.", "lora_te_", "lora_te1_"];

/// A linear or convolutional layer of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) stage: StageKind,
    /// The name of its weight.
    pub(super) weight: String,
    pub(super) shape: Vec<usize>,
}

/// The layers of a model that can be updated, by all names that they may have.
pub(super) struct Names(BTreeMap<String, Layer>);

impl Names {
    pub(super) fn of(model: &ModelConfig) -> weights::Result<Self> {
        let mut names = BTreeMap::new();
        for stage in ADAPTED {
            let Some(config) = model.stages.get(&stage) else { continue };
            for (weight, shape) in networks::updatable(&config.network)? {
                let name = weight.strip_suffix(".weight").unwrap_or(&weight).to_owned();
                let layer = Layer { stage, weight, shape };
                if stage == StageKind::Denoiser {
                    names.insert(format!("{KOHYA}{}", name.replace('.', "_")), layer.clone());
                }
                names.insert(name, layer);
            }
        }
        Ok(Self(names))
    }

    /// The layer that a tensor is for, and which part of its update it is.
    ///
    /// # Errors
    ///
    /// Why it is for none.
    pub(super) fn find(&self, key: &str) -> Result<(&Layer, Part), String> {
        let found = ENDS.iter().find_map(|(end, part)| Some((key.strip_suffix(end)?, *part)));
        let Some((name, part)) = found else {
            return Err(
                "is no factor and no alpha of a LoRA adapter for linear and convolutional layers".to_owned()
            );
        };
        if TEXT_ENCODERS.iter().any(|beginning| name.starts_with(beginning)) {
            let what = "is for a text encoder; only the denoiser and the language model can be adapted";
            return Err(what.to_owned());
        }
        let mut name = name;
        while let Some(rest) = BEGINNINGS.iter().find_map(|beginning| name.strip_prefix(beginning)) {
            name = rest;
        }
        // Attention processors call the output layer by the name of the list that it is in.
        let name = match name.split_once(".processor.") {
            Some((attention, "to_out")) => format!("{attention}.to_out.0"),
            Some((attention, layer)) => format!("{attention}.{layer}"),
            None => name.to_owned(),
        };
        let layer = self.0.get(&name).ok_or_else(|| {
            format!("is for `{name}`, which is no linear or convolutional layer of the model's denoiser or language model")
        })?;
        Ok((layer, part))
    }
}
