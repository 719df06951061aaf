//! Callers who leave, and deadlines that pass, while a real model is at work.

use std::sync::Arc;
use std::time::Duration;

use smartedit_client::{Code, EditRequest, EditStream, Event};
use smartedit_proto::inference::ModelInferRequest;
use smartedit_proto::inference::infer_parameter::ParameterChoice;

use crate::inference;
use crate::running::{Running, SMARTEDIT, message, request, streaming};
use crate::witness::Witness;

/// More steps than anyone waits for.
const MANY: u32 = 500;

async fn start(witness: &Witness) -> Running {
    Running::start_on(Arc::new(witness.clone())).await
}

/// An edit in the middle of its denoising loop.
async fn denoising(server: &Running, request: EditRequest) -> EditStream {
    let mut stream = server.client.edit_stream(request).await.unwrap();
    while !matches!(stream.next().await.unwrap().unwrap(), Event::Step { .. }) {}
    stream
}

/// An edit that waits behind another one.
async fn waiting(server: &Running) -> EditStream {
    let stream = server.client.edit_stream(request(1)).await.unwrap();
    server.until("one edit waits", |found| found.queued == 1).await;
    stream
}

/// Waits until the server has noticed that nobody waits in the queue any more.
async fn nobody_waits(server: &Running) {
    server.until("nobody waits", |found| found.queued == 0).await;
}

/// Makes sure that work has ended before its end, and that the server goes on.
async fn stopped(server: &Running, witness: &Witness) {
    server.idle().await;
    assert_eq!(witness.finished(), 0);
    assert!(witness.steps() < MANY as usize, "{} steps", witness.steps());
    witness.release();
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_stream_stops_the_work() {
    let witness = Witness::allowing(usize::MAX);
    let server = start(&witness).await;
    drop(denoising(&server, request(MANY)).await);
    stopped(&server, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_unary_call_stops_the_work() {
    let witness = Witness::allowing(usize::MAX);
    let server = start(&witness).await;
    let client = server.client.clone();
    let call = tokio::spawn(async move { client.edit(request(MANY)).await });
    witness.saw_a_step().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    stopped(&server, &witness).await;
}

/// The edit of many steps in the Open Inference Protocol.
fn inference() -> ModelInferRequest {
    let mut request = inference::edit(SMARTEDIT);
    let steps = ParameterChoice::Int64Param(MANY.into());
    request.parameters.get_mut("steps").unwrap().parameter_choice = Some(steps);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_an_inference_stops_the_work() {
    let witness = Witness::allowing(usize::MAX);
    let server = start(&witness).await;
    let mut client = server.inference.clone();
    let call = tokio::spawn(async move { client.model_infer(inference()).await });
    witness.saw_a_step().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    stopped(&server, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_stream_of_inferences_stops_the_work() {
    let witness = Witness::allowing(usize::MAX);
    let server = start(&witness).await;
    let requests = tokio_stream::once(inference());
    let responses = server.inference.clone().model_stream_infer(requests).await.unwrap();
    witness.saw_a_step().await;
    drop(responses);
    stopped(&server, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_after_any_step_stops_the_work_before_the_one_after_the_next() {
    const STEPS: u32 = 4;
    for step in 1..STEPS {
        let next = step as usize + 1;
        let witness = Witness::allowing(next);
        let server = start(&witness).await;
        let mut stream = server.client.edit_stream(request(STEPS + 1)).await.unwrap();
        let mut seen = 0;
        while seen < step {
            seen += u32::from(matches!(stream.next().await.unwrap().unwrap(), Event::Step { .. }));
        }
        let behind = waiting(&server).await;
        drop(stream);
        drop(behind);
        // Both left over one connection: who has noticed the second has heard of the first.
        nobody_waits(&server).await;
        witness.release();
        server.idle().await;
        assert_eq!(witness.finished(), 0, "left after step {step}");
        assert!(witness.steps() <= next, "left after step {step}, but {} were done", witness.steps());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_edit_that_is_left_never_begins() {
    let witness = Witness::allowing(2);
    let server = start(&witness).await;
    let first = denoising(&server, request(3)).await;
    drop(waiting(&server).await);
    nobody_waits(&server).await;
    witness.release();
    first.finish().await.unwrap();
    server.idle().await;
    assert_eq!((witness.steps(), witness.finished()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_goes_on_where_the_request_says_so() {
    let witness = Witness::allowing(2);
    let server = start(&witness).await;
    let mut kept = request(4);
    kept.options.keep_on_disconnect = true;
    let first = denoising(&server, kept).await;
    let second = waiting(&server).await;
    drop(first);
    drop(second);
    // Both left over one connection: who has noticed the second has heard of the first.
    nobody_waits(&server).await;
    witness.release();
    server.idle().await;
    assert_eq!((witness.steps(), witness.finished()), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_in_the_middle_of_a_stream_is_called_by_its_name_and_stops_the_work() {
    let witness = Witness::allowing(2);
    let server = start(&witness).await;
    // Only the header tells the server; the generated client's own timer is left out.
    let mut request = tonic::Request::new(streaming(message(MANY)));
    request.metadata_mut().insert("grpc-timeout", "3S".parse().unwrap());
    let mut stream = server.raw.clone().edit_stream(request).await.unwrap().into_inner();
    let mut events = 0;
    let status = loop {
        match stream.message().await {
            Ok(event) => events += usize::from(event.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("deadline"), "{}", status.message());
    assert!(events > 0, "the stream had begun");

    let steps = witness.steps();
    assert!(steps <= 2);
    witness.release();
    server.idle().await;
    assert_eq!(witness.finished(), 0);
    assert!(witness.steps() <= steps + 1, "within one step");
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_unary_call() {
    let witness = Witness::allowing(2);
    let server = start(&witness).await;
    let mut request = request(MANY);
    request.timeout = Some(Duration::from_secs(2));
    assert_eq!(server.client.edit(request).await.unwrap_err().code(), Some(Code::DeadlineExceeded));
    witness.release();
    stopped(&server, &witness).await;
}
