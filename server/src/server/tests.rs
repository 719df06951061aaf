//! The whole server on a loopback port, with models that follow scripts, through the real client.

mod routes;

use std::collections::BTreeMap;
use std::sync::{Mutex, Weak};

use smartedit_client::{
    Client, Code, DeploymentState, EditOptions, EditRequest, Error, Event, RetryPolicy, Stage,
};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::config::{DEFAULT_DEPLOYMENT, DeploymentConfig, Drain, Limits};
use crate::deployment::NotLoaded;
use crate::work::Editor;
use crate::work::testing::{Act, Leash, Scripted, picture, steps};

/// Hands out one editor, or fails.
pub(crate) struct Shelf(pub(crate) Option<Arc<dyn Editor>>);

impl Loader for Shelf {
    fn load(&self, _: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        self.0.clone().ok_or_else(|| NotLoaded::internal(anyhow::anyhow!("/secret")))
    }
}

pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) requests: crate::work::Requests,
    service: Service,
    shutdown: Shutdown,
    serving: JoinHandle<Result<Ended, StartError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One edit at a time.
pub(crate) fn config() -> Config {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let deployment =
        DeploymentConfig { instances: 1, max_batch: 1, warm_up: false, ..DeploymentConfig::new("scripted") };
    Config {
        listen,
        deployments: BTreeMap::from([(DEFAULT_DEPLOYMENT.to_owned(), deployment)]),
        ..Config::default()
    }
}

pub(crate) async fn start(editor: Arc<dyn Editor>, config: Config) -> Running {
    let server = Server::bind_with(config, Arc::new(Shelf(Some(editor)))).await.unwrap();
    server.ready("").await.unwrap();
    run(server).await
}

async fn run(server: Server) -> Running {
    let (address, shutdown) = (server.local_addr(), server.shutdown());
    let service = server.open.0.clone();
    let (requests, metrics) = (service.requests().clone(), service.metrics().clone());
    let serving = tokio::spawn(server.serve());
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let client = Client::builder(address.to_string()).retry(once).connect().await.unwrap();
    Running { client, address, metrics, requests, service, shutdown, serving }
}

