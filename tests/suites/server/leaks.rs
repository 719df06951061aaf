//! Answers tell nothing of the machine's files, whatever fails.

use std::path::Path;

use smartedit_client::{CompareRequest, DeploymentState, EditRequest};
use smartedit_proto::inference as oip;
use smartedit_server::config::DeploymentConfig;
use smartedit_tests::golden::converted;

use crate::http::get;
use crate::running::{INSTRUCT_PIX2PIX, Running, config, request};

/// A copy of a model directory in which every weight file ends too early, with the size it should have.
fn broken(model: &Path, copy: &Path) {
    std::fs::create_dir_all(copy).unwrap();
    for entry in std::fs::read_dir(model).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), copy.join(entry.file_name()));
        if from.is_dir() {
            broken(&from, &to);
            continue;
        }
        let mut content = std::fs::read(&from).unwrap();
        if from.extension().is_some_and(|extension| extension == "safetensors") {
            // Where the length of the header stands: no file is so long.
            content[..8].fill(0x7f);
        }
        std::fs::write(to, content).unwrap();
    }
}

/// What the server says of a deployment that failed, wherever it says anything.
async fn words(server: &Running, name: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let edit = || EditRequest { deployment: Some(name.to_owned()), ..request(1) };
    texts.push(server.client.edit(edit()).await.unwrap_err().to_string());
    texts.push(server.client.edit_stream(edit()).await.map(drop).unwrap_err().to_string());
    let deployments = [INSTRUCT_PIX2PIX, name].map(str::to_owned).to_vec();
    let compare = CompareRequest::new(request(1).image, "x", deployments);
    texts.push(server.client.compare(compare).await.map(drop).unwrap_err().to_string());
    texts.push(format!("{:?}", server.client.deployments().await.unwrap()));
    texts.push(format!("{:?}", server.client.deployment(name).await.unwrap()));

    let mut inference = server.inference.clone();
    let index = inference.repository_index(oip::RepositoryIndexRequest::default()).await;
    texts.push(format!("{index:?}"));
    for model in [name.to_owned(), format!("{name}/denoiser")] {
        let infer = oip::ModelInferRequest { model_name: model, ..Default::default() };
        texts.push(format!("{:?}", inference.model_infer(infer.clone()).await.unwrap_err()));
        let mut stream = inference.model_stream_infer(tokio_stream::once(infer)).await.unwrap().into_inner();
        texts.push(format!("{:?}", stream.message().await));
    }
    let metadata = oip::ModelMetadataRequest { name: name.to_owned(), ..Default::default() };
    texts.push(format!("{:?}", inference.model_metadata(metadata).await.unwrap_err()));
    let configuration = oip::ModelConfigRequest { name: name.to_owned(), ..Default::default() };
    texts.push(format!("{:?}", inference.model_config(configuration).await.unwrap_err()));
    let statistics = oip::ModelStatisticsRequest { name: name.to_owned(), ..Default::default() };
    texts.push(format!("{:?}", inference.model_statistics(statistics).await.unwrap_err()));
    for path in ["/readyz", "/v1/models", &format!("/v1/models/{name}"), "/metrics", "/nowhere/at/all"] {
        texts.push(get(server.http, path).await.1);
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_that_fail_are_told_of_without_their_places() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("secret-place");
    let model = converted().instruct_pix2pix();
    broken(&model, &directory);
    let mut config = config();
    config.deployments.insert("broken".to_owned(), DeploymentConfig::new(&directory));
    // Whether that engine is in this build or not: its library is not there.
    let onnx = DeploymentConfig { engine: "onnx".to_owned(), ..DeploymentConfig::new(&model) };
    config.deployments.insert("engineless".to_owned(), onnx);
    config.engines.onnx.library = Some(place.path().join("secret-place/libonnxruntime.so"));
    let server = Running::start_ready(config, [INSTRUCT_PIX2PIX]).await;
    let home = std::env::current_dir().unwrap();
    for name in ["broken", "engineless"] {
        let failed = async || {
            let found = server.client.deployment(name).await.unwrap();
            matches!(found.state, DeploymentState::Failed(_))
        };
        while !failed().await {
            tokio::task::yield_now().await;
        }
        let texts = words(&server, name).await;
        assert!(texts[0].contains(name), "{}", texts[0]);
        for text in &texts {
            for path in [place.path(), model.as_path(), home.as_path()] {
                assert!(!text.contains(path.to_str().unwrap()), "{text}");
            }
            for part in ["secret-place", ".safetensors", "libonnxruntime", "os error"] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }
}
