//! Tokens: which are good, and what they grant.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, get_current_timestamp};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use smartedit_client::Code;

use super::access::{Locked, locked};
use crate::config::{AuthConfig, CallerLimits, Config, JwtAlgorithm, JwtConfig};
use crate::security::{Security, SecurityError, signatures};
use crate::server::tests::request;
use crate::work::testing::{Scripted, steps};

/// Signs tokens, as an identity provider does.
enum Provider {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Provider {
    fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn p256() -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    /// Of a key of 2048 bits that is used nowhere else: ring makes none.
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(include_bytes!("rsa.pk8")).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// Its public key, under an identifier.
    fn jwk(&self, id: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(key) => {
                json!({"kid": id, "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())})
            }
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kid": id, "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "use": "sig"})
            }
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kid": id, "kty": "RSA", "n": encode(&n), "e": encode(&e), "alg": "RS256"})
            }
        }
    }

    /// A token of this header and these claims.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Self::P256(key) => key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        self.sign(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": id}), claims)
    }
}

/// Seconds from now on, or before now.
fn at(seconds: i64) -> i64 {
    i64::try_from(get_current_timestamp()).unwrap() + seconds
}

/// Claims of a good token.
fn claims(scope: &str) -> Value {
    json!({"iss": "https://login.example", "aud": ["other", "smartedit"], "sub": "ann", "exp": at(600), "scope": scope})
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims("smartedit:edit");
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims("smartedit:edit");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// A configuration that takes tokens signed with these keys.
fn taking(directory: &Path, keys: &[Value]) -> AuthConfig {
    let path = directory.join("jwks.json");
    std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    let jwt = JwtConfig {
        jwks: Some(path),
        issuer: "https://login.example".to_owned(),
        audience: "smartedit".to_owned(),
        ..JwtConfig::default()
    };
    AuthConfig { jwt: Some(jwt), ..AuthConfig::default() }
}

/// Of a configuration that takes tokens, whether this one is good, by the reason of its refusal.
fn judged(config: &AuthConfig, token: &str) -> Result<(), &'static str> {
    let config = Config { auth: Some(config.clone()), ..Config::default() };
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let admitted = Security::new(&config).unwrap().admit("/v1/images/edits", &headers, None);
    admitted.map(drop).map_err(|failure| failure.reason())
}

#[test]
fn tokens_of_each_algorithm_are_taken() {
    let place = tempfile::tempdir().unwrap();
    let (ed, p256, rsa) = (Provider::ed25519(), Provider::p256(), Provider::rsa());
    let config = taking(place.path(), &[ed.jwk("one"), p256.jwk("two"), rsa.jwk("three")]);
    let good = claims("openid smartedit:edit");
    assert_eq!(judged(&config, &ed.token("one", &good)), Ok(()));
    assert_eq!(judged(&config, &p256.token("two", &good)), Ok(()));
    assert_eq!(judged(&config, &rsa.token("three", &good)), Ok(()));
    // What is signed by one key does not pass as another's.
    let forged = p256.sign(&json!({"alg": "RS256", "kid": "three"}), &good);
    assert_eq!(judged(&config, &forged), Err("TOKEN_INVALID"));
    // With one key of its algorithm, a token need not name it.
    assert_eq!(judged(&config, &ed.sign(&json!({"alg": "EdDSA"}), &good)), Ok(()));
    let twice = taking(place.path(), &[ed.jwk("one"), Provider::ed25519().jwk("two")]);
    assert_eq!(judged(&twice, &ed.sign(&json!({"alg": "EdDSA"}), &good)), Err("TOKEN_INVALID"));
    assert_eq!(judged(&twice, &ed.token("one", &good)), Ok(()));
}

