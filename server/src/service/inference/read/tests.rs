//! Requests for a denoiser-like model, an edit and a model of token ids.

use proptest::prelude::*;
use smartedit_core::tensor::HostTensor;
use smartedit_proto::inference::{InferParameter, InferTensorContents};

use super::*;
use crate::service::inference::catalog::Datatype;

fn spec(name: &'static str, datatype: Datatype, shape: &[Dim]) -> Spec {
    Spec { name, datatype, shape: shape.to_vec(), optional: false }
}

/// A model of floats and token ids with dimensions of every kind.
fn contract() -> Contract {
    let batch = Dim::Any("batch");
    let sample = [batch, Dim::Is(2), Dim::Any("height"), Dim::Any("width")];
    let mut hint = spec("hint", Datatype::Fp32, &[batch, Dim::Any("tokens")]);
    hint.optional = true;
    Contract {
        name: "d/denoiser".to_owned(),
        inputs: vec![
            spec("sample", Datatype::Fp32, &sample),
            spec("ids", Datatype::Int64, &[batch, Dim::MultipleOf("length", 2)]),
            hint,
        ],
        outputs: vec![spec("noise", Datatype::Fp32, &sample), spec("other", Datatype::Fp32, &sample)],
    }
}

fn edit() -> Contract {
    let text = |name| spec(name, Datatype::Bytes, &[Dim::Is(1)]);
    Contract { name: "d".to_owned(), inputs: vec![text("image"), text("instruction")], outputs: vec![] }
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn little_endian<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Bytes {
    values.into_iter().flatten().collect::<Vec<_>>().into()
}

const FLOATS: [f32; 4] = [0.5, -1.0, 2.0, 3.0];

/// A good request in raw form.
fn raw() -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![tensor("sample", "FP32", &[1, 2, 1, 2]), tensor("ids", "INT64", &[1, 2])],
        raw_input_contents: vec![
            little_endian(FLOATS.map(f32::to_le_bytes)),
            little_endian([7_i64, -8].map(i64::to_le_bytes)),
        ],
        ..ModelInferRequest::default()
    }
}

/// The same request in typed form.
fn typed() -> ModelInferRequest {
    let mut request = raw();
    request.raw_input_contents.clear();
    request.inputs[0].contents =
        Some(InferTensorContents { fp32_contents: FLOATS.to_vec(), ..InferTensorContents::default() });
    request.inputs[1].contents =
        Some(InferTensorContents { int64_contents: vec![7, -8], ..InferTensorContents::default() });
    request
}

fn read(contract: &Contract, mut request: ModelInferRequest) -> Result<Tensors, Violations> {
    let mut violations = Violations::default();
    let tensors = Tensors::read(contract, &mut request, &Limits::default(), &mut violations);
    if violations.is_empty() { Ok(tensors) } else { Err(violations) }
}

#[track_caller]
fn assert_refused(contract: &Contract, request: ModelInferRequest, field: &str, words: &str) {
    let violations = read(contract, request).map(drop).unwrap_err();
    let found: Vec<_> = violations.iter().collect();
    let named = found.iter().any(|(name, message)| *name == field && message.contains(words));
    assert!(named, "no `{field}: …{words}…` in {found:?}");
}

#[test]
fn both_forms_hold_the_same() {
    let (raw, typed) = (read(&contract(), raw()).unwrap(), read(&contract(), typed()).unwrap());
    assert_eq!(raw.inputs, typed.inputs);
    assert_eq!((raw.raw, typed.raw), (true, false));
    assert_eq!(raw.wanted, ["noise", "other"]);
    let ids = HostTensor::from(ndarray::array![[7_i64, -8]]);
    assert_eq!(raw.inputs["ids"], Value::Numbers(ids));
}

#[test]
fn strings_follow_their_lengths() {
    let request = ModelInferRequest {
        inputs: vec![tensor("image", "BYTES", &[1]), tensor("instruction", "BYTES", &[1])],
        raw_input_contents: vec![Bytes::from_static(b"\x03\0\0\0abc"), Bytes::from_static(b"\0\0\0\0")],
        ..ModelInferRequest::default()
    };
    let read = read(&edit(), request.clone()).unwrap();
    assert_eq!(read.inputs["image"], Value::Strings(vec![Bytes::from_static(b"abc")]));
    assert_eq!(read.inputs["instruction"], Value::Strings(vec![Bytes::new()]));
    for (bytes, words) in [
        (&b""[..], "ends within element 0 of 1"),
        (b"\x03\0\0", "ends within element 0 of 1"),
        (b"\x04\0\0\0abc", "ends within element 0 of 1"),
        (b"\xff\xff\xff\xffabc", "ends within element 0 of 1"),
        (b"\x01\0\0\0abc", "2 more than the 1 elements"),
    ] {
        let mut request = request.clone();
        request.raw_input_contents[0] = Bytes::from_static(bytes);
        assert_refused(&edit(), request, "inputs.image", words);
    }
}

/// What a test does to a request that was good.
type Change = fn(&mut ModelInferRequest);

