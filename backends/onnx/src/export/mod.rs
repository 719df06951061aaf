//! Recorded stages as `.onnx` files, for other runtimes: ONNX's own operators only, weights in a file beside.

mod data;
mod proto;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;
use smartedit_core::engine::{EngineError, Precision};
use smartedit_core::model::NetworkConfig;
use smartedit_core::stages::{Function, Network, stateless};
use smartedit_core::weights::{WeightFile, Weights, WeightsError};
use tempfile::NamedTempFile;

use self::data::DataFile;
use self::proto::{
    AttributeProto, Dimension, FLOAT, GraphProto, INT, INTS, IR_VERSION, ModelProto, NodeProto,
    OperatorSetIdProto, STRING, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::graph::Graph;
use crate::recorder::{Attribute, Operators, Recorded, RecordedWeights, Recorder, Size};
use crate::session::OPSET;

/// A stage cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file is there already.
    #[error("{} exists; choose another directory, or replace it with `--force`", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The parameters do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network cannot be recorded.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is exported, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Element type of weights and activations.
    pub precision: Precision,
    /// Whether a denoiser takes an image feature, as one behind a Bidirectional Interaction Module does.
    pub image_feature: bool,
    /// Whether files that are there already are replaced.
    pub force: bool,
}

/// Writes a stage into a directory, which is created, and returns the `.onnx` files.
///
/// A stage is one file, `STAGE.onnx`, whose inputs and outputs are those of the stage. Only a language model is
/// several, `language_model.FUNCTION.onnx`, since keys and values pass between its calls. Weights are in a file
/// of the same name with `.data` added. Files are written beside their place and renamed.
///
/// # Errors
///
/// A file is there already, or cannot be written; the parameters do not fit the network.
pub fn export(
    config: &NetworkConfig,
    weights: &WeightFile,
    directory: &Path,
    options: ExportOptions,
) -> Result<Vec<PathBuf>, ExportError> {
    let recorder = Recorder::new(options.precision, Operators::Standard);
    let source = RecordedWeights { recorder, file: weights };
    let network = Network::load(&Weights::root(&source), config)?;
    let functions = stateless(config, options.image_feature);
    let place = |function: Function| {
        let stage = config.kind().name();
        directory.join(match function {
            Function::Whole => format!("{stage}.onnx"),
            other => format!("{stage}.{other}.onnx"),
        })
    };
    for path in functions.iter().map(|signature| place(signature.function)) {
        if !options.force
            && let Some(taken) = [data_path(&path), path].into_iter().find(|path| path.exists())
        {
            return Err(ExportError::Exists(taken));
        }
    }
    std::fs::create_dir_all(directory).map_err(|source| io(directory, source))?;
    let mut written = Vec::with_capacity(functions.len());
    for signature in &functions {
        let graph = Graph::record(&recorder, &network, signature)?;
        let path = place(signature.function);
        write(&graph, config.kind().name(), &path)?;
        written.push(path);
    }
    Ok(written)
}

fn write(graph: &Graph, name: &str, path: &Path) -> Result<(), ExportError> {
    let failed = |source| io(path, source);
    let directory = path.parent().unwrap_or(Path::new("."));
    let data_path = data_path(path);
    let mut data = DataFile::create(directory, &data_path).map_err(failed)?;
    let model = model(graph, name, &mut data).map_err(failed)?;
    let mut file = temporary(directory).map_err(failed)?;
    file.write_all(&model.encode_to_vec()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    // No file that can be seen refers to weights of another export.
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    data.persist(&data_path).map_err(|source| io(&data_path, source))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn model(graph: &Graph, name: &str, data: &mut DataFile) -> std::io::Result<ModelProto> {
    let mut initializer = Vec::with_capacity(graph.initializers.len());
    for tensor in &graph.initializers {
        initializer.push(data.tensor(graph.name_of(tensor), tensor)?);
    }
    let node = graph.operators().map(|(tensor, operator, inputs)| {
        let name = graph.name_of(tensor).to_owned();
        NodeProto {
            input: inputs.into_iter().map(str::to_owned).collect(),
            output: vec![name.clone()],
            name,
            op_type: operator.name.to_owned(),
            attribute: operator.attributes.iter().map(attribute).collect(),
            domain: operator.domain.to_owned(),
        }
    });
    let values = |tensors: &[Recorded]| {
        tensors.iter().map(|tensor| value_info(graph.name_of(tensor), tensor)).collect()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: OPSET.into() };
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: "smartedit".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        opset_import: vec![opset],
        graph: Some(GraphProto {
            name: name.to_owned(),
            node: node.collect(),
            initializer,
            input: values(&graph.inputs),
            output: values(&graph.outputs),
        }),
    })
}

fn attribute((name, value): &(&'static str, Attribute)) -> AttributeProto {
    let name = (*name).to_owned();
    match value {
        Attribute::Int(i) => AttributeProto { name, i: Some(*i), r#type: INT, ..Default::default() },
        Attribute::Float(f) => AttributeProto { name, f: Some(*f), r#type: FLOAT, ..Default::default() },
        Attribute::Text(text) => {
            let s = Some(text.as_bytes().to_vec());
            AttributeProto { name, s, r#type: STRING, ..Default::default() }
        }
        Attribute::Ints(ints) => {
            AttributeProto { name, ints: ints.clone(), r#type: INTS, ..Default::default() }
        }
    }
}

fn value_info(name: &str, tensor: &Recorded) -> ValueInfoProto {
    let dimension = |size: &Size| match size {
        Size::Known(_) => Dimension { dim_value: Some(size.or_minus_one()), dim_param: None },
        Size::Named(name) => Dimension { dim_value: None, dim_param: Some(name.clone()) },
    };
    let shape = TensorShapeProto { dim: tensor.shape().iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: tensor.element().onnx(), shape: Some(shape) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn data_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".data");
    path.with_file_name(name)
}

/// A file in the making, with the permissions of any other file.
fn temporary(directory: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".export-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

fn io(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), source }
}
