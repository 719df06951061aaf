//! Health and metrics of the real server over HTTP, and the dashboard of its metrics.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use smartedit_client::EditRequest;
use smartedit_server::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::inference::{infer, nothing_for};
use crate::routes::{answered_twice, shadowed};
use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, request};

/// A second deployment of the InstructPix2Pix model.
const INSTRUCT_PIX2PIX_AGAIN: &str = "again";

/// The status and content of what is found there.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, content.to_owned())
}

/// A server that has made an edit, the same again, another on a route with a shadow, and refused one, and has run a stage.
async fn busy() -> Running {
    let route = shadowed(INSTRUCT_PIX2PIX, INSTRUCT_PIX2PIX_AGAIN);
    let mut config = Config { routes: [("twice".to_owned(), route)].into(), ..config() };
    let again = config.deployments[INSTRUCT_PIX2PIX].clone();
    config.deployments.insert(INSTRUCT_PIX2PIX_AGAIN.to_owned(), again);
    let server = Running::start_with(config).await;
    for _ in 0..2 {
        server.client.edit(request(2)).await.unwrap();
    }
    let routed = EditRequest { deployment: Some("twice".to_owned()), ..request(2) };
    server.client.edit(routed).await.unwrap();
    answered_twice(&server, "twice", INSTRUCT_PIX2PIX_AGAIN, 1).await;
    server.client.edit(request(0)).await.unwrap_err();
    let stage = nothing_for(&server, &format!("{SMARTEDIT}/vae_decoder")).await;
    infer(&server, stage).await.unwrap();
    assert_eq!(get(server.http, "/healthz").await.0, 200);
    assert_eq!(get(server.http, "/readyz").await, (200, "ready\n".to_owned()));
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stage_is_measured_by_what_computes_it() {
    let server = busy().await;
    let (status, metrics) = get(server.http, "/metrics").await;
    assert_eq!(status, 200);
    for sample in [
        r#"smartedit_edits_total{deployment="smartedit",outcome="OK"} 2"#,
        r#"smartedit_edit_refusals_total{reason="INVALID_REQUEST"} 1"#,
        r#"smartedit_denoising_steps_total{deployment="smartedit"} 4"#,
        r#"smartedit_stage_duration_seconds_count{deployment="smartedit",stage="denoiser",engine="candle"} 2"#,
        r#"smartedit_stage_duration_seconds_count{deployment="smartedit",stage="language_model",engine="candle"} 1"#,
        r#"smartedit_stages_kept_total{deployment="smartedit",stage="language_model"} 1"#,
        r#"smartedit_deployment_ready{deployment="instruct-pix2pix"} 1"#,
        r#"smartedit_stage_runs_total{deployment="smartedit",stage="vae_decoder",outcome="OK"} 1"#,
        r#"smartedit_stage_run_duration_seconds_count{deployment="smartedit",stage="vae_decoder",engine="candle"} 1"#,
        r#"smartedit_stage_run_queue_duration_seconds_count{deployment="smartedit",stage="vae_decoder"} 1"#,
        r#"smartedit_stage_queue_requests{deployment="smartedit"} 0"#,
    ] {
        assert!(metrics.lines().any(|line| line == sample), "no {sample} in\n{metrics}");
    }
    let weights = r#"smartedit_stage_weights_bytes{deployment="smartedit",stage="vae_decoder",engine="candle",device="cpu","#;
    assert!(metrics.contains(weights), "no {weights} in\n{metrics}");
}

/// What the dashboard's queries use of PromQL.
const PROMQL: [&str; 8] = ["sum", "min", "max", "by", "rate", "histogram_quantile", "le", "job"];

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_metrics_that_there_are() {
    let server = busy().await;
    let (_, metrics) = get(server.http, "/metrics").await;
    let mut names = BTreeSet::from(PROMQL.map(str::to_owned));
    for sample in metrics.lines().filter(|line| !line.starts_with('#')) {
        names.extend(identifiers(sample));
    }
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../deploy/grafana/smartedit.json")).unwrap();
    let queries = texts(&dashboard, "expr");
    assert!(queries.len() > 20, "{queries:?}");
    for query in &queries {
        for name in identifiers(query) {
            assert!(names.contains(&name), "{name} in {query} is none of {names:#?}");
        }
    }
    for variable in texts(&dashboard, "query").iter().filter_map(|query| query.strip_prefix("label_values("))
    {
        for name in identifiers(variable) {
            assert!(names.contains(&name), "{name} in {variable}");
        }
    }
}

/// All texts under this key.
fn texts(json: &Value, key: &str) -> Vec<String> {
    match json {
        Value::Object(members) => {
            let own = members.get(key).and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(|member| texts(member, key))).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(|element| texts(element, key)).collect(),
        _ => Vec::new(),
    }
}

/// Names of metrics, labels and functions in a query or a sample, without what stands in quotes or brackets.
fn identifiers(text: &str) -> Vec<String> {
    let unquoted: String = text.split('"').step_by(2).collect();
    let plain = unquoted.replace("[$__rate_interval]", "");
    let words = plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).map(str::to_owned).collect()
}
