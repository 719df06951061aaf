//! The Open Inference Protocol over the pack's models.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use smartedit_client::Code;
use smartedit_proto::inference as oip;
use smartedit_proto::inference::infer_parameter::ParameterChoice;
use smartedit_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use smartedit_proto::inference::{ModelInferRequest, ModelInferResponse};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, message, request};

/// Pixels of a side of the smallest picture that every stage takes.
const SIDE: i64 = 64;

/// A string as raw contents hold it.
fn prefixed(string: &[u8]) -> Bytes {
    let mut raw = BytesMut::new();
    raw.put_u32_le(string.len() as u32);
    raw.put(string);
    raw.freeze()
}

/// The string in raw contents of one.
#[track_caller]
fn unprefixed(raw: &Bytes) -> Bytes {
    assert_eq!(raw[..4], ((raw.len() - 4) as u32).to_le_bytes());
    raw.slice(4..)
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn parameters<const N: usize>(given: [(&str, ParameterChoice); N]) -> HashMap<String, oip::InferParameter> {
    let parameter = |choice| oip::InferParameter { parameter_choice: Some(choice) };
    given.into_iter().map(|(name, choice)| (name.to_owned(), parameter(choice))).collect()
}

/// The edit of [`request`] of two steps.
pub(crate) fn edit(model: &str) -> ModelInferRequest {
    use ParameterChoice::Int64Param;
    let asked = request(2);
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "mine".to_owned(),
        parameters: parameters([
            ("seed", Int64Param(7)),
            ("steps", Int64Param(2)),
            ("width", Int64Param(SIDE)),
            ("height", Int64Param(SIDE)),
        ]),
        inputs: vec![input("image", "BYTES", &[1]), input("instruction", "BYTES", &[1])],
        raw_input_contents: vec![prefixed(&asked.image), prefixed(asked.instruction.as_bytes())],
        ..ModelInferRequest::default()
    }
}

async fn metadata(server: &Running, model: &str) -> oip::ModelMetadataResponse {
    let request = oip::ModelMetadataRequest { name: model.to_owned(), version: String::new() };
    server.inference.clone().model_metadata(request).await.unwrap().into_inner()
}

pub(crate) async fn infer(
    server: &Running,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Status> {
    server.inference.clone().model_infer(request).await.map(tonic::Response::into_inner)
}

/// Names of all models that can be computed.
async fn ready(server: &Running) -> Vec<String> {
    let request = oip::RepositoryIndexRequest { ready: true, ..oip::RepositoryIndexRequest::default() };
    let index = server.inference.clone().repository_index(request).await.unwrap().into_inner();
    index
        .models
        .into_iter()
        .inspect(|model| assert_eq!(model.state, "READY"))
        .map(|model| model.name)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_the_edit_of_the_native_protocol() {
    let server = Running::start().await;
    let expected = server.raw.clone().edit(message(2)).await.unwrap().into_inner().result.unwrap();
    let answer = infer(&server, edit(SMARTEDIT)).await.unwrap();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("mine", "1"));
    let names: Vec<_> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["image", "reply"]);
    assert!(answer.outputs.iter().all(|output| output.contents.is_none()));
    assert_eq!(unprefixed(&answer.raw_output_contents[0]), expected.image);
    assert_eq!(unprefixed(&answer.raw_output_contents[1]), expected.reply.unwrap());
    assert_eq!(answer.parameters["seed"].parameter_choice, Some(ParameterChoice::Int64Param(7)));

    // Asked in typed contents, it answers in them.
    let mut typed = edit(SMARTEDIT);
    let asked = request(2);
    typed.raw_input_contents.clear();
    for (input, string) in typed.inputs.iter_mut().zip([asked.image, Bytes::from(asked.instruction)]) {
        input.contents =
            Some(oip::InferTensorContents { bytes_contents: vec![string], ..Default::default() });
    }
    typed.outputs = vec![InferRequestedOutputTensor {
        name: "image".to_owned(),
        ..InferRequestedOutputTensor::default()
    }];
    let answer = infer(&server, typed).await.unwrap();
    assert!(answer.raw_output_contents.is_empty());
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().bytes_contents, [expected.image]);
}

