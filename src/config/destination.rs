//! A `[[destinations]]` table: where objects are stored.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    Mistakes, Problem,
    document::KeyPath,
    files::{Env, NamedFile, expand},
    secret,
    values::name,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Name by which reports refer to it.
    pub(super) name: String,
    /// `file:///PATH`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. A relative path is
    /// written `file://./PATH`.
    url: String,
    /// Options of the object store, by object_store's own names, such as `aws_region`. All values are strings. Options
    /// that are not given are taken from the environment (`AWS_REGION`).
    #[serde(default)]
    options: BTreeMap<String, secret::Raw>,
    /// Whether files are forced to disk before they count as stored. Only for `file://`. A warning is logged if the
    /// file system cannot force the names of files to disk.
    #[schemars(extend("default" = FSYNC))]
    fsync: Option<bool>,
}

/// Applies to `file://` alone; elsewhere the key is refused, so the raw type keeps whether it is given.
const FSYNC: bool = true;

/// A place where objects are stored.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Name by which reports refer to it.
    pub name: String,
    /// A `file://`, `s3://`, `gs://` or `az://` URL.
    pub url: Url,
    /// object_store's own option names and values; may contain credentials.
    pub options: BTreeMap<String, SecretString>,
    /// Whether files are forced to disk before they count as stored (`file://` only).
    pub fsync: bool,
    /// PEM file with extra certificate authorities, as of [`Network::ca_file`](super::Network::ca_file).
    pub ca_file: Option<NamedFile>,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

impl Destination {
    /// Whether it is a directory of this machine.
    pub fn is_directory(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// Whether `other` is the same directory under the same name, in any configuration.
    pub fn is_same_directory(&self, other: &Self) -> bool {
        self.is_directory() && (&self.name, &self.url, self.fsync) == (&other.name, &other.url, other.fsync)
    }
}

impl Raw {
    pub(super) fn check(
        &self,
        at: &KeyPath<'_>,
        ca_file: Option<&NamedFile>,
        env: &Env,
    ) -> Result<Destination, Mistakes> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.keep(name(&self.name, &at.key("name")));
        let url = mistakes.keep(url(&self.url, &at.key("url"), env));
        if let Some(url) = url.as_ref().filter(|url| self.fsync.is_some() && url.scheme() != "file") {
            let only = format!("only a file:// destination has it, not {}://", url.scheme());
            mistakes.add(at.key("fsync").problem(only));
        }
        mistakes.finish(|| {
            Some(Destination {
                name: name?,
                url: url?,
                options: self.options.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
                fsync: self.fsync.unwrap_or(FSYNC),
                ca_file: ca_file.cloned(),
                place: at.shown(),
            })
        })
    }
}

fn url(text: &str, at: &KeyPath<'_>, env: &Env) -> Result<Url, Problem> {
    let expected = || {
        at.problem(
            "expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
        )
    };
    let url = match text.strip_prefix("file://") {
        Some(path) => {
            let path = expand(path, at, env)?;
            if path.starts_with("./") || path.starts_with("../") {
                let here = std::path::absolute(".")
                    .map_err(|error| at.problem(format_args!("the working directory cannot be found: {error}")))?;
                Url::from_directory_path(here).ok().and_then(|here| here.join(&path).ok())
            } else if path.starts_with('/') {
                Url::parse(&format!("file://{path}")).ok()
            } else {
                return Err(at.problem("a path after file:// begins with \"/\", or with \"./\" when it is relative"));
            }
        }
        None => Url::parse(text).ok().filter(|url| matches!(url.scheme(), "s3" | "gs" | "az") && url.has_host()),
    };
    let url = url.ok_or_else(expected)?;
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err(at.problem("only a bucket and a prefix are expected here; credentials and endpoints are options"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            at.problem("a destination's URL ends before \"?\" and \"#\"; write them as %3F and %23 if they are meant")
        );
    }
    Ok(url)
}
