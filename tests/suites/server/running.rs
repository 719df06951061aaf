//! A server of the pack's models on a loopback port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use smartedit_client::{Client, Deployment, EditOptions, EditRequest, Resize, RetryPolicy};
use smartedit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use smartedit_proto::v1;
use smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient;
use smartedit_server::config::DeploymentConfig;
use smartedit_server::deployment::Loader;
use smartedit_server::{Config, Server};
use smartedit_tests::golden::converted;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// The deployment of the pack's SmartEdit model, the default one.
pub(crate) const SMARTEDIT: &str = "smartedit";

/// The deployment of the pack's InstructPix2Pix model.
pub(crate) const INSTRUCT_PIX2PIX: &str = "instruct-pix2pix";

/// A server of two deployments that serves until it is dropped.
pub(crate) struct Running {
    /// The typed client, without retries.
    pub(crate) client: Client,
    /// The generated client, for requests that the typed one cannot make.
    pub(crate) raw: SmartEditServiceClient<Channel>,
    /// The generated client of the Open Inference Protocol.
    pub(crate) inference: GrpcInferenceServiceClient<Channel>,
    /// Where gRPC is served.
    pub(crate) grpc: SocketAddr,
    /// Where HTTP is served.
    pub(crate) http: SocketAddr,
    serving: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let deployments: Vec<_> = config.deployments.keys().cloned().collect();
        Self::serve(Server::bind(config).await.unwrap(), deployments).await
    }

    /// A server of which only these deployments need become ready.
    pub(crate) async fn start_ready<const N: usize>(config: Config, ready: [&str; N]) -> Self {
        Self::serve(Server::bind(config).await.unwrap(), ready.map(str::to_owned)).await
    }

    /// A server whose models come from this loader.
    pub(crate) async fn start_on(loader: Arc<dyn Loader>) -> Self {
        Self::start_with_loader(config(), loader).await
    }

    pub(crate) async fn start_with_loader(config: Config, loader: Arc<dyn Loader>) -> Self {
        let deployments: Vec<_> = config.deployments.keys().cloned().collect();
        Self::serve(Server::bind_with(config, loader).await.unwrap(), deployments).await
    }

    async fn serve(server: Server, deployments: impl IntoIterator<Item = String>) -> Self {
        for deployment in deployments {
            server.ready(&deployment).await.unwrap();
        }
        let grpc = server.local_addr();
        let address = grpc.to_string();
        let http = server.http_addr().unwrap();
        let serving = tokio::spawn(async move {
            server.serve().await.unwrap();
        });
        let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        let client = Client::builder(address.clone()).retry(once).connect().await.unwrap();
        let raw = SmartEditServiceClient::connect(format!("http://{address}")).await.unwrap();
        let inference = GrpcInferenceServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, raw, inference, grpc, http, serving }
    }

    /// Makes sure that a usual edit comes out right.
    pub(crate) async fn still_serves(&self) {
        let edited = self.client.edit(request(1)).await.unwrap();
        let picture = decoded(&edited.image);
        assert_eq!(picture.dimensions(), (64, 64));
    }

    /// Waits until the default deployment works on nothing and nothing waits for it.
    pub(crate) async fn idle(&self) {
        self.idle_at("").await;
    }

    /// Waits until a deployment works on nothing and nothing waits for it.
    pub(crate) async fn idle_at(&self, deployment: &str) {
        self.until_at(deployment, "nothing is to do", |found| (found.queued, found.running) == (0, 0)).await;
    }

    /// Waits until this is so of the default deployment.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Deployment) -> bool) {
        self.until_at("", what, so).await;
    }

    /// Waits until this is so of a deployment. The time only ends a test that would hang.
    async fn until_at(&self, deployment: &str, what: &str, so: impl Fn(&Deployment) -> bool) {
        let asking = async {
            while !so(&self.client.deployment(deployment).await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        let answered = tokio::time::timeout(Duration::from_secs(120), asking).await;
        assert!(answered.is_ok(), "never: {what}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Both models, one edit at a time, on any free port.
pub(crate) fn config() -> Config {
    let models = [(SMARTEDIT, converted().smartedit()), (INSTRUCT_PIX2PIX, converted().instruct_pix2pix())];
    let alone = |model| DeploymentConfig {
        instances: 1,
        max_batch: 1,
        warm_up: false,
        ..DeploymentConfig::new(model)
    };
    let deployments: BTreeMap<_, _> =
        models.into_iter().map(|(name, model)| (name.to_owned(), alone(model))).collect();
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        default_deployment: Some(SMARTEDIT.to_owned()),
        deployments,
        ..Config::default()
    }
}

/// A small edit of so many steps.
pub(crate) fn request(steps: u32) -> EditRequest {
    let options = EditOptions {
        seed: Some(7),
        steps: Some(steps),
        resize: Resize::Stretch(64, 64),
        ..EditOptions::default()
    };
    EditRequest { options, ..EditRequest::new(png(&gradient(48, 40)), "Change the left cat to a fox") }
}

/// [`request`] as it travels.
pub(crate) fn message(steps: u32) -> v1::EditRequest {
    let EditRequest { image, instruction, options, .. } = request(steps);
    v1::EditRequest { image, instruction, deployment: String::new(), options: Some(options.into()) }
}

/// A message of the unary call as one of the streaming call.
pub(crate) fn streaming(message: v1::EditRequest) -> v1::EditStreamRequest {
    let v1::EditRequest { image, instruction, deployment, options } = message;
    v1::EditStreamRequest { image, instruction, deployment, options }
}

/// A picture in which no two regions are alike.
pub(crate) fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let share = |part: u32, whole: u32| (255 * part / whole) as u8;
        Rgb([share(x, width), share(y, height), share(x + y, width + height)])
    })
}

/// A picture as a PNG file.
pub(crate) fn png(picture: &RgbImage) -> Bytes {
    file(picture, ImageFormat::Png)
}

/// A picture as a file.
pub(crate) fn file(picture: &RgbImage, format: ImageFormat) -> Bytes {
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner().into()
}

/// The picture in a file.
#[track_caller]
pub(crate) fn decoded(file: &[u8]) -> RgbImage {
    smartedit_core::picture::decode(file, &smartedit_core::picture::DecodeOptions::default()).unwrap()
}
