//! Certificates and keys, as rustls wants them.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::SecurityError;
use super::file::Named;
use crate::config::{ClientAuth, HttpTls, TlsConfig};

/// What each port speaks TLS with.
pub(super) struct Tls {
    pub(super) grpc: Arc<ServerConfig>,
    /// `None`: it does not encrypt.
    pub(super) http: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    ///
    /// The setting whose file cannot be read, or does not hold what it should.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, SecurityError> {
        let identity = Identity::load(config)?;
        let verifier = verifier(config)?;
        let grpc = identity.server(verifier.clone(), b"h2")?;
        let http = match config.http {
            HttpTls::Same => Some(identity.server(verifier, b"http/1.1")?),
            HttpTls::ServerOnly => Some(identity.server(None, b"http/1.1")?),
            HttpTls::Off => None,
        };
        Ok(Self { grpc, http })
    }
}

/// A certificate and its key.
struct Identity<'a> {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_file: Named<'a>,
}

impl<'a> Identity<'a> {
    fn load(config: &'a TlsConfig) -> Result<Self, SecurityError> {
        let missing =
            |setting| SecurityError::value(setting, "must be set, as certificate and key belong together");
        let path = config.certificate.as_deref().ok_or_else(|| missing("tls.certificate"))?;
        let chain = certificates(Named { setting: "tls.certificate", path })?;
        let path = config.key.as_deref().ok_or_else(|| missing("tls.key"))?;
        let key_file = Named { setting: "tls.key", path };
        let key = PrivateKeyDer::from_pem_slice(&key_file.read()?)
            .map_err(|error| key_file.wrong(format!("holds no private key in PEM format: {error}")))?;
        key_file.warn_if_public();
        Ok(Self { chain, key, key_file })
    }

    /// What a server of one protocol speaks TLS with.
    fn server(
        &self,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        protocol: &[u8],
    ) -> Result<Arc<ServerConfig>, SecurityError> {
        let wrong = |error| self.key_file.wrong(format!("does not do for tls.certificate: {error}"));
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(wrong)?;
        server.alpn_protocols = vec![protocol.to_owned()];
        Ok(Arc::new(server))
    }
}

/// What judges clients' certificates, if there is something to judge by.
fn verifier(config: &TlsConfig) -> Result<Option<Arc<dyn ClientCertVerifier>>, SecurityError> {
    let Some(path) = config.client_ca.as_deref() else { return Ok(None) };
    let file = Named { setting: "tls.client_ca", path };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| file.wrong(error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match config.client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map(Some).map_err(|error| file.wrong(error))
}

fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.read()?).collect();
    let certificates = read.map_err(|error| file.wrong(error))?;
    match certificates.is_empty() {
        true => Err(file.wrong("holds no certificate in PEM format")),
        false => Ok(certificates),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    /// A directory with a certificate, its key, and the key of another.
    fn files() -> (tempfile::TempDir, TlsConfig, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let make = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = make();
        let config = TlsConfig {
            certificate: Some(write("server.pem", cert.pem())),
            key: Some(write("server.key", signing_key.serialize_pem())),
            ..TlsConfig::default()
        };
        let other = write("other.key", make().signing_key.serialize_pem());
        (directory, config, other)
    }

    #[track_caller]
    fn refused(config: &TlsConfig, setting: &str, words: &str) {
        let error = Tls::load(config).map(drop).unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn ports_speak_the_protocol_that_is_theirs() {
        let (_directory, config, _) = files();
        let tls = Tls::load(&config).unwrap();
        assert_eq!(tls.grpc.alpn_protocols, [b"h2".to_vec()]);
        assert_eq!(tls.http.unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
        let off = TlsConfig { http: HttpTls::Off, ..config };
        assert!(Tls::load(&off).unwrap().http.is_none());
    }

    #[test]
    fn the_setting_at_fault_is_named() {
        let (directory, config, other) = files();
        let nowhere = Some(directory.path().join("nowhere.pem"));
        let with = |change: fn(&mut TlsConfig, Option<PathBuf>), path: &Option<PathBuf>| {
            let mut config = config.clone();
            change(&mut config, path.clone());
            config
        };
        refused(&with(|config, path| config.certificate = path, &nowhere), "tls.certificate", "nowhere.pem");
        refused(&with(|config, path| config.key = path, &nowhere), "tls.key", "nowhere.pem");
        refused(&with(|config, path| config.client_ca = path, &nowhere), "tls.client_ca", "nowhere.pem");
        refused(&with(|config, _| config.key = None, &None), "tls.key", "must be set");
        refused(&with(|config, path| config.key = path, &Some(other)), "tls.key", "tls.certificate");
        refused(
            &with(|config, path| config.certificate = path, &config.key),
            "tls.certificate",
            "no certificate",
        );
        refused(&with(|config, path| config.key = path, &config.certificate), "tls.key", "no private key");
        let torn = Some(directory.path().join("torn.pem"));
        std::fs::write(torn.as_ref().unwrap(), "-----BEGIN CERTIFICATE-----\n!!\n").unwrap();
        refused(&with(|config, path| config.client_ca = path, &torn), "tls.client_ca", "torn.pem");
    }
}
