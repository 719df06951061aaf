//! Requests, as they come out of the connection.

use std::sync::{Arc, OnceLock};

use prost::Message;
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::{EditError, EditRequest};
use smartedit_core::stage::{Session, Stage, StageError, StageInfo, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_proto::inference::ModelInferRequest;
use smartedit_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use smartedit_proto::v1;
use smartedit_proto::v1::smart_edit_service_server::SmartEditService;
use smartedit_server::Config;
use smartedit_server::config::{DeploymentConfig, Limits};
use smartedit_server::deployment::{Deployments, Loader, NotLoaded, PlacedStage};
use smartedit_server::security::Access;
use smartedit_server::service::{Inference, Service};
use smartedit_server::work::{Editing, Editor, StepsDone};
use tokio::runtime::{Builder, Runtime};
use tonic::{Request, Status};
use tonic_types::StatusExt;

/// A request for an edit: all of it is checked, and its picture is decoded; no stage is run.
pub fn request(content: &[u8]) {
    let Ok(message) = v1::EditRequest::decode(content) else { return };
    let Answering { runtime, service, .. } = answering();
    answered(runtime.block_on(service.edit(asked(message))));
}

/// A request of the Open Inference Protocol.
pub fn tensors(content: &[u8]) {
    let Ok(message) = ModelInferRequest::decode(content) else { return };
    let Answering { runtime, inference, .. } = answering();
    answered(runtime.block_on(inference.model_infer(asked(message))));
}

/// A request of somebody who may do everything.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Access::anybody(None));
    request
}

/// Makes sure that nothing went wrong inside: threads of the server survive their panics.
fn answered<T>(outcome: Result<T, Status>) {
    let Err(status) = outcome else { return };
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert!(!matches!(reason, None | Some("INTERNAL")), "{status:?}");
}

/// A server without connections, of a model without weights.
struct Answering {
    runtime: Runtime,
    service: Service,
    inference: Inference,
}

fn answering() -> &'static Answering {
    static ANSWERING: OnceLock<Answering> = OnceLock::new();
    ANSWERING.get_or_init(|| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        let service = runtime.block_on(async {
            let limits = Limits { max_image_pixels: 1 << 18, ..Limits::default() };
            let deployment =
                DeploymentConfig { instances: 1, warm_up: false, ..DeploymentConfig::new("model") };
            let deployments = [("d".to_owned(), deployment)].into();
            let config = Config { limits, deployments, ..Config::default() };
            let loader: Arc<dyn Loader> = Arc::new(Weightless);
            let service = Service::new(config.clone(), Deployments::start(&config, &loader));
            let deployment = service.deployments().get("d").expect("it is the only one");
            deployment.loaded().await.expect("nothing is loaded");
            service
        });
        Answering { inference: Inference::new(service.clone()), runtime, service }
    })
}

/// Loads the model that ships, without its weights.
struct Weightless;

impl Loader for Weightless {
    fn load(&self, _: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let config = include_str!("../../../models/tiny-random/model.json");
        let config: ModelConfig = serde_json::from_str(config).expect("it is a model's");
        Ok(Arc::new(Model { config }))
    }
}

struct Model {
    config: ModelConfig,
}

impl Editor for Model {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn stages(&self) -> &[PlacedStage] {
        &[]
    }

    fn stage(&self, kind: StageKind) -> Option<Arc<dyn Stage>> {
        let info = StageInfo {
            kind,
            engine: "none",
            device: "cpu".to_owned(),
            precision: Default::default(),
            provider: None,
            weight_bytes: 0,
        };
        Some(Arc::new(Nothing { info }))
    }

    fn edit(self: Arc<Self>, _: EditRequest) -> Result<Box<dyn Editing>, EditError> {
        Err(EditError::Invalid { field: "image", message: "is edited by no model".to_owned() })
    }

    fn step_together(&self, _: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError> {
        Err(StageError::Foreign { stage: StageKind::Denoiser })
    }
}

/// A stage that computes nothing.
struct Nothing {
    info: StageInfo,
}

impl Stage for Nothing {
    fn info(&self) -> &StageInfo {
        &self.info
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(Still(self.info.kind))
    }
}

struct Still(StageKind);

impl Session for Still {
    fn run(&mut self, _: &Tensors) -> Result<Tensors, StageError> {
        Err(StageError::NotFinite { stage: self.0, output: "none".to_owned(), count: 0 })
    }
}
