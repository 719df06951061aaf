//! What is configured of access.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// Who may call, and what they may do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// What everybody may do without a key.
    pub open: Vec<Open>,
    /// API keys by name.
    pub keys: BTreeMap<String, KeyConfig>,
    /// A TOML file with more of them: tables as those of `keys`. Read again on reload.
    pub keys_file: Option<PathBuf>,
    /// Tokens of an identity provider.
    pub jwt: Option<JwtConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { open: vec![Open::Health], keys: BTreeMap::new(), keys_file: None, jwt: None }
    }
}

/// What may need no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// Whether the server lives and is ready.
    Health,
    /// What services and methods there are.
    Reflection,
    /// The metrics.
    Metrics,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Edit pictures, compute stages and see the deployments.
    Edit,
    /// Load and unload, and see the deployments.
    Admin,
    /// Read the metrics.
    Metrics,
    /// Say on whose account an edit is made (`options.caller`).
    Delegate,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Edit, Self::Admin, Self::Metrics, Self::Delegate];

    /// The name in configurations, scopes and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Delegate => "delegate",
        }
    }
}

/// An API key. It is known by its SHA-256, or stands in a file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// The SHA-256 of the key, in hexadecimal digits.
    pub sha256: Option<String>,
    /// A file that holds the key and nothing else. Read again on reload.
    pub file: Option<PathBuf>,
    /// What its holder may do.
    pub permissions: Vec<Permission>,
    /// The deployments its holder may use: names, or beginnings of names followed by `*`.
    pub deployments: Vec<String>,
    /// How much its holder may ask for.
    pub limits: CallerLimits,
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self {
            sha256: None,
            file: None,
            permissions: vec![Permission::Edit],
            deployments: every(),
            limits: CallerLimits::default(),
        }
    }
}

/// How much a caller may ask for; the server's own limits apply, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallerLimits {
    /// Requests for edits and stages in a second, on average.
    pub requests_per_second: Option<f64>,
    /// Requests at once after a pause; without it, those of a second.
    pub burst: Option<u32>,
    /// Edits and stages being received, waited for or worked on at the same time.
    pub max_concurrent: Option<u32>,
    /// Denoising steps of an edit.
    pub max_steps: Option<u32>,
    /// Width times height at which a picture is edited.
    pub max_edit_pixels: Option<u64>,
}

/// Tokens of an identity provider (JWT). Their scopes say what their holders may do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// A file with the public keys (JWKS); required. Read again on reload.
    pub jwks: Option<PathBuf>,
    /// The issuer that tokens must name; required.
    pub issuer: String,
    /// The audience that tokens must name; required.
    pub audience: String,
    /// How tokens may be signed.
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far clocks may differ, in seconds.
    pub leeway_seconds: u64,
    /// What stands before the name of a permission in a scope.
    pub scope_prefix: String,
    /// The deployments that holders of tokens may use: names, or beginnings of names followed by `*`.
    pub deployments: Vec<String>,
    /// How much each of them may ask for.
    pub limits: CallerLimits,
}

/// How a token may be signed: with a private key, never with a shared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// RSA with PKCS #1 v1.5 padding and SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            jwks: None,
            issuer: String::new(),
            audience: String::new(),
            algorithms: vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA],
            leeway_seconds: 30,
            scope_prefix: "smartedit:".to_owned(),
            deployments: every(),
            limits: CallerLimits::default(),
        }
    }
}

fn every() -> Vec<String> {
    vec!["*".to_owned()]
}
