//! `smartedit admin adapter`, and the memory of adapters.

use std::path::Path;

use smartedit_client::{EditRequest, LoadAdapterRequest};
use smartedit_core::model::ModelDirectory;
use smartedit_tests::adapters::Recipe;
use smartedit_tests::golden::converted;

use super::serve::Served;
use super::{run, text};
use crate::adapters::{choosing, write};

#[tokio::test(flavor = "multi_thread")]
async fn adapters_are_changed_from_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    write(1, place.path());
    let directory = format!("adapters.directory={}", text(place.path()));
    let model = converted().smartedit();
    let settings = ["--set", "admin.enabled=true", "--set", &directory];
    let served = Served::with(&[&["--model", text(&model)][..], &settings].concat());
    served.ready().await;
    let adapter =
        |arguments: &[&str]| run([&["admin", "--server", served.address(), "adapter"], arguments].concat());

    let loaded = adapter(&["load", "default", "late", "1.safetensors", "--scale", "-0.5"]);
    loaded.succeeded();
    assert!(loaded.out.starts_with("adapter late: scale -0.5, rank 2"), "{}", loaded.out);
    let listed = adapter(&["list", "default"]);
    listed.succeeded();
    assert_eq!(listed.out, loaded.out);
    let client = served.client().await;
    client.edit(choosing(Some("late"), None)).await.unwrap();
    adapter(&["load", "default", "late", "1.safetensors"]).failed(1, &["late", "unload it first"]);
    adapter(&["load", "default", "other", "../1.safetensors"]).failed(1, &["path"]);
    adapter(&["unload", "default", "late"]).succeeded();
    adapter(&["unload", "default", "late"]).failed(1, &["late"]);
    assert_eq!(adapter(&["list", "default"]).out, "");
    adapter(&["load", "default", "late"]).failed(2, &["PATH"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_given_back_by_adapters_that_are_unloaded() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let place = tempfile::tempdir().unwrap();
    let recipe = Recipe { rank: 64, alpha: 64.0, strength: 0.1, seed: 1, wanted: &|_, _| true };
    recipe.write(&ModelDirectory::open(&model).unwrap(), place.path());
    let served = Served::configured(&format!(
        "[admin]\nenabled = true\n[cache]\nmax_bytes = 0\n[adapters]\ndirectory = {:?}\n[deployments.emoji]\nmodel = {:?}\n",
        text(place.path()),
        text(&model)
    ));
    served.ready().await;
    let client = served.client().await;
    let mut edit: EditRequest = choosing(Some("large"), None);
    edit.options.steps = Some(1);
    let (mut with, mut without, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..20 {
        let loaded = client.load_adapter(LoadAdapterRequest::new("large", "1.safetensors")).await.unwrap();
        bytes = loaded.bytes;
        client.edit(edit.clone()).await.unwrap();
        with.push(served.memory().own);
        client.unload_adapter("", "large").await.unwrap();
        without.push(served.memory().own);
    }
    // The first round also makes what the process keeps for good.
    let (first, last) = (without[1], without[19]);
    println!("adapter of {bytes}; with: {with:?}, without: {without:?}");
    assert!(bytes > 10_000_000, "the adapter is too small for this to tell anything: {bytes}");
    assert!(with[19] > last + bytes / 2, "of {bytes} bytes, too few come back");
    assert!(last < first + bytes / 10, "of {bytes} bytes, {} stay after eighteen rounds", last - first);
}
