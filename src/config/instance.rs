//! The `[instance]` table: how notifications name this moesync, and where they link to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Mistakes, Problem, address, document::KeyPath, values::name};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Name of this moesync in every notification, such as `production`.
    name: String,
    /// Address of its status page as a browser opens it, such as `https://moesync.example.com`. Notifications link to it,
    /// and to a report's own page where they are about one report. Default: none.
    page_url: Option<String>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { name: "moesync".to_owned(), page_url: None }
    }
}

/// How notifications name this moesync, and where they link to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The address of its status page; ends with a slash.
    pub page_url: Option<Url>,
}

impl Instance {
    /// The address of the page of `report`, a workspace and the id of a report there; without one, of the status page.
    /// `None` if no address is configured.
    pub fn page(&self, report: Option<(&str, &str)>) -> Option<String> {
        let page = self.page_url.as_ref()?;
        let Some((workspace, report)) = report else { return Some(page.to_string()) };
        let mut page = page.join("report").ok()?;
        page.query_pairs_mut().append_pair("workspace", workspace).append_pair("report", report);
        Some(page.to_string())
    }
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Instance, Mistakes> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.keep(name(&self.name, &at.key("name")));
        let page_url = self.page_url.as_deref().map(|text| page_url(text, &at.key("page_url")));
        let page_url = mistakes.keep(page_url.transpose());
        mistakes.finish(|| Some(Instance { name: name?, page_url: page_url? }))
    }
}

fn page_url(text: &str, at: &KeyPath<'_>) -> Result<Url, Problem> {
    // Not shown: it may contain a password.
    let wrong = || {
        at.problem(
            "expected an address such as \"https://moesync.example.com\", without user, password, \"?\" and \"#\"",
        )
    };
    let mut url = address::parse(text).ok_or_else(wrong)?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}
