//! `smartedit serve`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use rustix::process::{Pid, Signal, kill_process};
use smartedit_client::{Client, Code, Event, RetryPolicy};
use smartedit_tests::golden::converted;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Ended, can_run, run, smartedit, text};
use crate::running::{decoded, request};

/// What `--check-config` says of a configuration.
fn check(configuration: &str) -> Ended {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("smartedit.toml");
    std::fs::write(&path, configuration).unwrap();
    run(["serve", "--check-config", "--config", text(&path)])
}

fn deployment(model: &Path) -> String {
    format!("[deployments.cats]\nmodel = {:?}\n", text(model))
}

#[test]
fn a_configuration_is_judged_before_anything_is_served() {
    let model = deployment(&converted().smartedit());
    check(&model).succeeded();
    let nowhere = deployment(Path::new("/nowhere/at/all"));
    check(&nowhere).failed(2, &["smartedit.toml:2", "deployments.cats.model", "/nowhere/at/all"]);
    let torch = format!("{model}engine = \"torch\"\n");
    if !can_run("torch") {
        check(&torch).failed(2, &["smartedit.toml:3", "deployments.cats.engine", "`torch`", "not built in"]);
    }
    check(&format!("{torch}fallback = [\"candle\"]\n")).succeeded();
    let abacus = format!("{model}[deployments.cats.stages.denoiser]\nengine = \"abacus\"\n");
    check(&abacus).failed(2, &["stages.denoiser.engine", "`abacus`", "candle"]);
    let unknown = format!("{model}colour = \"red\"\n");
    check(&unknown).failed(2, &["smartedit.toml", "line 3", "colour"]);
    check(&format!("[limits]\nmax_stops = 3\n{model}")).failed(2, &["line 2", "max_stops"]);
    check("deployments = [").failed(2, &["smartedit.toml", "line 1"]);
    run(["serve", "--check-config", "--config", "nowhere.toml"]).failed(2, &["nowhere.toml"]);
    run(["serve", "--check-config", "--set", "limits.max_steps=many"]).failed(2, &["limits.max_steps"]);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let model = converted().instruct_pix2pix();
    run(["serve", "--model", text(&model), "--listen", &address]).failed(1, &[&address]);
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// All of it, mapped files included.
    pub(super) resident: u64,
    /// What no file backs.
    pub(super) own: u64,
    /// The most there was of all.
    pub(super) peak: u64,
}

/// A `smartedit serve`, of the pack's SmartEdit model unless configured; killed if it is not over when dropped.
pub(super) struct Served {
    child: Child,
    log: Receiver<String>,
    address: String,
    http: SocketAddr,
}

impl Served {
    pub(super) fn start() -> Self {
        Self::with(&["--model", text(&converted().smartedit())])
    }

    /// A server of this configuration.
    pub(super) fn configured(configuration: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("smartedit.toml");
        std::fs::write(&path, configuration).unwrap();
        Self::with(&["--config", text(&path)])
    }

    /// A server with these arguments.
    pub(super) fn with(arguments: &[&str]) -> Self {
        Self::listening("127.0.0.1:0", arguments)
    }

    /// A server with these arguments that listens here.
    pub(super) fn listening(address: &str, arguments: &[&str]) -> Self {
        let common = ["serve", "--listen", address, "--log-format", "json"];
        let mut child = smartedit(common.iter().chain(arguments)).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap());
        let listening = log.iter().map(|line| entry(&line)).find(|entry| entry["message"] == "listening");
        let listening = listening.expect("the address is logged");
        let address = listening["address"].as_str().unwrap().to_owned();
        let http = listening["http"].as_str().unwrap().parse().unwrap();
        Self { child, log, address, http }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What it holds in memory.
    pub(super) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
        };
        Memory { resident: bytes("VmRSS:"), own: bytes("RssAnon:"), peak: bytes("VmHWM:") }
    }

    /// Whether it has a file mapped whose path has this in it.
    pub(super) fn has_mapped(&self, name: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap().contains(name)
    }

    /// Where it serves HTTP.
    pub(super) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(super) async fn health(&self) -> Streaming<HealthCheckResponse> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        client.watch(HealthCheckRequest::default()).await.unwrap().into_inner()
    }

    /// Waits until the default deployment is ready.
    pub(super) async fn ready(&self) {
        reports(&mut self.health().await, ServingStatus::Serving).await;
    }

    /// A client without retries.
    pub(super) async fn client(&self) -> Client {
        let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        Client::builder(self.address.clone()).retry(once).connect().await.unwrap()
    }

    pub(super) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub(super) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Waits for a line of its log with these words.
    pub(super) fn says(&mut self, words: &str) -> serde_json::Value {
        let mut entries = self.log.iter().map(|line| entry(&line));
        entries.find(|entry| entry["message"].as_str().is_some_and(|said| said.contains(words))).expect(words)
    }

    /// Waits for its end: the exit code and what it wrote since it listens.
    pub(super) fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let log = self.log.iter().collect();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines as they are written: whoever logs must not wait for a test to read.
fn lines(log: ChildStderr) -> Receiver<String> {
    // More than any test makes a server say.
    let (written, read) = sync_channel(100_000);
    let body = move || {
        BufReader::new(log).lines().map_while(Result::ok).try_for_each(|line| written.send(line).ok())
    };
    std::thread::Builder::new().spawn(body).unwrap();
    read
}

/// A line of the log.
fn entry(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Waits until the server reports this.
async fn reports(health: &mut Streaming<HealthCheckResponse>, status: ServingStatus) {
    while health.message().await.unwrap().expect("the watch goes on").status() != status {}
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_has_begun_and_refuses_the_rest() {
    let mut served = Served::start();
    let mut health = served.health().await;
    reports(&mut health, ServingStatus::Serving).await;
    let client = served.client().await;

    let mut stream = client.edit_stream(request(150)).await.unwrap();
    while !matches!(stream.next().await.unwrap().unwrap(), Event::Step { .. }) {}
    served.terminate();
    reports(&mut health, ServingStatus::NotServing).await;
    assert!(served.child.try_wait().unwrap().is_none(), "readiness ends before the server does");
    let refused = client.edit(request(1)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unavailable), "{refused}");
    let edited = stream.finish().await.unwrap();
    assert_eq!(decoded(&edited.image).dimensions(), (64, 64));

    drop((health, client));
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log:#?}");
    let said = |words: &str| {
        log.iter().position(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words:?} in {log:#?}"))
    };
    assert!(said("asked to shut down") < said("every edit is finished"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let served = Served::start();
    reports(&mut served.health().await, ServingStatus::Serving).await;
    let client = served.client().await;
    let mut stream = client.edit_stream(request(500)).await.unwrap();
    while !matches!(stream.next().await.unwrap().unwrap(), Event::Step { .. }) {}
    let mut health = served.health().await;
    served.terminate();
    reports(&mut health, ServingStatus::NotServing).await;
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(1), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("second signal, SIGTERM")), "{log:#?}");
    assert!(stream.finish().await.is_err());
}
