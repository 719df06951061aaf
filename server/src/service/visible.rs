//! The deployments that a caller may use. Others do not exist for it.

use std::sync::Arc;

use super::Service;
use crate::deployment::{Deployment, Lease};
use crate::failure::{Failure, shortened};
use crate::security::Access;

impl Service {
    /// The deployment of this name, or the default one if the name is empty, to look at, if the caller may use it.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownDeployment`] with the names there are for this caller; [`Failure::Forbidden`] if it is the default
    /// one that the caller may not use.
    pub(crate) fn deployment(&self, name: &str, access: &Access) -> Result<Arc<Deployment>, Failure> {
        self.permitted(name, access, self.deployments().get(name), |found| found.name())
    }

    /// The same deployment, to use.
    ///
    /// # Errors
    ///
    /// As [`Service::deployment`].
    pub(crate) fn lease(&self, name: &str, access: &Access) -> Result<Lease, Failure> {
        self.permitted(name, access, self.deployments().lease(name), |found| found.name())
    }

    /// All versions of all deployments that the caller may use, sorted by name and version.
    pub(crate) fn visible(&self, access: &Access) -> Vec<Arc<Deployment>> {
        let mut deployments = self.deployments().all();
        deployments.retain(|deployment| access.may_use(deployment.name()));
        deployments
    }

    fn permitted<T>(
        &self,
        name: &str,
        access: &Access,
        found: Result<T, Failure>,
        owner: impl Fn(&T) -> &str,
    ) -> Result<T, Failure> {
        let wanted = match found {
            Ok(found) if access.may_use(owner(&found)) => return Ok(found),
            Ok(found) => owner(&found).to_owned(),
            Err(Failure::UnknownDeployment { name, .. }) => name,
            Err(failure) => return Err(failure),
        };
        let labels = self.visible(access);
        let labels: Vec<_> =
            labels.iter().map(|other| format!("`{}`", self.deployments().label(other))).collect();
        let known = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        if name.is_empty() && !access.may_use(&wanted) {
            let message = format!("you may not use the default deployment; name one of yours: {known}");
            return Err(Failure::Forbidden(message));
        }
        let name = if name.is_empty() { wanted } else { shortened(name) };
        Err(Failure::UnknownDeployment { name, known })
    }
}
