//! Stages on other servers: each server a process of its own.

use std::net::TcpListener;

use smartedit_client::{Client, Code, CompareRequest, DeploymentState, EditRequest, Event};
use smartedit_proto::inference::ModelStatisticsRequest;
use smartedit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use smartedit_tests::golden::converted;

use super::serve::Served;
use super::text;
use crate::running::{decoded, request};

const STAGES: [&str; 7] = [
    "vision_encoder",
    "language_model",
    "connector",
    "text_encoder",
    "vae_encoder",
    "denoiser",
    "vae_decoder",
];

/// The pack's SmartEdit model as a deployment; what follows is of its table.
fn deployment(name: &str) -> String {
    format!("[deployments.{name}]\nmodel = {:?}\nmax_batch = 4\n", text(&converted().smartedit()))
}

/// A stage of a deployment on the same stage of another server's deployment `default`.
fn elsewhere(deployment: &str, stage: &str, address: &str) -> String {
    format!(
        "[deployments.{deployment}.stages.{stage}]\nengine = \"remote\"\n\
         remote = {{ url = \"http://{address}\", model = \"default/{stage}\", retries = 2 }}\n"
    )
}

/// A server with a deployment `here`, the default one, and a deployment `there` of which these stages are on other servers.
/// Nothing is kept, so that every stage is computed.
fn front(there: impl IntoIterator<Item = (&'static str, String)>) -> Served {
    let stages: String =
        there.into_iter().map(|(stage, address)| elsewhere("there", stage, &address)).collect();
    Served::configured(&format!(
        "default_deployment = \"here\"\n[cache]\nmax_bytes = 0\nmax_prefix_bytes = 0\n{}{}{stages}",
        deployment("here"),
        deployment("there"),
    ))
}

fn there(steps: u32) -> EditRequest {
    EditRequest { deployment: Some("there".to_owned()), ..request(steps) }
}

/// Waits until a deployment is loaded.
async fn loaded(client: &Client, deployment: &str) -> DeploymentState {
    loop {
        match client.deployment(deployment).await.unwrap().state {
            DeploymentState::Loading => tokio::task::yield_now().await,
            state => return state,
        }
    }
}

async fn ready(front: &Served) -> Client {
    front.ready().await;
    let client = front.client().await;
    assert_eq!(loaded(&client, "there").await, DeploymentState::Ready);
    client
}

/// How often a server was asked for a stage of its deployment `default`.
async fn calls(server: &Served, stage: &str) -> u64 {
    let mut client =
        GrpcInferenceServiceClient::connect(format!("http://{}", server.address())).await.unwrap();
    let request = ModelStatisticsRequest { name: format!("default/{stage}"), version: String::new() };
    client.model_statistics(request).await.unwrap().into_inner().model_stats[0].inference_count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_on_another_server_is_the_edit_made_here() {
    let back = Served::start();
    back.ready().await;
    let front = front(STAGES.map(|stage| (stage, back.address().to_owned())));
    let client = ready(&front).await;
    let told = client.deployment("there").await.unwrap();
    for stage in &told.stages {
        assert_eq!((stage.engine.as_str(), stage.device.as_str()), ("remote", "remote"));
    }
    // Loading has warmed the stages up.
    let before = calls(&back, "denoiser").await;
    let edit = request(4);
    let compared = CompareRequest {
        options: edit.options,
        ..CompareRequest::new(edit.image, "Make it winter", ["here", "there"])
    };
    let entries = client.compare(compared).await.unwrap();
    let difference = entries[1].outcome.as_ref().unwrap().difference.as_ref().unwrap();
    let pixels = difference.pixels.as_ref().unwrap();
    assert!(pixels.max <= 1, "{difference:?}");
    for stage in STAGES {
        assert!(calls(&back, stage).await > 0, "{stage}");
    }
    assert_eq!(calls(&back, "denoiser").await - before, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_share_a_run_share_a_call() {
    let back = Served::start();
    back.ready().await;
    let front = front([("denoiser", back.address().to_owned())]);
    let client = ready(&front).await;
    let warm = calls(&back, "denoiser").await;
    let alone = client.edit(there(30)).await.unwrap();
    let before = calls(&back, "denoiser").await;
    assert_eq!(before - warm, 30);
    let together = tokio::join!(client.edit(there(30)), client.edit(there(30)), client.edit(there(30)));
    let edits = [together.0.unwrap(), together.1.unwrap(), together.2.unwrap()];
    let after = calls(&back, "denoiser").await - before;
    assert!(after < 90, "{after} calls");
    assert!(edits.iter().any(|edit| edit.timings.mean_batch > 1.0));
    for edit in &edits {
        let (found, expected) = (decoded(&edit.image), decoded(&alone.image));
        let off = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "{off:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_fails_its_edit_alone_and_is_found_again() {
    let (words, pictures) = (Served::start(), Served::start());
    words.ready().await;
    pictures.ready().await;
    let front = front([
        ("language_model", words.address().to_owned()),
        ("connector", words.address().to_owned()),
        ("denoiser", pictures.address().to_owned()),
    ]);
    let client = ready(&front).await;
    let mut other = client.edit_stream(request(300)).await.unwrap();
    while !matches!(other.next().await.unwrap().unwrap(), Event::Step { .. }) {}
    let mut dying = client.edit_stream(there(500)).await.unwrap();
    while !matches!(dying.next().await.unwrap().unwrap(), Event::Step { .. }) {}
    let address = pictures.address().to_owned();
    drop(pictures);
    let error = dying.finish().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
    let rejection = error.rejection().unwrap();
    assert_eq!(rejection.reason.as_deref(), Some("STAGE_UNAVAILABLE"));
    assert!(rejection.retry_delay.is_some(), "{rejection:?}");
    assert!(rejection.message.contains("denoiser") && !rejection.message.contains(&address), "{rejection}");
    other.finish().await.unwrap();

    let pictures = Served::listening(&address, &["--model", text(&converted().smartedit())]);
    pictures.ready().await;
    let edited = client.edit(there(2)).await.unwrap();
    assert_eq!(decoded(&edited.image).dimensions(), (64, 64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_fallen_back_from_or_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let remote = format!("remote = {{ url = \"http://{nobody}\", model = \"x\", load_timeout_ms = 200 }}\n");
    let front = Served::configured(&format!(
        "default_deployment = \"here\"\n{}fallback = [\"candle\"]\n\
         [deployments.here.stages.denoiser]\nengine = \"remote\"\n{remote}\
         {}[deployments.there.stages.denoiser]\nengine = \"remote\"\n{remote}",
        deployment("here"),
        deployment("there"),
    ));
    front.ready().await;
    let client = front.client().await;
    let told = client.deployment("here").await.unwrap();
    let missed = told.stages.iter().flat_map(|stage| &stage.unavailable).collect::<Vec<_>>();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].engine, "remote");
    assert!(missed[0].reason.contains(&nobody), "{}", missed[0].reason);
    client.edit(request(1)).await.unwrap();
    assert!(
        matches!(loaded(&client, "there").await, DeploymentState::Failed(reason) if reason.contains(&nobody))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_is_named() {
    let back = Served::start();
    back.ready().await;
    let front = Served::configured(&format!(
        "{}[deployments.default.stages.denoiser]\nengine = \"remote\"\n\
         remote = {{ url = \"http://{}\", model = \"default/vae_decoder\" }}\nfallback = [\"candle\"]\n",
        deployment("default"),
        back.address(),
    ));
    let client = front.client().await;
    let state = loaded(&client, "").await;
    let DeploymentState::Failed(reason) = state else { panic!("{state:?}") };
    for words in ["denoiser", back.address(), "`sample`", "`latents`"] {
        assert!(reason.contains(words), "no {words} in {reason}");
    }
}
