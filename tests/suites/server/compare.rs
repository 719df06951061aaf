//! One edit on several deployments.

use std::sync::Arc;
use std::time::Duration;

use smartedit_client::{
    Code, CompareEvent, CompareRequest, Compared, EditOptions, Event, ImageTokens, Resize,
};
use smartedit_core::engine::Precision;
use smartedit_server::Config;
use smartedit_server::config::{DeploymentConfig, Limits};

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, decoded, request};
use crate::witness::Witness;

const STEPS: u32 = 4;

/// More steps than anyone waits for.
const MANY: u32 = 400;

/// The shipped model twice in f32 and once in bf16.
fn same_model() -> Config {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
    let wide = DeploymentConfig::new(model);
    let narrow = DeploymentConfig { precision: Precision::Bf16, ..wide.clone() };
    let deployments = [("wide", wide.clone()), ("again", wide), ("narrow", narrow)];
    Config {
        default_deployment: Some("wide".to_owned()),
        deployments: deployments.map(|(name, deployment)| (name.to_owned(), deployment)).into(),
        ..config()
    }
}

fn compare(deployments: &[&str]) -> CompareRequest {
    let edit = request(STEPS);
    CompareRequest {
        options: edit.options,
        ..CompareRequest::new(edit.image, edit.instruction, deployments.iter().copied())
    }
}

