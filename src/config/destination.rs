//! A `[[destinations]]` table: where objects are stored.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{Mistakes, Problem, document::KeyPath, files::NamedFile, secret, values::name};

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
pub struct DestinationSettings {
    /// Name by which reports refer to it.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// object_store's own option names and values; may contain credentials.
    pub options: BTreeMap<String, SecretString>,
    /// Whether files are forced to disk before they count as stored (`file://` only).
    pub fsync: bool,
    /// PEM file with extra certificate authorities, as of [`Network::ca_file`](super::Network::ca_file).
    pub ca_file: Option<NamedFile>,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

/// Where a destination is. Its URL is parsed here alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A directory of this machine (`file://`); an absolute path.
    Directory(PathBuf),
    /// A bucket of an object store.
    Bucket(BucketLocation),
}

/// A bucket, and the part of it that belongs to a destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketLocation {
    /// Whose object store it is.
    pub provider: Provider,
    /// The name of the bucket; in Azure, of the container.
    pub bucket: String,
    /// The prefix of the keys of all objects, without slashes around it; may be empty.
    pub prefix: String,
}

/// A kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// S3 and compatible stores (`s3://`).
    S3,
    /// Google Cloud Storage (`gs://`).
    GoogleCloud,
    /// Azure Blob Storage (`az://`).
    Azure,
}

impl Provider {
    /// The scheme of its URLs.
    fn scheme(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::GoogleCloud => "gs",
            Provider::Azure => "az",
        }
    }
}

const EXPECTED: &str =
    "expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";

/// Parses a URL. The path of a `file://` URL must be absolute.
impl FromStr for Location {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = |message: &str| Problem::new(message.to_owned());
        let url = Url::parse(text).map_err(|_| problem(EXPECTED))?;
        let provider = match url.scheme() {
            // `file:x` would be a path below the root of the file system.
            "file" if text.starts_with("file:///") => None,
            "s3" => Some(Provider::S3),
            "gs" => Some(Provider::GoogleCloud),
            "az" => Some(Provider::Azure),
            _ => return Err(problem(EXPECTED)),
        };
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
            return Err(problem("only a bucket and a prefix are expected here; credentials and endpoints are options"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(problem(
                "a destination's URL ends before \"?\" and \"#\"; write them as %3F and %23 within a path",
            ));
        }
        let Some(provider) = provider else {
            return url.to_file_path().map(Location::Directory).map_err(|()| problem(EXPECTED));
        };
        let bucket = url.host_str().filter(|name| !name.is_empty()).ok_or_else(|| problem(EXPECTED))?.to_owned();
        let prefix = percent_decode_str(url.path()).decode_utf8();
        let prefix = prefix.map_err(|_| problem("the prefix is not UTF-8 text"))?;
        Ok(Location::Bucket(BucketLocation { provider, bucket, prefix: prefix.trim_matches('/').to_owned() }))
    }
}

impl DestinationSettings {
    /// Whether it is a directory of this machine.
    pub fn is_directory(&self) -> bool {
        matches!(self.location, Location::Directory(_))
    }

    /// Whether `other` is the same directory under the same name, in any configuration.
    pub fn is_same_directory(&self, other: &Self) -> bool {
        self.is_directory() && (&self.name, &self.location, self.fsync) == (&other.name, &other.location, other.fsync)
    }
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>, ca_file: Option<&NamedFile>) -> Result<DestinationSettings, Mistakes> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.keep(name(&self.name, &at.key("name")));
        let location = mistakes.keep(location(&self.url, &at.key("url")));
        if let (Some(Location::Bucket(location)), Some(_)) = (&location, self.fsync) {
            let only = format!("only for file:// destinations, not {}://", location.provider.scheme());
            mistakes.add(at.key("fsync").problem(only));
        }
        mistakes.finish(|| {
            Some(DestinationSettings {
                name: name?,
                location: location?,
                options: self.options.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
                fsync: self.fsync.unwrap_or(FSYNC),
                ca_file: ca_file.cloned(),
                place: at.shown(),
            })
        })
    }
}

/// The location at `url`, in which a relative path starts at the working directory.
fn location(url: &str, at: &KeyPath<'_>) -> Result<Location, Problem> {
    let url = match url.strip_prefix("file://") {
        Some(path) => {
            if path.starts_with("./") || path.starts_with("../") {
                let here = std::path::absolute(".")
                    .map_err(|error| at.problem(format_args!("the working directory cannot be found: {error}")))?;
                let url = Url::from_directory_path(here).ok().and_then(|here| here.join(path).ok());
                url.ok_or_else(|| at.problem(EXPECTED))?.into()
            } else if path.starts_with('/') {
                format!("file://{path}")
            } else {
                return Err(at.problem("a path after file:// begins with \"/\", or with \"./\" when it is relative"));
            }
        }
        None => url.to_owned(),
    };
    url.parse().map_err(|problem: Problem| at.problem(problem))
}
