//! Routes: names that stand for several deployments, each with a share of the requests.
//!
//! A request with a key always goes to the same deployment, as long as weights and deployments stay the same; one without
//! goes to any. The table of routes is replaced as a whole: a request sees one table or the other.

mod choice;
mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{DEFAULT_ROUTE, RouteConfig};

pub use shadow::{Place, Shadow, Turn};

/// The routes of a server by name.
pub type Table = BTreeMap<String, Arc<Route>>;

/// The routes of a server, which can be changed while it serves.
#[derive(Debug)]
pub struct Routes(watch::Sender<Arc<Table>>);

impl Routes {
    /// The routes of a configuration that has been checked.
    pub fn new(configured: &BTreeMap<String, RouteConfig>) -> Self {
        Self(watch::Sender::new(Arc::new(table(configured, &Table::new()))))
    }

    /// Puts the routes of another configuration, which has been checked, in the place of all there are.
    pub fn replace(&self, configured: &BTreeMap<String, RouteConfig>) {
        self.0.send_modify(|current| *current = Arc::new(table(configured, current)));
    }

    /// Puts one route in the place of the one of its name, if there is one.
    #[cfg(test)]
    pub(crate) fn set(&self, name: &str, config: &RouteConfig) {
        self.0.send_modify(|current| {
            let route = Route::new(name, config, current.get(name).map(AsRef::as_ref));
            let mut table = Table::clone(current);
            table.insert(name.to_owned(), Arc::new(route));
            *current = Arc::new(table);
        });
    }

    /// The route of this name, or the default one if the name is empty.
    pub fn get(&self, name: &str) -> Option<Arc<Route>> {
        let name = if name.is_empty() { DEFAULT_ROUTE } else { name };
        self.0.borrow().get(name).cloned()
    }

    /// All routes.
    pub fn all(&self) -> Arc<Table> {
        self.0.borrow().clone()
    }

    /// Follows the routes.
    pub fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.0.subscribe()
    }
}

fn table(configured: &BTreeMap<String, RouteConfig>, current: &Table) -> Table {
    let route = |(name, config): (&String, &RouteConfig)| {
        let route = Route::new(name, config, current.get(name).map(AsRef::as_ref));
        (name.clone(), Arc::new(route))
    };
    configured.iter().map(route).collect()
}

/// A name that stands for several deployments.
#[derive(Debug)]
pub struct Route {
    name: Arc<str>,
    config: RouteConfig,
    shadow: Option<Arc<Shadow>>,
}

impl Route {
    /// A route. Its shadow is that of the route before it, if that is to be the same: what runs counts on.
    fn new(name: &str, config: &RouteConfig, before: Option<&Self>) -> Self {
        let same = |shadow: &&Arc<Shadow>| config.shadow.as_ref() == Some(shadow.config());
        let kept = before.and_then(|route| route.shadow.as_ref()).filter(same).cloned();
        let new = || config.shadow.clone().map(|shadow| Arc::new(Shadow::new(shadow)));
        Self { name: name.into(), config: config.clone(), shadow: kept.or_else(new) }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it was made of.
    pub fn config(&self) -> &RouteConfig {
        &self.config
    }

    /// The deployment that makes its edits a second time, if there is one.
    pub fn shadow(&self) -> Option<&Arc<Shadow>> {
        self.shadow.as_ref()
    }

    /// The deployment that a key belongs to, of those that can be used; `None` if there is none.
    pub fn choose(&self, key: &[u8], is_ready: impl Fn(&str) -> bool) -> Option<&str> {
        choice::choose(&self.name, key, self.targets().filter(|(name, _)| is_ready(name)))
    }

    /// The deployment with the largest share, of those that can be used, if any can.
    pub fn main(&self, is_ready: impl Fn(&str) -> bool) -> Option<&str> {
        let largest = |usable: &dyn Fn(&str) -> bool| {
            let usable = self.targets().filter(|(name, _)| usable(name));
            usable.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| name)
        };
        largest(&is_ready).or_else(|| largest(&|_| true))
    }

    /// Whether a request may ask for this deployment of the route.
    pub fn offers(&self, deployment: &str) -> bool {
        let shadow = self.config.shadow.as_ref().map(|shadow| shadow.deployment.as_str());
        self.config.weights.contains_key(deployment) || shadow == Some(deployment)
    }

    /// Deployments that get requests, and their weights.
    pub fn targets(&self) -> impl Iterator<Item = (&str, f64)> {
        let weights = self.config.weights.iter();
        weights.map(|(name, weight)| (name.as_str(), *weight)).filter(|(_, weight)| *weight > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ShadowConfig;

    fn route(weights: &[(&str, f64)]) -> RouteConfig {
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        RouteConfig { weights, ..RouteConfig::default() }
    }

    fn routes(route: RouteConfig) -> BTreeMap<String, RouteConfig> {
        BTreeMap::from([(DEFAULT_ROUTE.to_owned(), route)])
    }

    #[test]
    fn others_take_over_what_cannot_be_used() {
        let routes = Routes::new(&routes(route(&[("a", 1.0), ("b", 1.0), ("c", 0.0)])));
        let route = routes.get("").unwrap();
        for key in 0..100_u32 {
            let key = key.to_le_bytes();
            let chosen = route.choose(&key, |_| true).unwrap();
            assert!(["a", "b"].contains(&chosen));
            let other = route.choose(&key, |name| name != chosen).unwrap();
            assert_ne!(other, chosen);
            assert_eq!(route.choose(&key, |name| name == "c"), None);
        }
        assert!(route.offers("c") && !route.offers("d"));
    }

    #[test]
    fn the_main_deployment_has_the_largest_share_of_those_ready() {
        let routes = Routes::new(&routes(route(&[("a", 1.0), ("b", 2.0), ("c", 0.0)])));
        let route = routes.get(DEFAULT_ROUTE).unwrap();
        assert_eq!(route.main(|_| true), Some("b"));
        assert_eq!(route.main(|name| name == "a"), Some("a"));
        assert_eq!(route.main(|_| false), Some("b"));
    }

    #[test]
    fn a_change_is_seen_by_whoever_asks_and_follows() {
        let table = Routes::new(&BTreeMap::new());
        let watch = table.watch();
        assert!(table.get("").is_none());
        table.replace(&routes(route(&[("a", 1.0)])));
        assert!(watch.has_changed().unwrap());
        let before = table.get("").unwrap();
        table.set(DEFAULT_ROUTE, &route(&[("b", 1.0)]));
        assert_eq!(before.main(|_| true), Some("a"));
        assert_eq!(table.get("").unwrap().main(|_| true), Some("b"));
        table.set("other", &route(&[("c", 1.0)]));
        assert_eq!(table.all().len(), 2);
        table.replace(&BTreeMap::new());
        assert!(table.all().is_empty());
    }

    #[test]
    fn a_shadow_outlives_a_change_of_weights() {
        let with = |weight, shadow: &str| RouteConfig {
            shadow: Some(ShadowConfig::new(shadow)),
            ..route(&[("a", weight)])
        };
        let table = Routes::new(&routes(with(1.0, "b")));
        let shadow = table.get("").unwrap().shadow().unwrap().clone();
        table.set(DEFAULT_ROUTE, &with(2.0, "b"));
        assert!(Arc::ptr_eq(table.get("").unwrap().shadow().unwrap(), &shadow));
        table.replace(&routes(with(2.0, "c")));
        assert!(!Arc::ptr_eq(table.get("").unwrap().shadow().unwrap(), &shadow));
    }
}