pub(crate) fn request() -> EditRequest {
    EditRequest::new(picture(), "Make it blue")
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Code {
    outcome.unwrap_err().code().unwrap()
}

/// An edit that a worker has begun.
pub(crate) async fn begun(
    running: &Running,
    leash: &Leash,
) -> JoinHandle<Result<smartedit_client::Edited, Error>> {
    let client = running.client.clone();
    let call = tokio::spawn(async move { client.edit(request()).await });
    leash.wait().await;
    call
}

/// Waits until the server knows that the only edit is to stop, then asserts that the unit of work which has begun
/// was the last one.
pub(crate) async fn ends_with_this_unit(running: &Running, leash: &Leash) {
    while !running.requests.are_stopping() {
        tokio::task::yield_now().await;
    }
    leash.go();
    running.requests.idle().await;
    assert!(leash.is_quiet().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_and_its_events() {
    let running = start(Scripted::of(vec![steps(4)]), config()).await;
    let mut request = request();
    request.options = EditOptions { seed: Some(7), preview_interval: Some(2), ..EditOptions::default() };

    let edited = running.client.edit(request.clone()).await.unwrap();
    assert_eq!((edited.width, edited.height, edited.seed), (16, 8, 7));
    assert_eq!((edited.mime_type.as_str(), edited.deployment.as_str()), ("image/png", "default"));
    assert_eq!(edited.timings.stages.len(), 1);

    let mut stream = running.client.edit_stream(request).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert!(matches!(&events[0], Event::Accepted { seed: 7, request_id, .. } if !request_id.is_empty()));
    assert!(matches!(events[1], Event::Queued(0)));
    assert!(matches!(events[2], Event::StageStarted(Stage::Denoiser)));
    assert!(events.iter().any(|event| matches!(event, Event::Step { preview: Some(_), .. })));
    assert!(matches!(events.last(), Some(Event::Finished(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_above_four_mebibytes_pass() {
    let running = start(Scripted::of(vec![steps(1)]), config()).await;
    let mut image = picture().to_vec();
    // What follows a PNG's end is nobody's business.
    image.resize(6 << 20, 0);
    running.client.edit(EditRequest::new(image, "Make it blue")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_above_the_limit_are_refused_and_the_server_goes_on() {
    let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
    let running = start(Scripted::of(vec![steps(1)]), Config { limits, ..config() }).await;
    let large = EditRequest::new(vec![0; 2 << 20], "Make it blue");
    let error = running.client.edit(large.clone()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted));
    assert!(error.to_string().contains("1048576"), "{error}");
    let error = running.client.edit_stream(large).await.map(drop).unwrap_err();
    assert_eq!(error.rejection().unwrap().reason.as_deref(), Some("MESSAGE_TOO_LARGE"));
    running.client.edit(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_the_field_and_the_server_goes_on() {
    let running = start(Scripted::of(vec![steps(1)]), config()).await;
    let mut bad = request();
    bad.options.steps = Some(0);
    let error = running.client.edit(bad.clone()).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().violations[0].field, "options.steps");
    let error = running.client.edit_stream(bad).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidArgument));

    let unknown = EditRequest { deployment: Some("nowhere".to_owned()), ..request() };
    let error = running.client.edit(unknown).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(code(running.client.deployment("nowhere").await), Code::NotFound);
    running.client.edit(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_stops_the_work_within_one_unit() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let running = start(editor, config()).await;

    let call = begun(&running, &leash).await;
    call.abort();
    ends_with_this_unit(&running, &leash).await;

    let mut stream = running.client.edit_stream(request()).await.unwrap();
    leash.wait().await;
    leash.go();
    leash.wait().await;
    assert!(stream.next().await.is_some());
    drop(stream);
    ends_with_this_unit(&running, &leash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_without_its_caller_if_asked_to() {
    let (editor, leash) = Scripted::on_leash(vec![steps(10)]);
    let running = start(editor, config()).await;
    let mut kept = request();
    kept.options.keep_on_disconnect = true;
    let stream = running.client.edit_stream(kept).await.unwrap();
    leash.wait().await;
    drop(stream);
    leash.go_until(running.requests.idle()).await;
    assert_eq!(leash.units(), steps(10).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_end_calls_by_their_name_also_in_the_middle_of_a_stream() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let running = start(editor, config()).await;
    let timeout = Some(Duration::from_millis(200));

    let late = EditRequest { timeout, ..request() };
    assert_eq!(code(running.client.edit(late.clone()).await), Code::DeadlineExceeded);
    leash.wait().await;
    ends_with_this_unit(&running, &leash).await;

    let stream = running.client.edit_stream(late).await.unwrap();
    assert_eq!(code(stream.finish().await), Code::DeadlineExceeded);
    leash.wait().await;
    ends_with_this_unit(&running, &leash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_itself_calls_a_deadline_by_its_name() {
    let (editor, _leash) = Scripted::on_leash(vec![steps(100)]);
    let running = start(editor, config()).await;
    // The client's own timer is left out: only the header tells the server.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
    let mut raw = smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient::new(
        channel.connect().await.unwrap(),
    );
    let mut request = tonic::Request::new(smartedit_proto::v1::EditStreamRequest {
        image: picture(),
        instruction: "Make it blue".to_owned(),
        ..Default::default()
    });
    request.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let mut stream = raw.edit_stream(request).await.unwrap().into_inner();
    let status = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_recovers_and_is_not_unhealthy() {
    let (editor, leash) = Scripted::on_leash(vec![steps(1)]);
    let limits = Limits { max_queue: 0, ..Limits::default() };
    let running = start(editor, Config { limits, ..config() }).await;
    let call = begun(&running, &leash).await;

    let error = running.client.edit(request()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted));
    let rejection = error.rejection().unwrap();
    assert!(rejection.retry_delay.is_some());
    assert_eq!(rejection.reason.as_deref(), Some("QUEUE_FULL"));
    assert!(!running.client.deployment("").await.unwrap().accepting);
    assert_eq!(health(&running, "").await, SERVING);

    drop(leash);
    call.await.unwrap().unwrap();
    running.requests.idle().await;
    running.client.edit(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told_without_its_words_and_the_server_goes_on() {
    let running = start(Scripted::of(vec![vec![Act::Panic], steps(1)]), config()).await;
    let error = running.client.edit(request()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Internal));
    assert!(!error.to_string().contains("script"), "{error}");
    running.client.edit(request()).await.unwrap();
}

const SERVING: i32 = tonic_health::pb::health_check_response::ServingStatus::Serving as i32;
const NOT_SERVING: i32 = tonic_health::pb::health_check_response::ServingStatus::NotServing as i32;

async fn health(running: &Running, service: &str) -> i32 {
    let request = HealthCheckRequest { service: service.to_owned() };
    health_client(running).await.check(request).await.unwrap().into_inner().status
}

async fn health_client(running: &Running) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_refuses_new_edits_and_finishes_the_others() {
    let (editor, leash) = Scripted::on_leash(vec![steps(2)]);
    let drain = Drain { delay_seconds: 2.0, ..Drain::default() };
    let mut running = start(editor, Config { drain, ..config() }).await;
    assert_eq!(health(&running, "").await, SERVING);
    let working = begun(&running, &leash).await;
    let waiting = running.client.edit_stream(request()).await.unwrap();

    running.shutdown.begin();
    while health(&running, "").await != NOT_SERVING {}
    assert_eq!(health(&running, "smartedit.v1.SmartEditService").await, NOT_SERVING);
    assert_eq!(health(&running, LIVE).await, SERVING);
    let refused = loop {
        // An edit before the delay is over is one more to finish.
        match running.client.edit_stream(request()).await {
            Ok(stream) => drop(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Some(Code::Unavailable));

    drop(leash);
    working.await.unwrap().unwrap();
    waiting.finish().await.unwrap();
    assert_eq!((&mut running.serving).await.unwrap().unwrap(), Ended::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_that_outlast_the_drain_are_stopped_and_counted() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let drain = Drain { delay_seconds: 0.0, timeout_seconds: 0.05 };
    let mut running = start(editor, Config { drain, ..config() }).await;
    let working = begun(&running, &leash).await;
    running.shutdown.begin();
    ends_with_this_unit(&running, &leash).await;
    assert_eq!(code(working.await.unwrap()), Code::Unavailable);
    assert_eq!((&mut running.serving).await.unwrap().unwrap(), Ended::Stopped(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_lets_go_of_its_models() {
    let (loader, model) = Given::new(Scripted::of(vec![steps(1)]));
    let server = Server::bind_with(config(), loader).await.unwrap();
    server.ready("").await.unwrap();
    drop(server);
    gone(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_while_it_serves_stops_its_edits_and_lets_go_of_its_models() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let (loader, model) = Given::new(editor);
    let server = Server::bind_with(config(), loader).await.unwrap();
    server.ready("").await.unwrap();
    let running = run(server).await;
    let working = begun(&running, &leash).await;
    let waiting = running.client.edit_stream(request()).await.unwrap();
    let watching = health_client(&running).await.watch(HealthCheckRequest::default()).await.unwrap();

    running.serving.abort();
    ends_with_this_unit(&running, &leash).await;
    assert_eq!(code(working.await.unwrap()), Code::Unavailable);
    assert_eq!(code(waiting.finish().await), Code::Unavailable);
    drop(leash);
    gone(&model).await;
    drop(watching);
}

/// Hands its editor out, once.
struct Given(Mutex<Option<Arc<dyn Editor>>>);

impl Given {
    /// With the editor, seen from afar.
    fn new(editor: Arc<dyn Editor>) -> (Arc<Self>, Weak<dyn Editor>) {
        let model = Arc::downgrade(&editor);
        (Arc::new(Self(Mutex::new(Some(editor)))), model)
    }
}

impl Loader for Given {
    fn load(&self, _: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let editor = self.0.lock().unwrap().take();
        editor.ok_or_else(|| NotLoaded::internal(anyhow::anyhow!("given away")))
    }
}

/// Waits until nobody holds a model. The time only ends a test that would hang.
async fn gone(model: &Weak<dyn Editor>) {
    let waiting = async {
        while model.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "{} hold it", model.strong_count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_fails_to_load_is_told_and_nothing_of_the_inside() {
    let server = Server::bind_with(config(), Arc::new(Shelf(None))).await.unwrap();
    let failure = server.ready("").await.unwrap_err();
    assert!(!failure.to_string().contains("secret"));
    let running = run(server).await;
    let error = running.client.edit(request()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::FailedPrecondition));
    let deployment = running.client.deployment("").await.unwrap();
    assert!(matches!(deployment.state, DeploymentState::Failed(reason) if !reason.contains("secret")));
    assert_eq!(health(&running, "").await, NOT_SERVING);
    assert_eq!(health(&running, LIVE).await, SERVING);
}
