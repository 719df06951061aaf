//! What the program never writes: keys, tokens, and what users wrote.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use smartedit_client::{Client, CompareRequest, DeploymentState, EditRequest, RetryPolicy};
use smartedit_tests::golden::converted;

use super::serve::Served;
use super::{run, text};
use crate::running::request;

const INSTRUCTION: &str = "Turn my neighbour Zebediah into a walrus";
const NEGATIVE: &str = "without the Quetzalcoatl tattoo";

/// A token of an identity provider, and the set of keys that it is verified with.
fn token() -> (String, String) {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let claims = r#"{"iss":"i","aud":"a","sub":"ann","exp":99999999999,"scope":"smartedit:edit"}"#;
    let message = format!("{}.{}", encode(br#"{"alg":"EdDSA"}"#), encode(claims.as_bytes()));
    let token = format!("{message}.{}", encode(key.sign(message.as_bytes()).as_ref()));
    let x = encode(key.public_key().as_ref());
    (token, format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#))
}

/// An API key and its digest, as `smartedit key new` makes them.
fn key() -> (String, String) {
    let made = run(["key", "new"]);
    made.succeeded();
    let value = |name: &str| {
        let line = made.out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches([' ', '=', '"']).to_owned()
    };
    (value("key"), value("sha256"))
}

async fn edit_in_every_way(served: &Served, key: &str) {
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let client = Client::builder(served.address()).retry(once).api_key(key).unwrap().connect().await.unwrap();
    let mut secret = EditRequest { instruction: INSTRUCTION.to_owned(), ..request(1) };
    let compare = CompareRequest {
        image: secret.image.clone(),
        instruction: INSTRUCTION.to_owned(),
        deployments: ["one", "two"].map(str::to_owned).to_vec(),
        options: secret.options.clone(),
        ..CompareRequest::default()
    };
    while client.deployment("two").await.unwrap().state != DeploymentState::Ready {}
    // Whether the edits come out well does not matter, as long as they get far.
    client.edit(secret.clone()).await.unwrap();
    drop(client.edit_stream(secret.clone()).await.unwrap().finish().await.unwrap());
    client.compare(compare).await.unwrap();
    secret.options.negative_prompt = Some(NEGATIVE.to_owned());
    drop(client.edit(secret.clone()).await);
    secret.instruction = INSTRUCTION.repeat(100);
    client.edit(secret.clone()).await.unwrap_err();
    secret.deployment = Some("nowhere".to_owned());
    client.edit(secret).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_secret_at_any_level() {
    let place = tempfile::tempdir().unwrap();
    let ((key, sha256), (token, jwks)) = (key(), token());
    let jwks_path = place.path().join("jwks.json");
    std::fs::write(&jwks_path, jwks).unwrap();
    let model = converted().instruct_pix2pix();
    let configuration = format!(
        "default_deployment = \"one\"\n[log]\nlevel = \"info,smartedit=trace,smartedit_server=trace,smartedit_core=trace,smartedit_candle=trace\"\n\
         [auth.keys.studio]\nsha256 = \"{sha256}\"\n[auth.jwt]\njwks = {:?}\nissuer = \"i\"\naudience = \"a\"\n\
         [deployments.one]\nmodel = {:?}\n[deployments.two]\nmodel = {:?}\n",
        text(&jwks_path),
        text(&model),
        text(&model)
    );
    let served = Served::configured(&configuration);
    served.ready().await;
    edit_in_every_way(&served, &key).await;
    edit_in_every_way(&served, &token).await;
    let forged = format!("{key}-forged");
    let stranger = Client::builder(served.address()).api_key(&forged).unwrap().connect().await.unwrap();
    stranger.edit(request(1)).await.unwrap_err();
    drop(stranger);
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0));
    let log = log.join("\n");
    for told in ["edit finished", "key studio", "token ann", "CREDENTIALS_UNKNOWN", "INVALID_REQUEST"] {
        assert!(log.contains(told), "no {told} in {log}");
    }
    let signature = token.rsplit('.').next().unwrap();
    for secret in ["Zebediah", "Quetzalcoatl", &key, signature, "forged", &sha256] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn a_configuration_with_a_bad_key_is_refused_by_name_and_line() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("smartedit.toml");
    let model = converted().instruct_pix2pix();
    let check = |access: &str| {
        std::fs::write(&path, format!("{access}[deployments.a]\nmodel = {:?}\n", text(&model))).unwrap();
        run(["serve", "--check-config", "--config", text(&path)])
    };
    check("[auth.keys.a]\nsha256 = \"1\"\n").failed(2, &["smartedit.toml:2", "auth.keys.a.sha256", "64"]);
    check("[auth]\n").failed(2, &["auth", "nobody could call"]);
    check("[tls]\ncertificate = \"no.pem\"\nkey = \"no.key\"\n").failed(2, &["smartedit.toml:2", "no.pem"]);
}
