//! Which deployment makes an edit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::Service;
use crate::deployment::{Deployment, Lease, State};
use crate::failure::{Failure, shortened};
use crate::metrics::By;
use crate::route::Route;
use crate::security::Access;

/// The header of a request that holds its route key, for gateways; a key in the request itself comes first.
pub(crate) const KEY: &str = "smartedit-route-key";

/// The header of a request that chooses among the deployments of its route, and of a response that tells which one answers.
pub(crate) const DEPLOYMENT: &str = "smartedit-deployment";

/// The field of a request that holds its route key.
const KEY_FIELD: &str = "options.route_key";

/// Bytes of a route key.
const MAX_KEY_BYTES: usize = 256;

/// What the headers of a request say of where it is to go.
#[derive(Debug, Clone)]
pub(crate) struct Hints {
    key: Vec<u8>,
    deployment: Option<String>,
    /// Decides for a request without a key, the same way however often it is asked.
    draw: u64,
}

impl Hints {
    /// What these headers say.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty());
        Self {
            key: header(KEY).map(<[u8]>::to_vec).unwrap_or_default(),
            deployment: header(DEPLOYMENT).map(|name| String::from_utf8_lossy(name).into_owned()),
            draw: fastrand::u64(..),
        }
    }

    /// The same for another request.
    pub(super) fn drawn_anew(&self) -> Self {
        Self { draw: fastrand::u64(..), ..self.clone() }
    }
}

/// Where an order is to go.
#[derive(Clone)]
pub(crate) enum Destination {
    /// To a deployment, or to one of a route's. An empty name is the default route, or the default deployment.
    Named { name: String, hints: Hints },
    /// Where it has been decided.
    Chosen(Chosen),
}

/// The deployment that makes an edit.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) deployment: Lease,
    /// The route that it was chosen by.
    pub(crate) route: Option<Arc<Route>>,
}

