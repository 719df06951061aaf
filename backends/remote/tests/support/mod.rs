//! A server of the Open Inference Protocol that does what a test says, and stages on it.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use ndarray::Array4;
use smartedit_core::model::{ModelDirectory, NetworkConfig};
use smartedit_core::stage::{Backend, LoadError, Remote, Stage, StageError, StageKind, StageOptions};
use smartedit_core::tensor::Tensors;
use smartedit_proto::inference as oip;
use smartedit_proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use smartedit_proto::inference::model_infer_response::InferOutputTensor;
use smartedit_proto::inference::model_metadata_response::TensorMetadata;
use smartedit_remote::RemoteBackend;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::ServerTlsConfig;
use tonic::{Request, Response, Status};

/// What the server does with a call.
pub(crate) enum Act {
    Answer,
    Refuse(Status),
    Hang,
}

/// What the server saw.
pub(crate) struct Seen {
    pub(crate) request: oip::ModelInferRequest,
    pub(crate) timeout: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// A VAE decoder that answers with zeros, typed as it was asked.
pub(crate) struct Fake {
    pub(crate) metadata: oip::ModelMetadataResponse,
    pub(crate) config: Result<oip::ModelConfig, Status>,
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    reached: SyncSender<()>,
    left: SyncSender<()>,
}

/// The server, which ends when it is dropped.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    reached: Mutex<Receiver<()>>,
    left: Mutex<Receiver<()>>,
}

impl Server {
    pub(crate) fn new(acts: Vec<Act>) -> Self {
        Self::with(acts, |_| ())
    }

    pub(crate) fn with(acts: Vec<Act>, change: impl FnOnce(&mut Fake)) -> Self {
        Self::listening(SocketAddr::from(([127, 0, 0, 1], 0)), None, acts, change)
    }

