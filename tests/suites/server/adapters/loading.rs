//! Adapters that are loaded and unloaded while their deployment serves.

use std::path::Path;
use std::sync::Arc;

use smartedit_client::{Adapter, Client, Code, Error, LoadAdapterRequest};
use smartedit_server::Config;
use smartedit_server::config::{AdaptersConfig, AdminConfig};
use smartedit_tests::golden::{converted, open};

use super::{at_fault, check, choosing, edit, with_adapters, write};
use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config};
use crate::witness::Witness;

/// [`with_adapters`], where more may be loaded from the same directory, up to three of a deployment.
fn changeable(directory: &Path) -> Config {
    let adapters =
        AdaptersConfig { directory: Some(directory.to_owned()), max_count: 3, ..AdaptersConfig::default() };
    Config { adapters, admin: AdminConfig { enabled: true }, ..with_adapters(directory) }
}

async fn names(client: &Client, deployment: &str) -> Vec<String> {
    client.adapters(deployment).await.unwrap().into_iter().map(|adapter| adapter.name).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, reason: &str, secret: &Path) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), Some(code), "{error}");
    assert_eq!(error.rejection().unwrap().reason.as_deref(), Some(reason), "{error}");
    assert!(!error.to_string().contains(secret.to_str().unwrap()), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_loaded_chosen_listed_and_unloaded() {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start_with(changeable(directory.path())).await;
    let weak = LoadAdapterRequest { scale: Some(0.25), ..LoadAdapterRequest::new("late", "1.safetensors") };
    let loaded: Adapter = server.client.load_adapter(weak).await.unwrap();
    assert_eq!(
        (loaded.name.as_str(), loaded.is_default, loaded.scale, loaded.rank),
        ("late", false, 0.25, 2)
    );
    let listed = server.client.adapters("").await.unwrap();
    assert_eq!(listed, server.client.deployment(SMARTEDIT).await.unwrap().adapters);
    assert_eq!(listed.iter().map(|adapter| adapter.name.as_str()).collect::<Vec<_>>(), ["a", "b", "late"]);
    assert_eq!(listed[2], loaded);

    let plain = edit(&server, SMARTEDIT, None, None).await;
    let late = edit(&server, SMARTEDIT, Some("late"), None).await;
    assert_ne!(late.image, plain.image);
    check("as configured", &late, &edit(&server, SMARTEDIT, Some("a"), Some(0.25)).await);
    let merged = edit(&server, INSTRUCT_PIX2PIX, None, None).await;
    check("as merged", &edit(&server, SMARTEDIT, Some("late"), Some(1.0)).await, &merged);
    assert_eq!(names(&server.client, INSTRUCT_PIX2PIX).await, ["a", "b"], "another deployment is as it was");

    server.client.unload_adapter(SMARTEDIT, "late").await.unwrap();
    server.client.unload_adapter(&format!("{SMARTEDIT}@1"), "a").await.unwrap();
    assert_eq!(names(&server.client, SMARTEDIT).await, ["b"]);
    let gone = server.client.edit(choosing(Some("late"), None)).await.unwrap_err();
    at_fault(&gone, "options.adapter", &["`late`", "`b`"]);
    assert_eq!(edit(&server, SMARTEDIT, None, None).await.image, plain.image);
    server.client.load_adapter(LoadAdapterRequest::new("late", "1.safetensors")).await.unwrap();
    check("loaded again", &edit(&server, SMARTEDIT, Some("late"), None).await, &merged);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_goes_on_with_an_adapter_that_is_unloaded_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = changeable(directory.path());
    // Warming up would wait for the witness.
    config.deployments.values_mut().for_each(|deployment| deployment.warm_up = false);
    let witness = Witness::allowing(1).with_adapters(config.adapters.clone());
    let server = Running::start_with_loader(config, Arc::new(witness.clone())).await;
    let client = server.client.clone();
    let begun = tokio::spawn(async move { client.edit(choosing(Some("a"), None)).await });
    witness.saw_a_step().await;

    server.client.unload_adapter("", "a").await.unwrap();
    let other = LoadAdapterRequest::new("a", "2.safetensors");
    server.client.load_adapter(other).await.unwrap();
    assert!(!begun.is_finished());
    witness.release();
    let old = begun.await.unwrap().unwrap();
    let new = edit(&server, SMARTEDIT, Some("a"), None).await;
    assert_ne!(old.image, new.image);
    server.client.unload_adapter("", "a").await.unwrap();
    server.client.load_adapter(LoadAdapterRequest::new("a", "1.safetensors")).await.unwrap();
    let undisturbed = edit(&server, SMARTEDIT, Some("a"), None).await;
    assert_eq!(old.image, undisturbed.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_changes_nothing() {
    let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = place.path().join("loras");
    std::fs::create_dir_all(directory.join("empty")).unwrap();
    let outside = write(3, elsewhere.path());
    std::fs::copy(&outside, place.path().join("3.safetensors")).unwrap();
    std::fs::write(directory.join("nonsense.safetensors"), [0xff; 64]).unwrap();
    let server = Running::start_with(changeable(&directory)).await;
    let before = server.client.adapters("").await.unwrap();
    let load = async |name: &str, path: &str, code, reason| {
        let loaded = server.client.load_adapter(LoadAdapterRequest::new(name, path)).await;
        refused(loaded, code, reason, place.path())
    };

    let mut paths = vec!["", ".", "..", "../3.safetensors", "empty/../1.safetensors", "nowhere", "a\0b"];
    paths.push(outside.to_str().unwrap());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, directory.join("link")).unwrap();
        std::fs::create_dir(directory.join("linked")).unwrap();
        let weights = directory.join("linked").join("pytorch_lora_weights.safetensors");
        std::os::unix::fs::symlink(&outside, weights).unwrap();
        paths.extend(["link", "linked"]);
    }
    for path in paths {
        at_fault(&load("c", path, Code::InvalidArgument, "INVALID_REQUEST").await, "path", &["directory"]);
    }
    for name in ["", "none", "a/b", &"x".repeat(65)] {
        at_fault(&load(name, "1.safetensors", Code::InvalidArgument, "INVALID_REQUEST").await, "name", &[]);
    }
    for scale in [f32::NAN, 16.5, f32::NEG_INFINITY] {
        let request =
            LoadAdapterRequest { scale: Some(scale), ..LoadAdapterRequest::new("c", "1.safetensors") };
        at_fault(&server.client.load_adapter(request).await.unwrap_err(), "scale", &["16"]);
    }
    load("a", "1.safetensors", Code::AlreadyExists, "ADAPTER_EXISTS").await;
    for path in ["nonsense.safetensors", "empty"] {
        load("c", path, Code::FailedPrecondition, "INVALID_ADAPTER").await;
    }
    let stranger = LoadAdapterRequest {
        deployment: Some("nobody".to_owned()),
        ..LoadAdapterRequest::new("c", "1.safetensors")
    };
    let stranger = server.client.load_adapter(stranger).await;
    refused(stranger, Code::NotFound, "UNKNOWN_DEPLOYMENT", place.path());
    assert_eq!(server.client.adapters("").await.unwrap(), before);

    let unloaded = server.client.unload_adapter("", "c").await;
    let unknown = refused(unloaded, Code::NotFound, "UNKNOWN_ADAPTER", place.path());
    assert!(unknown.to_string().contains("`c`") && unknown.to_string().contains("`a`"), "{unknown}");
    let unloaded = server.client.unload_adapter(INSTRUCT_PIX2PIX, "a").await;
    refused(unloaded, Code::FailedPrecondition, "ADAPTER_MERGED", place.path());
    let listed = server.client.adapters("nobody").await;
    refused(listed, Code::NotFound, "UNKNOWN_DEPLOYMENT", place.path());

    server.client.load_adapter(LoadAdapterRequest::new("c", "1.safetensors")).await.unwrap();
    let full = load("d", "2.safetensors", Code::ResourceExhausted, "ADAPTERS_FULL").await;
    assert!(full.to_string().contains('3'), "{full}");
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_adapters_of_a_deployment_together_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = changeable(directory.path());
    let path = directory.path().join("1.safetensors");
    let file = std::fs::metadata(&path).unwrap().len();
    let adapter =
        smartedit_core::adapter::Adapter::read(&path, open(&converted().smartedit()).config(), file);
    // Enough for the second file beside the factors of the first.
    config.adapters.max_bytes = adapter.unwrap().bytes() as u64 + file;
    let server = Running::start_with(config).await;
    let more = || LoadAdapterRequest::new("c", "1.safetensors");
    let load = server.client.load_adapter(more()).await;
    let refused = refused(load, Code::FailedPrecondition, "INVALID_ADAPTER", directory.path());
    assert!(refused.to_string().contains(&file.to_string()), "{refused}");
    server.client.unload_adapter("", "b").await.unwrap();
    server.client.load_adapter(more()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_load_one_name_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start_with(changeable(directory.path())).await;
    let merged = edit(&server, INSTRUCT_PIX2PIX, None, None).await;
    let load = || {
        let client = server.client.clone();
        async move { client.load_adapter(LoadAdapterRequest::new("c", "1.safetensors")).await }
    };
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(load())).collect();
    let mut loaded = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => loaded += 1,
            Err(error) => assert_eq!(error.code(), Some(Code::AlreadyExists), "{error}"),
        }
    }
    assert_eq!(loaded, 1);

    server.client.unload_adapter("", "c").await.unwrap();
    let left = tokio::spawn(load());
    tokio::task::yield_now().await;
    left.abort();
    // What the one who left has begun is whole, or is not there.
    if let Err(error) = load().await {
        assert_eq!(error.code(), Some(Code::AlreadyExists), "{error}");
    }
    check("whole", &edit(&server, SMARTEDIT, Some("c"), None).await, &merged);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_loaded_unless_the_configuration_allows_it() {
    let directory = tempfile::tempdir().unwrap();
    let fixed = Config { admin: AdminConfig::default(), ..changeable(directory.path()) };
    let server = Running::start_with(fixed).await;
    let load = || server.client.load_adapter(LoadAdapterRequest::new("c", "1.safetensors"));
    refused(load().await, Code::PermissionDenied, "ADMIN_DISABLED", directory.path());
    let unloaded = server.client.unload_adapter("", "a").await;
    refused(unloaded, Code::PermissionDenied, "ADMIN_DISABLED", directory.path());
    assert_eq!(names(&server.client, "").await, ["a", "b"], "what there is may be seen");

    let homeless = Config { admin: AdminConfig { enabled: true }, ..config() };
    let server = Running::start_with(homeless).await;
    let load = server.client.load_adapter(LoadAdapterRequest::new("c", "1.safetensors")).await;
    refused(load, Code::FailedPrecondition, "NO_ADAPTER_DIRECTORY", directory.path());
}
