//! The client.

use std::time::Duration;

use smartedit_proto::v1;
use smartedit_proto::v1::admin_service_client::AdminServiceClient;
use smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient;
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::{
    Adapter, CompareEntry, CompareRequest, CompareStream, Deployment, EditRequest, EditStream, Edited, Error,
    LoadAdapterRequest, LoadRequest, Reloaded, Result, RetryPolicy, admin,
};

/// Largest message sent or received unless the builder says otherwise.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// A connection to a server. Cloning is cheap and shares the connection.
#[derive(Debug, Clone)]
pub struct Client {
    service: SmartEditServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    retry: RetryPolicy,
    timeout: Option<Duration>,
    authorization: Option<AsciiMetadataValue>,
}

/// How to reach a server.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    endpoint: String,
    connect_timeout: Duration,
    max_message_bytes: usize,
    retry: RetryPolicy,
    timeout: Option<Duration>,
    authorization: Option<AsciiMetadataValue>,
    #[cfg(feature = "tls")]
    tls: Option<tonic::transport::ClientTlsConfig>,
}

impl Builder {
    /// How long connecting may take; 10 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Largest message sent or received; 256 MiB by default.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// When calls that found the server unavailable are tried again.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// How long a call may take unless its request says otherwise; no bound by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Shows an API key or a token with every call. Without TLS, everyone on the way can read it.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if it has characters that no header can hold.
    pub fn api_key(mut self, key: &str) -> Result<Self> {
        let header = AsciiMetadataValue::try_from(format!("Bearer {key}"));
        let mut header = header.map_err(|_| Error::Key)?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// Encrypts the connection. An endpoint that begins with `https://` is encrypted without it, too: the system's
    /// roots then vouch for the server.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: tonic::transport::ClientTlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Connects now.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] if the address cannot be read, [`Error::Connect`] if nothing answers there.
    pub async fn connect(self) -> Result<Client> {
        let endpoint = self.endpoint()?;
        let connected = endpoint.connect().await;
        let channel =
            connected.map_err(|source| Error::Connect { endpoint: endpoint.uri().to_string(), source })?;
        Ok(self.client(channel))
    }

    /// Connects with the first call, which fails with UNAVAILABLE (and so is retried) if nothing answers.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] if the address cannot be read.
    pub fn connect_lazy(self) -> Result<Client> {
        let channel = self.endpoint()?.connect_lazy();
        Ok(self.client(channel))
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let scheme = if self.is_encrypted() { "https" } else { "http" };
        let uri = match self.endpoint.split_once("://") {
            // Nobody who asks for TLS gets a plain connection.
            Some(("http", rest)) => format!("{scheme}://{rest}"),
            Some(_) => self.endpoint.clone(),
            None => format!("{scheme}://{}", self.endpoint),
        };
        let invalid = |source| Error::Endpoint { endpoint: self.endpoint.clone(), source };
        let endpoint = Endpoint::from_shared(uri).map_err(invalid)?;
        let endpoint = endpoint.connect_timeout(self.connect_timeout).tcp_nodelay(true);
        #[cfg(feature = "tls")]
        if endpoint.uri().scheme_str() == Some("https") {
            let trusting = || tonic::transport::ClientTlsConfig::new().with_enabled_roots();
            return endpoint.tls_config(self.tls.clone().unwrap_or_else(trusting)).map_err(invalid);
        }
        Ok(endpoint)
    }

    fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    fn client(self, channel: Channel) -> Client {
        let admin = AdminServiceClient::new(channel.clone());
        let service = SmartEditServiceClient::new(channel)
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes);
        let Self { retry, timeout, authorization, .. } = self;
        Client { service, admin, retry, timeout, authorization }
    }
}

impl Client {
    /// A client of the server at `endpoint`: `host:port`, or a URI such as `http://host:port`.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder {
            endpoint: endpoint.into(),
            connect_timeout: Duration::from_secs(10),
            max_message_bytes: MAX_MESSAGE_BYTES,
            retry: RetryPolicy::default(),
            timeout: None,
            authorization: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Connects with all defaults.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    pub async fn connect(endpoint: impl Into<String>) -> Result<Self> {
        Self::builder(endpoint).connect().await
    }

