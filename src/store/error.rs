//! Errors of destinations.
//!
//! This file owns their wording and the removal of secrets: messages of destinations and their libraries may hold
//! credentials, signatures in URLs, or a response that repeats the signed request.

use std::{error::Error, fmt, io};

use secrecy::ExposeSecret;

use super::credentials::NoCredentials;
use crate::config;

/// Longest cause in an error, in characters.
const CAUSE_CHARS: usize = 1_000;

/// Shortest value that is removed from messages, in characters: shorter ones are not secrets, and occur in ordinary words.
const SECRET_CHARS: usize = 6;

/// Options whose values may be shown.
const SHOWN_OPTIONS: [&str; 8] =
    ["endpoint", "region", "bucket", "container", "timeout", "allow_http", "virtual_hosted", "conditional"];

/// A destination refused or could not be reached.
///
/// There is one kind only: every such failure is retried later, and the text says what to do. The cause is part
/// of the text, not chained, because secrets are removed from it first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StoreError {
    operation: &'static str,
    key: String,
    destination: String,
    cause: String,
    hint: Option<&'static str>,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} ", self.operation)?;
        if !self.key.is_empty() {
            write!(f, "`{}` at ", self.key)?;
        }
        write!(f, "destination `{}`: {}", self.destination, self.cause)?;
        match self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Creates the errors of one destination, without its secrets.
pub(super) struct Reporter {
    destination: String,
    secrets: Vec<String>,
}

impl Reporter {
    pub(super) fn new(destination: &config::DestinationSettings) -> Self {
        let options = destination.options.iter().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !SHOWN_OPTIONS.iter().any(|shown| name.contains(shown))
        });
        let mut secrets: Vec<String> = options.map(|(_, value)| value.expose_secret().to_owned()).collect();
        let credentials = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let provider = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
            let secret = ["KEY", "SECRET", "TOKEN", "PASSWORD", "SAS"].iter().any(|word| name.contains(word));
            (provider && secret).then_some(value)
        });
        secrets.extend(credentials);
        secrets.retain(|secret| secret.chars().count() >= SECRET_CHARS);
        // Longest first, because one secret may contain another.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Reporter { destination: destination.name.clone(), secrets }
    }

    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    pub(super) fn text(&self, operation: &'static str, key: &str, cause: String) -> StoreError {
        self.error(operation, key, &cause, None)
    }

    pub(super) fn io(&self, operation: &'static str, key: &str, error: &io::Error) -> StoreError {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room there"),
            io::ErrorKind::PermissionDenied => Some("let the user that moesync runs as write there"),
            io::ErrorKind::ReadOnlyFilesystem => Some("mount it writable"),
            io::ErrorKind::InvalidFilename => Some("give the report a shorter name or id"),
            _ => None,
        };
        self.error(operation, key, &error.to_string(), hint)
    }

    pub(super) fn remote(&self, operation: &'static str, key: &str, error: &object_store::Error) -> StoreError {
        let cause = causes(error);
        let hint = hint_of_code(&cause).or(match error {
            object_store::Error::Unauthenticated { .. } => {
                Some("check the credentials in its `options` or environment")
            }
            object_store::Error::PermissionDenied { .. } => {
                Some("check the credentials, and that they may list, read, write and delete there")
            }
            object_store::Error::NotFound { .. } => Some("check that the bucket exists"),
            _ => None,
        });
        self.error(operation, key, &cause, hint)
    }

    /// A refusal of a request that needs the permission to list.
    pub(super) fn unlisted(&self, operation: &'static str, key: &str, error: &object_store::Error) -> StoreError {
        let hint = "its credentials may write and read, so it is listing that is not allowed: allow s3:ListBucket on the \
                    bucket (storage.objects.list at Google)";
        self.error(operation, key, &causes(error), Some(hint))
    }

    fn error(&self, operation: &'static str, key: &str, cause: &str, hint: Option<&'static str>) -> StoreError {
        let cause = self.without_secrets(cause);
        StoreError { operation, key: key.to_owned(), destination: self.destination.clone(), cause, hint }
    }

    fn without_secrets(&self, cause: &str) -> String {
        let mut cause = without_url_secrets(&without_document(cause));
        for secret in &self.secrets {
            cause = cause.replace(secret, "[secret]");
        }
        cause.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CAUSE_CHARS).collect()
    }
}

