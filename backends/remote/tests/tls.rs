//! Servers and stages that know each other by their certificates.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

#[allow(dead_code, reason = "the other tests use all of it")]
mod support;

use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use smartedit_core::stage::{LoadError, Remote, RemoteTls};
use support::{Server, load, run};
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// An authority, and a directory for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    place: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, place: tempfile::tempdir().unwrap() };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn ca(&self) -> PathBuf {
        self.place.path().join("ca.pem")
    }

    /// A certificate of a name, and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server called `decoder.test` that wants certificates of this authority.
    fn server(&self) -> Server {
        let (certificate, key) = self.sign("decoder.test", ExtendedKeyUsagePurpose::ServerAuth);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(self.issuer.pem()));
        Server::listening(SocketAddr::from(([127, 0, 0, 1], 0)), Some(tls), Vec::new(), |_| ())
    }

    /// How a stage and such a server know each other.
    fn tls(&self) -> RemoteTls {
        let (certificate, key) = self.sign("front.test", ExtendedKeyUsagePurpose::ClientAuth);
        RemoteTls {
            ca: Some(self.ca()),
            certificate: Some(self.write("front.pem", &certificate)),
            key: Some(self.write("front.key", &key)),
            server_name: Some("decoder.test".to_owned()),
        }
    }
}

fn remote(server: &Server, tls: RemoteTls) -> Remote {
    let url = format!("https://{}", server.address);
    Remote { tls, load_timeout_ms: 2000, ..Remote::new(url, "decoder") }
}

#[test]
fn both_ends_know_each_other() {
    let authority = Authority::new();
    let server = authority.server();
    let stage = load(remote(&server, authority.tls())).unwrap();
    run(stage.as_ref(), 1).unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn strangers_are_not_talked_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server();
    let cases = [
        RemoteTls { ca: Some(stranger.ca()), ..authority.tls() },
        RemoteTls { server_name: Some("other.test".to_owned()), ..authority.tls() },
        RemoteTls { certificate: None, key: None, ..authority.tls() },
        RemoteTls { ca: Some(authority.ca()), ..stranger.tls() },
        RemoteTls::default(),
    ];
    for (index, tls) in cases.into_iter().enumerate() {
        let error = load(remote(&server, tls)).err().unwrap_or_else(|| panic!("case {index} was let in"));
        assert!(matches!(&error, LoadError::Unavailable { .. }), "{index}: {error}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let authority = Authority::new();
    let server = authority.server();
    let broken =
        authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let empty = authority.write("empty.pem", "");
    for (tls, words) in [
        (RemoteTls { ca: Some(broken), ..authority.tls() }, ["`tls.ca`", "broken.pem"]),
        (RemoteTls { ca: Some(empty.clone()), ..authority.tls() }, ["`tls.ca`", "empty.pem"]),
        (RemoteTls { key: Some(empty), ..authority.tls() }, ["`tls`", "remote"]),
    ] {
        let error = load(remote(&server, tls)).err().unwrap();
        assert!(matches!(&error, LoadError::Option { option: "remote", .. }), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "no {word} in {error}");
        }
    }
}
