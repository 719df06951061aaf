//! `inference.GRPCInferenceService`: the Open Inference Protocol over deployments and their stages.
//!
//! Every deployment is a model from an image and an instruction to an image, and every stage of it is a model of
//! named tensors, called `DEPLOYMENT/STAGE`. [`catalog`] finds models, [`read`] checks requests against them,
//! [`infer`] computes, [`mod@write`] makes the answers.

mod catalog;
mod describe;
mod edit;
mod infer;
mod parameters;
mod read;
mod repository;
mod stage;
mod statistics;
mod stream;
mod write;

use std::sync::Arc;

use smartedit_proto::inference as oip;
use smartedit_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use tonic::{Request, Response, Status, Streaming};

use self::statistics::Statistics;
use self::stream::Call;
use super::admission::Permit;
use super::{Arrival, Hints, Service};
use crate::failure::Failure;
use crate::security::Access;
use crate::status::status;

/// The protocol's server; cloning shares its state.
#[derive(Clone)]
pub struct Inference {
    service: Service,
    statistics: Arc<Statistics>,
}

impl Inference {
    /// The deployments of a service, over this protocol.
    pub fn new(service: Service) -> Self {
        Self { service, statistics: Arc::default() }
    }
}

fn answer<T>(outcome: Result<T, Failure>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|failure| status(&failure, None))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = stream::Responses;

    async fn server_live(
        &self,
        _: Request<oip::ServerLiveRequest>,
    ) -> Result<Response<oip::ServerLiveResponse>, Status> {
        Ok(Response::new(oip::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<oip::ServerReadyRequest>,
    ) -> Result<Response<oip::ServerReadyResponse>, Status> {
        Ok(Response::new(oip::ServerReadyResponse { ready: self.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<oip::ModelReadyRequest>,
    ) -> Result<Response<oip::ModelReadyResponse>, Status> {
        let access = Access::of(request.extensions());
        let oip::ModelReadyRequest { name, version } = request.into_inner();
        answer(self.is_model_ready(&name, &version, &access).map(|ready| oip::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<oip::ServerMetadataRequest>,
    ) -> Result<Response<oip::ServerMetadataResponse>, Status> {
        Ok(Response::new(describe::server()))
    }

    async fn model_metadata(
        &self,
        request: Request<oip::ModelMetadataRequest>,
    ) -> Result<Response<oip::ModelMetadataResponse>, Status> {
        let access = Access::of(request.extensions());
        let oip::ModelMetadataRequest { name, version } = request.into_inner();
        answer(self.model(&name, &version, &access).map(|model| model.metadata()))
    }

    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Result<Response<oip::ModelInferResponse>, Status> {
        let (arrival, access) = (Arrival::of(&request), Access::of(request.extensions()));
        let hints = Hints::of(request.metadata().as_ref());
        self.clone().infer(request.into_inner(), arrival, access, hints).await.map(Response::new)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<oip::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (arrival, access) = (Arrival::of(&request), Access::of(request.extensions()));
        let permit = request.extensions().get::<Permit>().cloned();
        let fails_as_a_whole = stream::fails_as_a_whole(request.metadata());
        let call = Call { arrival, access, hints: Hints::of(request.metadata().as_ref()), fails_as_a_whole };
        Ok(Response::new(self.clone().responses(request.into_inner(), call, permit)))
    }

    async fn model_config(
        &self,
        request: Request<oip::ModelConfigRequest>,
    ) -> Result<Response<oip::ModelConfigResponse>, Status> {
        let access = Access::of(request.extensions());
        let oip::ModelConfigRequest { name, version } = request.into_inner();
        answer(self.model(&name, &version, &access).map(|model| {
            let instances = model.deployment.config().instances;
            oip::ModelConfigResponse { config: Some(model.config(instances)) }
        }))
    }

    async fn model_statistics(
        &self,
        request: Request<oip::ModelStatisticsRequest>,
    ) -> Result<Response<oip::ModelStatisticsResponse>, Status> {
        let access = Access::of(request.extensions());
        let oip::ModelStatisticsRequest { name, version } = request.into_inner();
        let models = match name.is_empty() {
            true => Ok(self.ready_models(&access)),
            false => self.model(&name, &version, &access).map(|model| vec![model]),
        };
        answer(models.map(|models| {
            let message = |model: &catalog::Model| {
                self.statistics.of(model).message(&model.contract.name, model.version())
            };
            oip::ModelStatisticsResponse { model_stats: models.iter().map(message).collect() }
        }))
    }

    async fn repository_index(
        &self,
        request: Request<oip::RepositoryIndexRequest>,
    ) -> Result<Response<oip::RepositoryIndexResponse>, Status> {
        let access = Access::of(request.extensions());
        let oip::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        if !repository_name.is_empty() {
            let message = "'repository_name' specification is not supported: there is one repository";
            return answer(Err(Failure::Unsupported(message.to_owned())));
        }
        Ok(Response::new(oip::RepositoryIndexResponse { models: self.index(ready, &access) }))
    }

    async fn repository_model_load(
        &self,
        request: Request<oip::RepositoryModelLoadRequest>,
    ) -> Result<Response<oip::RepositoryModelLoadResponse>, Status> {
        let loaded = self.load(request.into_inner()).await;
        answer(loaded.map(|()| oip::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<oip::RepositoryModelUnloadRequest>,
    ) -> Result<Response<oip::RepositoryModelUnloadResponse>, Status> {
        let unloaded = self.unload(request.into_inner()).await;
        answer(unloaded.map(|()| oip::RepositoryModelUnloadResponse {}))
    }
}
