//! Planning the stages of a model directory: every tensor its networks ask for, and where it comes from.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::recipe::{Part, Planned, Recipe, dtype_name};
use super::source::Source;
use super::{ConvertError, Dropped, Problem, StageReport};
use crate::engine::Precision;
use crate::model::checkpoint::TensorView;
use crate::model::{ModelWriter, NetworkConfig, StageConfig, WriteError};
use crate::networks;
use crate::stage::StageKind;
use crate::weights::Dtype;

/// What comes up while sources are read.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) notes: Vec<String>,
}

impl Findings {
    /// The value, or `None` after noting the problem.
    pub(super) fn keep<T, E: Into<Problem>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem.into())).ok()
    }

    /// Takes a tensor of a source under the first of its possible names.
    pub(super) fn take<'a>(
        &mut self,
        stage: StageKind,
        source: &'a Source,
        candidates: &[String],
    ) -> Option<Part<'a>> {
        let Some((name, view)) = source.take(candidates) else {
            self.problems.push(Problem::MissingTensor {
                source_name: source.name.clone(),
                tensor: candidates.first().cloned().unwrap_or_default(),
                stage,
            });
            return None;
        };
        if !matches!(view.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64) {
            self.problems.push(Problem::DType {
                source_name: source.name.clone(),
                tensor: name,
                dtype: dtype_name(view.dtype()),
            });
            return None;
        }
        Some(Part { source: &source.name, name, view, rows: None })
    }

    /// Takes a tensor that must have a shape.
    pub(super) fn take_shaped<'a>(
        &mut self,
        stage: StageKind,
        source: &'a Source,
        candidates: &[String],
        shape: &[usize],
    ) -> Option<Part<'a>> {
        let part = self.take(stage, source, candidates)?;
        if part.view.shape() != shape {
            self.problems.push(Problem::Shape {
                source_name: source.name.clone(),
                tensor: part.name,
                found: part.view.shape().to_vec(),
                expected: shape.to_vec(),
                stage,
            });
            return None;
        }
        Some(part)
    }

    /// Accounts for the tensors of a source that no stage took: `reason` tells why one is not needed.
    pub(super) fn settle(&mut self, source: &Source, reason: impl Fn(&str) -> Option<String>) {
        let mut dropped: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for tensor in source.unused() {
            match reason(&tensor) {
                Some(reason) => dropped.entry(reason).or_default().push(tensor),
                None => {
                    self.problems.push(Problem::UnexpectedTensor { source_name: source.name.clone(), tensor })
                }
            }
        }
        self.dropped.extend(dropped.into_iter().map(|(reason, tensors)| Dropped {
            source: source.name.clone(),
            reason,
            tensors,
        }));
    }
}

/// A stage that can be written.
pub(super) struct Plan<'a> {
    pub(super) network: NetworkConfig,
    pub(super) tensors: Vec<Planned<'a>>,
}

impl<'a> Plan<'a> {
    /// Plans a stage whose tensors `recipe` finds by their name and shape in the model directory, each noting
    /// its own problems. The configuration file is the one to blame if the network cannot be built.
    pub(super) fn new(
        findings: &mut Findings,
        network: NetworkConfig,
        config_file: &Path,
        mut recipe: impl FnMut(&mut Findings, &str, &[usize]) -> Option<Recipe<'a>>,
    ) -> Option<Self> {
        let problem = |message: String| Problem::Config { path: config_file.to_owned(), message };
        findings.keep(network.check_sizes().map_err(problem))?;
        let manifest = findings.keep(networks::manifest(&network).map_err(|e| problem(e.to_string())))?;
        let mut tensors = Vec::with_capacity(manifest.len());
        let mut seen = std::collections::BTreeSet::new();
        for (name, shape) in manifest {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(recipe) = recipe(findings, &name, &shape) {
                tensors.push(Planned { name, shape, recipe });
            }
        }
        Some(Self { network, tensors })
    }

    /// Plans a stage whose tensors lie in one source, under one of the names that `candidates` gives.
    pub(super) fn renamed(
        findings: &mut Findings,
        network: NetworkConfig,
        config_file: &Path,
        source: &'a Source,
        candidates: impl Fn(&str) -> Vec<String>,
    ) -> Option<Self> {
        let stage = network.kind();
        Self::new(findings, network, config_file, |findings, name, shape| {
            let part = findings.take_shaped(stage, source, &candidates(name), shape)?;
            Some(Recipe::Join(vec![part]))
        })
    }

    /// Writes the stage's file.
    pub(super) fn write(
        &self,
        writer: &mut ModelWriter,
        precision: Option<Precision>,
    ) -> Result<(StageConfig, StageReport), ConvertError> {
        let stage = self.network.kind();
        let file = format!("{stage}.safetensors");
        let wanted = precision.map(|precision| match precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::BF16,
            Precision::F16 => Dtype::F16,
        });
        let mut tensors: Vec<(&Planned<'_>, Dtype)> =
            self.tensors.iter().map(|tensor| (tensor, tensor.dtype(wanted))).collect();
        // Wide elements first, so that every tensor is aligned to its own.
        tensors.sort_by_key(|(_, dtype)| std::cmp::Reverse(dtype.bitsize()));

        let header = header(&tensors)
            .map_err(|e| WriteError::Io { path: file.clone().into(), source: io::Error::from(e) })?;
        let digest = writer.write::<ConvertError>(&file, |sink| {
            sink.put(&(header.len() as u64).to_le_bytes())?;
            sink.put(&header)?;
            tensors.iter().try_for_each(|(tensor, dtype)| tensor.write(*dtype, sink))
        })?;

        let mut dtypes = BTreeMap::new();
        for (_, dtype) in &tensors {
            *dtypes.entry(dtype_name(*dtype)).or_default() += 1;
        }
        let report = StageReport {
            stage,
            file: file.clone(),
            tensors: tensors.len(),
            parameters: tensors.iter().map(|(tensor, _)| elements(&tensor.shape) as u64).sum(),
            bytes: digest.bytes,
            dtypes,
        };
        Ok((StageConfig { file, network: self.network.clone() }, report))
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The header of a safetensors file, padded so that the data after it and its length are aligned to 8 bytes.
fn header(tensors: &[(&Planned<'_>, Dtype)]) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Info<'a> {
        dtype: Dtype,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }
    #[derive(Serialize)]
    struct Header<'a> {
        #[serde(rename = "__metadata__")]
        metadata: BTreeMap<&'a str, &'a str>,
        #[serde(flatten)]
        tensors: BTreeMap<&'a str, Info<'a>>,
    }
    let mut end = 0;
    let tensors = tensors
        .iter()
        .map(|(tensor, dtype)| {
            let start = end;
            end += elements(&tensor.shape) * dtype.bitsize() / 8;
            let info = Info { dtype: *dtype, shape: &tensor.shape, data_offsets: [start, end] };
            (tensor.name.as_str(), info)
        })
        .collect();
    let mut header = serde_json::to_vec(&Header { metadata: BTreeMap::from([("format", "pt")]), tensors })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// The shape of a tensor as far as it is needed to size a network.
pub(super) fn dims<const N: usize>(view: TensorView<'_>) -> Option<[usize; N]> {
    view.shape().try_into().ok()
}
