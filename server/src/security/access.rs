//! Who calls, and what they may do.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::Extensions;

use super::account::{Account, Place};
use super::need::Need;
use crate::config::{Limits, Permission};
use crate::failure::Failure;
use crate::work::Caller;

/// Who calls, and what they may do. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who is to have a fair share.
    caller: Caller,
    /// Who calls, for logs; `None` where nobody is asked.
    name: Option<Arc<str>>,
    grant: Arc<Grant>,
    /// Of the deployments that are granted, those that one token is for.
    narrower: Option<Arc<[String]>>,
}

/// What a key or a token grants.
#[derive(Debug)]
pub(super) struct Grant {
    /// Whose grant it is, for metrics: one of the names that are configured.
    pub(super) label: Arc<str>,
    pub(super) permissions: Vec<Permission>,
    /// Names of deployments, or their beginnings followed by `*`.
    pub(super) deployments: Vec<String>,
    pub(super) account: Arc<Account>,
}

impl Grant {
    fn of_anybody(permissions: Vec<Permission>, deployments: Vec<String>) -> Self {
        Self { label: ANYBODY.into(), permissions, deployments, account: Arc::default() }
    }
}

/// The label of callers where nobody is asked who they are.
const ANYBODY: &str = "anybody";

impl Access {
    /// What the security layer found out of a request; nobody's without that layer.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::nobody(None))
    }

    /// Everybody's where nothing is configured: all is open.
    pub fn anybody(host: Option<IpAddr>) -> Self {
        static ALL: LazyLock<Arc<Grant>> =
            LazyLock::new(|| Arc::new(Grant::of_anybody(Permission::ALL.to_vec(), vec!["*".to_owned()])));
        Self { caller: named_by(host), name: None, grant: ALL.clone(), narrower: None }
    }

    /// Of a caller who has shown nothing, for what is open.
    pub(super) fn nobody(host: Option<IpAddr>) -> Self {
        static NONE: LazyLock<Arc<Grant>> =
            LazyLock::new(|| Arc::new(Grant::of_anybody(Vec::new(), Vec::new())));
        Self { caller: named_by(host), name: None, grant: NONE.clone(), narrower: None }
    }

    /// Of a caller who has shown what this is granted to.
    pub(super) fn granted(name: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        let name = name.into();
        Self { caller: name.clone(), name: Some(name), grant, narrower: None }
    }

    /// The same for fewer deployments.
    #[must_use]
    pub(super) fn narrowed(self, deployments: Vec<String>) -> Self {
        Self { narrower: Some(deployments.into()), ..self }
    }

    /// Who is to have a fair share.
    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Who calls, for logs, where that is asked.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Who calls, for metrics: one of the names that are configured.
    pub(crate) fn label(&self) -> &Arc<str> {
        &self.grant.label
    }

    /// Who is to have a fair share where a request says on whose account it is.
    ///
    /// # Errors
    ///
    /// [`Failure::Forbidden`] if this caller may not say that.
    pub(crate) fn on_behalf_of(&self, named: &str) -> Result<Caller, Failure> {
        if !self.has(Permission::Delegate) {
            return Err(Failure::Forbidden(format!(
                "options.caller needs the permission `{}`",
                Permission::Delegate.name()
            )));
        }
        Ok(match &self.name {
            Some(name) => format!("{name} for {named}").into(),
            None => format!("name {named}").into(),
        })
    }

    /// Whether a deployment may be used and seen.
    pub(crate) fn may_use(&self, deployment: &str) -> bool {
        let within = |narrower: &Arc<[String]>| is_listed(deployment, narrower);
        is_listed(deployment, &self.grant.deployments) && self.narrower.as_ref().is_none_or(within)
    }

    /// The limits of this caller's requests.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        self.grant.account.narrow(limits)
    }

    /// Counts so many requests.
    ///
    /// # Errors
    ///
    /// [`Failure::RateLimited`] if these are too many by now.
    pub(crate) fn charge(&self, requests: u32) -> Result<(), Failure> {
        self.grant.account.charge(requests)
    }

    /// Lets one more request be received.
    ///
    /// # Errors
    ///
    /// [`Failure::CallerBusy`] if as many are as may.
    pub(crate) fn receive(&self) -> Result<Place, Failure> {
        self.grant.account.receive()
    }

    /// Lets one more edit or stage wait and be worked on.
    ///
    /// # Errors
    ///
    /// [`Failure::CallerBusy`] if as many are as may.
    pub(crate) fn work(&self) -> Result<Place, Failure> {
        self.grant.account.work()
    }

    /// That a call may be made.
    pub(super) fn require(&self, need: Need) -> Result<(), Failure> {
        if need.any_of.is_empty() || need.any_of.iter().any(|permission| self.has(*permission)) {
            return Ok(());
        }
        let names: Vec<_> = need.any_of.iter().map(|permission| format!("`{}`", permission.name())).collect();
        Err(Failure::Forbidden(format!("this call needs the permission {}", names.join(" or "))))
    }

    fn has(&self, permission: Permission) -> bool {
        self.grant.permissions.contains(&permission)
    }
}

/// Whether a deployment is among names and beginnings of names.
fn is_listed(deployment: &str, list: &[String]) -> bool {
    list.iter().any(|listed| match listed.strip_suffix('*') {
        Some(beginning) => deployment.starts_with(beginning),
        None => deployment == listed,
    })
}

/// A caller who is known by where it calls from.
fn named_by(host: Option<IpAddr>) -> Caller {
    host.map_or_else(|| "".into(), |host| format!("host {host}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(deployments: &[&str], permissions: &[Permission]) -> Access {
        let grant = Grant {
            label: "studio".into(),
            permissions: permissions.to_vec(),
            deployments: deployments.iter().map(|name| (*name).to_owned()).collect(),
            account: Arc::default(),
        };
        Access::granted("key studio", Arc::new(grant))
    }

    #[test]
    fn deployments_are_allowed_by_name_or_beginning() {
        let access = of(&["cats", "dogs-*"], &[]);
        for (deployment, allowed) in [
            ("cats", true),
            ("cats-2", false),
            ("dogs-", true),
            ("dogs-2", true),
            ("dogs", false),
            ("", false),
        ] {
            assert_eq!(access.may_use(deployment), allowed, "{deployment}");
        }
        assert!(!of(&[], &[]).may_use("cats"));
        assert!(Access::anybody(None).may_use("cats"));
    }

    #[test]
    fn who_was_not_asked_gets_nothing() {
        let lost = Access::of(&Extensions::new());
        assert!(!lost.may_use("cats"));
        let edit = Need { open: None, any_of: &[Permission::Edit] };
        assert!(matches!(lost.require(edit), Err(Failure::Forbidden(_))));
    }

    #[test]
    fn only_delegates_say_on_whose_account_an_edit_is() {
        assert!(matches!(of(&[], &[Permission::Edit]).on_behalf_of("ann"), Err(Failure::Forbidden(_))));
        assert_eq!(&*of(&[], &[Permission::Delegate]).on_behalf_of("ann").unwrap(), "key studio for ann");
        assert_eq!(&*Access::anybody(None).on_behalf_of("ann").unwrap(), "name ann");
    }
}
