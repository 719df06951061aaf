//! What a file's surroundings say of rank and alpha.

use std::path::Path;

use serde_json::Value;

use super::AdapterError;
use crate::model::convert::{Lora, Problem};

/// PEFT's name of the configuration beside the weights.
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";
/// diffusers' name of the configuration in the file's header.
const DIFFUSERS_METADATA: &str = "lora_adapter_metadata";
/// What precedes the denoiser's settings there.
const UNET: &str = "unet.";
/// Bytes of a configuration.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Rank, and what products of factors are multiplied with.
pub(super) struct Alpha {
    pub(super) from: &'static str,
    pub(super) rank: usize,
    pub(super) scale: f32,
}

/// PEFT's configuration in a directory, if there is one: its text and what it says.
pub(super) fn peft(directory: &Path) -> Result<Option<(Vec<u8>, Alpha)>, AdapterError> {
    let path = directory.join(PEFT_CONFIG);
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.is_file() => {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no file").into());
        }
        Ok(metadata) if metadata.len() > MAX_CONFIG_BYTES => {
            return Err(AdapterError::TooLarge { bytes: metadata.len(), limit: MAX_CONFIG_BYTES });
        }
        Ok(_) => {}
    }
    let text = std::fs::read(&path)?;
    let alpha = parse(PEFT_CONFIG, &path, serde_json::from_slice(&text))?;
    Ok(Some((text, alpha)))
}

/// What diffusers has written of the UNet into the header of a safetensors file, if it has.
pub(super) fn diffusers(file: &[u8]) -> Result<Option<Alpha>, AdapterError> {
    let Ok((_, header)) = safetensors::SafeTensors::read_metadata(file) else { return Ok(None) };
    let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(DIFFUSERS_METADATA)) else {
        return Ok(None);
    };
    let unet = serde_json::from_str(text).map(|value: serde_json::Map<String, Value>| {
        let own = |(key, value): (String, Value)| Some((key.strip_prefix(UNET)?.to_owned(), value));
        Value::Object(value.into_iter().filter_map(own).collect())
    });
    match unet {
        Ok(Value::Object(settings)) if settings.is_empty() => Ok(None),
        unet => parse(DIFFUSERS_METADATA, Path::new(DIFFUSERS_METADATA), unet).map(Some),
    }
}

fn parse(name: &'static str, path: &Path, value: serde_json::Result<Value>) -> Result<Alpha, AdapterError> {
    let unfit = |message: String| AdapterError::Config { name, message };
    let value = value.map_err(|error| unfit(format!("is not valid JSON: {error}")))?;
    match Lora::of(path, value) {
        Ok((Lora { rank, scale, .. }, _)) => Ok(Alpha { from: name, rank, scale }),
        Err(Problem::Config { message, .. }) => Err(unfit(message)),
        Err(problem) => Err(unfit(problem.to_string())),
    }
}
