//! `smartedit.v1.SmartEditService`, and [`Inference`] beside it.

mod admin;
mod admission;
mod caller;
mod compare;
mod deadline;
mod describe;
mod edit;
mod inference;
mod messages;
mod reload;
mod routing;
mod shadow;
mod trace;
mod validate;
mod visible;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use smartedit_proto::v1;
use smartedit_proto::v1::smart_edit_service_server::SmartEditService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::config::{Config, Source};
use crate::deployment::Deployments;
use crate::metrics::Metrics;
use crate::route::Routes;
use crate::security::{Access, Security};
use crate::status::status;
use crate::work::Requests;

pub use admin::Admin;
pub use admission::AdmissionLayer;
pub use deadline::{Arrival, DeadlineLayer};
pub(crate) use edit::Order;
pub use inference::Inference;
pub use reload::{Reloaded, Reloader};
pub(crate) use routing::{DEPLOYMENT, Destination, Hints};
pub use trace::Trace;

/// The service; cloning shares its state.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    config: Config,
    /// What the configuration is read from anew.
    source: OnceLock<Box<Source>>,
    /// Held by whoever makes the server what a configuration says.
    reloading: tokio::sync::Mutex<()>,
    security: OnceLock<Security>,
    deployments: Deployments,
    routes: Routes,
    metrics: Metrics,
    requests: Requests,
    /// Edits that routes' shadows make; nobody waits for them.
    shadows: Requests,
    /// Cancelled when edits are refused.
    closing: CancellationToken,
    /// Whether load balancers are told to go elsewhere.
    leaving: AtomicBool,
    accepting: AtomicBool,
    /// Kibibytes that comparisons may still hold on to.
    compare_kib: Arc<Semaphore>,
}

impl Service {
    /// A service of these deployments.
    pub fn new(config: Config, deployments: Deployments) -> Self {
        let metrics = Metrics::new(deployments.clone());
        let compare_kib = Arc::new(Semaphore::new(config.limits.max_compare_bytes / 1024));
        Self(Arc::new(Shared {
            routes: Routes::new(&config.routes),
            config,
            source: OnceLock::new(),
            reloading: tokio::sync::Mutex::default(),
            security: OnceLock::new(),
            deployments,
            metrics,
            requests: Requests::default(),
            leaving: AtomicBool::new(false),
            shadows: Requests::default(),
            closing: CancellationToken::new(),
            accepting: AtomicBool::new(true),
            compare_kib,
        }))
    }

    /// What is configured.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Says what the configuration is read from anew; the first time it is said counts.
    pub fn set_source(&self, source: Box<Source>) {
        let _ = self.0.source.set(source);
    }

    /// Says what is made anew, too, when the configuration is read again; the first time it is said counts.
    pub fn set_security(&self, security: Security) {
        let _ = self.0.security.set(security);
    }

    /// The deployments.
    pub fn deployments(&self) -> &Deployments {
        &self.0.deployments
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The requests being waited for or worked on.
    pub fn requests(&self) -> &Requests {
        &self.0.requests
    }

    /// Is no longer ready from now on, though it goes on taking edits.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// Refuses new edits from now on, and stops those that nobody waits for.
    pub fn refuse(&self) {
        self.0.accepting.store(false, Ordering::SeqCst);
        self.stop_shadows();
    }

    fn is_accepting(&self) -> bool {
        self.0.accepting.load(Ordering::SeqCst)
    }
}

#[tonic::async_trait]
impl SmartEditService for Service {
    type EditStreamStream = edit::EventStream;
    type CompareStream = compare::EventStream;

    async fn edit(&self, request: Request<v1::EditRequest>) -> Result<Response<v1::EditResponse>, Status> {
        let (arrival, access) = (Arrival::of(&request), Access::of(request.extensions()));
        let hints = Hints::of(request.metadata().as_ref());
        let v1::EditRequest { image, instruction, deployment: name, options } = request.into_inner();
        let (options, destination) = (options.unwrap_or_default(), Destination::Named { name, hints });
        let order = edit::Order { image, instruction, destination, options, access };
        self.submit(order, arrival).map_err(|refused| refused.status())?.result().await
    }

    async fn edit_stream(
        &self,
        request: Request<v1::EditStreamRequest>,
    ) -> Result<Response<Self::EditStreamStream>, Status> {
        let (arrival, access) = (Arrival::of(&request), Access::of(request.extensions()));
        let hints = Hints::of(request.metadata().as_ref());
        let v1::EditStreamRequest { image, instruction, deployment: name, options } = request.into_inner();
        let (options, destination) = (options.unwrap_or_default(), Destination::Named { name, hints });
        let order = edit::Order { image, instruction, destination, options, access };
        Ok(self.submit(order, arrival).map_err(|refused| refused.status())?.stream())
    }

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<Self::CompareStream>, Status> {
        let (arrival, access) = (Arrival::of(&request), Access::of(request.extensions()));
        self.begin_comparison(request.into_inner(), arrival, access)
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Result<Response<v1::ListDeploymentsResponse>, Status> {
        let access = Access::of(request.extensions());
        let deployments = self.visible(&access);
        let deployments = deployments.iter().map(|deployment| self.describe(deployment, &access)).collect();
        Ok(Response::new(v1::ListDeploymentsResponse { deployments }))
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Result<Response<v1::GetDeploymentResponse>, Status> {
        let access = Access::of(request.extensions());
        let found = self.find(&request.get_ref().name, &access);
        let deployment = found.map_err(|failure| status(&failure, None))?;
        let deployment = Some(self.describe(&deployment, &access));
        Ok(Response::new(v1::GetDeploymentResponse { deployment }))
    }
}