#[test]
fn what_does_not_fit_is_named() {
    let cases: [(Change, &str, &str); 20] = [
        (|r| r.inputs[0].name = "simple".to_owned(), "inputs.simple", "there are `sample`, `ids`, `hint`"),
        (|r| r.inputs[0].name = "simple".to_owned(), "inputs.sample", "is missing; model `d/denoiser`"),
        (|r| r.inputs[1].name = "sample".to_owned(), "inputs.sample", "given twice"),
        (
            |r| r.inputs[0].datatype = "FP16".to_owned(),
            "inputs.sample",
            "`FP16`; model `d/denoiser` takes FP32",
        ),
        (|r| r.inputs[0].datatype = "float".to_owned(), "inputs.sample", "takes FP32"),
        (
            |r| r.inputs[0].shape = vec![4],
            "inputs.sample",
            "[4]; model `d/denoiser` takes [batch, 2, height, width]",
        ),
        (|r| r.inputs[0].shape = vec![1, 3, 1, 2], "inputs.sample", "has shape [1, 3, 1, 2]"),
        (|r| r.inputs[0].shape[0] = -1, "inputs.sample", "has shape [-1, 2, 1, 2]"),
        (|r| r.inputs[0].shape[3] = 0, "inputs.sample", "has shape [1, 2, 1, 0]"),
        (|r| r.inputs[1].shape[1] = 3, "inputs.ids", "length: a multiple of 2"),
        (|r| r.inputs[1].shape = vec![2, 2], "inputs.ids", "has batch 2, where another input has 1"),
        (|r| r.inputs[1].shape[1] = i64::MAX - 1, "inputs.ids", "has 16 bytes"),
        (|r| r.raw_input_contents[0] = r.raw_input_contents[0].slice(1..), "inputs.sample", "has 15 bytes"),
        (|r| r.raw_input_contents.truncate(1), "raw_input_contents", "has 1 entries for 2 inputs"),
        (
            |r| r.raw_input_contents[0] = little_endian([f32::NAN; 4].map(f32::to_le_bytes)),
            "inputs.sample",
            "not finite",
        ),
        (|r| r.raw_input_contents.clear(), "inputs.sample", "neither contents nor raw_input_contents"),
        (|r| r.inputs[0].contents = Some(InferTensorContents::default()), "inputs.sample", "has contents"),
        (
            |r| {
                r.inputs[0].parameters.insert("shared_memory_region".to_owned(), InferParameter::default());
            },
            "inputs.sample",
            "shared memory",
        ),
        (|r| r.outputs = vec![wanted_output("noises")], "outputs.noises", "there are `noise`, `other`"),
        (|r| r.outputs = vec![wanted_output("noise"); 2], "outputs.noise", "twice"),
    ];
    for (change, field, words) in cases {
        let mut request = raw();
        change(&mut request);
        assert_refused(&contract(), request, field, words);
    }
}

fn wanted_output(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.to_owned(), ..InferRequestedOutputTensor::default() }
}

#[test]
fn typed_contents_that_do_not_fit_are_named() {
    let cases: [(Change, &str); 3] = [
        (|r| contents(r).fp32_contents.push(1.0), "has 5 elements in fp32_contents"),
        (|r| contents(r).fp32_contents.clear(), "has 0 elements in fp32_contents"),
        (|r| contents(r).int64_contents.push(1), "only fp32_contents may be given"),
    ];
    for (change, words) in cases {
        let mut request = typed();
        change(&mut request);
        assert_refused(&contract(), request, "inputs.sample", words);
    }
}

fn contents(request: &mut ModelInferRequest) -> &mut InferTensorContents {
    request.inputs[0].contents.get_or_insert_default()
}

#[test]
fn outputs_come_as_they_are_asked_for() {
    let mut request = raw();
    request.outputs = vec![wanted_output("other")];
    assert_eq!(read(&contract(), request).unwrap().wanted, ["other"]);
}

#[test]
fn what_is_larger_than_an_edit_makes_it_is_refused() {
    let of = |shape: &[i64]| {
        let mut request = raw();
        request.inputs[0].shape = shape.to_vec();
        request
    };
    let side = i64::from(Limits::default().max_edit_side) / 8;
    assert_refused(&contract(), of(&[1, 2, side + 1, 1]), "inputs.sample", "with sides up to 2056");
    assert_refused(&contract(), of(&[1, 2, side, side]), "inputs.sample", "4194304 pixels");
    assert_refused(&contract(), of(&[65, 2, 1, 1]), "inputs.sample", "has batch 65");
    assert_refused(&contract(), of(&[1, 2, i64::MAX, i64::MAX]), "inputs.sample", "with sides up to");
    let mut request = raw();
    request.inputs.push(tensor("hint", "FP32", &[1, 257]));
    request.raw_input_contents.push(Bytes::from(vec![0; 4 * 257]));
    assert_refused(&contract(), request, "inputs.hint", "has tokens 257");
}

#[test]
fn many_tensors_make_few_words() {
    let request = ModelInferRequest {
        inputs: vec![tensor("x", "FP32", &[1]); 10_000],
        outputs: vec![wanted_output("x"); 10_000],
        ..ModelInferRequest::default()
    };
    let violations = read(&contract(), request).map(drop).unwrap_err();
    assert!(violations.iter().count() < 5, "{violations}");
}

proptest! {
    #[test]
    fn nothing_that_is_sent_is_the_end(
        datatype in prop_oneof![Just("FP32"), Just("INT64"), Just("BYTES")],
        shape in prop::collection::vec(prop_oneof![any::<i64>(), -1..4_i64], 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        for name in ["sample", "ids", "image"] {
            for contract in [contract(), edit()] {
                let request = ModelInferRequest {
                    inputs: vec![tensor(name, datatype, &shape)],
                    raw_input_contents: vec![Bytes::from(bytes.clone())],
                    ..ModelInferRequest::default()
                };
                // One of the needed inputs is always missing.
                prop_assert!(read(&contract, request).is_err());
            }
        }
    }
}
