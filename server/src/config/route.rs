//! What is configured of routes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, DeploymentConfig, Problems};

/// The route of requests that name neither a route nor a deployment.
pub const DEFAULT_ROUTE: &str = "default";

/// Deployments that a route may have.
const MAX_TARGETS: usize = 64;

/// The largest weight; it keeps sums of weights exact enough.
const MAX_WEIGHT: f64 = 1e6;

/// Edits of a route's shadow that may run, and that may wait.
const MAX_SHADOWS: usize = 1024;

/// The longest time that an edit of a shadow may take.
const MAX_SHADOW_TIME: Duration = Duration::from_secs(24 * 3600);

/// A name that stands for several deployments.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The share of each deployment, relative to the others'. One of weight 0 gets what names it with
    /// [`Self::overridable`] only.
    pub weights: BTreeMap<String, f64>,
    /// Whether a request may choose among the deployments by itself.
    #[serde(default, rename = "override")]
    pub overridable: bool,
    /// The deployment that makes edits of this route a second time, for comparison.
    #[serde(default)]
    pub shadow: Option<ShadowConfig>,
}

/// A deployment that makes edits a second time, after they have been answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowConfig {
    /// The deployment.
    pub deployment: String,
    /// The share of edits that are made a second time, 0 to 1.
    #[serde(default = "default_fraction")]
    pub fraction: f64,
    /// Edits that are made a second time at the same time.
    #[serde(default = "default_max_concurrent")]
    pub max_concurrent: usize,
    /// Edits that wait to be made a second time; others are not.
    #[serde(default = "default_max_queue")]
    pub max_queue: usize,
    /// Bytes of requests and pictures of all edits that wait to be, or are being, made a second time.
    #[serde(default = "default_max_queue_bytes")]
    pub max_queue_bytes: usize,
    /// How long an edit may take the second time, in seconds.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: f64,
}

fn default_fraction() -> f64 {
    1.0
}

fn default_max_concurrent() -> usize {
    1
}

fn default_max_queue() -> usize {
    4
}

fn default_max_queue_bytes() -> usize {
    64 << 20
}

fn default_timeout_seconds() -> f64 {
    300.0
}

impl ShadowConfig {
    /// A deployment that makes every edit a second time, all else by default.
    pub fn new(deployment: impl Into<String>) -> Self {
        Self {
            deployment: deployment.into(),
            fraction: default_fraction(),
            max_concurrent: default_max_concurrent(),
            max_queue: default_max_queue(),
            max_queue_bytes: default_max_queue_bytes(),
            timeout_seconds: default_timeout_seconds(),
        }
    }

    /// How long an edit may take the second time.
    pub fn timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_seconds).unwrap_or_default()
    }
}

impl RouteConfig {
    /// Everything that is wrong with a route of this name, each with its key within the route; `is_deployment` tells
    /// the names of deployments, and `NAME@VERSION`.
    pub fn faults(&self, name: &str, is_deployment: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        if !DeploymentConfig::is_name(name) {
            faults.add("", "a name has 1 to 64 letters, digits, hyphens, underscores or dots");
        }
        if is_deployment(name) {
            faults.add("", "there is a deployment of this name");
        }
        self.check_weights(&is_deployment, &mut faults);
        if let Some(shadow) = &self.shadow {
            shadow.check(&is_deployment, &mut faults);
            if self.weights.len() == 1 && self.weights.contains_key(&shadow.deployment) {
                faults.add("shadow.deployment", "is the only deployment of the route");
            }
        }
        faults.0
    }

    fn check_weights(&self, is_deployment: &impl Fn(&str) -> bool, faults: &mut Faults) {
        for (target, weight) in &self.weights {
            let key = format!("weights.{target}");
            if !is_deployment(target) {
                faults.add(&key, format!("there is no deployment `{target}`"));
            }
            if !(0.0..=MAX_WEIGHT).contains(weight) {
                faults.add(&key, format!("is {weight}, 0 to {MAX_WEIGHT} is needed"));
            }
        }
        if self.weights.len() > MAX_TARGETS {
            faults.add("weights", format!("has more than {MAX_TARGETS} deployments"));
        }
        if !self.weights.values().any(|weight| *weight > 0.0) {
            faults.add("weights", "needs a deployment with a weight above 0");
        }
    }
}