    pub(crate) fn listening(
        address: SocketAddr,
        tls: Option<ServerTlsConfig>,
        acts: Vec<Act>,
        change: impl FnOnce(&mut Fake),
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (reached, was_reached) = sync_channel(8);
        let (left, was_left) = sync_channel(8);
        let config = Err(Status::unimplemented("ModelConfig"));
        let (acts, seen) = (Mutex::new(acts.into()), Mutex::default());
        let mut fake = Fake { metadata: metadata(), config, acts, seen, reached, left };
        change(&mut fake);
        let fake = Arc::new(fake);
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let service = GrpcInferenceServiceServer::new(Serving(fake.clone()));
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serving = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        Self {
            runtime: Some(runtime),
            address,
            fake,
            reached: Mutex::new(was_reached),
            left: Mutex::new(was_left),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote::new(self.url(), "decoder")
    }

    /// The stage on this server.
    pub(crate) fn stage(&self) -> Arc<dyn Stage> {
        load(self.remote()).unwrap()
    }

    /// Waits until a call hangs.
    pub(crate) fn hangs(&self) {
        self.reached.lock().unwrap().recv().unwrap();
    }

    /// Waits until a call that hung is given up by whoever made it.
    pub(crate) fn is_left(&self) {
        self.left.lock().unwrap().recv().unwrap();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.fake.seen.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A port where nobody listens.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn metadata() -> oip::ModelMetadataResponse {
    let tensor = |name: &str, channels| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![-1, channels, -1, -1],
    };
    oip::ModelMetadataResponse {
        name: "decoder".to_owned(),
        platform: "test".to_owned(),
        inputs: vec![tensor("latents", 4)],
        outputs: vec![tensor("image", 3)],
        ..oip::ModelMetadataResponse::default()
    }
}

/// The decoder of the shipped model on another server.
pub(crate) fn load(remote: Remote) -> Result<Arc<dyn Stage>, LoadError> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-random");
    let directory = ModelDirectory::open(&directory).unwrap();
    let kind = StageKind::VaeDecoder;
    let network: NetworkConfig = directory.config().stages[&kind].network.clone();
    let weights = directory.stage_weights(kind).unwrap().unwrap();
    let options = StageOptions { remote: Some(remote), ..StageOptions::default() };
    RemoteBackend::new().load(&network, &weights, &options)
}

/// Runs the stage on so many pictures of latents.
pub(crate) fn run(stage: &dyn Stage, rows: usize) -> Result<Tensors, StageError> {
    stage.session().run(&Tensors::new().with("latents", Array4::<f32>::zeros((rows, 4, 2, 1))))
}

impl Fake {
    async fn infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Result<oip::ModelInferResponse, Status> {
        let text = |name| Some(request.metadata().get(name)?.to_str().unwrap().to_owned());
        let (timeout, authorization) = (text("grpc-timeout"), text("authorization"));
        let request = request.into_inner();
        let answer = zeros(&request);
        self.seen.lock().unwrap().push(Seen { request, timeout, authorization });
        let act = self.acts.lock().unwrap().pop_front();
        match act.unwrap_or(Act::Answer) {
            Act::Answer => Ok(answer),
            Act::Refuse(status) => Err(status),
            Act::Hang => {
                struct Left(SyncSender<()>);

                impl Drop for Left {
                    fn drop(&mut self) {
                        let _ = self.0.try_send(());
                    }
                }

                let _left = Left(self.left.clone());
                let _ = self.reached.try_send(());
                std::future::pending().await
            }
        }
    }
}

fn zeros(request: &oip::ModelInferRequest) -> oip::ModelInferResponse {
    let shape = &request.inputs[0].shape;
    let shape = vec![shape[0], 3, 8 * shape[2], 8 * shape[3]];
    let count = shape.iter().product::<i64>() as usize;
    let mut output = InferOutputTensor {
        name: "image".to_owned(),
        datatype: "FP32".to_owned(),
        shape,
        ..InferOutputTensor::default()
    };
    let mut response = oip::ModelInferResponse::default();
    match request.raw_input_contents.is_empty() {
        true => {
            output.contents =
                Some(oip::InferTensorContents { fp32_contents: vec![0.0; count], ..Default::default() });
        }
        false => response.raw_output_contents.push(vec![0; 4 * count].into()),
    }
    response.outputs.push(output);
    response
}

struct Serving(Arc<Fake>);

type Answers =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<oip::ModelStreamInferResponse, Status>> + Send>>;

/// The service: its own methods, and those that the engine does not call.
macro_rules! service {
    ({ $($own:tt)* } $($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Serving {
            $($own)*

            $(async fn $name(&self, _: Request<oip::$request>) -> Result<Response<oip::$response>, Status> {
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

service! {
    {
    type ModelStreamInferStream = Answers;

    async fn model_metadata(
        &self,
        _: Request<oip::ModelMetadataRequest>,
    ) -> Result<Response<oip::ModelMetadataResponse>, Status> {
        Ok(Response::new(self.0.metadata.clone()))
    }

    async fn model_config(
        &self,
        _: Request<oip::ModelConfigRequest>,
    ) -> Result<Response<oip::ModelConfigResponse>, Status> {
        let config = Some(self.0.config.clone()?);
        Ok(Response::new(oip::ModelConfigResponse { config }))
    }

    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Result<Response<oip::ModelInferResponse>, Status> {
        self.0.infer(request).await.map(Response::new)
    }

    async fn model_stream_infer(
        &self,
        _: Request<tonic::Streaming<oip::ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("model_stream_infer"))
    }
    }

    server_live(ServerLiveRequest) -> ServerLiveResponse;
    server_ready(ServerReadyRequest) -> ServerReadyResponse;
    model_ready(ModelReadyRequest) -> ModelReadyResponse;
    server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
    model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
    repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
    repository_model_load(RepositoryModelLoadRequest) -> RepositoryModelLoadResponse;
    repository_model_unload(RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse;
}
