//! What `smartedit serve` holds in memory: without a model, under a flood, and after many edits.

use std::fs::File;
use std::time::Duration;

use smartedit_client::{Client, Code, DeploymentState, EditRequest, RetryPolicy};
use smartedit_core::model::ModelDirectory;
use smartedit_tests::golden::converted;
use tokio::task::JoinSet;

use super::serve::Served;
use super::{run, text};
use crate::running::{gradient, png, request};

const MIB: u64 = 1 << 20;

/// Little is logged, as nobody reads it.
const QUIET: &str = "[log]\nlevel = \"error,smartedit_server::cli::serve=info\"\n";

/// What the server may have resident that has no model.
const IDLE: u64 = 30 * MIB;

/// What it may have beside mapped files in a build with libtorch.
const IDLE_WITH_LIBTORCH: u64 = 90 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_model_needs_little() {
    // A directory that is whole to look at, of files without content.
    let place = tempfile::tempdir().unwrap();
    let model = ModelDirectory::open(&converted().smartedit()).unwrap();
    std::fs::copy(model.file("model.json"), place.path().join("model.json")).unwrap();
    for (name, digest) in &model.config().files {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().set_len(digest.bytes).unwrap();
    }
    let served = Served::with(&["--model", text(place.path())]);
    let client = served.client().await;
    while client.deployment("").await.unwrap().state == DeploymentState::Loading {
        tokio::task::yield_now().await;
    }
    let state = client.deployment("").await.unwrap().state;
    assert!(matches!(state, DeploymentState::Failed(_)), "{state:?}");
    let memory = served.memory();
    println!("without a model: {} KiB resident, {} of its own", memory.resident >> 10, memory.own >> 10);
    match served.has_mapped("libtorch") {
        // What that library itself needs is not the server's.
        true => assert!(memory.own <= IDLE_WITH_LIBTORCH, "{memory:?}"),
        false => assert!(memory.resident <= IDLE, "{memory:?}"),
    }
}

/// A client with a connection of its own, without retries.
async fn client(served: &Served) -> Client {
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    Client::builder(served.address().to_owned()).retry(once).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_large_requests_fills_no_memory() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    const BYTES: usize = 4 << 20;
    let configuration = format!(
        "{QUIET}[limits]\nmax_queue = 2\nmax_concurrent = 8\n[deployments.d]\nmodel = {:?}\ninstances = 1\nmax_batch = 1\n",
        text(&converted().smartedit())
    );
    let served = Served::configured(&configuration);
    served.ready().await;
    let mut large = request(1);
    let mut image = large.image.to_vec();
    // What follows a PNG's end is nobody's business.
    image.resize(BYTES, 0);
    large.image = image.into();
    client(&served).await.edit(large.clone()).await.unwrap();
    let before = served.memory();

    let mut flood = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client(&served).await;
        for _ in 0..EACH {
            let (client, large) = (client.clone(), large.clone());
            flood.spawn(async move { client.edit(large).await });
        }
    }
    let mut served_edits = 0;
    while let Some(outcome) = flood.join_next().await {
        match outcome.unwrap() {
            Ok(_) => served_edits += 1,
            Err(error) => {
                assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
                assert!(error.rejection().unwrap().retry_delay.is_some_and(|delay| delay > Duration::ZERO));
            }
        }
    }
    assert!((1..CLIENTS * EACH).contains(&served_edits), "{served_edits}");
    let grown = served.memory().peak.saturating_sub(before.resident);
    let sent = (CLIENTS * EACH * BYTES) as u64;
    println!("{served_edits} edits served of {} MiB sent, {} MiB more at most", sent / MIB, grown / MIB);
    assert!(grown < sent / 4, "{} MiB more", grown / MIB);
    client(&served).await.edit(request(1)).await.unwrap();
}

/// What is resident after each tenth of so many edits, in bytes: at once, or when memory was given back.
async fn soaked(edits: usize, given_back: bool) -> Vec<u64> {
    let levels = "error,smartedit_server::cli::serve=info,smartedit_server::server=debug";
    let configuration = format!(
        "[log]\nlevel = \"{levels}\"\n[cache]\nmax_bytes = 1000000\nmax_prefix_bytes = 1000000\n[deployments.d]\nmodel = {:?}\n",
        text(&converted().smartedit())
    );
    let mut served = Served::configured(&configuration);
    served.ready().await;
    let client = served.client().await;
    let mut resident = Vec::new();
    for tenth in 0..10 {
        let mut callers = JoinSet::new();
        for caller in 0..4 {
            let client = client.clone();
            let numbers = (0..edits / 10).filter(move |number| number % 4 == caller);
            callers.spawn(async move {
                for number in numbers {
                    soak(&client, tenth * edits / 10 + number).await;
                }
            });
        }
        while let Some(outcome) = callers.join_next().await {
            outcome.unwrap();
        }
        if given_back {
            served.says("memory is given back");
        }
        resident.push(served.memory().resident);
    }
    resident
}

/// How much the last is more than the first.
fn growth(resident: &[u64]) -> f64 {
    *resident.last().unwrap() as f64 / resident[0] as f64 - 1.0
}

/// One of the edits of a soak: no two are alike, some are left, some are refused. Any hundred of them have sources of all
/// sizes.
async fn soak(client: &Client, number: usize) {
    let mut request = request(1 + number as u32 % 3);
    let (width, height) = (number % 32, (7 * number + number / 32) % 32);
    request.image = png(&gradient(33 + width as u32, 33 + height as u32));
    request.instruction = format!("Change the left cat to fox number {number}");
    match number % 10 {
        8 => {
            let mut stream = client.edit_stream(request).await.unwrap();
            stream.next().await.unwrap().unwrap();
        }
        9 => {
            let refused = EditRequest { deployment: Some("nowhere".to_owned()), ..request };
            client.edit(refused).await.unwrap_err();
        }
        _ => drop(client.edit(request).await.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_edits_leave_nothing_behind() {
    let resident = soaked(400, false).await;
    let growth = growth(&resident);
    println!("{resident:?}");
    assert!(growth < 0.1, "{:.1} % more", 100.0 * growth);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: `cargo xtask nightly` runs it"]
async fn thousands_of_edits_leave_nothing_behind() {
    let resident = soaked(6000, true).await;
    let growth = growth(&resident);
    println!("{:+.2} %: {resident:?}", 100.0 * growth);
    assert!(growth < 0.02, "{:.1} % more", 100.0 * growth);
}

/// The most that a process had resident which decoded latents of this size once, at the sizes of Stable Diffusion 1.5.
fn peak_of_decoding(latents: &str) -> u64 {
    let decoder = ["bench", "--preset", "sd15", "--stage", "vae_decoder", "--engine", "candle"];
    let once = ["--iterations", "1", "--latents", latents, "--json"];
    let ended = run(decoder.iter().chain(&once));
    ended.succeeded();
    let measured: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    measured[0]["peak_resident_bytes"].as_u64().unwrap()
}

#[test]
fn a_large_picture_is_decoded_without_columns_of_all_its_pixels() {
    /// The widest feature map of a picture's own size, in bytes for each pixel. All columns of the convolution on it would
    /// take nine times as much.
    const WIDEST: u64 = 256 * 4;
    let grown = peak_of_decoding("32x32") - peak_of_decoding("16x16");
    let pixels = 256 * 256 - 128 * 128;
    println!("{} bytes for each pixel", grown / pixels);
    assert!(grown > pixels * WIDEST, "the process' memory does not tell of the maps");
    assert!(grown < pixels * WIDEST * 5, "{} bytes for each pixel", grown / pixels);
}
