//! Who issues certificates in tests.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

use crate::config::TlsConfig;

/// Issues certificates, into files that are gone when it is.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
    directory: tempfile::TempDir,
}

/// A certificate and its key, in PEM format.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate, directory: tempfile::tempdir().unwrap() }
    }

    fn issue(&self, change: impl Fn(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// A certificate of a client.
    pub(crate) fn client(&self) -> Issued {
        self.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// One whose time is over.
    pub(crate) fn expired(&self) -> Issued {
        self.issue(|params| params.not_after = date_time_ymd(2001, 1, 1))
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A server with a certificate of this authority.
    pub(crate) fn server(&self) -> TlsConfig {
        self.serve(
            &self.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        )
    }

    /// A server with this certificate.
    pub(crate) fn serve(&self, issued: &Issued) -> TlsConfig {
        TlsConfig {
            certificate: Some(self.write("server.pem", &issued.certificate)),
            key: Some(self.write("server.key", &issued.key)),
            ..TlsConfig::default()
        }
    }

    /// A server that asks clients for a certificate of this authority.
    pub(crate) fn mutual(&self) -> TlsConfig {
        TlsConfig { client_ca: Some(self.write("ca.pem", &self.certificate)), ..self.server() }
    }
}
