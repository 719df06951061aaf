//! Routes between deployments of real models.

use smartedit_client::EditRequest;
use smartedit_core::engine::Precision;
use smartedit_proto::inference::infer_parameter::ParameterChoice;
use smartedit_server::Config;
use smartedit_server::config::{DeploymentConfig, RouteConfig, ShadowConfig};

use crate::http::get;
use crate::inference::{edit, infer};
use crate::running::{Running, config, request};

/// A route on which all edits are made by one deployment, and a second time by another.
pub(crate) fn shadowed(deployment: &str, shadow: &str) -> RouteConfig {
    let weights = [(deployment.to_owned(), 1.0)].into();
    RouteConfig { weights, shadow: Some(ShadowConfig::new(shadow)), ..RouteConfig::default() }
}

/// Waits until a route's shadow has made so many edits. The time only ends a test that would hang.
pub(crate) async fn answered_twice(server: &Running, route: &str, shadow: &str, count: usize) {
    let sample = format!(
        r#"smartedit_shadow_edits_total{{route="{route}",deployment="{shadow}",outcome="OK"}} {count}"#
    );
    let asking = async {
        while !get(server.http, "/metrics").await.1.lines().any(|line| line == sample) {
            tokio::task::yield_now().await;
        }
    };
    let made = tokio::time::timeout(std::time::Duration::from_secs(120), asking).await;
    assert!(made.is_ok(), "no {sample} in\n{}", get(server.http, "/metrics").await.1);
}

/// The shipped model twice in f32 and once in bf16, each made by `wide` and a second time by another.
async fn start() -> Running {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
    let wide = DeploymentConfig::new(model);
    let narrow = DeploymentConfig { precision: Precision::Bf16, ..wide.clone() };
    let deployments = [("wide", wide.clone()), ("again", wide), ("narrow", narrow)];
    let routes = [("default", "again"), ("other", "narrow")];
    Running::start_with(Config {
        default_deployment: None,
        deployments: deployments.map(|(name, deployment)| (name.to_owned(), deployment)).into(),
        routes: routes.map(|(name, shadow)| (name.to_owned(), shadowed("wide", shadow))).into(),
        ..config()
    })
    .await
}

/// The sum of a measure of how a shadow's pictures differ.
async fn difference(server: &Running, measure: &str, route: &str, shadow: &str) -> f64 {
    let sample =
        format!(r#"smartedit_shadow_difference_{measure}_sum{{route="{route}",deployment="{shadow}"}} "#);
    let (_, metrics) = get(server.http, "/metrics").await;
    metrics.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_makes_the_same_edit() {
    let server = start().await;
    // The seed is the server's choice, which the shadow must be told.
    let mut unseeded = request(4);
    unseeded.options.seed = None;
    assert_eq!(server.client.edit(unseeded.clone()).await.unwrap().deployment, "wide");
    answered_twice(&server, "default", "again", 1).await;
    for measure in ["mean", "max"] {
        assert_eq!(difference(&server, measure, "default", "again").await, 0.0);
    }
    let other = EditRequest { deployment: Some("other".to_owned()), ..unseeded };
    assert_eq!(server.client.edit(other).await.unwrap().deployment, "wide");
    answered_twice(&server, "other", "narrow", 1).await;
    let (mean, max) = (
        difference(&server, "mean", "other", "narrow").await,
        difference(&server, "max", "other", "narrow").await,
    );
    assert!(0.0 < mean && mean < max, "{mean} {max}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_a_model_of_the_open_inference_protocol() {
    let server = start().await;
    let answer = infer(&server, edit("default")).await.unwrap();
    assert_eq!(answer.model_name, "default");
    let deployment = answer.parameters["deployment"].parameter_choice.clone();
    assert_eq!(deployment, Some(ParameterChoice::StringParam("wide".to_owned())));
    answered_twice(&server, "default", "again", 1).await;
}