    /// Edits a picture. Dropping the future cancels the edit.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said.
    pub async fn edit(&self, request: EditRequest) -> Result<Edited> {
        let deadline = self.deadline(request.timeout);
        let message = request.into_unary();
        let call = |left| {
            let (mut service, request) = (self.service.clone(), self.request(message.clone(), left));
            async move { Edited::from_response(service.edit(request).await?.into_inner()) }
        };
        self.retry.run(deadline, call).await
    }

    /// Edits a picture and reports how it goes. Returns with the first event at hand; what fails before it is
    /// retried, what fails later is not. Dropping the stream cancels the edit.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said.
    pub async fn edit_stream(&self, request: EditRequest) -> Result<EditStream> {
        let deadline = self.deadline(request.timeout);
        let message = request.into_stream();
        let call = |left| {
            let (mut service, request) = (self.service.clone(), self.request(message.clone(), left));
            async move { EditStream::open(service.edit_stream(request).await?.into_inner(), deadline).await }
        };
        self.retry.run(deadline, call).await
    }

    /// Makes one edit on several deployments and reports how each goes and how they differ. Returns with the first event
    /// at hand; what fails before it is retried, what fails later is not. Dropping the stream cancels the comparison.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said.
    pub async fn compare_stream(&self, request: CompareRequest) -> Result<CompareStream> {
        let deadline = self.deadline(request.timeout);
        let message = request.into_proto();
        let call = |left| {
            let (mut service, request) = (self.service.clone(), self.request(message.clone(), left));
            async move { CompareStream::open(service.compare(request).await?.into_inner(), deadline).await }
        };
        self.retry.run(deadline, call).await
    }

    /// Makes one edit on several deployments, and returns what each has made, in the order asked for. Dropping the future
    /// cancels the comparison.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said. A deployment that fails alone is an entry of the answer.
    pub async fn compare(&self, request: CompareRequest) -> Result<Vec<CompareEntry>> {
        self.compare_stream(request).await?.finish().await
    }

    /// All deployments, sorted by name.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said.
    pub async fn deployments(&self) -> Result<Vec<Deployment>> {
        let call = |left| {
            let (mut service, request) =
                (self.service.clone(), self.request(v1::ListDeploymentsRequest {}, left));
            async move {
                let response = service.list_deployments(request).await?.into_inner();
                Ok(response.deployments.into_iter().map(Deployment::from).collect())
            }
        };
        self.retry.run(self.deadline(None), call).await
    }

    /// One deployment; an empty name is the server's default.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said: NOT_FOUND if there is none of that name.
    pub async fn deployment(&self, name: &str) -> Result<Deployment> {
        let call = |left| {
            let message = v1::GetDeploymentRequest { name: name.to_owned() };
            let (mut service, request) = (self.service.clone(), self.request(message, left));
            async move {
                let response = service.get_deployment(request).await?.into_inner();
                response.deployment.map(Deployment::from).ok_or(Error::Incomplete("deployment"))
            }
        };
        self.retry.run(self.deadline(None), call).await
    }

    /// Loads a version of a deployment, and returns when it is ready. Dropping the future does not stop that. What fails is
    /// not tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said: PERMISSION_DENIED if it may not be asked for this.
    pub async fn load_deployment(&self, request: LoadRequest) -> Result<Deployment> {
        let request = self.request(request.into_proto(), self.timeout);
        let response = self.admin.clone().load_deployment(request).await?.into_inner();
        admin::loaded(response).ok_or(Error::Incomplete("deployment"))
    }

    /// Unloads a version of a deployment, or all, and returns when they have finished what they had and their memory is
    /// given back. Dropping the future does not stop that. What fails is not tried again.
    ///
    /// # Errors
    ///
    /// As [`Client::load_deployment`]; NOT_FOUND if there is none of that name.
    pub async fn unload_deployment(&self, name: &str, version: Option<u64>) -> Result<()> {
        let message =
            v1::UnloadDeploymentRequest { name: name.to_owned(), version: version.unwrap_or_default() };
        self.admin.clone().unload_deployment(self.request(message, self.timeout)).await?;
        Ok(())
    }

    /// Has the server read its configuration again, and returns when its deployments are what that says, as far as they
    /// can be loaded. What fails is not tried again.
    ///
    /// # Errors
    ///
    /// As [`Client::load_deployment`]; FAILED_PRECONDITION, and nothing changed, if the configuration cannot be used.
    pub async fn reload_configuration(&self) -> Result<Reloaded> {
        let request = self.request(v1::ReloadConfigurationRequest {}, self.timeout);
        Ok(self.admin.clone().reload_configuration(request).await?.into_inner().into())
    }