impl ShadowConfig {
    fn check(&self, is_deployment: &impl Fn(&str) -> bool, faults: &mut Faults) {
        let Self { deployment, fraction, max_concurrent, max_queue, max_queue_bytes, .. } = self;
        if !is_deployment(deployment) {
            faults.add("shadow.deployment", format!("there is no deployment `{deployment}`"));
        }
        if !(0.0..=1.0).contains(fraction) {
            faults.add("shadow.fraction", format!("is {fraction}, 0 to 1 is needed"));
        }
        if !(1..=MAX_SHADOWS).contains(max_concurrent) {
            faults.add("shadow.max_concurrent", format!("must be 1 to {MAX_SHADOWS}"));
        }
        if *max_queue > MAX_SHADOWS {
            faults.add("shadow.max_queue", format!("must be {MAX_SHADOWS} or less"));
        }
        if *max_queue_bytes / 1024 > tokio::sync::Semaphore::MAX_PERMITS {
            faults.add("shadow.max_queue_bytes", "is too large");
        }
        let seconds = self.timeout_seconds;
        let timeout = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if timeout.is_zero() || timeout > MAX_SHADOW_TIME {
            let most = MAX_SHADOW_TIME.as_secs();
            faults.add("shadow.timeout_seconds", format!("is {seconds}, more than 0 to {most} is needed"));
        }
    }
}

#[derive(Default)]
struct Faults(Vec<(String, String)>);

impl Faults {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push((key.to_owned(), message.into()));
    }
}

impl Config {
    /// Whether there is a deployment of this name, or, for `NAME@VERSION`, one that may have this version some time.
    fn has_deployment(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((name, version)) => version.parse::<u64>().is_ok() && self.deployments.contains_key(name),
            None => self.deployments.contains_key(name),
        }
    }

    pub(super) fn check_routes(&self, problems: &mut Problems) {
        for (name, route) in &self.routes {
            for (key, message) in route.faults(name, |name| self.has_deployment(name)) {
                let separator = if key.is_empty() { "" } else { "." };
                problems.add(format!("routes.{name}{separator}{key}"), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(route: &str) -> Vec<String> {
        let route: RouteConfig = toml::from_str(route).unwrap();
        let faults = route.faults("r", |name| ["a", "b"].contains(&name));
        faults.into_iter().map(|(key, message)| format!("{key}: {message}")).collect()
    }

    #[test]
    fn little_is_needed() {
        assert_eq!(faults("weights = { a = 90, b = 0.5 }"), [""; 0]);
        assert_eq!(faults("weights = { a = 1 }\nshadow = { deployment = \"b\" }"), [""; 0]);
        assert_eq!(faults("weights = { a = 1, b = 0 }\noverride = true"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (route, key) in [
            ("weights = {}", "weights: "),
            ("weights = { a = 0, b = 0 }", "weights: "),
            ("weights = { a = 1, c = 1 }", "weights.c: "),
            ("weights = { a = 1, b = -1 }", "weights.b: "),
            ("weights = { a = 1, b = nan }", "weights.b: "),
            ("weights = { a = 1, b = inf }", "weights.b: "),
            ("weights = { a = 1 }\nshadow = { deployment = \"a\" }", "shadow.deployment: "),
            ("weights = { a = 1 }\nshadow = { deployment = \"c\" }", "shadow.deployment: "),
            ("weights = { a = 1 }\nshadow = { deployment = \"b\", fraction = 1.5 }", "shadow.fraction: "),
            ("weights = { a = 1 }\nshadow = { deployment = \"b\", fraction = nan }", "shadow.fraction: "),
            (
                "weights = { a = 1 }\nshadow = { deployment = \"b\", max_concurrent = 0 }",
                "shadow.max_concurrent: ",
            ),
            ("weights = { a = 1 }\nshadow = { deployment = \"b\", max_queue = 9999 }", "shadow.max_queue: "),
            (
                "weights = { a = 1 }\nshadow = { deployment = \"b\", timeout_seconds = 0 }",
                "shadow.timeout_seconds: ",
            ),
            (
                "weights = { a = 1 }\nshadow = { deployment = \"b\", timeout_seconds = 1e9 }",
                "shadow.timeout_seconds: ",
            ),
        ] {
            let faults = faults(route);
            assert!(faults.len() == 1 && faults[0].starts_with(key), "{route}: {faults:?}");
        }
    }

    #[test]
    fn a_routes_name_is_no_deployments() {
        let route: RouteConfig = toml::from_str("weights = { a = 1 }").unwrap();
        assert_eq!(route.faults("a", |name| name == "a").len(), 1);
        assert_eq!(route.faults("with space", |name| name == "a").len(), 1);
    }
}
