//! Deployments that are loaded, replaced and unloaded while the server serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use smartedit_client::{Code, DeploymentState, Error, LoadRequest, OtherVersions};
use smartedit_proto::inference::{
    ModelMetadataRequest, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use smartedit_server::Config;
use smartedit_server::config::AdminConfig;
use smartedit_tests::golden::converted;

use crate::http::get;
use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, request};
use crate::witness::Witness;

fn changeable() -> Config {
    Config { admin: AdminConfig { enabled: true }, ..config() }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Code {
    outcome.unwrap_err().code().unwrap()
}

/// A request to this deployment.
fn to(deployment: &str) -> smartedit_client::EditRequest {
    smartedit_client::EditRequest { deployment: Some(deployment.to_owned()), ..request(1) }
}

/// Settings of a deployment of this model.
fn settings(model: &Path) -> String {
    format!("model = {:?}\ninstances = 1\nmax_batch = 1\n", model.to_str().unwrap())
}

/// A copy of a model directory that can be damaged.
fn copy(model: &Path) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("model");
    std::fs::create_dir(&copy).unwrap();
    for entry in walkdir::WalkDir::new(model).into_iter().map(Result::unwrap) {
        let to = copy.join(entry.path().strip_prefix(model).unwrap());
        match entry.file_type().is_dir() {
            true => std::fs::create_dir_all(to).unwrap(),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
    (place, copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_and_the_old_one_finishes_what_it_has() {
    let witness = Witness::allowing(1);
    let server = Running::start_with_loader(changeable(), Arc::new(witness.clone())).await;
    let client = server.client.clone();
    let begun = tokio::spawn(async move { client.edit(request(3)).await });
    witness.saw_a_step().await;

    let loaded = server.client.load_deployment(LoadRequest::new(SMARTEDIT)).await.unwrap();
    assert_eq!((loaded.version, loaded.is_current, loaded.is_default), (2, true, true));
    assert!(!begun.is_finished());
    witness.release();
    let (old, new) = (begun.await.unwrap().unwrap(), server.client.edit(request(3)).await.unwrap());
    assert_eq!((old.deployment_version, new.deployment_version), (1, 2));
    assert_eq!(old.image, new.image);
    let gone = server.client.edit(to(&format!("{SMARTEDIT}@1"))).await;
    assert_eq!(code(gone), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_edit_is_dropped_while_versions_come_and_go() {
    let server = Running::start_with(changeable()).await;
    let (done, edits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, done, edits) = (server.client.clone(), done.clone(), edits.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    client.edit(request(1)).await.unwrap();
                    edits.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for version in 2..7 {
        let before = edits.load(Ordering::SeqCst);
        let loaded = server.client.load_deployment(LoadRequest::new(SMARTEDIT)).await.unwrap();
        assert_eq!(loaded.version, version);
        while edits.load(Ordering::SeqCst) < before + 4 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_stand_side_by_side() {
    let mut server = Running::start_with(changeable()).await;
    let beside = LoadRequest {
        settings: Some(settings(&converted().instruct_pix2pix())),
        version: Some(7),
        others: OtherVersions::KeepCurrent,
        ..LoadRequest::new(SMARTEDIT)
    };
    let loaded = server.client.load_deployment(beside.clone()).await.unwrap();
    assert_eq!((loaded.version, loaded.is_current), (7, false));
    assert_eq!(code(server.client.load_deployment(beside).await), Code::InvalidArgument, "7 is there");

    let old = server.client.edit(to(SMARTEDIT)).await.unwrap();
    let new = server.client.edit(to(&format!("{SMARTEDIT}@7"))).await.unwrap();
    let other = server.client.edit(to(INSTRUCT_PIX2PIX)).await.unwrap();
    assert_eq!((old.deployment_version, new.deployment_version), (1, 7));
    assert_ne!(old.image, new.image);
    assert_eq!(new.image, other.image);
    let versions: Vec<_> =
        server.client.deployments().await.unwrap().into_iter().map(|d| (d.name, d.version)).collect();
    let named = |name: &str, version| (name.to_owned(), version);
    assert_eq!(versions, [named(INSTRUCT_PIX2PIX, 1), named(SMARTEDIT, 1), named(SMARTEDIT, 7)]);

    let metadata =
        |version: &str| ModelMetadataRequest { name: SMARTEDIT.to_owned(), version: version.to_owned() };
    let outputs = server.inference.model_metadata(metadata("7")).await.unwrap().into_inner();
    assert_eq!((outputs.versions, outputs.outputs.len()), (vec!["7".to_owned()], 1));
    let outputs = server.inference.model_metadata(metadata("")).await.unwrap().into_inner();
    assert_eq!((outputs.versions, outputs.outputs.len()), (vec!["1".to_owned()], 2), "a reply, too");
    let unknown = server.inference.model_metadata(metadata("3")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let metrics = get(server.http, "/metrics").await.1;
    let ready =
        |label: &str| metrics.contains(&format!("smartedit_deployment_ready{{deployment=\"{label}\"}} 1"));
    assert!(ready(SMARTEDIT) && ready(&format!("{SMARTEDIT}@7")), "{metrics}");

    server.client.unload_deployment(SMARTEDIT, Some(1)).await.unwrap();
    assert_eq!(server.client.edit(to(SMARTEDIT)).await.unwrap().deployment_version, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_is_told_and_the_old_one_goes_on_serving() {
    let (place, model) = copy(&converted().smartedit());
    let mut config = changeable();
    config.deployments.get_mut(SMARTEDIT).unwrap().model = model.clone();
    let server = Running::start_with(config).await;
    server.still_serves().await;
    for damage in ["truncated", "nonsense", "gone"] {
        let file = model.join("denoiser.safetensors");
        let whole = std::fs::read(&file).unwrap();
        // Replaced, not written into: what serves has the old file mapped.
        std::fs::remove_file(&file).unwrap();
        match damage {
            "truncated" => std::fs::write(&file, &whole[..whole.len() / 2]).unwrap(),
            "nonsense" => std::fs::write(&file, [0xff; 64]).unwrap(),
            _ => {}
        }
        let error = server.client.load_deployment(LoadRequest::new(SMARTEDIT)).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::FailedPrecondition), "{damage}: {error}");
        assert!(!error.to_string().contains(place.path().to_str().unwrap()), "{damage}: {error}");
        server.still_serves().await;
        assert_eq!(server.client.edit(request(1)).await.unwrap().deployment_version, 1, "{damage}");
        assert_eq!(server.client.deployments().await.unwrap().len(), 2, "{damage}: nothing is left of it");
        std::fs::write(&file, whole).unwrap();
    }
    let mended = server.client.load_deployment(LoadRequest::new(SMARTEDIT)).await.unwrap();
    assert_eq!((mended.version, mended.state), (5, DeploymentState::Ready));
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unloaded_is_gone_and_can_come_back() {
    let mut server = Running::start_with(changeable()).await;
    server.client.unload_deployment(SMARTEDIT, None).await.unwrap();
    assert_eq!(code(server.client.edit(request(1)).await), Code::NotFound);
    assert_eq!(get(server.http, "/readyz").await.0, 503, "the default one is gone");
    assert_eq!(code(server.client.unload_deployment(SMARTEDIT, None).await), Code::NotFound);
    server.client.edit(to(INSTRUCT_PIX2PIX)).await.unwrap();

    let load = |name: &str| RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() };
    let index = server.inference.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    let absent = index.into_inner().models.into_iter().find(|model| model.name == SMARTEDIT).unwrap();
    assert_eq!((absent.state.as_str(), absent.reason.as_str()), ("UNAVAILABLE", "unloaded"));
    server.inference.repository_model_load(load(SMARTEDIT)).await.unwrap();
    server.still_serves().await;
    assert_eq!(get(server.http, "/readyz").await.0, 200);
    let unknown = server.inference.repository_model_load(load("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unload =
        RepositoryModelUnloadRequest { model_name: INSTRUCT_PIX2PIX.to_owned(), ..Default::default() };
    server.inference.repository_model_unload(unload).await.unwrap();
    assert_eq!(code(server.client.edit(to(INSTRUCT_PIX2PIX)).await), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_names_are_checked() {
    let server = Running::start_with(changeable()).await;
    let with =
        |settings: &str| LoadRequest { settings: Some(settings.to_owned()), ..LoadRequest::new("new") };
    for (request, word) in [
        (with("model = 3"), "settings"),
        (with("model = \"/nowhere/at/all\""), "deployments.new.model"),
        (with("model = \"/nowhere/at/all\"\nengine = \"abacus\""), "deployments.new.engine"),
        (LoadRequest::new(""), "name"),
        (LoadRequest::new("a@1"), "name"),
    ] {
        let error = server.client.load_deployment(request).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::InvalidArgument), "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert!(!error.to_string().contains("nowhere"), "{error}");
    }
    assert_eq!(code(server.client.load_deployment(LoadRequest::new("nobody")).await), Code::NotFound);
    let added = with(&settings(&converted().instruct_pix2pix()));
    assert_eq!(server.client.load_deployment(added).await.unwrap().version, 1);
    assert_eq!(server.client.edit(to("new")).await.unwrap().deployment, "new");
    assert_eq!(
        code(server.client.reload_configuration().await),
        Code::FailedPrecondition,
        "there is no file"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_unless_the_configuration_allows_it() {
    let mut server = Running::start().await;
    assert_eq!(
        code(server.client.load_deployment(LoadRequest::new(SMARTEDIT)).await),
        Code::PermissionDenied
    );
    assert_eq!(code(server.client.unload_deployment(SMARTEDIT, None).await), Code::PermissionDenied);
    assert_eq!(code(server.client.reload_configuration().await), Code::PermissionDenied);
    let unload = RepositoryModelUnloadRequest { model_name: SMARTEDIT.to_owned(), ..Default::default() };
    let refused = server.inference.repository_model_unload(unload).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    server.still_serves().await;
}
