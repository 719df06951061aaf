//! `smartedit serve` that is told to change, and `smartedit admin`.

use std::path::Path;

use smartedit_client::{Client, Code};
use smartedit_tests::golden::converted;

use super::serve::Served;
use super::{run, text};
use crate::http::get;
use crate::running::request;

fn write(path: &Path, configuration: &str) {
    // Whole or not at all, as whoever changes a file that others read should do it.
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, configuration).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

fn deployment(name: &str, model: &Path) -> String {
    format!("[deployments.{name}]\nmodel = {:?}\n", text(model))
}

async fn names(client: &Client) -> Vec<(String, u64)> {
    let deployments = client.deployments().await.unwrap().into_iter();
    deployments.map(|deployment| (deployment.name, deployment.version)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_the_configuration_and_a_wrong_one_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("smartedit.toml");
    let (smartedit, pix2pix) = (converted().smartedit(), converted().instruct_pix2pix());
    write(&path, &(deployment("default", &smartedit) + &deployment("old", &pix2pix)));
    let mut served = Served::with(&["--config", text(&path)]);
    served.ready().await;
    let client = served.client().await;

    let changed = deployment("default", &smartedit) + "max_batch = 2\n" + &deployment("new", &pix2pix);
    write(&path, &format!("{changed}[limits]\nmax_steps = 7\n"));
    served.hang_up();
    let said = served.says("configuration applied");
    assert_eq!((said["loaded"].as_str(), said["unloaded"].as_str()), (Some("default, new"), Some("old")));
    let now = [("default".to_owned(), 2), ("new".to_owned(), 1)];
    assert_eq!(names(&client).await, now);
    client.edit(request(8)).await.expect("limits are as they were at the start");

    for wrong in ["deployments = [", "[limits]\nmax_stops = 1\n", &deployment("x", Path::new("/nowhere"))] {
        write(&path, wrong);
        served.hang_up();
        served.says("nothing is changed");
        assert_eq!(names(&client).await, now);
    }
    client.edit(request(1)).await.unwrap();
    served.terminate();
    drop(client);
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_edits_are_taken_for_the_delay() {
    let model = converted().instruct_pix2pix();
    let mut served = Served::with(&["--model", text(&model), "--set", "drain.delay_seconds=3"]);
    served.ready().await;
    let client = served.client().await;
    served.terminate();
    served.says("not ready any more");
    assert_eq!(get(served.http(), "/readyz").await.0, 503);
    assert_eq!(get(served.http(), "/healthz").await.0, 200);
    client.edit(request(1)).await.expect("whoever has not heard of it yet is still served");
    served.says("every edit is finished");
    assert_eq!(client.edit(request(1)).await.unwrap_err().code(), Some(Code::Unavailable));
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_changed_from_the_command_line() {
    let (smartedit, pix2pix) = (converted().smartedit(), converted().instruct_pix2pix());
    let served = Served::with(&["--model", text(&smartedit), "--set", "admin.enabled=true"]);
    served.ready().await;
    let place = tempfile::tempdir().unwrap();
    let settings = place.path().join("settings.toml");
    std::fs::write(&settings, format!("model = {:?}\n", text(&pix2pix))).unwrap();
    let admin = |arguments: &[&str]| run([&["admin", "--server", served.address()], arguments].concat());

    let loaded = admin(&["load", "other", "--settings", text(&settings), "--version", "3"]);
    loaded.succeeded();
    assert!(loaded.out.starts_with("other: ready"), "{}", loaded.out);
    admin(&["load", "default", "--others", "keep"]).succeeded();
    let client = served.client().await;
    let named = |name: &str, version| (name.to_owned(), version);
    assert_eq!(names(&client).await, [named("default", 1), named("default", 2), named("other", 3)]);
    admin(&["unload", "default", "--version", "1"]).succeeded();
    admin(&["unload", "other"]).succeeded();
    admin(&["unload", "other"]).failed(1, &["other"]);
    admin(&["load", "other", "--settings", "/nowhere.toml"]).failed(2, &["/nowhere.toml"]);
    admin(&["reload"]).succeeded();
    assert_eq!(names(&client).await, [named("default", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_given_back_by_what_is_unloaded() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("smartedit.toml");
    let emoji = deployment("emoji", &model);
    let admin = "default_deployment = \"default\"\n[admin]\nenabled = true\n[cache]\nmax_bytes = 0\n";
    let configuration = format!("{admin}{}{emoji}", deployment("default", &converted().instruct_pix2pix()));
    write(&path, &configuration);
    let served = Served::with(&["--config", text(&path)]);
    served.ready().await;
    let client = served.client().await;
    let edit = smartedit_client::EditRequest { deployment: Some("emoji".to_owned()), ..request(2) };
    let mut without = Vec::new();
    let mut with = Vec::new();
    for _ in 0..8 {
        client.load_deployment(smartedit_client::LoadRequest::new("emoji")).await.unwrap();
        client.edit(edit.clone()).await.unwrap();
        with.push(served.memory().own);
        client.unload_deployment("emoji", None).await.unwrap();
        without.push(served.memory().own);
        assert!(!served.has_mapped("emoji"), "no file stays mapped");
    }
    println!("bytes with: {with:?}, without: {without:?}");
    // The first round also makes what the process keeps for good.
    let (first, last) = (without[1], without[7]);
    let model = with[7].saturating_sub(last);
    assert!(model > 10_000_000, "the model is too small for this to tell anything: {model}");
    assert!(last < first + model / 10, "of {model} bytes, {} stay after six rounds", last - first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_some_age_is_told_to_go_away_and_what_has_begun_on_it_goes_on() {
    let model = converted().instruct_pix2pix();
    let age = ["--set", "connections.max_age_seconds=0.1"];
    let served = Served::with(&[&["--model", text(&model)][..], &age].concat());
    served.ready().await;
    let mut health = served.health().await;
    // With retries: a connection may be told to go away while a request is on its way.
    let client = Client::connect(served.address()).await.unwrap();
    // Far longer than the connection's age.
    let edited = client.edit(request(100)).await.unwrap();
    assert!(edited.timings.total > std::time::Duration::from_millis(100));
    client.edit(request(1)).await.expect("the next one is made on a new connection");
    drop(client);
    assert!(health.message().await.is_ok_and(|status| status.is_some()), "it was ready all the time");
}