impl Service {
    /// Whether edits that name no deployment are served. A full queue does not end that.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub fn ready(&self) -> Result<(), Failure> {
        if self.0.leaving.load(Ordering::SeqCst) || !self.is_accepting() {
            return Err(Failure::ShuttingDown);
        }
        match self.routes().get("") {
            Some(route) if route.targets().any(|(name, _)| self.is_deployment_ready(name)) => Ok(()),
            Some(route) => Err(Failure::RouteUnavailable(route.name().to_string())),
            None => self.deployments().get("")?.editor().map(drop),
        }
    }

    /// The deployment of this name, or, if the name is a route's, the one that most of the route's requests go to. An
    /// empty name is the default route, or the default deployment.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownDeployment`] with the names there are.
    pub(crate) fn find(&self, name: &str, access: &Access) -> Result<Arc<Deployment>, Failure> {
        let found = match self.main_of(name, access) {
            Some(main) => self.deployments().get(&main),
            None => self.deployment(name, access),
        };
        found.map_err(|failure| self.with_routes(failure, access))
    }

    /// The name of the deployment that most of the caller's requests to a route go to; `None` if this is no name of a route
    /// that the caller may use.
    pub(crate) fn main_of(&self, name: &str, access: &Access) -> Option<String> {
        let route = self.routes().get(name).filter(|route| offers(route, access))?;
        route.main(|name| may_use(&route, name, access) && self.is_deployment_ready(name)).map(str::to_owned)
    }

    /// The routes that a caller may use, by name.
    pub(crate) fn visible_routes(&self, access: &Access) -> Vec<Arc<Route>> {
        self.routes().all().values().filter(|route| offers(route, access)).cloned().collect()
    }

    /// Makes sure that a deployment of this name would not be hidden by a route.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] with this field.
    pub(super) fn check_is_no_route(&self, field: &str, name: &str) -> Result<(), Failure> {
        match self.routes().all().contains_key(name) {
            true => Err(Failure::invalid(field, "is the name of a route")),
            false => Ok(()),
        }
    }

    /// The deployment that makes an edit.
    ///
    /// # Errors
    ///
    /// There is none of this name, none of the route's can be used, or the request asks for one that it may not have.
    pub(super) fn choose(
        &self,
        destination: Destination,
        key: &str,
        access: &Access,
    ) -> Result<Chosen, Failure> {
        let (name, hints) = match destination {
            Destination::Named { name, hints } => (name, hints),
            Destination::Chosen(chosen) => return Ok(chosen),
        };
        match self.routes().get(&name).filter(|route| offers(route, access)) {
            Some(route) => self.choose_by(route, &hints, key, access),
            None => {
                let found = self.lease(&name, access);
                let found = found.map_err(|failure| self.with_routes(failure, access))?;
                match hints.deployment.filter(|asked| asked != found.name()) {
                    Some(_) => Err(Failure::invalid(
                        DEPLOYMENT,
                        "chooses among a route's deployments, and the request names none",
                    )),
                    None => Ok(Chosen { deployment: found, route: None }),
                }
            }
        }
    }

    fn choose_by(
        &self,
        route: Arc<Route>,
        hints: &Hints,
        key: &str,
        access: &Access,
    ) -> Result<Chosen, Failure> {
        let (key, field) = match (key, hints.key.as_slice()) {
            ("", key) => (key, KEY),
            (key, _) => (key.as_bytes(), KEY_FIELD),
        };
        if key.len() > MAX_KEY_BYTES {
            let message = format!("has {} bytes, at most {MAX_KEY_BYTES} are allowed", key.len());
            return Err(Failure::invalid(field, message));
        }
        let draw = hints.draw.to_le_bytes();
        let is_ready = |name: &str| may_use(&route, name, access) && self.is_deployment_ready(name);
        let (chosen, by) = match &hints.deployment {
            Some(asked) => (Some(overridden(&route, asked, access)?), By::Override),
            None if key.is_empty() => (route.choose(&draw, is_ready), By::Chance),
            None => (route.choose(key, is_ready), By::Key),
        };
        // It may have been unloaded since it was looked at; whoever asks again gets another.
        let chosen = chosen.and_then(|name| self.deployments().lease(name).ok());
        let deployment = chosen.ok_or_else(|| Failure::RouteUnavailable(route.name().to_string()))?;
        self.metrics().chosen(route.name(), deployment.name(), by);
        Ok(Chosen { deployment, route: Some(route) })
    }

    fn is_deployment_ready(&self, name: &str) -> bool {
        self.deployments().get(name).is_ok_and(|found| matches!(found.state(), State::Ready(_)))
    }

    /// The failure to find a deployment, which also tells the names of routes.
    fn with_routes(&self, failure: Failure, access: &Access) -> Failure {
        match failure {
            Failure::UnknownDeployment { name, known } => {
                let routes =
                    self.visible_routes(access).into_iter().map(|route| format!("`{}`", route.name()));
                let known = Some(known).filter(|known| known != "none").into_iter().chain(routes);
                Failure::UnknownDeployment { name, known: known.collect::<Vec<_>>().join(", ") }
            }
            other => other,
        }
    }
}

/// Whether a caller may use a route: it may use the route by its name, or one of the route's deployments by theirs.
fn offers(route: &Route, access: &Access) -> bool {
    access.may_use(route.name()) || route.targets().any(|(name, _)| access.may_use(name))
}

/// Whether a caller's requests to a route may go to a deployment.
fn may_use(route: &Route, deployment: &str, access: &Access) -> bool {
    access.may_use(route.name()) || access.may_use(deployment)
}

/// The deployment of a route that a request asks for.
fn overridden<'a>(route: &Route, asked: &'a str, access: &Access) -> Result<&'a str, Failure> {
    if !route.config().overridable {
        let message = format!("cannot be chosen: the route `{}` does not allow that", route.name());
        return Err(Failure::invalid(DEPLOYMENT, message));
    }
    if !route.offers(asked) || !may_use(route, asked, access) {
        let message =
            format!("is `{}`, which is no deployment of the route `{}`", shortened(asked), route.name());
        return Err(Failure::invalid(DEPLOYMENT, message));
    }
    Ok(asked)
}