/// The example of RFC 7515, appendix A.2.
#[test]
fn rsa_signatures_are_verified_as_the_standard_does() {
    signatures::install();
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let key = DecodingKey::from_rsa_components(n, "AQAB").unwrap();
    let verify = |message: &str, signature: &str| {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::RS256).unwrap()
    };
    assert!(verify(message, signature));
    assert!(!verify(&message.replace("eyJpc3Mi", "eyJpc3Nj"), signature));
    assert!(!verify(message, &signature.replace("cC4h", "cC4i")));
    for algorithm in [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS512] {
        assert!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm).is_err());
    }
}

#[test]
fn tokens_that_are_not_good_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let provider = Provider::ed25519();
    let config = taking(place.path(), &[provider.jwk("one")]);
    for (what, claims, reason) in [
        ("its time is over", changed("exp", json!(at(-60))), "TOKEN_EXPIRED"),
        ("its time has not begun", changed("nbf", json!(at(60))), "TOKEN_INVALID"),
        ("its time is a text", changed("nbf", json!("soon")), "TOKEN_INVALID"),
        ("it is for ever", without("exp"), "TOKEN_INVALID"),
        ("it is of another issuer", changed("iss", json!("https://evil.example")), "TOKEN_INVALID"),
        ("it is of no issuer", without("iss"), "TOKEN_INVALID"),
        ("it is for others", changed("aud", json!("other")), "TOKEN_INVALID"),
        ("it is for nobody", without("aud"), "TOKEN_INVALID"),
        ("it is nobody's", without("sub"), "TOKEN_INVALID"),
        ("its subject is empty", changed("sub", json!("")), "TOKEN_INVALID"),
        ("its subject is two lines", changed("sub", json!("ann\nroot")), "TOKEN_INVALID"),
        ("its subject is long", changed("sub", json!("a".repeat(200))), "TOKEN_INVALID"),
        ("its scope is a number", changed("scope", json!(1)), "TOKEN_INVALID"),
        ("it grants nothing", changed("scope", json!("openid")), "PERMISSION_DENIED"),
        (
            "it grants something like it",
            changed("scope", json!("smartedit:editor edit")),
            "PERMISSION_DENIED",
        ),
    ] {
        assert_eq!(judged(&config, &provider.token("one", &claims)), Err(reason), "{what}");
    }
    // Clocks may differ a little.
    assert_eq!(judged(&config, &provider.token("one", &changed("exp", json!(at(-10))))), Ok(()));
    assert_eq!(judged(&config, &provider.token("one", &changed("nbf", json!(at(10))))), Ok(()));
    assert_eq!(judged(&config, &provider.token("one", &changed("scope", json!(["smartedit:edit"])))), Ok(()));
}

#[test]
fn signatures_are_of_the_key_that_is_named_and_of_no_other_kind() {
    let place = tempfile::tempdir().unwrap();
    let (provider, stranger) = (Provider::ed25519(), Provider::ed25519());
    let config = taking(place.path(), &[provider.jwk("one")]);
    let good = claims("smartedit:edit");
    let refused = |token: &str| assert_eq!(judged(&config, token), Err("TOKEN_INVALID"), "{token}");
    refused(&stranger.token("one", &good));
    refused(&provider.token("two", &good));
    refused(&Provider::p256().token("one", &good));
    for algorithm in ["none", "None", "HS256", "RS256", "ES384", ""] {
        refused(&provider.sign(&json!({"alg": algorithm, "kid": "one"}), &good));
    }
    refused(&provider.sign(&json!({"alg": "EdDSA", "kid": "one", "crit": ["x"], "x": 1}), &good));
    let token = provider.token("one", &good);
    let (message, signature) = token.rsplit_once('.').unwrap();
    refused(&format!("{message}."));
    refused(&format!(".{signature}."));
    refused("..");
    refused(&format!("{message}.{}", "A".repeat(9000)));
    let other = provider.token("one", &changed("sub", json!("root")));
    let (_, payload) = other.rsplit_once('.').unwrap().0.rsplit_once('.').unwrap();
    let header = message.split('.').next().unwrap();
    refused(&format!("{header}.{payload}.{signature}"));
    assert_eq!(judged(&config, &format!("{token}.x")), Err("CREDENTIALS_UNKNOWN"));
    // The public key in the place of a shared one.
    let Provider::Ed25519(key) = &provider else { unreachable!() };
    let forged = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"one"}"#));
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.public_key().as_ref());
    let signature = ring::hmac::sign(&secret, forged.as_bytes());
    refused(&format!("{forged}.{}", URL_SAFE_NO_PAD.encode(signature)));
}

