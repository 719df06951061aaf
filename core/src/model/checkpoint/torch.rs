//! PyTorch's zip format: `data.pkl` describes tensors, `data/0`, `data/1`, … hold their storages, uncompressed.

use std::collections::HashMap;
use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, StoredTensor};
use super::tensor::{Entry, Layout};
use crate::weights::Dtype;

/// Bytes the description of the tensors may have.
const MAX_PICKLE: usize = 32 << 20;

/// Why a file, or one tensor of it, cannot be read.
pub(super) enum Fault {
    File(String),
    Tensor(String, String),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::File(message)
    }
}

/// Where the tensors of a mapped file are.
pub(super) fn read(map: &[u8]) -> Result<Vec<(String, Entry)>, Fault> {
    let mut archive =
        ZipArchive::new(Cursor::new(map)).map_err(|e| format!("is a damaged or truncated zip file: {e}"))?;
    let pickle_name = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with("/data.pkl"))
        .ok_or_else(|| "is a zip file without `data.pkl`: no PyTorch checkpoint".to_owned())?
        .into_owned();
    let folder = pickle_name.trim_end_matches("data.pkl").to_owned();

    if let Some(order) = stored(&mut archive, map, &format!("{folder}byteorder"))?
        && order.bytes(map) != b"little"
    {
        return Err(Fault::File("holds big-endian values; save it on a little-endian machine".to_owned()));
    }
    let pickle = stored(&mut archive, map, &pickle_name)?
        .ok_or_else(|| format!("lacks its entry `{pickle_name}`"))?
        .bytes(map);
    if pickle.len() > MAX_PICKLE {
        return Err(Fault::File(format!(
            "describes its tensors in {} bytes; {MAX_PICKLE} are the most",
            pickle.len()
        )));
    }
    let tensors = pickle::tensors(pickle).map_err(|e| format!("is {e}"))?;

    let mut storages: HashMap<String, Option<Span>> = HashMap::new();
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let span = match storages.get(&tensor.storage) {
            Some(span) => *span,
            None => {
                let span = stored(&mut archive, map, &format!("{folder}data/{}", tensor.storage))?;
                storages.insert(tensor.storage.clone(), span);
                span
            }
        };
        let entry = match span {
            Some(span) => place(&tensor, span),
            None => Err(format!("is in storage `{}`, which the file lacks", tensor.storage)),
        };
        entries.push((name.clone(), entry.map_err(|message| Fault::Tensor(name, message))?));
    }
    Ok(entries)
}

/// A range of the mapped file.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

impl Span {
    fn bytes(self, map: &[u8]) -> &[u8] {
        map.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }
}

/// The bytes of an entry that must be stored as they are; `None` if there is no such entry.
fn stored(archive: &mut ZipArchive<Cursor<&[u8]>>, map: &[u8], name: &str) -> Result<Option<Span>, String> {
    let Some(index) = archive.index_for_name(name) else { return Ok(None) };
    let entry = archive.by_index_raw(index).map_err(|e| format!("has a damaged entry `{name}`: {e}"))?;
    if entry.encrypted() {
        return Err(format!("has an encrypted entry `{name}`"));
    }
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!(
            "has a compressed entry `{name}`, which cannot be mapped; \
             unpack it and pack it again without compression (`zip -0 -r`), or save it with `torch.save`"
        ));
    }
    let span = entry.data_start().and_then(|start| {
        let span =
            Span { start: usize::try_from(start).ok()?, len: usize::try_from(entry.compressed_size()).ok()? };
        (span.start.checked_add(span.len)? <= map.len()).then_some(span)
    });
    span.map(Some).ok_or_else(|| format!("is truncated: entry `{name}` reaches beyond its end"))
}

/// Checks that a tensor lies inside its storage.
fn place(tensor: &StoredTensor, span: Span) -> Result<Entry, String> {
    let StoredTensor { dtype, shape, strides, .. } = tensor;
    let size = dtype_size(*dtype);
    let storage_len = span.len / size;
    if tensor.storage_len > storage_len {
        return Err(format!(
            "has a storage of {} elements, the file holds {storage_len} of them",
            tensor.storage_len
        ));
    }
    let too_large = || format!("of shape {shape:?} reaches beyond its storage of {storage_len} elements");
    let elements =
        shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
    if elements == 0 {
        return Ok(Entry {
            dtype: *dtype,
            shape: shape.clone(),
            start: span.start,
            layout: Layout::Contiguous,
        });
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(tensor.offset, |last, (dim, stride)| last.checked_add((dim - 1).checked_mul(*stride)?))
        .ok_or_else(too_large)?;
    if last >= storage_len {
        return Err(too_large());
    }
    if elements > storage_len {
        return Err(format!(
            "of shape {shape:?} repeats a storage of {storage_len} elements; save it with `.contiguous()`"
        ));
    }
    let layout = match is_contiguous(shape, strides) {
        true => Layout::Contiguous,
        false => Layout::Strided(strides.clone()),
    };
    Ok(Entry { dtype: *dtype, shape: shape.clone(), start: span.start + tensor.offset * size, layout })
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim;
        fits
    })
}

/// Bytes of an element; every type of a PyTorch storage has whole bytes.
fn dtype_size(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}
