//! Callers who are slow, gone or silent, byte by byte: what becomes of them, and that nobody else notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use smartedit_server::Config;
use smartedit_server::config::{ConnectionsConfig, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::running::{Running, config, message, request, streaming};
use crate::witness::Witness;

/// More steps than anyone waits for.
const MANY: u32 = 500;

/// Little patience.
const SHORT: f64 = 0.4;

const EDIT: &str = "/smartedit.v1.SmartEditService/Edit";
const EDIT_STREAM: &str = "/smartedit.v1.SmartEditService/EditStream";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

async fn start(connections: ConnectionsConfig) -> Running {
    Running::start_with(Config { connections, ..config() }).await
}

/// Fails a test that would hang.
async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), happens).await;
    outcome.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Waits until the other end closes a connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = soon("the connection is closed", stream.read_to_end(&mut rest)).await;
}

/// An HTTP/2 connection whose every frame a test decides on.
struct Raw {
    send: SendRequest<Bytes>,
    driving: JoinHandle<()>,
    /// Gives the word to read and write nothing more, and to leave the connection open.
    freeze: watch::Sender<bool>,
}

impl Raw {
    /// Grants every answer a window of so many bytes, and no more.
    async fn connect(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) =
            h2::client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        let freeze = watch::Sender::new(false);
        let mut frozen = freeze.subscribe();
        let driving = tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let freezing = async { drop(frozen.wait_for(|frozen| *frozen).await) };
            tokio::select! {
                _ = connection.as_mut() => {}
                () = freezing => std::future::pending().await,
            }
        });
        Self { send, driving, freeze }
    }

    /// Begins a call.
    async fn call(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(request, false).unwrap()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// A message as gRPC sends it.
fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

/// Waits until an edit is let in.
async fn served(server: &Running) {
    while let Err(error) = server.client.edit(request(1)).await {
        assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
    }
}

/// The status in an answer's headers.
async fn refused(response: ResponseFuture) -> Status {
    let response = soon("the call is answered", response).await.unwrap();
    status(response.headers())
}

#[track_caller]
fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("the call is over")
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_not_waited_for() {
    let patience = ConnectionsConfig { opening_timeout_seconds: SHORT, ..ConnectionsConfig::default() };
    let server = start(patience).await;
    let mut silent = Vec::new();
    let nothing = &b""[..];
    for (address, words) in
        [(server.grpc, nothing), (server.grpc, b"PRI * HTTP/2.0\r\n\r\n"), (server.http, nothing)]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words).await.unwrap();
        silent.push(stream);
    }
    for stream in &mut silent {
        closed(stream).await;
    }
    // Connections on which something was asked stay.
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_are_open_than_may_be_and_those_there_are_go_on() {
    let server = start(ConnectionsConfig { max: 6, ..ConnectionsConfig::default() }).await;
    let mut open = Vec::new();
    // Three belong to the clients.
    for _ in 0..3 {
        open.push(TcpStream::connect(server.grpc).await.unwrap());
    }
    server.still_serves().await;
    let mut refused = TcpStream::connect(server.grpc).await.unwrap();
    closed(&mut refused).await;
    server.still_serves().await;
    drop(open);
    let reconnecting = async {
        loop {
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
            let Ok(channel) = channel.connect().await else { continue };
            let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
            if client.check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok() {
                break;
            }
        }
    };
    soon("there is room again", reconnecting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let patience = ConnectionsConfig { idle_timeout_seconds: SHORT, ..ConnectionsConfig::default() };
    let server = start(patience).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let dripping = async {
        // It ends with the connection.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the connection is closed", dripping).await;

    // Nor is a second request after the first.
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    soon("the connection is closed", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_byte_by_byte_gives_its_place_to_others() {
    let connections = ConnectionsConfig { upload_timeout_seconds: SHORT, ..ConnectionsConfig::default() };
    let limits = Limits { max_concurrent: 1, ..Limits::default() };
    let server = Running::start_with(Config { connections, limits, ..config() }).await;
    let mut raw = Raw::connect(server.grpc, 1 << 16).await;
    for (path, whole) in [(EDIT, framed(&message(1))), (EDIT_STREAM, framed(&streaming(message(1))))] {
        let (response, mut body) = raw.call(path).await;
        body.send_data(whole.slice(..whole.len() - 1), false).unwrap();
        let status = refused(response).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::DeadlineExceeded, "UPLOAD_TOO_SLOW"),
            "{status}"
        );
        server.still_serves().await;
    }

    let mut form = TcpStream::connect(server.http).await.unwrap();
    let head = "POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\
                Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n";
    form.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    soon("the form is answered", form.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_gives_its_place_to_others() {
    let connections = ConnectionsConfig { download_timeout_seconds: SHORT, ..ConnectionsConfig::default() };
    let limits = Limits { max_concurrent: 1, ..Limits::default() };
    let server = Running::start_with(Config { connections, limits, ..config() }).await;
    let mut raw = Raw::connect(server.grpc, 0).await;
    for (path, whole) in [(EDIT, framed(&message(1))), (EDIT_STREAM, framed(&streaming(message(1))))] {
        let (response, mut body) = raw.call(path).await;
        body.send_data(whole, true).unwrap();
        let _unread: RecvStream = soon("the answer begins", response).await.unwrap().into_body();
        soon("its place is free", served(&server)).await;
    }
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_holds_no_worker_and_gets_the_result() {
    let witness = Witness::allowing(usize::MAX);
    let server = Running::start_on(Arc::new(witness.clone())).await;
    let mut raw = Raw::connect(server.grpc, 16).await;
    let (response, mut body) = raw.call(EDIT_STREAM).await;
    body.send_data(framed(&streaming(message(20))), true).unwrap();
    let mut answer = soon("the answer begins", response).await.unwrap().into_body();
    // The edit is done, and others after it, before more than a few bytes are read.
    server.until("the edit is done", |found| (found.queued, found.running) == (0, 0)).await;
    while witness.finished() == 0 {
        tokio::task::yield_now().await;
    }
    server.still_serves().await;
    let mut read = BytesMut::new();
    while let Some(part) = soon("the answer goes on", answer.data()).await {
        let part = part.unwrap();
        assert!(part.len() <= 16);
        answer.flow_control().release_capacity(part.len()).unwrap();
        read.extend_from_slice(&part);
    }
    let trailers = answer.trailers().await.unwrap().unwrap();
    assert_eq!(status(&trailers).code(), Code::Ok);
    let results = read.windows(4).filter(|window| *window == b"\x89PNG").count();
    assert_eq!(results, 1, "it ends with the result");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_without_a_word_is_missed_and_its_edit_stopped() {
    let witness = Witness::allowing(usize::MAX);
    let connections = ConnectionsConfig { keepalive_seconds: SHORT, ..ConnectionsConfig::default() };
    let loader = Arc::new(witness.clone());
    let server = Running::start_with_loader(Config { connections, ..config() }, loader).await;
    let mut raw = Raw::connect(server.grpc, 1 << 16).await;
    let (_response, mut body) = raw.call(EDIT_STREAM).await;
    body.send_data(framed(&streaming(message(MANY))), true).unwrap();
    witness.saw_a_step().await;
    // As if the cable were cut.
    raw.freeze.send_replace(true);
    server.idle().await;
    assert_eq!(witness.finished(), 0);
    assert!(witness.steps() < MANY as usize);
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_gives_no_sign_of_life_is_closed() {
    let connections = ConnectionsConfig { keepalive_seconds: SHORT, ..ConnectionsConfig::default() };
    let server = start(connections).await;
    let mut stream = TcpStream::connect(server.grpc).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(&mut stream).await;
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_requests_gives_its_place_to_others() {
    let connections =
        ConnectionsConfig { stream_idle_timeout_seconds: SHORT, ..ConnectionsConfig::default() };
    let limits = Limits { max_concurrent: 1, ..Limits::default() };
    let server = Running::start_with(Config { connections, limits, ..config() }).await;
    let mut raw = Raw::connect(server.grpc, 1 << 16).await;
    let (response, _body) = raw.call(MODEL_STREAM_INFER).await;
    let mut answer = soon("the answer begins", response).await.unwrap().into_body();
    assert!(soon("the call is over", answer.data()).await.is_none());
    let status = status(&answer.trailers().await.unwrap().unwrap());
    assert_eq!(reason(&status), "STREAM_IDLE", "{status}");
    drop(raw);
    soon("its place is free", served(&server)).await;
}