/// A request of zeros for a model, which it can answer.
pub(crate) async fn nothing_for(server: &Running, model: &str) -> ModelInferRequest {
    zeros(&metadata(server, model).await)
}

/// A request of zeros for a model, with every size that may be any at its least.
fn zeros(metadata: &oip::ModelMetadataResponse) -> ModelInferRequest {
    let mut request = ModelInferRequest { model_name: metadata.name.clone(), ..ModelInferRequest::default() };
    for tensor in &metadata.inputs {
        let size = |(axis, size): (usize, &i64)| match (*size, tensor.name.as_str(), axis) {
            (-1, "image", 2..) => SIDE,
            (-1, "sample" | "latents", 2..) => SIDE / 8,
            (-1, ..) => 1,
            (size, ..) => size,
        };
        let shape: Vec<i64> = tensor.shape.iter().enumerate().map(size).collect();
        let elements = shape.iter().product::<i64>() as usize;
        let bytes = if tensor.datatype == "INT64" { 8 } else { 4 };
        request.inputs.push(input(&tensor.name, &tensor.datatype, &shape));
        request.raw_input_contents.push(vec![0; elements * bytes].into());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stage_gives_what_its_metadata_says() {
    let server = Running::start().await;
    let models = ready(&server).await;
    assert_eq!(models.len(), 2 + 7 + 4, "{models:?}");
    for name in models.iter().filter(|name| name.contains('/')) {
        let metadata = metadata(&server, name).await;
        let answer = infer(&server, zeros(&metadata)).await.unwrap();
        assert_eq!(answer.outputs.len(), metadata.outputs.len(), "{name}");
        for ((found, told), raw) in
            answer.outputs.iter().zip(&metadata.outputs).zip(&answer.raw_output_contents)
        {
            let fits = |(found, told): (&i64, &i64)| *told == -1 || told == found;
            let same_rank = found.shape.len() == told.shape.len();
            assert!(
                same_rank && found.shape.iter().zip(&told.shape).all(fits),
                "{name}: {found:?} for {told:?}"
            );
            assert_eq!((&found.name, &found.datatype), (&told.name, &told.datatype));
            assert_eq!(raw.len() as i64, 4 * found.shape.iter().product::<i64>());
        }
        let request = oip::ModelConfigRequest { name: name.clone(), version: "1".to_owned() };
        let config =
            server.inference.clone().model_config(request).await.unwrap().into_inner().config.unwrap();
        let dims: Vec<_> = config.input.iter().map(|input| (&input.name, &input.dims)).collect();
        let shapes: Vec<_> = metadata.inputs.iter().map(|input| (&input.name, &input.shape)).collect();
        assert_eq!(dims, shapes, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_optional_need_not_be_given() {
    let server = Running::start().await;
    let name = format!("{SMARTEDIT}/denoiser");
    let all = zeros(&metadata(&server, &name).await);
    let mut least = all.clone();
    least.inputs.pop();
    least.raw_input_contents.pop();
    let (all, least) = (infer(&server, all).await.unwrap(), infer(&server, least).await.unwrap());
    assert_eq!(all.raw_output_contents, least.raw_output_contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not() {
    let server = Running::start().await;
    let mut client = server.inference.clone();
    for name in
        ["", "nope", "smartedit/nope", "nope/denoiser", "smartedit/", "/denoiser", "smartedit/denoiser/x"]
    {
        let request = oip::ModelReadyRequest { name: name.to_owned(), version: String::new() };
        assert!(!client.model_ready(request).await.unwrap().into_inner().ready, "{name}");
        let status = infer(&server, edit(name)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), format!("Request for unknown model: '{name}' is not found"));
    }
    // InstructPix2Pix has neither language model nor reply.
    let name = format!("{INSTRUCT_PIX2PIX}/language_model");
    assert_eq!(infer(&server, edit(&name)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(metadata(&server, INSTRUCT_PIX2PIX).await.outputs.len(), 1);

    let versioned =
        |version: &str| ModelInferRequest { model_version: version.to_owned(), ..edit(SMARTEDIT) };
    let status = infer(&server, versioned("7")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "Request for unknown model: 'smartedit' version 7 is not found");
    for version in ["abc", "0", "-1"] {
        let status = infer(&server, versioned(version)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{version}");
    }

    let load = oip::RepositoryModelLoadRequest { model_name: SMARTEDIT.to_owned(), ..Default::default() };
    assert_eq!(client.repository_model_load(load).await.unwrap_err().code(), Code::PermissionDenied);
    let unload = oip::RepositoryModelUnloadRequest { model_name: SMARTEDIT.to_owned(), ..Default::default() };
    assert_eq!(client.repository_model_unload(unload).await.unwrap_err().code(), Code::PermissionDenied);
    let other = oip::RepositoryIndexRequest { repository_name: "other".to_owned(), ready: false };
    assert_eq!(client.repository_index(other).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_the_server_goes_on() {
    let server = Running::start().await;
    let vae = zeros(&metadata(&server, &format!("{SMARTEDIT}/vae_decoder")).await);
    let text = zeros(&metadata(&server, &format!("{SMARTEDIT}/text_encoder")).await);
    let with = |request: &ModelInferRequest, change: fn(&mut ModelInferRequest)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    let edit = edit(SMARTEDIT);
    for (request, field) in [
        (with(&edit, |r| r.inputs[0].datatype = "UINT8".to_owned()), "inputs.image"),
        (with(&edit, |r| r.raw_input_contents[0] = prefixed(b"no picture")), "inputs.image"),
        (with(&edit, |r| r.raw_input_contents[1] = prefixed(b"\xff")), "inputs.instruction"),
        (with(&edit, |r| r.raw_input_contents[1] = prefixed(b" ")), "inputs.instruction"),
        (
            with(&edit, |r| r.parameters.extend(parameters([("steps", ParameterChoice::Int64Param(0))]))),
            "parameters.steps",
        ),
        (
            with(&edit, |r| r.parameters.extend(parameters([("width", ParameterChoice::Int64Param(9))]))),
            "parameters.width",
        ),
        (with(&vae, |r| r.inputs[0].shape[2] = 1 << 40), "inputs.latents"),
        (with(&vae, |r| r.raw_input_contents[0] = Bytes::new()), "inputs.latents"),
        (
            with(&vae, |r| r.parameters = parameters([("steps", ParameterChoice::Int64Param(1))])),
            "parameters.steps",
        ),
        (
            with(&text, |r| r.raw_input_contents[0] = vec![0xff; r.raw_input_contents[0].len()].into()),
            "inputs.input_ids",
        ),
    ] {
        let status = infer(&server, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_error_details();
        let found: Vec<_> =
            details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(found, [field], "{status}");
    }
    server.still_serves().await;
}

/// What a stream answers to these requests.
async fn streamed(
    server: &Running,
    requests: Vec<ModelInferRequest>,
    whole: bool,
) -> (Vec<oip::ModelStreamInferResponse>, Option<Status>) {
    let mut call = Request::new(tokio_stream::iter(requests));
    if whole {
        call.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    }
    let mut responses = server.inference.clone().model_stream_infer(call).await.unwrap().into_inner();
    let mut read = Vec::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => read.push(response),
            Ok(None) => return (read, None),
            Err(status) => return (read, Some(status)),
        }
    }
}

fn text(response: &oip::ModelStreamInferResponse, name: &str) -> Option<String> {
    match response.infer_response.as_ref()?.parameters.get(name)?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_a_request_that_fails() {
    let server = Running::start().await;
    let named = |id: &str, model: &str| ModelInferRequest { id: id.to_owned(), ..edit(model) };
    let requests = || vec![named("a", SMARTEDIT), named("b", "nope"), named("c", INSTRUCT_PIX2PIX)];
    let (responses, end) = streamed(&server, requests(), false).await;
    assert!(end.is_none(), "{end:?}");
    let mut found: Vec<_> = responses
        .iter()
        .map(|response| {
            (response.infer_response.as_ref().unwrap().id.as_str(), response.error_message.as_str())
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("a", ""), ("b", "Request for unknown model: 'nope' is not found"), ("c", "")]);
    let last = Some(ParameterChoice::BoolParam(true));
    for response in responses {
        let parameters = response.infer_response.unwrap().parameters;
        assert_eq!(parameters["triton_final_response"].parameter_choice, last);
    }

    let (_, end) = streamed(&server, requests(), true).await;
    assert_eq!(end.unwrap().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_previews_come_over_a_stream() {
    let server = Running::start().await;
    let mut asked = edit(SMARTEDIT);
    let wishes = [
        ("progress", ParameterChoice::BoolParam(true)),
        ("preview_interval", ParameterChoice::Int64Param(1)),
    ];
    asked.parameters.extend(parameters(wishes));
    let (responses, end) = streamed(&server, vec![asked.clone()], false).await;
    assert!(end.is_none(), "{end:?}");
    let events: Vec<_> = responses.iter().filter_map(|response| text(response, "event")).collect();
    for event in ["accepted", "queued", "stage_started", "stage_finished", "reply", "step"] {
        assert!(events.iter().any(|found| found == event), "no {event} in {events:?}");
    }
    let (last, before) = responses.split_last().unwrap();
    let image = |response: &oip::ModelStreamInferResponse| {
        let answer = response.infer_response.as_ref()?;
        let index = answer.outputs.iter().position(|output| output.name == "image")?;
        Some(unprefixed(&answer.raw_output_contents[index]))
    };
    assert!(image(last).unwrap().starts_with(b"\x89PNG"));
    assert!(before.iter().filter_map(image).any(|preview| preview.starts_with(b"\xff\xd8")), "a JPEG");

    let status = infer(&server, asked).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_what_was_answered() {
    let server = Running::start().await;
    let name = format!("{SMARTEDIT}/vae_decoder");
    let request = nothing_for(&server, &name).await;
    for _ in 0..3 {
        infer(&server, request.clone()).await.unwrap();
    }
    infer(&server, edit(SMARTEDIT)).await.unwrap();
    // What is refused at once was never for the model.
    infer(&server, edit(&name)).await.unwrap_err();
    let asked = oip::ModelStatisticsRequest::default();
    let all = server.inference.clone().model_statistics(asked).await.unwrap().into_inner().model_stats;
    let of = |name: &str| all.iter().find(|stats| stats.name == name).unwrap();
    assert_eq!(all.len(), ready(&server).await.len());
    for (name, count) in [(name.as_str(), 3), (SMARTEDIT, 1), (INSTRUCT_PIX2PIX, 0)] {
        let (found, stats) = (of(name), of(name).inference_stats.unwrap());
        assert_eq!((found.inference_count, found.execution_count), (count, count), "{name}");
        assert_eq!((stats.success.unwrap().count, stats.fail.unwrap().count), (count, 0), "{name}");
        assert_eq!(stats.compute_infer.unwrap().count, count);
        assert_eq!(stats.compute_infer.unwrap().ns > 0, count > 0);
        assert!(stats.success.unwrap().ns >= stats.compute_infer.unwrap().ns);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_a_deadline() {
    let server = Running::start().await;
    let mut asked = edit(SMARTEDIT);
    asked.parameters.extend(parameters([("timeout", ParameterChoice::Int64Param(1))]));
    let status = infer(&server, asked).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let request = oip::ModelStatisticsRequest { name: SMARTEDIT.to_owned(), version: String::new() };
    let stats = server.inference.clone().model_statistics(request).await.unwrap().into_inner();
    assert_eq!(stats.model_stats[0].inference_stats.unwrap().fail.unwrap().count, 1);
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_of_itself() {
    let server = Running::start().await;
    let mut client = server.inference.clone();
    assert!(client.server_live(oip::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(oip::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let found = client.server_metadata(oip::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(found.name, "smartedit");
    assert!(found.extensions.iter().any(|extension| extension == "statistics"));
}
