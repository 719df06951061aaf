//! Where stages are computed, as the running program tells it.

use smartedit_client::{Code, DeploymentState, Stage};

use super::serve::Served;
use crate::running::{decoded, request};

/// A configuration of two deployments of the shipped model: `cats`, the default one, and another.
fn configuration(cats: &str, other: &str) -> String {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
    format!(
        "default_deployment = \"cats\"\n\
         [deployments.cats]\nmodel = {model:?}\n{cats}\
         [deployments.other]\nmodel = {model:?}\n{other}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_is_told_by_the_deployment_and_the_log() {
    let fallback = "threads = 2\nfallback = [{ device = \"cpu\" }]\n\
                    [deployments.cats.stages.denoiser]\ndevice = \"cuda:7\"\n";
    let served = Served::configured(&configuration(fallback, ""));
    let client = served.client().await;
    served.ready().await;
    let cats = client.deployment("cats").await.unwrap();
    assert_eq!(cats.state, DeploymentState::Ready);
    for stage in &cats.stages {
        assert_eq!((stage.engine.as_str(), stage.device.as_str()), ("candle", "cpu"));
        assert_eq!(stage.threads, Some(2));
        let [missed] = &stage.unavailable[..] else {
            assert_ne!(stage.stage, Stage::Denoiser);
            continue;
        };
        assert_eq!(stage.stage, Stage::Denoiser);
        assert_eq!((missed.engine.as_str(), missed.device.as_str()), ("candle", "cuda:7"));
        assert!(missed.reason.contains("`cuda:7`"), "{}", missed.reason);
    }
    let edited = client.edit(request(1)).await.unwrap();
    assert_eq!(decoded(&edited.image).dimensions(), (64, 64));

    drop(client);
    served.terminate();
    let (_, log) = served.ended();
    let warning = log.iter().find(|line| line.contains("falls back")).expect("the log warns");
    for words in ["WARN", "denoiser", "cuda:7", "\"device\":\"cpu\""] {
        assert!(warning.contains(words), "no {words} in {warning}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_fails_its_deployment_alone() {
    let served =
        Served::configured(&configuration("", "device = \"cuda:7\"\nfallback = [{ device = \"cuda:6\" }]\n"));
    let client = served.client().await;
    served.ready().await;
    let mut impossible = request(1);
    impossible.deployment = Some("other".to_owned());
    // Both deployments are loaded at the same time, each on its own thread.
    let refusal = loop {
        let error = client.edit(impossible.clone()).await.unwrap_err();
        if error.code() != Some(Code::Unavailable) {
            break error;
        }
    };
    assert_eq!(refusal.code(), Some(Code::FailedPrecondition), "{refusal}");
    for words in ["`candle`", "`cuda:7`", "feature `cuda`", "its fallback", "`cuda:6`"] {
        assert!(refusal.to_string().contains(words), "no {words} in {refusal}");
    }
    let other = client.deployment("other").await.unwrap();
    assert!(matches!(&other.state, DeploymentState::Failed(reason) if reason.contains("`cuda:7`")));
    client.edit(request(1)).await.unwrap();
}
