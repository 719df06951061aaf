//! Reading an adapter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapMut;

use super::alpha::{self, Alpha};
use super::names::{Layer, Names, PEFT, Part};
use super::{Adapter, AdapterError};
use crate::cache::KeyBuilder;
use crate::model::ModelConfig;
use crate::stage::StageKind;
use crate::weights::{Dtype, Factors, Layers, WeightFile, WeightView};

/// PEFT's name of the weights in a directory.
const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
/// diffusers' name of the weights in a directory.
const DIFFUSERS_WEIGHTS: &str = "pytorch_lora_weights.safetensors";

pub(super) fn read(path: &Path, model: &ModelConfig, max_bytes: u64) -> Result<Adapter, AdapterError> {
    let path = weights_of(path)?;
    let file = copied(&path, max_bytes)?;
    let is_peft = path.file_name().is_some_and(|name| name == PEFT_WEIGHTS);
    let config = match path.parent().filter(|_| is_peft) {
        Some(directory) => alpha::peft(directory)?,
        None => None,
    };
    let (text, alpha) = match config {
        Some((text, alpha)) => (text, Some(alpha)),
        None => (Vec::new(), alpha::diffusers(file.contents())?),
    };
    let digest = KeyBuilder::new("adapter").bytes(file.contents()).bytes(&text).finish();

    let names = Names::of(model).map_err(|error| AdapterError::Format(error.to_string()))?;
    let mut stages: BTreeMap<StageKind, Layers> = BTreeMap::new();
    let (mut bytes, mut rank) = (0, 0);
    for parts in gather(&file, &names)?.into_values() {
        let Parts { layer, .. } = &parts;
        let (stage, weight) = (layer.stage, layer.weight.clone());
        let factors = parts.factors(alpha.as_ref())?;
        bytes += factors.bytes();
        rank = rank.max(factors.down.shape()[0]);
        stages.entry(stage).or_default().insert(weight, factors);
    }
    if stages.is_empty() {
        return Err(AdapterError::Empty);
    }
    let stages = stages.into_iter().map(|(stage, layers)| (stage, Arc::new(layers))).collect();
    Ok(Adapter { digest, bytes, rank, stages })
}

/// The files that [`read`] reads.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, AdapterError> {
    let weights = weights_of(path)?;
    let config = weights.with_file_name(alpha::PEFT_CONFIG);
    Ok(match config.exists() {
        true => vec![weights, config],
        false => vec![weights],
    })
}

/// The file of weights: the path itself, or what libraries call it in a directory.
fn weights_of(path: &Path) -> Result<PathBuf, AdapterError> {
    if !path.metadata()?.is_dir() {
        return Ok(path.to_owned());
    }
    let file =
        [PEFT_WEIGHTS, DIFFUSERS_WEIGHTS].map(|name| path.join(name)).into_iter().find(|file| file.is_file());
    file.ok_or_else(|| {
        let message = format!("the directory has neither {PEFT_WEIGHTS} nor {DIFFUSERS_WEIGHTS}");
        io::Error::new(io::ErrorKind::NotFound, message).into()
    })
}

/// The file in memory of its own: whoever replaces it later changes nothing that is in use.
fn copied(path: &Path, max_bytes: u64) -> Result<WeightFile, AdapterError> {
    // To open a pipe would be to wait for whoever writes it.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file").into());
    }
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let too_large = AdapterError::TooLarge { bytes, limit: max_bytes };
    if bytes > max_bytes {
        return Err(too_large);
    }
    let length = usize::try_from(bytes).map_err(|_| too_large)?;
    let mut map = MmapMut::map_anon(length.max(1))?;
    file.read_exact(&mut map[..length])?;
    WeightFile::of_map(Path::new(""), map.make_read_only()?).map_err(|error| match error {
        crate::weights::WeightsError::Format { message, .. } => AdapterError::Format(message),
        error => AdapterError::Format(error.to_string()),
    })
}

/// What a file has for one layer.
struct Parts<'a> {
    layer: &'a Layer,
    tensors: BTreeMap<Part, (String, WeightView)>,
}

