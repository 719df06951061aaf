//! The file of weights beside an exported graph.

use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{Dtype, WeightView};
use tempfile::NamedTempFile;

use super::proto::{EXTERNAL, StringStringEntryProto, TensorProto};
use super::temporary;
use crate::recorder::{Element, Origin, Recorded};

/// Tensors of fewer bytes are part of the graph's own file: runtimes read shapes from them.
const SMALLEST: usize = 1024;
/// Tensors start at multiples of a page, so that they can be mapped.
const ALIGNMENT: u64 = 4096;

/// The file in the making.
pub(super) struct DataFile {
    file: BufWriter<NamedTempFile>,
    /// Its name once it is there.
    location: String,
    length: u64,
}

impl DataFile {
    pub(super) fn create(directory: &Path, path: &Path) -> std::io::Result<Self> {
        let location = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file: BufWriter::new(temporary(directory)?), location, length: 0 })
    }

    /// A parameter or constant, whose elements are written here unless they are few.
    pub(super) fn tensor(&mut self, name: &str, tensor: &Recorded) -> std::io::Result<TensorProto> {
        let element = tensor.element();
        let (shape, bytes) = match tensor.origin() {
            Origin::Parameter(_, view) if is_as_wanted(view, element) => {
                (view.shape(), std::borrow::Cow::Borrowed(view.bytes()))
            }
            Origin::Parameter(_, view) => (view.shape(), encoded(view.to_f32(), element).into()),
            Origin::Constant(HostTensor::F32(array)) => {
                (array.shape(), encoded(array.iter().copied(), element).into())
            }
            Origin::Constant(HostTensor::I64(array)) => {
                (array.shape(), array.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Origin::Input(_) | Origin::Operator(_) => (&[][..], std::borrow::Cow::Borrowed(&[][..])),
        };
        let mut proto = TensorProto {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: element.onnx(),
            name: name.to_owned(),
            ..TensorProto::default()
        };
        if bytes.len() < SMALLEST {
            proto.raw_data = Some(bytes.into_owned());
            return Ok(proto);
        }
        let offset = self.length.next_multiple_of(ALIGNMENT);
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), offset - self.length), &mut self.file)?;
        self.file.write_all(&bytes)?;
        self.length = offset + bytes.len() as u64;
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        proto.external_data = vec![
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ];
        proto.data_location = Some(EXTERNAL);
        Ok(proto)
    }

    /// Puts the file at its place.
    pub(super) fn persist(self, path: &Path) -> std::io::Result<()> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

fn is_as_wanted(view: &WeightView, element: Element) -> bool {
    matches!(
        (view.dtype(), element),
        (Dtype::F32, Element::F32) | (Dtype::F16, Element::F16) | (Dtype::BF16, Element::Bf16)
    )
}

/// Little-endian bytes.
fn encoded(values: impl IntoIterator<Item = f32>, element: Element) -> Vec<u8> {
    let values = values.into_iter();
    match element {
        Element::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Element::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        Element::F32 | Element::I64 => values.flat_map(f32::to_le_bytes).collect(),
    }
}
