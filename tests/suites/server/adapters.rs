//! LoRA adapters of real models: merged, chosen by requests, several at the same time.

mod loading;

use std::path::{Path, PathBuf};

use smartedit_client::{Code, EditRequest, Edited, Error};
use smartedit_core::stage::StageKind;
use smartedit_server::config::{AdapterConfig, AdaptersConfig, DeploymentConfig};
use smartedit_server::{Config, Server};
use smartedit_tests::adapters::Recipe;
use smartedit_tests::golden::{converted, open};
use smartedit_tests::tolerance::Identical;

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, decoded, request};

/// Writes an adapter of the pack's SmartEdit model.
pub(crate) fn write(seed: u64, directory: &Path) -> PathBuf {
    let wanted = |stage: StageKind, layer: &str| match stage {
        StageKind::Denoiser => layer.contains(".to_"),
        _ => layer.ends_with("q_proj"),
    };
    let recipe = Recipe { rank: 2, alpha: 4.0, strength: 0.3, seed, wanted: &wanted };
    recipe.write(&open(&converted().smartedit()), directory)
}

fn adapter(path: PathBuf, scale: f32) -> AdapterConfig {
    AdapterConfig { path, scale }
}

/// A deployment with adapters `a` and `b`, and one of the same model, under the other model's name, with `a` merged.
fn with_adapters(directory: &Path) -> Config {
    let adapters = [
        ("a".to_owned(), adapter(write(1, directory), 1.0)),
        ("b".to_owned(), adapter(write(2, directory), 0.5)),
    ];
    let plain = DeploymentConfig {
        adapters: adapters.into(),
        concurrency: Some(16),
        ..DeploymentConfig::new(converted().smartedit())
    };
    let merged = DeploymentConfig { default_adapter: Some("a".to_owned()), ..plain.clone() };
    let deployments = [(SMARTEDIT.to_owned(), plain), (INSTRUCT_PIX2PIX.to_owned(), merged)];
    Config { deployments: deployments.into(), ..config() }
}

pub(crate) fn choosing(adapter: Option<&str>, scale: Option<f32>) -> EditRequest {
    let mut request = request(3);
    (request.options.adapter, request.options.adapter_scale) = (adapter.map(str::to_owned), scale);
    request
}

async fn edit(server: &Running, deployment: &str, adapter: Option<&str>, scale: Option<f32>) -> Edited {
    let request = EditRequest { deployment: Some(deployment.to_owned()), ..choosing(adapter, scale) };
    server.client.edit(request).await.unwrap()
}

