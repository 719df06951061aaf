//! The LoRA adapter of SmartEdit's language model (PEFT).

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Problem;
use super::configs::ConfigFile;

/// What `adapter_config.json` says.
#[derive(Debug)]
pub(crate) struct Lora {
    pub(crate) rank: usize,
    /// What the product of the two factors is multiplied with.
    pub(crate) scale: f32,
    targets: Targets,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Targets {
    Names(Vec<String>),
    /// A regular expression over module paths, or `all-linear`.
    Pattern(IgnoredAny),
}

impl Lora {
    /// Reads the configuration; also the notes it gives cause to.
    pub(super) fn read(path: &Path) -> Result<(Self, Vec<String>), Problem> {
        Self::parse(&ConfigFile::read(path)?)
    }

    /// The same of what has been read already.
    pub(crate) fn of(path: &Path, value: Value) -> Result<(Self, Vec<String>), Problem> {
        Self::parse(&ConfigFile::of(path, value))
    }

    fn parse(file: &ConfigFile<'_>) -> Result<(Self, Vec<String>), Problem> {
        #[derive(Deserialize)]
        struct Json {
            r: usize,
            lora_alpha: f64,
            target_modules: Targets,
            #[serde(default)]
            use_rslora: bool,
            #[serde(default)]
            fan_in_fan_out: bool,
        }
        file.only(&[
            ("peft_type", json!("LORA")),
            ("bias", json!("none")),
            ("layers_to_transform", Value::Null),
            ("modules_to_save", Value::Null),
            ("rank_pattern", json!({})),
            ("alpha_pattern", json!({})),
            ("use_dora", json!(false)),
        ])?;
        let json: Json = file.parse()?;
        if json.r == 0 || !json.lora_alpha.is_finite() {
            return Err(file.problem(format!("`r` is {} and `lora_alpha` is {}", json.r, json.lora_alpha)));
        }
        let rank = json.r as f64;
        let scale = json.lora_alpha / if json.use_rslora { rank.sqrt() } else { rank };
        let mut notes = Vec::new();
        if json.fan_in_fan_out {
            notes.push(
                "`fan_in_fan_out` is taken as false, as PEFT does for linear layers, which LLaMA has throughout"
                    .to_owned(),
            );
        }
        Ok((Self { rank: json.r, scale: scale as f32, targets: json.target_modules }, notes))
    }

    /// Whether a module must have an adapter; `None` if its tensors have to tell.
    pub(super) fn targets(&self, module: &str) -> Option<bool> {
        match &self.targets {
            Targets::Names(names) => Some(names.iter().any(|name| {
                module.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })),
            Targets::Pattern(_) => None,
        }
    }
}