async fn compared(server: &Running, request: CompareRequest) -> Vec<Compared> {
    let entries = server.client.compare(request).await.unwrap();
    entries.into_iter().map(|entry| entry.outcome.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_deployments_make_the_same_edit() {
    let server = Running::start_with(same_model()).await;
    let edits = compared(&server, compare(&["wide", "again"])).await;
    let [first, second] = &edits[..] else { panic!("{edits:?}") };
    assert_eq!(first.difference, None);
    assert_eq!((first.edited.deployment.as_str(), second.edited.deployment.as_str()), ("wide", "again"));
    assert_eq!((first.edited.seed, second.edited.seed), (7, 7));
    assert_eq!(decoded(&first.edited.image), decoded(&second.edited.image));
    let difference = second.difference.as_ref().unwrap();
    let latents = difference.latents.as_ref().unwrap();
    assert_eq!((latents.max, latents.mean, latents.parting_step), (0.0, 0.0, None));
    assert_eq!(latents.step_max, vec![0.0; STEPS as usize]);
    let pixels = difference.pixels.as_ref().unwrap();
    assert_eq!((pixels.max, pixels.mean, pixels.psnr, pixels.ssim), (0, 0.0, f64::INFINITY, Some(1.0)));

    // What is compared is what an edit alone gives.
    let mut alone = request(STEPS);
    alone.deployment = Some("again".to_owned());
    assert_eq!(server.client.edit(alone).await.unwrap().image, second.edited.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edit_is_measured() {
    let server = Running::start_with(same_model()).await;
    for compared in compared(&server, compare(&["wide", "narrow"])).await {
        let deployment = server.client.deployment(&compared.edited.deployment).await.unwrap();
        let stages: Vec<_> = compared.edited.timings.stages.iter().map(|timing| timing.stage).collect();
        // The text encoder is run while the model is loaded.
        assert_eq!(stages.len(), deployment.stages.len() - 1, "{stages:?}");
        let weights: u64 = deployment.stages.iter().map(|stage| stage.weight_bytes).sum();
        assert_eq!(compared.memory.weight_bytes, weights);
        if cfg!(target_os = "linux") {
            let (resident, peak) = (compared.memory.resident_bytes, compared.memory.peak_resident_bytes);
            assert!(resident.is_some() && peak >= resident, "{:?}", compared.memory);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_precision_differs_a_little() {
    let server = Running::start_with(same_model()).await;
    let mut request = compare(&["wide", "narrow"]);
    request.latent_threshold = Some(0.0);
    let edits = compared(&server, request).await;
    let difference = edits[1].difference.as_ref().unwrap();
    let latents = difference.latents.as_ref().unwrap();
    assert!(latents.max > 0.0 && latents.mean > 0.0 && latents.mean <= latents.max, "{latents:?}");
    assert_eq!(latents.step_max.last(), Some(&latents.max));
    assert_eq!(latents.parting_step, Some(1));
    let pixels = difference.pixels.as_ref().unwrap();
    assert!(pixels.psnr >= 35.0 && pixels.psnr.is_finite(), "{pixels:?}");
    assert!(pixels.ssim.is_some_and(|ssim| ssim > 0.9 && ssim < 1.0), "{pixels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_deployment_reports_in_its_turn() {
    let server = Running::start_with(same_model()).await;
    let mut stream = server.client.compare_stream(compare(&["narrow", "wide"])).await.unwrap();
    let Some(Ok(CompareEvent::Started { deployments, seed: 7, request_id, .. })) = stream.next().await else {
        panic!("a comparison begins with its start")
    };
    assert_eq!(deployments, ["narrow", "wide"]);
    for name in ["narrow", "wide"] {
        let mut last_step = None;
        let entry = loop {
            match stream.next().await.expect("every deployment has an entry").unwrap() {
                CompareEvent::Progress { deployment, event } => {
                    assert_eq!(deployment, name);
                    if let Event::Step { index, total, .. } = event {
                        last_step = Some((index, total));
                    }
                }
                CompareEvent::Entry(entry) => break entry,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((entry.deployment.as_str(), last_step), (name, Some((STEPS, STEPS))));
        assert!(entry.outcome.unwrap().edited.request_id.starts_with(&request_id));
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_deployment_that_fails_fails_alone() {
    let server = Running::start().await;
    // A reply of tokens drawn at random has no image tokens; a model without a language model needs none.
    let with = |deployments: &[&str]| {
        let mut request = compare(deployments);
        request.options.image_tokens = Some(ImageTokens::Free);
        request.options.temperature = Some(1e6);
        request
    };
    for order in [[SMARTEDIT, INSTRUCT_PIX2PIX], [INSTRUCT_PIX2PIX, SMARTEDIT]] {
        let entries = server.client.compare(with(&order)).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.deployment.as_str()).collect::<Vec<_>>(), order);
        for entry in entries {
            match (entry.deployment == SMARTEDIT, entry.outcome) {
                (true, Err(failure)) => {
                    assert_eq!(
                        (failure.code, failure.reason.as_str()),
                        (Code::FailedPrecondition, "NO_IMAGE_TOKENS")
                    );
                }
                (false, Ok(compared)) if order[0] == SMARTEDIT => {
                    let difference = compared.difference.unwrap();
                    assert!(difference.latents.unwrap_err().contains("first deployment failed"));
                    assert!(difference.pixels.unwrap_err().contains("first deployment failed"));
                }
                (false, Ok(compared)) => assert_eq!(compared.difference, None),
                (_, outcome) => panic!("{outcome:?}"),
            }
        }
    }
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_other_sizes_say_that_they_cannot_be_compared() {
    let mut models = config();
    models.deployments.extend(same_model().deployments);
    let server = Running::start_with(models).await;
    let mut request = compare(&["wide", INSTRUCT_PIX2PIX]);
    // Each at its model's own size.
    request.options = EditOptions { resize: Resize::Default, ..request.options };
    let edits = compared(&server, request).await;
    let sizes: Vec<_> =
        edits.iter().map(|compared| (compared.edited.width, compared.edited.height)).collect();
    assert_ne!(sizes[0], sizes[1]);
    let difference = edits[1].difference.as_ref().unwrap();
    assert!(difference.latents.as_ref().unwrap_err().contains("shape"), "{difference:?}");
    assert!(difference.pixels.as_ref().unwrap_err().contains("size"), "{difference:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_refused_by_its_field() {
    type Change = fn(&mut CompareRequest);
    let limits = Limits { max_compared: 2, max_compare_bytes: 64 << 10, ..Limits::default() };
    let server = Running::start_with(Config { limits, ..same_model() }).await;
    let cases: [(&str, Change, &str); 9] = [
        ("deployments", |r| r.deployments.clear(), "0 names"),
        ("deployments", |r| r.deployments.truncate(1), "1 names"),
        ("deployments", |r| r.deployments.push("narrow".to_owned()), "3 names"),
        ("deployments[1]", |r| r.deployments[1] = "wide".to_owned(), "twice"),
        ("deployments[0]", |r| r.deployments[0].clear(), "empty"),
        ("latent_threshold", |r| r.latent_threshold = Some(f32::NAN), "NaN"),
        ("options.keep_on_disconnect", |r| r.options.keep_on_disconnect = true, "caller"),
        ("options.steps", |r| r.options.steps = Some(300), "65536"),
        ("instruction", |r| r.instruction.clear(), "empty"),
    ];
    for (field, spoil, words) in cases {
        let mut request = compare(&["wide", "again"]);
        spoil(&mut request);
        let error = server.client.compare(request).await.unwrap_err();
        let rejection = error.rejection().unwrap();
        assert_eq!(rejection.code, Code::InvalidArgument, "{field}: {error}");
        let fields: Vec<_> = rejection.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, [field], "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = server.client.compare(compare(&["wide", "nobody"])).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert_eq!(error.rejection().unwrap().reason.as_deref(), Some("UNKNOWN_DEPLOYMENT"));
    assert!(error.to_string().contains("`nobody`"), "{error}");
    compared(&server, compare(&["wide", "again"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comparisons_together_hold_a_bounded_amount_of_memory() {
    // Latents and pictures of one comparison take 28 KiB.
    let limits = Limits { max_compare_bytes: 40 << 10, ..Limits::default() };
    let server = Running::start_with(Config { limits, ..same_model() }).await;
    let held = server.client.compare_stream(compare(&["wide", "again"])).await.unwrap();
    let refused = server.client.compare(compare(&["wide", "again"])).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::ResourceExhausted), "{refused}");
    assert!(refused.rejection().unwrap().retry_delay.is_some());
    held.finish().await.unwrap();
    compared(&server, compare(&["wide", "again"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_stops_the_edit_and_those_after_it() {
    let witness = Witness::allowing(usize::MAX);
    let server = Running::start_on(Arc::new(witness.clone())).await;
    let mut request = compare(&[SMARTEDIT, INSTRUCT_PIX2PIX]);
    request.options.steps = Some(MANY);
    let stream = server.client.compare_stream(request).await.unwrap();
    witness.saw_a_step().await;
    drop(stream);
    server.idle().await;
    assert_eq!(witness.finished(), 0);
    assert!(witness.steps() < MANY as usize, "{} steps", witness.steps());
    server.still_serves().await;
    // One edit since then, of one step, and nothing of the second deployment.
    assert_eq!(witness.finished(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_whole_comparison() {
    let witness = Witness::allowing(2);
    let server = Running::start_on(Arc::new(witness.clone())).await;
    let mut request = compare(&[SMARTEDIT, INSTRUCT_PIX2PIX]);
    request.timeout = Some(Duration::from_secs(2));
    let error = server.client.compare(request).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::DeadlineExceeded), "{error}");
    witness.release();
    server.idle().await;
    assert_eq!(witness.finished(), 0);
    server.still_serves().await;
}
