//! Routes over deployments that follow scripts.

use std::path::PathBuf;

use image::{Rgb, RgbImage};
use smartedit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use smartedit_proto::inference::{ModelMetadataRequest, ModelReadyRequest};
use smartedit_proto::v1;
use smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient;

use super::*;
use crate::config::{RouteConfig, ShadowConfig};
use crate::metrics::tests::{becomes, found, value};
use crate::work::testing::steps_to;

/// Hands out an editor by what a deployment calls its model; what is not there fails.
struct Shelves(BTreeMap<PathBuf, Arc<dyn Editor>>);

impl Loader for Shelves {
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let editor = self.0.get(&config.model).cloned();
        editor.ok_or_else(|| NotLoaded::internal(anyhow::anyhow!("there is none")))
    }
}

/// Deployments `a`, `b` and `c`, of which those load that have an editor, and a default route.
async fn start_route<const N: usize>(editors: [(&str, Arc<dyn Editor>); N], route: RouteConfig) -> Running {
    let names = ["a", "b", "c"];
    let deployment = |name: &str| DeploymentConfig {
        instances: 1,
        max_batch: 1,
        warm_up: false,
        ..DeploymentConfig::new(name)
    };
    let config = routed(names.map(|name| (name, deployment(name))).into(), route);
    let shelves = Shelves(editors.map(|(name, editor)| (PathBuf::from(name), editor)).into());
    let server = Server::bind_with(config, Arc::new(shelves)).await.unwrap();
    for name in names {
        let _ = server.ready(name).await;
    }
    run(server).await
}

fn routed(deployments: BTreeMap<&str, DeploymentConfig>, route: RouteConfig) -> Config {
    Config {
        deployments: deployments.into_iter().map(|(name, config)| (name.to_owned(), config)).collect(),
        routes: BTreeMap::from([("default".to_owned(), route)]),
        ..config()
    }
}

fn quick() -> Arc<dyn Editor> {
    Scripted::of(vec![steps(1)])
}

fn weights(weights: &[(&str, f64)]) -> RouteConfig {
    let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    RouteConfig { weights, ..RouteConfig::default() }
}

/// All edits by `a`, and a second time by `b`.
fn shadowed(change: impl FnOnce(&mut ShadowConfig)) -> RouteConfig {
    let mut shadow = ShadowConfig::new("b");
    change(&mut shadow);
    RouteConfig { shadow: Some(shadow), ..weights(&[("a", 1.0)]) }
}

fn keyed(key: &str) -> EditRequest {
    let mut request = request();
    request.options.route_key = Some(key.to_owned());
    request
}

fn named(deployment: &str) -> EditRequest {
    EditRequest { deployment: Some(deployment.to_owned()), ..request() }
}

