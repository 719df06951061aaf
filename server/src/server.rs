//! The server: bound to an address, serving, and shutting down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use smartedit_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use smartedit_proto::v1::admin_service_server::AdminServiceServer;
use smartedit_proto::v1::smart_edit_service_server::SmartEditServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::Layer;

use crate::config::{Config, ConfigError, Loaded, SourceError};
use crate::connections::{Connections, TransferLayer};
use crate::deployment::{Deployments, EngineLoader, Loader};
use crate::engines::Engines;
use crate::failure::Failure;
use crate::idle::release_when_idle;
use crate::metrics::{CallsLayer, Methods};
use crate::security::{Access, AccessLayer, Port, Secured, Security, SecurityError};
use crate::service::{Admin, AdmissionLayer, DeadlineLayer, Inference, Reloader, Service};
use crate::web::{self, Web};
use crate::work::StopReason;

/// The health service's name of the server's being alive: SERVING as long as anything answers.
pub const LIVE: &str = "live";

/// How long stopped edits and open connections get to end.
const GRACE: Duration = Duration::from_secs(5);

/// Window of a stream, so that uploads of megabytes need few round trips.
const STREAM_WINDOW: u32 = 1 << 20;

/// Window of a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Encryption or access cannot be set up.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The address for HTTP cannot be had.
    #[error(
        "cannot listen on {address} for HTTP; choose another with http.address, or set http.enabled = false"
    )]
    ListenHttp {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The descriptors of the services are damaged.
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Serving ended by itself.
    #[error("cannot go on serving")]
    Serve(#[from] tonic::transport::Error),
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every edit was finished.
    Drained,
    /// The time ran out; so many edits were stopped.
    Stopped(usize),
}

/// A server that is bound to an address. Deployments load; calls are answered once [`Server::serve`] runs. Dropped, or
/// with that future dropped, it stops its edits and lets go of its models.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    web: Option<Web>,
    open: Open,
    config: Config,
    security: Security,
    shutdown: Shutdown,
}

/// Makes a server shut down: refuse edits, finish those it has, end. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Begins to shut down.
    pub fn begin(&self) {
        self.0.cancel();
    }
}

/// A service whose edits are stopped and whose models are let go of when this is dropped.
struct Open(Service);

impl Drop for Open {
    fn drop(&mut self) {
        let Self(service) = self;
        service.refuse();
        stop(service);
        service.deployments().close();
    }
}

