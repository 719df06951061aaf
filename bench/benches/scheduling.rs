//! What edits at the same time gain from sharing runs of the denoiser, what a lone edit pays for it, and how fast a full
//! server refuses.
//!
//! Runs on the model directory `SMARTEDIT_TEST_MODEL`, or the one that ships, in two deployments of one server: `alone`
//! does one edit after the other, `shared` is as by default. Both take turns, so that whatever else the machine does
//! meets both.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smartedit_client::{Client, EditRequest, Resize, RetryPolicy};
use smartedit_core::picture::{Format, encode};
use smartedit_server::config::{CacheConfig, DeploymentConfig, Limits};
use smartedit_server::{Config, Server};

const SIDE: u32 = 64;
const STEPS: u32 = 10;
const ROUNDS: usize = 22;
const LONE: usize = 63;
const TOGETHER: usize = 8;
const FLOOD: usize = 300;
const NAMES: [&str; 2] = ["alone", "shared"];

fn config() -> Config {
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-random");
    let model = std::env::var_os("SMARTEDIT_TEST_MODEL").map_or_else(shipped, PathBuf::from);
    let shared = DeploymentConfig::new(model);
    let alone = DeploymentConfig { instances: 1, max_batch: 1, ..shared.clone() };
    let deployments = NAMES.map(str::to_owned).into_iter().zip([alone, shared]);
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        default_deployment: Some(NAMES[0].to_owned()),
        deployments: BTreeMap::from_iter(deployments),
        cache: CacheConfig { max_bytes: 0, ..CacheConfig::default() },
        limits: Limits { max_queue: TOGETHER, max_concurrent: 2 * FLOOD, ..Limits::default() },
        ..Config::default()
    }
}

/// An edit of a picture of its own.
fn request(deployment: &str, seed: u64) -> EditRequest {
    let picture = image::RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, seed as u8]));
    let file = encode(&picture, Format::Png, None).expect("a picture can be encoded");
    let mut request = EditRequest::new(file, "Make it blue");
    request.deployment = Some(deployment.to_owned());
    request.options.seed = Some(seed);
    request.options.steps = Some(STEPS);
    request.options.resize = Resize::Stretch(SIDE, SIDE);
    request
}

async fn lone(client: &Client, deployment: &str, seed: u64) -> Duration {
    let request = request(deployment, seed);
    let started = Instant::now();
    client.edit(request).await.expect("the edit succeeds");
    started.elapsed()
}

async fn together(client: &Client, deployment: &str, seed: u64) -> Duration {
    let requests: Vec<_> = (0..TOGETHER as u64).map(|index| request(deployment, seed + index)).collect();
    let started = Instant::now();
    let edits = requests.into_iter().map(|request| {
        let client = client.clone();
        tokio::spawn(async move { client.edit(request).await.map(drop) })
    });
    for edit in edits.collect::<Vec<_>>() {
        edit.await.expect("the task ends").expect("the edit succeeds");
    }
    started.elapsed()
}

/// How long each refused edit waited for its refusal, of many more than there is room for; and how many were served.
async fn flood(client: &Client, deployment: &str) -> (Vec<Duration>, usize) {
    let edits = (0..FLOOD as u64).map(|seed| {
        let (client, request) = (client.clone(), request(deployment, seed));
        async move {
            let started = Instant::now();
            let refused = client.edit(request).await.is_err();
            (refused, started.elapsed())
        }
    });
    let mut refused = Vec::new();
    let mut tasks = Vec::new();
    for edit in edits {
        tasks.push(tokio::spawn(edit));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for task in tasks {
        let (is_refused, took) = task.await.expect("the task ends");
        refused.extend(is_refused.then_some(took));
    }
    let served = FLOOD - refused.len();
    (refused, served)
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

async fn measure() {
    let server = Server::bind(config()).await.expect("the server can be bound");
    let address = server.local_addr().to_string();
    let ready = NAMES.map(|name| server.ready(name));
    tokio::spawn(server.serve());
    for ready in ready {
        ready.await.expect("the model can be loaded");
    }
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let client = Client::builder(address).retry(once).connect().await.expect("the server answers");

    let mut seed = 0;
    let mut next = || {
        seed += TOGETHER as u64;
        seed
    };
    let (mut lones, mut crowds) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..LONE {
        for turn in 0..NAMES.len() {
            let index = (round + turn) % NAMES.len();
            let took = lone(&client, NAMES[index], next()).await;
            lones[index].extend((round > 2).then_some(took));
        }
    }
    for round in 0..ROUNDS {
        for turn in 0..NAMES.len() {
            let index = (round + turn) % NAMES.len();
            let took = together(&client, NAMES[index], next()).await;
            crowds[index].extend((round > 0).then_some(took));
        }
    }
    println!("{SIDE}×{SIDE} pixels, {STEPS} steps; medians, one deployment and the other in turns");
    let lone = lones.each_mut().map(|times| percentile(times, 50));
    let gain = 100.0 * (lone[1] / lone[0] - 1.0);
    println!("a lone edit: {:.1} ms alone, {:.1} ms shared ({gain:+.1} %)", lone[0], lone[1]);
    let crowd = crowds.each_mut().map(|times| TOGETHER as f64 * 1e3 / percentile(times, 50));
    println!(
        "{TOGETHER} edits at the same time: {:.2} edits/s alone, {:.2} edits/s shared ({:.2} times)",
        crowd[0],
        crowd[1],
        crowd[1] / crowd[0]
    );
    let (mut refused, served) = flood(&client, NAMES[1]).await;
    let count = refused.len();
    if count > 0 {
        let (median, high) = (percentile(&mut refused, 50), percentile(&mut refused, 99));
        println!("{served} served, {count} refused, after {median:.2} ms (median), {high:.2} ms (99 %)");
    }
}

fn main() {
    smartedit_allocator::share_arena();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    runtime.block_on(measure());
}
