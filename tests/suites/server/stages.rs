//! A stage that fails, panics or hangs: whose edit ends, whose do not, and that the workers go on.

use smartedit_client::{Code, EditRequest, Edited, Error};
use smartedit_core::stage::StageKind;
use smartedit_server::Config;
use smartedit_server::config::{CacheConfig, DeploymentConfig};
use smartedit_tests::tolerance::Identical;
use tonic::Status;

use crate::faults::{Fault, Faults, SECRET};
use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, config, decoded, message, request, streaming};

const NOTHING_KEPT: CacheConfig = CacheConfig { max_bytes: 0, max_prefix_bytes: 0 };

/// The stages of each deployment's model that an edit runs.
const STAGES: [(&str, &[StageKind]); 2] = [
    (
        SMARTEDIT,
        &[
            StageKind::VisionEncoder,
            StageKind::LanguageModel,
            StageKind::Connector,
            StageKind::VaeEncoder,
            StageKind::Denoiser,
            StageKind::VaeDecoder,
        ],
    ),
    (
        INSTRUCT_PIX2PIX,
        &[StageKind::TextEncoder, StageKind::VaeEncoder, StageKind::Denoiser, StageKind::VaeDecoder],
    ),
];

/// Both models, whose edits share runs of the denoiser.
fn sharing() -> Config {
    let mut config = config();
    for deployment in config.deployments.values_mut() {
        *deployment = DeploymentConfig::new(&deployment.model);
    }
    config
}

async fn start(faults: &Faults, cache: CacheConfig) -> Running {
    Running::start_with_loader(sharing(), faults.loader(cache)).await
}

fn on(deployment: &str) -> EditRequest {
    EditRequest { deployment: Some(deployment.to_owned()), ..request(3) }
}

/// Three equal edits at the same time.
async fn three(server: &Running, deployment: &str) -> [Result<Edited, Error>; 3] {
    let edit = || server.client.edit(on(deployment));
    <[_; 3]>::from(tokio::join!(edit(), edit(), edit()))
}

/// Makes sure that each stage's fault fails one of three edits and changes nothing of the others.
async fn fails_one_alone(fault: Fault, cache: CacheConfig) {
    for (deployment, stages) in STAGES {
        for &kind in stages {
            let faults = Faults::default();
            let server = start(&faults, cache).await;
            faults.arm(kind, fault);
            let outcomes = three(&server, deployment).await;
            assert!(faults.disarm(), "{deployment}: the {kind} was run");
            let what = format!("{deployment}: {fault:?} in the {kind}");
            let (good, bad): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
            assert_eq!(bad.len(), 1, "{what}: {bad:?}");
            for error in bad.into_iter().filter_map(Result::err) {
                assert_eq!(error.code(), Some(Code::Internal), "{what}");
                assert!(!error.to_string().contains(SECRET), "{what}: {error}");
            }
            server.idle_at(deployment).await;
            let alone = decoded(&server.client.edit(on(deployment)).await.unwrap().image);
            let shape = [alone.height() as usize, alone.width() as usize, 3];
            let alone = ndarray::ArrayView3::from_shape(shape, alone.as_raw()).unwrap();
            for edited in good.into_iter().flatten() {
                Identical::Nearly.check(&what, &decoded(&edited.image), alone.into_dyn());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_any_stage_fails_its_own_edit_alone() {
    fails_one_alone(Fault::Error, NOTHING_KEPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_any_stage_fails_its_own_edit_alone() {
    fails_one_alone(Fault::Panic, NOTHING_KEPT).await;
}

/// Of equal edits one computes what the others wait for.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_result_that_panics_computes_it() {
    fails_one_alone(Fault::Panic, CacheConfig::default()).await;
}

/// How an edit ends whose deadline only the header tells: the generated client's own timer ends with the answer's
/// beginning.
async fn late(server: &Running, deployment: &str, seconds: u32) -> Status {
    let mut request = tonic::Request::new(streaming(message(3)));
    request.get_mut().deployment = deployment.to_owned();
    request.metadata_mut().insert("grpc-timeout", format!("{seconds}S").parse().unwrap());
    let mut events = match server.raw.clone().edit_stream(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "the stream ended well"),
            Err(status) => return status,
        }
    }
}

/// Makes sure that a deadline ends the call while the stage still runs, and that nothing is run after that stage.
async fn a_deadline_passes_in(deployment: &'static str, kind: StageKind) {
    let faults = Faults::default();
    let server = start(&faults, NOTHING_KEPT).await;
    faults.arm(kind, Fault::Hang);
    // On a busy machine the edit may come to the stage only with more time.
    for seconds in [3, 12, 48] {
        let status = late(&server, deployment, seconds).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{deployment}: {kind}: {status}");
        if faults.is_hanging() {
            break;
        }
        server.idle_at(deployment).await;
    }
    assert!(faults.is_hanging(), "{deployment}: the {kind} is run");
    let runs = faults.runs();
    faults.disarm();
    server.idle_at(deployment).await;
    assert_eq!(faults.runs(), runs, "{deployment}: nothing is run after the {kind}");
    server.client.edit(on(deployment)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_any_stage_ends_the_edit_with_that_stage() {
    let cases = STAGES
        .into_iter()
        .flat_map(|(deployment, stages)| stages.iter().map(move |kind| (deployment, *kind)));
    let cases: Vec<_> =
        cases.map(|(deployment, kind)| tokio::spawn(a_deadline_passes_in(deployment, kind))).collect();
    for case in cases {
        case.await.unwrap();
    }
}
