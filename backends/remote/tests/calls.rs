//! Calls of another server: what it sees, and what comes of its failures.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

mod support;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smartedit_core::interest::{self, Interest, Interests};
use smartedit_core::stage::{LoadError, Remote, Stage, StageError};
use smartedit_proto::inference as oip;
use support::{Act, Server, free_port, load, run};
use tokio::sync::Notify;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// One who waits until told not to, or until a deadline.
struct Waiter {
    deadline: Option<Instant>,
    gone: Arc<Notify>,
}

impl Interest for Waiter {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let gone = self.gone.clone();
        Box::pin(async move { gone.notified().await })
    }
}

fn waiter(deadline: Option<Instant>, gone: &Arc<Notify>) -> Interests {
    [Arc::new(Waiter { deadline, gone: gone.clone() }) as Arc<dyn Interest>].into_iter().collect()
}

fn full(retry_after: Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("QUEUE_FULL", "test", HashMap::new());
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, "full", details)
}

#[track_caller]
fn unavailable(outcome: Result<smartedit_core::tensor::Tensors, StageError>) -> (String, Option<Duration>) {
    match outcome {
        Err(StageError::Unavailable { message, retry_after, .. }) => (message, retry_after),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_computes_the_stage_raw_or_typed() {
    for raw in [true, false] {
        let server = Server::new(Vec::new());
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(place.path(), "secret\n").unwrap();
        let remote = Remote { raw, token_file: Some(place.path().to_owned()), ..server.remote() };
        let stage = load(remote).unwrap();
        assert_eq!((stage.info().engine, stage.info().provider.as_deref()), ("remote", Some("test")));
        let image = run(stage.as_ref(), 2).unwrap();
        assert_eq!(image.f32("image").unwrap().shape(), [2, 3, 16, 8]);
        let seen = server.seen();
        let [call] = &seen[..] else { panic!("{} calls", seen.len()) };
        assert_eq!(call.request.model_name, "decoder");
        assert_eq!(call.request.raw_input_contents.is_empty(), !raw);
        assert_eq!(call.request.outputs[0].name, "image");
        assert_eq!(call.authorization.as_deref(), Some("Bearer secret"));
        assert!(call.timeout.is_some());
    }
}

#[test]
fn a_busy_server_is_asked_again_and_others_are_not() {
    let pause = Duration::from_millis(30);
    let server = Server::new(vec![Act::Refuse(full(pause)), Act::Refuse(Status::unavailable("drains"))]);
    let begun = Instant::now();
    run(server.stage().as_ref(), 1).unwrap();
    assert_eq!(server.seen().len(), 3);
    assert!(begun.elapsed() >= pause);

    let server = Server::new(vec![Act::Refuse(Status::internal("broken"))]);
    let error = run(server.stage().as_ref(), 1).unwrap_err();
    assert!(matches!(&error, StageError::Engine { .. }), "{error}");
    for words in ["broken", "`decoder`", &server.url()] {
        assert!(error.to_string().contains(words), "no {words} in {error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_stays_busy_says_when_to_come_back() {
    let later = Duration::from_millis(20);
    let server = Server::new((0..3).map(|_| Act::Refuse(full(later))).collect());
    let stage = load(Remote { retries: 2, ..server.remote() }).unwrap();
    let (message, retry_after) = unavailable(run(stage.as_ref(), 1));
    assert!(message.contains("full"), "{message}");
    assert_eq!(retry_after, Some(later));
    assert_eq!(server.seen().len(), 3);
    // It is asked anew for the next edit.
    run(stage.as_ref(), 1).unwrap();
}

#[test]
fn a_call_ends_with_the_last_who_waits() {
    let gone = Arc::new(Notify::new());
    let server = Server::new(vec![Act::Hang, Act::Hang]);
    let stage = server.stage();
    let (telling, here) = (gone.clone(), waiter(None, &gone));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.hangs();
            telling.notify_one();
        });
        let error = interest::during(here, || run(stage.as_ref(), 1)).unwrap_err();
        assert!(matches!(&error, StageError::Engine { .. }), "{error}");
    });
    server.is_left();

    let deadline = Some(Instant::now() + Duration::from_millis(200));
    let error = interest::during(waiter(deadline, &gone), || run(stage.as_ref(), 1)).unwrap_err();
    assert!(error.to_string().contains("waits") || error.to_string().contains("answer"), "{error}");
    server.is_left();
    let timeout = server.seen()[1].timeout.clone().unwrap();
    assert!(timeout.ends_with('u') || timeout.ends_with('n') || timeout.ends_with('m'), "{timeout}");
    run(stage.as_ref(), 1).unwrap();
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up() {
    let server = Server::new(vec![Act::Hang]);
    let stage = load(Remote { timeout_ms: 100, ..server.remote() }).unwrap();
    unavailable(run(stage.as_ref(), 1));
    server.is_left();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_limits_rows_gets_no_more() {
    let config = oip::ModelConfig { max_batch_size: 2, ..oip::ModelConfig::default() };
    let server = Server::with(Vec::new(), |fake| fake.config = Ok(config));
    let image = run(server.stage().as_ref(), 5).unwrap();
    assert_eq!(image.f32("image").unwrap().shape(), [5, 3, 16, 8]);
    let rows: Vec<i64> = server.seen().iter().map(|call| call.request.inputs[0].shape[0]).collect();
    assert_eq!(rows, [2, 2, 1]);
}

#[test]
fn a_server_that_comes_back_is_found_again() {
    let server = Server::new(Vec::new());
    let (address, stage) = (server.address, server.stage());
    run(stage.as_ref(), 1).unwrap();
    drop(server);
    unavailable(run(stage.as_ref(), 1));
    let _server = Server::listening(address, None, Vec::new(), |_| ());
    run(stage.as_ref(), 1).unwrap();
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let address = free_port();
    let remote = Remote { load_timeout_ms: 60_000, ..Remote::new(format!("http://{address}"), "decoder") };
    let stage: Arc<dyn Stage> = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(remote));
        let _server = Server::listening(address, None, Vec::new(), |_| ());
        loading.join().unwrap().unwrap()
    });
    unavailable(run(stage.as_ref(), 1));
}

#[test]
fn a_server_that_does_not_come_is_unavailable_and_a_wrong_model_is_not() {
    let address = free_port();
    let remote = Remote { load_timeout_ms: 300, ..Remote::new(format!("http://{address}"), "decoder") };
    let error = load(remote).err().unwrap();
    assert!(matches!(&error, LoadError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let server = Server::with(Vec::new(), |fake| fake.metadata.inputs[0].datatype = "FP16".to_owned());
    let error = load(server.remote()).err().unwrap();
    assert!(matches!(&error, LoadError::Remote { .. }), "{error}");
    for words in ["vae_decoder", "`decoder`", &server.url(), "`latents`", "FP16"] {
        assert!(error.to_string().contains(words), "no {words} in {error}");
    }
    let server = Server::with(Vec::new(), |fake| fake.metadata.outputs[0].name = "picture".to_owned());
    let error = load(server.remote()).err().unwrap().to_string();
    assert!(error.contains("`image`") && error.contains("`picture`"), "{error}");
    let outputs = [("image".to_owned(), "picture".to_owned())].into();
    load(Remote { outputs, ..server.remote() }).unwrap();
}
