//! Many edits at the same time on real models.

use std::sync::Arc;

use image::RgbImage;
use smartedit_client::{Code, EditOptions, EditRequest, Edited, Error, Priority, Resize};
use smartedit_server::Config;
use smartedit_server::config::{DeploymentConfig, Limits};
use smartedit_tests::tolerance::Identical;
use tonic_types::StatusExt;

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, decoded, message, request};
use crate::witness::Witness;

/// Both models, with shared runs.
fn sharing() -> Config {
    let mut config = config();
    for deployment in config.deployments.values_mut() {
        let defaults = DeploymentConfig::new(&deployment.model);
        *deployment = DeploymentConfig { concurrency: Some(16), ..defaults };
    }
    config
}

/// Edits that differ in all that a run of the denoiser may differ in.
fn requests(deployment: &str) -> Vec<EditRequest> {
    let vary = |index: u32| {
        let (text_guidance, image_guidance) = match index % 3 {
            0 => (None, None),
            1 => (Some(1.0), Some(1.0)),
            _ => (Some(4.0), Some(1.0)),
        };
        let options = EditOptions {
            seed: Some(u64::from(index)),
            steps: Some(6 + index),
            text_guidance,
            image_guidance,
            resize: if index == 5 { Resize::Stretch(32, 64) } else { Resize::Stretch(64, 64) },
            ..EditOptions::default()
        };
        let instruction = format!("make it number {index}");
        EditRequest { options, instruction, deployment: Some(deployment.to_owned()), ..request(1) }
    };
    (0..6).map(vary).collect()
}

async fn all_at_once(server: &Running, requests: Vec<EditRequest>) -> Vec<Result<Edited, Error>> {
    let calls = requests.into_iter().map(|request| {
        let client = server.client.clone();
        tokio::spawn(async move { client.edit(request).await })
    });
    let calls: Vec<_> = calls.collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

fn check(what: &str, found: &RgbImage, alone: &RgbImage) {
    let shape = vec![alone.height() as usize, alone.width() as usize, 3];
    let alone = ndarray::ArrayD::from_shape_vec(shape, alone.as_raw().clone()).unwrap();
    Identical::Nearly.check(what, found, alone.view());
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_come_out_as_alone() {
    let server = Running::start_with(sharing()).await;
    for name in [SMARTEDIT, INSTRUCT_PIX2PIX] {
        assert_eq!(server.client.deployment(name).await.unwrap().max_batch, 8);
        let mut alone = Vec::new();
        for request in requests(name) {
            let edited = server.client.edit(request).await.unwrap();
            assert_eq!(edited.timings.mean_batch, 1.0);
            alone.push(decoded(&edited.image));
        }
        let together = all_at_once(&server, requests(name)).await;
        let together: Vec<Edited> = together.into_iter().map(Result::unwrap).collect();
        for (index, (edited, alone)) in together.iter().zip(&alone).enumerate() {
            check(&format!("{name}: edit {index}"), &decoded(&edited.image), alone);
        }
        let shared = together.iter().filter(|edited| edited.timings.mean_batch > 1.0).count();
        assert!(shared >= 2, "runs were shared");
        assert_eq!(together[5].timings.mean_batch, 1.0, "nobody else has this size");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_than_there_is_room_for_some_are_refused_and_the_others_served() {
    let limits = Limits { max_queue: 3, max_concurrent: 200, ..Limits::default() };
    let server = Running::start_with(Config { limits, ..config() }).await;
    let outcomes = all_at_once(&server, vec![request(2); 40]).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(served >= 4, "{served}");
    assert!(served < outcomes.len());
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
        assert!(error.rejection().unwrap().retry_delay.is_some());
    }
    server.idle().await;
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_cannot_be_met_is_refused_before_any_work() {
    let witness = Witness::allowing(usize::MAX);
    let server = Running::start_on(Arc::new(witness.clone())).await;
    server.client.edit(request(1)).await.unwrap();
    server.idle().await;
    let steps = witness.steps();
    // Nothing does so many steps in this time. Only the header tells the server: no timer of the client's is faster.
    let mut hopeless = tonic::Request::new(message(500));
    hopeless.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let status = server.raw.clone().edit(hopeless).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!(reason.as_deref(), Some("DEADLINE_TOO_SHORT"));
    assert_eq!(witness.steps(), steps);
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_little_or_is_waited_for_comes_first() {
    let witness = Witness::allowing(1);
    let server = Running::start_on(Arc::new(witness.clone())).await;
    let from = |caller: &str, priority| {
        let mut request = request(2);
        request.options.caller = Some(caller.to_owned());
        request.options.priority = Some(priority);
        request
    };
    let first = server.client.edit_stream(from("many", Priority::Interactive)).await.unwrap();
    witness.saw_a_step().await;
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let request = from("many", Priority::Batch);
        waiting.push(server.client.edit_stream(request).await.unwrap());
        server.until("it waits", |found| found.queued == count).await;
    }
    for (place, caller, priority) in [(1, "few", Priority::Batch), (0, "many", Priority::Interactive)] {
        let mut stream = server.client.edit_stream(from(caller, priority)).await.unwrap();
        let position = loop {
            if let smartedit_client::Event::Queued(position) = stream.next().await.unwrap().unwrap() {
                break position;
            }
        };
        assert_eq!(position, place, "{caller}");
        waiting.push(stream);
    }
    witness.release();
    first.finish().await.unwrap();
    for stream in waiting {
        stream.finish().await.unwrap();
    }
}
