//! Commands of the program against a server that encrypts and asks who calls.

use std::path::{Path, PathBuf};
use std::process::Output;

use smartedit_tests::golden::converted;

use super::serve::Served;
use super::{smartedit, text};

const KEY: &str = "smartedit_a-key-for-tests-of-the-program";

/// The SHA-256 of [`KEY`].
const DIGEST: &str = "e7288d3936927fac7db8c3e4f016c1f45c0d41fdf29fd4dc2a6ef332c64b57d7";

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/tests/certificates").join(name)
}

/// What `smartedit deployments` comes to with these arguments and this key.
fn deployments(server: &str, arguments: &[&str], key: &str) -> (Option<i32>, String) {
    let mut command = smartedit(["deployments", "--server", server].iter().chain(arguments));
    let Output { status, stdout, stderr } = command.env("SMARTEDIT_API_KEY", key).output().unwrap();
    let told = [stdout, stderr].concat();
    (status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn commands_show_certificates_and_keys() {
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(certificate);
    let configuration = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n[auth.keys.program]\nsha256 = \"{DIGEST}\"\n\
         [deployments.cats]\nmodel = {:?}\n",
        text(&certificate("server.pem")),
        text(&certificate("server.key")),
        text(&ca),
        text(&converted().instruct_pix2pix()),
    );
    let served = Served::configured(&configuration);
    let shown = ["--ca", text(&ca), "--cert", text(&cert), "--key", text(&key)];
    let (code, told) = deployments(served.address(), &shown, KEY);
    assert!(code == Some(0) && told.contains("cats (default)"), "{told}");
    let (code, told) = deployments(served.address(), &shown, "smartedit_another-key");
    assert!(code == Some(1) && told.contains("not known") && !told.contains("another"), "{told}");
    let (code, told) = deployments(served.address(), &shown[..2], KEY);
    assert_eq!(code, Some(1), "without a certificate: {told}");
    let (code, told) = deployments(served.address(), &[], KEY);
    assert_eq!(code, Some(1), "without encryption: {told}");
    let (code, told) = deployments(served.address(), &["--ca", "nowhere.pem"], KEY);
    assert!(code == Some(1) && told.contains("nowhere.pem"), "{told}");
}