#[test]
fn settings_that_cannot_be_are_named() {
    let place = tempfile::tempdir().unwrap();
    let provider = Provider::ed25519();
    let good = taking(place.path(), &[provider.jwk("one")]);
    let error = |change: &dyn Fn(&mut JwtConfig)| -> SecurityError {
        let mut auth = good.clone();
        change(auth.jwt.as_mut().unwrap());
        Security::new(&Config { auth: Some(auth), ..Config::default() }).map(drop).unwrap_err()
    };
    let write = |content: String| std::fs::write(place.path().join("jwks.json"), content).unwrap();
    assert_eq!(error(&|jwt| jwt.jwks = None).setting(), "auth.jwt.jwks");
    assert_eq!(error(&|jwt| jwt.issuer.clear()).setting(), "auth.jwt.issuer");
    assert_eq!(error(&|jwt| jwt.audience.clear()).setting(), "auth.jwt.audience");
    assert_eq!(error(&|jwt| jwt.algorithms.clear()).setting(), "auth.jwt.algorithms");
    assert_eq!(error(&|jwt| jwt.leeway_seconds = 601).setting(), "auth.jwt.leeway_seconds");
    let limits = CallerLimits { max_concurrent: Some(0), ..CallerLimits::default() };
    assert_eq!(error(&|jwt| jwt.limits = limits).setting(), "auth.jwt.limits.max_concurrent");
    let only = error(&|jwt| jwt.algorithms = vec![JwtAlgorithm::ES256]);
    assert!(only.to_string().contains("no public key"), "{only}");
    write(json!({"keys": [{"kid": "s", "kty": "oct", "k": "c2VjcmV0LW9mLXRoZS1wcm92aWRlcg"}]}).to_string());
    let shared = error(&|_| ()).to_string();
    assert!(shared.contains("shared key") && !shared.contains("c2VjcmV0"), "{shared}");
    write("{}".to_owned());
    assert_eq!(error(&|_| ()).setting(), "auth.jwt.jwks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_who_calls_and_what_it_may() {
    let place = tempfile::tempdir().unwrap();
    let provider = Provider::ed25519();
    let mut auth = taking(place.path(), &[provider.jwk("one")]);
    let limits = CallerLimits { requests_per_second: Some(0.01), burst: Some(1), ..CallerLimits::default() };
    auth.jwt.as_mut().unwrap().limits = limits;
    let server = Locked::serve(Scripted::of(vec![steps(1)]), locked(auth)).await;
    let ann = server.showing(&provider.token("one", &claims("smartedit:edit"))).await;
    ann.edit(request()).await.unwrap();
    assert_eq!(ann.edit(request()).await.unwrap_err().code(), Some(Code::ResourceExhausted));
    // Another token of hers is hers, too.
    let again = server.showing(&provider.token("one", &changed("exp", json!(at(700))))).await;
    assert_eq!(again.edit(request()).await.unwrap_err().code(), Some(Code::ResourceExhausted));
    let ben = server.showing(&provider.token("one", &changed("sub", json!("ben")))).await;
    ben.edit(request()).await.unwrap();
    let narrow =
        server.showing(&provider.token("one", &changed("smartedit_deployments", json!(["dogs"])))).await;
    let names: Vec<_> = narrow.deployments().await.unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["dogs"]);
    let reader = server.showing(&provider.token("one", &claims("smartedit:metrics"))).await;
    assert_eq!(reader.deployments().await.unwrap_err().code(), Some(Code::PermissionDenied));
}
