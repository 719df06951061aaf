//! Elements of a tensor, as bytes or typed.

use bytes::{Buf, Bytes};
use ndarray::{ArrayD, IxDyn};
use smartedit_core::tensor::HostTensor;
use smartedit_proto::inference::InferTensorContents;

use super::Value;
use crate::service::inference::catalog::Datatype;

/// Elements as they were sent.
pub(super) enum Sent {
    Raw(Bytes),
    Typed(InferTensorContents),
}

impl Sent {
    /// Elements that were sent in one of the two ways.
    pub(super) fn new(typed: Option<InferTensorContents>, raw: Option<Bytes>) -> Result<Self, String> {
        match (typed, raw) {
            (None, Some(raw)) => Ok(Self::Raw(raw)),
            (Some(typed), None) => Ok(Self::Typed(typed)),
            (Some(_), Some(_)) => {
                Err("has contents, which cannot be where there are raw_input_contents".to_owned())
            }
            (None, None) => Err("has neither contents nor raw_input_contents".to_owned()),
        }
    }

    /// The elements of a tensor of this shape.
    pub(super) fn value(self, datatype: Datatype, shape: &[usize]) -> Result<Value, String> {
        let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let count = count.ok_or_else(|| format!("has shape {shape:?}, which is too large"))?;
        Ok(match datatype {
            Datatype::Fp32 => {
                let data = match self {
                    Self::Raw(raw) => packed(&raw, datatype, shape, count, f32::from_le_bytes)?,
                    Self::Typed(mut typed) => {
                        let data = std::mem::take(&mut typed.fp32_contents);
                        counted(data, &typed, "fp32_contents", shape, count)?
                    }
                };
                if data.iter().any(|value| !value.is_finite()) {
                    return Err("holds values that are not finite".to_owned());
                }
                Value::Numbers(HostTensor::F32(array(shape, data)?))
            }
            Datatype::Int64 => {
                let data = match self {
                    Self::Raw(raw) => packed(&raw, datatype, shape, count, i64::from_le_bytes)?,
                    Self::Typed(mut typed) => {
                        let data = std::mem::take(&mut typed.int64_contents);
                        counted(data, &typed, "int64_contents", shape, count)?
                    }
                };
                Value::Numbers(HostTensor::I64(array(shape, data)?))
            }
            Datatype::Bytes => Value::Strings(match self {
                Self::Raw(raw) => prefixed(raw, shape, count)?,
                Self::Typed(mut typed) => {
                    let data = std::mem::take(&mut typed.bytes_contents);
                    counted(data, &typed, "bytes_contents", shape, count)?
                }
            }),
        })
    }
}

fn array<T>(shape: &[usize], data: Vec<T>) -> Result<ArrayD<T>, String> {
    ArrayD::from_shape_vec(IxDyn(shape), data).map_err(|error| error.to_string())
}

/// Elements of `N` bytes each.
fn packed<T, const N: usize>(
    raw: &[u8],
    datatype: Datatype,
    shape: &[usize],
    count: usize,
    read: fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    if count.checked_mul(N) != Some(raw.len()) {
        let (found, datatype) = (raw.len(), datatype.name());
        return Err(format!("has {found} bytes; {datatype} of shape {shape:?} has {count} elements of {N}"));
    }
    Ok(raw.as_chunks().0.iter().map(|chunk| read(*chunk)).collect())
}

/// Elements after their lengths, each as 4 bytes.
fn prefixed(mut raw: Bytes, shape: &[usize], count: usize) -> Result<Vec<Bytes>, String> {
    let total = raw.len();
    let mut elements = Vec::new();
    while elements.len() < count {
        let length = raw.try_get_u32_le().ok().and_then(|length| usize::try_from(length).ok());
        match length.filter(|length| *length <= raw.len()) {
            Some(length) => elements.push(raw.split_to(length)),
            None => {
                let index = elements.len();
                return Err(format!(
                    "ends within element {index} of {count}: each needs its length as 4 bytes, little-endian, before it"
                ));
            }
        }
    }
    match raw.is_empty() {
        true => Ok(elements),
        false => {
            Err(format!("has {total} bytes, {} more than the {count} elements of shape {shape:?}", raw.len()))
        }
    }
}

/// Elements of a typed field, beside which no other field may have any.
fn counted<T>(
    data: Vec<T>,
    rest: &InferTensorContents,
    field: &str,
    shape: &[usize],
    count: usize,
) -> Result<Vec<T>, String> {
    if *rest != InferTensorContents::default() {
        return Err(format!("has contents of another datatype; only {field} may be given"));
    }
    match data.len() == count {
        true => Ok(data),
        false => Err(format!("has {} elements in {field}; shape {shape:?} has {count}", data.len())),
    }
}
