//! `[admin]`: what may be changed over the network.

use serde::Deserialize;

/// What may be changed over the network while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Whether calls that load and unload deployments and their adapters are answered. Off by default: whoever may make
    /// them decides what the server serves.
    pub enabled: bool,
}
