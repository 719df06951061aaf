//! What the server keeps for requests to come: who gets it, who does not, and that it changes no picture.

use smartedit_client::{EditRequest, Edited, Event, Stage};
use smartedit_server::Config;
use smartedit_server::config::CacheConfig;

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, request};

const FRONT: [Stage; 4] = [Stage::VisionEncoder, Stage::LanguageModel, Stage::Connector, Stage::VaeEncoder];

/// Two deployments of the same model; the second under the other model's name.
fn twins() -> Config {
    let mut config = config();
    let smartedit = config.deployments[SMARTEDIT].clone();
    config.deployments.insert(INSTRUCT_PIX2PIX.to_owned(), smartedit);
    config
}

fn on(deployment: &str, mut request: EditRequest) -> EditRequest {
    request.deployment = Some(deployment.to_owned());
    request
}

fn cached(edited: &Edited) -> Vec<Stage> {
    edited.timings.stages.iter().filter(|timing| timing.cached).map(|timing| timing.stage).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_of_a_model_share_the_front_of_an_edit() {
    let server = Running::start_with(twins()).await;
    let first = server.client.edit(on(SMARTEDIT, request(2))).await.unwrap();
    assert!(cached(&first).is_empty());

    let mut stream = server.client.edit_stream(on(INSTRUCT_PIX2PIX, request(2))).await.unwrap();
    let mut finished = Vec::new();
    let second = loop {
        match stream.next().await.unwrap().unwrap() {
            Event::StageFinished { stage, cached: true, .. } => finished.push(stage),
            Event::Finished(edited) => break edited,
            _ => {}
        }
    };
    assert_eq!(finished, FRONT);
    assert_eq!(cached(&second), FRONT);
    assert_eq!(second.timings.stages.len(), FRONT.len() + 2, "the denoiser and the VAE decoder have run");
    assert_eq!((&first.image, &first.reply), (&second.image, &second.reply));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_may_ask_for_everything_to_be_computed() {
    let server = Running::start().await;
    let mut bypass = request(2);
    bypass.options.no_cache = true;
    let measured = server.client.edit(bypass.clone()).await.unwrap();
    let first = server.client.edit(request(2)).await.unwrap();
    assert!(cached(&first).is_empty(), "nothing was kept of the edit before");
    let second = server.client.edit(bypass).await.unwrap();
    assert!(cached(&second).is_empty());
    assert_eq!((&measured.image, &first.image), (&first.image, &second.image));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_keep_nothing() {
    let nothing = CacheConfig { max_bytes: 0, max_prefix_bytes: 0 };
    let server = Running::start_with(Config { cache: nothing, ..config() }).await;
    let first = server.client.edit(request(2)).await.unwrap();
    let second = server.client.edit(request(2)).await.unwrap();
    assert!(cached(&first).is_empty() && cached(&second).is_empty());
    assert_eq!(first.image, second.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_equal_edits_at_the_same_time_one_computes() {
    let server = Running::start_with(twins()).await;
    let edit = |deployment| {
        let (client, request) = (server.client.clone(), on(deployment, request(2)));
        async move { client.edit(request).await.unwrap() }
    };
    let (first, second) = tokio::join!(edit(SMARTEDIT), edit(INSTRUCT_PIX2PIX));
    for stage in FRONT {
        let of = |edited: &Edited| cached(edited).contains(&stage);
        assert!(of(&first) != of(&second), "{stage} is computed once");
    }
    assert_eq!(first.image, second.image);
}