    /// Loads a LoRA adapter into a deployment, and returns when requests can choose it. Dropping the future does not stop a load
    /// that has begun. What fails is not tried again.
    ///
    /// # Errors
    ///
    /// As [`Client::load_deployment`]; ALREADY_EXISTS if there is one of that name, FAILED_PRECONDITION if the file cannot be
    /// used. The deployment then is as it was.
    pub async fn load_adapter(&self, request: LoadAdapterRequest) -> Result<Adapter> {
        let request = self.request(request.into_proto(), self.timeout);
        let response = self.admin.clone().load_adapter(request).await?.into_inner();
        admin::loaded_adapter(response).ok_or(Error::Incomplete("adapter"))
    }

    /// Takes a LoRA adapter out of a deployment (an empty name is the server's default one). Edits that have chosen it go on
    /// with it. What fails is not tried again.
    ///
    /// # Errors
    ///
    /// As [`Client::load_deployment`]; NOT_FOUND if there is none of that name, FAILED_PRECONDITION if it is merged into the
    /// weights.
    pub async fn unload_adapter(&self, deployment: &str, name: &str) -> Result<()> {
        let message = v1::UnloadAdapterRequest { deployment: deployment.to_owned(), name: name.to_owned() };
        self.admin.clone().unload_adapter(self.request(message, self.timeout)).await?;
        Ok(())
    }

    /// The LoRA adapters of a deployment (an empty name is the server's default one), sorted by name.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with what the server said: NOT_FOUND if there is no deployment of that name.
    pub async fn adapters(&self, deployment: &str) -> Result<Vec<Adapter>> {
        let call = |left| {
            let message = v1::ListAdaptersRequest { deployment: deployment.to_owned() };
            let (mut admin, request) = (self.admin.clone(), self.request(message, left));
            async move {
                let response = admin.list_adapters(request).await?.into_inner();
                Ok(response.adapters.into_iter().map(Adapter::from).collect())
            }
        };
        self.retry.run(self.deadline(None), call).await
    }

    /// A request that tells the server who calls and how much time it has.
    fn request<T>(&self, message: T, left: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(left) = left {
            request.set_timeout(left);
        }
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        timeout.or(self.timeout).and_then(|timeout| Instant::now().checked_add(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_can_be_made_from_any_task() {
        fn is_send<T: Send>(_: &T) {}

        let client = Client::builder("127.0.0.1:1").connect_lazy().unwrap();
        is_send(&client.edit(EditRequest::default()));
        is_send(&client.edit_stream(EditRequest::default()));
        is_send(&client.compare(CompareRequest::default()));
        is_send(&client.load_deployment(LoadRequest::default()));
        is_send(&client.load_adapter(LoadAdapterRequest::default()));
        is_send(&client.unload_adapter("", ""));
        is_send(&client.adapters(""));
        is_send(&client.deployments());
        is_send(&client.deployment(""));
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_named() {
        let error = Client::connect("no address").await.unwrap_err();
        assert!(matches!(&error, Error::Endpoint { endpoint, .. } if endpoint == "no address"), "{error}");
    }

    #[tokio::test]
    async fn a_key_is_not_in_what_is_printed() {
        let builder = Client::builder("127.0.0.1:1").api_key("open-sesame").unwrap();
        assert!(!format!("{builder:?}").contains("sesame"));
        let client = builder.connect_lazy().unwrap();
        assert!(!format!("{client:?}").contains("sesame"));
        let request = client.request((), None);
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer open-sesame");
        assert!(matches!(Client::builder("").api_key("two\nlines"), Err(Error::Key)));
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn who_asks_for_tls_gets_no_plain_connection() {
        let uri = |endpoint: &str, tls: bool| {
            let builder = Client::builder(endpoint);
            let builder = if tls { builder.tls(tonic::transport::ClientTlsConfig::new()) } else { builder };
            builder.endpoint().unwrap().uri().to_string()
        };
        assert_eq!(uri("host:1", true), "https://host:1/");
        assert_eq!(uri("http://host:1", true), "https://host:1/");
        assert_eq!(uri("https://host:1", false), "https://host:1/");
        assert_eq!(uri("host:1", false), "http://host:1/");
    }
}