/// The parts of every layer, by the name of its weight.
fn gather<'a>(
    file: &WeightFile,
    names: &'a Names,
) -> Result<BTreeMap<(StageKind, &'a str), Parts<'a>>, AdapterError> {
    let mut layers: BTreeMap<_, Parts<'a>> = BTreeMap::new();
    for (key, dtype, shape) in file.tensors() {
        let unfit = |message: String| AdapterError::Tensor { key: key.to_owned(), message };
        let (layer, part) = names.find(key).map_err(unfit)?;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(unfit(format!("holds {dtype:?} elements; f32, f16 or bf16 are needed")));
        }
        let view = file.view(key, shape).map_err(|error| unfit(error.to_string()))?;
        if view.to_f32().iter().any(|value| !value.is_finite()) {
            return Err(unfit("holds values that are not finite".to_owned()));
        }
        let entry = layers.entry((layer.stage, layer.weight.as_str()));
        let parts = entry.or_insert_with(|| Parts { layer, tensors: BTreeMap::new() });
        if let Some((other, _)) = parts.tensors.insert(part, (key.to_owned(), view)) {
            return Err(unfit(format!("is for the same layer as `{other}`")));
        }
    }
    Ok(layers)
}

impl Parts<'_> {
    fn factors(mut self, alpha: Option<&Alpha>) -> Result<Factors, AdapterError> {
        let own_alpha = self.tensors.remove(&Part::Alpha);
        let (down_key, down, up_key, up) =
            match (self.tensors.remove(&Part::Down), self.tensors.remove(&Part::Up)) {
                (Some((down_key, down)), Some((up_key, up))) => (down_key, down, up_key, up),
                (Some((key, _)), None) | (None, Some((key, _))) => {
                    return Err(unfit(key, "lacks its other half"));
                }
                (None, None) => {
                    let key = own_alpha.map(|(key, _)| key).unwrap_or_default();
                    return Err(unfit(key, "has no factors"));
                }
            };
        let rank = down.shape().first().copied().unwrap_or(0);
        if rank == 0 {
            return Err(unfit(down_key, "has rank 0"));
        }
        let (down_shape, up_shape) = shapes(&self.layer.shape, rank);
        let scale = match (own_alpha, alpha) {
            (Some((key, alpha)), _) => match alpha.to_f32()[..] {
                [alpha] => alpha / rank as f32,
                _ => return Err(unfit(key, "is no single number")),
            },
            (None, Some(alpha)) if alpha.rank == rank => alpha.scale,
            (None, Some(Alpha { rank: said, from, .. })) => {
                return Err(unfit(down_key, &format!("has rank {rank}, {from} says {said}")));
            }
            (None, None) if down_key.starts_with(PEFT) => {
                let message = format!(
                    "is in PEFT's layout, and no {} beside the file tells its alpha",
                    alpha::PEFT_CONFIG
                );
                return Err(unfit(down_key, &message));
            }
            // As diffusers does.
            (None, None) => 1.0,
        };
        let down = self.shaped(down_key, down, &down_shape)?;
        let up = self.shaped(up_key, up, &up_shape)?;
        Ok(Factors { down, up, scale })
    }

    /// A factor in the shape that the layer needs. Dimensions of one element at the end may be left out or added.
    fn shaped(&self, key: String, view: WeightView, shape: &[usize]) -> Result<WeightView, AdapterError> {
        let found = view.shape().to_vec();
        let same = trimmed(&found) == trimmed(shape);
        match same.then(|| view.reshaped(shape)).flatten() {
            Some(view) => Ok(view),
            None => Err(AdapterError::Shape {
                key,
                found,
                layer: self.layer.weight.trim_end_matches(".weight").to_owned(),
                stage: self.layer.stage,
                expected: shape.to_vec(),
            }),
        }
    }
}

/// Shapes of the factors for a weight.
fn shapes(weight: &[usize], rank: usize) -> (Vec<usize>, Vec<usize>) {
    let (outputs, rest) = weight.split_first().map_or((0, weight), |(outputs, rest)| (*outputs, rest));
    let down = std::iter::once(rank).chain(rest.iter().copied()).collect();
    let up = match weight.len() {
        4 => vec![outputs, rank, 1, 1],
        _ => vec![outputs, rank],
    };
    (down, up)
}

/// The first two dimensions, and those after them up to the last that is not 1.
fn trimmed(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().skip(2).rev().take_while(|&&size| size == 1).count();
    &shape[..shape.len() - ones]
}

fn unfit(key: String, message: &str) -> AdapterError {
    AdapterError::Tensor { key, message: message.to_owned() }
}