impl Server {
    /// Checks a configuration, binds its address and begins to load its deployments on the engines of this build.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, or why the address cannot be had.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let engines = Engines::configured(&config.engines);
        Loaded { config: config.clone(), ..Loaded::default() }.check(&engines)?;
        let loader = Arc::new(EngineLoader::new(engines, &config.cache).with_adapters(&config.adapters));
        Self::bind_with(config, loader).await
    }

    /// Binds a configuration's address and begins to load its deployments with a loader of one's own.
    ///
    /// # Errors
    ///
    /// [`StartError::Security`] if certificates or keys cannot be used, [`StartError::Listen`] and
    /// [`StartError::ListenHttp`] if an address cannot be had.
    pub async fn bind_with(config: Config, loader: Arc<dyn Loader>) -> Result<Self, StartError> {
        let security = Security::new(&config)?;
        let refused = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let web = match config.http_address() {
            Some(address) => {
                Some(Web::bind(address).await.map_err(|source| StartError::ListenHttp { address, source })?)
            }
            None => None,
        };
        let service = Service::new(config.clone(), Deployments::start(&config, &loader));
        service.set_security(security.clone());
        let open = Open(service);
        Ok(Self { listener, address, web, open, config, security, shutdown: Shutdown::default() })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address it is bound to for HTTP, if it serves that.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(Web::local_addr)
    }

    /// Encryption and access, which can be made anew while it serves.
    pub fn security(&self) -> Security {
        self.security.clone()
    }

    /// What makes it shut down.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Says what the configuration is read from anew; the first time it is said counts.
    #[must_use]
    pub fn with_source(
        self,
        source: impl Fn() -> Result<Config, SourceError> + Send + Sync + 'static,
    ) -> Self {
        self.open.0.set_source(Box::new(source));
        self
    }

    /// What makes it read its configuration again.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.open.0.clone())
    }

    /// Waits until a deployment (the default one, if the name is empty; of a route, the one with the largest share) has been
    /// loaded.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it could not be loaded.
    pub fn ready(&self, deployment: &str) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let found = self.open.0.find(deployment, &Access::anybody(None));
        async move { found?.loaded().await }
    }

    /// Serves until it is told to shut down and has done so.
    ///
    /// # Errors
    ///
    /// [`StartError::Reflection`] if the services cannot be described, [`StartError::Serve`] if serving breaks off.
    pub async fn serve(self) -> Result<Ended, StartError> {
        let Self { listener, address, web, open, config, security, shutdown } = self;
        let service = open.0.clone();
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, LIVE, true).await;
        ready(&health, service.ready().is_ok()).await;

        let limit = config.limits.max_message_bytes;
        let edits = SmartEditServiceServer::new(service.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let inference = GrpcInferenceServiceServer::new(Inference::new(service.clone()))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let admin = AdminServiceServer::new(Admin::new(service.clone()));
        let routes = Routes::new(edits)
            .add_service(inference)
            .add_service(admin)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let metrics = service.metrics().clone();
        let admission = AdmissionLayer::new(config.limits.max_concurrent, limit, metrics.clone());
        let access = AccessLayer::new(security.clone(), metrics.clone());
        let calls = CallsLayer::new(metrics, methods()?);
        let transfers = TransferLayer::new(&config.connections);
        let connections = Connections::grpc(&config.connections, service.metrics());
        // Told apart: over HTTP, probes are answered to the end.
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let http = web.map(|web| {
            let grpc = DeadlineLayer.layer(access.layer(admission.layer(routes.clone())));
            let grpc = GrpcWebLayer::new().layer(calls.layer(transfers.layer(grpc)));
            let router = web::router(&config, service.clone(), access.clone(), admission.clone(), grpc);
            let connections = Connections::http(&config.connections, service.metrics());
            web.serve(router, security.clone(), connections, closed.clone())
        });
        let connections =
            connections.guarded(Secured::new(listener, address, security, Port::Grpc).incoming());
        let http = async {
            if let Some(http) = http {
                http.await;
            }
            Ok(())
        };
        let mut grpc = tonic::transport::Server::builder();
        if let Some(age) = config.connections.max_age() {
            grpc = grpc.max_connection_age(age);
        }
        let grpc = grpc
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(config.connections.max_streams)
            .http2_max_pending_accept_reset_streams(Some(config.connections.max_streams as usize))
            .http2_keepalive_interval(Some(config.connections.keepalive()))
            .http2_keepalive_timeout(Some(config.connections.keepalive()))
            .layer(calls)
            .layer(transfers)
            .layer(DeadlineLayer)
            .layer(access)
            .layer(admission)
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, closing.clone().cancelled_owned());
        // Ends only with a failure: that connections have ended tells nothing of edits that go on without them.
        let served = CancellationToken::new();
        let failed = async {
            match tokio::try_join!(grpc, http) {
                Err(error) => error,
                Ok(_) => {
                    served.cancel();
                    std::future::pending().await
                }
            }
        };
        let mut failed = std::pin::pin!(failed);

        let draining = async {
            tokio::select! {
                () = shutdown.0.cancelled() => {}
                () = follow(&health, &service) => {}
            }
            let delay = config.drain.delay();
            service.leave();
            if delay.is_zero() {
                // Whoever has been told that the server is not ready finds that it refuses.
                service.refuse();
            }
            ready(&health, false).await;
            tracing::info!(delay_seconds = delay.as_secs_f64(), "not ready any more");
            tokio::time::sleep(delay).await;
            service.refuse();
            // Connections are told to go away; what has begun on them goes on.
            closing.cancel();
            drain(&service, config.drain.timeout()).await
        };
        let releasing = release_when_idle(service.requests(), || {
            let deployments = service.deployments().clone();
            let release = move || {
                deployments.release();
                tracing::debug!("memory is given back");
            };
            // It may take a while, and another time will do.
            drop(Builder::new().name("release".to_owned()).spawn(release));
        });
        let ended = tokio::select! {
            ended = draining => Ok(ended),
            error = &mut failed => Err(error),
            never = releasing => never,
        };
        drop(open);
        closing.cancel();
        closed.cancel();
        if ended.is_ok() {
            let closing = async {
                tokio::select! {
                    () = served.cancelled() => {}
                    _ = failed => {}
                }
            };
            if tokio::time::timeout(GRACE, closing).await.is_err() {
                tracing::info!("connections are still open; closing them");
            }
        }
        Ok(ended?)
    }
}

/// What describes the services.
const DESCRIPTORS: [&[u8]; 2] = [smartedit_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];

fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure();
    DESCRIPTORS.into_iter().fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
}

/// The methods whose calls are counted by name.
fn methods() -> Result<Methods, tonic_reflection::server::Error> {
    let own =
        [tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET];
    Ok(Methods::described(&[&DESCRIPTORS[..], &own].concat())?)
}

async fn report(health: &HealthReporter, name: &str, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status(name, status).await;
}

/// Readiness, of the server as a whole and of its services. A full queue does not end it.
async fn ready(health: &HealthReporter, serving: bool) {
    report(health, "", serving).await;
    report(health, SmartEditServiceServer::<Service>::NAME, serving).await;
    report(health, GrpcInferenceServiceServer::<Inference>::NAME, serving).await;
}

/// Keeps readiness true to the states of deployments, and to the routes; never ends.
async fn follow(health: &HealthReporter, service: &Service) {
    let (mut deployments, mut routes) = (service.deployments().changes(), service.routes().watch());
    loop {
        deployments.mark_unchanged();
        routes.mark_unchanged();
        ready(health, service.ready().is_ok()).await;
        // The senders are the service's own: they are not gone.
        tokio::select! {
            _ = deployments.changed() => {}
            _ = routes.changed() => {}
        }
    }
}

/// Lets the edits there are finish, and stops what is left when the time has run out.
async fn drain(service: &Service, timeout: Duration) -> Ended {
    let requests = service.requests();
    tracing::info!(edits = requests.len(), timeout_seconds = timeout.as_secs_f64(), "shutting down");
    if tokio::time::timeout(timeout, requests.idle()).await.is_ok() {
        tracing::info!("every edit is finished");
        return Ended::Drained;
    }
    let stopped = requests.len();
    tracing::warn!(edits = stopped, "the time to finish ran out; stopping what is left");
    stop(service);
    let _ = tokio::time::timeout(GRACE, requests.idle()).await;
    Ended::Stopped(stopped)
}

/// Stops every edit.
fn stop(service: &Service) {
    service.requests().stop_all(StopReason::ShuttingDown);
    service.deployments().all().iter().for_each(|deployment| deployment.queue().prune());
}

#[cfg(test)]
pub(crate) mod tests;
