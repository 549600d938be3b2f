//! The paths of the JSON APIs, in both versions.

use crate::config::SourceKind;

/// Campaign statistics, which have one version only.
pub(super) const STATS: &str = "/core-services/v1/campaign-stats";
pub(super) const SEARCH: &str = "/core-services/v1/campaigns/search";
pub(super) const META: &str = "/core-services/v1/campaigns/meta";
pub(super) const EXECUTIONS: &str = "/core-services/v1/campaigns/{id}/executions";
pub(super) const SEARCH_V5: &str = "/v5/campaigns/search";
pub(super) const META_V5: &str = "/v5/campaigns/meta";

/// A JSON API in all its versions. Rate limits apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Api {
    Stats,
    Search,
    Meta,
    Executions,
}

/// The version of headers, fields and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Version {
    V1,
    V5,
}

/// One API in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) api: Api,
    pub(super) version: Version,
}

impl Endpoint {
    pub(super) const fn v1(api: Api) -> Endpoint {
        Endpoint { api, version: Version::V1 }
    }

    pub(super) const fn v5(api: Api) -> Endpoint {
        Endpoint { api, version: Version::V5 }
    }

    /// The endpoint at a decoded path.
    pub(super) fn of(path: &str) -> Option<Endpoint> {
        Some(match path {
            STATS => Endpoint::v1(Api::Stats),
            SEARCH => Endpoint::v1(Api::Search),
            META => Endpoint::v1(Api::Meta),
            SEARCH_V5 => Endpoint::v5(Api::Search),
            META_V5 => Endpoint::v5(Api::Meta),
            other => {
                let (before, after) = EXECUTIONS.split_once("{id}")?;
                other.strip_prefix(before)?.strip_suffix(after)?;
                Endpoint::v1(Api::Executions)
            }
        })
    }

    /// The source that reads it.
    pub(super) fn source(self) -> SourceKind {
        match self.api {
            Api::Stats => SourceKind::CampaignStats,
            Api::Search => SourceKind::Campaigns,
            Api::Meta => SourceKind::CampaignMeta,
            Api::Executions => SourceKind::Executions,
        }
    }
}
