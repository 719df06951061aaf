//! What is counted of a server that follows scripts.

use std::time::Duration;

use smartedit_client::EditRequest;
use smartedit_core::engine::Precision;
use smartedit_core::stage::{StageInfo, StageKind};

use super::*;
use crate::config::{Config, Limits};
use crate::failure::Failure;
use crate::server::tests::{Running, begun, config, ends_with_this_unit, request, start};
use crate::work::testing::{Act, Scripted, steps};

/// The value of a sample, named as it is exposed: a metric, and labels if it has any.
#[track_caller]
pub(crate) fn value(running: &Running, sample: &str) -> f64 {
    found(running, sample).unwrap_or_else(|| panic!("no {sample} in\n{}", running.metrics.expose(None).text))
}

pub(crate) fn found(running: &Running, sample: &str) -> Option<f64> {
    let text = running.metrics.expose(None).text;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    Some(values.next()?.parse().unwrap())
}

/// Waits until a sample has a value.
pub(crate) async fn becomes(running: &Running, sample: &str, expected: f64) {
    while found(running, sample) != Some(expected) {
        tokio::task::yield_now().await;
    }
}

const EDITS: &str = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="smartedit.v1.SmartEditService",grpc_method="Edit""#;
const STREAMS: &str = r#"grpc_server_handled_total{grpc_type="server_stream",grpc_service="smartedit.v1.SmartEditService",grpc_method="EditStream""#;

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_goes_to_its_end() {
    let running = start(Scripted::of(vec![steps(4)]), config()).await;
    running.client.edit(request()).await.unwrap();
    becomes(&running, &format!("{EDITS},grpc_code=\"OK\"}}"), 1.0).await;
    for (sample, expected) in [
        (r#"smartedit_edits_total{deployment="default",outcome="OK"}"#, 1.0),
        (r#"smartedit_denoising_steps_total{deployment="default"}"#, 4.0),
        (r#"smartedit_edit_duration_seconds_count{deployment="default"}"#, 1.0),
        (r#"smartedit_edit_queue_duration_seconds_count{deployment="default"}"#, 1.0),
        (r#"smartedit_deployment_ready{deployment="default"}"#, 1.0),
        (r#"smartedit_denoiser_run_edits_count{deployment="default"}"#, 4.0),
        (r#"smartedit_denoiser_run_edits_bucket{deployment="default",le="1"}"#, 4.0),
        (r#"smartedit_queue_bytes{deployment="default"}"#, 0.0),
        (concat!(r#"smartedit_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), 1.0),
    ] {
        assert_eq!(value(&running, sample), expected, "{sample}");
    }
    assert_eq!(found(&running, "smartedit_edit_refusals_total"), None);
    assert!(value(&running, "process_resident_memory_bytes") > 0.0);
    assert!(value(&running, "process_cpu_seconds_total") >= 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_is_refused() {
    let (editor, leash) = Scripted::on_leash(vec![steps(1)]);
    let limits = Limits { max_queue: 1, ..Limits::default() };
    let running = start(editor, Config { limits, ..config() }).await;
    let working = begun(&running, &leash).await;
    let waiting = running.client.edit_stream(request()).await.unwrap();
    assert_eq!(value(&running, r#"smartedit_edits_running{deployment="default"}"#), 1.0);
    assert_eq!(value(&running, r#"smartedit_queue_requests{deployment="default"}"#), 1.0);
    assert!(value(&running, r#"smartedit_queue_bytes{deployment="default"}"#) > 0.0);

    running.client.edit(request()).await.unwrap_err();
    let mut bad = request();
    bad.options.steps = Some(0);
    running.client.edit(bad).await.unwrap_err();
    assert_eq!(value(&running, r#"smartedit_edit_refusals_total{reason="QUEUE_FULL"}"#), 1.0);
    assert_eq!(value(&running, r#"smartedit_edit_refusals_total{reason="INVALID_REQUEST"}"#), 1.0);
    becomes(&running, &format!("{EDITS},grpc_code=\"ResourceExhausted\"}}"), 1.0).await;

    drop(leash);
    working.await.unwrap().unwrap();
    waiting.finish().await.unwrap();
    // What was refused was never accepted, however it ended.
    assert_eq!(value(&running, r#"smartedit_edits_total{deployment="default",outcome="OK"}"#), 2.0);
    assert_eq!(found(&running, r#"smartedit_edits_total{deployment="default",outcome="INTERNAL"}"#), None);
    assert_eq!(value(&running, r#"smartedit_edit_queue_duration_seconds_count{deployment="default"}"#), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_and_deadlines_that_pass() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let running = start(editor, config()).await;
    let stream = running.client.edit_stream(request()).await.unwrap();
    leash.wait().await;
    drop(stream);
    ends_with_this_unit(&running, &leash).await;
    assert_eq!(value(&running, r#"smartedit_edits_total{deployment="default",outcome="ABANDONED"}"#), 1.0);
    becomes(&running, &format!("{STREAMS},grpc_code=\"Canceled\"}}"), 1.0).await;

    let timeout = Some(Duration::from_millis(200));
    running.client.edit(EditRequest { timeout, ..request() }).await.unwrap_err();
    leash.wait().await;
    ends_with_this_unit(&running, &leash).await;
    let outcome = r#"smartedit_edits_total{deployment="default",outcome="DEADLINE_EXCEEDED"}"#;
    assert_eq!(value(&running, outcome), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_outcome() {
    let running = start(Scripted::of(vec![vec![Act::Panic]]), config()).await;
    running.client.edit(request()).await.unwrap_err();
    assert_eq!(value(&running, r#"smartedit_edits_total{deployment="default",outcome="INTERNAL"}"#), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_callers_make_up_have_one_name() {
    let running = start(Scripted::of(vec![steps(1)]), config()).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    for path in ["/smartedit.v1.SmartEditService/Paint", "/made.up.Service/Name"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let outcome = grpc.unary(tonic::Request::new(()), path.parse().unwrap(), codec).await;
        assert_eq!(outcome.unwrap_err().code(), tonic::Code::Unimplemented);
    }
    let unknown = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="unknown",grpc_method="unknown",grpc_code="Unimplemented"}"#;
    becomes(&running, unknown, 2.0).await;
    let text = running.metrics.expose(None).text;
    assert!(!text.contains("Paint") && !text.contains("made.up"), "{text}");
}

#[test]
fn a_run_of_a_stage_that_is_dropped_was_left_by_its_caller() {
    let metrics = Metrics::of_nothing();
    let stage = StageInfo {
        kind: StageKind::Denoiser,
        engine: "candle",
        device: "cpu".to_owned(),
        precision: Precision::F32,
        provider: None,
        weight_bytes: 0,
    };
    let run = || metrics.stage_run("cats", &stage);
    run().ended(Ok(()));
    run().ended(Err(&Failure::DeadlineExceeded));
    drop(run());
    let text = metrics.expose(None).text;
    for outcome in ["OK", "DEADLINE_EXCEEDED", "ABANDONED"] {
        let sample = format!(
            "smartedit_stage_runs_total{{deployment=\"cats\",stage=\"denoiser\",outcome=\"{outcome}\"}} 1\n"
        );
        assert!(text.contains(&sample), "no {sample} in\n{text}");
    }
    assert!(!text.contains("smartedit_stage_run_duration_seconds_count"), "nothing was computed");
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let metrics = Metrics::of_nothing();
    let plain = metrics.expose(None);
    assert!(plain.media_type.starts_with("text/plain; version=0.0.4"), "{}", plain.media_type);
    assert!(!plain.text.contains("# EOF"));
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3";
    let open = metrics.expose(Some(&HeaderValue::from_static(accept)));
    assert!(
        open.media_type.starts_with("application/openmetrics-text; version=1.0.0"),
        "{}",
        open.media_type
    );
    assert!(open.text.ends_with("# EOF\n"));
    let words = metrics.expose(Some(&HeaderValue::from_static("*/*")));
    assert_eq!(words.media_type, plain.media_type);
}
