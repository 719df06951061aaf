//! Encryption and certificates, on both ports.

use std::net::SocketAddr;
use std::sync::Arc;

use smartedit_client::{Certificate, Client, ClientTlsConfig, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::authority::{Authority, Issued};
use crate::config::{ClientAuth, Config, HttpTls, TlsConfig};
use crate::security::Security;
use crate::server::Server;
use crate::server::tests::{Shelf, config, request};
use crate::work::testing::{Scripted, steps};

/// A server that serves until it is dropped.
struct Locked {
    address: SocketAddr,
    http: SocketAddr,
    security: Security,
    config: Config,
    serving: JoinHandle<()>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Locked {
    async fn start(tls: TlsConfig) -> Self {
        let config = Config { tls: Some(tls), ..config() };
        let models = Arc::new(Shelf(Some(Scripted::of(vec![steps(1)]))));
        let server = Server::bind_with(config.clone(), models).await.unwrap();
        server.ready("").await.unwrap();
        let (address, http, security) = (server.local_addr(), server.http_addr().unwrap(), server.security());
        let serving = tokio::spawn(async move {
            server.serve().await.unwrap();
        });
        Self { address, http, security, config, serving }
    }

    /// Whether an edit can be made by a client that trusts this authority and shows this certificate.
    async fn edits(&self, trusted: &Authority, shown: Option<&Issued>) -> bool {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusted.certificate));
        if let Some(Issued { certificate, key }) = shown {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let once = smartedit_client::RetryPolicy { attempts: 1, ..Default::default() };
        let builder = Client::builder(self.address.to_string()).tls(tls).retry(once);
        match builder.connect().await {
            Ok(client) => client.edit(request()).await.is_ok(),
            Err(_) => false,
        }
    }

    /// What `/healthz` answers over TLS, if it does.
    async fn healthz(&self, trusted: &Authority, shown: Option<&Issued>) -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        let stream = TcpStream::connect(self.http).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        get(stream).await
    }
}

async fn get(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> Option<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    // That the other side ends without TLS's goodbye does not matter here.
    let _ = stream.read_to_string(&mut answer).await;
    (!answer.is_empty()).then_some(answer)
}

fn is_alive(answer: Option<String>) -> bool {
    answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_are_encrypted() {
    let authority = Authority::new();
    let server = Locked::start(authority.server()).await;
    assert!(server.edits(&authority, None).await);
    assert!(is_alive(server.healthz(&authority, None).await));

    let stranger = Authority::new();
    assert!(!server.edits(&stranger, None).await, "a client that does not know the authority");
    let plain = Client::connect(server.address.to_string()).await;
    let answered = match plain {
        Ok(client) => client.edit(request()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered, "a client that does not encrypt");
    let plain = get(TcpStream::connect(server.http).await.unwrap()).await;
    assert!(!is_alive(plain), "a probe that does not encrypt");
    assert!(server.edits(&authority, None).await, "it goes on serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_good_certificate_are_not_let_in() {
    let authority = Authority::new();
    let server = Locked::start(authority.mutual()).await;
    let good = authority.client();
    assert!(server.edits(&authority, Some(&good)).await);
    assert!(is_alive(server.healthz(&authority, Some(&good)).await));
    let (stranger, expired) = (Authority::new().client(), authority.expired());
    for (what, shown) in [("none", None), ("a stranger's", Some(&stranger)), ("an old one", Some(&expired))] {
        assert!(!server.edits(&authority, shown).await, "{what}");
        assert!(server.healthz(&authority, shown).await.is_none(), "{what}");
    }
    assert!(server.edits(&authority, Some(&good)).await, "it goes on serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients_may_be_optional_or_for_grpc_only() {
    let authority = Authority::new();
    let server = Locked::start(TlsConfig { client_auth: ClientAuth::Optional, ..authority.mutual() }).await;
    assert!(server.edits(&authority, None).await);
    assert!(
        !server.edits(&authority, Some(&Authority::new().client())).await,
        "one that is shown must be good"
    );

    let server = Locked::start(TlsConfig { http: HttpTls::ServerOnly, ..authority.mutual() }).await;
    assert!(!server.edits(&authority, None).await);
    assert!(is_alive(server.healthz(&authority, None).await));

    let server = Locked::start(TlsConfig { http: HttpTls::Off, ..authority.mutual() }).await;
    assert!(is_alive(get(TcpStream::connect(server.http).await.unwrap()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_is_over_is_not_believed() {
    let authority = Authority::new();
    let server = Locked::start(authority.serve(&authority.expired())).await;
    assert!(!server.edits(&authority, None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_on_reload_and_bad_ones_change_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Locked::start(old.server()).await;
    let renewed = Config { tls: Some(new.server()), ..server.config.clone() };
    server.security.reload(&renewed).unwrap();
    assert!(server.edits(&new, None).await);
    assert!(!server.edits(&old, None).await);

    new.write("server.key", "no key");
    assert_eq!(server.security.reload(&renewed).unwrap_err().setting(), "tls.key");
    assert!(server.edits(&new, None).await);
    server.security.reload(&Config { tls: None, ..renewed }).unwrap();
    assert!(is_alive(get(TcpStream::connect(server.http).await.unwrap()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_encrypts_holds_up_nobody() {
    let authority = Authority::new();
    let server = Locked::start(authority.server()).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(server.edits(&authority, None).await);
    drop(silent);
}
