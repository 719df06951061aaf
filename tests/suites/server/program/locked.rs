//! Commands of the program against a server that encrypts and asks who calls.

use std::path::{Path, PathBuf};
use std::process::Output;

use smartedit_tests::golden::converted;

use super::serve::Served;
use super::{smartedit, text};

const KEY: &str = "smartedit_a-key-for-tests-of-the-program";

/// The SHA-256 of [`KEY`].
const DIGEST: &str = "e7288d3936927fac7db8c3e4f016c1f45c0d41fdf29fd4dc2a6ef332c64b57d7";

const SUCCESSOR: &str = "smartedit_the-key-that-comes-after";

/// The SHA-256 of [`SUCCESSOR`].
const SUCCESSOR_DIGEST: &str = "00a6998f201ecd3880cebb8c512c139193cb1511fe535765fbea5f1eca863740";

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

/// A configuration of one deployment and one key.
fn locked_by(name: &str, digest: &str) -> String {
    let model = converted().instruct_pix2pix();
    format!("[auth.keys.{name}]\nsha256 = \"{digest}\"\n[deployments.cats]\nmodel = {:?}\n", text(&model))
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_changes_who_may_call() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("smartedit.toml");
    std::fs::write(&path, locked_by("program", DIGEST)).unwrap();
    let mut served = Served::with(&["--config", text(&path)]);
    let knows = |served: &Served, key| match deployments(served.address(), &[], key) {
        (Some(0), _) => true,
        (Some(1), told) if told.contains("not known") => false,
        other => panic!("{other:?}"),
    };
    assert_eq!((knows(&served, KEY), knows(&served, SUCCESSOR)), (true, false));
    std::fs::write(&path, locked_by("successor", SUCCESSOR_DIGEST)).unwrap();
    served.hang_up();
    served.says("configuration applied");
    assert_eq!((knows(&served, KEY), knows(&served, SUCCESSOR)), (false, true));
    std::fs::write(&path, locked_by("program", "no digest")).unwrap();
    served.hang_up();
    served.says("nothing is changed");
    assert_eq!((knows(&served, KEY), knows(&served, SUCCESSOR)), (false, true));
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