/// An edit with these headers: the deployment that the response's header names, which is the one that the result does.
async fn with_headers(
    running: &Running,
    deployment: &str,
    headers: &[(&'static str, &str)],
) -> Result<String, tonic::Status> {
    let mut raw = SmartEditServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let mut request = tonic::Request::new(v1::EditRequest {
        image: picture(),
        instruction: "Make it blue".to_owned(),
        deployment: deployment.to_owned(),
        options: None,
    });
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let response = raw.edit(request).await?;
    let named = response.metadata().get("smartedit-deployment").unwrap().to_str().unwrap().to_owned();
    assert_eq!(response.into_inner().result.unwrap().deployment, named);
    Ok(named)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_where_they_are_however_they_are_given() {
    let running = start_route([("a", quick()), ("b", quick())], weights(&[("a", 1.0), ("b", 1.0)])).await;
    let mut seen = BTreeMap::new();
    for key in 0..16 {
        let key = format!("user {key}");
        let first = running.client.edit(keyed(&key)).await.unwrap().deployment;
        let mut route = keyed(&key);
        route.deployment = Some("default".to_owned());
        assert_eq!(running.client.edit(route).await.unwrap().deployment, first);
        let header = with_headers(&running, "", &[("smartedit-route-key", &key)]).await.unwrap();
        assert_eq!(header, first);
        *seen.entry(first).or_insert(0.0) += 3.0;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    for (deployment, times) in seen {
        let sample = format!(
            r#"smartedit_route_choices_total{{route="default",deployment="{deployment}",decided_by="key"}}"#
        );
        assert_eq!(value(&running, &sample), times);
    }
    let long = "x".repeat(257);
    let error = running.client.edit(keyed(&long)).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().violations[0].field, "options.route_key");
    let status = with_headers(&running, "", &[("smartedit-route-key", &long)]).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().starts_with("smartedit-route-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_names_its_deployment_before_its_first_event() {
    let running = start_route([("b", quick())], weights(&[("b", 1.0)])).await;
    let mut raw = SmartEditServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let request = v1::EditStreamRequest {
        image: picture(),
        instruction: "Make it blue".to_owned(),
        ..v1::EditStreamRequest::default()
    };
    let response = raw.edit_stream(request).await.unwrap();
    assert_eq!(response.metadata().get("smartedit-deployment").unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_chooses_by_itself_where_the_route_allows_it() {
    let editors = || [("a", quick()), ("b", quick()), ("c", quick())];
    let route = RouteConfig { overridable: true, ..weights(&[("a", 1.0), ("b", 0.0)]) };
    let running = start_route(editors(), route).await;
    let ask = async |deployment: &str, header: &str| {
        with_headers(&running, deployment, &[("smartedit-deployment", header)]).await
    };
    assert_eq!(running.client.edit(request()).await.unwrap().deployment, "a");
    assert_eq!(ask("", "b").await.unwrap(), "b");
    let by = r#"smartedit_route_choices_total{route="default",deployment="b",decided_by="override"}"#;
    assert_eq!(value(&running, by), 1.0);
    for (deployment, header, words) in
        [("", "c", "no deployment of the route"), ("", "nowhere", "`nowhere`"), ("a", "b", "names none")]
    {
        let status = ask(deployment, header).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{header}");
        assert!(status.message().contains(words), "{}", status.message());
    }
    // What is asked for twice is no contradiction.
    assert_eq!(ask("a", "a").await.unwrap(), "a");

    let running = start_route(editors(), weights(&[("a", 1.0), ("b", 1.0)])).await;
    let status = with_headers(&running, "", &[("smartedit-deployment", "b")]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("does not allow"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn others_take_over_for_a_deployment_that_is_not_ready() {
    let running = start_route([("a", quick())], weights(&[("a", 1.0), ("b", 1000.0)])).await;
    for key in ["x", "y", "z"] {
        assert_eq!(running.client.edit(keyed(key)).await.unwrap().deployment, "a");
    }
    assert_eq!(health(&running, "").await, SERVING);
    // The larger one would be told of if it could be used.
    assert_eq!(running.client.deployment("").await.unwrap().name, "a");
    assert!(!running.client.deployment("a").await.unwrap().is_default);

    let error = running.client.edit(named("nowhere")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert!(error.to_string().contains("`default`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_the_default_routes_and_follows_its_changes() {
    let running = start_route([("a", quick())], weights(&[("b", 1.0)])).await;
    let error = running.client.edit(request()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable));
    let rejection = error.rejection().unwrap();
    assert!(rejection.retry_delay.is_some());
    assert_eq!(rejection.reason.as_deref(), Some("ROUTE_UNAVAILABLE"));
    assert_eq!(health(&running, "").await, NOT_SERVING);
    running.client.edit(named("a")).await.unwrap();

    running.service.routes().set("default", &weights(&[("a", 1.0)]));
    while health(&running, "").await != SERVING {}
    running.client.edit(request()).await.unwrap();
    running.service.routes().set("default", &weights(&[("b", 1.0)]));
    while health(&running, "").await != NOT_SERVING {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_read_again_changes_routes_and_drops_no_request() {
    let running = start_route([("a", quick()), ("b", quick())], weights(&[("a", 1.0)])).await;
    let (client, over) = (running.client.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let until = over.clone();
    let asking = tokio::spawn(async move {
        let mut made = Vec::new();
        while !until.load(std::sync::atomic::Ordering::SeqCst) {
            made.push(client.edit(request()).await.unwrap().deployment);
        }
        made
    });
    running.service.set_source(Box::new(|| {
        let b = DeploymentConfig { instances: 1, max_batch: 1, warm_up: false, ..DeploymentConfig::new("b") };
        Ok(routed([("b", b)].into(), weights(&[("b", 1.0)])))
    }));
    // Nothing is left of `a` and `c` when it returns.
    let reloaded = Reloader(running.service.clone()).reload().await.unwrap();
    assert_eq!(reloaded.applied.unloaded, ["a", "c"]);
    assert_eq!(running.client.edit(request()).await.unwrap().deployment, "b");
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    let made = asking.await.unwrap();
    assert!(made.iter().all(|deployment| ["a", "b"].contains(&deployment.as_str())), "{made:?}");
    assert!(made.is_sorted(), "{made:?}");
    assert_eq!(health(&running, "").await, SERVING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_applied_to_its_end_though_nobody_waits() {
    let running = start_route([("a", quick()), ("b", quick())], weights(&[("a", 1.0)])).await;
    running.service.set_source(Box::new(|| {
        let b = DeploymentConfig { instances: 1, max_batch: 1, warm_up: false, ..DeploymentConfig::new("b") };
        Ok(routed([("b", b)].into(), weights(&[("b", 1.0)])))
    }));
    let reloader = Reloader(running.service.clone());
    let mut reload = Box::pin(reloader.reload());
    // It has begun, and nobody waits for it.
    let _ = polled_once(reload.as_mut()).await;
    drop(reload);
    while running.service.deployments().all().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.client.edit(request()).await.unwrap().deployment, "b");
}

/// What a future gives when it is asked once.
async fn polled_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_a_model_of_the_open_inference_protocol() {
    let running = start_route([("a", quick())], weights(&[("a", 1.0)])).await;
    let mut oip = GrpcInferenceServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let name = "default".to_owned();
    let request = ModelMetadataRequest { name: name.clone(), version: String::new() };
    assert_eq!(oip.model_metadata(request).await.unwrap().into_inner().name, "default");
    for (name, expected) in [("default", true), ("default/denoiser", false), ("b", false)] {
        let request = ModelReadyRequest { name: name.to_owned(), version: String::new() };
        assert_eq!(oip.model_ready(request).await.unwrap().into_inner().ready, expected, "{name}");
    }
}

const ENDED: &str = r#"smartedit_shadow_edits_total{route="default",deployment="b",outcome="#;
const OF: &str = r#"{route="default",deployment="b""#;

/// Waits until so many edits of the shadow have ended in this way.
async fn ended(running: &Running, outcome: &str, count: usize) {
    becomes(running, &format!("{ENDED}\"{outcome}\"}}"), count as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_pictures_do_not_differ() {
    let running = start_route([("a", quick()), ("b", quick())], shadowed(|_| {})).await;
    assert_eq!(running.client.edit(request()).await.unwrap().deployment, "a");
    ended(&running, "OK", 1).await;
    for measure in ["mean", "max"] {
        let metric = format!("smartedit_shadow_difference_{measure}");
        assert_eq!(value(&running, &format!("{metric}_sum{OF}}}")), 0.0);
        assert_eq!(value(&running, &format!("{metric}_bucket{OF},le=\"0\"}}")), 1.0);
    }
    for edit in ["primary", "shadow"] {
        let metric = format!("smartedit_shadow_duration_seconds_count{OF},edit=\"{edit}\"}}");
        assert_eq!(value(&running, &metric), 1.0);
    }
    // It is nobody's edit.
    assert_eq!(value(&running, r#"smartedit_edits_total{deployment="a",outcome="OK"}"#), 1.0);
    assert_eq!(found(&running, r#"smartedit_edits_total{deployment="b",outcome="OK"}"#), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_differ_by_as_much_as_is_told() {
    let mut other = RgbImage::new(16, 8);
    other.put_pixel(3, 4, Rgb([0, 96, 0]));
    let b = Scripted::of(vec![steps_to(1, other), steps_to(1, RgbImage::new(8, 8))]);
    let running = start_route([("a", quick()), ("b", b)], shadowed(|_| {})).await;
    running.client.edit(request()).await.unwrap();
    ended(&running, "OK", 1).await;
    assert_eq!(value(&running, &format!("smartedit_shadow_difference_max_sum{OF}}}")), 96.0);
    assert_eq!(value(&running, &format!("smartedit_shadow_difference_mean_sum{OF}}}")), 0.25);
    running.client.edit(request()).await.unwrap();
    ended(&running, "INCOMPARABLE", 1).await;
    assert_eq!(value(&running, &format!("smartedit_shadow_difference_max_count{OF}}}")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_delays_nobody_and_is_bounded() {
    let (b, leash) = Scripted::on_leash(vec![steps(1)]);
    let running = start_route([("a", quick()), ("b", b)], shadowed(|shadow| shadow.max_queue = 1)).await;
    running.client.edit(request()).await.unwrap();
    leash.wait().await;
    // The shadow does nothing, and edits are answered: one waits to be made a second time, the others are not.
    for dropped in 0..4 {
        running.client.edit(request()).await.unwrap();
        if dropped > 0 {
            ended(&running, "FULL", dropped).await;
        }
    }
    assert!(running.requests.is_empty());
    drop(leash);
    ended(&running, "OK", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_gives_way_to_callers_of_its_deployment() {
    let (b, leash) = Scripted::on_leash(vec![steps(1)]);
    let running = start_route([("a", quick()), ("b", b)], shadowed(|_| {})).await;
    let client = running.client.clone();
    let callers = tokio::spawn(async move { client.edit(named("b")).await });
    leash.wait().await;
    running.client.edit(request()).await.unwrap();
    ended(&running, "BUSY", 1).await;
    drop(leash);
    assert_eq!(callers.await.unwrap().unwrap().deployment, "b");
    assert_eq!(found(&running, &format!("{ENDED}\"OK\"}}")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_takes_too_long_is_stopped() {
    let (b, leash) = Scripted::on_leash(vec![steps(100)]);
    let running =
        start_route([("a", quick()), ("b", b)], shadowed(|shadow| shadow.timeout_seconds = 1e-6)).await;
    running.client.edit(request()).await.unwrap();
    // It may be too late before the shadow's worker has come to it.
    tokio::select! {
        () = leash.wait() => leash.go_until(ended(&running, "DEADLINE_EXCEEDED", 1)).await,
        () = ended(&running, "DEADLINE_EXCEEDED", 1) => {}
    }
    assert!(leash.units() < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_answered_is_made_a_second_time() {
    let (a, leash) = Scripted::on_leash(vec![steps(100), vec![Act::Panic], steps(1)]);
    let running = start_route([("a", a), ("b", quick())], shadowed(|_| {})).await;
    let call = begun(&running, &leash).await;
    call.abort();
    ends_with_this_unit(&running, &leash).await;
    let call = begun(&running, &leash).await;
    drop(leash);
    assert_eq!(code(call.await.unwrap()), Code::Internal);
    running.client.edit(request()).await.unwrap();
    ended(&running, "OK", 1).await;
    let text = running.metrics.expose(None).text;
    let outcomes: Vec<_> = text.lines().filter(|line| line.starts_with(ENDED)).collect();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shadow_cannot_do_is_counted() {
    let running = start_route([("a", quick())], shadowed(|_| {})).await;
    running.client.edit(request()).await.unwrap();
    ended(&running, "DEPLOYMENT_FAILED", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_stops_shadows_and_waits_for_none() {
    let (b, leash) = Scripted::on_leash(vec![steps(100)]);
    let mut running = start_route([("a", quick()), ("b", b)], shadowed(|_| {})).await;
    running.client.edit(request()).await.unwrap();
    leash.wait().await;
    running.client.edit(request()).await.unwrap();
    running.shutdown.begin();
    assert_eq!((&mut running.serving).await.unwrap().unwrap(), Ended::Drained);
    // The one that waited is over, and the other is after the unit of work that it has begun.
    ended(&running, "SHUTTING_DOWN", 1).await;
    leash.go();
    ended(&running, "SHUTTING_DOWN", 2).await;
    assert!(leash.is_quiet().await);
}
