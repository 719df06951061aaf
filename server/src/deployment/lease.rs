//! The right to use a deployment.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use super::Deployment;

/// A deployment that is about to be used, or is being used: while there is a lease of it, it takes work and its model
/// is there, though another version have taken its place.
#[derive(Clone)]
pub struct Lease {
    deployment: Arc<Deployment>,
    _held: Receiver<()>,
}

impl Lease {
    pub(super) fn of(deployment: &Arc<Deployment>) -> Self {
        Self { deployment: deployment.clone(), _held: deployment.leases.subscribe() }
    }
}

impl Deref for Lease {
    type Target = Arc<Deployment>;

    fn deref(&self) -> &Arc<Deployment> {
        &self.deployment
    }
}
