//! Answers.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use smartedit_core::tensor::HostTensor;
use smartedit_proto::inference::infer_parameter::ParameterChoice;
use smartedit_proto::inference::model_infer_response::InferOutputTensor;
use smartedit_proto::inference::{InferParameter, InferTensorContents, ModelInferResponse};

use super::catalog::Datatype;
use super::infer::Asked;
use super::read::Value;
use crate::failure::Failure;

/// Room for all of an answer but the elements of its outputs.
const ENVELOPE: usize = 64 << 10;

/// What is told of an answer besides its outputs.
#[derive(Default)]
pub(super) struct Notes(HashMap<String, InferParameter>);

impl Notes {
    pub(super) fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.with(name, ParameterChoice::StringParam(value.into()))
    }

    /// A whole number; in the field that every version of the protocol has, where it can be.
    pub(super) fn integer(self, name: &str, value: u64) -> Self {
        let value =
            i64::try_from(value).map_or(ParameterChoice::Uint64Param(value), ParameterChoice::Int64Param);
        self.with(name, value)
    }

    pub(super) fn flag(self, name: &str, value: bool) -> Self {
        self.with(name, ParameterChoice::BoolParam(value))
    }

    fn with(mut self, name: &str, value: ParameterChoice) -> Self {
        self.0.insert(name.to_owned(), InferParameter { parameter_choice: Some(value) });
        self
    }
}

impl Asked {
    /// An answer with those of the outputs that are wanted, in the form of the request.
    ///
    /// # Errors
    ///
    /// [`Failure::AnswerTooLarge`] if it has more bytes than a message may.
    pub(super) fn answer(
        &self,
        outputs: Vec<(&'static str, Value)>,
        mut notes: Notes,
        last: bool,
        max_message_bytes: usize,
    ) -> Result<ModelInferResponse, Failure> {
        let mut outputs: HashMap<_, _> = outputs.into_iter().collect();
        let wanted: Vec<_> =
            self.tensors.wanted.iter().filter_map(|name| Some((*name, outputs.remove(name)?))).collect();
        let bytes: usize = wanted.iter().map(|(_, value)| value.bytes()).sum();
        if bytes.saturating_add(ENVELOPE) > max_message_bytes {
            return Err(Failure::AnswerTooLarge { bytes, limit: max_message_bytes });
        }
        if self.streaming {
            notes = notes.flag("triton_final_response", last);
        }
        let mut response = ModelInferResponse {
            model_name: self.model.contract.name.clone(),
            model_version: self.model.version(),
            id: self.id.clone(),
            parameters: notes.0,
            ..ModelInferResponse::default()
        };
        for (name, value) in wanted {
            let mut output = InferOutputTensor {
                name: name.to_owned(),
                datatype: value.datatype().name().to_owned(),
                shape: value.shape(),
                ..InferOutputTensor::default()
            };
            match self.tensors.raw {
                true => response.raw_output_contents.push(value.into_raw()),
                false => output.contents = Some(value.into_contents()),
            }
            response.outputs.push(output);
        }
        Ok(response)
    }
}

impl Value {
    fn datatype(&self) -> Datatype {
        match self {
            Self::Numbers(HostTensor::F32(_)) => Datatype::Fp32,
            Self::Numbers(HostTensor::I64(_)) => Datatype::Int64,
            Self::Strings(_) => Datatype::Bytes,
        }
    }

    fn shape(&self) -> Vec<i64> {
        let signed = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        match self {
            Self::Numbers(tensor) => tensor.shape().iter().map(|size| signed(*size)).collect(),
            Self::Strings(strings) => vec![signed(strings.len())],
        }
    }

    /// Bytes of the elements as they are sent raw.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Numbers(HostTensor::F32(array)) => array.len() * size_of::<f32>(),
            Self::Numbers(HostTensor::I64(array)) => array.len() * size_of::<i64>(),
            Self::Strings(strings) => strings.iter().map(|string| size_of::<u32>() + string.len()).sum(),
        }
    }

    /// The elements one after the other, little-endian, each string after its length as 4 bytes.
    fn into_raw(self) -> Bytes {
        let mut raw = BytesMut::with_capacity(self.bytes());
        match self {
            Self::Numbers(HostTensor::F32(array)) => array.iter().for_each(|value| raw.put_f32_le(*value)),
            Self::Numbers(HostTensor::I64(array)) => array.iter().for_each(|value| raw.put_i64_le(*value)),
            Self::Strings(strings) => {
                for string in strings {
                    // No message, and so no string in one, is as long as 4 bytes cannot say.
                    raw.put_u32_le(u32::try_from(string.len()).unwrap_or(u32::MAX));
                    raw.put(string);
                }
            }
        }
        raw.freeze()
    }

    fn into_contents(self) -> InferTensorContents {
        let mut contents = InferTensorContents::default();
        match self {
            Self::Numbers(HostTensor::F32(array)) => contents.fp32_contents = array.iter().copied().collect(),
            Self::Numbers(HostTensor::I64(array)) => {
                contents.int64_contents = array.iter().copied().collect()
            }
            Self::Strings(strings) => contents.bytes_contents = strings,
        }
        contents
    }
}
