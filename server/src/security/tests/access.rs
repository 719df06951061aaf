//! API keys on every surface: who is let in, to what, and how often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smartedit_client::{Client, Code, CompareRequest, EditRequest, Error, RetryPolicy};
use smartedit_proto::inference as oip;
use smartedit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::config::{
    AuthConfig, CallerLimits, Config, DeploymentConfig, KeyConfig, Open, Permission, RouteConfig,
};
use crate::security::{Security, fingerprint};
use crate::server::Server;
use crate::server::tests::{Shelf, config, request};
use crate::work::Editor;
use crate::work::testing::{Scripted, picture, steps};

/// The key of each name is its name, with this before it.
const PREFIX: &str = "the-key-of-";

/// A server that asks who calls, and serves until it is dropped.
pub(super) struct Locked {
    pub(super) address: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) security: Security,
    pub(super) config: Config,
    serving: JoinHandle<()>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Two deployments, `cats` and `dogs`; the first is the default one.
pub(super) fn locked(auth: AuthConfig) -> Config {
    let deployment = || DeploymentConfig {
        instances: 1,
        max_batch: 1,
        warm_up: false,
        ..DeploymentConfig::new("scripted")
    };
    let deployments = ["cats", "dogs"].map(|name| (name.to_owned(), deployment()));
    Config {
        auth: Some(auth),
        deployments: BTreeMap::from(deployments),
        default_deployment: Some("cats".to_owned()),
        ..config()
    }
}

fn keys<const N: usize>(keys: [(&str, KeyConfig); N]) -> AuthConfig {
    let keys = keys.map(|(name, key)| {
        let sha256 = Some(fingerprint(&format!("{PREFIX}{name}")));
        (name.to_owned(), KeyConfig { sha256, ..key })
    });
    AuthConfig { keys: BTreeMap::from(keys), ..AuthConfig::default() }
}

fn may(permissions: &[Permission], deployments: &[&str]) -> KeyConfig {
    KeyConfig {
        permissions: permissions.to_vec(),
        deployments: deployments.iter().map(|name| (*name).to_owned()).collect(),
        ..KeyConfig::default()
    }
}

fn limited(limits: CallerLimits) -> KeyConfig {
    KeyConfig { limits, ..KeyConfig::default() }
}

impl Locked {
    async fn start<const N: usize>(keys_of: [(&str, KeyConfig); N]) -> Self {
        Self::serve(Scripted::of(vec![steps(2)]), locked(keys(keys_of))).await
    }

    pub(super) async fn serve(editor: Arc<dyn Editor>, config: Config) -> Self {
        let server = Server::bind_with(config.clone(), Arc::new(Shelf(Some(editor)))).await.unwrap();
        for name in config.deployments.keys() {
            server.ready(name).await.unwrap();
        }
        let (address, http, security) = (server.local_addr(), server.http_addr().unwrap(), server.security());
        let serving = tokio::spawn(async move {
            server.serve().await.unwrap();
        });
        Self { address, http, security, config, serving }
    }

    /// A client that shows this key or token.
    pub(super) async fn showing(&self, key: &str) -> Client {
        let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        let builder = Client::builder(self.address.to_string()).retry(once);
        builder.api_key(key).unwrap().connect().await.unwrap()
    }

