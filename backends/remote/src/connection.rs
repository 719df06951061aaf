//! The way to a model of another server.

use std::path::Path;
use std::time::Duration;

use smartedit_core::interest::Interests;
use smartedit_core::stage::Remote;
use smartedit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use smartedit_proto::inference::{
    ModelConfig, ModelConfigRequest, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse,
};
use tokio::time::Instant;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use crate::failure::CallError;
use crate::retry::RetryPolicy;
use crate::trace;

/// After how long without a byte the other end is asked whether it is still there, and then how often, by TCP: servers of
/// gRPC's C library hang up on those who ask by HTTP/2.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// The way to a model of another server. It is connected when it is first used, and again whenever the connection is lost.
pub(crate) struct Connection {
    client: GrpcInferenceServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    model: String,
    version: String,
    policy: RetryPolicy,
}

/// What a server says of a model.
pub(crate) struct Description {
    pub(crate) metadata: ModelMetadataResponse,
    /// `None` on servers without this extension of Triton's.
    pub(crate) config: Option<ModelConfig>,
}

impl Connection {
    /// Prepares the way; needs a runtime.
    ///
    /// # Errors
    ///
    /// A file cannot be used.
    pub(crate) fn new(remote: &Remote) -> Result<Self, String> {
        let channel = endpoint(remote)?.connect_lazy();
        let client = GrpcInferenceServiceClient::new(channel)
            .max_decoding_message_size(remote.max_message_bytes)
            .max_encoding_message_size(remote.max_message_bytes);
        Ok(Self {
            client,
            authorization: remote.token_file.as_deref().map(authorization).transpose()?,
            model: remote.model.clone(),
            version: remote.version.clone().unwrap_or_default(),
            policy: RetryPolicy {
                retries: Some(remote.retries),
                timeout: Duration::from_millis(remote.timeout_ms),
            },
        })
    }

    /// Asks what the model is like. A server that is not there yet is waited for so long.
    pub(crate) async fn describe(&self, patience: Duration) -> Result<Description, CallError> {
        let policy = RetryPolicy { retries: None, timeout: patience };
        let deadline = Some(Instant::now() + patience);
        let (name, version) = (self.model.clone(), self.version.clone());
        let request = ModelMetadataRequest { name: name.clone(), version: version.clone() };
        let metadata = policy.run(deadline, |time| {
            answer(self.client.clone(), self.request(request.clone(), time), async |mut client, request| {
                client.model_metadata(request).await
            })
        });
        let metadata = metadata.await?;
        let request = ModelConfigRequest { name, version };
        let config = policy.run(deadline, |time| {
            answer(self.client.clone(), self.request(request.clone(), time), async |mut client, request| {
                match client.model_config(request).await {
                    Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(None)),
                    config => Ok(Response::new(config?.into_inner().config)),
                }
            })
        });
        Ok(Description { metadata, config: config.await? })
    }

    /// Runs the model for these, with as many attempts as the configuration allows and there is time for.
    pub(crate) async fn infer(
        &self,
        mut request: ModelInferRequest,
        interests: &Interests,
    ) -> Result<ModelInferResponse, CallError> {
        request.model_name.clone_from(&self.model);
        request.model_version.clone_from(&self.version);
        let call = self.policy.run(interests.deadline().map(Instant::from_std), |time| {
            answer(self.client.clone(), self.request(request.clone(), time), async |mut client, request| {
                client.model_infer(request).await
            })
        });
        tokio::select! {
            answer = call => answer,
            () = interests.lost() => Err(CallError::Unwanted),
        }
    }

    fn request<T>(&self, message: T, time: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(time);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        trace::tell(request.metadata_mut().as_mut());
        request
    }
}

/// One attempt at a call.
async fn answer<T, A>(
    client: GrpcInferenceServiceClient<Channel>,
    request: Request<T>,
    call: impl AsyncFnOnce(GrpcInferenceServiceClient<Channel>, Request<T>) -> Result<Response<A>, Status>,
) -> Result<A, CallError> {
    call(client, request).await.map(Response::into_inner).map_err(|status| CallError::of(&status))
}

fn endpoint(remote: &Remote) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(remote.url.clone()).map_err(|e| format!("`url`: {e}"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_millis(remote.connect_timeout_ms))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .tcp_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(KEEPALIVE_PROBES))
        .user_agent(concat!("smartedit/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| e.to_string())?;
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    endpoint.tls_config(tls(remote)?).map_err(|e| format!("`tls`: {}", causes(&e)))
}

fn tls(remote: &Remote) -> Result<ClientTlsConfig, String> {
    let tls = &remote.tls;
    let mut config = match &tls.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(authorities(ca)?),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let (certificate, key) = (read("tls.certificate", certificate)?, read("tls.key", key)?);
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

/// Certificates of authorities, every one of which must be one: the library passes over those that it cannot read.
fn authorities(file: &Path) -> Result<Certificate, String> {
    let pem = read("tls.ca", file)?;
    let wrong = |why: &dyn std::fmt::Display| format!("`tls.ca`: {}: {why}", file.display());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        store.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    match store.is_empty() {
        true => Err(wrong(&"holds no certificate")),
        false => Ok(Certificate::from_pem(pem)),
    }
}

fn authorization(file: &Path) -> Result<MetadataValue<Ascii>, String> {
    let content = read("token_file", file)?;
    let token = String::from_utf8(content).ok();
    let value =
        token.and_then(|token| format!("Bearer {}", token.trim()).parse::<MetadataValue<Ascii>>().ok());
    let mut value = value.ok_or_else(|| format!("`token_file`: {} holds no token", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(name: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("`{name}`: {} cannot be read: {e}", file.display()))
}

/// An error and what lies behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
