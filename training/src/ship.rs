//! Writing a trained model as a model directory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use smartedit_core::model::{
    FORMAT_VERSION, ModelConfig, ModelWriter, PipelineConfig, StageConfig, WriteError,
};
use smartedit_core::networks::manifest;
use tch::{Kind, Tensor};

use crate::parameters::Parameters;
use crate::recipe::{ModelRecipe, Recipe};

/// Writes a model directory, its parameters in 16 bits.
///
/// # Errors
/// Parameters are missing, or files cannot be written.
pub fn ship(
    recipe: &Recipe,
    model: &ModelRecipe,
    parameters: &Parameters,
    tokenizers: &BTreeMap<String, String>,
    out: &Path,
) -> Result<()> {
    let clip_tokenizer = "clip_tokenizer".to_owned();
    let pipeline = match model.kind.as_str() {
        "smartedit" => PipelineConfig::SmartEdit {
            tokenizer: "tokenizer.json".to_owned(),
            clip_tokenizer,
            prompt: recipe.prompt.clone(),
        },
        "instruct-pix2pix" => PipelineConfig::InstructPix2Pix { clip_tokenizer },
        other => bail!("there is no kind of model {other:?}"),
    };
    let mut writer = ModelWriter::create(out)?;
    for (name, content) in tokenizers {
        if name == "tokenizer.json" && !matches!(pipeline, PipelineConfig::SmartEdit { .. }) {
            continue;
        }
        writer.write::<WriteFailure>(name, |sink| Ok(sink.write_all(content.as_bytes())?))?;
    }
    let mut stages = BTreeMap::new();
    for &kind in pipeline.stages() {
        let network =
            recipe.networks.get(&kind).with_context(|| format!("the recipe has no {kind}"))?.clone();
        let file = format!("{kind}.safetensors");
        let bytes = weights(&kind.to_string(), &manifest(&network)?, parameters)?;
        writer.write::<WriteFailure>(&file, |sink| Ok(sink.write_all(&bytes)?))?;
        stages.insert(kind, StageConfig { file, network });
    }
    writer.finish(ModelConfig {
        format: FORMAT_VERSION,
        name: model.name.clone(),
        pipeline,
        stages,
        scheduler: recipe.scheduler.clone(),
        defaults: recipe.defaults.clone(),
        files: BTreeMap::new(),
        sources: BTreeMap::from([("recipe".to_owned(), recipe.name.clone())]),
    })?;
    Ok(())
}

/// What may go wrong while a file of the directory is written.
#[derive(Debug, thiserror::Error)]
enum WriteFailure {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
}

/// A safetensors file of a network's parameters.
fn weights(network: &str, wanted: &[(String, Vec<usize>)], parameters: &Parameters) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(wanted.len());
    for (name, shape) in wanted {
        let full = format!("{network}/{name}");
        let tensor = parameters.get(&full).with_context(|| format!("nothing has trained {full}"))?;
        data.push((name, shape, half_bytes(tensor)?));
    }
    let views = data
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F16, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, None)?)
}

fn half_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.detach().to_kind(Kind::Float).contiguous().reshape([-1]);
    let values = Vec::<f32>::try_from(&flat)?;
    Ok(values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect())
}