/// An error with its causes. If credentials are missing, only that.
fn causes(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if error.is::<NoCredentials>() {
            return cause;
        }
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// What to do about an error that only the message of the store or of TLS identifies.
fn hint_of_code(cause: &str) -> Option<&'static str> {
    const HINTS: [(&str, &str); 7] = [
        ("<Code>RequestTimeTooSkewed</Code>", "set this machine's clock (`timedatectl`): the store's clock differs"),
        ("<Code>ExpiredToken</Code>", "its credentials have expired: renew them"),
        (
            "x-amz-checksum-",
            "a bucket with Object Lock wants a checksum with each object: set options = { checksum_algorithm = \"sha256\" } \
             on this destination",
        ),
        (
            "URL scheme is not allowed",
            "for an endpoint with http:// set options = { allow_http = \"true\" } on this destination",
        ),
        (
            "status code: 30",
            "it answers with a redirect, which is not followed, because its target would receive credentials: set the \
             endpoint that it leads to",
        ),
        (
            "redirect without LOCATION",
            "the bucket is in another region: set options = { aws_region = \"…\" } on this destination",
        ),
        ("UnknownIssuer", "if its certificate authority is a private one, name it in network.ca_file"),
    ];
    HINTS.iter().find(|(code, _)| cause.contains(code)).map(|(_, hint)| *hint)
}

/// Reduces an XML error document to code and message: the rest may repeat the signed request, tokens included.
fn without_document(cause: &str) -> String {
    let Some(start) = cause.find("<?xml").or_else(|| cause.find("<Error")) else { return cause.to_owned() };
    let (before, document) = cause.split_at(start);
    let field = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.trim())
    };
    let fields: Vec<&str> = ["Code", "Message"].into_iter().filter_map(field).collect();
    format!("{before}{}", fields.join(": "))
}

/// URLs without user, password and query.
fn without_url_secrets(cause: &str) -> String {
    let mut rest = cause;
    let mut shown = String::with_capacity(cause.len());
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, ')' | '"' | '\'' | '`' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
        shown.push_str(before);
        shown.push_str(authority.rsplit('@').next().unwrap_or_default());
        shown.push_str(path);
        rest = tail;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter() -> Reporter {
        Reporter::new(&config::DestinationSettings {
            name: "lake".to_owned(),
            location: "s3://reports".parse().unwrap(),
            options: [("aws_secret_access_key", "canary-secret"), ("aws_endpoint", "http://localhost:9000")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            fsync: true,
            ca_file: None,
            place: String::new(),
        })
    }

    #[test]
    fn an_error_says_what_was_done_to_what_and_what_to_do() {
        let error = reporter().io("store", "acme/daily/x.zip", &io::ErrorKind::StorageFull.into());
        insta::assert_snapshot!(error, @"could not store `acme/daily/x.zip` at destination `lake`: no storage space; make room there");
    }

    #[test]
    fn no_secret_is_repeated_from_an_option_a_url_or_an_answer() {
        let cause = "PUT http://user:canary@localhost:9000/reports/x?X-Signature=canary with canary-secret - 403 Forbidden: \
                     <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>It differs.</Message>\
                     <CanonicalRequest>x-amz-security-token:canary</CanonicalRequest></Error>";
        let error = reporter().text("store", "x", cause.to_owned());
        insta::assert_snapshot!(error, @"could not store `x` at destination `lake`: PUT http://localhost:9000/reports/x with [secret] - 403 Forbidden: SignatureDoesNotMatch: It differs.");
        assert!(!format!("{error:?}").contains("canary"));
    }
}
