//! Far more than a server can do, and far more than anyone waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use smartedit_client::{Code, EditRequest, Error};
use smartedit_server::Config;
use smartedit_server::config::{DeploymentConfig, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::faults::{Fault, Faults};
use crate::running::{Running, SMARTEDIT, config, decoded, gradient, png, request};

/// More steps than anyone waits for.
const MANY: u32 = 500;

/// Edits that are left in all ways at all times.
const LEFT: usize = 240;

/// Edits among them that are waited for.
const KEPT: usize = 8;

/// The default deployment, whose edits share runs of the denoiser, with room for all edits of a storm.
fn roomy() -> Config {
    let mut config = config();
    for deployment in config.deployments.values_mut() {
        *deployment = DeploymentConfig::new(&deployment.model);
    }
    let limits = Limits { max_queue: LEFT + KEPT, max_concurrent: 2 * LEFT, ..Limits::default() };
    Config { limits, ..config }
}

/// How often edits of the default deployment ended in which way.
async fn outcomes(server: &Running) -> BTreeMap<String, usize> {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let prefix = format!("smartedit_edits_total{{deployment=\"{SMARTEDIT}\",outcome=\"");
    let samples = answer.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
    samples.map(|(outcome, count)| (outcome.to_owned(), count.parse().unwrap())).collect()
}

/// An edit of a picture of its own, so that nothing of another one is kept for it.
fn distinct(index: usize, steps: u32) -> EditRequest {
    let mut request = request(steps);
    request.image = png(&gradient(40 + index as u32 % 64, 40 + index as u32 / 64));
    request
}

/// Begins an edit and leaves it: before the answer begins, after some events, or by a deadline.
async fn leave(server: &smartedit_client::Client, index: usize) {
    let mut request = distinct(index, MANY);
    match index % 4 {
        0 => {
            let patience = Duration::from_millis(index as u64 % 37);
            let _ = tokio::time::timeout(patience, server.edit(request)).await;
        }
        1 => {
            request.timeout = Some(Duration::from_millis(20 + index as u64));
            let outcome = server.edit(request).await;
            assert_eq!(outcome.err().and_then(|error| error.code()), Some(Code::DeadlineExceeded));
        }
        _ => {
            let mut stream = server.edit_stream(request).await.unwrap();
            for _ in 0..index % 5 {
                stream.next().await.unwrap().unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_callers_who_leave_the_others_are_served_and_nothing_is_left() {
    let server = Running::start_with(roomy()).await;
    let alone = decoded(&server.client.edit(request(4)).await.unwrap().image);
    let mut storm = JoinSet::new();
    let mut kept = JoinSet::new();
    for index in 0..LEFT {
        let client = server.client.clone();
        storm.spawn(async move { leave(&client, index).await });
        if index % (LEFT / KEPT) == 0 {
            let client = server.client.clone();
            kept.spawn(async move { client.edit(request(4)).await.unwrap() });
        }
    }
    while let Some(outcome) = storm.join_next().await {
        outcome.unwrap();
    }
    while let Some(edited) = kept.join_next().await {
        let edited = decoded(&edited.unwrap().image);
        let pairs = edited.as_raw().iter().zip(alone.as_raw());
        assert!(pairs.clone().all(|(a, b)| a.abs_diff(*b) <= 2), "an edit comes out as alone");
    }
    server.idle().await;
    let outcomes = outcomes(&server).await;
    assert_eq!(outcomes.get("OK"), Some(&(KEPT + 1)), "{outcomes:?}");
    let known = ["OK", "ABANDONED", "DEADLINE_EXCEEDED"];
    assert!(outcomes.keys().all(|outcome| known.contains(&outcome.as_str())), "{outcomes:?}");
    server.still_serves().await;
}

/// Times as many edits as there is room for.
const EXCESS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_times_what_there_is_room_for_all_that_is_accepted_is_answered() {
    let faults = Faults::default();
    let limits = Limits { max_queue: 7, max_concurrent: 1000, ..Limits::default() };
    let room = limits.max_queue + 1;
    let loader = faults.loader(Default::default());
    let server = Running::start_with_loader(Config { limits, ..config() }, loader).await;

    // Nothing is done before all edits have come.
    faults.arm(smartedit_core::stage::StageKind::Denoiser, Fault::Hang);
    let mut calls = JoinSet::new();
    for index in 0..room * EXCESS {
        let client = server.client.clone();
        calls.spawn(async move { client.edit(distinct(index, 2)).await });
    }
    let mut refused = Vec::new();
    while refused.len() < room * (EXCESS - 1) {
        let outcome: Result<_, Error> = calls.join_next().await.unwrap().unwrap();
        refused.push(outcome.expect_err("nothing is done yet"));
    }
    for error in refused {
        assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
        let rejection = error.rejection().unwrap();
        assert_eq!(rejection.reason.as_deref(), Some("QUEUE_FULL"));
        assert!(rejection.retry_delay.is_some_and(|delay| delay > Duration::ZERO));
    }
    let found = server.client.deployment("").await.unwrap();
    assert_eq!((found.queued, found.running, found.accepting), (7, 1, false));

    faults.disarm();
    let mut served = 0;
    while let Some(outcome) = calls.join_next().await {
        outcome.unwrap().expect("what is accepted is answered");
        served += 1;
    }
    assert_eq!(served, room);
    assert!(server.client.deployment("").await.unwrap().accepting);
    server.still_serves().await;
}
