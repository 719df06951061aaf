//! Who may connect and call: encryption of both ports, API keys and tokens.
//!
//! [`Security`] is made of the configuration and can be made anew while the server serves. `listener` makes connections,
//! `layer` asks who calls, `need` says what each call needs, and [`Access`] is what goes with a request from there on.

mod access;
mod account;
mod accounts;
mod connection;
mod denial;
mod error;
mod file;
mod keys;
mod layer;
mod listener;
mod need;
mod signatures;
mod tls;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use tokio_rustls::TlsAcceptor;

use crate::config::{AuthConfig, ClientAuth, Config, Open, TlsConfig};
use crate::failure::Failure;

pub use access::Access;
pub(crate) use account::Place;
pub use denial::Denial;
pub use error::SecurityError;
pub(crate) use keys::fingerprint;
pub use layer::AccessLayer;
pub(crate) use listener::Secured;

use accounts::Accounts;
use keys::Keys;
use tls::Tls;
use tokens::Tokens;

/// The header of keys, where `authorization` is not used.
const API_KEY: &str = "x-api-key";

/// Encryption and access as configured; cloning shares them.
#[derive(Clone)]
pub struct Security {
    state: Arc<ArcSwap<State>>,
    accounts: Accounts,
}

struct State {
    tls: Option<Tls>,
    /// `None`: nobody is asked who they are.
    policy: Option<Policy>,
}

/// Who may call.
struct Policy {
    open: Vec<Open>,
    keys: Keys,
    tokens: Option<Tokens>,
}

/// A port of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Grpc,
    Http,
}

impl Security {
    /// Reads every file that the configuration names.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    pub fn new(config: &Config) -> Result<Self, SecurityError> {
        let accounts = Accounts::default();
        let state = State::load(config, &accounts)?;
        Ok(Self { state: Arc::new(ArcSwap::from_pointee(state)), accounts })
    }

    /// Reads everything anew. Connections there are stay as they are; whoever connects or calls from now on finds what is
    /// configured now.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used; all stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), SecurityError> {
        self.state.store(Arc::new(State::load(config, &self.accounts)?));
        Ok(())
    }

    /// What encrypts a port's connections, if anything does.
    fn acceptor(&self, port: Port) -> Option<TlsAcceptor> {
        let state = self.state.load();
        let tls = state.tls.as_ref()?;
        let server = match port {
            Port::Grpc => Some(&tls.grpc),
            Port::Http => tls.http.as_ref(),
        };
        server.cloned().map(TlsAcceptor::from)
    }

    /// Who makes a call, if that caller may make it.
    ///
    /// # Errors
    ///
    /// [`Failure::Unauthenticated`] if the caller is not known, [`Failure::Forbidden`] if it may not make this call.
    fn admit(&self, path: &str, headers: &HeaderMap, host: Option<IpAddr>) -> Result<Access, Failure> {
        match &self.state.load().policy {
            Some(policy) => policy.admit(path, headers, host),
            None => Ok(Access::anybody(host)),
        }
    }
}

/// Warns where the server listens beyond this machine and does not ask who calls, or has keys sent in the clear.
pub(crate) fn warn_of_openness(config: &Config) {
    let beyond = |address: &SocketAddr| !address.ip().is_loopback();
    if !config.http_address().iter().chain([&config.listen]).any(beyond) {
        return;
    }
    let vouched_for = |tls: &TlsConfig| tls.client_ca.is_some() && tls.client_auth == ClientAuth::Required;
    match (&config.auth, &config.tls) {
        (None, tls) if !tls.as_ref().is_some_and(vouched_for) => {
            tracing::warn!("whoever reaches the server may do everything; configure [auth]");
        }
        (Some(_), None) => tracing::warn!("keys and tokens are not encrypted on their way; configure [tls]"),
        _ => {}
    }
}

impl State {
    fn load(config: &Config, accounts: &Accounts) -> Result<Self, SecurityError> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        let policy = config.auth.as_ref().map(|auth| Policy::load(auth, accounts)).transpose()?;
        Ok(Self { tls, policy })
    }
}

impl Policy {
    fn load(config: &AuthConfig, accounts: &Accounts) -> Result<Self, SecurityError> {
        let keys = Keys::load(config, accounts)?;
        let tokens = config.jwt.as_ref().map(|jwt| Tokens::load(jwt, accounts)).transpose()?;
        if keys.is_empty() && tokens.is_none() {
            return Err(SecurityError::value("auth", "has neither keys nor jwt: nobody could call"));
        }
        Ok(Self { open: config.open.clone(), keys, tokens })
    }

    fn admit(&self, path: &str, headers: &HeaderMap, host: Option<IpAddr>) -> Result<Access, Failure> {
        let need = need::need(path);
        if need.open.is_some_and(|open| self.open.contains(&open)) {
            return Ok(Access::nobody(host));
        }
        let access = self.known(headers).map_err(Failure::Unauthenticated)?;
        access.require(need)?;
        Ok(access)
    }

    /// Who a request says makes it.
    fn known(&self, headers: &HeaderMap) -> Result<Access, Denial> {
        let shown = presented(headers)?;
        match &self.tokens {
            // No key that is made for this server has dots.
            Some(tokens) if shown.matches('.').count() == 2 => tokens.find(shown),
            _ => self.keys.find(shown).ok_or(Denial::Unknown),
        }
    }
}

/// The key or token that a request shows.
fn presented(headers: &HeaderMap) -> Result<&str, Denial> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, shown) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
        return match scheme.eq_ignore_ascii_case("bearer") {
            true => Ok(shown.trim()),
            false => Err(Denial::Missing),
        };
    }
    let value = headers.get(API_KEY).ok_or(Denial::Missing)?;
    value.to_str().map_err(|_| Denial::Unknown)
}

#[cfg(test)]
pub(crate) mod tests;
