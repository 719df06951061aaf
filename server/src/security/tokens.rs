//! Tokens of an identity provider: JSON Web Tokens (RFC 7519), signed with a private key (RFC 7515).

use std::sync::Arc;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::access::{Access, Grant};
use super::accounts::Accounts;
use super::file::Named;
use super::{Denial, SecurityError, signatures};
use crate::config::{JwtAlgorithm, JwtConfig, Permission};

/// Longest token.
const MAX_BYTES: usize = 8 << 10;

/// Characters of a token's subject.
const MAX_SUBJECT_CHARS: usize = 128;

/// Seconds that clocks may differ, at most.
const MAX_LEEWAY: u64 = 600;

/// The label of all holders of tokens: there may be many of them.
const LABEL: &str = "token";

/// What judges tokens.
pub(super) struct Tokens {
    keys: Vec<VerifyingKey>,
    config: JwtConfig,
    accounts: Accounts,
}

/// A public key, and what tokens signed with its private key must be like.
struct VerifyingKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

/// What a token says of its holder. Issuer, audience and times are judged elsewhere.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default, alias = "scp")]
    scope: Scope,
    /// Deployments that the holder may use, of those that holders of tokens may.
    #[serde(default, rename = "smartedit_deployments")]
    deployments: Option<Vec<String>>,
}

/// What a token grants: words in one text (RFC 8693) or in a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    Text(String),
    List(Vec<String>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Scope {
    fn holds(&self, word: &str) -> bool {
        match self {
            Self::Text(words) => words.split_ascii_whitespace().any(|held| held == word),
            Self::List(words) => words.iter().any(|held| held == word),
        }
    }
}

impl Tokens {
    /// Reads the public keys.
    ///
    /// # Errors
    ///
    /// The setting that cannot be used.
    pub(super) fn load(config: &JwtConfig, accounts: &Accounts) -> Result<Self, SecurityError> {
        signatures::install();
        let path =
            config.jwks.as_deref().ok_or_else(|| SecurityError::value("auth.jwt.jwks", "must be set"))?;
        for (setting, value) in [("issuer", &config.issuer), ("audience", &config.audience)] {
            if value.is_empty() {
                return Err(SecurityError::value(format!("auth.jwt.{setting}"), "must be set"));
            }
        }
        if config.algorithms.is_empty() {
            return Err(SecurityError::value("auth.jwt.algorithms", "must be one or more"));
        }
        if config.leeway_seconds > MAX_LEEWAY {
            return Err(SecurityError::value(
                "auth.jwt.leeway_seconds",
                format!("must be {MAX_LEEWAY} or less"),
            ));
        }
        // The limits of every holder are these.
        accounts
            .of(&"".into(), config.limits)
            .map_err(|(key, message)| SecurityError::value(format!("auth.jwt.limits.{key}"), message))?;
        let file = Named { setting: "auth.jwt.jwks", path };
        let set: JwkSet = serde_json::from_slice(&file.read()?).map_err(|error| file.wrong(error))?;
        let mut keys = Vec::new();
        for jwk in set.keys.iter().filter(|jwk| is_for_signatures(jwk)) {
            keys.extend(VerifyingKey::of(jwk, config).map_err(|message| file.wrong(message))?);
        }
        if keys.is_empty() {
            return Err(file.wrong("holds no public key of auth.jwt.algorithms"));
        }
        Ok(Self { keys, config: config.clone(), accounts: accounts.clone() })
    }

    /// What is granted to the holder of a token.
    ///
    /// # Errors
    ///
    /// Why the token is not good.
    pub(super) fn find(&self, token: &str) -> Result<Access, Denial> {
        if token.len() > MAX_BYTES {
            return Err(Denial::Token("is too long"));
        }
        let header = decode_header(token).map_err(|error| denial(&error))?;
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid));
        let key = fitting.next().ok_or(Denial::Token("is signed with no key that is known"))?;
        if fitting.next().is_some() {
            return Err(Denial::Token("does not say which key it is signed with"));
        }
        let claims =
            decode::<Claims>(token, &key.key, &key.validation).map_err(|error| denial(&error))?.claims;
        self.grant(claims)
    }

    fn grant(&self, claims: Claims) -> Result<Access, Denial> {
        let Claims { sub, scope, deployments } = claims;
        if sub.is_empty() || sub.chars().count() > MAX_SUBJECT_CHARS || sub.chars().any(char::is_control) {
            return Err(Denial::Token("has no usable subject"));
        }
        let identity: Arc<str> = format!("token {sub}").into();
        let account = self.accounts.of(&identity, self.config.limits);
        let account = account.map_err(|_| Denial::Token("has no account"))?;
        let granted = |permission: &Permission| {
            scope.holds(&format!("{}{}", self.config.scope_prefix, permission.name()))
        };
        let grant = Grant {
            label: LABEL.into(),
            permissions: Permission::ALL.into_iter().filter(granted).collect(),
            deployments: self.config.deployments.clone(),
            account,
        };
        let access = Access::granted(identity, Arc::new(grant));
        Ok(match deployments {
            Some(narrower) => access.narrowed(narrower),
            None => access,
        })
    }
}

impl VerifyingKey {
    /// A key of a set; `None` if it is of an algorithm that is not allowed.
    fn of(jwk: &Jwk, config: &JwtConfig) -> Result<Option<Self>, String> {
        let id = jwk.common.key_id.clone();
        let name = id.as_deref().unwrap_or("without kid").to_owned();
        let (algorithm, setting) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, JwtAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, JwtAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, JwtAlgorithm::EdDSA)
            }
            // Whoever verifies with a shared key can sign with it, too.
            AlgorithmParameters::OctetKey(_) => {
                return Err(format!("holds a shared key ({name}), of which tokens are not taken"));
            }
            _ => return Ok(None),
        };
        let declared = jwk.common.key_algorithm.map(Algorithm::try_from);
        let another = declared.is_some_and(|declared| declared.ok() != Some(algorithm));
        if another || !config.algorithms.contains(&setting) {
            return Ok(None);
        }
        let key =
            DecodingKey::from_jwk(jwk).map_err(|error| format!("holds a damaged key ({name}): {error}"))?;
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.validate_nbf = true;
        validation.leeway = config.leeway_seconds;
        Ok(Some(Self { id, algorithm, key, validation }))
    }
}

fn is_for_signatures(jwk: &Jwk) -> bool {
    matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
}

/// What a caller is told of a token that is not good.
fn denial(error: &Error) -> Denial {
    Denial::Token(match error.kind() {
        ErrorKind::ExpiredSignature => return Denial::Expired,
        ErrorKind::ImmatureSignature => "is not valid yet",
        ErrorKind::InvalidSignature => "has a wrong signature",
        ErrorKind::InvalidIssuer => "is of another issuer",
        ErrorKind::InvalidAudience => "is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "lacks one of the claims exp, iss, aud and sub",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "is signed in a way that is not allowed"
        }
        _ => "cannot be read",
    })
}