    async fn client(&self, name: &str) -> Client {
        self.showing(&format!("{PREFIX}{name}")).await
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// What a request over HTTP is answered with: status, headers and content.
    async fn ask(&self, head: &str, body: &[u8]) -> (StatusCode, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let rest = format!("\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), rest.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    async fn get(&self, path: &str, key: Option<&str>) -> (StatusCode, String, serde_json::Value) {
        let key = key.map(|name| format!("\r\nAuthorization: Bearer {PREFIX}{name}")).unwrap_or_default();
        let (status, head, body) = self.ask(&format!("GET {path} HTTP/1.1{key}"), b"").await;
        (status, head, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// An edit in OpenAI's form.
    async fn form(
        &self,
        key: Option<&str>,
        model: &str,
        edits: u32,
    ) -> (StatusCode, String, serde_json::Value) {
        let mut body = Vec::new();
        let edits = edits.to_string();
        let image = picture();
        let fields: [(&str, &[u8]); 4] =
            [("image", &image), ("prompt", b"x"), ("model", model.as_bytes()), ("n", edits.as_bytes())];
        for (name, content) in fields {
            body.extend(format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
            body.extend(content);
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        let key = key.map(|name| format!("\r\nX-Api-Key: {PREFIX}{name}")).unwrap_or_default();
        let head =
            format!("POST /v1/images/edits HTTP/1.1{key}\r\nContent-Type: multipart/form-data; boundary=x");
        let (status, head, body) = self.ask(&head, &body).await;
        (status, head, serde_json::from_slice(&body).unwrap_or_default())
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, reason: &str) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), Some(code), "{error}");
    assert_eq!(error.rejection().unwrap().reason.as_deref(), Some(reason));
    error.to_string()
}

fn on(deployment: &str) -> EditRequest {
    EditRequest { deployment: Some(deployment.to_owned()), ..request() }
}

/// A request with a key.
fn with<T>(name: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", format!("{PREFIX}{name}").parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_not_let_in() {
    let server = Locked::start([("studio", KeyConfig::default())]).await;
    server.client("studio").await.edit(request()).await.unwrap();
    let stranger = server.client("nobody").await;
    refused(stranger.edit(request()).await, Code::Unauthenticated, "CREDENTIALS_UNKNOWN");
    refused(stranger.edit_stream(request()).await.map(drop), Code::Unauthenticated, "CREDENTIALS_UNKNOWN");
    refused(stranger.deployments().await, Code::Unauthenticated, "CREDENTIALS_UNKNOWN");
    let nameless = Client::connect(server.address.to_string()).await.unwrap();
    refused(nameless.edit(request()).await, Code::Unauthenticated, "CREDENTIALS_MISSING");

    assert_eq!(server.form(Some("studio"), "cats", 1).await.0, 200);
    let (status, head, body) = server.form(None, "cats", 1).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (401, &"invalid_api_key".into()), "{body}");
    assert!(head.contains("www-authenticate: bearer realm=\"smartedit\"") && !head.contains("invalid_token"));
    let (status, head, _) = server.form(Some("nobody"), "cats", 1).await;
    assert!(status == 401 && head.contains("error=\"invalid_token\""), "{head}");
    assert_eq!(server.get("/v1/models", None).await.0, 401);
    assert_eq!(server.ask("GET /v1/models HTTP/1.1\r\nAuthorization: Basic eDp5", b"").await.0, 401);
    assert_eq!(server.get("/v1/models", Some("studio")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_the_rest_is_not_unless_configured() {
    let mut config =
        locked(keys([("studio", KeyConfig::default()), ("scraper", may(&[Permission::Metrics], &[]))]));
    let server = Locked::serve(Scripted::of(vec![steps(1)]), config.clone()).await;
    let health = async |server: &Locked| {
        let mut health = HealthClient::new(server.channel().await);
        health.check(HealthCheckRequest::default()).await.is_ok()
    };
    assert!(health(&server).await);
    for (path, key, expected) in [
        ("/healthz", None, 200),
        ("/readyz", None, 200),
        ("/metrics", None, 401),
        ("/metrics", Some("studio"), 403),
        ("/metrics", Some("scraper"), 200),
        ("/v1/models", Some("scraper"), 403),
        ("/nowhere", None, 404),
    ] {
        assert_eq!(server.get(path, key).await.0, expected, "{path} with {key:?}");
    }
    let mut inference = GrpcInferenceServiceClient::new(server.channel().await);
    inference.server_live(oip::ServerLiveRequest {}).await.unwrap();
    let status = inference.server_metadata(oip::ServerMetadataRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);

    config.auth.as_mut().unwrap().open = vec![Open::Metrics];
    server.security.reload(&config).unwrap();
    assert_eq!(server.get("/metrics", None).await.0, 200);
    assert_eq!(server.get("/healthz", None).await.0, 401);
    assert!(!health(&server).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_one_may_not_use_is_none_on_every_surface() {
    let all = [("studio", may(&[Permission::Edit], &["do*"])), ("all", KeyConfig::default())];
    let server = Locked::start(all).await;
    let client = server.client("studio").await;
    client.edit(on("dogs")).await.unwrap();
    let words = refused(client.edit(on("cats")).await, Code::NotFound, "UNKNOWN_DEPLOYMENT");
    let missing = refused(client.edit(on("cows")).await, Code::NotFound, "UNKNOWN_DEPLOYMENT");
    assert_eq!(words.replace("cats", "cows"), missing, "a forbidden one looks like one that is not there");
    refused(client.edit_stream(on("cats")).await.map(drop), Code::NotFound, "UNKNOWN_DEPLOYMENT");
    let words = refused(client.edit(request()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    assert!(words.contains("`dogs`") && !words.contains("cats"), "{words}");
    let both = CompareRequest::new(picture(), "x", ["dogs", "cats"].map(str::to_owned).to_vec());
    refused(client.compare(both).await, Code::NotFound, "UNKNOWN_DEPLOYMENT");
    refused(client.deployment("cats").await, Code::NotFound, "UNKNOWN_DEPLOYMENT");
    let names: Vec<_> = client.deployments().await.unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["dogs"]);
    assert_eq!(server.client("all").await.deployments().await.unwrap().len(), 2);

    let mut inference = GrpcInferenceServiceClient::new(server.channel().await);
    let index = oip::RepositoryIndexRequest::default();
    let index = inference.repository_index(with("studio", index)).await.unwrap().into_inner();
    assert!(index.models.iter().all(|model| model.name.starts_with("dogs")) && !index.models.is_empty());
    let name = || "cats".to_owned();
    let ready = oip::ModelReadyRequest { name: name(), ..Default::default() };
    assert!(!inference.model_ready(with("studio", ready)).await.unwrap().into_inner().ready);
    let statistics = inference.model_statistics(with("studio", oip::ModelStatisticsRequest::default()));
    let statistics = statistics.await.unwrap().into_inner().model_stats;
    assert!(statistics.iter().all(|model| model.name.starts_with("dogs")) && !statistics.is_empty());
    let infer = oip::ModelInferRequest { model_name: name(), ..Default::default() };
    let streamed = inference.model_stream_infer(with("studio", tokio_stream::once(infer.clone()))).await;
    let first = streamed.unwrap().into_inner().message().await.unwrap().unwrap();
    assert!(first.error_message.contains("unknown model"), "{}", first.error_message);
    let outcomes = [
        inference.model_infer(with("studio", infer)).await.map(drop),
        inference
            .model_metadata(with("studio", oip::ModelMetadataRequest { name: name(), ..Default::default() }))
            .await
            .map(drop),
        inference
            .model_config(with("studio", oip::ModelConfigRequest { name: name(), ..Default::default() }))
            .await
            .map(drop),
        inference
            .model_statistics(with(
                "studio",
                oip::ModelStatisticsRequest { name: name(), ..Default::default() },
            ))
            .await
            .map(drop),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().code(), Code::NotFound);
    }

    let (_, _, models) = server.get("/v1/models", Some("studio")).await;
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["dogs"]);
    assert_eq!(server.get("/v1/models/cats", Some("studio")).await.0, 404);
    assert_eq!(server.form(Some("studio"), "cats", 1).await.0, 404);
    assert_eq!(server.form(Some("studio"), "dogs", 1).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_is_for_administrators_who_need_not_edit() {
    let mut config =
        locked(keys([("studio", KeyConfig::default()), ("root", may(&[Permission::Admin], &["*"]))]));
    config.admin.enabled = true;
    let server = Locked::serve(Scripted::of(vec![steps(1)]), config).await;
    let editor = server.client("studio").await;
    let words =
        refused(editor.unload_deployment("dogs", None).await, Code::PermissionDenied, "PERMISSION_DENIED");
    assert!(words.contains("`admin`"), "{words}");
    assert_eq!(editor.deployments().await.unwrap().len(), 2);
    let mut inference = GrpcInferenceServiceClient::new(server.channel().await);
    let load = oip::RepositoryModelLoadRequest::default;
    let code =
        |outcome: Result<_, Status>| outcome.map(drop).map_or_else(|status| status.code(), |()| Code::Ok);
    assert_eq!(code(inference.repository_model_load(with("studio", load())).await), Code::PermissionDenied);
    assert_ne!(code(inference.repository_model_load(with("root", load())).await), Code::PermissionDenied);
    let administrator = server.client("root").await;
    assert_eq!(administrator.deployments().await.unwrap().len(), 2);
    let words = refused(administrator.edit(request()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    assert!(words.contains("`edit`"), "{words}");
    assert_eq!(server.form(Some("root"), "cats", 1).await.0, 403);
    administrator.unload_deployment("dogs", None).await.unwrap();
    assert_eq!(administrator.deployments().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let slow = CallerLimits { requests_per_second: Some(0.01), burst: Some(3), ..CallerLimits::default() };
    let server = Locked::start([("studio", limited(slow)), ("other", limited(slow))]).await;
    let client = server.client("studio").await;
    let both = CompareRequest::new(picture(), "x", ["dogs", "cats"].map(str::to_owned).to_vec());
    client.compare(both).await.unwrap();
    client.edit(request()).await.unwrap();
    let error = client.edit(request()).await.unwrap_err();
    let wait = error.rejection().unwrap().retry_delay.unwrap();
    assert!(wait.as_secs() > 50 && wait.as_secs() <= 100, "{wait:?}");
    refused(Err::<(), _>(error), Code::ResourceExhausted, "RATE_LIMITED");
    client.deployments().await.unwrap();
    let (status, head, body) = server.form(Some("studio"), "cats", 1).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (429, &"rate_limited".into()));
    assert!(head.contains("retry-after: "), "{head}");

    let other = server.client("other").await;
    other.edit(request()).await.unwrap();
    assert_eq!(server.form(Some("other"), "cats", 4).await.0, 429, "more at once than ever may be");
    server.security.reload(&server.config).unwrap();
    refused(client.edit(request()).await, Code::ResourceExhausted, "RATE_LIMITED");

    let mut inference = GrpcInferenceServiceClient::new(server.channel().await);
    let infer = || oip::ModelInferRequest { model_name: "cats".to_owned(), ..Default::default() };
    let many = tokio_stream::iter((0..3).map(move |_| infer()));
    let mut answers = inference.model_stream_infer(with("other", many)).await.unwrap().into_inner();
    let mut limited = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        limited += usize::from(answer.error_message.contains("more in a time"));
    }
    assert_eq!(limited, 2, "one of three was left of the burst");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_edits_of_a_caller_go_on() {
    let one = CallerLimits { max_concurrent: Some(1), ..CallerLimits::default() };
    let (editor, leash) = Scripted::on_leash(vec![steps(1)]);
    let server =
        Locked::serve(editor, locked(keys([("studio", limited(one)), ("other", limited(one))]))).await;
    let (client, other) = (server.client("studio").await, server.client("other").await);
    let stream = client.edit_stream(request()).await.unwrap();
    leash.wait().await;
    refused(client.edit(request()).await, Code::ResourceExhausted, "CALLER_BUSY");
    let waiting = other.edit_stream(on("dogs")).await.unwrap();
    drop(leash);
    stream.finish().await.unwrap();
    waiting.finish().await.unwrap();
    client.edit(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_have_tighter_limits_than_the_server() {
    let few = CallerLimits { max_steps: Some(1), ..CallerLimits::default() };
    let server = Locked::start([("studio", limited(few))]).await;
    let client = server.client("studio").await;
    let (mut long, mut short) = (request(), request());
    long.options.steps = Some(2);
    short.options.steps = Some(1);
    for too_long in [long, request()] {
        let error = client.edit(too_long).await.unwrap_err();
        assert_eq!(error.rejection().unwrap().violations[0].field, "options.steps");
    }
    client.edit(short).await.unwrap();
    assert_eq!(client.deployment("cats").await.unwrap().limits.max_steps, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_is_who_has_the_share_unless_it_may_say_otherwise() {
    let delegate = may(&[Permission::Edit, Permission::Delegate], &["*"]);
    let server = Locked::start([("studio", KeyConfig::default()), ("proxy", delegate)]).await;
    let mut named = request();
    named.options.caller = Some("ann".to_owned());
    let words = refused(
        server.client("studio").await.edit(named.clone()).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    assert!(words.contains("delegate"), "{words}");
    server.client("proxy").await.edit(named).await.unwrap();
    let scraper = Config { auth: None, ..server.config.clone() };
    server.security.reload(&scraper).unwrap();
    let (_, _, text) = server.ask("GET /metrics HTTP/1.1", b"").await;
    let text = String::from_utf8(text).unwrap();
    for sample in [
        r#"smartedit_caller_requests_total{caller="proxy"} 1"#,
        r#"smartedit_edits_total{deployment="cats",outcome="OK"} 1"#,
    ] {
        assert!(text.contains(sample), "no {sample} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_the_server_serves() {
    let server = Locked::start([("old", KeyConfig::default())]).await;
    let client = server.client("old").await;
    client.edit(request()).await.unwrap();
    let renewed = Config { auth: Some(keys([("new", KeyConfig::default())])), ..server.config.clone() };
    server.security.reload(&renewed).unwrap();
    refused(client.edit(request()).await, Code::Unauthenticated, "CREDENTIALS_UNKNOWN");
    server.client("new").await.edit(request()).await.unwrap();
    let none = Config { auth: Some(AuthConfig::default()), ..server.config.clone() };
    assert_eq!(server.security.reload(&none).unwrap_err().setting(), "auth");
    server.client("new").await.edit(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_ask_before_they_call_and_read_the_refusal() {
    let mut config = locked(keys([("studio", KeyConfig::default())]));
    config.http.cors_origins = vec!["https://mine.example".to_owned()];
    let server = Locked::serve(Scripted::of(vec![steps(1)]), config).await;
    let path = "/smartedit.v1.SmartEditService/ListDeployments";
    let origin = "Origin: https://mine.example";
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\n{origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,x-grpc-web"
    );
    let (status, head, _) = server.ask(&preflight, b"").await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-headers: authorization,x-grpc-web"), "{head}");

    let empty = [0_u8; 5];
    let call = format!("POST {path} HTTP/1.1\r\n{origin}\r\nContent-Type: application/grpc-web-text");
    let body = STANDARD.encode(empty);
    let (status, head, body_of_refusal) = server.ask(&call, body.as_bytes()).await;
    let told =
        format!("{head}{}", String::from_utf8_lossy(&STANDARD.decode(body_of_refusal).unwrap_or_default()));
    assert_eq!(status, 200, "gRPC-Web has its status elsewhere");
    assert!(told.contains("grpc-status: 16") || told.contains("grpc-status:16"), "{told}");
    assert!(head.contains("access-control-allow-origin: https://mine.example"), "{head}");
    let call = format!("{call}\r\nAuthorization: bearer {PREFIX}studio");
    let (_, head, answer) = server.ask(&call, body.as_bytes()).await;
    let told = format!("{head}{}", String::from_utf8_lossy(&answer));
    assert!(!told.contains("grpc-status: 16"), "{told}");
    let (status, _, _) = server.ask("GET /v1/models HTTP/1.1\r\nOrigin: https://mine.example", b"").await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_reasons_for_programs() {
    let server = Locked::start([("studio", KeyConfig::default())]).await;
    let mut inference = GrpcInferenceServiceClient::new(server.channel().await);
    let status = inference.server_metadata(oip::ServerMetadataRequest {}).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().domain, "smartedit");
    assert_eq!(details.error_info().unwrap().reason, "CREDENTIALS_MISSING");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_route_a_key_gets_the_deployments_that_it_is_for() {
    let edit = &[Permission::Edit];
    let keys_of =
        [("dogs", may(edit, &["dogs"])), ("whole", may(edit, &["pets"])), ("none", may(edit, &["birds"]))];
    let weights = BTreeMap::from([("cats".to_owned(), 1000.0), ("dogs".to_owned(), 1.0)]);
    let route = RouteConfig { weights, ..RouteConfig::default() };
    let routes = BTreeMap::from([("pets".to_owned(), route)]);
    let server =
        Locked::serve(Scripted::of(vec![steps(2)]), Config { routes, ..locked(keys(keys_of)) }).await;
    let to = || EditRequest { deployment: Some("pets".to_owned()), ..request() };
    for _ in 0..4 {
        assert_eq!(server.client("dogs").await.edit(to()).await.unwrap().deployment, "dogs");
    }
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(server.client("whole").await.edit(to()).await.unwrap().deployment);
    }
    assert!(made.contains(&"cats".to_owned()), "{made:?}");
    let unknown = server.client("none").await.edit(to()).await.unwrap_err();
    assert_eq!(unknown.code(), Some(Code::NotFound), "{unknown}");
    assert!(!unknown.to_string().contains("cats") && !unknown.to_string().contains("`pets`, "), "{unknown}");
    let models = |key: &'static str| {
        let server = &server;
        async move { server.get("/v1/models", Some(key)).await.2.to_string() }
    };
    assert!(models("dogs").await.contains("pets") && !models("dogs").await.contains("cats"));
    assert!(!models("none").await.contains("pets"));
}
