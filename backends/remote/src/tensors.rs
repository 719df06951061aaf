//! Tensors on the wire.

use bytes::{BufMut, Bytes, BytesMut};
use smartedit_core::tensor::{HostTensor, Tensors};
use smartedit_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use smartedit_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};

use crate::contract::{FLOATS, INTEGERS};

/// A request with these inputs, raw or in typed contents, for these outputs.
pub(crate) fn request<'a>(
    inputs: &Tensors,
    outputs: impl IntoIterator<Item = &'a String>,
    raw: bool,
) -> ModelInferRequest {
    let mut request = ModelInferRequest::default();
    for (name, tensor) in inputs.iter() {
        let mut input = InferInputTensor {
            name: name.to_owned(),
            datatype: datatype(tensor).to_owned(),
            shape: tensor.shape().iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
            ..InferInputTensor::default()
        };
        match raw {
            true => request.raw_input_contents.push(bytes(tensor)),
            false => input.contents = Some(contents(tensor)),
        }
        request.inputs.push(input);
    }
    let named = |name: &String| InferRequestedOutputTensor { name: name.clone(), ..Default::default() };
    request.outputs = outputs.into_iter().map(named).collect();
    request
}

/// The outputs in an answer.
///
/// # Errors
///
/// What is wrong with the answer.
pub(crate) fn outputs(response: ModelInferResponse) -> Result<Tensors, String> {
    let ModelInferResponse { outputs, raw_output_contents: raw, .. } = response;
    if !raw.is_empty() && raw.len() != outputs.len() {
        return Err(format!("its answer has {} raw contents for {} outputs", raw.len(), outputs.len()));
    }
    let mut tensors = Tensors::new();
    let mut raw = raw.into_iter();
    for output in outputs {
        let name = output.name;
        if output.datatype != FLOATS {
            return Err(format!("its output `{name}` is {}; {FLOATS} is needed", output.datatype));
        }
        if tensors.get(&name).is_some() {
            return Err(format!("its output `{name}` is given twice"));
        }
        // MLServer sends an empty message beside raw contents.
        let contents =
            output.contents.filter(|contents| raw.len() == 0 || !contents.fp32_contents.is_empty());
        let elements = match (raw.next(), contents) {
            (Some(raw), None) => {
                floats(&raw).ok_or_else(|| format!("its output `{name}` ends within an element"))?
            }
            (None, Some(contents)) => contents.fp32_contents,
            (Some(_), Some(_)) => return Err(format!("its output `{name}` is both raw and typed")),
            (None, None) => return Err(format!("its output `{name}` has no contents")),
        };
        let shape: Option<Vec<usize>> = output.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let count = elements.len();
        let tensor = shape.and_then(|shape| HostTensor::from_f32(&shape, elements));
        let tensor = tensor.ok_or_else(|| {
            format!("its output `{name}` has {count} elements in the shape {:?}", output.shape)
        })?;
        tensors.insert(&name, tensor);
    }
    Ok(tensors)
}

fn datatype(tensor: &HostTensor) -> &'static str {
    match tensor {
        HostTensor::F32(_) => FLOATS,
        HostTensor::I64(_) => INTEGERS,
    }
}

/// The elements one after the other, little-endian.
fn bytes(tensor: &HostTensor) -> Bytes {
    let mut bytes = BytesMut::new();
    match tensor {
        HostTensor::F32(array) => {
            bytes.reserve(array.len() * size_of::<f32>());
            array.iter().for_each(|&value| bytes.put_f32_le(value));
        }
        HostTensor::I64(array) => {
            bytes.reserve(array.len() * size_of::<i64>());
            array.iter().for_each(|&value| bytes.put_i64_le(value));
        }
    }
    bytes.freeze()
}

fn contents(tensor: &HostTensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match tensor {
        HostTensor::F32(array) => contents.fp32_contents = array.iter().copied().collect(),
        HostTensor::I64(array) => contents.int64_contents = array.iter().copied().collect(),
    }
    contents
}

fn floats(bytes: &[u8]) -> Option<Vec<f32>> {
    let (elements, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| elements.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, array};
    use smartedit_proto::inference::model_infer_response::InferOutputTensor;

    use super::*;

    fn tensors() -> Tensors {
        Tensors::new().with("x", array![[1.5_f32, -2.0], [0.0, f32::MAX]]).with("ids", arr1(&[3_i64, -1]))
    }

    /// The answer of a server that gives back the floats that it was given.
    fn echo(request: &ModelInferRequest) -> ModelInferResponse {
        let sent = request.inputs.iter().filter(|input| input.datatype == FLOATS);
        let outputs = sent.map(|input| InferOutputTensor {
            name: input.name.clone(),
            datatype: input.datatype.clone(),
            shape: input.shape.clone(),
            contents: input.contents.clone(),
            ..InferOutputTensor::default()
        });
        ModelInferResponse {
            outputs: outputs.collect(),
            raw_output_contents: request.raw_input_contents.iter().take(1).cloned().collect(),
            ..ModelInferResponse::default()
        }
    }

    #[test]
    fn tensors_come_back_as_they_went_raw_or_typed() {
        for raw in [true, false] {
            let request = request(&tensors(), [&"x".to_owned()], raw);
            assert_eq!(request.inputs[1].datatype, "INT64");
            assert_eq!(request.raw_input_contents.len(), if raw { 2 } else { 0 });
            assert_eq!(request.inputs[1].contents.is_some(), !raw);
            assert_eq!(request.outputs[0].name, "x");
            let found = outputs(echo(&request)).unwrap();
            assert_eq!(found.get("x"), tensors().get("x"));
        }
    }

    #[test]
    fn an_empty_message_beside_raw_contents_is_nothing() {
        let mut response = echo(&request(&tensors(), [], true));
        response.outputs[0].contents = Some(InferTensorContents::default());
        assert_eq!(outputs(response).unwrap().get("x"), tensors().get("x"));
    }

    #[test]
    fn an_answer_that_is_wrong_says_what() {
        let good = || echo(&request(&tensors(), [], true));
        type Spoil = fn(&mut ModelInferResponse);
        let cases: [(Spoil, &str); 7] = [
            (|r| r.outputs[0].datatype = "FP16".to_owned(), "FP16"),
            (|r| r.outputs[0].shape = vec![3], "4 elements"),
            (|r| r.outputs[0].shape = vec![-2, -2], "[-2, -2]"),
            (|r| r.outputs[0].shape = vec![i64::MAX, i64::MAX], "4 elements"),
            (|r| drop(r.raw_output_contents[0].split_off(3)), "within an element"),
            (|r| r.raw_output_contents.push(Bytes::new()), "2 raw contents for 1 outputs"),
            (|r| r.raw_output_contents.clear(), "no contents"),
        ];
        for (spoil, words) in cases {
            let mut response = good();
            spoil(&mut response);
            let message = outputs(response).unwrap_err();
            assert!(message.contains(words), "no {words} in {message}");
        }
        let mut both = good();
        both.outputs[0].contents = Some(contents(&arr1(&[1.0_f32]).into()));
        assert!(outputs(both).unwrap_err().contains("both"));
        let mut twice = good();
        twice.outputs.push(twice.outputs[0].clone());
        twice.raw_output_contents.push(twice.raw_output_contents[0].clone());
        assert!(outputs(twice).unwrap_err().contains("twice"));
    }
}
