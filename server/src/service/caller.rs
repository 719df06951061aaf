//! On whose account an edit is made.

use std::net::SocketAddr;

use tonic::Request;

use crate::work::Caller;

/// Characters of a caller's name.
pub(super) const MAX_CHARS: usize = 128;

/// The host that a request comes from, for requests that name no caller.
pub(super) fn peer<T>(request: &Request<T>) -> Caller {
    host(request.remote_addr())
}

/// The host of an address, if it is known.
pub(crate) fn host(address: Option<SocketAddr>) -> Caller {
    address.map_or_else(|| Caller::from(""), |address| format!("host {}", address.ip()).into())
}

/// A caller by the name that a request gives.
pub(super) fn named(name: &str) -> Caller {
    format!("name {name}").into()
}
