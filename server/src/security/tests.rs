//! A server that is locked, through the real client.

mod access;
pub(crate) mod authority;
mod tls;
mod tokens;