#[track_caller]
fn check(what: &str, found: &Edited, expected: &Edited) {
    let (found, expected) = (decoded(&found.image), decoded(&expected.image));
    let shape = vec![expected.height() as usize, expected.width() as usize, 3];
    let expected = ndarray::ArrayD::from_shape_vec(shape, expected.into_raw()).unwrap();
    Identical::Nearly.check(what, &found, expected.view());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_choose_adapters() {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start_with(with_adapters(directory.path())).await;
    let plain = edit(&server, SMARTEDIT, None, None).await;
    let merged = edit(&server, INSTRUCT_PIX2PIX, None, None).await;
    assert_ne!(plain.image, merged.image);
    check("as merged", &edit(&server, SMARTEDIT, Some("a"), None).await, &merged);
    check("none of a merged one", &edit(&server, INSTRUCT_PIX2PIX, Some("none"), None).await, &plain);
    let second = edit(&server, SMARTEDIT, Some("b"), None).await;
    assert!(second.image != plain.image && second.image != merged.image);
    check("instead of a merged one", &edit(&server, INSTRUCT_PIX2PIX, Some("b"), None).await, &second);
    assert_eq!(edit(&server, SMARTEDIT, Some("b"), Some(0.5)).await.image, second.image);
    assert_ne!(edit(&server, SMARTEDIT, Some("b"), Some(1.0)).await.image, second.image);
    assert_eq!(edit(&server, SMARTEDIT, Some("b"), Some(0.0)).await.image, plain.image);
    assert_eq!(edit(&server, SMARTEDIT, Some("none"), None).await.image, plain.image);

    let described = server.client.deployment(INSTRUCT_PIX2PIX).await.unwrap().adapters;
    let names: Vec<_> = described.iter().map(|a| (a.name.as_str(), a.is_default, a.scale, a.rank)).collect();
    assert_eq!(names, [("a", true, 1.0, 2), ("b", false, 0.5, 2)]);
    assert!(described.iter().all(|adapter| adapter.bytes > 0 && adapter.stages.len() == 2), "{described:?}");
}

#[track_caller]
fn at_fault(error: &Error, field: &str, words: &[&str]) {
    assert_eq!(error.code(), Some(Code::InvalidArgument), "{error}");
    let violations = &error.rejection().unwrap().violations;
    assert!(violations.len() == 1 && violations[0].field == field, "{error}");
    assert!(words.iter().all(|word| violations[0].description.contains(word)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_chosen_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start_with(with_adapters(directory.path())).await;
    for (adapter, scale, field, words) in [
        (Some("c"), None, "options.adapter", &["`c`", "`a`, `b`"][..]),
        (Some("a"), Some(f32::NAN), "options.adapter_scale", &["NaN"]),
        (Some("a"), Some(1e9), "options.adapter_scale", &["16"]),
        (Some("none"), Some(1.0), "options.adapter_scale", &["no adapter"]),
        (None, Some(1.0), "options.adapter_scale", &["no adapter"]),
    ] {
        let error = server.client.edit(choosing(adapter, scale)).await.unwrap_err();
        at_fault(&error, field, words);
    }
    let without = Running::start().await;
    at_fault(
        &without.client.edit(choosing(Some("a"), None)).await.unwrap_err(),
        "options.adapter",
        &["`a`", "no adapters"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_with_different_adapters_come_out_as_alone() {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start_with(with_adapters(directory.path())).await;
    let choices = [
        (None, None),
        (Some("a"), None),
        (Some("b"), None),
        (Some("a"), None),
        (Some("a"), Some(0.25)),
        (None, None),
    ];
    let mut alone = Vec::new();
    for (adapter, scale) in choices {
        alone.push(edit(&server, SMARTEDIT, adapter, scale).await);
    }
    let calls: Vec<_> = choices
        .into_iter()
        .map(|(adapter, scale)| {
            let (client, mut request) = (server.client.clone(), choosing(adapter, scale));
            request.options.no_cache = true;
            tokio::spawn(async move { client.edit(request).await.unwrap() })
        })
        .collect();
    for ((call, alone), choice) in calls.into_iter().zip(&alone).zip(choices) {
        check(&format!("{choice:?}"), &call.await.unwrap(), alone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_does_not_fit_fails_its_deployment_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    let path = write(1, directory.path());
    let bytes = std::fs::metadata(&path).unwrap().len();
    let broken = config.deployments.get_mut(INSTRUCT_PIX2PIX).unwrap();
    broken.adapters.insert("misfit".to_owned(), adapter(path.clone(), 1.0));
    let server = Server::bind(config.clone()).await.unwrap();
    server.ready(SMARTEDIT).await.unwrap();
    let message = server.ready(INSTRUCT_PIX2PIX).await.unwrap_err().to_string();
    assert!(message.contains("`misfit`") && message.contains("q_proj"), "{message}");
    assert!(!message.contains(&*directory.path().to_string_lossy()), "{message}");

    let fitting = config.deployments.get_mut(SMARTEDIT).unwrap();
    fitting.adapters.insert("large".to_owned(), adapter(path, 1.0));
    config.adapters = AdaptersConfig { max_bytes: bytes - 1, ..config.adapters };
    let server = Server::bind(config).await.unwrap();
    let message = server.ready(SMARTEDIT).await.unwrap_err().to_string();
    assert!(message.contains("`large`") && message.contains(&(bytes - 1).to_string()), "{message}");
}
