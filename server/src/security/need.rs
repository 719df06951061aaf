//! What each call needs: the one table.

use crate::config::{Open, Permission};

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// What opens it to everybody.
    pub(super) open: Option<Open>,
    /// Permissions of which one does; where there are none, every caller who is known may call.
    pub(super) any_of: &'static [Permission],
}

/// What a call needs that is not in the table.
const USE: Need = Need { open: None, any_of: &[Permission::Edit] };
const SEE: Need = Need { open: None, any_of: &[Permission::Edit, Permission::Admin] };
const ADMINISTER: Need = Need { open: None, any_of: &[Permission::Admin] };
const HEALTH: Need = Need { open: Some(Open::Health), any_of: &[] };
const REFLECTION: Need = Need { open: Some(Open::Reflection), any_of: &[] };
const METRICS: Need = Need { open: Some(Open::Metrics), any_of: &[Permission::Metrics] };

/// Calls that need something else than [`USE`], by path; a `*` stands for all that may follow.
const NEEDS: [(&str, Need); 15] = [
    ("/healthz", HEALTH),
    ("/readyz", HEALTH),
    ("/metrics", METRICS),
    ("/v1/models", SEE),
    ("/v1/models/*", SEE),
    ("/grpc.health.v1.Health/*", HEALTH),
    ("/grpc.reflection.*", REFLECTION),
    ("/smartedit.v1.AdminService/*", ADMINISTER),
    ("/smartedit.v1.SmartEditService/ListDeployments", SEE),
    ("/smartedit.v1.SmartEditService/GetDeployment", SEE),
    ("/inference.GRPCInferenceService/ServerLive", HEALTH),
    ("/inference.GRPCInferenceService/ServerReady", HEALTH),
    ("/inference.GRPCInferenceService/RepositoryIndex", SEE),
    ("/inference.GRPCInferenceService/RepositoryModelLoad", ADMINISTER),
    ("/inference.GRPCInferenceService/RepositoryModelUnload", ADMINISTER),
];

/// What a call of this path needs.
pub(super) fn need(path: &str) -> Need {
    let listed = |entry: &str| match entry.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == entry,
    };
    NEEDS.iter().find(|(entry, _)| listed(entry)).map_or(USE, |(_, need)| *need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_the_permission_to_edit() {
        for path in ["/smartedit.v1.SmartEditService/Edit", "/v1/images/edits", "/a.New/Method", "/", ""] {
            assert_eq!(need(path), USE, "{path}");
        }
        assert_eq!(need("/healthz/more"), USE);
        assert_eq!(need("/grpc.health.v1.Health/Watch"), HEALTH);
        assert_eq!(need("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"), REFLECTION);
        assert_eq!(need("/smartedit.v1.AdminService/LoadDeployment"), ADMINISTER);
        assert_eq!(need("/inference.GRPCInferenceService/RepositoryModelUnload"), ADMINISTER);
    }
}
